"""Reshapes, permutations, joins and ranges.

Reshapes are written so that batch and image size stay open where the file's own meaning allows it
(:mod:`fastcnn.engine.graph.reshapes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcnn.engine.graph.reshapes import copy_axis, open_target
from fastcnn.engine.graph.schema import MAX_RANK, MAX_SIZE, show
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.folding import split_sizes
from fastcnn.engine.onnx_import.registry import Call, Constant, Value, axes, axis, lowers
from fastcnn.engine.onnx_import.walk import Walk

MAX_PARTS = 256
"""Copies that one Tile may make of an axis, and the largest block of pixels."""


def _reshape(lower: Walk, x: str, target: list[int]) -> str:
    return lower.emit("reshape", [x], attrs={"shape": target})


def add_axis(lower: Walk, x: str, dim: int) -> str:
    """Insert an axis of extent 1."""
    rank = lower.rank(x)
    return _reshape(lower, x, [0] * dim + [1] + [copy_axis(i + 1, i) for i in range(dim, rank)])


def drop_axis(lower: Walk, x: str, dim: int) -> str:
    """Remove an axis of extent 1."""
    rank = lower.rank(x)
    return _reshape(lower, x, [0] * dim + [copy_axis(i - 1, i) for i in range(dim + 1, rank)])


def permute(lower: Walk, x: str, dims: list[int]) -> str:
    """Axes in a new order."""
    return x if dims == sorted(dims) else lower.emit("permute", [x], attrs={"dims": dims})


def cut(lower: Walk, x: str, dim: int, start: int, end: int | None, step: int = 1) -> str:
    """x[start:end:step] on one axis."""
    if end is not None and end >= lower.shape(x)[dim]:
        end = None
    if start == 0 and end is None and step == 1:
        return x
    return lower.emit("slice", [x], attrs={"dim": dim, "start": start, "end": end, "step": step})


@lowers("Reshape")
def reshape(lower: Walk, call: Call) -> str:
    """A new shape; 0 copies an axis, -1 is inferred."""
    x = lower.value(call.given(0, "data"))
    asked, shape = call.attr_or_input("shape", 1), lower.shape(x)
    if asked is None:
        raise Damaged("its shape is missing")
    if len(asked) > MAX_RANK or any(not -1 <= n <= MAX_SIZE for n in asked) or asked.count(-1) > 1:
        raise Damaged(f"its shape is {show(asked)}: up to {MAX_RANK} extents, at most one -1")
    if 0 in asked and call.flag("allowzero"):
        raise Unsupported("it makes an empty tensor (allowzero)")
    if any(n == 0 and i >= len(shape) for i, n in enumerate(asked)):
        raise Damaged(f"its shape {asked} copies an axis that the input's shape {shape} does not have")
    out = [shape[i] if n == 0 else n for i, n in enumerate(asked)]
    if -1 in out:
        rest = math.prod(n for n in out if n != -1)
        out[out.index(-1)] = math.prod(shape) // rest
    if math.prod(out) != math.prod(shape):
        raise Damaged(f"{shape} ({math.prod(shape)} numbers) cannot take shape {asked}")
    if tuple(out) == shape and -1 not in asked:
        return x
    return _reshape(lower, x, open_target(asked, shape, tuple(out)))


@lowers("Flatten")
def flatten(lower: Walk, call: Call) -> str:
    """A matrix: the axes before ``axis`` as rows, the rest as columns."""
    x = lower.value(call.given(0, "X"))
    rank, dim = lower.rank(x), call.integer("axis", 1)
    dim = rank if dim == rank else axis(dim, rank)
    if dim == 0:
        return _reshape(lower, x, [1, -1])
    if dim == rank:
        return _reshape(lower, x, [-1, 1])
    if dim < rank - 1:
        x = lower.emit("flatten", [x], attrs={"start_dim": dim, "end_dim": rank - 1})
    return x if dim == 1 else lower.emit("flatten", [x], attrs={"start_dim": 0, "end_dim": dim - 1})


@lowers("Squeeze")
def squeeze(lower: Walk, call: Call) -> str:
    """Remove axes of extent 1 (all of them, without axes)."""
    x, dims = lower.value(call.given(0, "data")), call.attr_or_input("axes", 1)
    shape = lower.shape(x)
    gone = [i for i, n in enumerate(shape) if n == 1] if dims is None else axes(dims, len(shape))
    if any(shape[i] != 1 for i in gone):
        raise Damaged(f"it removes axes {gone} of shape {shape}; only an axis of 1 can go")
    kept = [i for i in range(len(shape)) if i not in gone]
    return _reshape(lower, x, [copy_axis(position, i) for position, i in enumerate(kept)]) if gone else x


@lowers("Unsqueeze")
def unsqueeze(lower: Walk, call: Call) -> str:
    """Insert axes of extent 1."""
    x, dims = lower.value(call.given(0, "data")), call.attr_or_input("axes", 1) or []
    rank = lower.rank(x) + len(dims)
    if rank > MAX_RANK:
        raise Unsupported(f"its result would have {rank} axes; at most {MAX_RANK} are supported")
    for dim in sorted(axes(dims, rank)):
        x = add_axis(lower, x, dim)
    return x


@lowers("Transpose")
def transpose(lower: Walk, call: Call) -> str:
    """Axes in a new order; reversed without ``perm``."""
    x = lower.value(call.given(0, "data"))
    perm = call.integers("perm")
    dims = list(range(lower.rank(x)))[::-1] if perm is None else perm
    if sorted(dims) != list(range(lower.rank(x))):
        raise Damaged(f"its perm is {show(dims)}, for an input of {lower.rank(x)} axes")
    return permute(lower, x, dims)


@lowers("Concat")
def concat(lower: Walk, call: Call) -> str:
    """Join along an axis; constants among the parts enter as values."""
    parts = [lower.value(call.given(i, f"part {i}")) for i in range(len(call.inputs))]
    if not parts or not call.has("axis"):
        raise Damaged("its parts or its axis are missing")
    dim = axis(call.integer("axis", 0), lower.rank(parts[0]))
    return parts[0] if len(parts) == 1 else lower.emit("concat", parts, attrs={"dim": dim})


@lowers("Split")
def split(lower: Walk, call: Call) -> list[Value | None]:
    """Ranges of one axis."""
    x = lower.value(call.given(0, "input"))
    dim = axis(call.integer("axis", 0), lower.rank(x))
    sizes = split_sizes(call, lower.shape(x)[dim])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        cut(lower, x, dim, start, start + size) if name else None
        for name, start, size in zip(call.outputs, starts, sizes, strict=True)
    ]


@lowers("Slice")
def slice_(lower: Walk, call: Call) -> str:
    """Ranges of some axes, forwards."""
    x = lower.value(call.given(0, "data"))
    starts, ends = call.attr_or_input("starts", 1), call.attr_or_input("ends", 2)
    if starts is None or ends is None:
        raise Damaged("its starts or ends are missing")
    given = call.attr_or_input("axes", 3)
    dims = axes(list(range(len(starts))) if given is None else given, lower.rank(x))
    steps = call.int_input(4, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(dims) == len(steps):
        raise Damaged(f"it has {len(starts)} starts, {len(ends)} ends, {len(dims)} axes and {len(steps)} steps")
    for start, end, dim, step in zip(starts, ends, dims, steps, strict=True):
        if step == 0:
            raise Damaged("its step is 0")
        if step < 0:
            raise Unsupported(f"it runs backwards (step {step})")
        extent = lower.shape(x)[dim]
        first, last = (min(max(n + extent if n < 0 else n, 0), extent) for n in (start, end))
        x = cut(lower, x, dim, first, last, min(step, MAX_SIZE))
    return x


@lowers("Gather")
def gather(lower: Walk, call: Call) -> str:
    """One index, or a few, of an axis."""
    x, indices = lower.value(call.given(0, "data")), call.constant(1, "indices").array
    dim = axis(call.integer("axis", 0), lower.rank(x))
    extent = lower.shape(x)[dim]
    if indices.dtype.kind not in "iu" or indices.size == 0:
        raise Damaged(f"its indices are {indices.dtype} of shape {indices.shape}")
    if indices.ndim > 1:
        raise Unsupported(f"its indices have shape {indices.shape}; one, or a list, is supported")
    chosen = [axis(int(i), extent) for i in indices.reshape(-1)]
    if indices.ndim == 0:
        return drop_axis(lower, cut(lower, x, dim, chosen[0], chosen[0] + 1), dim)
    steps = set(np.diff(chosen).tolist())
    if len(steps) <= 1 and (step := next(iter(steps), 1)) > 0:
        return cut(lower, x, dim, chosen[0], chosen[-1] + 1, step)
    if dim == 0:
        raise Unsupported("it picks pictures of the batch")
    return lower.emit("index_select", [x], attrs={"dim": dim, "indices": chosen})


@lowers("Tile")
def tile(lower: Walk, call: Call) -> str:
    """Copies side by side, axis by axis."""
    x, counts = lower.value(call.given(0, "input")), call.int_input(1, "repeats") or []
    if len(counts) != lower.rank(x) or not all(1 <= n <= MAX_PARTS for n in counts):
        raise Unsupported(f"its repeats are {show(counts)}; one number in 1..{MAX_PARTS} per axis is supported")
    for dim, count in enumerate(counts):
        if count != 1:
            x = lower.emit("concat", [x] * count, attrs={"dim": dim})
    return x


@lowers("Expand")
def expand(lower: Walk, call: Call) -> str:
    """Broadcast, by adding zeros; element-wise consumers read the value before it instead."""
    x, asked = lower.value(call.given(0, "input")), call.int_input(1, "shape") or []
    shape = lower.shape(x)
    try:
        out = np.broadcast_shapes(shape, tuple(asked))
    except ValueError:
        raise Damaged(f"shape {shape} does not broadcast to {show(asked)}") from None
    if out == shape:
        return x
    if len(out) != len(shape) or out[0] != shape[0] or math.prod(out[1:]) > 1 << 24:
        raise Unsupported(f"it expands {shape} to {out}; adding axes or copying along the batch is not supported")
    zeros = lower.value(Constant(np.zeros((1, *out[1:]), np.float32)))
    y = lower.emit("add", [x, zeros])
    lower.unexpanded[y] = x
    return y


def _merged(lower: Walk, x: str, dims: Sequence[int]) -> str:
    """Merge axes dim and dim + 1, for each dim in turn."""
    for dim in dims:
        x = lower.emit("flatten", [x], attrs={"start_dim": dim, "end_dim": dim + 1})
    return x


def _block(lower: Walk, call: Call) -> tuple[str, int]:
    x, r = lower.value(call.given(0, "input")), call.integer("blocksize", 0)
    if lower.rank(x) != 4 or not 1 <= r <= MAX_PARTS:
        raise Damaged(f"its input has shape {lower.shape(x)} and its blocksize is {r}")
    return x, r


@lowers("DepthToSpace")
def depth_to_space(lower: Walk, call: Call) -> str:
    """Channels to pixels; CRD is torch's pixel shuffle, DCR has the channels last."""
    x, r = _block(lower, call)
    channels, mode = lower.shape(x)[1], call.text("mode", "DCR")
    if channels % (r * r) or mode not in ("DCR", "CRD"):
        raise Damaged(f"its mode is {mode!r}, for {channels} channels in blocks of {r} x {r}")
    if mode == "CRD":
        y = permute(lower, _reshape(lower, x, [0, channels // (r * r), r, r, -4, -5]), [0, 1, 4, 2, 5, 3])
    else:
        y = permute(lower, _reshape(lower, x, [0, r, r, channels // (r * r), -4, -5]), [0, 3, 4, 1, 5, 2])
    return _merged(lower, y, (2, 3))


@lowers("SpaceToDepth")
def space_to_depth(lower: Walk, call: Call) -> str:
    """Pixels to channels, the place in the block first."""
    x, r = _block(lower, call)
    if any(n % r for n in lower.shape(x)[2:]):
        raise Damaged(f"blocks of {r} x {r} do not fill an image of {lower.shape(x)[2:]}")
    y = _reshape(lower, _reshape(lower, x, [0, 0, -1, r, -5]), [0, 0, 0, 0, -1, r])
    return _merged(lower, permute(lower, y, [0, 3, 5, 1, 2, 4]), (1, 1))
