"""Cut a graph at its torch steps: native stretches in between, each a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastcnn.engine.graph.graph import Graph, GraphInput, Node
from fastcnn.engine.graph.schema import Shape


@dataclass
class Segment:
    """A native stretch (``graph``), or one torch step (``node``). Values are named as in the whole graph."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph: Graph | None = None
    node: Node | None = None


def cut(graph: Graph, shapes: Mapping[str, Shape]) -> list[Segment]:
    """Return the segments in execution order; a graph without torch steps is one segment."""
    runs: list[list[Node]] = [[]]
    for node in graph.nodes:
        if node.op == "torch":
            runs += [[node], []]
        else:
            runs[-1].append(node)
    runs = [run for run in runs if run]
    if not runs:
        return [Segment(tuple(v.name for v in graph.inputs), graph.outputs, graph=graph)]
    segments = []
    for i, run in enumerate(runs):
        made = {node.name for node in run}
        later = {name for other in runs[i + 1 :] for node in other for name in node.inputs} | set(graph.outputs)
        inputs = list(dict.fromkeys(name for node in run for name in node.inputs if name not in made))
        outputs = tuple(node.name for node in run if node.name in later)
        if run[0].op == "torch":
            segments.append(Segment(run[0].inputs, (run[0].name,), node=run[0]))
            continue
        if i == len(runs) - 1 and len(runs) == 1:
            segments.append(Segment(tuple(v.name for v in graph.inputs), graph.outputs, graph=graph))
            continue
        weights = {key: graph.weights[key] for node in run for key in node.params.values()}
        sub = Graph(
            inputs=tuple(GraphInput(name=name, shape=shapes[name]) for name in inputs),
            nodes=run,
            outputs=outputs,
            weights=weights,
        )
        segments.append(Segment(tuple(inputs), outputs, graph=sub))
    return segments
