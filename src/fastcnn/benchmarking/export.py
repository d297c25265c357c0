"""Write one model in every form the engines read, with inputs and exact outputs. Needs torch."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require
from fastcnn.benchmarking.files import EXACT, FCNN, INPUTS, ONNX, ONNX_ONE, TORCH_EXPORT, TORCHSCRIPT

if TYPE_CHECKING:
    import torch
    from torch import nn

F32 = npt.NDArray[np.float32]

_NEEDS = {
    "torch": (TORCH_EXPORT,),
    "onnxruntime": (ONNX,),
    "openvino": (ONNX,),
    "openvino-default": (ONNX,),
    "openvino-int8": (ONNX,),
    "mnn": (ONNX, ONNX_ONE),
    "ncnn": (TORCHSCRIPT,),
}


def export_model(model: nn.Module, inputs: F32, folder: Path, *, engines: Iterable[str]) -> None:
    """Write inputs, float64 outputs and the files that ``engines`` read into ``folder``.

    Parameters
    ----------
    model : nn.Module
        In eval mode; one input, one output. It is left as it is.
    inputs : ndarray of float32, shape (K, N, C, H, W)
        K batches.
    folder : Path
        Files that are already there are kept.
    engines : iterable of str
        Names of peers.

    Raises
    ------
    TypeError
        If the model does not give exactly one tensor.
    """
    import torch

    np.save(folder / INPUTS, inputs)
    # Never taken from a cache: these tell a stale file of an engine from a right one.
    np.save(folder / EXACT, exact_outputs(model, inputs))
    wanted = {file for engine in engines for file in _NEEDS.get(engine, ())}
    example = torch.from_numpy(inputs[0])
    with torch.no_grad(), warnings.catch_warnings():
        # Exporters warn about their own internals; what matters is checked by the outputs.
        warnings.simplefilter("ignore")
        if TORCH_EXPORT in wanted and not (folder / TORCH_EXPORT).is_file():
            torch.export.save(torch.export.export(model, (example,)), folder / TORCH_EXPORT)
        if ONNX in wanted and not (folder / ONNX).is_file():
            _export_onnx(model, example, folder / ONNX)
        if ONNX_ONE in wanted and len(example) > 1 and not (folder / ONNX_ONE).is_file():
            _export_onnx(model, example[:1], folder / ONNX_ONE)
        if TORCHSCRIPT in wanted and not (folder / TORCHSCRIPT).is_file():
            # ncnn has no batch axis, so its model is traced for one picture.
            trace: Any = torch.jit.trace
            trace(model, example[:1]).save(str(folder / TORCHSCRIPT))


def exact_outputs(model: nn.Module, inputs: F32) -> npt.NDArray[np.float64]:
    """Run a float64 copy of the model, (K, N, C, H, W) -> (K, N, ...)."""
    import torch

    double = copy.deepcopy(model).double().eval()
    outputs: list[npt.NDArray[np.float64]] = []
    with torch.inference_mode():
        for batch in inputs:
            y = double(torch.from_numpy(batch).double())
            if not isinstance(y, torch.Tensor):
                raise TypeError(f"the model gives a {type(y).__name__}; a benchmark needs one that gives one tensor")
            outputs.append(y.numpy())
    return np.stack(outputs)


def compile_ours(
    model: nn.Module | Path, inputs: F32, folder: Path, *, tolerance: str | float, threads: int, tune: bool = True
) -> dict[str, Any]:
    """Compile strictly, save to the folder with the plan inside, and say what was chosen."""
    from fastcnn.engine.api import compile as compile_net

    word: Any = tolerance
    net: Any = compile_net(model, inputs[0], tolerance=word, threads=threads, strict=True, tune=tune)
    net.save(folder / FCNN)
    return {
        "isa": str(net.isa),
        "plan": str(net.plan),
        "arena_bytes": int(net.plan.arena_bytes),
        "why": [step.why for step in net.plan.steps],
    }


def content_key(model: nn.Module, shape: tuple[int, ...]) -> str:
    """Hash of weights, structure, input shape and the versions that the exported files depend on."""
    torch: Any = require("torch", extra="compress", purpose="benchmarking a torch model")
    digest = hashlib.sha256()
    digest.update(json.dumps([list(shape), torch.__version__, repr(model)]).encode())
    for name, tensor in model.state_dict().items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:24]


def _export_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    require("onnxscript", extra="bench", purpose="exporting to ONNX")
    import torch

    # The exporter logs that torchvision's operators are missing; they are none of our business.
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    partial = path.with_suffix(".partial")
    try:
        torch.onnx.export(
            model,
            (example,),
            str(partial),
            input_names=["input"],
            output_names=["output"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    finally:
        log.setLevel(level)
    partial.replace(path)
