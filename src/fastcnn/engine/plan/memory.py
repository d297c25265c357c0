"""Assign arena offsets: values whose lifetimes do not meet share memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from fastcnn.engine.plan.slots import Storage

_ALIGN = 16  # floats: one cache line, one AVX-512 vector
_SKEW = 16  # floats between neighbours, so that equal maps do not start at equal addresses modulo a power of two


Span = tuple[int, int]
"""First and last of steps that run together, a few rows at a time: they count as one."""


def plan_memory(storages: Sequence[Storage], together: Sequence[Span] = ()) -> int:
    """Give every arena storage an offset and return the arena's floats.

    Greedy by size: the largest storage first, each at the lowest offset where nothing alive at the same time lies
    (Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size").
    """
    order = sorted((s for s in storages if s.first is not None), key=lambda s: (-s.floats(), _begin(s)))
    lives = [_life(s, together) for s in order]
    begin = np.array([first for first, _ in lives], np.int64)
    last = np.array([end for _, end in lives], np.int64)
    start, end = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    total = 0
    for i, storage in enumerate(order):
        size = -(-storage.floats() // _ALIGN) * _ALIGN + _SKEW
        meet = np.flatnonzero((begin[:i] <= last[i]) & (begin[i] <= last[:i]))
        offset = 0
        for lower, upper in sorted(zip(start[meet].tolist(), end[meet].tolist(), strict=True)):
            if offset + size <= lower:
                break
            offset = max(offset, upper)
        storage.offset = offset
        start[i], end[i] = offset, offset + size
        total = max(total, offset + size)
    return total


def lower_bound(storages: Sequence[Storage], together: Sequence[Span] = ()) -> int:
    """Floats that are alive at once at the busiest step: no arena can be smaller."""
    changes: dict[int, int] = {}
    for storage in storages:
        if storage.first is not None:
            floats = storage.floats()
            first, last = _life(storage, together)
            changes[first] = changes.get(first, 0) + floats
            changes[last + 1] = changes.get(last + 1, 0) - floats
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)


def _life(storage: Storage, together: Sequence[Span]) -> Span:
    """First and last step, widened to whole spans, which are in order."""
    first, last = _begin(storage), storage.last
    at = bisect_right(together, first, key=lambda span: span[0]) - 1
    if at >= 0 and first <= together[at][1]:
        first = together[at][0]
    at = bisect_right(together, last, key=lambda span: span[0]) - 1
    if at >= 0 and last <= together[at][1]:
        last = together[at][1]
    return first, last


def _begin(storage: Storage) -> int:
    assert storage.first is not None
    return storage.first
