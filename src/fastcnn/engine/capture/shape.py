"""Reshapes, permutations, slices, joins, padding and resizing.

Reshapes are written so that batch and image size stay open where the model's own meaning allows it: axis 0 is copied
wherever it is the batch, trailing axes that pass unchanged are copied, and a lone remaining axis is inferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Unsupported, axis, lowers, spread
from fastcnn.engine.graph.reshapes import copy_axis, open_target
from fastcnn.engine.graph.schema import Shape


@lowers(
    "aten::clone",
    "aten::contiguous",
    "aten::detach",
    "aten::alias",
    "aten::lift_fresh",
    "aten::lift_fresh_copy",
    "aten::to",
    "aten::_to_copy",
    "aten::type_as",
    "aten::positive",
)
def identity(lower: Lowering, a: Arguments) -> str:
    """Nothing: float32 in, float32 out."""
    value = a.at(0)
    if not isinstance(value, str):
        raise Unsupported("its argument does not come from the input")
    return value


def _reshape(lower: Lowering, x: str, target: list[int]) -> str:
    return lower.emit("reshape", [x], attrs={"shape": target})


def add_axis(lower: Lowering, x: str, dim: int) -> str:
    """Insert an axis of extent 1."""
    rank = lower.rank(x)
    return _reshape(lower, x, [0] * dim + [1] + [copy_axis(i + 1, i) for i in range(dim, rank)])


def drop_axis(lower: Lowering, x: str, dim: int) -> str:
    """Remove an axis of extent 1."""
    rank = lower.rank(x)
    return _reshape(lower, x, [0] * dim + [copy_axis(i - 1, i) for i in range(dim + 1, rank)])


@lowers("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::view_copy", "aten::reshape_as", "aten::view_as")
def view(lower: Lowering, a: Arguments) -> str:
    """A new shape."""
    x, out = a.value("self"), lower.output_shape()
    asked = a.get("size") or a.get("shape") or list(out)
    if not all(isinstance(n, int) for n in asked):
        raise Unsupported("it reinterprets the bytes as another type")
    return (
        x if out == lower.shape(x) and -1 not in asked else _reshape(lower, x, open_target(asked, lower.shape(x), out))
    )


@lowers("aten::flatten")
def flatten(lower: Lowering, a: Arguments) -> str:
    """Merge a range of axes."""
    x = a.value("self")
    start, end = axis(int(a["start_dim"]), lower.rank(x)), axis(int(a["end_dim"]), lower.rank(x))
    return x if start == end else lower.emit("flatten", [x], attrs={"start_dim": start, "end_dim": end})


@lowers("aten::unflatten")
def unflatten(lower: Lowering, a: Arguments) -> str:
    """Split one axis."""
    x, sizes = a.value("self"), [int(n) for n in a["sizes"]]
    dim, rank = axis(int(a["dim"]), lower.rank(x)), lower.rank(x)
    return _reshape(lower, x, [0] * dim + sizes + [copy_axis(i + len(sizes) - 1, i) for i in range(dim + 1, rank)])


@lowers("aten::squeeze")
def squeeze(lower: Lowering, a: Arguments) -> str:
    """Remove axes of extent 1; without dims, those of this very shape (but never the batch)."""
    x, shape = a.value("self"), lower.shape(a.value("self"))
    given = a.get("dim")
    dims = range(1, len(shape)) if given is None else given if isinstance(given, list) else [given]
    gone = {axis(int(d), len(shape)) for d in dims}
    kept = [i for i in range(len(shape)) if i not in gone or shape[i] != 1]
    return _reshape(lower, x, [copy_axis(position, i) for position, i in enumerate(kept)])


@lowers("aten::unsqueeze")
def unsqueeze(lower: Lowering, a: Arguments) -> str:
    """Insert an axis of extent 1."""
    x = a.value("self")
    return add_axis(lower, x, axis(int(a["dim"]), lower.rank(x) + 1))


def _permute(lower: Lowering, x: str, dims: list[int]) -> str:
    return x if dims == sorted(dims) else lower.emit("permute", [x], attrs={"dims": dims})


@lowers("aten::permute")
def permute(lower: Lowering, a: Arguments) -> str:
    """Axes in a new order."""
    x = a.value("self")
    return _permute(lower, x, [axis(int(d), lower.rank(x)) for d in a["dims"]])


@lowers("aten::transpose", "aten::swapaxes", "aten::swapdims")
def transpose(lower: Lowering, a: Arguments) -> str:
    """Two axes exchanged."""
    x = a.value("self")
    dims = list(range(lower.rank(x)))
    i, j = axis(int(a.at(1)), len(dims)), axis(int(a.at(2)), len(dims))
    dims[i], dims[j] = dims[j], dims[i]
    return _permute(lower, x, dims)


@lowers("aten::t", "aten::numpy_T", "aten::mT")
def transpose_last(lower: Lowering, a: Arguments) -> str:
    """The two axes of a matrix exchanged."""
    x = a.value("self")
    if lower.rank(x) != 2:
        raise Unsupported(f"the input is no matrix (shape {lower.shape(x)})")
    return _permute(lower, x, [1, 0])


@lowers("aten::movedim", "aten::moveaxis")
def movedim(lower: Lowering, a: Arguments) -> str:
    """Axes moved to new places."""
    x = a.value("self")
    rank = lower.rank(x)
    source, target = ([axis(d, rank) for d in (v if isinstance(v, list) else [v])] for v in (a.at(1), a.at(2)))
    rest = iter([i for i in range(rank) if i not in source])
    return _permute(lower, x, [source[target.index(i)] if i in target else next(rest) for i in range(rank)])


@lowers("aten::cat", "aten::concat", "aten::concatenate")
def cat(lower: Lowering, a: Arguments) -> str:
    """Join along an axis; constants among the parts enter as values."""
    parts = [part if isinstance(part, str) else lower.constant_value(part) for part in a["tensors"]]
    return lower.emit("concat", parts, attrs={"dim": axis(int(a["dim"]), lower.rank(parts[0]))})


@lowers("aten::stack")
def stack(lower: Lowering, a: Arguments) -> str:
    """Join along a new axis."""
    parts = [part if isinstance(part, str) else lower.constant_value(part) for part in a["tensors"]]
    dim = axis(int(a["dim"]), lower.rank(parts[0]) + 1)
    return lower.emit("concat", [add_axis(lower, part, dim) for part in parts], attrs={"dim": dim})


@lowers("aten::repeat")
def repeat(lower: Lowering, a: Arguments) -> str:
    """Copies side by side, axis by axis."""
    x, counts = a.value("self"), [int(n) for n in a["repeats"]]
    if len(counts) != lower.rank(x):
        raise Unsupported("it adds axes")
    for dim, count in enumerate(counts):
        if count != 1:
            x = lower.emit("concat", [x] * count, attrs={"dim": dim})
    return x


@lowers("aten::expand", "aten::expand_as", "aten::broadcast_to")
def expand(lower: Lowering, a: Arguments) -> str:
    """Broadcast, by adding zeros; element-wise consumers read the value before it instead."""
    return _expand(lower, a.value("self"), lower.output_shape())


def _expand(lower: Lowering, x: str, out: Shape) -> str:
    if out == lower.shape(x):
        return x
    if len(out) == lower.rank(x) and out[0] == lower.shape(x)[0]:
        zeros = lower.constant_value(Constant(torch.zeros((1, *out[1:]))))
        y = lower.emit("add", [x, zeros])
        lower.unexpanded[y] = x
        return y
    raise Unsupported("it expands the batch axis or adds axes")


@lowers("aten::copy")
def copy(lower: Lowering, a: Arguments) -> str:
    """What is left of an in-place copy: the source, in the shape of the target."""
    source, number = a["src"], lower.scalar(a["src"])
    if isinstance(source, str):
        return _expand(lower, source, lower.output_shape())
    if number is not None:
        return lower.emit("clamp", [a.value("self")], attrs={"min": number, "max": number})
    # A whole tensor of constants: its batch axis follows the target's.
    zero = lower.emit("clamp", [a.value("self")], attrs={"min": 0.0, "max": 0.0})
    return lower.emit("add", [zero, lower.constant_value(source)])


def _slice(lower: Lowering, x: str, dim: int, start: int, end: int | None, step: int = 1) -> str:
    extent = lower.shape(x)[dim]
    if end is not None and end >= extent:
        end = None
    if start == 0 and end is None and step == 1:
        return x
    return lower.emit("slice", [x], attrs={"dim": dim, "start": start, "end": end, "step": step})


def _bounds(start: int | None, end: int | None, extent: int) -> tuple[int, int]:
    """Python's meaning of negative and missing bounds."""
    first = 0 if start is None else start + extent if start < 0 else start
    last = extent if end is None else end + extent if end < 0 else end
    return min(max(first, 0), extent), min(max(last, 0), extent)


