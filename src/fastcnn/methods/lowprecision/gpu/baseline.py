"""Matrix products with a thread for each output and no tiles: what the kernels of bits are measured against.

The BNN paper measures its kernel for signs against a plain one of its authors for float32, in which a thread multiplies
a row by a column. Such a one is kept here for benchmarks, which alone call it; the same in bits stands beside it.

References
----------
Hubara, Courbariaux, Soudry, El-Yaniv and Bengio 2016, arXiv:1602.02830. Differs: no tiles in shared memory, L1 alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcnn.methods.lowprecision.gpu.kernels import popcount
from fastcnn.methods.lowprecision.gpu.products import INTERPRETED, on_device

SIDE = 16
"""Of a program's square of outputs."""


@triton.jit
def one_output_each(x, w, y, rows, columns, depth, SIGNS: tl.constexpr, SIDE: tl.constexpr, NATIVE: tl.constexpr):
    """y (rows, columns) of x (rows, depth) and w (depth, columns); of words, with SIGNS, y counts differing bits."""
    thread = tl.arange(0, SIDE * SIDE)
    row, column = tl.program_id(1) * SIDE + thread // SIDE, tl.program_id(0) * SIDE + thread % SIDE
    there = (row < rows) & (column < columns)
    at_x, at_w = x + row * depth, w + column
    if SIGNS:
        total = tl.zeros((SIDE * SIDE,), tl.int32)
    else:
        total = tl.zeros((SIDE * SIDE,), tl.float32)
    for k in range(depth):
        a, b = tl.load(at_x + k, mask=there, other=0), tl.load(at_w + k * columns, mask=there, other=0)
        if SIGNS:
            total += popcount(a ^ b, NATIVE)
        else:
            total += a * b
    tl.store(y + row * columns + column, total, mask=there)


def multiply(x: Tensor, w: Tensor) -> Tensor:
    """The product of two float32 matrices, (M, K) and (K, N)."""
    return _launch(x, w, torch.empty((x.shape[0], w.shape[1]), dtype=torch.float32, device=x.device))


def multiply_words(x: Tensor, w: Tensor, depth: int) -> Tensor:
    """The same of signs in words, (M, words) and (words, N), int32; ``depth`` is K."""
    return depth - 2 * _launch(x, w, torch.empty((x.shape[0], w.shape[1]), dtype=torch.int32, device=x.device))


def _launch(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    rows, columns = y.shape
    with on_device(x):
        one_output_each[(triton.cdiv(columns, SIDE), triton.cdiv(rows, SIDE))](
            x, w, y, rows, columns, x.shape[1], SIGNS=y.dtype == torch.int32, SIDE=SIDE, NATIVE=not INTERPRETED,
            num_warps=SIDE * SIDE // 32,
        )  # fmt: skip
    return y
