"""Groups of steps that run together, a band of rows at a time, so that the maps between them stay in one core's cache.

An inverted residual is the case: its 1x1 convolution makes a map several times as large as what it is made from, which
the depthwise convolution reads and the next 1x1 convolution reduces again. Where such a map is larger than the cache,
it travels twice. In a group it does not: ``native/runtime/group.h`` makes a few rows of it and uses them at once. The
first convolution of many nets and the pool after it are another case, chains of factorised convolutions (CP, Tucker-2)
a third.

Every output is the same sum with and without a group; what decides is time alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.lowering import Lowered
from fastcnn.engine.plan.plan import Bands
from fastcnn.engine.plan.slots import Candidate, Draft, Storage

L2_SHARE = 0.7
"""Of L2, for the maps between the steps of a group: most of it, for a band of few rows reads the weights too often."""

PAYS_FROM_L2 = 2.5
"""Times its L2 that a thread's share of these maps must have for a group that was not timed. Measured on MobileNetV2
(2 threads, 1 MiB of L2 each): below, a map that a core has just written is read from L3 as fast as the products need
it, and the rows computed twice cost more than is gained."""

MOST_REPEATED = 1.5
"""Rows of the first map that a thread makes, over its share of them: what two threads need both make."""


@dataclass(frozen=True)
class Group:
    """Steps ``first`` ... ``last`` with ``rows`` rows of the last one's output in a band."""

    first: int
    last: int
    rows: int

    @property
    def span(self) -> tuple[int, int]:
        return self.first, self.last


def find_groups(lowered: Lowered, chosen: Sequence[Candidate], target: Target) -> list[Group]:
    """Return the groups that can run in bands, in order; they do not overlap.

    A depthwise convolution, or two, with the 1x1 convolution after it and the convolution before it, or with one of
    them; a convolution between two of 1x1; a convolution with the pool after it.
    """
    joins = _joins(lowered)
    kinds = [_kind(draft, candidate) for draft, candidate in zip(lowered.drafts, chosen, strict=True)]
    found: list[Group] = []
    i = 0
    while i < len(kinds):
        pattern = next((p for p in _PATTERNS if all(map(_fits, p, kinds[i:])) and len(kinds) >= i + len(p)), ())
        length = next((n for n in range(len(pattern), 1, -1) if _stands(pattern[:n]) and all(joins[i : i + n - 1])), 1)
        if length > 1:
            found.append(Group(i, i + length - 1, band_rows(lowered, i, i + length - 1, target)))
        i += length
    return found


_PATTERNS = (
    ("direct", "depthwise", "depthwise", "pointwise"),
    ("pointwise", "direct", "pointwise"),
    ("direct", "depthwise", "pointwise"),
    ("depthwise", "pointwise"),
    ("direct", "depthwise"),
    ("direct", "pool"),
)


def _stands(part: Sequence[str]) -> bool:
    """Whether the first steps of a pattern are worth a group of their own: two large products alone are not."""
    return part in _PATTERNS or "depthwise" in part


def _fits(wanted: str, kind: str) -> bool:
    return kind == wanted or (wanted, kind) == ("direct", "pointwise")


def _kind(draft: Draft, candidate: Candidate) -> str:
    """What a step is in a group; empty where the native step cannot make some rows of its output alone."""
    if candidate.op == "depthwise" or (candidate.op == "pool" and "kernel" in draft.attrs):
        return candidate.op
    if candidate.op not in ("direct", "amx") or candidate.attrs.get("weights") == "i16":
        return ""
    if draft.out.nchw[2:] == (1, 1):
        return ""
    pointwise = draft.weights["weight"].shape[2:] == (1, 1) and draft.attrs["stride"] == [1, 1]
    return "pointwise" if pointwise else "direct"


def divisible(lowered: Lowered, groups: Sequence[Group], target: Target) -> list[Group]:
    """Return those of which the threads compute little twice."""
    return [g for g in groups if repeated(lowered.drafts, g.first, g.last, target.threads) <= MOST_REPEATED]


def likely(lowered: Lowered, groups: Sequence[Group], target: Target) -> list[Group]:
    """Return those that pay by rule of thumb: the maps between their steps are larger than the caches of the cores."""
    least = PAYS_FROM_L2 * target.l2_bytes * target.threads
    return [g for g in divisible(lowered, groups, target) if inner_bytes(lowered, g) > least]


def inner_bytes(lowered: Lowered, group: Group) -> int:
    """Bytes of the maps between the steps, whole and of the whole batch."""
    return 4 * sum(lowered.drafts[i].out.storage.floats() for i in range(group.first, group.last))


