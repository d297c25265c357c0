"""Activations, arithmetic, per-channel scales, softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.ops import ACTIVATIONS
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.lowering.epilogue import activation_attrs, split_epilogue
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers
from fastcnn.engine.plan.slots import Slot


@lowers(*ACTIVATIONS)
def activation(low: Lowerer, node: Node) -> None:
    _unary(low, node, activation_attrs(node.op, dict(node.attrs)), {})


@lowers("prelu")
def prelu(low: Lowerer, node: Node) -> None:
    """One slope, or one per channel; a single slope is a leaky ReLU."""
    slope = low.weight(node, "weight")
    if slope.size == 1:
        _unary(low, node, {"act": "leaky_relu", "act_alpha": float(slope[0])}, {})
        return
    source = low.blocked(node.inputs[0])
    low.emit(
        "unary", node.name, [source], low.new_blocked(node.name), attrs={"act": "prelu"}, weights={"slope": slope},
        node=node,
    )  # fmt: skip


def _unary(low: Lowerer, node: Node, attrs: dict[str, Any], weights: dict[str, Array]) -> None:
    source, out = _same_layout(low, node)
    low.emit("unary", node.name, [source], out, attrs=attrs, weights=weights, node=node)


def _same_layout(low: Lowerer, node: Node) -> tuple[Slot, Slot]:
    value = node.inputs[0]
    if low.is_blocked(value):
        return low.blocked(value), low.new_blocked(node.name)
    return low.plain(value), low.new_plain(node.name)


@lowers("sqrt", "abs")
def math_function(low: Lowerer, node: Node) -> None:
    source, out = _same_layout(low, node)
    low.emit("math", node.name, [source], out, attrs={"kind": node.op}, node=node)


@lowers("matmul")
def matmul(low: Lowerer, node: Node) -> None:
    """Row-major matrices, one product per index of the axes before."""
    a, b = node.inputs
    *before, m, k = low.dims(a)
    attrs = {"m": m, "k": k, "n": low.dims(b)[-1], "count": math.prod(before)}
    low.emit("matmul", node.name, [low.plain(a), low.plain(b)], low.new_plain(node.name), attrs=attrs, node=node)


@lowers("add_scalar", "mul_scalar")
def scalar(low: Lowerer, node: Node) -> None:
    value = np.float32(node.attrs["value"])
    if low.is_blocked(node.inputs[0]):
        one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        given = np.full(1, value, np.float32)
        weights = {"scale": one, "shift": given} if node.op == "add_scalar" else {"scale": given, "shift": zero}
        low.emit(
            "scale_shift", node.name, [low.blocked(node.inputs[0])], low.new_blocked(node.name), weights=weights,
            node=node,
        )  # fmt: skip
        return
    constant = low.temporary((1,), blocked=False)
    low.emit("fill", f"{node.name}.value", [], constant, attrs={"value": float(value)})
    _plain_binary(
        low, node, node.op.split("_", maxsplit=1)[0], low.plain(node.inputs[0]), low.dims(node.inputs[0]), constant,
        (1,),
    )  # fmt: skip


@lowers("scale_shift")
def scale_shift(low: Lowerer, node: Node) -> None:
    residual, attrs = split_epilogue(node)
    source = low.blocked(node.inputs[0])
    weights = {"scale": low.weight(node, "scale"), "shift": low.weight(node, "shift")}
    out = low.new_blocked(node.name)
    if residual is None:
        low.emit("scale_shift", node.name, [source], out, attrs=attrs, weights=weights, node=node)
        return
    # The element-wise kernels have no residual input: scale first, then add (and activate where the order says).
    scaled = low.temporary(low.dims(node.name), blocked=True)
    before = attrs.pop("act_before_residual")
    attrs.pop("residual")
    low.emit(
        "scale_shift", f"{node.name}.scale", [source], scaled, attrs=attrs if before else {}, weights=weights, node=node
    )
    low.emit(
        "binary", node.name, [scaled, low.blocked(residual)], out, attrs={"kind": "add"} | ({} if before else attrs)
    )


@lowers("add", "sub", "mul", "div")
def binary(low: Lowerer, node: Node) -> None:
    """Blocked where the operands have the output's shape or one value per channel; plain with numpy's rules else."""
    a, b = node.inputs
    dims = low.dims(node.name)
    if any(low.is_blocked(v) for v in (a, b)) and all(_fits_blocked(low.dims(v), dims) for v in (a, b)):
        inputs = [low.blocked(a), low.blocked(b)]
        low.emit("binary", node.name, inputs, low.new_blocked(node.name), attrs={"kind": node.op}, node=node)
        return
    _plain_binary(low, node, node.op, low.plain(a), low.dims(a), low.plain(b), low.dims(b))


def _fits_blocked(own: Shape, out: Shape) -> bool:
    if not 2 <= len(out) <= 4 or len(own) != len(out) or own[1] != out[1] or own[0] not in (1, out[0]):
        return False
    return own[2:] == out[2:] or all(extent == 1 for extent in own[2:])


def _plain_binary(low: Lowerer, node: Node, kind: str, a: Slot, a_dims: Shape, b: Slot, b_dims: Shape) -> None:
    out = low.new_plain(node.name)
    dims = low.dims(node.name) or (1,)
    strides = [_broadcast_strides(own, dims) for own in (a_dims, b_dims)]
    dims_list, (a_strides, b_strides) = _collapse(list(dims), strides)
    low.emit(
        "binary", node.name, [a, b], out,
        attrs={"kind": kind, "dims": dims_list, "a_strides": a_strides, "b_strides": b_strides}, node=node,
    )  # fmt: skip


def _broadcast_strides(own: Shape, out: Shape) -> list[int]:
    padded = (1,) * (len(out) - len(own)) + tuple(own)
    return [0 if padded[i] == 1 else math.prod(padded[i + 1 :]) for i in range(len(out))]


def _collapse(dims: list[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes along which every operand runs on."""
    out_dims, out_strides = [dims[-1]], [[s[-1]] for s in strides]
    for i in range(len(dims) - 2, -1, -1):
        if all(s[i] == o[0] * out_dims[0] for s, o in zip(strides, out_strides, strict=True)):
            out_dims[0] *= dims[i]
        else:
            out_dims.insert(0, dims[i])
            for s, o in zip(strides, out_strides, strict=True):
                o.insert(0, s[i])
    return out_dims, out_strides


@lowers("softmax", "log_softmax")
def softmax(low: Lowerer, node: Node) -> None:
    dims, dim = low.dims(node.name), node.attrs["dim"]
    attrs = {
        "outer": math.prod(dims[:dim]),
        "axis": dims[dim],
        "inner": math.prod(dims[dim + 1 :]),
        "log": int(node.op == "log_softmax"),
    }
    low.emit("softmax", node.name, [low.plain(node.inputs[0])], low.new_plain(node.name), attrs=attrs, node=node)
