"""Layers with weights of few bits that no kernel of bits serves become layers of 8 bits, or dense ones.

Of 8 bits where inputs are levels that bytes hold, and so do the weights. A dense layer has the same whole numbers as
weights, so that its sums are exact, and the scale comes after them. Inputs that are to be signs become so first, and
what stands around the map is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fastcnn.engine.graph import binary
from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.int8 import MOST_PRODUCTS
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild

MOST_WEIGHT = 127
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
        source = makers.get(node.inputs[0])
        if fits_bytes(node, source):
            nodes.append(_bytes(node, weights))
            what = "of 8 bits"
        else:
            nodes += _dense(node, weights, len(shapes[node.inputs[0]]))
            what = "expanded to dense float32"
        if notes is not None:
            notes.append(f"{node.name}: {_why(node)}: weights of few bits {what}")
    return rebuild(graph, nodes, weights=weights)


def fits_bytes(node: Node, source: Node | None) -> bool:
    """Whether inputs are levels 0 ... 255 at most, and weights no larger than 127, in a single group."""
    if node.attrs["binarize"] or not binary.top_level(source) or node.attrs.get("groups", 1) != 1:
        return False
    return sum(node.attrs["planes"]) <= MOST_WEIGHT and binary.fan_in(node) <= MOST_PRODUCTS


def _bytes(node: Node, weights: dict[str, Array]) -> Node:
    weight = binary.unpack(node, weights[node.params["bits"]])
    params = {role: key for role, key in node.params.items() if role in ("scale", "bias")}
    made: dict[str, Array] = {"weight": weight.astype(np.int8)}
    if "scale" not in params:
        made["scale"] = np.ones(len(weight), np.float32)
    for role, array in made.items():
        params[role] = fresh_key(f"{node.name}.{role} (8 bits)", weights)
        weights[params[role]] = array
    # What comes in is levels already.
    attrs = {key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups") if key in node.attrs}
    op = "int8_conv2d" if node.op == "binary_conv2d" else "int8_linear"
    return node.with_(op=op, params=params, attrs={**attrs, "factor": 1.0, "zero": 0})


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
