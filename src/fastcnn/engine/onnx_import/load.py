"""``import_onnx``: a path in, a checked Graph out; and which axes of its inputs stay open.

Shapes that the file computes from its input become numbers in one walk. The file is therefore walked again at other
sizes: where the graphs agree, they hold for other sizes too; where they differ, the axis is marked fixed, and the
engine says so instead of computing something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, ValueInfoProto

from fastcnn.engine.graph.graph import Graph, GraphError
from fastcnn.engine.graph.ops import check_graph
from fastcnn.engine.graph.schema import MAX_NAME, MAX_RANK, MAX_SIZE, Shape, show
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.onnx_import import (
    activation,
    borders,
    convolution,
    elementwise,
    error_function,
    linear,
    normalisation,
    pooling,
    shape,
)
from fastcnn.engine.onnx_import.batchwise import is_batchwise
from fastcnn.engine.onnx_import.errors import OnnxError, OnnxNotSupportedError
from fastcnn.engine.onnx_import.read import Source, read_model
from fastcnn.engine.onnx_import.tensors import dtype_name
from fastcnn.engine.onnx_import.walk import Walk

HANDLER_FILES = (activation, borders, convolution, elementwise, error_function, linear, normalisation, pooling, shape)
"""Imported for their registrations in ``registry.HANDLERS``."""

Declared = tuple[int | str, ...]
"""Axes of an input as the file states them: an extent, or the name of an open one."""


def import_onnx(path: str | Path, shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read an ONNX file into a Graph; needs the onnx package, no torch.

    Parameters
    ----------
    path : str or Path
        A float32 net of opset 7 or newer. External data is read from the file's own folder only.
    shapes : sequence of shapes, or mapping of input name to shape, optional
        Example shape of every input, batch first. Without it the file's own sizes are taken, 1 for an open batch.

    Returns
    -------
    Graph
        Axes whose extent the file states, or bakes into its nodes, are listed in ``GraphInput.fixed``; a stated batch
        stays open where every node treats each picture by itself.

    Raises
    ------
    OSError
        If the file cannot be opened.
    OnnxError
        (a ValueError) If it is damaged or hostile, or ``shapes`` do not fit it.
    OnnxNotSupportedError
        (an OnnxError) If it holds an operation, or a variant of one, outside the engine's set: names node, op, domain.

    Examples
    --------
    >>> from onnx import TensorProto, checker, helper, save
    >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 8, 8]) for n in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="act")], "net", [x], [y])
    >>> save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "/tmp/doc.onnx")
    >>> [node.op for node in import_onnx("/tmp/doc.onnx")]
    ['relu']
    """
    source = read_model(Path(path))
    declared = _declared(source)
    example = _example(source, declared, shapes)
    stated = {name: _stated_batch(declared[name], wanted) for name, wanted in example.items()}
    graph = _with_fixed(Walk(source, stated).run(), source, declared, stated)
    for value in graph.inputs:
        if 0 in value.fixed and example[value.name][0] != value.shape[0]:
            raise OnnxError(
                f"{path}: input {value.name!r} has shape {example[value.name]}, but the file states a batch of "
                f"{value.shape[0]} and its nodes depend on it: export the net with a dynamic batch"
            )
    if not graph.nodes:
        raise OnnxNotSupportedError(f"{path}: the net does nothing: its outputs are its inputs")
    graph = replace(graph, inputs=tuple(replace(value, shape=example[value.name]) for value in graph.inputs))
    try:
        check_graph(graph)
    except GraphError as error:
        raise OnnxError(f"{path}: {error}") from None
    return graph


def _declared(source: Source) -> dict[str, Declared]:
    """Inputs of the net (initializers may be listed among them) and their axes."""
    found: dict[str, Declared] = {}
    for value in source.model.graph.input:
        if value.name in source.tensors:
            continue
        where = f"{source.path}: input {show(value.name)}"
        if not 1 <= len(value.name) <= MAX_NAME or not value.name.isprintable():
            raise OnnxError(f"{where}: its name must be 1..{MAX_NAME} printable characters")
        if not value.type.HasField("tensor_type"):
            raise OnnxNotSupportedError(f"{where} is no tensor")
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            raise OnnxNotSupportedError(f"{where} is {dtype_name(kind)}: the engine takes float32")
        found[value.name] = _axes(value, where)
    if not found:
        raise OnnxError(f"{source.path}: the net has no input")
    return found


