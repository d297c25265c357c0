"""Fourier transforms over the integers modulo a prime: no rounding, so products of integers come out exact.

All that a transform of length n asks of its numbers is a root w with w^n = 1 and w^k != 1 for 0 < k < n, and a
reciprocal of n. Modulo a prime p there is one for every n that divides p - 1: for p = 998244353 = 119 * 2^23 + 1, for
every power of two up to 2^23. Only the root and the reduction differ from :mod:`.radix2`.

A product of integers is found modulo as many such primes as its largest coefficient needs, and put together by the
Chinese remainder theorem.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.coefficients import integer_coefficients, largest_magnitude
from fastcnn.methods.transforms.fft.radix2 import bit_reversal

I64 = npt.NDArray[np.int64]

MODULUS = 998244353
"""119 * 2^23 + 1, a prime."""

MAX_LENGTH = 1 << 23
"""Longest transform: the power of two in p - 1 of every prime used here."""


def number_theoretic_transform(x: npt.ArrayLike, modulus: int = MODULUS) -> I64:
    """Return ``X[k] = sum over j of x[j] w^(j k) mod p``, w a root of order n modulo p.

    Parameters
    ----------
    x : sequence of integers, shape (n,)
        n a power of two up to 2^23; of any size and sign, reduced modulo p first.
    modulus : int
        A prime of :func:`primes`.

    Returns
    -------
    int64, shape (n,)
        Residues 0 ... p - 1.

    Raises
    ------
    TypeError
        If x does not hold integers.
    ValueError
        If n is not a power of two up to 2^23, or modulus is not one of the primes.

    References
    ----------
    Pollard 1971, Math. Comp. 25.

    Examples
    --------
    >>> number_theoretic_transform([1, 1]).tolist()
    [2, 0]
    """
    values = integer_coefficients("x", x)
    root = _root(modulus, len(values))
    return _transform(_residues(values, modulus), modulus, root)


def inverse_number_theoretic_transform(spectrum: npt.ArrayLike, modulus: int = MODULUS) -> I64:
    """Undo :func:`number_theoretic_transform`; the same arguments, result and errors.

    Examples
    --------
    >>> inverse_number_theoretic_transform([2, 0]).tolist()
    [1, 1]
    """
    values = integer_coefficients("spectrum", spectrum)
    inverse_root = pow(_root(modulus, len(values)), -1, modulus)
    return _transform(_residues(values, modulus), modulus, inverse_root) * pow(len(values), -1, modulus) % modulus


def polynomial_multiply_modular(a: npt.ArrayLike, b: npt.ArrayLike, modulus: int = MODULUS) -> I64:
    """Return the product of two polynomials with coefficients modulo p, lowest degree first.

    Parameters
    ----------
    a, b : sequences of integers, shape (m,) and (n,)
        m + n - 1 at most 2^23.
    modulus : int
        A prime of :func:`primes`.

    Returns
    -------
    int64, shape (m + n - 1,)
        Residues 0 ... p - 1.

    Raises
    ------
    TypeError
        If a factor does not hold integers.
    ValueError
        If a factor is empty or has not exactly one axis, the product is too long, or modulus is not one of the primes.

    Examples
    --------
    >>> polynomial_multiply_modular([1, -1], [1, 1]).tolist()
    [1, 0, 998244352]
    """
    first, second = integer_coefficients("a", a), integer_coefficients("b", b)
    return _product(first, second, modulus)


def polynomial_multiply_exact(a: npt.ArrayLike, b: npt.ArrayLike) -> list[int]:
    """Return the product of two polynomials with integer coefficients, exactly, lowest degree first.

    Parameters
    ----------
    a, b : sequences of integers, shape (m,) and (n,)
        Python's or NumPy's, of any sign; m + n - 1 at most 2^23. With A and B the largest magnitudes,
        ``2 min(m, n) A B`` must be below the product of all :func:`primes`, which has 569 bits.

    Returns
    -------
    list of int, length m + n - 1

    Raises
    ------
    TypeError
        If a factor does not hold integers.
    ValueError
        If a factor is empty or has not exactly one axis, the product is too long, or its coefficients too large.

    References
    ----------
    Pollard 1971, Math. Comp. 25.

    Examples
    --------
    >>> polynomial_multiply_exact([10**20, 1], [10**20, -1])
    [10000000000000000000000000000000000000000, 0, -1]
    """
    first, second = integer_coefficients("a", a), integer_coefficients("b", b)
    largest = min(len(first), len(second)) * largest_magnitude(first) * largest_magnitude(second)
    chosen = _enough_primes(2 * largest + 1)
    whole = prod(chosen)
    total = np.zeros(len(first) + len(second) - 1, object)
    for p in chosen:
        others = whole // p
        # This term is the residue modulo p and 0 modulo every other prime.
        residues = _product(first, second, p) * pow(others, -1, p) % p
        total += residues.astype(object) * others
    # Residues 0 ... whole - 1 stand for -whole / 2 ... whole / 2.
    return [value - whole if 2 * value > whole else value for value in (total % whole).tolist()]


@lru_cache(maxsize=1)
def primes() -> tuple[int, ...]:
    """Return all primes ``c 2^23 + 1`` below 2^31, :data:`MODULUS` first, then from the largest down.

    Below 2^31, so that a product of two residues fits int64.
    """
    candidates = [c * MAX_LENGTH + 1 for c in range((1 << 31) // MAX_LENGTH - 1, 0, -1)]
    found = [p for p in candidates if p != MODULUS and all(p % d for d in range(3, isqrt(p) + 1, 2))]
    return (MODULUS, *found)


def _enough_primes(bound: int) -> tuple[int, ...]:
    """The first primes whose product is at least the bound."""
    for count in range(1, len(primes()) + 1):
        if prod(primes()[:count]) >= bound:
            return primes()[:count]
    raise ValueError(
        f"coefficients of the product may need {bound.bit_length()} bits, and the {len(primes())} primes hold "
        f"{prod(primes()).bit_length() - 1}: split the coefficients into smaller ones first"
    )


def _root(p: int, n: int) -> int:
    """A number of order n modulo p: a power of one that is no square. Checks p and n, so it comes before any work."""
    if p not in primes():
        raise ValueError(f"modulus={p!r} is not supported: choose one of primes(), such as {MODULUS}")
    if n & (n - 1) or n > MAX_LENGTH:
        raise ValueError(f"a transform of {n} values is not supported: it must be a power of two, at most {MAX_LENGTH}")
    non_square = next(g for g in range(2, p) if pow(g, (p - 1) // 2, p) == p - 1)
    return pow(non_square, (p - 1) // n, p)


def _product(a: npt.NDArray[Any], b: npt.NDArray[Any], p: int) -> I64:
    """Product of polynomials modulo p: values at the powers of a root, multiplied, and interpolated."""
    wanted = len(a) + len(b) - 1
    length = 1 << (wanted - 1).bit_length()
    root = _root(p, length)
    spectra = [_transform(np.pad(_residues(x, p), (0, length - len(x))), p, root) for x in (a, b)]
    back = _transform(spectra[0] * spectra[1] % p, p, pow(root, -1, p))
    return back[:wanted] * pow(length, -1, p) % p


def _transform(x: I64, p: int, root: int) -> I64:
    """Passes of radix 2, as in :func:`.radix2.radix2_fft`; root has order len(x)."""
    n = len(x)
    out = x[bit_reversal(n)]
    half = 1
    while half < n:
        blocks = out.reshape(n // (2 * half), 2, half)
        even, odd = blocks[:, 0], blocks[:, 1] * _powers(pow(root, n // (2 * half), p), half, p) % p
        out = np.stack(((even + odd) % p, (even - odd) % p), axis=1).reshape(n)
        half *= 2
    return out


def _powers(root: int, count: int, p: int) -> I64:
    """1, root, root^2 ... modulo p; count is a power of two. Each round doubles what is known."""
    powers = np.ones(1, np.int64)
    while len(powers) < count:
        powers = np.concatenate((powers, powers * pow(root, len(powers), p) % p))
    return powers


def _residues(values: npt.NDArray[Any], p: int) -> I64:
    return (values % p).astype(np.int64)
