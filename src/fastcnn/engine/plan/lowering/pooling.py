"""Pools and means."""

from __future__ import annotations

import math

from fastcnn.engine.graph.graph import Node
from fastcnn.engine.plan.lowering.int8 import NARROW, wanted
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers
from fastcnn.engine.plan.slots import Slot


@lowers("max_pool2d", "avg_pool2d", "max_pool1d", "avg_pool1d")
def pool(low: Lowerer, node: Node) -> None:
    a = node.attrs
    flat = node.op.endswith("1d")
    kernel, stride, padding = list(a["kernel_size"]), list(a["stride"]), list(a["padding"])
    dilation = list(a.get("dilation", [1] * len(kernel)))
    if flat:
        kernel, stride, dilation = [1, *kernel], [1, *stride], [1, *dilation]
        padding = [0, padding[0], 0, padding[1]]
    attrs = {
        "kind": "max" if node.op.startswith("max") else "average",
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "count_include_pad": int(a.get("count_include_pad", False)),
        "divisor_override": int(a.get("divisor_override") or 0),
    }
    if low.has_bits(node.inputs[0]) and node.op == "max_pool2d":
        attrs = {key: attrs[key] for key in ("kernel", "stride", "padding", "dilation")}
        low.emit("sign_pool", node.name, [low.bits(node.inputs[0])], low.new_bits(node.name), attrs=attrs, node=node)
        return
    levels = wanted(low, node.name)
    if node.op == "max_pool2d" and levels is not None and low.dims(node.name)[1] > NARROW:
        known = low.known_bytes(node.inputs[0], levels)
        if known is not None:
            attrs = {key: attrs[key] for key in ("kernel", "stride", "padding", "dilation")} | {"border": levels[1]}
            low.emit("byte_pool", node.name, [known], low.new_bytes(node.name, levels), attrs=attrs, node=node)
            return
    low.emit("pool", node.name, [low.blocked(node.inputs[0])], low.new_blocked(node.name), attrs=attrs, node=node)


@lowers("adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool(low: Lowerer, node: Node) -> None:
    attrs = {"kind": "max" if node.op == "adaptive_max_pool2d" else "average", "adaptive": 1}
    low.emit("pool", node.name, [low.blocked(node.inputs[0])], low.new_blocked(node.name), attrs=attrs, node=node)


_REDUCE = {"mean": "mean", "sum": "sum", "amax": "max"}


@lowers("mean", "sum", "amax")
def reduction(low: Lowerer, node: Node) -> None:
    """Means and maxima over all pixels: a pool. Over anything else: a reduction of the plain tensor."""
    dims, axes = low.dims(node.inputs[0]), sorted(node.attrs["dims"])
    image = len(dims) in (3, 4) and axes == list(range(2, len(dims))) and len(low.dims(node.name)) >= 2
    if image and node.op != "sum":
        source = low.blocked(node.inputs[0])
        nchw = (dims[0], dims[1], 1, 1)
        storage = low.new_storage(nchw, blocked=True)
        out = Slot(storage, low.dims(node.name), nchw)
        kind = "max" if node.op == "amax" else "average"
        low.emit("pool", node.name, [source], out, attrs={"kind": kind, "adaptive": 1}, node=node)
        low.alias(node.name, out)
        return
    strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    kept = [i for i in range(len(dims)) if i not in axes]
    attrs = {
        "kind": _REDUCE[node.op],
        "kept": [dims[i] for i in kept],
        "kept_strides": [strides[i] for i in kept],
        "reduced": [dims[i] for i in axes],
        "reduced_strides": [strides[i] for i in axes],
    }
    low.emit("reduce", node.name, [low.plain(node.inputs[0])], low.new_plain(node.name), attrs=attrs, node=node)


@lowers("max_unpool2d")
def max_unpool(low: Lowerer, node: Node) -> None:
    """Values to the places of the maxima of the map that was pooled."""
    a = node.attrs
    attrs = {"kernel": list(a["kernel_size"]), "stride": list(a["stride"]), "padding": list(a["padding"])}
    values, pooled_from = (low.blocked(name) for name in node.inputs)
    low.emit("unpool", node.name, [values, pooled_from], low.new_blocked(node.name), attrs=attrs, node=node)


@lowers("group_norm")
def group_norm(low: Lowerer, node: Node) -> None:
    """Statistics and scaling in one step."""
    attrs = {"groups": int(node.attrs["groups"]), "eps": float(node.attrs["eps"])}
    weights = {role: low.weight(node, role) for role in node.params}
    source, out = low.blocked(node.inputs[0]), low.new_blocked(node.name)
    low.emit("group_norm", node.name, [source], out, attrs=attrs, weights=weights, node=node)


@lowers("layer_norm")
def layer_norm(low: Lowerer, node: Node) -> None:
    """Rows of a plain tensor."""
    row = math.prod(low.dims(node.name)[-int(node.attrs["axes"]) :])
    attrs = {"row": row, "eps": float(node.attrs["eps"])}
    weights = {role: low.weight(node, role).reshape(-1) for role in node.params}
    source, out = low.plain(node.inputs[0]), low.new_plain(node.name)
    low.emit("layer_norm", node.name, [source], out, attrs=attrs, weights=weights, node=node)


@lowers("local_response_norm")
def local_response_norm(low: Lowerer, node: Node) -> None:
    attrs = {key: float(node.attrs[key]) for key in ("size", "alpha", "beta", "k")}
    source, out = low.blocked(node.inputs[0]), low.new_blocked(node.name)
    low.emit("local_response_norm", node.name, [source], out, attrs=attrs, node=node)
