"""The typed door to the native entropy coders (``native/bindings/codec.cpp``)."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


class Codec(Protocol):
    """Functions of ``fastcnn._native.codec``; symbols are uint8 or uint16 arrays, damaged streams raise ValueError."""

    MAX_ALPHABET: int
    MAX_GAP_BITS: int

    def pack(self, symbols: Array, bits: int) -> Bytes:
        """Fixed-width packing, least significant bit first."""

    def unpack(self, data: Bytes, count: int, bits: int, alphabet: int) -> Array:
        """Inverse of pack."""

    def huffman_encode(self, symbols: Array, alphabet: int) -> Bytes:
        """Canonical Huffman with its table."""

    def huffman_decode(self, data: Bytes, count: int, alphabet: int) -> Array:
        """Inverse of huffman_encode."""

    def huffman_size(self, counts: Array) -> int:
        """Bytes huffman_encode gives for these uint64 counts."""

    def rans_encode(self, symbols: Array, alphabet: int) -> Bytes:
        """Interleaved rANS with its table."""

    def rans_decode(self, data: Bytes, count: int, alphabet: int) -> Array:
        """Inverse of rans_encode."""

    def rans_size(self, counts: Array) -> int:
        """Bytes rans_encode gives for these uint64 counts, to within a few."""

    def histogram(self, symbols: Array, alphabet: int) -> Array:
        """Occurrences of each symbol, uint64."""

    def sparse_split(self, symbols: Array, fill: int, gap_bits: int) -> tuple[Array, Array]:
        """Gaps and values of the relative-index form, both uint16."""

    def sparse_join(self, gaps: Array, values: Array, fill: int, count: int, alphabet: int) -> Array:
        """Inverse of sparse_split."""

    def join_planes(self, planes: list[Bytes], rotate: bool) -> Array:
        """Unsigned words from 1, 2, 4 or 8 byte planes, least significant first; ``rotate`` them right by one bit."""

    def distinct(self, data: Array, limit: int) -> Array | None:
        """Distinct unsigned integers in order of appearance, or None if more than ``limit``."""

    def index_of(self, data: Array, patterns: Array) -> Array:
        """Place of each element among ``patterns``, uint16."""


def _load() -> Codec:
    try:
        module: Any = importlib.import_module("fastcnn._native")
    except ImportError as error:
        raise ImportError(
            f"fastcnn's native module is missing or does not load ({error}); build it with `pip install -e .`"
        ) from error
    loaded: Codec = module.codec
    return loaded


codec = _load()
