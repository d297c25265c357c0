"""Codebook layers become dense ones: weight = codebook[codes], exact.

For kernels that work on dense weights. The node keeps ``expanded_from: "codebook"`` so that the plan can say so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastcnn.engine.graph.graph import Graph, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild

_DENSE = {"codebook_conv2d": "conv2d", "codebook_linear": "linear"}


def run(graph: Graph, shapes: Mapping[str, Shape], notes: list[str] | None = None) -> Graph:
    """Expand every codebook layer; layers that share codes and codebook share the weight."""
    weights = dict(graph.weights)
    expanded: dict[tuple[str, str], str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op not in _DENSE:
            nodes.append(node)
            continue
        pair = (node.params["codebook"], node.params["codes"])
        if pair not in expanded:
            expanded[pair] = fresh_key(f"{node.name}.weight (expanded)", weights)
            weights[expanded[pair]] = np.ascontiguousarray(weights[pair[0]][weights[pair[1]]])
        params = {"weight": expanded[pair]}
        if "bias" in node.params:
            params["bias"] = node.params["bias"]
        attrs = {**node.attrs, "expanded_from": "codebook"}
        nodes.append(node.with_(op=_DENSE[node.op], params=params, attrs=attrs))
        if notes is not None:
            notes.append(f"{node.name}: codebook of {weights[pair[0]].size} expanded to dense float32")
    return rebuild(graph, nodes, weights=weights)
