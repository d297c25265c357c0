"""A graph's structure from JSON: the counterpart of ``Graph.to_json``, for untrusted input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastcnn.engine.graph.graph import Array, Graph, GraphError, GraphInput, Node
from fastcnn.engine.graph.ops import check_graph
from fastcnn.engine.graph.schema import MAX_INPUTS, MAX_NODES, MAX_RANK, is_integer, show

_NODE_FIELDS = {"name", "op", "inputs", "params", "attrs", "source"}


def graph_from_json(structure: Mapping[str, Any], weights: Mapping[str, Array]) -> Graph:
    """Rebuild and fully check a graph.

    Parameters
    ----------
    structure : mapping
        As ``Graph.to_json`` gives it: ``inputs``, ``nodes``, ``outputs``.
    weights : mapping of str to ndarray
        The arrays the nodes name.

    Raises
    ------
    GraphError
        For anything that is not a well-formed graph; no other exception.
    """
    fields = _object(structure, {"inputs", "nodes", "outputs"}, "graph")
    inputs = tuple(_input(item, i) for i, item in enumerate(_list(fields["inputs"], MAX_INPUTS, "inputs")))
    nodes = [_node(item, i) for i, item in enumerate(_list(fields["nodes"], MAX_NODES, "nodes"))]
    outputs = tuple(
        _text(name, f"outputs[{i}]") for i, name in enumerate(_list(fields["outputs"], MAX_INPUTS, "outputs"))
    )
    graph = Graph(inputs=inputs, nodes=nodes, outputs=outputs, weights=dict(weights))
    check_graph(graph)
    return graph


def _object(value: object, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise GraphError(f"{what} must be an object, got {type(value).__name__}")
    if set(value) != keys:
        raise GraphError(f"{what} must have the fields {sorted(keys)}, got {show(list(value))}")
    return dict(value)


def _list(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise GraphError(f"{what} must be a list, got {type(value).__name__}")
    if len(value) > most:
        raise GraphError(f"{what} has {len(value)} entries; at most {most} are allowed")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise GraphError(f"{what} must be a string, got {type(value).__name__}")
    return value


def _input(item: object, index: int) -> GraphInput:
    what = f"inputs[{index}]"
    fields = _object(item, {"name", "shape", "dtype", "fixed"}, what)
    shape = _list(fields["shape"], MAX_RANK, f"{what}.shape")
    fixed = _list(fields["fixed"], MAX_RANK, f"{what}.fixed")
    if not all(is_integer(n) for n in (*shape, *fixed)):
        raise GraphError(f"{what}: shape and fixed must hold integers")
    return GraphInput(
        name=_text(fields["name"], f"{what}.name"),
        shape=tuple(shape),
        dtype=_text(fields["dtype"], f"{what}.dtype"),
        fixed=tuple(fixed),
    )


def _node(item: object, index: int) -> Node:
    what = f"nodes[{index}]"
    fields = _object(item, _NODE_FIELDS, what)
    params, attrs = fields["params"], fields["attrs"]
    if not isinstance(params, Mapping) or not all(isinstance(v, str) for kv in params.items() for v in kv):
        raise GraphError(f"{what}.params must map roles to weight names")
    if not isinstance(attrs, Mapping) or not all(isinstance(key, str) for key in attrs):
        raise GraphError(f"{what}.attrs must be an object")
    return Node(
        name=_text(fields["name"], f"{what}.name"),
        op=_text(fields["op"], f"{what}.op"),
        inputs=tuple(_text(v, f"{what}.inputs") for v in _list(fields["inputs"], MAX_INPUTS, f"{what}.inputs")),
        params=dict(params),
        attrs=dict(attrs),
        source=_text(fields["source"], f"{what}.source"),
    )
