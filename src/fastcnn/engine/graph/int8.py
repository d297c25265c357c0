"""Ops of layers with weights and inputs of 8 bits.

An input x counts as q - zero, where q = clamp(round(x * factor) + zero, 0, 255) with halves to even, and outside the
map as 0: a whole number. Sums of products of those with the whole numbers of the weight are exact, and become
scale * sum + bias, two roundings in float32, so that every machine says the same. Inputs that were levels of the same
factor and zero before (op ``quantize``) stay what they are.

References
----------
Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.graph.schema import MAX_WINDOW, OpSchema, ParamSpec, Shape, integer, integers, number
from fastcnn.engine.graph.shape_rules import window_output

MOST_PRODUCTS = ((1 << 31) - 1) // (255 * 128)
"""Of one output, so that 32 bits hold their sum whatever the weights: 65793."""


def fan_in(weight: Shape) -> int:
    """Products of one output."""
    return math.prod(weight[1:])


def _rule(node: Node, arrays: Mapping[str, Array]) -> None:
    weight = arrays["weight"]
    if fan_in(weight.shape) > MOST_PRODUCTS:
        raise GraphError(f"an output sums {fan_in(weight.shape)} products; at most {MOST_PRODUCTS} are allowed")
    if len(weight) % node.attrs.get("groups", 1):
        raise GraphError(f"groups={node.attrs['groups']} does not divide {len(weight)} output channels")
    for role in ("scale", "bias"):
        if role in arrays and arrays[role].shape != (len(weight),):
            raise GraphError(f"{role} must have {len(weight)} entries, one per output, got {arrays[role].shape[0]}")


def _conv_shape(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    """As conv2d."""
    x, weight, a = inputs[0], params["weight"], node.attrs
    channels = weight[1] * int(a["groups"])
    if len(x) != 4 or x[1] != channels:
        raise GraphError(f"expects a 4-d input with {channels} channels, got shape {x}")
    pads, strides, dilations = a["padding"], a["stride"], a["dilation"]
    spatial = tuple(
        window_output(x[2 + i], weight[2 + i], strides[i], pads[i], pads[2 + i], dilations[i], False) for i in range(2)
    )
    return (x[0], weight[0], *spatial)


def _linear_shape(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    """(N, I) to (N, O)."""
    x, weight = inputs[0], params["weight"]
    if len(x) != 2 or x[1] != weight[1]:
        raise GraphError(f"expects an input (N, {weight[1]}), got shape {x}")
    return (x[0], weight[0])


def _macs(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape], out: Shape) -> int:
    """Products of bytes."""
    return math.prod(out) * fan_in(params["weight"])


_LEVELS = {"factor": number(1e-30, 1e30), "zero": integer(0, 255)}
_NUMBERS = {"scale": ParamSpec(ranks=(1,)), "bias": ParamSpec(ranks=(1,), required=False)}

INT8: dict[str, OpSchema] = {
    "int8_conv2d": OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(4,), dtypes=("int8",)), **_NUMBERS},
        attrs={
            "stride": integers(2, 1, MAX_WINDOW),
            "padding": integers(4, 0, MAX_WINDOW),
            "dilation": integers(2, 1, MAX_WINDOW),
            "groups": integer(1, MAX_WINDOW),
            **_LEVELS,
        },
        param_rule=_rule,
        shape=_conv_shape,
        macs=_macs,
        epilogue=True,
    ),
    "int8_linear": OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(2,), dtypes=("int8",)), **_NUMBERS},
        attrs=_LEVELS,
        param_rule=_rule,
        shape=_linear_shape,
        macs=_macs,
        epilogue=True,
    ),
}
