"""Activations and arithmetic, element by element."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Handler, Unsupported, axis, lowers
from fastcnn.engine.graph.graph import GraphError, Node
from fastcnn.engine.graph.shape_rules import broadcast


def _plain(op: str) -> Handler:
    def handler(lower: Lowering, a: Arguments) -> str:
        return lower.emit(op, [a.value("self")])

    handler.__doc__ = f"torch's {op}, unchanged."
    return handler


for _op in ("relu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "exp", "mish", "sqrt", "abs"):
    lowers(f"aten::{_op}")(_plain(_op))


def _clamp(lower: Lowering, x: str, low: float | None, high: float | None) -> str:
    bounds = [None if b is None or math.isinf(b) else b for b in (low, high)]
    if bounds == [None, None]:
        return x
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        bounds[0] = bounds[1]  # torch: the upper bound wins
    return lower.emit("clamp", [x], attrs={"min": bounds[0], "max": bounds[1]})


def _bound(lower: Lowering, a: Arguments, name: str) -> float | None:
    if a.get(name) is None:
        return None
    bound = lower.scalar(a[name])
    if bound is None:
        raise Unsupported(f"{name} is a tensor")
    return bound


@lowers("aten::clamp", "aten::clip", "aten::clamp_min", "aten::clamp_max")
def clamp(lower: Lowering, a: Arguments) -> str:
    """Clamp to scalar bounds."""
    return _clamp(lower, a.value("self"), _bound(lower, a, "min"), _bound(lower, a, "max"))


@lowers("aten::relu6")
def relu6(lower: Lowering, a: Arguments) -> str:
    """Clamp to 0..6."""
    return _clamp(lower, a.value("self"), 0.0, 6.0)


@lowers("aten::hardtanh")
def hardtanh(lower: Lowering, a: Arguments) -> str:
    """Clamp to min_val..max_val."""
    return _clamp(lower, a.value("self"), float(a["min_val"]), float(a["max_val"]))


@lowers("aten::threshold")
def threshold(lower: Lowering, a: Arguments) -> str:
    """ReLU, written as a threshold."""
    if a["threshold"] != 0 or a["value"] != 0:
        raise Unsupported("only threshold=0 with value=0 is supported")
    return lower.emit("relu", [a.value("self")])


@lowers("aten::fill")
def fill(lower: Lowering, a: Arguments) -> str:
    """A tensor of one value, in the shape of another."""
    value = lower.scalar(a["value"])
    if value is None:
        raise Unsupported("the value is computed from the input")
    return _clamp(lower, a.value("self"), value, value)


def _filled(value: float | None) -> Handler:
    def handler(lower: Lowering, a: Arguments) -> str:
        number = lower.scalar(a["fill_value"]) if value is None else value
        if number is None:
            raise Unsupported("the value is computed from the input")
        return _clamp(lower, a.value("self"), number, number)

    handler.__doc__ = "A tensor of one value, in the shape of another."
    return handler


for _op, _value in (("zeros_like", 0.0), ("ones_like", 1.0), ("full_like", None)):
    lowers(f"aten::{_op}")(_filled(_value))


@lowers("aten::leaky_relu")
def leaky_relu(lower: Lowering, a: Arguments) -> str:
    """Leaky ReLU."""
    return lower.emit("leaky_relu", [a.value("self")], attrs={"negative_slope": float(a["negative_slope"])})


@lowers("aten::rrelu")
def rrelu(lower: Lowering, a: Arguments) -> str:
    """Randomised leaky ReLU in eval mode: the mean slope."""
    if a["training"]:
        raise Unsupported("rrelu is called with training=True, so the output is random")
    slope = (float(a["lower"]) + float(a["upper"])) / 2
    return lower.emit("leaky_relu", [a.value("self")], attrs={"negative_slope": slope})


def _scaled(lower: Lowering, x: str, value: float) -> str:
    return x if value == 1.0 else lower.emit("mul_scalar", [x], attrs={"value": value})


@lowers("aten::elu", "aten::selu")
def elu(lower: Lowering, a: Arguments) -> str:
    """ELU, and SELU with its two constants (Klambauer et al. 2017)."""
    if a.get("input_scale", 1) != 1:
        raise Unsupported("input_scale is not 1")
    alpha, scale = float(a.get("alpha", 1.6732632423543772)), float(a.get("scale", 1.0507009873554805))
    return _scaled(lower, lower.emit("elu", [a.value("self")], attrs={"alpha": alpha}), scale)


@lowers("aten::celu")
def celu(lower: Lowering, a: Arguments) -> str:
    """CELU: alpha * elu(x / alpha)."""
    alpha = float(a["alpha"])
    y = lower.emit("elu", [_scaled(lower, a.value("self"), 1 / alpha)], attrs={"alpha": 1.0})
    return _scaled(lower, y, alpha)


@lowers("aten::softplus")
def softplus(lower: Lowering, a: Arguments) -> str:
    """softplus(beta * x) / beta."""
    if a["threshold"] != 20:
        raise Unsupported("threshold is not 20")
    beta = float(a["beta"])
    return _scaled(lower, lower.emit("softplus", [_scaled(lower, a.value("self"), beta)]), 1 / beta)


@lowers("aten::log_sigmoid")
def log_sigmoid(lower: Lowering, a: Arguments) -> str:
    """-softplus(-x)."""
    return _scaled(lower, lower.emit("softplus", [_scaled(lower, a.value("self"), -1.0)]), -1.0)


@lowers("aten::gelu")
def gelu(lower: Lowering, a: Arguments) -> str:
    """GELU, exact or by tanh."""
    return lower.emit("gelu", [a.value("self")], attrs={"approximate": str(a["approximate"])})


@lowers("aten::glu")
def glu(lower: Lowering, a: Arguments) -> str:
    """First half times the sigmoid of the second."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    half = lower.shape(x)[dim] // 2
    first, second = (
        lower.emit("slice", [x], attrs={"dim": dim, "start": start, "end": end, "step": 1})
        for start, end in ((0, half), (half, None))
    )
    return lower.emit("mul", [first, lower.emit("sigmoid", [second])])


