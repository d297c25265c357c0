"""The Walsh-Hadamard transform: a Fourier transform that only adds and subtracts.

    H_1 = [1],      H_2n = [[H_n,  H_n],
                            [H_n, -H_n]]

Rows of H_n are orthogonal and of length sqrt(n), and H_n is symmetric, so H_n / sqrt(n) is its own inverse. Written
out, the recursion is a butterfly: transform both halves of x, then add and subtract them. That makes log2(n) passes of
n additions, where the matrix would need n^2. The passes are cheap to count and dear to run one by one: each reads and
writes the whole of x for a single addition per number.

The recursion says that H_2n is the Kronecker product of H_2 and H_n, and a Kronecker product of symmetric matrices of
orders a and b is two ordinary products. With the n = a b numbers of x laid out as a matrix X of a rows, row by row,

    (H_a kron H_b) x = H_a X H_b

For a and b near sqrt(n) that takes n (a + b) multiply-adds, in two passes over x at the speed of a matrix product: for
n = 1024, 65 536 instead of 1 048 576. :func:`hadamard` does this.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.spectra import compute_dtype


def next_power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n, for n >= 1."""
    return 1 << (n - 1).bit_length()


def hadamard_macs(n: int) -> int:
    """Additions of the butterflies, n log2(n), each counted as one multiply-add; n a power of two."""
    return n * (n.bit_length() - 1)


def split(n: int) -> tuple[int, int]:
    """Return a and b with a b = n and b = a or b = 2 a, for n a power of two."""
    bits = n.bit_length() - 1
    return 1 << bits // 2, 1 << bits - bits // 2


@lru_cache(maxsize=16)
def _signs(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """H_n, entries 1 and -1: the recursion of the module's docstring. Never larger than the root of twice a length."""
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while matrix.shape[0] < n:
        upper = torch.cat((matrix, matrix), dim=1)
        lower = torch.cat((matrix, -matrix), dim=1)
        matrix = torch.cat((upper, lower))
    return matrix


def hadamard(x: Tensor) -> Tensor:
    """Transform the last axis by H_n / sqrt(n), in the order of Sylvester's recursion.

    Orthonormal: lengths and angles stay as they are, and twice the transform is x again. Differentiable to any order.
    Exact in its signs, so the only errors are those of sums of n terms; where n is a power of four the factor
    1 / sqrt(n) is exact too. Halves are computed in float32 and rounded once.

    Parameters
    ----------
    x : Tensor, shape (..., n)
        Floating point, n a power of two.

    Returns
    -------
    Tensor, shape (..., n), dtype of x

    Raises
    ------
    TypeError
        If x is not a floating point tensor.
    ValueError
        If x has no axis, or its last axis is not a power of two long.

    References
    ----------
    Fino and Algazi 1976, IEEE Trans. Computers C-25: Kronecker form of the fast transform.

    Examples
    --------
    >>> hadamard(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> hadamard(torch.tensor([0.5, -0.5, 0.5, -0.5])).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        raise TypeError(
            f"x must be a floating point tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}"
        )
    n = x.shape[-1] if x.dim() else 0
    if n < 1 or n & (n - 1):
        raise ValueError(
            f"x of shape {tuple(x.shape)} has no last axis of a power of two: pad it with zeros to "
            f"{next_power_of_two(max(n, 1))}"
        )
    out: Tensor = torch.ops.fastcnn.hadamard(x)
    return out


@torch.library.custom_op("fastcnn::hadamard", mutates_args=())
def hadamard_op(x: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of the last axis. An op, so that its matrices are real under any tracer."""
    n, dtype = x.shape[-1], compute_dtype(x.dtype)
    a, b = split(n)
    left, right = _signs(a, dtype, x.device), _signs(b, dtype, x.device) * n**-0.5
    rows = x.to(dtype).reshape(*x.shape[:-1], a, b)
    out: Tensor = left @ (rows @ right)
    return out.reshape(x.shape).to(x.dtype).contiguous()


@hadamard_op.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    """The matrix is symmetric: its adjoint is itself."""
    out: Tensor = torch.ops.fastcnn.hadamard(grad)
    return out


hadamard_op.register_autograd(_backward)
