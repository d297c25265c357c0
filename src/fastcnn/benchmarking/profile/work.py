"""What a step of a plan really does: multiplications and bytes, one function for each kernel family.

Multiplications are those the kernel issues: tiles that stick out over the map, channels and filters filled up to whole
vectors, and the zeros between groups narrower than a vector all count. ``macs`` beside them is the useful part. Bytes
are the least a step must move: packed weights once, the input elements it touches once, its output once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastcnn.engine.plan.slots import Candidate, Draft, Slot
from fastcnn.engine.plan.tiles import form_of


@dataclass(frozen=True, kw_only=True)
class Work:
    """One step's share of the machine's two limits.

    Attributes
    ----------
    family : str
        ``1x1``, ``direct``, ``grouped``, ``linear``, or the native op.
    macs : int
        Useful multiply-adds: those of the direct algorithm.
    multiplications : int
        Multiply-adds really issued; 0 for steps that only move or compare values.
    counted : bool
        False where a kernel that multiplies has no function here: ``multiplications`` are then ``macs``.
    weight_bytes, input_bytes, output_bytes : int
        Packed weights; inputs (a residual too) and output without their borders.
    out_map : tuple of int
        Rows and columns of the output.
    """

    family: str
    macs: int
    multiplications: int
    counted: bool
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    out_map: tuple[int, int]


def step_work(draft: Draft, candidate: Candidate, *, lanes: int, weight_bytes: int) -> Work:
    """Count the work of one step.

    Parameters
    ----------
    draft, candidate
        The step and the way it is run.
    lanes : int
        Floats in a vector of the plan's instruction set.
    weight_bytes : int
        Of the packed weights (``Net.step_weight_bytes``).
    """
    count = _COUNTERS.get(candidate.op)
    known = count is not None and "weight" in draft.weights
    if count is not None and known:
        multiplications = count(draft, candidate, lanes)
    else:
        multiplications = draft.macs
    read, written = _moved_bytes(draft, candidate, lanes)
    return Work(
        family=family(draft, candidate),
        macs=draft.macs,
        multiplications=multiplications,
        counted=known or draft.macs == 0,
        weight_bytes=weight_bytes,
        input_bytes=read,
        output_bytes=written,
        out_map=draft.out.nchw[2:],
    )


def family(draft: Draft, candidate: Candidate) -> str:
    """The word under which a step is summed up."""
    if candidate.op not in ("direct", "amx"):
        return candidate.op
    kernel = tuple(draft.weights["weight"].shape[2:])
    if draft.out.nchw[2:] == (1, 1) and kernel == draft.inputs[0].nchw[2:]:
        return "linear"
    if int(draft.attrs["groups"]) > 1:
        return "grouped"
    return "1x1" if kernel == (1, 1) else "direct"


def direct(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """Every output pixel times every tap, whole vectors of input channels and filters (planar stems: true channels)."""
    images, filters, out_h, out_w = draft.out.nchw
    return images * out_h * out_w * _taps(draft) * _channel_pairs(draft, filters, lanes)


def transposed(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """One direct convolution per output phase; a phase that no tap falls into still multiplies by one zero tap."""
    images, filters, out_h, out_w = draft.out.nchw
    per_axis: list[list[tuple[int, int]]] = []
    for axis, out in enumerate((out_h, out_w)):
        kernel = draft.weights["weight"].shape[2 + axis]
        stride, padding, dilation = (int(draft.attrs[key][axis]) for key in ("stride", "padding", "dilation"))
        phases = []
        for first in range(min(stride, out)):
            pixels = -(-(out - first) // stride)
            phases.append((pixels, sum((first + padding - k * dilation) % stride == 0 for k in range(kernel))))
        per_axis.append(phases)
    taps = sum(ph * pw * max(1, th * tw) for ph, th in per_axis[0] for pw, tw in per_axis[1])
    return images * taps * _channel_pairs(draft, filters, lanes)


def tiles(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """The products of a form per tile, input channel and filter; tiles at the lower and right edge count whole.

    The transforms are additions and multiplications by constants and do not count.
    """
    images, filters, out_h, out_w = draft.out.nchw
    kernel = draft.weights["weight"].shape[2:4]
    form = form_of(candidate.op, candidate.attrs, kernel, draft.attrs["stride"], draft.attrs["dilation"])
    pairs = _padded(filters, lanes) if candidate.op == "fft_depthwise" else _channel_pairs(draft, filters, lanes)
    return form.tiles(images, (out_h, out_w)) * form.products * pairs


def depthwise(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """Every output element times every tap, whole vectors of channels."""
    images, channels, out_h, out_w = draft.out.nchw
    return images * _padded(channels, lanes) * out_h * out_w * _taps(draft)


def amx(draft: Draft, candidate: Candidate, lanes: int) -> int:
    """Whole tiles of 16 pixels and of 32 input channels, or numbers in a row of taps of a picture.

    The pixels between the rows of the copy count too (native/runtime/steps/amx.cpp); rows are taken to go in whole
    blocks.
    """
    images, filters, out_h, out_w = draft.out.nchw
    (_, channels, kernel_h, kernel_w), source = draft.weights["weight"].shape, draft.inputs[0].storage
    stride, dilation = draft.attrs["stride"], draft.attrs["dilation"]
    below, beside = ((k - 1) * int(dilation[i]) // int(stride[i]) for i, k in enumerate((kernel_h, kernel_w)))
    if source.blocked:
        numbers, row = _padded(channels, 2 * lanes) * kernel_h * kernel_w, out_w + beside
    else:
        step, pixel = _padded(kernel_w * channels, 2 * lanes), int(stride[1]) * channels
        numbers, row = step * kernel_h, out_w - 1 + -(-step // pixel)
    together, rows = int(candidate.attrs["images"]), min(int(candidate.attrs["rows"]), out_h)
    pixels = 0
    for first in range(0, images, together):
        count = min(together, images - first)
        for top in range(0, out_h, rows):
            high = min(rows, out_h - top)
            pixels += _padded(((count - 1) * (rows + below) + high - 1) * row + out_w, 16)
    return int(pixels * numbers * _padded(filters, lanes))


_COUNTERS: dict[str, Callable[[Draft, Candidate, int], int]] = {
    "direct": direct,
    "transposed": transposed,
    "winograd": tiles,
    "fft": tiles,
    "fft_depthwise": tiles,
    "depthwise": depthwise,
    "amx": amx,
}


def _taps(draft: Draft) -> int:
    return math.prod(int(extent) for extent in draft.weights["weight"].shape[2:])


def _padded(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


def _channel_pairs(draft: Draft, filters: int, lanes: int) -> int:
    """(input channel, filter) pairs that are multiplied."""
    channels = draft.inputs[0].nchw[1]
    if not draft.inputs[0].storage.blocked:
        return channels * _padded(filters, lanes)
    whole = _whole_groups(int(draft.attrs.get("groups", 1)), channels, filters, lanes)
    return _padded(channels, lanes) * _padded(filters, lanes) // whole


def _whole_groups(groups: int, channels: int, filters: int, lanes: int) -> int:
    """Groups that the kernel keeps apart: as many as hold whole vectors (native/runtime/steps/convolution.cpp)."""
    for count in range(groups, 1, -1):
        if groups % count == 0 and channels // count % lanes == 0 and filters // count % lanes == 0:
            return count
    return 1


def _moved_bytes(draft: Draft, candidate: Candidate, lanes: int) -> tuple[int, int]:
    """(read, written) bytes of activations."""
    if candidate.op == "copy_region":
        size = 4 * draft.out.nchw[0] * math.prod(draft.attrs["size"])
        return size, size
    if candidate.op == "strided_copy":
        size = 4 * math.prod(draft.attrs["dims"])
        return size, size
    read = [_slot_bytes(slot, lanes) for slot in draft.inputs]
    if read and candidate.op in _COUNTERS and candidate.op != "transposed":
        read[0] = _window_bytes(draft, lanes)
    return sum(read), _slot_bytes(draft.out, lanes)


def _slot_bytes(slot: Slot, lanes: int) -> int:
    n, c, h, w = slot.nchw
    return 4 * n * h * w * (_padded(c, lanes) if slot.storage.blocked else c)


def _window_bytes(draft: Draft, lanes: int) -> int:
    """Bytes of the input pixels that windows touch: a 1x1 kernel with stride 2 reads a quarter of them."""
    h, w = draft.inputs[0].nchw[2:]
    touched = 1
    for axis, size in enumerate((h, w)):
        kernel = draft.weights["weight"].shape[2 + axis] if "weight" in draft.weights else 1
        stride, dilation = int(draft.attrs["stride"][axis]), int(draft.attrs["dilation"][axis])
        before = int(draft.attrs["padding"][axis])
        rows = {o * stride - before + k * dilation for o in range(draft.out.nchw[2 + axis]) for k in range(kernel)}
        touched *= sum(0 <= row < size for row in rows)
    return _slot_bytes(draft.inputs[0], lanes) // (h * w) * touched
