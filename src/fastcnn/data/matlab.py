"""Numeric arrays out of MATLAB files of version 5, by hand: every size is checked before it is used.

::

    128 bytes   text, then the version 0x0100 and "IM" (little-endian) or "MI" (big-endian)
    elements    u32 kind, u32 size, body, filled up to 8 bytes; of at most 4 bytes: u16 kind, u16 size, body
    kind 15     a zlib stream of one element of kind 14
    kind 14     an array: elements for flags (class in the lowest byte), extents, name and values, first axis fastest

Cells, structures, texts, sparse and complex arrays are passed over. Libraries that read all of the format crash on
damaged files.

References
----------
MathWorks, MAT-File Format, chapter 1 (level 5 MAT-files).
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEADER = 128
ARRAY, ZIPPED = 14, 15
_VALUES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)
"""Classes: double, single and whole numbers of 8 to 64 bits."""
_COMPLEX = 0x0800
_BEGINNING = 4096
"""Bytes that hold an array's flags, extents and name."""
MAX_AXES = 8
MAX_BYTES = 1 << 33


def read_matlab(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read the named arrays that a file has.

    Returns
    -------
    dict of str to ndarray
        In the type they are stored in, which may be smaller than MATLAB's class; shape as MATLAB has it, so that the
        first axis is the fastest.

    Raises
    ------
    ValueError
        If the file is none of version 5, damaged, or a named array is not one of real numbers; says which.
    OSError
        If it cannot be read.
    """
    data = memoryview(path.read_bytes())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("it does not begin as MATLAB files do")
    version = int.from_bytes(data[124:126], "little" if order == "<" else "big")
    if version != 0x0100:
        raise ValueError(f"it is of version {version >> 8}: save it with -v7 or older in MATLAB")
    found: dict[str, Array] = {}
    rest = _Elements(data[HEADER:], order)
    while rest.left >= 8:
        kind, body = rest.next(padded=False)
        if kind == ZIPPED:
            # The beginning says what it is; only what is asked for is inflated.
            beginning = _inflated(body, _BEGINNING)
            kind, size = _Elements(beginning, order).tag()
            if kind != ARRAY or size > MAX_BYTES:
                raise ValueError(f"a compressed element has kind {kind} and {size} bytes")
            if _name(_Elements(beginning[8:], order)) in names:
                array = _array(_inflated(body, size + 8)[8 : 8 + size], order)
                found[array[0]] = array[1]
        elif kind == ARRAY:
            rest.fill_up()
            if _name(_Elements(body, order)) in names:
                array = _array(body, order)
                found[array[0]] = array[1]
        else:
            raise ValueError(f"an element has kind {kind}, where arrays are expected")
    return found


class _Elements:
    """Elements one after the other."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._data, self._order, self._place = data, order, 0

    @property
    def left(self) -> int:
        """Bytes from here on."""
        return len(self._data) - self._place

    def tag(self) -> tuple[int, int]:
        """Kind and size of the element here, whose body may be cut off."""
        return self._number(0), self._number(4)

    def next(self, *, padded: bool = True) -> tuple[int, memoryview]:
        """Kind and body of the element here, and go on behind it."""
        kind, size = self.tag()
        begin = self._place + 8
        if kind >> 16:
            # Both in one number, and the body where the size usually is.
            kind, size, begin = kind & 0xFFFF, kind >> 16, self._place + 4
            if size > 4:
                raise ValueError(f"a short element has {size} bytes; at most 4 fit")
            self._place += 8
        else:
            self._place = begin + size
        if begin + size > len(self._data):
            raise ValueError(f"an element of {size} bytes is cut off")
        if padded:
            self.fill_up()
        return kind, self._data[begin : begin + size]

    def fill_up(self) -> None:
        """Go on to a multiple of 8 bytes."""
        self._place += -self._place % 8

    def _number(self, offset: int) -> int:
        begin = self._place + offset
        if begin + 4 > len(self._data):
            raise ValueError("the file is cut off inside an element")
        return int.from_bytes(self._data[begin : begin + 4], "little" if self._order == "<" else "big")


def _inflated(body: memoryview, most: int) -> memoryview:
    try:
        return memoryview(zlib.decompressobj().decompress(body, most))
    except zlib.error as error:
        raise ValueError(f"a compressed element does not inflate ({error})") from None


def _head(elements: _Elements, order: str) -> tuple[int, tuple[int, ...], str]:
    """Flags and class, extents and name of an array."""
    kind, flags = elements.next()
    if kind != 6 or len(flags) != 8:
        raise ValueError("an array does not begin with its flags")
    kind, extents = elements.next()
    if kind != 5 or len(extents) % 4 or not 2 <= len(extents) // 4 <= MAX_AXES:
        raise ValueError(f"an array has extents of kind {kind} and {len(extents)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(extents, f"{order}i4"))
    if min(shape) < 0 or math.prod(shape) > MAX_BYTES:
        raise ValueError(f"an array has shape {shape}")
    kind, name = elements.next()
    if kind != 1:
        raise ValueError(f"an array has a name of kind {kind}")
    return int(np.frombuffer(flags, f"{order}u4")[0]), shape, bytes(name).decode("latin-1")


def _name(elements: _Elements) -> str:
    return _head(elements, elements._order)[2]


def _array(body: memoryview, order: str) -> tuple[str, Array]:
    elements = _Elements(body, order)
    flags, shape, name = _head(elements, order)
    if flags & 0xFF not in _NUMERIC or flags & _COMPLEX:
        raise ValueError(f"{name} is no array of real numbers")
    kind, values = elements.next(padded=False)
    if kind not in _VALUES:
        raise ValueError(f"{name} has values of kind {kind}")
    dtype = np.dtype(f"{order}{_VALUES[kind]}")
    if len(values) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(values)} bytes for shape {shape} of {dtype.name}")
    array = np.frombuffer(values, dtype).reshape(shape, order="F")
    return name, array if order == ("<" if sys.byteorder == "little" else ">") else array.astype(dtype.newbyteorder())
