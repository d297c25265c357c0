"""Interpolation points of F(m, r): the published table, and the simple rationals that a search may choose from.

F(m, r) needs m + r - 2 distinct finite points besides infinity. As algebra any will do; in floating point they decide
the error, by how far the powers of a point and the products of differences of two points spread.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd

POINTS: tuple[Fraction, ...] = tuple(
    Fraction(p) for p in ("0", "-1", "1", "1/2", "-2", "-1/2", "2", "-1/4", "4", "1/4", "-4", "3/4", "-4/3")
)
"""Candidate points, best first (Barabasz et al. 2018, arXiv:1803.10986), {c, -c, 1/c, -1/c} kept together."""

_TABLE: dict[int, tuple[str, ...]] = {
    2: ("0",),
    3: ("0", "-1"),
    4: ("0", "-1", "1"),
    5: ("0", "-1", "1", "1/2"),
    6: ("0", "-1", "1", "1/2", "-2"),
    8: ("0", "-1", "1", "1/2", "-1/2", "2", "-2"),
    10: ("0", "-1", "1", "1/2", "-1/2", "2", "-2", "-1/4", "4"),
    12: ("0", "-1", "1", "1/2", "-1/2", "2", "-2", "-1/4", "4", "3/4", "-4/3"),
}

_SEARCHED: dict[int, tuple[str, ...]] = {
    5: ("2/5", "-2/5", "5/4", "-5/4"),
    6: ("0", "2/3", "-2/3", "3/2", "-3/2"),
    7: ("1/4", "-1/4", "5/6", "-5/6", "7/4", "-7/4"),
    9: ("1/4", "-1/4", "2/3", "-2/3", "8/7", "-8/7", "7/3", "-7/3"),
    10: ("0", "2/5", "-2/5", "4/5", "-4/5", "5/4", "-5/4", "7/3", "-7/3"),
    12: ("0", "1", "-1", "1/3", "-1/3", "2/3", "-2/3", "3/2", "-3/2", "5/2", "-5/2"),
}


def check_form(m: int, r: int) -> None:
    """Raise TypeError where m or r is no integer, ValueError where one is below 1."""
    for name, value in (("m", m), ("r", r)):
        check_count(name, value)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise TypeError where the value is no integer, ValueError where it is below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}={value} is not supported: it must be at least {least}")


def default_points(m: int, r: int) -> tuple[Fraction, ...]:
    """Return the m + r - 2 finite points used for F(m, r) when none are given.

    Raises
    ------
    ValueError
        If m or r is below 1, or F(m, r) needs more points than :data:`POINTS` holds.
    """
    check_form(m, r)
    tile = m + r - 1
    if tile - 1 > len(POINTS):
        raise ValueError(f"F({m},{r}) needs {tile - 1} points and only {len(POINTS)} are in the table: pass points=")
    if tile in _TABLE:
        return tuple(Fraction(p) for p in _TABLE[tile])
    return POINTS[: tile - 1]


def searched_points(m: int, r: int) -> tuple[Fraction, ...]:
    """Return the finite points with the least float32 error that :func:`search_points` found, in pairs c and -c.

    For tiles m + r - 1 of 5, 6, 7, 9, 10 and 12; those of :func:`default_points` for others, where nothing better was
    found (2 to 4, and 8) or sought.

    Raises
    ------
    TypeError, ValueError
        As :func:`default_points`.
    """
    table = default_points(m, r)
    found = _SEARCHED.get(m + r - 1)
    return table if found is None else tuple(Fraction(p) for p in found)


def simple_rationals(largest: int) -> tuple[Fraction, ...]:
    """Return 0 and every +-p/q with p and q up to ``largest``, the simplest first.

    The order is by the larger of p and q, then by the smaller one; p/q stands before q/p, and c before -c.

    Raises
    ------
    TypeError, ValueError
        If ``largest`` is no integer of at least 1.

    Examples
    --------
    >>> [str(p) for p in simple_rationals(2)]
    ['0', '1', '-1', '1/2', '-1/2', '2', '-2']
    """
    check_count("largest", largest)
    made = [Fraction(0)]
    for top in range(1, largest + 1):
        for low in range(1, top + 1):
            if gcd(low, top) == 1:
                for value in dict.fromkeys((Fraction(low, top), Fraction(top, low))):
                    made += [value, -value]
    return tuple(made)
