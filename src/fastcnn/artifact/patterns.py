"""Arrays as bit patterns: what lets NaN payloads and -0.0 survive, and byte planes compress.

A *pattern* is an element's bits as an unsigned integer of the same width. Three reversible orders of bits help the
entropy coder:

- ``stored``: as it is;
- ``exponent`` (floats): sign moved to the lowest bit, so that the top byte of float32 is the exponent alone, the only
  part of a trained dense weight that compresses (about 2.6 of its 8 bits carry information);
- ``delta`` (codebooks): each value as its distance, counted in representable numbers, from the one before; where
  values ascend, the top bytes vanish.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastcnn.artifact.native import codec

Array = npt.NDArray[Any]
Order = Literal["stored", "exponent", "delta"]
ORDERS: tuple[Order, ...] = ("stored", "exponent", "delta")

DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)
"""Element types a file can hold."""


def pattern_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Unsigned integer type as wide as ``dtype``."""
    return np.dtype(f"uint{8 * dtype.itemsize}")


def to_patterns(array: Array) -> Array:
    """Flat, contiguous, native-endian bit patterns of ``array`` (a view where possible)."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(-1)
    return native.view(pattern_type(native.dtype))


def from_patterns(patterns: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Inverse of :func:`to_patterns`."""
    return patterns.view(dtype).reshape(shape)


def rank_keys(patterns: Array, dtype: np.dtype[Any]) -> Array:
    """Unsigned integers in the numerical order of the values: -0.0 just below 0.0, NaN at the ends by sign."""
    sign = patterns.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "f":
        return np.where(patterns & sign, ~patterns, patterns | sign)
    return patterns ^ sign if dtype.kind == "i" else patterns


def from_rank_keys(keys: Array, dtype: np.dtype[Any]) -> Array:
    """Inverse of :func:`rank_keys`."""
    sign = keys.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "f":
        return np.where(keys & sign, keys ^ sign, ~keys)
    return keys ^ sign if dtype.kind == "i" else keys


def apply_order(patterns: Array, order: Order, dtype: np.dtype[Any]) -> Array:
    """Rearrange patterns before they are cut into planes."""
    if order == "exponent":
        return (patterns << 1) | (patterns >> (8 * dtype.itemsize - 1))
    if order == "delta":
        keys = rank_keys(patterns, dtype)
        return np.diff(keys, prepend=keys.dtype.type(0))
    return patterns


def to_planes(patterns: Array) -> list[Array]:
    """Byte planes, least significant first."""
    little = patterns.astype(patterns.dtype.newbyteorder("<"), copy=False)
    table = little.view(np.uint8).reshape(-1, patterns.dtype.itemsize)
    return [np.ascontiguousarray(table[:, i]) for i in range(patterns.dtype.itemsize)]


def from_planes(planes: list[Array], order: Order, dtype: np.dtype[Any]) -> Array:
    """Inverse of :func:`apply_order` and :func:`to_planes`; total: any planes give some patterns (sums wrap round)."""
    patterns = codec.join_planes(planes, order == "exponent")
    if order == "delta":
        return from_rank_keys(np.cumsum(patterns, dtype=patterns.dtype), dtype)
    return patterns
