"""Layers with weights of +1 and -1 that no kernel of bits serves become dense ones.

The dense layer has weights of +-1, so that its sums are exact, and the scale comes after them. Inputs that are to be
signs become so first, and what stands around the map is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fastcnn.engine.graph import binary
from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild

Keep = Callable[[Node, Shape, int, Node | None], bool]
"""Node, shape of its input, outputs, the node that makes its input."""


def nothing(node: Node, shape: Shape, outputs: int, source: Node | None) -> bool:
    """Keep no layer."""
    return False


def run(graph: Graph, shapes: Mapping[str, Shape], notes: list[str] | None = None, *, keep: Keep) -> Graph:
    """Expand every layer that ``keep`` does not want."""
    weights: dict[str, Array] = dict(graph.weights)
    nodes: list[Node] = []
    makers = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if node.op not in binary.BINARY or keep(
            node, shapes[node.inputs[0]], _outputs(node, weights), makers.get(node.inputs[0])
        ):
            nodes.append(node)
            continue
        nodes += _dense(node, weights, len(shapes[node.inputs[0]]))
        if notes is not None:
            notes.append(f"{node.name}: {_why(node)}: weights of few bits expanded to dense float32")
    return rebuild(graph, nodes, weights=weights)


def _outputs(node: Node, weights: Mapping[str, Array]) -> int:
    return binary.outputs(node, len(weights[node.params["bits"]]))


def _why(node: Node) -> str:
    if not node.attrs["binarize"]:
        return "its inputs are neither signs nor of so few bits"
    if len(node.attrs["planes"]) > 1:
        return "its weights are no signs"
    return "no kernel of bits takes its groups"


def _dense(node: Node, weights: dict[str, Array], rank: int) -> list[Node]:
    made: list[Node] = []
    value = node.inputs[0]

    def add(what: str, op: str, params: Mapping[str, str] | None = None, **attrs: object) -> None:
        nonlocal value
        name = f"{node.name}.{what}"
        made.append(Node(name=name, op=op, inputs=(value,), params=params or {}, attrs=attrs, source=node.source))
        value = name

    def constant(what: str, array: Array) -> str:
        key = fresh_key(f"{node.name}.{what} (expanded)", weights)
        weights[key] = np.ascontiguousarray(array, np.float32)
        return key

    a = node.attrs
    conv = node.op == "binary_conv2d"
    padding = list(a["padding"]) if conv else []
    if a["binarize"]:
        add("signs", "sign")
        if any(padding) and a["pad_value"]:
            top, left, bottom, right = padding
            add("padded", "pad", pads=[[0, 0], [0, 0], [top, bottom], [left, right]], value=float(a["pad_value"]))
            padding = [0] * 4
    weight = constant("weight", binary.unpack(node, weights[node.params["bits"]]))
    if conv:
        rest = {"stride": a["stride"], "padding": padding, "dilation": a["dilation"], "groups": a["groups"]}
        add("sums", "conv2d", {"weight": weight}, **rest)
    else:
        add("sums", "linear", {"weight": weight})
    outputs = _outputs(node, weights)
    one, zero = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
    if "thresholds" in node.params:
        # Sums are whole numbers: half below the threshold is as good, and no rounding reaches it.
        limits = weights[node.params["thresholds"]].astype(np.float32) - np.float32(0.5)
        add("limits", "scale_shift", {"scale": constant("scale", one), "shift": constant("shift", -limits)})
        add("out", "sign")
    elif "scale" in node.params or "bias" in node.params:
        scale, shift = (
            node.params.get(role) or constant(role, rest) for role, rest in (("scale", one), ("bias", zero))
        )
        add("scaled", "scale_shift", {"scale": scale, "shift": shift})
    made[-1] = made[-1].with_(name=node.name)
    return made
