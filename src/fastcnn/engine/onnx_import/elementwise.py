"""Arithmetic of two or more tensors, numpy's broadcasting; constants of one number become scalar ops."""

from __future__ import annotations

import math

import numpy as np

from fastcnn.engine.graph.graph import GraphError, Node
from fastcnn.engine.graph.shape_rules import broadcast
from fastcnn.engine.onnx_import.channel_norm import norm_power, norm_quotient
from fastcnn.engine.onnx_import.error_function import gelu_product, gelu_sum
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, Partial, Value, lowers, shortest
from fastcnn.engine.onnx_import.walk import Walk


def scaled(lower: Walk, x: str, value: float) -> str:
    """x * value."""
    return x if value == 1.0 else lower.emit("mul_scalar", [x], attrs={"value": value})


def shifted(lower: Walk, x: str, value: float) -> str:
    """x + value."""
    return x if value == 0.0 else lower.emit("add_scalar", [x], attrs={"value": value})


def binary(lower: Walk, op: str, left: str | Constant, right: str | Constant) -> str:
    """Two tensors; an expanded operand is read before its expansion where broadcasting gives the same shape."""
    a, b = lower.value(left), lower.value(right)
    a0, b0 = lower.unexpanded.get(a, a), lower.unexpanded.get(b, b)
    whole = _broadcast(lower, a, b)
    if whole is None:
        raise Damaged(f"its operands have shapes {lower.shape(a)} and {lower.shape(b)}, which do not broadcast")
    for one, two in ((a0, b0), (a0, b), (a, b0)):
        if _broadcast(lower, one, two) == whole:
            return lower.emit(op, [one, two])
    return lower.emit(op, [a, b])


def _broadcast(lower: Walk, a: str, b: str) -> tuple[int, ...] | None:
    try:
        return broadcast(Node(name="_", op="add", inputs=()), [lower.shape(a), lower.shape(b)], {})
    except GraphError:
        return None


def _scalar(lower: Walk, value: Value, other: Value) -> float | None:
    """Return the number a constant holds, if combining it with the other operand keeps that one's shape."""
    number = lower.number(value)
    if number is None or not isinstance(value, Constant) or not isinstance(other, str):
        return None
    return number if value.array.ndim <= lower.rank(other) and math.isfinite(number) else None


def _operands(call: Call) -> tuple[str | Constant, str | Constant]:
    return call.given(0, "A"), call.given(1, "B")


@lowers("Add")
def add(lower: Walk, call: Call) -> Value:
    """A + B."""
    partial = gelu_sum(lower, call)
    if partial is not None:
        return partial
    a, b = _operands(call)
    for x, other in ((a, b), (b, a)):
        number = _scalar(lower, other, x)
        if number is not None and isinstance(x, str):
            return shifted(lower, x, number)
    return binary(lower, "add", a, b)


@lowers("Sub")
def sub(lower: Walk, call: Call) -> str:
    """A - B."""
    a, b = _operands(call)
    number = _scalar(lower, b, a)
    if number is not None and isinstance(a, str):
        return shifted(lower, a, -number)
    number = _scalar(lower, a, b)
    if number is not None and isinstance(b, str):
        return shifted(lower, scaled(lower, b, -1.0), number)
    return binary(lower, "sub", a, b)


@lowers("Mul")
def mul(lower: Walk, call: Call) -> str:
    """A * B."""
    gelu = gelu_product(lower, call)
    if gelu is not None:
        return gelu
    a, b = _operands(call)
    for x, other in ((a, b), (b, a)):
        number = _scalar(lower, other, x)
        if number is not None and isinstance(x, str):
            gelu, factor = lower.doubled_gelus.get(x, (x, 1.0))
            return scaled(lower, gelu, number * factor)
    return binary(lower, "mul", a, b)


@lowers("Div")
def div(lower: Walk, call: Call) -> str:
    """A / B."""
    divisor = call.optional(1)
    if isinstance(divisor, Partial):
        norm = norm_quotient(lower, call.optional(0), divisor)
        if norm is not None:
            return norm
    a, b = _operands(call)
    number = _scalar(lower, b, a)
    if number is not None and isinstance(a, str) and number != 0.0 and math.isfinite(1.0 / number):
        gelu, factor = lower.doubled_gelus.get(a, (a, 1.0))
        return scaled(lower, gelu, factor / number)
    return binary(lower, "div", a, b)


@lowers("Neg")
def neg(lower: Walk, call: Call) -> str:
    """-X."""
    return scaled(lower, lower.value(call.given(0, "X")), -1.0)


@lowers("Reciprocal")
def reciprocal(lower: Walk, call: Call) -> str:
    """1 / X."""
    x = lower.value(call.given(0, "X"))
    return lower.emit("div", [lower.value(Constant(np.array(1.0, np.float32))), x])


@lowers("Pow")
def pow_(lower: Walk, call: Call) -> Value:
    """Small whole powers as products, a half as the root."""
    x, exponent = lower.value(call.given(0, "X")), call.scalar_input(1, "exponent")
    if exponent == 0.5:
        return lower.emit("sqrt", [x])
    if exponent not in (1.0, 2.0, 3.0, 4.0):
        norm = None if exponent is None else norm_power(lower, x, shortest(exponent))
        if norm is not None:
            return norm
        raise Unsupported(f"its exponent is {exponent}; the powers 1 to 4 and 0.5 are supported")
    if exponent == 1.0:
        return x
    squared = lower.emit("mul", [x, x])
    return squared if exponent == 2.0 else lower.emit("mul", [squared, x if exponent == 3.0 else squared])


@lowers("Sum", "Mean")
def sum_(lower: Walk, call: Call) -> str:
    """Sum (or mean) of any number of tensors."""
    values = [call.given(i, f"operand {i}") for i in range(len(call.inputs))]
    total: str | Constant = values[0]
    for value in values[1:]:
        total = binary(lower, "add", total, value)
    return scaled(lower, lower.value(total), 1.0 / len(values) if call.op == "Mean" else 1.0)


@lowers("Min", "Max")
def extremum(lower: Walk, call: Call) -> str:
    """Bounds: one tensor and one number."""
    if len(call.inputs) == 1:
        return lower.value(call.given(0, "X"))
    values = _operands(call)
    for x, other in (values, values[::-1]):
        number = _scalar(lower, other, x)
        if len(call.inputs) == 2 and number is not None and isinstance(x, str):
            low, high = (None, number) if call.op == "Min" else (number, None)
            return lower.emit("clamp", [x], attrs={"min": low, "max": high})
    raise Unsupported("only one computed tensor and one constant number are supported")