@lowers("aten::prelu", "aten::_prelu_kernel")
def prelu(lower: Lowering, a: Arguments) -> str:
    """PReLU with one slope, or one per channel."""
    weight = a.constant("weight")
    return lower.emit("prelu", [a.value("self")], params={"weight": Constant(weight.tensor.flatten(), weight.key)})


def _softmax(op: str) -> Handler:
    def handler(lower: Lowering, a: Arguments) -> str:
        x = a.value("self")
        return lower.emit(op, [x], attrs={"dim": axis(int(a["dim"]), lower.rank(x))})

    handler.__doc__ = f"torch's {op}."
    return handler


lowers("aten::softmax", "aten::_softmax")(_softmax("softmax"))
lowers("aten::log_softmax", "aten::_log_softmax")(_softmax("log_softmax"))


@lowers("aten::neg")
def neg(lower: Lowering, a: Arguments) -> str:
    """-x."""
    return _scaled(lower, a.value("self"), -1.0)


@lowers("aten::square")
def square(lower: Lowering, a: Arguments) -> str:
    """x * x."""
    return lower.emit("mul", [a.value("self")] * 2)


@lowers("aten::pow")
def pow_(lower: Lowering, a: Arguments) -> str:
    """Small whole powers, as products; square roots, and one over them."""
    x, exponent = a.value("self"), lower.scalar(a["exponent"])
    if exponent in (0.5, -0.5):
        root = lower.emit("sqrt", [x])
        return root if exponent == 0.5 else lower.emit("div", [_number(lower, 1.0), root])
    if exponent not in (1, 2, 3, 4):
        raise Unsupported("only the powers 1 to 4, 1/2 and -1/2 are supported")
    if exponent == 1:
        return x
    squared = lower.emit("mul", [x, x])
    return squared if exponent == 2 else lower.emit("mul", [squared, x if exponent == 3 else squared])