def saved(lowered: Lowered, groups: Sequence[Group], bands: Sequence[Bands]) -> list[Group]:
    """Return the groups of a saved plan, those that can still run."""
    rows = {(b.layer, b.steps): b.rows for b in bands}
    found = []
    for group in groups:
        draft = lowered.drafts[group.first]
        wanted = rows.get((draft.name, group.last - group.first + 1))
        if wanted is not None:
            found.append(replace(group, rows=min(wanted, lowered.drafts[group.last].out.nchw[2])))
    return found


def described(lowered: Lowered, groups: Sequence[Group]) -> tuple[Bands, ...]:
    """Return the groups in the words of a plan."""
    return tuple(Bands(layer=lowered.drafts[g.first].name, steps=g.last - g.first + 1, rows=g.rows) for g in groups)


def repeated(drafts: Sequence[Draft], first: int, last: int, threads: int) -> float:
    """Rows of the first step's output that the busiest thread makes, over its share of all of them."""
    batch, _, height, _ = drafts[last].out.nchw
    if batch % threads == 0:
        return 1.0
    rows = drafts[first].out.nchw[2]
    most = 0
    for thread in range(threads):
        begin, end = height * thread // threads, height * (thread + 1) // threads
        if begin == end:
            continue
        for i in range(last, first, -1):
            stride, size = _reach(drafts[i])
            before = drafts[i].attrs["padding"][0]
            begin, end = (
                max(0, begin * stride - before),
                min(drafts[i - 1].out.nchw[2], (end - 1) * stride - before + size),
            )
        most = max(most, end - begin)
    return most * threads / rows


def band_rows(lowered: Lowered, first: int, last: int, target: Target) -> int:
    """Rows of a band whose maps between the steps take a part of L2."""
    height = lowered.drafts[last].out.nchw[2]
    rows = 1
    while rows < height and band_bytes(lowered, first, last, rows + 1) <= target.l2_bytes * L2_SHARE:
        rows += 1
    return rows


def band_bytes(lowered: Lowered, first: int, last: int, rows: int) -> int:
    """Bytes one thread needs for the maps between the steps."""
    counts = band_heights(lowered.drafts, first, last, rows)
    storages = (lowered.drafts[i].out.storage for i in range(first, last))
    return 4 * sum(s.row_floats() * count for s, count in zip(storages, counts, strict=True))


def band_heights(drafts: Sequence[Draft], first: int, last: int, rows: int) -> list[int]:
    """Rows that the map between each step and the next must have room for."""
    counts = []
    for i in range(last, first, -1):
        stride, size = _reach(drafts[i])
        rows = (rows - 1) * stride + size
        counts.append(rows)
    return counts[::-1]


def place(lowered: Lowered, groups: Sequence[Group]) -> None:
    """Put the maps inside of groups into bands, and all others into the arena."""
    for storage in lowered.storages:
        if storage.space == "band":
            storage.space, storage.index, storage.rows = "arena", 0, 0
    for group in groups:
        heights = band_heights(lowered.drafts, group.first, group.last, group.rows)
        for k, rows in enumerate(heights):
            storage = lowered.drafts[group.first + k].out.storage
            storage.space, storage.index, storage.rows, storage.offset = "band", k, rows, 0


def _reach(draft: Draft) -> tuple[int, int]:
    """Stride and extent in rows of a step's window."""
    if draft.op == "pool":
        return draft.attrs["stride"][0], (draft.attrs["kernel"][0] - 1) * draft.attrs["dilation"][0] + 1
    taps = draft.weights["weight"].shape[2]
    return draft.attrs["stride"][0], (taps - 1) * draft.attrs["dilation"][0] + 1


def _joins(lowered: Lowered) -> list[bool]:
    """Of every step: whether the next one, and nothing else, reads its output, as its map and not as a residual."""
    readers: Counter[Storage] = Counter()
    shared: set[Storage] = set()
    for draft in lowered.drafts:
        readers.update(slot.storage for slot in draft.inputs)
    for storage in lowered.storages:
        if storage.parent is not None:
            shared |= {storage, storage.parent}
    joins = []
    for draft, after in zip(lowered.drafts, [*lowered.drafts[1:], None], strict=True):
        s = draft.out.storage
        alone = s.blocked and s.space in ("arena", "band") and s not in shared and readers[s] == 1 and draft.zero_border
        joins.append(alone and after is not None and bool(after.inputs) and after.inputs[0].storage is s)
    return joins
