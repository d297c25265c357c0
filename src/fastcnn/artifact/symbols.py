"""Coding an array of small integers: the cheapest of four forms, chosen by predicted size.

=========  ==================================================================================================
form       fields besides ``as``
=========  ==================================================================================================
packed     ``bits``: every symbol in that many bits
huffman    ``bytes``: canonical Huffman, table included
rans       ``bytes``: interleaved rANS, table included
sparse     ``fill``, ``gap_bits``, ``pairs``, ``gaps``, ``values``: the relative-index form of Deep Compression
           (Han, Mao and Dally 2016, arXiv:1510.00149, section 2); gaps and values are coded by one of the above
=========  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.artifact.native import codec
from fastcnn.artifact.patterns import Array

MAX_ALPHABET: int = codec.MAX_ALPHABET
"""Largest alphabet of an entropy coder; ``packed`` takes up to 65536."""
MAX_GAP_BITS: int = codec.MAX_GAP_BITS

_SYMBOLS_PER_BYTE = 8192
"""A form that decodes 8192 fewer symbols may cost one byte more: ties go to the faster one."""
_SPARSE_FROM = 0.5
"""Share of one symbol from which the sparse form is tried; below, its pairs outweigh a dense code."""


@dataclass(frozen=True)
class Candidate:
    """One way to code something: predicted bytes, symbols to decode, and how to do it.

    ``encode`` returns the JSON description and the byte strings in the order the description names them.
    """

    size: int
    symbols: int
    encode: Callable[[], tuple[dict[str, Any], list[Array]]]

    @property
    def price(self) -> float:
        """Predicted bytes plus a little for decoding time."""
        return self.size + self.symbols / _SYMBOLS_PER_BYTE


def cheapest(candidates: list[Candidate]) -> Candidate:
    """Return the candidate of least price; the first of equals."""
    return min(candidates, key=lambda c: c.price)


def bits_for(alphabet: int) -> int:
    """Bits that hold every symbol below ``alphabet``."""
    return max(alphabet - 1, 0).bit_length()


def plan_symbols(symbols: Array, alphabet: int) -> Candidate:
    """Choose the form of ``symbols`` (uint8 or uint16, all below ``alphabet``)."""
    if alphabet > MAX_ALPHABET:
        return _packed(symbols.size, alphabet, lambda: symbols)
    counts = codec.histogram(symbols, alphabet)
    dense = _plan_dense(counts, alphabet, lambda: symbols)
    fill = int(np.argmax(counts))
    if symbols.size < 64 or counts[fill] < _SPARSE_FROM * symbols.size or counts[fill] == symbols.size:
        return dense
    return cheapest([dense, *_plan_sparse(symbols, alphabet, counts, fill)])


def _plan_dense(counts: Array, alphabet: int, get: Callable[[], Array]) -> Candidate:
    count = int(counts.sum())

    def coded(form: str, encode: Callable[[Array, int], Array]) -> tuple[dict[str, Any], list[Array]]:
        data = encode(get(), alphabet)
        return {"as": form, "bytes": int(data.size)}, [data]

    return cheapest(
        [
            _packed(count, alphabet, get),
            Candidate(codec.huffman_size(counts), count, lambda: coded("huffman", codec.huffman_encode)),
            Candidate(codec.rans_size(counts), count, lambda: coded("rans", codec.rans_encode)),
        ]
    )


def _packed(count: int, alphabet: int, get: Callable[[], Array]) -> Candidate:
    bits = bits_for(alphabet)
    return Candidate((count * bits + 7) // 8, 0, lambda: ({"as": "packed", "bits": bits}, [codec.pack(get(), bits)]))


def _plan_sparse(symbols: Array, alphabet: int, counts: Array, fill: int) -> list[Candidate]:
    positions = np.flatnonzero(symbols != fill)
    gaps = np.diff(positions, prepend=-1) - 1
    widest = min(MAX_GAP_BITS, max(1, int(gaps.max()).bit_length()))
    return [_sparse(symbols, alphabet, counts, fill, gaps, bits) for bits in range(1, widest + 1)]


def _sparse(symbols: Array, alphabet: int, counts: Array, fill: int, gaps: Array, bits: int) -> Candidate:
    reach = 1 << bits
    fillers = int((gaps >> bits).sum())
    gap_counts = np.bincount(gaps & (reach - 1), minlength=reach).astype(np.uint64)
    gap_counts[reach - 1] += np.uint64(fillers)
    value_counts = counts.copy()
    value_counts[fill] = fillers
    gap_plan = _plan_dense(gap_counts, reach, lambda: codec.sparse_split(symbols, fill, bits)[0])
    value_plan = _plan_dense(value_counts, alphabet, lambda: codec.sparse_split(symbols, fill, bits)[1])
    pairs = int(gaps.size) + fillers

    def encode() -> tuple[dict[str, Any], list[Array]]:
        gap_code, gap_data = gap_plan.encode()
        value_code, value_data = value_plan.encode()
        code = {
            "as": "sparse",
            "fill": fill,
            "gap_bits": bits,
            "pairs": pairs,
            "gaps": gap_code,
            "values": value_code,
        }
        return code, [*gap_data, *value_data]

    return Candidate(gap_plan.size + value_plan.size, gap_plan.symbols + value_plan.symbols + pairs, encode)
