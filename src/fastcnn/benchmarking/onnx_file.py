"""An ONNX file as the net to time: the same file for every engine that reads ONNX, and its exact outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require
from fastcnn.benchmarking.files import EXACT, INPUTS, ONNX, ONNX_ONE

F32 = npt.NDArray[np.float32]

READERS = ("onnxruntime", "openvino", "openvino-default", "mnn")
"""Peers that take the file itself."""


def place_file(path: Path, inputs: F32, folder: Path) -> None:
    """Write inputs, float64 outputs and the file (external data taken in) into ``folder``.

    Parameters
    ----------
    path : Path
        A file that :func:`fastcnn.engine.onnx_import.import_onnx` accepts: it is checked here first.
    inputs : ndarray of float32, shape (K, N, C, H, W)
        K batches.
    folder : Path

    Raises
    ------
    ValueError
        If the import refuses the file, or the net has not one input and one output.
    """
    onnx: Any = require("onnx", extra="onnx", purpose="timing an ONNX file")
    from fastcnn.engine.onnx_import import OnnxNotSupportedError, import_onnx

    graph = import_onnx(path, [inputs.shape[1:]])
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise OnnxNotSupportedError(
            f"{path} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; a benchmark needs one of each"
        )
    np.save(folder / INPUTS, inputs)
    np.save(folder / EXACT, exact_outputs_of_file(path, inputs))
    onnx.save(onnx.load(path), folder / ONNX)
    (folder / ONNX_ONE).symlink_to(folder / ONNX)


def readers_among(peers: Sequence[str], *, explicit: bool, path: Path) -> tuple[str, ...]:
    """Return the peers that read ONNX.

    Raises
    ------
    ValueError
        If another one was asked for by name.
    """
    others = [peer for peer in peers if peer not in READERS]
    if others and explicit:
        raise ValueError(f"{path} is an ONNX file, which {', '.join(others)} cannot read: choose from {list(READERS)}")
    return tuple(peer for peer in peers if peer in READERS)


def exact_outputs_of_file(path: Path, inputs: F32) -> npt.NDArray[np.float64]:
    """Run a float64 copy of the file in onnx's own reference evaluator, (K, N, C, H, W) -> (K, N, ...).

    A file that states its batch is run in groups of that many pictures, as every engine would.
    """
    require("onnx", extra="onnx", purpose="checking an ONNX file's outputs")
    from onnx import load
    from onnx.reference import ReferenceEvaluator

    model = load(path)
    _widen(model)
    (value,) = (v for v in model.graph.input if v.name not in {t.name for t in model.graph.initializer})
    stated = value.type.tensor_type.shape.dim[0].dim_value
    group = stated if stated > 0 and inputs.shape[1] % stated == 0 else inputs.shape[1]
    evaluator: Any = ReferenceEvaluator(model)
    flat = inputs.reshape(-1, group, *inputs.shape[2:]).astype(np.float64)
    with np.errstate(all="ignore"):
        outputs = [np.asarray(evaluator.run(None, {value.name: batch})[0], np.float64) for batch in flat]
    whole = np.concatenate(outputs)
    return whole.reshape(*inputs.shape[:2], *whole.shape[1:])


def _widen(model: Any) -> None:
    """Turn every float32 of a model into float64."""
    from onnx import AttributeProto, TensorProto, numpy_helper

    def widen(tensor: Any) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            name, array = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), name))

    for tensor in model.graph.initializer:
        widen(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                widen(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del model.graph.value_info[:]
