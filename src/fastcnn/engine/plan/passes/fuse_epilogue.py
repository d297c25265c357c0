"""Residual adds and activations move into the layer that makes their input.

The layer's ``epilogue`` attribute then holds ``residual`` (a value, also the last input, or null), ``activation``
(``{"op": ..., attributes}`` or null) and ``order``: ``add_then_act`` is act(y + residual), ``act_then_add`` is
act(y) + residual. Only where nothing else reads the layer's own output and the residual has exactly its shape.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastcnn.engine.graph.graph import Graph, Node
from fastcnn.engine.graph.ops import ACTIVATIONS, OPS
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.rewrite import rebuild, use_counts


def run(
    graph: Graph,
    shapes: Mapping[str, Shape],
    notes: list[str] | None = None,
    *,
    activations: Collection[str] = ACTIVATIONS,
) -> Graph:
    """Fuse in execution order; the fused layer runs where the last fused operation stood, so its inputs are ready.

    Parameters
    ----------
    activations : collection of str
        Ops an epilogue may carry; give the kernels' own set if it is smaller.
    """
    counts = use_counts(graph)
    renamed: dict[str, str] = {}
    live: dict[str, Node] = {}  # insertion order is execution order

    def current(name: str) -> str:
        return renamed.get(name, name)

    for node in graph.nodes:
        node = node.with_(inputs=tuple(map(current, node.inputs)))
        base = _base_for(node, live, counts, shapes, activations)
        if base is None:
            live[node.name] = node
            continue
        del live[base.name]
        live[base.name] = _fused(base, node)
        renamed[node.name] = base.name
        counts[base.name] = counts[node.name]
        if notes is not None:
            notes.append(f"{base.name}: fused {node.name} ({node.op})")
    return rebuild(graph, live.values(), renamed=renamed, weights=graph.weights)


def _epilogue(node: Node) -> dict[str, Any]:
    return dict(node.attrs.get("epilogue") or {"residual": None, "activation": None, "order": "add_then_act"})


def _base_for(
    node: Node,
    live: Mapping[str, Node],
    counts: Mapping[str, int],
    shapes: Mapping[str, Shape],
    activations: Collection[str],
) -> Node | None:
    """Return the layer that can take the node in; of two, the one that runs later."""
    if node.op in ACTIVATIONS and node.op in activations:
        takes = "activation"
    elif node.op == "add" and shapes[node.inputs[0]] == shapes[node.inputs[1]]:
        takes = "residual"
    else:
        return None
    order = list(live) if takes == "residual" else []
    candidates = [
        live[name]
        for name in node.inputs
        if name in live
        and OPS[live[name].op].epilogue
        and counts[name] == 1
        and _epilogue(live[name])[takes] is None
        and not (takes == "activation" and _epilogue(live[name])["order"] == "act_then_add")
    ]
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return max(candidates, key=lambda candidate: order.index(candidate.name))


def _fused(base: Node, node: Node) -> Node:
    epilogue, inputs = _epilogue(base), base.inputs
    if node.op == "add":
        residual = next(name for name in node.inputs if name != base.name)
        order = "add_then_act" if epilogue["activation"] is None else "act_then_add"
        epilogue |= {"residual": residual, "order": order}
        inputs = (*inputs, residual)
    else:
        epilogue["activation"] = {"op": node.op, **node.attrs}
    return base.with_(inputs=inputs, attrs={**base.attrs, "epilogue": epilogue})
