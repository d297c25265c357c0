"""Transforms of real values at half the price.

The spectrum of a real signal is Hermitian, X[n - k] = conj(X[k]), so n // 2 + 1 bins say everything, and two real
signals a and b fit into one complex transform: with Z the transform of a + i b,

    A[k] = (Z[k] + conj(Z[n - k])) / 2          B[k] = (Z[k] - conj(Z[n - k])) / (2 i)

One real signal of even length is two: its even- and its odd-numbered values. One complex transform of n / 2 gives both
spectra, and one last pass of radix-2 butterflies joins them. Odd lengths take a complex transform of n values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.arguments import complex_signal, real_length, real_signal
from fastcnn.methods.transforms.fft.complex_fft import inverse_transform, transform
from fastcnn.methods.transforms.fft.roots import C128, F64, roots_of_unity


def two_for_one(a: F64, b: F64) -> tuple[C128, C128]:
    """Return the whole spectra of two real signals by one complex transform.

    Parameters
    ----------
    a, b : float64, shape (..., n)

    Returns
    -------
    two of complex128, shape (..., n)
    """
    z = transform(a + 1j * b)
    mirrored = z[..., -np.arange(z.shape[-1])].conj()  # conj(Z[n - k]); index 0 stays where it is
    return (z + mirrored) / 2, (z - mirrored) / 2j


def rfft(x: npt.ArrayLike, n: int | None = None) -> C128:
    """Return bins 0 ... n // 2 of the transform of real values along the last axis.

    Parameters
    ----------
    x : array of real numbers, shape (..., m)
        Rounded to float64.
    n : int, optional
        Length of the transform, at least m: x is filled up with zeros. Default: m. Even lengths cost half.

    Returns
    -------
    complex128, shape (..., n // 2 + 1)
        Bin 0, and bin n / 2 of an even length, are real: their imaginary parts are exactly zero.

    Raises
    ------
    TypeError
        If x is complex or does not hold numbers, or n is not an integer.
    ValueError
        If x has no axis or its last one is empty, or if n is below m.

    References
    ----------
    Cooley, Lewis and Welch 1970, J. Sound Vib. 12; Sorensen et al. 1987, IEEE Trans. ASSP 35.

    Examples
    --------
    >>> rfft([1, 2, 3, 4]).tolist()
    [(10+0j), (-2+2j), (-2+0j)]
    """
    return real_transform(real_signal("x", x, n))


def irfft(spectrum: npt.ArrayLike, n: int | None = None) -> F64:
    """Return the n real values whose :func:`rfft` this is, along the last axis.

    The imaginary parts of bin 0, and of bin n / 2 for an even n, cannot come from real values; they are left out, as
    ``numpy.fft.irfft`` does.

    Parameters
    ----------
    spectrum : array of numbers, shape (..., n // 2 + 1)
    n : int, optional
        Number of values; default: the even one, ``2 * (bins - 1)``. Pass it when the signal was odd.

    Returns
    -------
    float64, shape (..., n)

    Raises
    ------
    TypeError
        If spectrum does not hold numbers, or n is not an integer.
    ValueError
        If spectrum has no axis or its last one is empty, or if n does not have this number of bins.

    Examples
    --------
    >>> irfft([6, 0], n=3).tolist()
    [2.0, 2.0, 2.0]
    """
    bins = complex_signal("spectrum", spectrum)
    return inverse_real_transform(bins, real_length(bins, n))


def real_transform(x: F64) -> C128:
    """:func:`rfft` without its checks; float64 of shape (..., n), n at least 1."""
    n = x.shape[-1]
    if n % 2:
        out = transform(x.astype(np.complex128))[..., : n // 2 + 1]
        out[..., 0] = out[..., 0].real
        return out
    even, odd = two_for_one(x[..., ::2], x[..., 1::2])
    odd = odd * roots_of_unity(n)[: n // 2]
    return np.concatenate((even + odd, even[..., :1] - odd[..., :1]), axis=-1)


def inverse_real_transform(bins: C128, n: int) -> F64:
    """:func:`irfft` without its checks; complex128 of shape (..., n // 2 + 1)."""
    bins = bins.copy()
    bins[..., 0] = bins[..., 0].real
    if n % 2:
        whole = np.concatenate((bins, bins[..., :0:-1].conj()), axis=-1)
        return inverse_transform(whole).real
    bins[..., -1] = bins[..., -1].real
    # The butterfly backwards: X[k] and X[k + n / 2] = conj(X[n / 2 - k]) give E[k] and w^k O[k].
    here, opposite = bins[..., :-1], bins[..., :0:-1].conj()
    even, odd = (here + opposite) / 2, (here - opposite) / 2 * roots_of_unity(n)[: n // 2].conj()
    pair = inverse_transform(even + 1j * odd)
    return np.stack((pair.real, pair.imag), axis=-1).reshape(*bins.shape[:-1], n)
