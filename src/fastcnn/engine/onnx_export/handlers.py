"""One handler for each op of the graph: what ONNX nodes say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.graph.schema import Shape


class Writer:
    """ONNX nodes and constants as they are made.

    Parameters
    ----------
    weights : mapping of str to ndarray
        Of the graph.
    shapes : mapping of str to tuple of int
        Of every value, at the example shape.
    """

    def __init__(self, weights: Mapping[str, Array], shapes: Mapping[str, Shape]) -> None:
        self.weights, self.shapes = weights, shapes
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output; returns its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """A constant under a name of its own."""
        array = np.ascontiguousarray(value, dtype)
        if name not in self.constants:
            self.constants[name] = array
        return name

    def param(self, node: Node, role: str) -> Array | None:
        """A parameter's array, or None."""
        return self.weights[node.params[role]] if role in node.params else None

    def given(self, node: Node, role: str) -> str:
        """A parameter as a float32 constant; empty, as ONNX has it, where there is none."""
        array = self.param(node, role)
        return "" if array is None else self.constant(node.params[role], array)


Handler = Callable[[Writer, Node], None]
HANDLERS: dict[str, Handler] = {}


def exports(*ops: str) -> Callable[[Handler], Handler]:
    """Register a handler."""

    def register(handler: Handler) -> Handler:
        for op in ops:
            HANDLERS[op] = handler
        return handler

    return register


def _walk(node: Node, kernel: Sequence[int]) -> dict[str, Any]:
    a = node.attrs
    return {
        "kernel_shape": list(kernel),
        "strides": list(a["stride"]),
        "pads": list(a["padding"]),
        "dilations": list(a["dilation"]),
        "group": int(a["groups"]),
    }


def _trim(inputs: Sequence[str]) -> list[str]:
    found = list(inputs)
    while found and not found[-1]:
        found.pop()
    return found


@exports("conv2d", "conv1d")
def conv(w: Writer, node: Node) -> None:
    """Conv."""
    weight = w.param(node, "weight")
    assert weight is not None
    inputs = _trim([node.inputs[0], w.given(node, "weight"), w.given(node, "bias")])
    w.add("Conv", inputs, node.name, **_walk(node, weight.shape[2:]))


@exports("conv_transpose2d")
def conv_transpose(w: Writer, node: Node) -> None:
    """ConvTranspose."""
    weight = w.param(node, "weight")
    assert weight is not None
    walk = _walk(node, weight.shape[2:])
    walk["pads"] = walk["pads"] * 2
    inputs = _trim([node.inputs[0], w.given(node, "weight"), w.given(node, "bias")])
    w.add("ConvTranspose", inputs, node.name, output_padding=list(node.attrs["output_padding"]), **walk)


@exports("linear")
def linear(w: Writer, node: Node) -> None:
    """Gemm of rows; a product and a sum of anything else."""
    weight = w.given(node, "weight")
    if len(w.shapes[node.inputs[0]]) == 2:
        w.add("Gemm", _trim([node.inputs[0], weight, w.given(node, "bias")]), node.name, transB=1)
        return
    array = w.param(node, "weight")
    assert array is not None
    turned = w.constant(f"{node.name}.weight^T", array.T)
    bias = w.given(node, "bias")
    product = w.add("MatMul", [node.inputs[0], turned], f"{node.name}.product" if bias else node.name)
    if bias:
        w.add("Add", [product, bias], node.name)


@exports("batch_norm")
def batch_norm(w: Writer, node: Node) -> None:
    """BatchNormalization."""
    roles = ("weight", "bias", "running_mean", "running_var")
    inputs = [node.inputs[0], *(w.given(node, role) for role in roles)]
    w.add("BatchNormalization", inputs, node.name, epsilon=float(node.attrs["eps"]))


@exports("max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d")
def pool(w: Writer, node: Node) -> None:
    """MaxPool, AveragePool."""
    a = node.attrs
    common: dict[str, Any] = {
        "kernel_shape": list(a["kernel_size"]),
        "strides": list(a["stride"]),
        "pads": list(a["padding"]),
    }
    common["ceil_mode"] = int(a["ceil_mode"])
    if node.op.startswith("max"):
        w.add("MaxPool", node.inputs, node.name, dilations=list(a["dilation"]), **common)
        return
    if a["divisor_override"] is not None:
        raise GraphError("divisor_override has no form in ONNX")
    w.add("AveragePool", node.inputs, node.name, count_include_pad=int(a["count_include_pad"]), **common)


