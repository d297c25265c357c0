"""Graph: named values, single-output nodes, numpy weights.

A value is named after the node (or graph input) that makes it. Nodes stand in
execution order. Shapes are not stored: :func:`fastcnn.engine.graph.shapes.infer_shapes`
derives them from the input shapes, so one graph serves every batch and image size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class GraphError(ValueError):
    """A graph that breaks its own rules: the message names node, field and rule."""


@dataclass(frozen=True, kw_only=True)
class GraphInput:
    """One input of the net.

    ``shape`` is the example shape, batch first; the engine plans for others when they come, except on the axes in
    ``fixed``: there the model's code has baked the extent in, and another one would be computed wrongly.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    fixed: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation with one output, whose value carries the node's name.

    Parameters
    ----------
    name : str
        Unique; also the name of the value this node makes.
    op : str
        A key of :data:`fastcnn.engine.graph.ops.OPS`.
    inputs : tuple of str
        Values (graph inputs or earlier nodes).
    params : mapping of str to str
        Role (``"weight"``, ``"bias"``, ``"codebook"`` ...) to key in ``Graph.weights``.
    attrs : mapping
        JSON-able attributes, as the op's schema demands.
    source : str
        Where it came from in the user's model (module path), for plans and reports.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def with_(self, **changes: Any) -> Node:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


@dataclass
class Graph:
    """Inputs, nodes in execution order, outputs, and the weights they name.

    ``torch_calls`` holds the callables behind ``torch`` nodes (operations outside the
    engine's set): each takes and returns numpy arrays. A graph that has any cannot be saved.
    """

    inputs: tuple[GraphInput, ...]
    nodes: list[Node]
    outputs: tuple[str, ...]
    weights: dict[str, Array]
    torch_calls: dict[str, Callable[..., Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise GraphError unless names are unique, defined before use, and weights exist."""
        seen: set[str] = set()
        for value in self.inputs:
            if value.name in seen:
                raise GraphError(f"input name {value.name!r} is used twice")
            seen.add(value.name)
        for node in self.nodes:
            if node.name in seen:
                raise GraphError(f"node name {node.name!r} is used twice")
            for name in node.inputs:
                if name not in seen:
                    raise GraphError(f"node {node.name!r} reads {name!r}, which nothing before it makes")
            for role, key in node.params.items():
                if key not in self.weights:
                    raise GraphError(f"node {node.name!r}: {role} names weight {key!r}, which is not in the graph")
            seen.add(node.name)
        for name in self.outputs:
            if name not in seen:
                raise GraphError(f"output {name!r} is made by no node")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def node(self, name: str) -> Node:
        """Return the node of that name; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def consumers(self) -> dict[str, list[Node]]:
        """Map every value to the nodes that read it, in order."""
        users: dict[str, list[Node]] = {value.name: [] for value in self.inputs}
        for node in self.nodes:
            users.setdefault(node.name, [])
            for name in node.inputs:
                users[name].append(node)
        return users

    def param(self, node: Node, role: str) -> Array | None:
        """Return the array behind a node's parameter, or None if the node has no such role."""
        key = node.params.get(role)
        return None if key is None else self.weights[key]

    def copy(self) -> Graph:
        """Shallow copy: node list and weight table are new, arrays are shared."""
        return Graph(
            inputs=self.inputs,
            nodes=list(self.nodes),
            outputs=self.outputs,
            weights=dict(self.weights),
            torch_calls=dict(self.torch_calls),
        )

    def prune_weights(self) -> None:
        """Drop weights that no node names any more."""
        used = {key for node in self.nodes for key in node.params.values()}
        for key in [key for key in self.weights if key not in used]:
            del self.weights[key]

    def to_json(self) -> dict[str, Any]:
        """Structure without arrays, JSON-able. Raises GraphError if a torch step is present."""
        for node in self.nodes:
            if node.op == "torch":
                raise GraphError(
                    f"node {node.name!r} ({node.attrs.get('target', '?')}) runs in torch and cannot be saved"
                )
        return {
            "inputs": [
                {"name": v.name, "shape": list(v.shape), "dtype": v.dtype, "fixed": list(v.fixed)} for v in self.inputs
            ],
            "nodes": [
                {
                    "name": n.name,
                    "op": n.op,
                    "inputs": list(n.inputs),
                    "params": dict(n.params),
                    "attrs": dict(n.attrs),
                    "source": n.source,
                }
                for n in self.nodes
            ],
            "outputs": list(self.outputs),
        }


def live(
    nodes: Sequence[Node], outputs: Iterable[str], weights: Mapping[str, Array]
) -> tuple[list[Node], dict[str, Array]]:
    """Return the nodes that the outputs depend on, in order, and the weights that these name."""
    used = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in used:
            kept.append(node)
            used.update(node.inputs)
    kept.reverse()
    keys = {key for node in kept for key in node.params.values()}
    return kept, {key: array for key, array in weights.items() if key in keys}


def nbytes(graph: Graph) -> int:
    """Bytes of all weights as they stand in the graph."""
    return int(sum(np.asarray(a).nbytes for a in graph.weights.values()))
