"""fastcnn itself, from a .fcnn file with its saved plan: the timed process never sees torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import FCNN


class OurEngine(Engine):
    """``fastcnn.load(FILE, plan="saved")``; the file is written once, before the first block."""

    name: ClassVar[str] = "fastcnn"
    modules: ClassVar[tuple[str, ...]] = ("fastcnn._native",)
    distribution: ClassVar[str] = "fastcnn"

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Load the file with the plan it carries."""
        from fastcnn.engine.api import load

        net: Any = load(folder / FCNN, threads=threads, plan="saved")

        def call(x: F32) -> Any:
            y = net(x)
            return np.asarray(y[0] if isinstance(y, tuple) else y)

        return call
