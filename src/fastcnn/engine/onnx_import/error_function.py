"""GELU as files older than opset 20 write it: x * (1 + erf(x / sqrt(2))) / 2, in any order of its products.

The engine has GELU and no error function. Erf and the sum after it therefore stay :class:`Partial`, which no other
operation may read; the product with x ends the chain.
"""

from __future__ import annotations

import math

from fastcnn.engine.onnx_import.errors import Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, Partial, Value, lowers
from fastcnn.engine.onnx_import.walk import Walk

_NEAR = 1e-6
"""Relative; constants of a file are float32."""


@lowers("Erf")
def erf(lower: Walk, call: Call) -> Partial:
    """erf(x / sqrt(2)), to be continued."""
    x, factor = _unscaled(lower, lower.value(call.given(0, "input")))
    if not math.isclose(factor, math.sqrt(0.5), rel_tol=_NEAR):
        raise Unsupported("the error function is supported inside GELU only: erf(x / sqrt(2))")
    return Partial(x, "erf")


def gelu_sum(lower: Walk, call: Call) -> Partial | None:
    """Return 1 + erf(x / sqrt(2)), if this Add is that sum; Unsupported if it adds something else to the erf."""
    found = _partial(call)
    if found is None:
        return None
    partial, other = found
    if partial.stage == "norm":
        raise Unsupported(partial.refusal)
    if partial.stage != "erf" or not isinstance(other, Constant) or lower.number(other) != 1.0:
        raise Unsupported("the error function is supported inside GELU only: 1 + erf(x / sqrt(2))")
    return Partial(partial.x, "sum")


def gelu_product(lower: Walk, call: Call) -> str | None:
    """Return the GELU that this Mul completes, scaled as the file has it; Unsupported for another product."""
    found = _partial(call)
    if found is None:
        return None
    partial, other = found
    if partial.stage == "sum" and isinstance(other, str):
        x, factor = (other, 1.0) if other == partial.x else _unscaled(lower, other)
        if x == partial.x:
            gelu = lower.emit("gelu", [x], attrs={"approximate": "none"})
            if factor == 0.5:
                return gelu
            doubled = lower.emit("mul_scalar", [gelu], attrs={"value": 2.0 * factor})
            lower.doubled_gelus[doubled] = (gelu, 2.0 * factor)
            return doubled
    if partial.stage == "norm":
        raise Unsupported(partial.refusal)
    raise Unsupported("the error function is supported inside GELU only: x * (1 + erf(x / sqrt(2))) / 2")


def _partial(call: Call) -> tuple[Partial, Value | None] | None:
    for i, value in enumerate(call.inputs):
        if isinstance(value, Partial):
            return value, call.inputs[1 - i] if len(call.inputs) == 2 else None
    return None


def _unscaled(lower: Walk, x: str) -> tuple[str, float]:
    """Return (y, factor) with x = factor * y."""
    maker = lower.maker(x)
    if maker is None or maker.op != "mul_scalar":
        return x, 1.0
    return maker.inputs[0], float(maker.attrs["value"])
