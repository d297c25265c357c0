"""A file and example inputs together: the graph, and the arrays the planner measures with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph
from fastcnn.engine.onnx_import.errors import OnnxError
from fastcnn.engine.onnx_import.load import import_onnx


def graph_and_inputs(path: str | Path, example_inputs: Any) -> tuple[Graph, list[Array] | None]:
    """Import a file at the sizes of the example inputs.

    Parameters
    ----------
    path : str or Path
    example_inputs : ndarray, Tensor, tuple or list of them, dict by input name, or None
        float32, batch first. None takes the sizes that the file states.

    Returns
    -------
    Graph, list of ndarray or None
        The graph, and the inputs in its own order.

    Raises
    ------
    TypeError
        If an input is no float32 array.
    OnnxError
        (a ValueError) As :func:`fastcnn.engine.onnx_import.import_onnx`.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise OnnxError(
            f"{path} does not end in .onnx: compile takes a torch model or an ONNX file; .fcnn goes to load"
        )
    if example_inputs is None:
        return import_onnx(path), None
    if isinstance(example_inputs, Mapping):
        named = {name: _array(value, str(name)) for name, value in example_inputs.items()}
        graph = import_onnx(path, {name: array.shape for name, array in named.items()})
        missing = [value.name for value in graph.inputs if value.name not in named]
        if missing:
            raise OnnxError(f"{path}: example inputs for {missing} are missing")
        return graph, [named[value.name] for value in graph.inputs]
    values = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    arrays = [_array(value, str(i)) for i, value in enumerate(values)]
    return import_onnx(path, [array.shape for array in arrays]), arrays


def _array(value: Any, name: str) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"example input {name} must be a numpy array or a tensor, got {type(value).__name__}")
    if value.dtype != np.float32:
        raise TypeError(f"example input {name} must be float32, got {value.dtype}: cast it with x.astype('float32')")
    return np.ascontiguousarray(value)
