"""Multiplication of polynomials by Fourier transforms: linear convolution of their coefficients.

The transform of the coefficients is the polynomial's values at the n roots of unity. Values multiply point by point,
and the inverse transform interpolates: it finds the one polynomial of degree below n with these values. The product has
``len(a) + len(b) - 1`` coefficients, so with a transform of at least that length it is that polynomial.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.coefficients import checked_coefficients, norm
from fastcnn.methods.transforms.fft.complex_fft import inverse_transform, transform
from fastcnn.methods.transforms.fft.lengths import next_fast_length
from fastcnn.methods.transforms.fft.real_fft import inverse_real_transform, real_transform

ROUNDING = 1e-16
"""Estimated error of a coefficient of the product, per level of the transforms, relative to ``norm(a) norm(b)``."""

SAFETY = 1 / 32
"""Largest estimate at which integers are rounded: a sixteenth of 1/2, where the nearest integer is another."""


def polynomial_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the coefficients of the product of two polynomials, lowest degree first.

    O(n log n) for n coefficients. Real and complex products carry an error of at most about
    ``e = 1e-16 log2(2 L) norm(a) norm(b)``, L the length of the transforms and norm the root of the sum of squares. It
    is the same for every coefficient, however small.

    Products of integers are rounded to the nearest integer, and refused where e exceeds 1/32; what is returned is
    exact. For n coefficients of at most A, e is at most ``1e-16 log2(2 L) n A^2``: 65,536 of them may be as large as
    16,000. A worst-case analysis like Percival's gives about 16 times e, just below the 1/2 where rounding would fail.

    Parameters
    ----------
    a, b : sequences of integers, real or complex numbers, shape (m,) and (n,)
        Both integers (Python's or NumPy's): an exact product.

    Returns
    -------
    int64, float64 or complex128, shape (m + n - 1,)
        int64 if both factors are integers, complex128 if one is complex.

    Raises
    ------
    TypeError
        If a factor does not hold numbers, or holds booleans.
    ValueError
        If a factor is empty or has not exactly one axis, or if the product of integers might be rounded wrongly:
        :func:`.number_theoretic.polynomial_multiply_exact` has no rounding.

    References
    ----------
    Percival 2003, Math. Comp. 72 (error of a convolution by Fourier transforms).

    Examples
    --------
    >>> polynomial_multiply([1, 2], [1, 0, -1]).tolist()
    [1, 2, -1, -2]
    """
    first, second = checked_coefficients("a", a), checked_coefficients("b", b)
    wanted = len(first) + len(second) - 1
    length = next_fast_length(wanted)
    exact = first.dtype.kind in "iuO" and second.dtype.kind in "iuO"
    if exact:
        _check_rounding(norm(first), norm(second), length)
    if "c" in (first.dtype.kind, second.dtype.kind):
        spectra = [transform(_padded(x, np.complex128, length)) for x in (first, second)]
        return inverse_transform(spectra[0] * spectra[1])[:wanted]
    halves = [real_transform(_padded(x, np.float64, length)) for x in (first, second)]
    product = inverse_real_transform(halves[0] * halves[1], length)[:wanted]
    return np.rint(product).astype(np.int64) if exact else product


def _check_rounding(norm_a: float, norm_b: float, length: int) -> None:
    error = ROUNDING * log2(2 * length) * norm_a * norm_b
    if not error <= SAFETY:
        raise ValueError(
            f"integers whose norms are {norm_a:.3g} and {norm_b:.3g} may be off by {error:.2g} before rounding, "
            f"and only {SAFETY} is safe in float64: use number_theoretic.polynomial_multiply_exact, or pass floats for "
            "a product that is not exact"
        )


def _padded(x: npt.NDArray[Any], dtype: npt.DTypeLike, length: int) -> npt.NDArray[Any]:
    out = np.zeros(length, dtype)
    out[: len(x)] = x
    return out
