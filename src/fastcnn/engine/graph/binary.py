"""Ops of layers whose weights are sums of a few signs, mostly of one, and of those whose inputs are signs too.

A plane of signs is stored in bits: row o holds those of output o's weights in the order of a dense one (channel, row,
column), lowest bit of the first byte first, 1 for -1, filled up with zeros to whole 64-bit words. ``planes`` has the
factor of each plane, and the rows of a plane follow those of the one before: [1] is a weight of +-1, [1, 1] one of
-2, 0 and 2, [1, 2, 4] one of the odd numbers from -7 to 7. With ``binarize`` an input counts as +1 where it is >= 0,
else as -1, and ``pad_value`` says what stands around the map; without, weights alone are of few bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.graph.schema import (
    MAX_SIZE,
    MAX_WINDOW,
    AttrSpec,
    OpSchema,
    ParamSpec,
    Shape,
    boolean,
    integer,
    integers,
    is_integer,
)
from fastcnn.engine.graph.shape_rules import window_output

MOST_PRODUCTS = 1 << 24
"""Largest sum of an output: float32 counts so far without rounding."""
MOST_PLANES = 8


def top_level(node: Node | None) -> int:
    """The largest of the whole numbers from 0 on that a node rounds to; 0 if it makes anything else."""
    if node is None or node.op != "quantize":
        return 0
    a = node.attrs
    return int(a["high"]) if a["zero"] == a["low"] == 0 and a["step"] == 1 else 0


def fan_in(node: Node) -> int:
    """Products of one output."""
    a = node.attrs
    if node.op == "binary_linear":
        return int(a["in_features"])
    return int(a["in_channels"]) // int(a["groups"]) * int(math.prod(a["kernel_size"]))


def reach(node: Node) -> int:
    """Largest sum that signs can come to."""
    return fan_in(node) * int(sum(node.attrs["planes"]))


def outputs(node: Node, rows: int) -> int:
    """Outputs of a layer with so many rows of bits."""
    return rows // len(node.attrs["planes"])


def unpack(node: Node, bits: Array) -> Array:
    """The weight that the bits stand for, whole numbers as float32 (O, I) or (O, C / groups, kh, kw)."""
    planes = np.array(node.attrs["planes"], np.float32)
    signs = np.unpackbits(bits, axis=1, count=fan_in(node), bitorder="little")
    weight = np.tensordot(planes, 1.0 - 2.0 * signs.astype(np.float32).reshape(len(planes), -1, fan_in(node)), 1)
    weight = weight.astype(np.float32)
    if node.op == "binary_linear":
        return weight
    a = node.attrs
    return weight.reshape(len(weight), int(a["in_channels"]) // int(a["groups"]), *a["kernel_size"])


def pack(weight: Array) -> Array:
    """Bits (O, bytes) of a weight (O, ...): set where it is not >= 0."""
    rows = ~(weight.reshape(len(weight), -1) >= 0)
    packed = np.packbits(rows, axis=1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))


def _rule(node: Node, arrays: Mapping[str, Array]) -> None:
    bits, length, planes = arrays["bits"], fan_in(node), node.attrs["planes"]
    if reach(node) > MOST_PRODUCTS:
        raise GraphError(f"an output can sum to {reach(node)}; at most {MOST_PRODUCTS} is allowed")
    rows, wide = bits.shape
    if rows % len(planes):
        raise GraphError(f"bits must have a row for each output in each of {len(planes)} planes, got {rows}")
    count = outputs(node, rows)
    if wide != -(-length // 64) * 8:
        raise GraphError(f"bits must have {-(-length // 64) * 8} bytes in a row for {length} weights, got {wide}")
    tail = np.unpackbits(bits, axis=1, bitorder="little")[:, length:]
    if bool(tail.any()):
        raise GraphError("bits past the last weight must be zero")
    groups = node.attrs.get("groups", 1)
    if count % groups or node.attrs.get("in_channels", groups) % groups:
        raise GraphError(f"groups={groups} must divide {node.attrs['in_channels']} inputs and {count} outputs")
    for role in ("scale", "bias", "thresholds"):
        if role in arrays and arrays[role].shape != (count,):
            raise GraphError(f"{role} must have {count} entries, one per output, got {arrays[role].shape[0]}")
    if "thresholds" in arrays and (not node.attrs["binarize"] or "scale" in arrays or "bias" in arrays):
        raise GraphError("thresholds are for sums of signs: they need binarize, and neither scale nor bias")


def _conv_shape(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    """As conv2d."""
    x, a = inputs[0], node.attrs
    if len(x) != 4 or x[1] != a["in_channels"]:
        raise GraphError(f"expects a 4-d input with {a['in_channels']} channels, got shape {x}")
    pads, strides, dilations, kernel = a["padding"], a["stride"], a["dilation"], a["kernel_size"]
    spatial = tuple(
        window_output(x[2 + i], kernel[i], strides[i], pads[i], pads[2 + i], dilations[i], False) for i in range(2)
    )
    return (x[0], outputs(node, params["bits"][0]), *spatial)


def _linear_shape(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    """(N, I) to (N, O)."""
    x = inputs[0]
    if len(x) != 2 or x[1] != node.attrs["in_features"]:
        raise GraphError(f"expects an input (N, {node.attrs['in_features']}), got shape {x}")
    return (x[0], outputs(node, params["bits"][0]))


def _macs(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape], out: Shape) -> int:
    """Products, of one bit each."""
    return math.prod(out) * fan_in(node) * len(node.attrs["planes"])


_PARAMS = {
    "bits": ParamSpec(ranks=(2,), dtypes=("uint8",)),
    "scale": ParamSpec(ranks=(1,), required=False),
    "bias": ParamSpec(ranks=(1,), required=False),
    "thresholds": ParamSpec(ranks=(1,), dtypes=("int32",), required=False),
}

_PLANES = AttrSpec(
    f"a list of 1..{MOST_PLANES} integers in 1..{1 << (MOST_PLANES - 1)}",
    lambda v: (
        isinstance(v, list)
        and 1 <= len(v) <= MOST_PLANES
        and all(is_integer(i) and 1 <= i <= 1 << (MOST_PLANES - 1) for i in v)
    ),
)

BINARY: dict[str, OpSchema] = {
    # y = scale * sum of products + bias; with thresholds +1 where the sum is at least the output's, else -1.
    "binary_conv2d": OpSchema(
        arity=(1, 1),
        params=_PARAMS,
        attrs={
            "in_channels": integer(1, MAX_SIZE),
            "kernel_size": integers(2, 1, MAX_WINDOW),
            "stride": integers(2, 1, MAX_WINDOW),
            "padding": integers(4, 0, MAX_WINDOW),
            "dilation": integers(2, 1, MAX_WINDOW),
            "groups": integer(1, MAX_WINDOW),
            "planes": _PLANES,
            "binarize": boolean(),
            "pad_value": integer(-1, 1),
        },
        param_rule=_rule,
        shape=_conv_shape,
        macs=_macs,
        epilogue=True,
    ),
    "binary_linear": OpSchema(
        arity=(1, 1),
        params=_PARAMS,
        attrs={"in_features": integer(1, MAX_SIZE), "planes": _PLANES, "binarize": boolean()},
        param_rule=_rule,
        shape=_linear_shape,
        macs=_macs,
        epilogue=True,
    ),
}
