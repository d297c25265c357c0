"""fastcnn: makes trained convolutional networks fast and small.

The public verbs and the methods' configs, and nothing else. Each is imported when first named, so that loading and
running a saved net needs neither torch nor the command line's libraries. Configs are found by the registry of methods:
a new method need not be named here.
"""

from __future__ import annotations

import importlib
import sys
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
    from fastcnn.compression.sensitivity import sensitivity as sensitivity
    from fastcnn.engine.api import CompiledNet as CompiledNet
    from fastcnn.engine.api import compile as compile
    from fastcnn.engine.api import load as load
    from fastcnn.methods.lowprecision import *  # noqa: F403  # their configs
    from fastcnn.methods.pruning import *  # noqa: F403  # their configs
    from fastcnn.methods.registry import list_methods as list_methods
    from fastcnn.methods.structured import *  # noqa: F403  # their configs
    from fastcnn.methods.transforms import *  # noqa: F403  # their configs
    from fastcnn.methods.vq import *  # noqa: F403  # their configs
    from fastcnn.reporting.doctor import doctor as doctor

__version__ = "0.1.0"

# name: (module, the extra that brings what it needs beside numpy and safetensors, or None)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "ArtifactError": ("fastcnn.artifact", None),
    "CompiledNet": ("fastcnn.engine.api", None),
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
    "sensitivity": ("fastcnn.compression.sensitivity", "compress"),
}

__all__ = [  # resolved by __getattr__
    "ArtifactError",
    "CompiledNet",
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
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, extra = _PUBLIC[name]
        if extra is not None:
            from fastcnn._extras import require

            require("torch", extra=extra, purpose=f"fastcnn.{name}")
        value = getattr(importlib.import_module(module), name)
    else:
        value = _configs().get(name) if name.endswith("Config") else None
        if value is None:
            raise AttributeError(
                f"module 'fastcnn' has no attribute {name!r}: choose from {', '.join(sorted(_PUBLIC))}, or a method's "
                "config: fastcnn.list_methods() lists them"
            )
    globals()[name] = value
    return value


def _configs() -> dict[str, Any]:
    """The methods' configs by name."""
    from fastcnn._extras import require

    require("torch", extra="compress", purpose="a method's config")
    from fastcnn.methods.registry import list_methods

    return {method.config.__name__: method.config for method in list_methods()}


def __dir__() -> list[str]:
    # Listing names must not import torch.
    return sorted({*globals(), *__all__, *(_configs() if "torch" in sys.modules else ())})
