"""Rebuilding one array from untrusted bytes: every field is checked before a byte is used.

The decoders are native and bounds-checked (``native/codec``); this file checks what they are asked for. Nothing is
allocated for a count that has not been held against the array's own size, and that size against the file's limit,
before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastcnn.artifact import fields
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_RANK, MAX_TENSOR_BYTES
from fastcnn.artifact.native import codec
from fastcnn.artifact.patterns import DTYPES, ORDERS, Array, from_patterns, from_planes, pattern_type
from fastcnn.artifact.symbols import MAX_ALPHABET, MAX_GAP_BITS, bits_for

MAX_BOOK = 65536


class Bytes:
    """A cursor over coded bytes; taking more than is left is an error that names the field."""

    def __init__(self, data: Array) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return int(self._data.size) - self._at

    def take(self, count: int, what: str) -> Array:
        """Return the next ``count`` bytes."""
        if count > self.left:
            raise ArtifactError(f"{what} needs {count} bytes, {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]


def check_layout(dtype: object, shape: object, what: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Check an array's declared dtype and shape.

    Returns
    -------
    dtype, shape, nbytes
        ``nbytes`` is what the decoded array takes; at most ``MAX_TENSOR_BYTES``.
    """
    kind = np.dtype(fields.word(dtype, DTYPES, f"{what}.dtype"))
    extents = tuple(
        fields.integer(n, 0, MAX_TENSOR_BYTES, f"{what}.shape") for n in fields.array(shape, MAX_RANK, f"{what}.shape")
    )
    # Zero extents count as one, so that an empty array cannot hide extents numpy would choke on.
    if math.prod(max(n, 1) for n in extents) * kind.itemsize > MAX_TENSOR_BYTES:
        raise ArtifactError(f"{what}.shape {list(extents)} of {kind} takes more than {MAX_TENSOR_BYTES} bytes")
    return kind, extents, math.prod(extents) * kind.itemsize