@exports("adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive(w: Writer, node: Node) -> None:
    """Global pools."""
    if w.shapes[node.name][2:] != (1, 1):
        raise GraphError("only adaptive pools to one pixel have a form in ONNX")
    op = "GlobalAveragePool" if node.op == "adaptive_avg_pool2d" else "GlobalMaxPool"
    w.add(op, node.inputs, node.name)


@exports("mean", "sum", "amax")
def reduction(w: Writer, node: Node) -> None:
    """ReduceMean, ReduceSum, ReduceMax."""
    dims, keep = [int(dim) for dim in node.attrs["dims"]], int(node.attrs["keepdim"])
    if node.op == "sum":
        w.add("ReduceSum", [node.inputs[0], w.constant(f"{node.name}.dims", dims, np.int64)], node.name, keepdims=keep)
        return
    w.add({"mean": "ReduceMean", "amax": "ReduceMax"}[node.op], node.inputs, node.name, axes=dims, keepdims=keep)


_SAME = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "softplus": "Softplus",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "hardswish": "HardSwish",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "matmul": "MatMul",
}


@exports(*_SAME)
def same(w: Writer, node: Node) -> None:
    """The same by another name."""
    w.add(_SAME[node.op], node.inputs, node.name)


@exports("hardsigmoid")
def hardsigmoid(w: Writer, node: Node) -> None:
    """HardSigmoid with torch's slope."""
    w.add("HardSigmoid", node.inputs, node.name, alpha=1 / 6, beta=0.5)


@exports("silu", "mish")
def gated(w: Writer, node: Node) -> None:
    """x times a function of x."""
    (x,) = node.inputs
    inner = w.add("Sigmoid", [x], f"{node.name}.gate") if node.op == "silu" else ""
    if node.op == "mish":
        inner = w.add("Tanh", [w.add("Softplus", [x], f"{node.name}.softplus")], f"{node.name}.gate")
    w.add("Mul", [x, inner], node.name)


@exports("gelu")
def gelu(w: Writer, node: Node) -> None:
    """By the error function."""
    if node.attrs["approximate"] != "none":
        raise GraphError("gelu by tanh has no form in ONNX of this release")
    (x,) = node.inputs
    root = w.constant(f"{node.name}.root", 0.5**0.5)
    error = w.add("Erf", [w.add("Mul", [x, root], f"{node.name}.scaled")], f"{node.name}.erf")
    above = w.add("Add", [error, w.constant(f"{node.name}.one", 1.0)], f"{node.name}.above")
    half = w.add("Mul", [x, w.constant(f"{node.name}.half", 0.5)], f"{node.name}.halved")
    w.add("Mul", [half, above], node.name)


@exports("clamp")
def clamp(w: Writer, node: Node) -> None:
    """Clip."""
    low, high = (
        "" if node.attrs[key] is None else w.constant(f"{node.name}.{key}", node.attrs[key]) for key in ("min", "max")
    )
    w.add("Clip", _trim([node.inputs[0], low, high]), node.name)


@exports("leaky_relu")
def leaky_relu(w: Writer, node: Node) -> None:
    """LeakyRelu."""
    w.add("LeakyRelu", node.inputs, node.name, alpha=float(node.attrs["negative_slope"]))


@exports("elu")
def elu(w: Writer, node: Node) -> None:
    """Elu."""
    w.add("Elu", node.inputs, node.name, alpha=float(node.attrs["alpha"]))


@exports("prelu")
def prelu(w: Writer, node: Node) -> None:
    """PRelu with a slope for each channel."""
    slope = w.param(node, "weight")
    assert slope is not None
    shape = (-1, *[1] * (len(w.shapes[node.inputs[0]]) - 2))
    w.add("PRelu", [node.inputs[0], w.constant(f"{node.name}.slope", slope.reshape(shape))], node.name)


@exports("sign")
def sign(w: Writer, node: Node) -> None:
    """1 where x >= 0, else -1."""
    zero = w.constant(f"{node.name}.zero", 0.0)
    there = w.add("GreaterOrEqual", [node.inputs[0], zero], f"{node.name}.there")
    ends = w.constant(f"{node.name}.plus", 1.0), w.constant(f"{node.name}.minus", -1.0)
    w.add("Where", [there, *ends], node.name)


@exports("add_scalar", "mul_scalar")
def scalar(w: Writer, node: Node) -> None:
    """Add, Mul with a constant."""
    value = w.constant(f"{node.name}.value", node.attrs["value"])
    w.add("Add" if node.op == "add_scalar" else "Mul", [node.inputs[0], value], node.name)


@exports("scale_shift")
def scale_shift(w: Writer, node: Node) -> None:
    """Mul, then Add, by channel."""
    shape = (-1, *[1] * (len(w.shapes[node.inputs[0]]) - 2))
    scale, shift = (w.param(node, role) for role in ("scale", "shift"))
    assert scale is not None
    assert shift is not None
    product = w.add(
        "Mul", [node.inputs[0], w.constant(f"{node.name}.scale", scale.reshape(shape))], f"{node.name}.scaled"
    )
    w.add("Add", [product, w.constant(f"{node.name}.shift", shift.reshape(shape))], node.name)


@exports("softmax", "log_softmax")
def softmax(w: Writer, node: Node) -> None:
    """Softmax, LogSoftmax."""
    w.add("Softmax" if node.op == "softmax" else "LogSoftmax", node.inputs, node.name, axis=int(node.attrs["dim"]))


