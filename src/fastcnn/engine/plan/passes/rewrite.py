"""What the passes share: renaming values, dropping what nothing reads, fresh weight names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastcnn.engine.graph.graph import Array, Graph, Node, live


def rebuild(
    graph: Graph, nodes: Iterable[Node], *, renamed: Mapping[str, str] | None = None, weights: Mapping[str, Array]
) -> Graph:
    """Make a new graph of ``nodes``: values renamed, dead nodes and unused weights dropped.

    Parameters
    ----------
    graph : Graph
        Where inputs, outputs and torch calls come from; left alone.
    nodes : iterable of Node
        In execution order.
    renamed : mapping of str to str
        Old value to the value that takes its place; chains are followed.
    weights : mapping of str to ndarray
        Old and new weights.
    """
    table = dict(renamed or {})

    def current(name: str) -> str:
        while name in table:
            name = table[name]
        return name

    outputs = tuple(current(name) for name in graph.outputs)
    rewired = [_rewire(node, tuple(current(name) for name in node.inputs)) for node in nodes]
    kept, kept_weights = live(rewired, outputs, weights)
    names = {node.name for node in kept}
    return Graph(
        inputs=graph.inputs,
        nodes=kept,
        outputs=outputs,
        weights=kept_weights,
        torch_calls={key: call for key, call in graph.torch_calls.items() if key in names},
    )


def _rewire(node: Node, inputs: tuple[str, ...]) -> Node:
    if inputs == node.inputs:
        return node
    epilogue = node.attrs.get("epilogue")
    if epilogue is not None and epilogue["residual"] is not None:
        return node.with_(inputs=inputs, attrs={**node.attrs, "epilogue": {**epilogue, "residual": inputs[-1]}})
    return node.with_(inputs=inputs)


def use_counts(graph: Graph) -> dict[str, int]:
    """How often each value is read; being an output counts as one read."""
    counts: dict[str, int] = {value.name: 0 for value in graph.inputs} | {node.name: 0 for node in graph.nodes}
    for node in graph.nodes:
        for name in node.inputs:
            counts[name] += 1
    for name in graph.outputs:
        counts[name] += 1
    return counts


def fresh_key(wanted: str, weights: Mapping[str, Array]) -> str:
    """Return a weight name that is not taken."""
    key, count = wanted, 0
    while key in weights:
        count += 1
        key = f"{wanted}.{count}"
    return key
