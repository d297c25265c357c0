"""Layers of 8 bits that no kernel of bytes serves become dense ones of whole numbers, scale and bias after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.int8 import INT8
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild

Keep = Callable[[Node, Shape, Shape], bool]


def nothing(node: Node, shape: Shape, weight: Shape) -> bool:
    """Keep no layer."""
    return False


def run(graph: Graph, shapes: Mapping[str, Shape], notes: list[str] | None = None, *, keep: Keep) -> Graph:
    """Expand every layer that ``keep``, called with its input's and its weight's shape, does not want."""
    weights: dict[str, Array] = dict(graph.weights)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op not in INT8:
            nodes.append(node)
            continue
        weight = weights[node.params["weight"]]
        if keep(node, shapes[node.inputs[0]], weight.shape):
            nodes.append(node)
            continue
        nodes += _dense(node, weights)
        if notes is not None:
            notes.append(f"{node.name}: no kernel of bytes takes its groups: weights of 8 bits expanded to float32")
    return rebuild(graph, nodes, weights=weights)


def _dense(node: Node, weights: dict[str, Array]) -> list[Node]:
    def constant(what: str, array: Array) -> str:
        key = fresh_key(f"{node.name}.{what} (expanded)", weights)
        weights[key] = np.ascontiguousarray(array, np.float32)
        return key

    a, weight = node.attrs, weights[node.params["weight"]]
    levels = {"factor": a["factor"], "step": 1.0, "zero": a["zero"], "low": 0, "high": 255}
    taken = Node(
        name=f"{node.name}.levels", op="quantize", inputs=node.inputs, params={}, attrs=levels, source=node.source
    )
    sums = Node(
        name=f"{node.name}.sums",
        op="conv2d" if node.op == "int8_conv2d" else "linear",
        inputs=(taken.name,),
        params={"weight": constant("weight", weight)},
        attrs={key: a[key] for key in ("stride", "padding", "dilation", "groups") if key in a},
        source=node.source,
    )
    shift = node.params.get("bias") or constant("shift", np.zeros(len(weight), np.float32))
    scaled = Node(
        name=node.name,
        op="scale_shift",
        inputs=(sums.name,),
        params={"scale": node.params["scale"], "shift": shift},
        attrs={},
        source=node.source,
    )
    return [taken, sums, scaled]
