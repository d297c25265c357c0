"""Bluestein's algorithm: a transform of any length, a prime too, as a convolution of a length we may choose.

    j k = (j^2 + k^2 - (k - j)^2) / 2,     so with the chirp c[j] = w^(j^2 / 2) = exp(-pi i j^2 / n)

    X[k] = c[k] * sum over j of (x[j] c[j]) * conj(c[k - j])

The sum is a convolution of x c with conj(c); its lags run from -(n - 1) to n - 1. Transforms of any length from
2 n - 1 on hold it without wrap-around, and we take one that is a product of 2, 3 and 5.
"""

from __future__ import annotations

import numpy as np

from fastcnn.methods.transforms.fft.lengths import next_fast_length, radices_of
from fastcnn.methods.transforms.fft.mixed_radix import mixed_radix_fft
from fastcnn.methods.transforms.fft.roots import C128, roots_of_unity


def chirp(n: int) -> C128:
    """Return ``exp(-pi i j^2 / n)`` for j = 0 ... n - 1; complex128, shape (n,).

    j^2 is reduced modulo 2 n in integers: as an angle it would have lost its last digits long before j reaches n.
    """
    return roots_of_unity(2 * n)[np.arange(n) ** 2 % (2 * n)]


def bluestein_fft(x: C128) -> C128:
    """Transform the last axis, of any length n, by three transforms of at least 2 n - 1 values.

    About six times the work of a transform of a friendly length near n. The transform of the kernel could be kept.

    Parameters
    ----------
    x : complex128, shape (..., n)

    Returns
    -------
    complex128, shape (..., n)

    References
    ----------
    Bluestein 1970, IEEE Trans. Audio Electroacoust. 18.
    """
    n = x.shape[-1]
    length = next_fast_length(2 * n - 1)
    radices = radices_of(length)
    assert radices is not None
    c = chirp(n)
    padded = np.zeros((*x.shape[:-1], length), np.complex128)
    padded[..., :n] = x * c
    kernel = np.zeros(length, np.complex128)
    kernel[:n] = c.conj()
    kernel[length - n + 1 :] = c[:0:-1].conj()  # lags -(n - 1) ... -1 stand at the end, as in every cyclic convolution
    product = mixed_radix_fft(padded, radices) * mixed_radix_fft(kernel, radices)
    # The inverse transform is the forward one read backwards, divided by the length; values 0 ... n - 1 are wanted.
    back = mixed_radix_fft(product, radices)[..., -np.arange(n)] / length
    return back * c