@lowers("aten::reciprocal")
def reciprocal(lower: Lowering, a: Arguments) -> str:
    """1 / x."""
    x = a.value("self")
    return lower.emit("div", [_number(lower, 1.0), x])


@lowers("aten::rsqrt")
def rsqrt(lower: Lowering, a: Arguments) -> str:
    """1 / sqrt(x)."""
    return lower.emit("div", [_number(lower, 1.0), lower.emit("sqrt", [a.value("self")])])


def _number(lower: Lowering, value: float) -> str:
    return lower.constant_value(Constant(torch.tensor(value, dtype=torch.float32)))


def _operand(lower: Lowering, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Constant):
        return lower.constant_value(value)
    if isinstance(value, (bool, int, float)):
        return _number(lower, float(value))
    raise Unsupported("an operand is neither a tensor nor a number")


def _shift(lower: Lowering, x: str, value: float) -> str:
    return x if value == 0.0 else lower.emit("add_scalar", [x], attrs={"value": value})


def _keeps_shape(lower: Lowering, x: Any) -> bool:
    return isinstance(x, str) and lower.shape(x) == lower.output_shape()


def _binary(lower: Lowering, op: str, left: Any, right: Any) -> str:
    """Two tensors; an expanded operand is read before its expansion where broadcasting gives the same shape."""
    a, b = _operand(lower, left), _operand(lower, right)
    for one, two in (
        (lower.unexpanded.get(a, a), lower.unexpanded.get(b, b)),
        (lower.unexpanded.get(a, a), b),
        (a, lower.unexpanded.get(b, b)),
    ):
        try:
            shape = broadcast(Node(name="_", op=op, inputs=()), [lower.shape(one), lower.shape(two)], {})
        except GraphError:
            continue
        if shape == lower.output_shape():
            return lower.emit(op, [one, two])
    return lower.emit(op, [a, b])


@lowers("aten::add", "aten::sub")
def add(lower: Lowering, a: Arguments) -> str:
    """x + alpha * y, or x - alpha * y; numbers become add_scalar."""
    return _sum(lower, a["self"], a["other"], float(a["alpha"]) * _sign(lower))


def _sign(lower: Lowering) -> float:
    return -1.0 if lower.current_op() == "aten::sub" else 1.0


@lowers("aten::rsub")
def rsub(lower: Lowering, a: Arguments) -> str:
    """y - alpha * x."""
    return _sum(lower, a["other"], a["self"], -float(a["alpha"]))


def _sum(lower: Lowering, left: Any, right: Any, alpha: float) -> str:
    number = lower.scalar(right)
    if number is not None and _keeps_shape(lower, left):
        return _shift(lower, left, alpha * number)
    number = lower.scalar(left)
    if number is not None and _keeps_shape(lower, right):
        return _shift(lower, _scaled(lower, right, alpha), number)
    if alpha in (1.0, -1.0):
        return _binary(lower, "add" if alpha == 1.0 else "sub", left, right)
    return _binary(lower, "add", left, _scaled(lower, _operand(lower, right), alpha))


@lowers("aten::mul")
def mul(lower: Lowering, a: Arguments) -> str:
    """x * y; a number becomes mul_scalar."""
    for x, other in ((a["self"], a["other"]), (a["other"], a["self"])):
        number = lower.scalar(other)
        if number is not None and _keeps_shape(lower, x):
            return _scaled(lower, x, number)
    return _binary(lower, "mul", a["self"], a["other"])


@lowers("aten::div", "aten::true_divide")
def div(lower: Lowering, a: Arguments) -> str:
    """x / y; division by a number becomes mul_scalar."""
    if a.get("rounding_mode") is not None:
        raise Unsupported(f"rounding_mode={a['rounding_mode']!r}")
    number = lower.scalar(a["other"])
    if number is not None and _keeps_shape(lower, a["self"]):
        if number == 0.0 or not math.isfinite(1.0 / number):
            raise Unsupported(f"division by {number}")
        return _scaled(lower, a["self"], 1.0 / number)
    return _binary(lower, "div", a["self"], a["other"])
