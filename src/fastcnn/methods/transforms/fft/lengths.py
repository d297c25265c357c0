"""Lengths that a Fourier transform likes: products of 2, 3 and 5."""

from __future__ import annotations

RADICES = (4, 2, 3, 5)
"""Sizes of butterfly that :mod:`.mixed_radix` has, in the order in which they are divided out."""


def radices_of(n: int) -> tuple[int, ...] | None:
    """Return factors 4, 2, 3, 5 (at most one 2) whose product is n, or None if n has another prime factor.

    Parameters
    ----------
    n : int
        At least 1; 1 has no factors.

    Examples
    --------
    >>> radices_of(120), radices_of(14)
    ((4, 2, 3, 5), None)
    """
    found: list[int] = []
    for radix in RADICES:
        while n % radix == 0:
            found.append(radix)
            n //= radix
    return tuple(found) if n == 1 else None


def next_fast_length(n: int) -> int:
    """Return the smallest length of at least n that is a product of 2s, 3s and 5s.

    A transform may be padded with zeros to any length at least that of its result; this is the cheapest to pad to.
    For every n up to 30,000 it is at most 2/13 above n (13 becomes 15); powers of two alone would be up to twice n.

    Parameters
    ----------
    n : int
        Values that must fit, at least 1.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is below 1.

    Examples
    --------
    >>> [next_fast_length(n) for n in (1, 7, 11, 17, 230, 2**16 + 1)]
    [1, 8, 12, 18, 240, 65610]
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer, got {n!r}")
    if n < 1:
        raise ValueError(f"n={n} is not a length: it must be at least 1")
    best = 1 << (n - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            # The smallest power of two that lifts this product of 3s and 5s to n or above.
            best = min(best, odd << max(0, (-(-n // odd) - 1).bit_length()))
            odd *= 3
        fives *= 5
    return best
