"""Programs: a planned net as one file that the C library runs without Python."""

from fastcnn.engine.program.library import c_flags, include_dir, library_path
from fastcnn.engine.program.write import ProgramReport, write_program

__all__ = ["ProgramReport", "c_flags", "include_dir", "library_path", "write_program"]
