"""Shapes and multiply-adds of every value, for any batch and image size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph, GraphError, GraphInput, Node
from fastcnn.engine.graph.ops import OPS, where
from fastcnn.engine.graph.schema import MAX_ELEMENTS, MAX_RANK, MAX_SIZE, Shape, is_integer


def infer_shapes(graph: Graph, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Derive the shape of every value from the shapes of the inputs.

    Parameters
    ----------
    graph : Graph
        A checked graph (:func:`fastcnn.engine.graph.ops.check_graph`).
    input_shapes : mapping of str to sequence of int
        One shape per graph input, batch first.

    Returns
    -------
    dict of str to tuple of int
        Inputs and every node's output.

    Raises
    ------
    GraphError
        (a ValueError) When an input is missing or does not fit a layer: names the layer, what it expects and what came.
    """
    shapes: dict[str, Shape] = {}
    for value in graph.inputs:
        if value.name not in input_shapes:
            raise GraphError(f"no shape was given for input {value.name!r}")
        shapes[value.name] = _checked_input(value, input_shapes[value.name])
    unknown = sorted(set(input_shapes) - set(shapes))
    if unknown:
        raise GraphError(f"unknown inputs {unknown}: this graph takes {[v.name for v in graph.inputs]}")
    for node in graph.nodes:
        shapes[node.name] = _node_shape(graph, node, shapes)
    return shapes


def macs(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Multiply-adds of every node (zero for ops that are not convolutions or matrix products).

    Parameters
    ----------
    graph : Graph
    shapes : mapping
        From :func:`infer_shapes`.
    """
    result: dict[str, int] = {}
    for node in graph.nodes:
        rule = OPS[node.op].macs
        inputs = [shapes[name] for name in node.inputs]
        result[node.name] = 0 if rule is None else rule(node, inputs, _param_shapes(graph, node), shapes[node.name])
    return result


def _checked_input(value: GraphInput, shape: Sequence[int]) -> Shape:
    name, extents = value.name, tuple(shape)
    if len(extents) != len(value.shape):
        raise GraphError(f"input {name!r} must have {len(value.shape)} axes like {value.shape}, got shape {extents}")
    if not all(is_integer(n) or isinstance(n, np.integer) for n in extents):
        raise GraphError(f"input {name!r}: extents must be integers, got {extents}")
    result = tuple(int(n) for n in extents)
    if min(result) < 1 or max(result) > MAX_SIZE:
        raise GraphError(f"input {name!r} has shape {result}: every extent must be in 1..{MAX_SIZE}")
    for axis in value.fixed:
        if result[axis] != value.shape[axis]:
            raise GraphError(
                f"input {name!r} has shape {result}, but axis {axis} must be {value.shape[axis]}: the model computes "
                f"with that size in its own code; capture it again with inputs of the wanted size"
            )
    _check_size(f"input {name!r}", result)
    return result


def _check_size(what: str, shape: Shape) -> None:
    if math.prod(shape) > MAX_ELEMENTS:
        raise GraphError(f"{what}: shape {shape} has more than {MAX_ELEMENTS} elements")


def _param_shapes(graph: Graph, node: Node) -> dict[str, Shape]:
    return {role: graph.weights[key].shape for role, key in node.params.items()}


def _node_shape(graph: Graph, node: Node, shapes: Mapping[str, Shape]) -> Shape:
    inputs = [shapes[name] for name in node.inputs]
    if node.op == "torch":
        return _torch_shape(graph.torch_calls.get(node.attrs["key"]), node, inputs)
    try:
        shape = OPS[node.op].shape(node, inputs, _param_shapes(graph, node))
    except GraphError as error:
        raise GraphError(f"{where(node)}: {error}") from None
    if len(shape) > MAX_RANK:
        raise GraphError(f"{where(node)}: output shape {shape} has more than {MAX_RANK} axes")
    _check_size(where(node), shape)
    residual = node.attrs["epilogue"]["residual"] if "epilogue" in node.attrs else None
    if residual is not None and shapes[residual] != shape:
        raise GraphError(f"{where(node)}: residual {residual!r} has shape {shapes[residual]}, the output {shape}")
    return shape


def _torch_shape(call: Callable[..., Array] | None, node: Node, inputs: Sequence[Shape]) -> Shape:
    """Ask the step for its output shape; a plain callable without ``output_shape`` is run on zeros."""
    if call is None:
        raise GraphError(f"{where(node)}: no callable stands under key {node.attrs['key']!r}")
    rule: Any = getattr(call, "output_shape", None)
    try:
        if rule is not None:
            return tuple(int(n) for n in rule(*inputs))
        return tuple(np.shape(call(*(np.zeros(shape, np.float32) for shape in inputs))))
    except Exception as error:  # torch raises many kinds; the caller is promised one
        raise GraphError(
            f"{where(node)}: {node.attrs['target']} does not take shapes {list(inputs)}: {error}"
        ) from error