@lowers("aten::slice")
def slice_(lower: Lowering, a: Arguments) -> str:
    """x[start:end:step] on one axis."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    start, end = _bounds(a["start"], a["end"], lower.shape(x)[dim])
    return _slice(lower, x, dim, start, end, int(a["step"]))


@lowers("aten::narrow")
def narrow(lower: Lowering, a: Arguments) -> str:
    """A range of one axis."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    start, _ = _bounds(int(a["start"]), None, lower.shape(x)[dim])
    return _slice(lower, x, dim, start, start + int(a["length"]))


@lowers("aten::select")
def select(lower: Lowering, a: Arguments) -> str:
    """One index of one axis."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    index = axis(int(a["index"]), lower.shape(x)[dim])
    return drop_axis(lower, _slice(lower, x, dim, index, index + 1), dim)


def _cut(lower: Lowering, x: str, dim: int, sizes: Sequence[int]) -> list[str]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [_slice(lower, x, dim, end - size, end) for end, size in zip(ends, sizes, strict=True)]


@lowers("aten::split", "aten::split_with_sizes")
def split(lower: Lowering, a: Arguments) -> list[str]:
    """Slices of one size (the last may be smaller), or of given sizes."""
    x, sizes = a.value("self"), a.at(1)
    dim = axis(int(a["dim"]), lower.rank(x))
    extent = lower.shape(x)[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)]
    return _cut(lower, x, dim, sizes)


@lowers("aten::chunk")
def chunk(lower: Lowering, a: Arguments) -> list[str]:
    """Nearly equal slices."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    extent = lower.shape(x)[dim]
    size = -(-extent // int(a["chunks"]))
    return _cut(lower, x, dim, [min(size, extent - start) for start in range(0, extent, size)])


@lowers("aten::unbind")
def unbind(lower: Lowering, a: Arguments) -> list[str]:
    """One value per index of an axis."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    return [drop_axis(lower, part, dim) for part in _cut(lower, x, dim, [1] * lower.shape(x)[dim])]


def _with_part(lower: Lowering, x: str, part: Any, dim: int, start: int, end: int) -> str:
    """Return x with start..end of one axis replaced (what an in-place write to a view means)."""
    value = part if isinstance(part, str) else lower.constant_value(part)
    if start == 0 and end == lower.shape(x)[dim]:
        return value
    before = [_slice(lower, x, dim, 0, start)] if start else []
    after = [_slice(lower, x, dim, end, None)] if end < lower.shape(x)[dim] else []
    return lower.emit("concat", [*before, value, *after], attrs={"dim": dim})


@lowers("aten::slice_scatter")
def slice_scatter(lower: Lowering, a: Arguments) -> str:
    """A write to a slice of step 1."""
    x = a.value("self")
    dim = axis(int(a["dim"]), lower.rank(x))
    if a["step"] != 1:
        raise Unsupported("it writes to a slice with a step")
    start, end = _bounds(a["start"], a["end"], lower.shape(x)[dim])
    return _with_part(lower, x, a["src"], dim, start, end)


@lowers("aten::select_scatter")
def select_scatter(lower: Lowering, a: Arguments) -> str:
    """A write to one index of an axis."""
    x, src = a.value("self"), a["src"]
    dim = axis(int(a["dim"]), lower.rank(x))
    index = axis(int(a["index"]), lower.shape(x)[dim])
    part = add_axis(lower, src if isinstance(src, str) else lower.constant_value(src), dim)
    return _with_part(lower, x, part, dim, index, index + 1)


@lowers("aten::pad", "aten::constant_pad_nd")
def pad(lower: Lowering, a: Arguments) -> str:
    """Constant padding (negative amounts cut), or the image mirrored or its edge repeated."""
    mode = a.get("mode", "constant")
    if mode in ("reflect", "replicate"):
        return _edge_pad(lower, a, mode)
    if mode != "constant":
        raise Unsupported(f"padding mode {mode!r} (only 'constant', 'reflect' and 'replicate' are supported)")
    x, amounts, value = a.value("self"), [int(n) for n in a["pad"]], a.get("value")
    rank = lower.rank(x)
    pads = [[0, 0] for _ in range(rank)]
    for i in range(len(amounts) // 2):
        dim, before, after = rank - 1 - i, amounts[2 * i], amounts[2 * i + 1]
        if before < 0 or after < 0:
            x = _slice(lower, x, dim, max(0, -before), lower.shape(x)[dim] + min(0, after))
        pads[dim] = [max(before, 0), max(after, 0)]
    if not any(map(any, pads)):
        return x
    return lower.emit("pad", [x], attrs={"pads": pads, "value": float(value or 0.0)})


def _edge_pad(lower: Lowering, a: Arguments, mode: str) -> str:
    x, amounts = a.value("self"), [int(n) for n in a.at(1)]
    spatial = len(amounts) // 2
    if spatial not in (1, 2) or lower.rank(x) != spatial + 2:
        raise Unsupported(f"padding mode {mode!r} of {len(amounts)} numbers on shape {lower.shape(x)}")
    left, right, top, bottom = amounts if spatial == 2 else [*amounts, 0, 0]
    y = x if spatial == 2 else add_axis(lower, x, 2)
    y = lower.emit("edge_pad2d", [y], attrs={"padding": [top, left, bottom, right], "mode": mode})
    return y if spatial == 2 else drop_axis(lower, y, 2)


@lowers("aten::reflection_pad1d", "aten::reflection_pad2d")
def reflection_pad(lower: Lowering, a: Arguments) -> str:
    """The image mirrored around its edges."""
    return _edge_pad(lower, a, "reflect")


@lowers("aten::replication_pad1d", "aten::replication_pad2d")
def replication_pad(lower: Lowering, a: Arguments) -> str:
    """The image's edges repeated."""
    return _edge_pad(lower, a, "replicate")


def _indices(lower: Lowering, x: str, dim: int, index: Any) -> str:
    tensor = index.tensor if isinstance(index, Constant) else None
    if tensor is None or tensor.dim() != 1 or tensor.dtype not in (torch.int64, torch.int32):
        raise Unsupported("only a list of constant indices of one axis is supported")
    if dim == 0:
        raise Unsupported("it picks pictures of the batch")
    extent = lower.shape(x)[dim]
    return lower.emit(
        "index_select", [x], attrs={"dim": dim, "indices": [axis(int(i), extent) for i in tensor.tolist()]}
    )


@lowers("aten::index_select")
def index_select(lower: Lowering, a: Arguments) -> str:
    """Constant indices of one axis."""
    x = a.value("self")
    return _indices(lower, x, axis(int(a["dim"]), lower.rank(x)), a["index"])


@lowers("aten::index")
def index_(lower: Lowering, a: Arguments) -> str:
    """x[:, [2, 0, 1]]: constant indices of one axis."""
    given = [(dim, index) for dim, index in enumerate(a["indices"]) if index is not None]
    if len(given) != 1:
        raise Unsupported("only a list of constant indices of one axis is supported")
    return _indices(lower, a.value("self"), *given[0])


def _resize(lower: Lowering, a: Arguments, mode: str) -> str:
    x = a.value("input") if a.get("input") is not None else a.value("self")
    scale, size = a.get("scale_factors"), a.get("output_size")
    if scale is None and a.get("scales_h") is not None:
        scale = [a["scales_h"], a["scales_w"]]
    if scale is not None:
        scale, size = [float(s) for s in scale], None
    else:
        size = spread(size, 2)
    return lower.emit(
        "resize",
        [x],
        attrs={"size": size, "scale": scale, "mode": mode, "align_corners": bool(a.get("align_corners", False))},
    )


@lowers("aten::upsample_nearest2d")
def upsample_nearest2d(lower: Lowering, a: Arguments) -> str:
    """Nearest neighbour, to a size or by a scale."""
    return _resize(lower, a, "nearest")


@lowers("aten::upsample_bilinear2d")
def upsample_bilinear2d(lower: Lowering, a: Arguments) -> str:
    """Bilinear, to a size or by a scale."""
    return _resize(lower, a, "bilinear")


@lowers("aten::upsample_nearest1d")
def upsample_nearest1d(lower: Lowering, a: Arguments) -> str:
    """Nearest neighbour on one axis, as an image of one row."""
    x = a.value("input") if a.get("input") is not None else a.value("self")
    scale, size = a.get("scale_factors"), a.get("output_size")
    attrs: dict[str, Any] = {"mode": "nearest", "align_corners": False, "size": None, "scale": None}
    if scale is not None:
        attrs["scale"] = [1.0, float(scale[0])]
    else:
        attrs["size"] = [1, *spread(size, 1)]
    return drop_axis(lower, lower.emit("resize", [add_axis(lower, x, 2)], attrs=attrs), 2)


def _flatten(lower: Lowering, x: str, start: int) -> str:
    return lower.emit("flatten", [x], attrs={"start_dim": start, "end_dim": start + 1})


@lowers("aten::pixel_shuffle")
def pixel_shuffle(lower: Lowering, a: Arguments) -> str:
    """Channels to pixels (Shi et al. 2016)."""
    x, r = a.value("self"), int(a["upscale_factor"])
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    y = _reshape(lower, x, [0, lower.shape(x)[1] // (r * r), r, r, -4, -5])
    return _flatten(lower, _flatten(lower, _permute(lower, y, [0, 1, 4, 2, 5, 3]), 2), 3)


@lowers("aten::pixel_unshuffle")
def pixel_unshuffle(lower: Lowering, a: Arguments) -> str:
    """Pixels to channels."""
    x, r = a.value("self"), int(a["downscale_factor"])
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    y = _reshape(lower, _reshape(lower, x, [0, 0, -1, r, -5]), [0, 0, 0, 0, -1, r])
    return _flatten(lower, _flatten(lower, _permute(lower, y, [0, 1, 3, 5, 2, 4]), 1), 1)


@lowers("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(lower: Lowering, a: Arguments) -> str:
    """Channels of g groups interleaved (Zhang et al. 2017)."""
    x, groups = a.value("self"), int(a["groups"])
    shape = lower.shape(x)
    if len(shape) != 4:
        raise Unsupported(f"only images are supported, got shape {shape}")
    y = _reshape(lower, x, [0, groups, shape[1] // groups, -4, -5])
    return _flatten(lower, _permute(lower, y, [0, 2, 1, 3, 4]), 1)