@exports("concat")
def concat(w: Writer, node: Node) -> None:
    """Concat."""
    w.add("Concat", node.inputs, node.name, axis=int(node.attrs["dim"]))


@exports("slice")
def slice_(w: Writer, node: Node) -> None:
    """Slice along one axis."""
    a = node.attrs
    end = np.iinfo(np.int64).max if a["end"] is None else a["end"]
    numbers = {"starts": a["start"], "ends": end, "axes": a["dim"], "steps": a["step"]}
    inputs = [w.constant(f"{node.name}.{key}", [value], np.int64) for key, value in numbers.items()]
    w.add("Slice", [node.inputs[0], *inputs], node.name)


@exports("pad")
def pad(w: Writer, node: Node) -> None:
    """Pad with a constant."""
    pairs = node.attrs["pads"]
    sides = [before for before, _ in pairs] + [after for _, after in pairs]
    value = w.constant(f"{node.name}.value", node.attrs["value"])
    w.add("Pad", [node.inputs[0], w.constant(f"{node.name}.pads", sides, np.int64), value], node.name)


@exports("permute")
def permute(w: Writer, node: Node) -> None:
    """Transpose."""
    w.add("Transpose", node.inputs, node.name, perm=[int(dim) for dim in node.attrs["dims"]])


@exports("flatten", "reshape")
def reshape(w: Writer, node: Node) -> None:
    """Reshape; the batch, on the first axis of both, stays what it is."""
    before, after = w.shapes[node.inputs[0]], w.shapes[node.name]
    target = list(after)
    if before and after and before[0] == after[0]:
        target[0] = 0
    w.add("Reshape", [node.inputs[0], w.constant(f"{node.name}.shape", target, np.int64)], node.name)


@exports("constant")
def constant(w: Writer, node: Node) -> None:
    """Identity of a constant."""
    w.add("Identity", [w.given(node, "value")], node.name)


def _levels(w: Writer, value: str, name: str, factor: float, zero: int, low: int, high: int, step: float) -> str:
    """A value through levels of 8 bits and back; returns the name of what comes out."""
    kinds = {(0, 255): np.uint8, (-128, 127): np.int8}
    if (low, high) not in kinds:
        raise GraphError(f"levels {low} to {high} have no form in ONNX: those of 8 bits have")
    scale = w.constant(f"{name}.step", np.float32(1) / np.float32(factor))
    middle = w.constant(f"{name}.zero", zero, kinds[low, high])
    q = w.add("QuantizeLinear", [value, scale, middle], f"{name}.q")
    back = scale if np.float32(step) == np.float32(1) / np.float32(factor) else w.constant(f"{name}.back", step)
    return w.add("DequantizeLinear", [q, back, middle], name)


@exports("quantize")
def quantize(w: Writer, node: Node) -> None:
    """QuantizeLinear, DequantizeLinear."""
    a = node.attrs
    _levels(w, node.inputs[0], node.name, a["factor"], a["zero"], a["low"], a["high"], a["step"])


@exports("int8_conv2d", "int8_linear")
def int8(w: Writer, node: Node) -> None:
    """A float layer between pairs: levels of the input, whole numbers of the weight and of the bias."""
    a, weight = node.attrs, w.param(node, "weight")
    scale, bias = w.param(node, "scale"), w.param(node, "bias")
    assert weight is not None
    assert scale is not None
    factor = np.float32(a["factor"])
    x = _levels(w, node.inputs[0], f"{node.name}.input", a["factor"], a["zero"], 0, 255, 1 / float(factor))
    whole = w.constant(node.params["weight"], weight, np.int8)
    signs = np.sign(scale)
    if bool((signs < 0).any()):
        raise GraphError("a negative scale has no form in ONNX")
    steps = w.constant(f"{node.name}.weight_steps", scale.astype(np.float64) * np.float64(factor))
    middle = w.constant(f"{node.name}.weight_zeros", np.zeros(len(weight)), np.int8)
    dense = w.add("DequantizeLinear", [whole, steps, middle], f"{node.name}.weight", axis=0)
    inputs = [x, dense]
    if bias is not None:
        safe = np.where(scale == 0, 1, scale.astype(np.float64))
        rounded = np.clip(np.rint(bias / safe), -(2**31), 2**31 - 1)
        number = w.constant(f"{node.name}.bias_whole", rounded, np.int32)
        size = w.constant(f"{node.name}.bias_steps", scale)
        none = w.constant(f"{node.name}.bias_zeros", np.zeros(len(bias)), np.int32)
        inputs.append(w.add("DequantizeLinear", [number, size, none], f"{node.name}.bias", axis=0))
    if node.op == "int8_conv2d":
        w.add("Conv", inputs, node.name, **_walk(node, weight.shape[2:]))
    else:
        w.add("Gemm", inputs, node.name, transB=1)
