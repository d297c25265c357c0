"""Assign arena offsets: values whose lifetimes do not meet share memory."""

from __future__ import annotations

from collections.abc import Sequence

from fastcnn.engine.plan.slots import Storage

_ALIGN = 16  # floats: one cache line, one AVX-512 vector
_SKEW = 16  # floats between neighbours, so that equal maps do not start at equal addresses modulo a power of two


def plan_memory(storages: Sequence[Storage]) -> int:
    """Give every arena storage an offset and return the arena's floats.

    Greedy by size: the largest storage first, each at the lowest offset where nothing alive at the same time lies
    (Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size").
    """
    placed: list[Storage] = []
    total = 0
    for storage in sorted(storages, key=lambda s: (-s.floats(), s.first or 0)):
        if storage.first is None:
            continue
        size = -(-storage.floats() // _ALIGN) * _ALIGN + _SKEW
        busy = sorted(
            (other.offset, other.offset + -(-other.floats() // _ALIGN) * _ALIGN + _SKEW)
            for other in placed
            if _begin(other) <= storage.last and _begin(storage) <= other.last
        )
        offset = 0
        for begin, end in busy:
            if offset + size <= begin:
                break
            offset = max(offset, end)
        storage.offset = offset
        placed.append(storage)
        total = max(total, offset + size)
    return total


def lower_bound(storages: Sequence[Storage]) -> int:
    """Floats that are alive at once at the busiest step: no arena can be smaller."""
    alive = [s for s in storages if s.first is not None]
    steps = {_begin(s) for s in alive}
    return max((sum(s.floats() for s in alive if _begin(s) <= step <= s.last) for step in steps), default=0)


def _begin(storage: Storage) -> int:
    assert storage.first is not None
    return storage.first
