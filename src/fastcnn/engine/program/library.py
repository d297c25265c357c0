"""Where the C library and its header are, and what the library says of a file."""

from __future__ import annotations

import ctypes
import shlex
import sys
from functools import lru_cache
from pathlib import Path

from fastcnn import _native

_NAMES = {"darwin": "libfastcnn.dylib", "win32": "fastcnn.dll"}


def _root() -> Path:
    # Beside the native module, which in an editable installation is not where the Python files are.
    return Path(str(_native.__file__)).resolve().parent


def include_dir() -> Path:
    """Folder of ``fastcnn.h``."""
    return _root() / "include"


def library_path() -> Path:
    """The shared library.

    Raises
    ------
    FileNotFoundError
        If this installation was built without it.
    """
    path = _root() / "lib" / _NAMES.get(sys.platform, "libfastcnn.so")
    if not path.is_file():
        raise FileNotFoundError(f"the C library {path} is not there: reinstall fastcnn, which builds and installs it")
    return path


def c_flags() -> str:
    """Flags for a C compiler: header, library, and where the program finds it when it runs.

    A flag whose path has spaces or other characters special to a shell is quoted. A shell drops quotes only from what
    it parses itself, so such an installation needs ``eval`` on a command line; rules of make need nothing, and from
    Python ``shlex.split`` takes the flags apart.

    Examples
    --------
    ``cc -O2 classify.c $(fastcnn export --c-flags) -o classify``

    ``eval "cc -O2 classify.c $(fastcnn export --c-flags) -o classify"`` where the path has spaces
    """
    folder = library_path().parent
    return shlex.join([f"-I{include_dir()}", f"-L{folder}", "-lfastcnn", f"-Wl,-rpath,{folder}"])


class _Error(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 512),)


@lru_cache
def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.fastcnn_load.argtypes = [
        ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(_Error),
    ]  # fmt: skip
    library.fastcnn_load.restype = ctypes.c_int
    library.fastcnn_free.argtypes = [ctypes.c_void_p]
    library.fastcnn_free.restype = None
    return library


def refusal(path: Path) -> str | None:
    """Load a program with the C library; None if it loads, else its message.

    Raises
    ------
    FileNotFoundError
        Without the C library.
    """
    library = _loaded(library_path())
    net, error = ctypes.c_void_p(), _Error()
    status = library.fastcnn_load(str(path).encode(), None, ctypes.byref(net), ctypes.byref(error))
    library.fastcnn_free(net)
    return None if status == 0 else error.message.decode(errors="replace").removeprefix(f"{path}: ")
