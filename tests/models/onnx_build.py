"""Small ONNX nets written with onnx.helper, and what onnxruntime says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]

IR_OF_OPSET = {20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 12, 26: 13, 27: 13, 28: 14}
"""Lowest IR version that goes with a new opset; 8 serves the older ones."""
ORT_OPSET = 23
"""Newest opset whose standard operations onnxruntime runs without a word of warning."""


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Dims],
    *,
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> ModelProto:
    """Make a model; every output is float32 of unstated shape."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    ir = IR_OF_OPSET.get(opset, 8)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def single(
    op: str,
    shape: Dims,
    *constants: Any,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    domain: str = "",
    **attributes: Any,
) -> ModelProto:
    """Make a net of one node: input x first, then constants (None leaves one out)."""
    names = ["x", *(f"c{i}" if array is not None else "" for i, array in enumerate(constants))]
    node = helper.make_node(op, names, list(outputs), name="node", domain=domain, **attributes)
    given = {f"c{i}": array for i, array in enumerate(constants) if array is not None}
    return model([node], {"x": shape}, constants=given, outputs=[o for o in outputs if o], opset=opset)


def write(net: ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Save a model."""
    path = folder / name
    onnx.save(net, path)
    return path


def run_onnxruntime(net: ModelProto | Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model in onnxruntime, one thread, its graph optimisations off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    given = str(net) if isinstance(net, Path) else net.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(feeds))]
