"""``torch.ops.fastcnn.tt_linear``: fake kernel, autograd rule, reference path.

The product of rows with a TT-matrix, core by core, without ever making the matrix. Every step is one matrix product on
a view of what the step before has left, no axis is moved: with B the rows and all indices that the cores in front have,

    first core to last:  (m_k r_k, r_{k-1} n_k) times (B m_1 ... m_{k-1}, r_{k-1} n_k, n_{k+1} ... n_d)
    last core to first:  (r_{k-1} m_k, n_k r_k) times (B n_1 ... n_{k-1}, n_k r_k, m_{k+1} ... m_d)

whichever takes fewer multiply-adds. The backward pass makes the states of the sweep anew and goes through it in
reverse; it is made of ordinary ops, so it has derivatives itself. Halves are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.structured.tt_decomposition import CoreShape, goes_rightward


def _shapes(cores: Sequence[Tensor]) -> list[CoreShape]:
    return [(core.shape[0], core.shape[1], core.shape[2], core.shape[3]) for core in cores]


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    """Float32 for halves, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _as_matrix(core: Tensor, rightward: bool) -> Tensor:
    """The core (r, m, n, s) as (m s, r n), or as (r m, n s)."""
    before, m, n, after = core.shape
    if rightward:
        return core.permute(1, 3, 0, 2).reshape(m * after, before * n)
    return core.reshape(before * m, n * after)


def _as_core(matrix: Tensor, shape: CoreShape, rightward: bool) -> Tensor:
    """Inverse of :func:`_as_matrix`."""
    before, m, n, after = shape
    if rightward:
        return matrix.reshape(m, after, before, n).permute(2, 0, 3, 1)
    return matrix.reshape(shape)


def _times(matrix: Tensor, state: Tensor) -> Tensor:
    """Product of a matrix (p, q) with every state (q, columns) of (B, q, columns)."""
    if state.shape[2] == 1:
        return F.linear(state[:, :, 0], matrix)[:, :, None]
    return torch.matmul(matrix, state)


class _Sweep:
    """One walk through the cores.

    Parameters
    ----------
    rows : Tensor, shape (B, n)
    cores : sequence of Tensor
    """

    def __init__(self, rows: Tensor, cores: Sequence[Tensor]) -> None:
        shapes = _shapes(cores)
        self.rightward = goes_rightward(shapes)
        self.order = list(range(len(cores))) if self.rightward else list(range(len(cores)))[::-1]
        self.matrices = [_as_matrix(cores[k], self.rightward) for k in self.order]
        self.states: list[Tensor] = []
        self.width = math.prod(shape[2] for shape in shapes)
        out = F.pad(rows, (0, self.width - rows.shape[1]))
        for k, matrix in zip(self.order, self.matrices, strict=True):
            columns = math.prod(shape[2] if self.rightward else shape[1] for shape in shapes[k + 1 :])
            self.states.append(out.reshape(-1, matrix.shape[1], columns))
            out = _times(matrix, self.states[-1])
        self.out = out.reshape(-1, math.prod(shape[1] for shape in shapes))


@torch.library.custom_op("fastcnn::tt_linear", mutates_args=())
def tt_linear(x: Tensor, cores: list[Tensor], bias: Tensor | None, in_features: int, out_features: int) -> Tensor:
    """Multiply x (..., in_features) with the TT-matrix of the cores, as ``F.linear`` does with a weight.

    Parameters
    ----------
    x : Tensor, shape (..., in_features)
    cores : list of Tensor, shapes (r_{k-1}, m_k, n_k, r_k)
        n_1 ... n_d is at least ``in_features``, and m_1 ... m_d at least ``out_features``: x is padded with zeros, the
        result is cut.
    bias : Tensor or None, shape (out_features,)
    """
    dtype = _computed_in(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        out = _Sweep(x.reshape(-1, in_features).to(dtype), [core.to(dtype) for core in cores]).out[:, :out_features]
        if bias is not None:
            out = out + bias.to(dtype)
        return out.to(x.dtype).reshape(*x.shape[:-1], out_features).contiguous()


@tt_linear.register_fake
def _(x: Tensor, cores: list[Tensor], bias: Tensor | None, in_features: int, out_features: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, cores, _, in_features, _ = inputs
    ctx.save_for_backward(x, *cores)
    ctx.in_features = in_features


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | list[Tensor | None] | None, ...]:
    x, *cores = ctx.saved_tensors
    need_x, need_cores, need_bias = ctx.needs_input_grad[:3]
    dtype = _computed_in(x.dtype)
    grad_x: Tensor | None = None
    grad_cores: list[Tensor | None] = [None] * len(cores)
    with torch.autocast(x.device.type, enabled=False):
        rows = grad.reshape(-1, grad.shape[-1]).to(dtype)
        grad_bias = rows.sum(0).to(x.dtype) if need_bias else None
        if need_x or any(need_cores):
            sweep = _Sweep(x.reshape(-1, ctx.in_features).to(dtype), [core.to(dtype) for core in cores])
            toward = F.pad(rows, (0, sweep.out.shape[1] - rows.shape[1]))
            for k, matrix, state in zip(sweep.order[::-1], sweep.matrices[::-1], sweep.states[::-1], strict=True):
                toward = toward.reshape(-1, matrix.shape[0], state.shape[2])
                if need_cores[k]:
                    grad_matrix = torch.tensordot(toward, state, dims=([0, 2], [0, 2]))
                    grad_cores[k] = _as_core(grad_matrix, _shapes(cores)[k], sweep.rightward).to(x.dtype)
                if need_x or k != sweep.order[0]:
                    toward = _times(matrix.t(), toward)
            if need_x:
                grad_x = toward.reshape(-1, sweep.width)[:, : ctx.in_features].reshape(x.shape).to(x.dtype)
    return grad_x, grad_cores, grad_bias, None, None


tt_linear.register_autograd(_backward, setup_context=_setup)
