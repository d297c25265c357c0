"""What a file must cost in theory: bytes from nonzeros, codebook sizes and entropies, never from a coded stream.

The coder in :mod:`fastcnn.artifact.encode` chooses by the sizes its tables give; this module shares nothing with it
but the list of forms, so the two check each other. They agree within 2 % on pruned and clustered nets.

Per array of n symbols with entropy H (bits), P of an alphabet of A occurring::

    packed       n * ceil(log2 A) / 8
    entropy      n * H / 8 + 0.42 * P + 6 + lanes       (table of P frequencies; lanes: 3 bytes, 24 from n = 8192)
    sparse       gaps and values of the relative-index form, each as above

Han, Mao and Dally 2016, arXiv:1510.00149, sections 2 to 4, with rANS in the place of Huffman.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.artifact.encode import MAX_DISTINCT, orders_for, sort_by_value
from fastcnn.artifact.native import codec
from fastcnn.artifact.patterns import Array, apply_order, to_patterns, to_planes
from fastcnn.engine.graph import Graph

_TABLE_BYTES = 0.42
"""Bytes a table takes per occurring symbol: about three bits for the difference to its neighbour, and what a rounded
frequency loses. Fitted to Gaussian, Laplace, geometric and uniform counts."""
_TABLE_FIXED = 6
_ONE_LANE = 3
_EIGHT_LANES = 24
_CONTAINER_BYTES = 300
_RECORD_BYTES = 27
"""Deflated bytes a weight's entry in the header takes (sizes and checksum do not compress)."""


@dataclass(frozen=True)
class SymbolStats:
    """How often, how many, how unevenly: ``entropy`` in bits per symbol, order 0."""

    count: int
    distinct: int
    alphabet: int
    entropy: float


@dataclass(frozen=True)
class SparseStats:
    """The relative-index form with gaps of ``gap_bits`` bits, fillers included."""

    gap_bits: int
    gaps: SymbolStats
    values: SymbolStats


@dataclass(frozen=True)
class TensorStats:
    """Everything the prediction knows of one array.

    ``nonzeros`` counts elements whose value is not 0 (-0.0 is 0). ``distinct`` counts bit patterns, None above 4096.
    ``index`` describes each element's place in the codebook, ``book`` the byte planes of its values in order,
    ``planes`` the byte planes of the array itself in every order tried, ``direct`` the elements of a uint8 or uint16
    array as symbols.
    """

    count: int
    itemsize: int
    nonzeros: int
    distinct: int | None
    planes: tuple[tuple[SymbolStats, ...], ...]
    direct: SymbolStats | None
    index: SymbolStats | None
    book: tuple[SymbolStats, ...]
    sparse: tuple[SparseStats, ...]


def tensor_stats(array: Array) -> TensorStats:
    """Count and measure one array."""
    patterns = to_patterns(array)
    dtype = array.dtype.newbyteorder("=")
    found = codec.distinct(patterns, MAX_DISTINCT) if patterns.size else None
    index = direct = None
    book: tuple[SymbolStats, ...] = ()
    symbols = patterns
    if dtype.name in ("uint8", "uint16"):
        direct = _measure(_counts(patterns, int(patterns.max(initial=0)) + 1))
    if found is not None:
        values = sort_by_value(found, dtype)
        symbols = codec.index_of(patterns, values)
        index = _measure(_counts(symbols, values.size))
        book = _measure_planes(apply_order(values, "delta", dtype))
    return TensorStats(
        count=int(patterns.size),
        itemsize=dtype.itemsize,
        nonzeros=int(np.count_nonzero(array)),
        distinct=None if found is None else int(found.size),
        planes=tuple(
            _measure_planes(apply_order(patterns, order, dtype)) for order in orders_for(dtype, patterns.size)
        ),
        direct=direct,
        index=index,
        book=book,
        sparse=_measure_sparse(symbols) if found is not None else (),
    )


def predict_bytes(stats: TensorStats) -> int:
    """Bytes one array takes in a file, by the formulas above; its entry in the header not counted."""
    ways = [float(stats.count * stats.itemsize)]
    if stats.count:
        ways += [sum(_coded(plane) for plane in planes) for planes in stats.planes]
    sparse = [_coded(s.gaps) + _coded(s.values) for s in stats.sparse]
    if stats.direct is not None:
        ways += [_coded(stats.direct), *sparse]
    if stats.index is not None and stats.distinct is not None:
        book = min(float(stats.distinct * stats.itemsize), sum(_coded(plane) for plane in stats.book))
        ways.append(book + min([_coded(stats.index), *sparse]))
    return round(min(ways))


def predict_file_bytes(
    graph: Graph, *, plan_hint: dict[str, Any] | None = None, meta: dict[str, Any] | None = None
) -> int:
    """Bytes :func:`fastcnn.artifact.save_graph` would write, from the statistics of the weights and the structure."""
    used = sorted({key for node in graph.nodes for key in node.params.values()})
    structure = json.dumps([graph.to_json(), plan_hint, meta], separators=(",", ":")).encode()
    header = len(zlib.compress(structure, 9)) + _CONTAINER_BYTES + _RECORD_BYTES * len(used)
    return header + sum(predict_bytes(tensor_stats(graph.weights[key])) for key in used)


def _counts(symbols: Array, alphabet: int) -> Array:
    """Occurrences of each symbol; np.bincount would first copy them to eight bytes each."""
    return codec.histogram(symbols, alphabet).astype(np.int64)


def _measure(counts: Array) -> SymbolStats:
    present = counts[counts > 0]
    total = int(present.sum())
    shares = present / max(total, 1)
    return SymbolStats(
        count=total,
        distinct=int(present.size),
        alphabet=int(counts.size),
        entropy=float(-(shares * np.log2(shares)).sum()) if total else 0.0,
    )


def _measure_planes(patterns: Array) -> tuple[SymbolStats, ...]:
    return tuple(_measure(_counts(plane, 256)) for plane in to_planes(patterns))


def _measure_sparse(symbols: Array) -> tuple[SparseStats, ...]:
    counts = _counts(symbols, int(symbols.max(initial=0)) + 1)
    fill = int(np.argmax(counts))
    if counts[fill] == symbols.size or 2 * counts[fill] < symbols.size:
        return ()
    gaps = np.diff(np.flatnonzero(symbols != fill), prepend=-1) - 1
    result = []
    for bits in range(1, 13):
        fillers = int((gaps >> bits).sum())
        gap_counts = np.bincount(gaps & ((1 << bits) - 1), minlength=1 << bits)
        gap_counts[-1] += fillers
        value_counts = counts.copy()
        value_counts[fill] = fillers
        result.append(SparseStats(bits, _measure(gap_counts), _measure(value_counts)))
    return tuple(result)


def _coded(stats: SymbolStats) -> float:
    bits = max(stats.alphabet - 1, 0).bit_length()
    packed = (stats.count * bits + 7) // 8
    if stats.distinct < 2 or stats.alphabet > MAX_DISTINCT:
        return min(packed, 3 if stats.alphabet <= MAX_DISTINCT else packed)
    lanes = _ONE_LANE if stats.count < 8192 else _EIGHT_LANES
    return min(packed, stats.count * stats.entropy / 8 + _TABLE_BYTES * stats.distinct + _TABLE_FIXED + lanes)
