"""Activations, ONNX's parameters mapped to torch's."""

from __future__ import annotations

import math

import numpy as np

from fastcnn.engine.onnx_import.elementwise import scaled, shifted
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, Handler, Value, axis, lowers
from fastcnn.engine.onnx_import.walk import Walk

_SIXTH = 1 / 6


def _plain(op: str) -> Handler:
    def handler(lower: Walk, call: Call) -> str:
        return lower.emit(op, [lower.value(call.given(0, "X"))])

    handler.__doc__ = f"The graph's {op}, unchanged."
    return handler


for _onnx, _op in {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
    "Mish": "mish",
    "Softplus": "softplus",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Abs": "abs",
}.items():
    lowers(_onnx)(_plain(_op))


@lowers("Clip")
def clip(lower: Walk, call: Call) -> str:
    """Bounds from attributes (before opset 11) or from constant inputs."""
    x = lower.value(call.given(0, "X"))
    if call.has("min") or call.has("max"):
        low: float | None = call.number("min", -math.inf)
        high: float | None = call.number("max", math.inf)
    else:
        low, high = call.scalar_input(1, "min"), call.scalar_input(2, "max")
    largest = float(np.finfo(np.float32).max)
    low = None if low is None or low <= -largest else low
    high = None if high is None or high >= largest else high
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        low = high  # the upper bound wins
    return lower.emit("clamp", [x], attrs={"min": low, "max": high})


@lowers("LeakyRelu")
def leaky_relu(lower: Walk, call: Call) -> str:
    """Leaky ReLU."""
    x = lower.value(call.given(0, "X"))
    return lower.emit("leaky_relu", [x], attrs={"negative_slope": call.number("alpha", 0.01)})


@lowers("Elu")
def elu(lower: Walk, call: Call) -> str:
    """ELU."""
    return lower.emit("elu", [lower.value(call.given(0, "X"))], attrs={"alpha": call.number("alpha", 1.0)})


@lowers("Selu")
def selu(lower: Walk, call: Call) -> str:
    """SELU (Klambauer et al. 2017)."""
    y = lower.emit("elu", [lower.value(call.given(0, "X"))], attrs={"alpha": call.number("alpha", 1.6732632)})
    return scaled(lower, y, call.number("gamma", 1.050701))


@lowers("Celu")
def celu(lower: Walk, call: Call) -> str:
    """alpha * elu(x / alpha)."""
    alpha = call.number("alpha", 1.0)
    if alpha == 0.0:
        raise Damaged("its alpha is 0")
    y = lower.emit("elu", [scaled(lower, lower.value(call.given(0, "X")), 1 / alpha)], attrs={"alpha": 1.0})
    return scaled(lower, y, alpha)


@lowers("PRelu")
def prelu(lower: Walk, call: Call) -> str:
    """One slope, or one per channel."""
    x, slope = lower.value(call.given(0, "X")), call.constant(1, "slope")
    shape, rank = slope.array.shape, lower.rank(x)
    place = rank - len(shape)
    others = [n for i, n in enumerate(shape) if place + i != 1]
    if place < 0 or not slope.array.size or any(n != 1 for n in others):
        raise Unsupported(
            f"its slope has shape {shape} for an input of {rank} axes; one, or one per channel, is supported"
        )
    return lower.emit("prelu", [x], params={"weight": lower.derive(slope, "flat", lambda a: a.reshape(-1))})


@lowers("HardSigmoid")
def hard_sigmoid(lower: Walk, call: Call) -> str:
    """clip(alpha * x + beta, 0, 1); ONNX's default slope is 0.2, torch's is 1/6."""
    x, alpha, beta = lower.value(call.given(0, "X")), call.number("alpha", 0.2), call.number("beta", 0.5)
    if abs(alpha - _SIXTH) < 1e-7 and beta == 0.5:
        return lower.emit("hardsigmoid", [x])
    return lower.emit("clamp", [shifted(lower, scaled(lower, x, alpha), beta)], attrs={"min": 0.0, "max": 1.0})


@lowers("Gelu")
def gelu(lower: Walk, call: Call) -> str:
    """GELU, exact or by tanh."""
    word = call.text("approximate", "none")
    if word not in ("none", "tanh"):
        raise Damaged(f"its approximate is {word!r}: allowed are none and tanh")
    return lower.emit("gelu", [lower.value(call.given(0, "X"))], attrs={"approximate": word})


@lowers("Swish")
def swish(lower: Walk, call: Call) -> str:
    """x * sigmoid(alpha * x)."""
    x, alpha = lower.value(call.given(0, "X")), call.number("alpha", 1.0)
    if alpha == 1.0:
        return lower.emit("silu", [x])
    return lower.emit("mul", [x, lower.emit("sigmoid", [scaled(lower, x, alpha)])])


@lowers("Softmax", "LogSoftmax")
def softmax(lower: Walk, call: Call) -> str:
    """Over one axis; before opset 13 over all axes from one on, which is the same only for the last."""
    x = lower.value(call.given(0, "X"))
    rank, old = lower.rank(x), call.opset < 13
    dim = axis(call.integer("axis", 1 if old else -1), rank)
    if old and dim != rank - 1 and any(n != 1 for n in lower.shape(x)[dim + 1 :]):
        raise Unsupported(f"before opset 13 it runs over axes {dim}..{rank - 1} together; only the last is supported")
    return lower.emit("softmax" if call.op == "Softmax" else "log_softmax", [x], attrs={"dim": dim})


@lowers("Dropout")
def dropout(lower: Walk, call: Call) -> list[Value | None]:
    """Nothing, at inference."""
    training = call.optional_constant(2, "training_mode")
    if training is not None and training.array.any():
        raise Unsupported("it is in training mode: export the net in eval mode")
    return [call.given(0, "data"), None]


@lowers("Identity")
def identity(lower: Walk, call: Call) -> Value:
    """Nothing."""
    return call.given(0, "X")


@lowers("Cast")
def cast(lower: Walk, call: Call) -> Value:
    """Nothing: float32 to float32."""
    from onnx import TensorProto

    x = call.given(0, "X")
    if isinstance(x, Constant) or call.integer("to", 0) != TensorProto.FLOAT:
        raise Unsupported("it casts a computed value to another type: the engine works in float32")
    return x
