"""Checks of what the transforms are given, so that every one of them says the same about the same mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.roots import C128, F64


def complex_signal(name: str, x: npt.ArrayLike, n: int | None = None) -> C128:
    """Return x as complex128, its last axis filled with zeros to n values."""
    return _padded(name, _numbers(name, x, "biufc").astype(np.complex128), n)


def real_signal(name: str, x: npt.ArrayLike, n: int | None = None) -> F64:
    """Return x as float64, its last axis filled with zeros to n values."""
    array = _numbers(name, x, "biufc")
    if array.dtype.kind == "c":
        raise TypeError(f"{name} is {array.dtype}: rfft and rfft2 take real numbers, fft takes complex ones")
    return _padded(name, array.astype(np.float64), n)


def check_length(name: str, n: object) -> int:
    """Return n if it is an integer of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {n!r}")
    length = int(n)
    if length < 1:
        raise ValueError(f"{name}={length} is not a length: it must be at least 1")
    return length


def real_length(spectrum: C128, n: int | None, name: str = "n") -> int:
    """Return the length of the real signal with this half spectrum (the last axis): n, or the even one if n is None."""
    bins: int = spectrum.shape[-1]
    fitting = "1 value" if bins == 1 else f"{2 * bins - 2} or {2 * bins - 1} values"
    if n is None:
        if bins < 2:
            raise ValueError(
                f"a spectrum of 1 bin belongs to 1 value, and the default is an even number: pass {name}=1"
            )
        return 2 * (bins - 1)
    length = check_length(name, n)
    if length // 2 + 1 != bins:
        raise ValueError(
            f"{name}={length} does not fit a spectrum of {bins} bins, which belongs to {fitting}: crop or pad the "
            "signal, not the spectrum"
        )
    return length


def _numbers(name: str, x: npt.ArrayLike, kinds: str) -> npt.NDArray[Any]:
    array = np.asarray(x)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} has dtype {array.dtype}: the transforms take real or complex numbers")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number: the transforms need an array with at least one axis")
    if array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}: the transformed axis needs at least one value")
    return array


def _padded(name: str, array: npt.NDArray[Any], n: int | None) -> npt.NDArray[Any]:
    if n is None:
        return array
    length, given = check_length("n", n), array.shape[-1]
    if length < given:
        raise ValueError(f"n={length} is shorter than the {given} values of {name}: crop {name} first, or leave n out")
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - given)])
