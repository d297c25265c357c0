"""fastcnn: makes trained convolutional networks fast and small.

The public verbs, and nothing else. Each is imported when first named, so that loading and running a
saved net needs neither torch nor the command line's libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcnn.artifact import ArtifactError as ArtifactError
    from fastcnn.artifact import inspect as inspect
    from fastcnn.benchmarking.benchmark import benchmark as benchmark
    from fastcnn.compression.convert import convert as convert
    from fastcnn.compression.convert import prepare as prepare
    from fastcnn.compression.finetune import finetune as finetune
    from fastcnn.compression.report import report as report
    from fastcnn.compression.run_recipe import run_recipe as run_recipe
    from fastcnn.engine.api import CompiledNet as CompiledNet
    from fastcnn.engine.api import compile as compile
    from fastcnn.engine.api import load as load
    from fastcnn.methods.pruning.deep_compression import DeepCompressionConfig as DeepCompressionConfig
    from fastcnn.methods.pruning.magnitude import MagnitudeConfig as MagnitudeConfig
    from fastcnn.methods.registry import list_methods as list_methods
    from fastcnn.methods.transforms.fft_conv import FFTConfig as FFTConfig
    from fastcnn.methods.transforms.winograd_conv import WinogradConfig as WinogradConfig
    from fastcnn.methods.vq.scalar import KMeansConfig as KMeansConfig
    from fastcnn.reporting.doctor import doctor as doctor

__version__ = "0.1.0"

# name: (module, the extra that brings what it needs beside numpy and safetensors, or None)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "ArtifactError": ("fastcnn.artifact", None),
    "CompiledNet": ("fastcnn.engine.api", None),
    "DeepCompressionConfig": ("fastcnn.methods.pruning.deep_compression", "compress"),
    "FFTConfig": ("fastcnn.methods.transforms.fft_conv", "compress"),
    "KMeansConfig": ("fastcnn.methods.vq.scalar", "compress"),
    "MagnitudeConfig": ("fastcnn.methods.pruning.magnitude", "compress"),
    "WinogradConfig": ("fastcnn.methods.transforms.winograd_conv", "compress"),
    "benchmark": ("fastcnn.benchmarking", None),
    "compile": ("fastcnn.engine.api", None),  # torch for a model, onnx for a file: it asks itself
    "convert": ("fastcnn.compression.convert", "compress"),
    "doctor": ("fastcnn.reporting.doctor", None),
    "finetune": ("fastcnn.compression.finetune", "compress"),
    "inspect": ("fastcnn.artifact", None),
    "list_methods": ("fastcnn.methods.registry", "compress"),
    "load": ("fastcnn.engine.api", None),
    "prepare": ("fastcnn.compression.convert", "compress"),
    "report": ("fastcnn.compression.report", "compress"),
    "run_recipe": ("fastcnn.compression.run_recipe", "compress"),
}

__all__ = [  # resolved by __getattr__
    "ArtifactError",
    "CompiledNet",
    "DeepCompressionConfig",
    "FFTConfig",
    "KMeansConfig",
    "MagnitudeConfig",
    "WinogradConfig",
    "__version__",
    "benchmark",
    "compile",
    "convert",
    "doctor",
    "finetune",
    "inspect",
    "list_methods",
    "load",
    "prepare",
    "report",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastcnn' has no attribute {name!r}: choose from {', '.join(sorted(_PUBLIC))}")
    module, extra = _PUBLIC[name]
    if extra is not None:
        from fastcnn._extras import require

        require("torch", extra=extra, purpose=f"fastcnn.{name}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
