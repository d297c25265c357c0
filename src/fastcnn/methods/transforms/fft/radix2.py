"""The first fast Fourier transform that anyone should read: radix 2, iterative, with bit reversal.

    X[k] = sum over j of x[j] w^(j k),     w = exp(-2 pi i / n),     n = 2^s

The even- and the odd-numbered values have transforms E and O of half the length, and one butterfly per k joins them:

    X[k]         = E[k] + w^k O[k]
    X[k + n / 2] = E[k] - w^k O[k]

Halving s times leaves single values, each its own transform, in bit-reversed order. So: reorder once, then s passes of
n / 2 butterflies each, on blocks of 2, 4, 8 ... n values. :mod:`.mixed_radix` is the same with butterflies of any size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.arguments import complex_signal
from fastcnn.methods.transforms.fft.roots import C128, roots_of_unity


def bit_reversal(n: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 ... n - 1, each with its log2(n) bits read backwards.

    Parameters
    ----------
    n : int
        A power of two.

    Returns
    -------
    int64, shape (n,)
        A permutation that is its own inverse.

    Raises
    ------
    ValueError
        If n is not a power of two.

    Examples
    --------
    >>> bit_reversal(8).tolist()
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    if n < 1 or n & (n - 1):
        raise ValueError(f"n={n} is not supported by bit_reversal: it must be a power of two")
    index, reversed_index = np.arange(n), np.zeros(n, np.int64)
    for _ in range(n.bit_length() - 1):
        reversed_index = 2 * reversed_index + index % 2
        index = index // 2
    return reversed_index


def radix2_fft(x: npt.ArrayLike) -> C128:
    """Transform the last axis, whose length is a power of two, by butterflies of two values.

    ``n / 2 log2(n)`` complex multiplications, n log2(n) additions. :func:`.complex_fft.fft` takes any length and needs
    fewer multiplications; this one is for reading.

    Parameters
    ----------
    x : array of real or complex numbers, shape (..., n)
        n a power of two.

    Returns
    -------
    complex128, shape (..., n)

    Raises
    ------
    TypeError
        If x does not hold numbers.
    ValueError
        If x has no axis, or its last axis is not a power of two long.

    References
    ----------
    Cooley and Tukey 1965, Math. Comp. 19.

    Examples
    --------
    >>> radix2_fft([1, 2, 3, 4]).tolist()
    [(10+0j), (-2+2j), (-2+0j), (-2-2j)]
    """
    signal = complex_signal("x", x)
    n = signal.shape[-1]
    if n & (n - 1):
        raise ValueError(f"x has {n} values along its last axis: radix2_fft needs a power of two, fft takes any length")
    out = signal[..., bit_reversal(n)]
    half = 1
    while half < n:
        blocks = out.reshape(*signal.shape[:-1], n // (2 * half), 2, half)
        even, odd = blocks[..., 0, :], blocks[..., 1, :] * roots_of_unity(2 * half)[:half]
        out = np.stack((even + odd, even - odd), axis=-2).reshape(signal.shape)
        half *= 2
    return out
