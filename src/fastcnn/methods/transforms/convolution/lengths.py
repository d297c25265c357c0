"""Transform lengths: those a user may ask for, and the next one that an FFT does fast."""

from __future__ import annotations

from functools import lru_cache

TILES = (8, 16, 32, 64)
"""Lengths of an FFT tile."""


@lru_cache(maxsize=1024)
def fast_length(least: int) -> int:
    """Return the smallest even number of the form 2^a 3^b 5^c that is at least ``least``.

    Even, because the transform of real data then has one bin fewer to compute per half.

    Examples
    --------
    >>> [fast_length(n) for n in (1, 7, 58, 61)]
    [2, 8, 60, 64]
    """
    best = 2
    while best < least:
        best *= 2
    fives = 2
    while fives < best:
        threes = fives
        while threes < best:
            length = threes
            while length < least:
                length *= 2
            best = min(best, length)
            threes *= 3
        fives *= 5
    return best