def decode_array(code: object, data: Bytes, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> Array:
    """Decode one array; dtype and shape come from :func:`check_layout`.

    Parameters
    ----------
    code : object
        The description from the file, unchecked.
    data : Bytes
        Where the array's bytes begin; afterwards, where they end.
    dtype, shape
        Checked.
    what : str
        Name of the description, for messages.

    Returns
    -------
    ndarray, C-contiguous, writable

    Raises
    ------
    ArtifactError
        For anything that is not exactly one coded array; no other exception but MemoryError.
    """
    count = math.prod(shape)
    if _form(code, what) == "codebook":
        patterns = _codebook(code, data, dtype, count, what)
    elif _form(code, what) == "symbols":
        patterns = _symbols(code, data, dtype, count, what)
    else:
        patterns = _plain(code, data, dtype, count, what)
    return from_patterns(patterns, dtype, shape)


def _form(code: object, what: str) -> str:
    if not isinstance(code, dict):
        raise ArtifactError(f"{what} must be an object, got {type(code).__name__}")
    form = code.get("as")
    if not isinstance(form, str):
        raise ArtifactError(f"{what}.as must be a string, got {type(form).__name__}")
    return form


def _plain(code: object, data: Bytes, dtype: np.dtype[Any], count: int, what: str) -> Array:
    """Forms ``raw`` and ``planes``, which a codebook's values may take too."""
    fields.word(_form(code, what), ("raw", "planes", "symbols", "codebook"), f"{what}.as")
    kind = pattern_type(dtype)
    if _form(code, what) == "raw":
        fields.obj(code, {"as"}, what)
        little = data.take(count * dtype.itemsize, what).copy().view(kind.newbyteorder("<"))
        return little.astype(kind, copy=False)
    described = fields.obj(code, {"as", "order", "planes"}, what)
    order = fields.word(described["order"], ORDERS, f"{what}.order")
    planes = fields.array(described["planes"], 8, f"{what}.planes")
    if len(planes) != dtype.itemsize:
        raise ArtifactError(f"{what}.planes must have {dtype.itemsize} entries for {dtype}, got {len(planes)}")
    decoded = [decode_symbols(p, data, count, 256, f"{what}.planes[{i}]") for i, p in enumerate(planes)]
    return from_planes(decoded, order, dtype)  # type: ignore[arg-type]


def _symbols(code: object, data: Bytes, dtype: np.dtype[Any], count: int, what: str) -> Array:
    described = fields.obj(code, {"as", "alphabet", "symbols"}, what)
    if dtype.name not in ("uint8", "uint16"):
        raise ArtifactError(f"{what}.as must not be symbols for {dtype}: only uint8 and uint16 arrays are")
    alphabet = fields.integer(described["alphabet"], 1, 1 << (8 * dtype.itemsize), f"{what}.alphabet")
    # A copy: packed bytes come back as a view, which would keep the whole file in memory.
    return np.array(decode_symbols(described["symbols"], data, count, alphabet, f"{what}.symbols"), dtype=dtype)


def _codebook(code: object, data: Bytes, dtype: np.dtype[Any], count: int, what: str) -> Array:
    described = fields.obj(code, {"as", "size", "book", "index"}, what)
    size = fields.integer(described["size"], 1, min(MAX_BOOK, max(count, 1)), f"{what}.size")
    if _form(described["book"], f"{what}.book") not in ("raw", "planes"):
        raise ArtifactError(f"{what}.book.as must be raw or planes, got {described['book']['as'][:40]!r}")
    book = _plain(described["book"], data, dtype, size, f"{what}.book")
    return book[decode_symbols(described["index"], data, count, size, f"{what}.index")]


def decode_symbols(code: object, data: Bytes, count: int, alphabet: int, what: str, *, nested: bool = False) -> Array:
    """Decode ``count`` symbols below ``alphabet``: uint8 if the alphabet fits, else uint16; may be a view of ``data``.

    ``nested`` is set inside a sparse form, whose parts must be dense.
    """
    form = fields.word(_form(code, what), ("packed", "huffman", "rans", *(() if nested else ("sparse",))), f"{what}.as")
    if form == "packed":
        bits = fields.integer(fields.obj(code, {"as", "bits"}, what)["bits"], 0, 16, f"{what}.bits")
        if bits != bits_for(alphabet):
            raise ArtifactError(f"{what}.bits must be {bits_for(alphabet)} for {alphabet} symbols, got {bits}")
        packed = data.take((count * bits + 7) // 8, what)
        if bits == 8 and alphabet == 256:
            return packed
        return _native(what, codec.unpack, packed, count, bits, alphabet)
    if alphabet > MAX_ALPHABET:
        raise ArtifactError(f"{what}.as must be packed for more than {MAX_ALPHABET} symbols, got {form}")
    if form == "sparse":
        return _sparse(code, data, count, alphabet, what)
    size = fields.integer(fields.obj(code, {"as", "bytes"}, what)["bytes"], 0, data.left, f"{what}.bytes")
    coded = data.take(size, what)
    return _native(what, codec.huffman_decode if form == "huffman" else codec.rans_decode, coded, count, alphabet)


def _sparse(code: object, data: Bytes, count: int, alphabet: int, what: str) -> Array:
    described = fields.obj(code, {"as", "fill", "gap_bits", "pairs", "gaps", "values"}, what)
    fill = fields.integer(described["fill"], 0, alphabet - 1, f"{what}.fill")
    gap_bits = fields.integer(described["gap_bits"], 1, MAX_GAP_BITS, f"{what}.gap_bits")
    pairs = fields.integer(described["pairs"], 0, count, f"{what}.pairs")
    gaps = decode_symbols(described["gaps"], data, pairs, 1 << gap_bits, f"{what}.gaps", nested=True)
    values = decode_symbols(described["values"], data, pairs, alphabet, f"{what}.values", nested=True)
    return _native(
        what,
        codec.sparse_join,
        gaps.astype(np.uint16, copy=False),
        values.astype(np.uint16, copy=False),
        fill,
        count,
        alphabet,
    )


def _native(what: str, decoder: Any, *arguments: Any) -> Array:
    try:
        decoded: Array = decoder(*arguments)
    except ValueError as error:
        raise ArtifactError(f"{what}: {error}") from None
    return decoded
