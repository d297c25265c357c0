"""What native code can count and this machine can hold: asked before either is put to the test.

Native code keeps extents and positions inside one map in 32 bits. A graph from a file, or a shape given to a net, may
exceed that and still pass the shape rules; it is refused here with words, before a byte is allocated for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping

from fastcnn.engine.graph.graph import Graph, GraphError
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan import tiles
from fastcnn.engine.plan.candidates import AMX_PARTS
from fastcnn.engine.plan.slots import Candidate, Draft, Slot

MAX_PIXELS = (1 << 30) - 1
"""Rows times columns of one map with its border (half of an int32: windows reach past the end)."""
MAX_COUNT = 1 << 30
"""Pictures, or channels, of one map."""
MAX_RESIZED = 1 << 22
"""Rows or columns of a resized map: the planner lists where each of them comes from."""
MAX_PHASES = 1 << 16
"""Products of the strides of a transposed convolution: each phase has its own list of taps."""


def check_values(graph: Graph, shapes: Mapping[str, Shape]) -> None:
    """Raise GraphError if one value alone is more than this process can hold."""
    limit = memory_limit()
    for name in (*(v.name for v in graph.inputs), *(n.name for n in graph.nodes)):
        if 4 * math.prod(shapes[name]) > limit:
            raise GraphError(_too_much(f"value {name!r} of shape {shapes[name]}", 4 * math.prod(shapes[name]), limit))
    for node in graph.nodes:
        if node.op == "resize":
            _check_count(node.name, max(shapes[node.name][2:]), "rows or columns to resize to", MAX_RESIZED)


def check_draft(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """Raise GraphError if native code could not count through this step; return the bytes of its packed weights."""
    for slot in (*draft.inputs, draft.out):
        _check_slot(draft.name, slot)
    source, out, attrs = draft.inputs[0] if draft.inputs else draft.out, draft.out, draft.attrs
    if draft.op == "pool" and "kernel" in attrs:
        _check_count(draft.name, math.prod(attrs["kernel"]), "taps of one window", MAX_PIXELS)
    weight = draft.weights.get("weight")
    if candidate.op not in ("direct", "transposed", "amx", *tiles.OPS) or weight is None:
        return 4 * sum(int(array.size) for array in draft.weights.values())
    channels = _whole(source.nchw[1], lanes) if source.storage.blocked else source.nchw[1]
    if candidate.op == "amx":
        if source.storage.blocked:
            channels = _whole(channels, 2 * lanes)
        else:  # whole rows of taps
            channels = _whole(channels * weight.shape[3], 2 * lanes) / weight.shape[3]
    filters = _whole(out.nchw[1], lanes)
    taps, phases = math.prod(weight.shape[2:]), 1
    if candidate.op == "transposed":
        phases = math.prod(min(s, n) for s, n in zip(attrs["stride"], out.nchw[2:], strict=True))
        _check_count(draft.name, phases, f"phases of strides {attrs['stride']}", MAX_PHASES)
        taps += phases  # a phase that no tap falls into still has one, of zeros
    elif candidate.op in tiles.OPS:
        _check_count(draft.name, out.nchw[0] * math.prod(out.nchw[2:]), "pixels of a batch", 2 * MAX_PIXELS)
        taps = tiles.form_of(candidate.op, candidate.attrs, weight.shape[2:4], attrs["stride"]).products
    if candidate.op == "fft_depthwise":
        return int(4 * filters * taps)
    groups = _whole_groups(attrs["groups"], source.nchw[1], out.nchw[1], lanes)
    return int(4 * channels * filters * taps // groups + 1024 * phases)


def packed_bytes(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """Bytes of a step's weights as that candidate packs them, about: without biases, scales and lists of taps."""
    stored = check_draft(draft, candidate, lanes)
    if candidate.op == "amx":
        return stored * AMX_PARTS[candidate.attrs["products"]] // 2
    return stored if candidate.attrs.get("weights", "f32") == "f32" else stored // 2


def check_memory(needed: int, what: str) -> None:
    """Refuse a plan that this process cannot hold, before anything is allocated for it."""
    limit = memory_limit()
    if needed > limit:
        raise GraphError(_too_much(what, needed, limit) + ": give smaller or fewer pictures")


def memory_limit() -> int:
    """Bytes this process may use: the machine's memory, or less where an address-space limit says so."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        import resource
    except ImportError:  # not told by this system
        return limit
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit if soft == resource.RLIM_INFINITY else min(limit, soft)


def _check_slot(layer: str, slot: Slot) -> None:
    n, c, h, w = slot.nchw
    top, left, bottom, right = slot.storage.border
    rows, columns = top + h + bottom, left + w + right
    _check_count(layer, n, "pictures or rows of a batch", MAX_COUNT)
    _check_count(layer, c, "channels", MAX_COUNT)
    _check_count(layer, rows * columns, f"pixels ({rows} x {columns} with padding) in one map", MAX_PIXELS)
    _check_count(layer, slot.storage.plane() // max(rows, 1), "floats in one padded row", MAX_PIXELS)


def _check_count(layer: str, count: int, what: str, most: int) -> None:
    if count > most:
        raise GraphError(f"layer {layer!r}: {count} {what}; native code counts at most {most}: give smaller pictures")


def _too_much(what: str, needed: int, limit: int) -> str:
    return f"{what} needs {needed / 2**30:.1f} GiB and the machine has {limit / 2**30:.1f}"


def _whole(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


def _whole_groups(groups: int, channels: int, filters: int, lanes: int) -> int:
    """Groups that native code keeps apart: those of whole channel blocks; the rest run dense, zeros between them."""
    fit: Iterable[int] = (
        g for g in range(groups, 1, -1)
        if groups % g == 0 and channels // g % lanes == 0 and filters // g % lanes == 0
    )  # fmt: skip
    return next(iter(fit), 1)
