"""The MODEL string: ``package.module:callable`` (with weights), a .onnx file, or a .fcnn file."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._extras import require
from fastcnn.cli.errors import CliError

if TYPE_CHECKING:
    from torch import nn

_FORMS = "package.module:callable, a .onnx file, or a .fcnn file"
_SHOWN = 5


def is_file(text: str) -> bool:
    """Whether a MODEL string names a .fcnn file (it need not exist)."""
    return text.endswith(".fcnn")


def is_onnx(text: str) -> bool:
    """Whether a MODEL string names a .onnx file (it need not exist)."""
    return text.lower().endswith(".onnx")


def onnx_file(text: str, weights: str | None) -> Path:
    """Return the path of a .onnx MODEL.

    Raises
    ------
    CliError
        If it is missing or a folder, or weights are given beside it.
    """
    if weights is not None:
        raise CliError(f"--weights {weights!r} with a .onnx file, which holds its weights", hint="leave --weights out")
    path = Path(text).expanduser()
    if path.is_dir():
        raise CliError(f"MODEL {text!r} is a folder", hint="give the .onnx file itself")
    if not path.is_file():
        raise CliError(f"MODEL {text!r} does not exist", hint="check the path, or write it with torch.onnx.export")
    return path


def model_file(text: str) -> Path:
    """Return the path of a .fcnn MODEL.

    Raises
    ------
    CliError
        If it is not named .fcnn, is missing, or is a folder.
    """
    if not is_file(text):
        raise CliError(
            f"MODEL {text!r} is not a .fcnn file", hint="make one with  fastcnn compile MODEL --out FILE.fcnn"
        )
    path = Path(text).expanduser()
    if path.is_dir():
        raise CliError(f"MODEL {text!r} is a folder", hint="give the .fcnn file itself")
    if not path.is_file():
        raise CliError(f"MODEL {text!r} does not exist", hint="check the path, or make it with  fastcnn compile")
    return path


def torch_model(text: str, weights: str | None) -> nn.Module:
    """Import ``package.module:callable``, call it if need be, load the weights, and return it in eval mode.

    The current folder is searched first, so ``mynet:Net`` finds ./mynet.py.

    Raises
    ------
    CliError
        If the string, the module, the callable or the weights are not what they should be.
    MissingExtraError
        If torch is not installed.
    """
    require("torch", extra="compress", purpose=f"MODEL {text!r}")
    model = _build(text)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _build(text: str) -> nn.Module:
    from torch import nn

    module_name, colon, attribute = text.partition(":")
    names = (*module_name.split("."), *attribute.split("."))
    if not colon or not all(name.isidentifier() for name in names):
        raise CliError(f"MODEL {text!r} is not of a known form; allowed: {_FORMS}", hint="for example  mynet:Net")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise CliError(
                f"MODEL {text!r}: there is no module {missing!r} here or among the installed packages",
                hint="run from the folder that holds it, or install its package",
            ) from error
        raise CliError(
            f"MODEL {text!r}: module {module_name!r} needs {missing!r}, which is not installed",
            hint=f"install {missing}",
        ) from error
    except Exception as error:
        raise CliError(
            f"MODEL {text!r}: importing {module_name!r} fails with {type(error).__name__}: {error}",
            hint=f"python -c 'import {module_name}'  shows where",
        ) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            near = [n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n))][:_SHOWN]
            raise CliError(
                f"MODEL {text!r}: {module_name!r} has no {name!r}",
                hint=f"it has {', '.join(near)}" if near else "it has no callable at all",
            )
        found = getattr(found, name)
    if isinstance(found, nn.Module):
        return found
    return _call(found, text)


def _call(found: Any, text: str) -> nn.Module:
    from torch import nn

    if not callable(found):
        raise CliError(f"MODEL {text!r} is a {type(found).__name__}, not a callable", hint="name a class or function")
    needed = _required(found)
    if needed:
        raise CliError(
            f"MODEL {text!r} must be callable without arguments, but it needs {', '.join(needed)}",
            hint="name a function that fills them in:  def net(): return Net(10)",
        )
    try:
        model = found()
    except Exception as error:
        raise CliError(
            f"MODEL {text!r}: calling it fails with {type(error).__name__}: {error}",
            hint="call it yourself in Python to see where",
        ) from error
    if not isinstance(model, nn.Module):
        raise CliError(f"MODEL {text!r} gives a {type(model).__name__}", hint="it must give a torch.nn.Module")
    return model


def _required(found: Any) -> list[str]:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in open_ended]


def load_weights(model: nn.Module, weights: str) -> None:
    """Load FILE.safetensors, .pt or .pth strictly; nothing in the file can run code.

    Raises
    ------
    CliError
        If the file is missing, of another kind or damaged, or its keys or shapes differ from the model's.
    """
    path = Path(weights).expanduser()
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise CliError(
            f"--weights {weights!r} has ending {path.suffix!r}; allowed: .safetensors, .pt, .pth",
            hint="save with safetensors.torch.save_file(model.state_dict(), FILE)",
        )
    if not path.is_file():
        raise CliError(f"--weights {weights!r} is no file", hint="check the path")
    state = _read_state(path, weights)
    for name, value in model.state_dict().items():
        if name.rpartition(".")[2] == "num_batches_tracked":
            # Older files have no such counters, and only training reads them.
            state.setdefault(name, value)
    difference = _difference(model.state_dict(), state)
    if difference:
        raise CliError(
            f"--weights {weights!r} does not fit the model: {difference}",
            hint="give the file that was saved from this model",
        )
    model.load_state_dict(state)


def _read_state(path: Path, weights: str) -> dict[str, Any]:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CliError(
            f"--weights {weights!r} cannot be read as plain tensors: {first}",
            hint="save model.state_dict(), not the model; files that need pickle to run code are refused",
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CliError(
            f"--weights {weights!r} holds no state_dict (names to tensors)", hint="save model.state_dict() by itself"
        )
    return loaded


def _difference(wanted: dict[str, Any], given: dict[str, Any]) -> str:
    """Say what differs between two state dicts: names missing, names too many, shapes."""
    lines = []
    for word, names in (
        ("missing", [name for name in wanted if name not in given]),
        ("not in the model", [name for name in given if name not in wanted]),
        (
            "other shape",
            [
                f"{name} (file {tuple(given[name].shape)}, model {tuple(wanted[name].shape)})"
                for name in wanted
                if name in given and given[name].shape != wanted[name].shape
            ],
        ),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{word}: {', '.join(names[:_SHOWN])}{more}")
    return "; ".join(lines)
