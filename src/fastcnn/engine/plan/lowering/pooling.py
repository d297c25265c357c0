"""Pools and means."""

from __future__ import annotations

import math

from fastcnn.engine.graph.graph import Node
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
    low.emit("pool", node.name, [low.blocked(node.inputs[0])], low.new_blocked(node.name), attrs=attrs, node=node)


@lowers("adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pool(low: Lowerer, node: Node) -> None:
    attrs = {"kind": "max" if node.op == "adaptive_max_pool2d" else "average", "adaptive": 1}
    low.emit("pool", node.name, [low.blocked(node.inputs[0])], low.new_blocked(node.name), attrs=attrs, node=node)


@lowers("mean")
def mean(low: Lowerer, node: Node) -> None:
    """Over all pixels: a pool. Over anything else: a reduction of the plain tensor."""
    dims, axes = low.dims(node.inputs[0]), sorted(node.attrs["dims"])
    if len(dims) in (3, 4) and axes == list(range(2, len(dims))) and len(low.dims(node.name)) >= 2:
        source = low.blocked(node.inputs[0])
        nchw = (dims[0], dims[1], 1, 1)
        storage = low.new_storage(nchw, blocked=True)
        out = Slot(storage, low.dims(node.name), nchw)
        low.emit("pool", node.name, [source], out, attrs={"kind": "average", "adaptive": 1}, node=node)
        low.alias(node.name, out)
        return
    strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    kept = [i for i in range(len(dims)) if i not in axes]
    attrs = {
        "kept": [dims[i] for i in kept],
        "kept_strides": [strides[i] for i in kept],
        "reduced": [dims[i] for i in axes],
        "reduced_strides": [strides[i] for i in axes],
    }
    low.emit("mean", node.name, [low.plain(node.inputs[0])], low.new_plain(node.name), attrs=attrs, node=node)


@lowers("local_response_norm")
def local_response_norm(low: Lowerer, node: Node) -> None:
    attrs = {key: float(node.attrs[key]) for key in ("size", "alpha", "beta", "k")}
    source, out = low.blocked(node.inputs[0]), low.new_blocked(node.name)
    low.emit("local_response_norm", node.name, [source], out, attrs=attrs, node=node)
