"""What every engine of a benchmark fulfils."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastcnn.reporting.host import installed

F32 = npt.NDArray[np.float32]
Runner = Callable[[F32], npt.NDArray[Any]]


class Engine(ABC):
    """An inference engine, as a benchmark sees it.

    Attributes
    ----------
    name : str
        The word on the command line.
    modules : tuple of str
        What must be importable.
    distribution : str
        Whose version is reported.
    extra : str
        The extra of fastcnn that brings it.
    variants : tuple of str
        Ways to run it; the fastest counts.
    converts : bool
        Whether it needs files of its own; if not, it reads an exported form as it is.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    distribution: ClassVar[str]
    extra: ClassVar[str] = "bench"
    variants: ClassVar[tuple[str, ...]] = ("default",)
    converts: ClassVar[bool] = False

    def convert(self, folder: Path, example: F32) -> None:
        """Turn the exported model in ``folder`` into this engine's own files there."""
        raise NotImplementedError(f"{self.name} reads an exported form as it is")

    @abstractmethod
    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Load the files for inputs shaped like ``example`` (N, C, H, W) and return a callable."""

    @classmethod
    def variants_at(cls, batch: int) -> tuple[str, ...]:
        """The variants that differ at this batch size."""
        return cls.variants

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """Modules that are not installed; nothing is imported to find out."""
        return tuple(module for module in cls.modules if not installed(module))

    @classmethod
    def version(cls) -> str:
        """Version of the installed distribution, or an empty string."""
        try:
            return importlib.metadata.version(cls.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""
