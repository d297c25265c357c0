"""The discrete cosine transform (DCT-II) and its inverse (DCT-III), orthonormal, along the last axis, for any length.

    y[k] = f[k] sum over j of x[j] cos(pi k (2 j + 1) / (2 n)),     f[0] = sqrt(1 / n),  f[k] = sqrt(2 / n) for k > 0

With these factors the matrix C[j, k] = f[k] cos(pi k (2 j + 1) / (2 n)) is orthogonal: y = x C, x = y C^T.

Two ways to compute it. Up to 512 numbers one product with the matrix C, which is kept. Beyond that Makhoul's way, one
real FFT of the same length n. The cosine sees x as a signal that is mirrored at its end; every number of the mirrored
signal occurs twice, so half of them will do. Taking the even-numbered values in order and then the odd-numbered ones
backwards,

    v = x[0], x[2], x[4], ..., x[5], x[3], x[1]

puts one of each pair in place, and with V = FFT(v) the transform is a turn and a real part:

    y[k] = f[k] Re w[k],     w[k] = exp(-i pi k / (2 n)) V[k]

v is real, hence V[n - k] is the conjugate of V[k] and w[n - k] = -i conj(w[k]). So the real FFT's half of the spectrum
gives both ends: Re w[k] = y[k] / f[k], and -Im w[k] = y[n - k] / f[n - k]. The inverse reads the same lines backwards.

References: Ahmed, Natarajan and Rao 1974, IEEE Trans. Computers C-23; Makhoul 1980, IEEE Trans. ASSP-28.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.spectra import compute_dtype

LONGEST_MATRIX = 512
"""Up to this length the transform is a product with its matrix."""


def dct_macs(n: int) -> int:
    """Multiply-adds of a fast transform, n log2(n) rounded up.

    A power of two takes about n / 2 log2(n) multiplications and 3 n / 2 log2(n) additions, 2 n log2(n) operations.
    """
    return math.ceil(n * math.log2(n))


def table_bytes(n: int) -> int:
    """Bytes of the float32 table that a transform of this length keeps: the matrix, or the turns and their inverses."""
    return 4 * n * n if n <= LONGEST_MATRIX else 2 * 8 * (n // 2 + 1)


@lru_cache(maxsize=16)
def _matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """C of the module's docstring, made in float64; the product k (2 j + 1) is reduced to one period as an integer."""
    number = torch.arange(n)
    angle = (2 * number[:, None] + 1) * number % (4 * n)
    matrix = torch.cos(angle.double() * (math.pi / (2 * n))) * math.sqrt(2 / n)
    matrix[:, 0] = math.sqrt(1 / n)
    return matrix.to(device=device, dtype=dtype)


@lru_cache(maxsize=16)
def _turns(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors f[k] exp(-i pi k / (2 n)) for the half spectrum, and their inverses; complex, made in float64."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    length = torch.full_like(k, math.sqrt(2 / n))
    length[0] = math.sqrt(1 / n)
    turn = torch.polar(length, k * (-math.pi / (2 * n)))
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return turn.to(device, complex_dtype), (1 / turn).to(device, complex_dtype)


def _by_fft(x: Tensor, turn: Tensor) -> Tensor:
    n = x.shape[-1]
    v = torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), dim=-1)
    w = torch.fft.rfft(v) * turn
    return torch.cat((w.real, -w.imag[..., 1 : n - n // 2].flip(-1)), dim=-1)


def _inverse_by_fft(y: Tensor, turn: Tensor) -> Tensor:
    n = y.shape[-1]
    half = n // 2
    # y[n - k] for k = 0 ... n // 2, where y[n] = 0
    mirrored = torch.cat((torch.zeros_like(y[..., :1]), y[..., n - half :].flip(-1)), dim=-1)
    v = torch.fft.irfft(torch.complex(y[..., : half + 1], -mirrored) * turn, n=n)
    x = torch.empty_like(v)
    x[..., ::2] = v[..., : n - half]
    x[..., 1::2] = v[..., n - half :].flip(-1)
    return x


@torch.library.custom_op("fastcnn::dct", mutates_args=())
def dct_op(x: Tensor, inverse: bool) -> Tensor:
    """Orthonormal DCT-II of the last axis, or its inverse. An op, so that its tables are real under any tracer."""
    n, dtype = x.shape[-1], compute_dtype(x.dtype)
    if x.numel() == 0:
        # MKL refuses to transform nothing.
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    signal = x.to(dtype)
    if n <= LONGEST_MATRIX:
        matrix = _matrix(n, dtype, x.device)
        out = signal @ (matrix.t() if inverse else matrix)
    else:
        turn, turn_back = _turns(n, dtype, x.device)
        out = _inverse_by_fft(signal, turn_back) if inverse else _by_fft(signal, turn)
    return out.to(x.dtype).contiguous()


@dct_op.register_fake
def _(x: Tensor, inverse: bool) -> Tensor:
    return x.new_empty(x.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.inverse = inputs[1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """The matrix is orthogonal: its adjoint is its inverse."""
    return torch.ops.fastcnn.dct(grad, not ctx.inverse), None


dct_op.register_autograd(_backward, setup_context=_setup)


def _checked(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        raise TypeError(
            f"x must be a floating point tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}"
        )
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x of shape {tuple(x.shape)} has no numbers along its last axis: nothing to transform")
    return x


def dct(x: Tensor) -> Tensor:
    """Transform the last axis by the orthonormal DCT-II, ``scipy.fft.dct(x, norm="ortho")``.

    Differentiable to any order. Halves are computed in float32 and rounded once.

    Parameters
    ----------
    x : Tensor, shape (..., n)
        Floating point, n >= 1.

    Returns
    -------
    Tensor, shape (..., n), dtype of x

    Raises
    ------
    TypeError
        If x is not a floating point tensor.
    ValueError
        If x has no axis, or its last axis is empty.

    Examples
    --------
    >>> dct(torch.ones(4, dtype=torch.float64)).round(decimals=12).abs().tolist()
    [2.0, 0.0, 0.0, 0.0]
    """
    out: Tensor = torch.ops.fastcnn.dct(_checked(x), False)
    return out


def idct(y: Tensor) -> Tensor:
    """Undo :func:`dct`: the orthonormal DCT-III of the last axis.

    Parameters
    ----------
    y : Tensor, shape (..., n)
        Floating point, n >= 1.

    Returns
    -------
    Tensor, shape (..., n), dtype of y

    Raises
    ------
    TypeError, ValueError
        As :func:`dct`.

    Examples
    --------
    >>> idct(torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)).round(decimals=12).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    out: Tensor = torch.ops.fastcnn.dct(_checked(y), True)
    return out
