"""Coding one array without loss: the cheapest of four forms, chosen by predicted size.

=========  ==================================================================================================
form       fields besides ``as``
=========  ==================================================================================================
raw        none: the elements, little-endian
planes     ``order``, ``planes``: bytes of equal significance together, each plane coded as symbols
symbols    ``alphabet``, ``symbols``: the elements of a uint8 or uint16 array themselves (codes, bits)
codebook   ``size``, ``book``, ``index``: distinct bit patterns in order of value (raw or planes), and each element's
           place among them; for pruned and clustered weights
=========  ==================================================================================================

:mod:`fastcnn.artifact.decode` is the inverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.native import codec
from fastcnn.artifact.patterns import (
    DTYPES,
    Array,
    Order,
    apply_order,
    pattern_type,
    rank_keys,
    to_patterns,
    to_planes,
)
from fastcnn.artifact.symbols import Candidate, cheapest, plan_symbols

MAX_DISTINCT = 4096
"""Most bit patterns a codebook is tried for."""
MAX_BOOK = 65536
"""Longest array taken for a codebook that a model holds itself."""


def encode_array(array: Array) -> tuple[dict[str, Any], list[Array]]:
    """Code ``array`` in the form that takes the fewest bytes.

    Parameters
    ----------
    array : ndarray
        Any shape; dtype one of :data:`fastcnn.artifact.patterns.DTYPES`.

    Returns
    -------
    code : dict
        JSON description of the form.
    chunks : list of ndarray of uint8
        The bytes, in the order the description names them.

    Raises
    ------
    ArtifactError
        For another dtype.
    """
    if array.dtype.name not in DTYPES:
        raise ArtifactError(f"arrays of {array.dtype} cannot be stored; allowed are {', '.join(DTYPES)}")
    return plan_array(array).encode()


def plan_array(array: Array) -> Candidate:
    """Choose the form of ``array``; nothing is coded yet."""
    patterns = to_patterns(array)
    dtype = array.dtype.newbyteorder("=")
    candidates = [_raw(patterns)]
    if patterns.size == 0:
        return candidates[0]
    if dtype.name in ("uint8", "uint16"):
        candidates.append(_symbols(patterns))
    candidates += [_planes(patterns, dtype, order) for order in orders_for(dtype, patterns.size)]
    found = codec.distinct(patterns, MAX_DISTINCT)
    if found is not None and found.size < patterns.size:
        candidates.append(_codebook(patterns, sort_by_value(found, dtype), dtype))
    return cheapest(candidates)


def orders_for(dtype: np.dtype[Any], count: int) -> tuple[Order, ...]:
    """Orders of bits worth trying: differences only for arrays as small as codebooks."""
    first: Order = "exponent" if dtype.kind == "f" else "stored"
    return (first, "delta") if count <= MAX_BOOK else (first,)


def sort_by_value(found: Array, dtype: np.dtype[Any]) -> Array:
    """Bit patterns in the numerical order of the values they stand for."""
    return found[np.argsort(rank_keys(found, dtype), kind="stable")]


def _raw(patterns: Array) -> Candidate:
    little = patterns.dtype.newbyteorder("<")
    return Candidate(patterns.nbytes, 0, lambda: ({"as": "raw"}, [patterns.astype(little, copy=False).view(np.uint8)]))


def _symbols(patterns: Array) -> Candidate:
    alphabet = int(patterns.max()) + 1
    plan = plan_symbols(patterns, alphabet)

    def encode() -> tuple[dict[str, Any], list[Array]]:
        code, chunks = plan.encode()
        return {"as": "symbols", "alphabet": alphabet, "symbols": code}, chunks

    return Candidate(plan.size, plan.symbols, encode)


def _planes(patterns: Array, dtype: np.dtype[Any], order: Order) -> Candidate:
    plans = [plan_symbols(plane, 256) for plane in to_planes(apply_order(patterns, order, dtype))]

    def encode() -> tuple[dict[str, Any], list[Array]]:
        coded = [plan.encode() for plan in plans]
        code = {"as": "planes", "order": order, "planes": [plane for plane, _ in coded]}
        return code, [chunk for _, chunks in coded for chunk in chunks]

    return Candidate(sum(p.size for p in plans), sum(p.symbols for p in plans), encode)


def plan_book(book: Array, dtype: np.dtype[Any]) -> Candidate:
    """Choose the form of a codebook given in order of value."""
    return cheapest([_raw(book), _planes(book, dtype, "delta")])


def _codebook(patterns: Array, book: Array, dtype: np.dtype[Any]) -> Candidate:
    values = plan_book(book, dtype)
    index = codec.index_of(patterns, book)
    if book.size <= 256:
        index = index.astype(np.uint8)
    plan = plan_symbols(index, book.size)

    def encode() -> tuple[dict[str, Any], list[Array]]:
        book_code, book_chunks = values.encode()
        index_code, index_chunks = plan.encode()
        code = {"as": "codebook", "size": int(book.size), "book": book_code, "index": index_code}
        return code, [*book_chunks, *index_chunks]

    assert book.dtype == pattern_type(dtype)
    return Candidate(values.size + plan.size, plan.symbols, encode)
