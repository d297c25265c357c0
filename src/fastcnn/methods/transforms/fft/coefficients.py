"""Coefficients of a polynomial as an array, Python's integers of any size among them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt


def checked_coefficients(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the coefficients as an array of one axis; integers in a sequence become Python's, in an object array.

    NumPy alone would round ``[2**63, -1]`` to floats.

    Raises
    ------
    TypeError
        If values are not numbers, or are booleans.
    ValueError
        If values is empty or has not exactly one axis.
    """
    array = _integers(values) if isinstance(values, Sequence) else None
    if array is None:
        array = np.asarray(values)
        if array.dtype.kind == "O" and array.ndim == 1:
            array = _integers(array.tolist())
    if array is None or array.dtype.kind not in "iufcO":
        found = "objects" if array is None else array.dtype
        raise TypeError(f"{name} holds {found}: coefficients are integers, real or complex numbers")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}: a polynomial is one axis of at least one coefficient, lowest degree first"
        )
    return array


def integer_coefficients(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return integer coefficients as an array of int64, of uint64, or of Python's integers.

    Raises
    ------
    TypeError
        If values are not integers.
    ValueError
        If values is empty or has not exactly one axis.
    """
    array = checked_coefficients(name, values)
    if array.dtype.kind not in "iuO":
        raise TypeError(f"{name} holds {array.dtype}: exact transforms take integers, polynomial_multiply others too")
    return array.astype({"i": np.int64, "u": np.uint64, "O": object}[array.dtype.kind])


def largest_magnitude(array: npt.NDArray[Any]) -> int:
    """Largest absolute value of integers, as one of Python's: the smallest int64 has none in its own type."""
    return max(abs(int(array.min())), abs(int(array.max())))


def norm(array: npt.NDArray[Any]) -> float:
    """Root of the sum of squares of integers; infinite beyond the floats."""
    try:
        return float(isqrt(sum(int(value) ** 2 for value in array.tolist())) + 1)
    except OverflowError:
        return inf


def _integers(values: Sequence[Any]) -> npt.NDArray[Any] | None:
    """The object array of a sequence of integers; None for any other."""
    if len(values) == 0 or any(isinstance(v, (bool, np.bool_)) or not isinstance(v, (int, np.integer)) for v in values):
        return None
    out = np.empty(len(values), object)
    out[:] = [int(value) for value in values]
    return out
