"""From a graph to an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._files import write_atomically
from fastcnn.engine.graph.graph import Graph, GraphError
from fastcnn.engine.graph.ops import where
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.onnx_export.handlers import HANDLERS, Writer
from fastcnn.engine.plan.passes import expand_binary, expand_codebook, expand_structured

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR = 17, 8


def to_model(graph: Graph, shapes: Sequence[Shape]) -> ModelProto:
    """A graph in standard ONNX operations, its first axis of any size.

    Layers of 8 bits become quantise-dequantise pairs about float layers, as engines expect them; codebooks, structured
    layers and signs are written out as dense weights.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of the inputs.

    Raises
    ------
    GraphError
        (a ValueError) For an op that ONNX, or this release, has no form for; it names the node.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    inputs = {value.name: tuple(shape) for value, shape in zip(graph.inputs, shapes, strict=True)}
    graph = expand_codebook.run(graph, infer_shapes(graph, inputs))
    graph = expand_structured.run(graph, infer_shapes(graph, inputs), keep=expand_structured.nothing)
    graph = expand_binary.run(graph, infer_shapes(graph, inputs), keep=expand_binary.nothing)
    known = infer_shapes(graph, inputs)
    writer = Writer(graph.weights, known)
    for node in graph.nodes:
        handler = HANDLERS.get(node.op)
        try:
            if handler is None:
                raise GraphError(f"{node.op} has no form in ONNX of this release")
            handler(writer, node)
        except GraphError as error:
            raise GraphError(f"{where(node)} cannot be exported: {error}") from None

    def described(name: str) -> Any:
        shape = known[name]
        dims: list[Any] = ["batch", *shape[1:]] if shape else []
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    body = helper.make_graph(
        writer.nodes,
        "fastcnn",
        [described(value.name) for value in graph.inputs],
        [described(name) for name in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in writer.constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    model.producer_name = "fastcnn"
    checker.check_model(model)
    return model


def export_onnx(graph: Graph, shapes: Sequence[Shape], path: str | Path) -> None:
    """Write :func:`to_model` to a file, aside first.

    Raises
    ------
    GraphError
        As :func:`to_model` does.
    MissingExtraError
        Without the onnx package.
    OSError
        If the file cannot be written.
    """
    from fastcnn._extras import require

    require("onnx", extra="onnx", purpose="ONNX export")
    write_atomically(Path(path), to_model(graph, shapes).SerializeToString())