def _axes(value: ValueInfoProto, where: str) -> Declared:
    dims = value.type.tensor_type.shape.dim
    if not 1 <= len(dims) <= MAX_RANK:
        raise OnnxNotSupportedError(f"{where} has {len(dims)} axes; 1..{MAX_RANK} are supported")
    out: list[int | str] = []
    for i, dim in enumerate(dims):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            if not 1 <= dim.dim_value <= MAX_SIZE:
                raise OnnxError(f"{where}: axis {i} is {dim.dim_value}; allowed is 1..{MAX_SIZE}")
            out.append(dim.dim_value)
        else:
            out.append(dim.dim_param or f"axis {i}")
    return tuple(out)


def _example(
    source: Source,
    declared: Mapping[str, Declared],
    shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None,
) -> dict[str, Shape]:
    given: dict[str, Sequence[int]] = {}
    if isinstance(shapes, Mapping):
        given = dict(shapes)
    elif shapes is not None:
        if len(shapes) != len(declared):
            raise OnnxError(
                f"{source.path} takes {len(declared)} inputs ({', '.join(declared)}), got {len(shapes)} shapes"
            )
        given = dict(zip(declared, shapes, strict=True))
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise OnnxError(f"{source.path} has no inputs {unknown}: it takes {list(declared)}")
    return {name: _one_example(source, name, stated, given.get(name)) for name, stated in declared.items()}


def _one_example(source: Source, name: str, stated: Declared, given: Sequence[int] | None) -> Shape:
    where = f"{source.path}: input {name!r}"
    if given is not None:
        shape = tuple(int(n) for n in given)
        if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1 or max(shape) > MAX_SIZE:
            raise OnnxError(f"{where}: shape {shape} needs 1..{MAX_RANK} axes, none of them empty")
        if len(stated) != len(shape):
            raise OnnxError(f"{where} must have {len(stated)} axes like {_text(stated)}, got shape {shape}")
        for i, (n, wanted) in enumerate(zip(shape, stated, strict=True)):
            if i > 0 and isinstance(wanted, int) and n != wanted:
                raise OnnxError(
                    f"{where} has shape {shape}, but the file states {wanted} on axis {i}: give {_text(stated)}, "
                    f"or export the net with that axis dynamic"
                )
        return shape
    open_axes = [n for i, n in enumerate(stated) if i > 0 and isinstance(n, str)]
    if open_axes:
        raise OnnxError(f"{where} has shape {_text(stated)}: give an example input, or its shape")
    return tuple(1 if isinstance(n, str) else n for n in stated)


def _stated_batch(stated: Declared, example: Shape) -> Shape:
    """Return the example's shape with the batch that the file states, if it states one."""
    return (stated[0], *example[1:]) if isinstance(stated[0], int) else example


def _text(stated: Declared) -> str:
    return "(" + ", ".join(map(str, stated)) + ")"


def _with_fixed(graph: Graph, source: Source, declared: Mapping[str, Declared], example: Mapping[str, Shape]) -> Graph:
    """Mark the axes that may not change: stated ones (the batch excepted), and those the graph depends on."""

    def is_open(name: str, i: int) -> bool:
        return isinstance(declared[name][i], str)

    def grown(grow: Callable[[int], int], *, batch: bool) -> dict[str, Shape]:
        return {
            name: tuple(grow(n) if (i == 0 if batch else i > 0 and is_open(name, i)) else n for i, n in enumerate(x))
            for name, x in example.items()
        }

    if any(is_open(name, 0) for name in declared):
        batch = _same(graph, _try(source, grown(lambda n: n + 1, batch=True)))
    else:
        batch = len({x[0] for x in example.values()}) == 1 and is_batchwise(graph, infer_shapes(graph, example))
    rest = True
    if any(is_open(name, i) for name, x in example.items() for i in range(1, len(x))):
        attempts = [_try(source, grown(grow, batch=False)) for grow in (lambda n: 2 * n, lambda n: n + 3)]
        walked = [other for other in attempts if other is not None]
        rest = bool(walked) and all(_same(graph, other) for other in walked)
    inputs = tuple(
        replace(
            value,
            fixed=tuple(
                i for i in range(len(value.shape)) if (not batch if i == 0 else not (rest and is_open(value.name, i)))
            ),
        )
        for value in graph.inputs
    )
    return replace(graph, inputs=inputs)


def _try(source: Source, shapes: Mapping[str, Shape]) -> Graph | None:
    """Walk at other sizes; None where the file refuses them."""
    try:
        return Walk(source, shapes).run()
    except OnnxError:
        return None


def _same(a: Graph, b: Graph | None) -> bool:
    """Whether two graphs do the same, apart from the inputs' example shapes."""
    if b is None or a.nodes != b.nodes or a.outputs != b.outputs or a.weights.keys() != b.weights.keys():
        return False
    return all(a.weights[key] is b.weights[key] or np.array_equal(a.weights[key], b.weights[key]) for key in a.weights)
