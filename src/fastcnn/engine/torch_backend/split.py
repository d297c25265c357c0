"""Cut a graph of torch.compile in two: a net of float32 tensors, and the little behind it that is none.

Outputs that a net cannot return (comparisons, indices, numbers: what a branch of the model looks at) are computed by
torch from the net's values: the *tail*. Inputs that are returned as they came, and constants, belong to neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from fastcnn.engine.torch_backend.probe import Probed


class LeftToTorchError(Exception):
    """The graph stays in torch: the message says why."""


@dataclass
class Split:
    """The two parts and how they fit.

    ``net`` takes the values ``net_inputs`` (placeholders, and ``numbers``: what ``item()`` takes out of them) and
    returns the values of ``net_outputs``; ``tail`` takes ``tail_inputs`` (placeholders and net outputs) and returns
    the values of ``tail_outputs``.
    """

    net: fx.GraphModule | None
    net_inputs: list[fx.Node]
    net_outputs: list[fx.Node]
    tail: fx.GraphModule | None = None
    tail_inputs: list[fx.Node] = field(default_factory=list)
    tail_outputs: list[fx.Node] = field(default_factory=list)
    numbers: dict[fx.Node, fx.Node] = field(default_factory=dict)


def split(module: fx.GraphModule, probed: Probed) -> Split:
    """Cut the graph.

    Raises
    ------
    LeftToTorchError
        If the graph writes to an input, or writes in place and has a tail.
    """
    if probed.written_inputs:
        raise LeftToTorchError(
            f"it writes to {', '.join(_shown(node) for node in probed.written_inputs)} (training mode, or an operation "
            f"in place on an input): call model.eval(), or give the operation a copy"
        )
    results = [node for node in returned(module) if isinstance(node, fx.Node) and node.op != "placeholder"]
    carried = _unique(node for node in results if node in probed.carried)
    others = _unique(node for node in results if node not in probed.carried)
    tail_nodes, frontier = _behind(others, probed)
    if tail_nodes and probed.in_place:
        raise LeftToTorchError(
            f"it returns {_shown(others[0])}, which is no float32 tensor, and writes in place "
            f"({_shown(probed.in_place[0])}): use the form that returns a new tensor"
        )
    outputs = _unique([*carried, *(node for node in frontier if node.op != "placeholder")])
    parts = Split(None, [], outputs, numbers=_numbers(module))
    if outputs:
        # Without writes in place, what no output needs is left out; with them, every node may matter.
        parts.net_inputs, parts.net = _part(module, outputs, set(parts.numbers), keep_all=bool(probed.in_place))
    if others:
        parts.tail_outputs = others
        parts.tail_inputs, parts.tail = _part(module, others, set(frontier))
    return parts


def returned(module: fx.GraphModule) -> Sequence[Any]:
    """What the graph returns: nodes and constants."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    (values,) = output.args
    if not isinstance(values, (tuple, list)) or any(isinstance(value, (tuple, list, dict)) for value in values):
        raise LeftToTorchError("it does not return a flat tuple")
    return values


def _numbers(module: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """``item()`` of an input, and that input: how torch passes Python numbers that change."""
    return {
        node: node.args[0]
        for node in module.graph.nodes
        if node.op == "call_method" and node.target == "item" and isinstance(node.args[0], fx.Node)
        if node.args[0].op == "placeholder"
    }


def _behind(outputs: list[fx.Node], probed: Probed) -> tuple[list[fx.Node], list[fx.Node]]:
    """Nodes between the outputs and the nearest values a net can carry (or inputs), and those values."""
    nodes: list[fx.Node] = []
    frontier: list[fx.Node] = []
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node in nodes or node in frontier:
            continue
        if node.op == "placeholder" or node in probed.carried:
            frontier.append(node)
            continue
        nodes.append(node)
        waiting += node.all_input_nodes
    return nodes, frontier


def _part(
    module: fx.GraphModule, outputs: list[fx.Node], given: set[fx.Node], *, keep_all: bool = False
) -> tuple[list[fx.Node], fx.GraphModule]:
    """A graph of its own that computes ``outputs`` from ``given`` values and placeholders; its inputs in order."""
    needed: set[fx.Node] = set()
    if keep_all:  # but for what only stands behind a given value
        needed = {n for n in module.graph.nodes if n.op == "output" or n in given or not given.issuperset(n.users)}
        needed |= {n for n in module.graph.nodes if n.op != "placeholder" and not n.users}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [] if node in given else node.all_input_nodes
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs = [node for node in module.graph.nodes if node in needed and (node.op == "placeholder" or node in given)]
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
    for node in module.graph.nodes:
        if node in needed and node not in copies and node.op != "output":
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(tuple(copies[node] for node in outputs))
    return inputs, fx.GraphModule(module, graph)


def _unique(nodes: Any) -> list[fx.Node]:
    return list(dict.fromkeys(nodes))


def _shown(node: fx.Node) -> str:
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{node.name!r}" if node.op == "placeholder" else f"{node.name!r} ({target})"
