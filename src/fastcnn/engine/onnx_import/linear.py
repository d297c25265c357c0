"""Gemm and MatMul."""

from __future__ import annotations

import numpy as np

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.onnx_import.elementwise import binary, scaled
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, lowers
from fastcnn.engine.onnx_import.shape import drop_axis, permute
from fastcnn.engine.onnx_import.walk import Walk


def _transposed(array: Array) -> Array:
    return np.ascontiguousarray(array.T)


@lowers("Gemm")
def gemm(lower: Walk, call: Call) -> str:
    """alpha * A' B' + beta * C with a constant B."""
    x, matrix = lower.value(call.given(0, "A")), call.constant(1, "matrix B")
    if lower.rank(x) != 2 or matrix.array.ndim != 2:
        raise Damaged(f"A has shape {lower.shape(x)} and B {matrix.array.shape}: both must be matrices")
    if call.flag("transA"):
        x = permute(lower, x, [1, 0])
    weight = matrix if call.flag("transB") else lower.derive(matrix, "transposed", _transposed)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if alpha != 1.0:
        weight = lower.derive(matrix, f"{call.flag('transB')} {alpha}", lambda _: _times(weight.array, alpha))
    shift = None if call.optional(2) is None else call.given(2, "C")
    bias = _bias(lower, shift, beta, weight.array.shape[0]) if beta != 0.0 else None
    y = lower.emit("linear", [x], params={"weight": weight, "bias": bias})
    if shift is None or bias is not None or beta == 0.0:
        return y
    return binary(lower, "add", y, scaled(lower, lower.value(shift), beta))


def _times(array: Array, factor: float) -> Array:
    return np.asarray((array.astype(np.float64) * factor).astype(np.float32))


def _bias(lower: Walk, shift: object, beta: float, outputs: int) -> Constant | None:
    """Return C as a bias, where it is one number per output (or one for all)."""
    if not isinstance(shift, Constant) or shift.array.ndim > 2 or shift.array.dtype != np.float32:
        return None
    if shift.array.shape == (outputs,) and beta == 1.0:
        return shift
    if shift.array.size not in (1, outputs) or (shift.array.ndim and shift.array.shape[-1] != shift.array.size):
        return None
    what = f"bias {beta} {outputs}"
    return lower.derive(shift, what, lambda array: _times(np.broadcast_to(array.reshape(-1), (outputs,)), beta))


@lowers("MatMul")
def matmul(lower: Walk, call: Call) -> str:
    """x @ W with a constant matrix (or vector) W, or two computed stacks of matrices."""
    x, matrix = call.given(0, "A"), call.given(1, "B")
    if not isinstance(matrix, Constant):
        if isinstance(x, Constant):
            raise Unsupported("its first operand is the constant one; only x @ W with a constant W is supported")
        return lower.emit("matmul", [lower.value(x), matrix])
    name, array = lower.value(x), matrix.array
    while array.ndim > 2 and array.shape[0] == 1 and lower.rank(name) >= array.ndim:
        array = array[0]  # batch axes of extent 1 broadcast
    if array.ndim not in (1, 2):
        raise Unsupported(f"its constant operand has shape {array.shape}; one matrix for the whole batch is supported")
    if array.ndim == 1:
        weight = lower.derive(matrix, "row", lambda a: np.ascontiguousarray(a.reshape(1, -1)))
    else:
        weight = lower.derive(matrix, "transposed", lambda a: _transposed(a.reshape(array.shape)))
    y = lower.emit("linear", [name], params={"weight": weight})
    return drop_axis(lower, y, lower.rank(y) - 1) if array.ndim == 1 else y
