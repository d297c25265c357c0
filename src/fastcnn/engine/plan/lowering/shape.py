"""Ops that move values without computing: reshape, concat, slice, pad, permute, resize, constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers
from fastcnn.engine.plan.slots import Slot, as_nchw


def _strides(dims: Shape) -> list[int]:
    return [math.prod(dims[i + 1 :]) for i in range(len(dims))]


@lowers("reshape", "flatten")
def reshape(low: Lowerer, node: Node) -> None:
    """Nothing moves: maps of one pixel are renamed, flattenings wait for their reader, the rest is plain memory."""
    value = node.inputs[0]
    old, new = low.dims(value), low.dims(node.name)
    if low.is_blocked(value) and 2 <= len(new) <= 4 and old[:2] == new[:2] and math.prod(old[2:]) == 1:
        source = low.blocked(value)
        low.alias(node.name, Slot(source.storage, new, source.nchw))
        return
    if len(old) == 4 and len(new) == 2 and old[0] == new[0] and not low.is_input(value):
        low.alias_flat(node.name, value)
        return
    source = low.plain(value)
    low.alias(node.name, Slot(source.storage, new, as_nchw(new)))


@lowers("permute")
def permute(low: Lowerer, node: Node) -> None:
    source, out = low.plain(node.inputs[0]), low.new_plain(node.name)
    strides = _strides(low.dims(node.inputs[0]))
    attrs = {
        "dims": list(low.dims(node.name)),
        "in_strides": [strides[d] for d in node.attrs["dims"]],
        "out_strides": _strides(low.dims(node.name)),
    }
    low.emit("strided_copy", node.name, [source], out, attrs=attrs, node=node)


@lowers("concat")
def concat(low: Lowerer, node: Node) -> None:
    """Along channels of blocked maps without a copy where the boundaries allow: the parts move into the whole."""
    dim, dims = node.attrs["dim"], low.dims(node.name)
    if dim == 1 and 2 <= len(dims) <= 4 and any(low.is_blocked(v) for v in node.inputs):
        out = low.new_blocked(node.name)
        channel = 0
        moved: set[int] = set()
        copied = False
        for position, value in enumerate(node.inputs):
            part = low.blocked(value)
            whole_blocks = part.nchw[1] % low.target.lanes == 0 or position == len(node.inputs) - 1
            storage = part.storage
            first = id(storage) not in moved
            if not (first and whole_blocks and low.reparent(storage, out.storage, channel)):
                _copy_region(low, node, part, out, to=[channel, 0, 0], size=list(part.nchw[1:]), zero_border=not copied)
                copied = True  # the first copy clears the borders of the whole
            moved.add(id(storage))
            channel += part.nchw[1]
        return
    out = low.new_plain(node.name)
    strides, start = _strides(dims), 0
    for value in node.inputs:
        own = low.dims(value)
        attrs = {
            "dims": list(own),
            "in_strides": _strides(own),
            "out_strides": strides,
            "out_offset": start * strides[dim],
        }
        low.emit("strided_copy", node.name, [low.plain(value)], out, attrs=attrs, node=node)
        start += own[dim]


def _copy_region(
    low: Lowerer,
    node: Node,
    source: Slot,
    out: Slot,
    *,
    start: list[int] | None = None,
    to: list[int] | None = None,
    size: list[int],
    stride: list[int] | None = None,
    zero_border: bool = True,
) -> None:
    attrs = {"from": start or [0, 0, 0], "to": to or [0, 0, 0], "size": size, "stride": stride or [1, 1]}
    low.emit("copy_region", node.name, [source], out, attrs=attrs, node=node, zero_border=zero_border)


@lowers("slice")
def slice_(low: Lowerer, node: Node) -> None:
    value, a = node.inputs[0], node.attrs
    old, new = low.dims(value), low.dims(node.name)
    dim, start, step = a["dim"], min(a["start"], old[a["dim"]]), a["step"]
    if low.is_blocked(value) and len(old) in (3, 4) and dim > 0 and not (dim == 1 and step > 1):
        source = low.blocked(value)
        if dim == 1 and start % low.target.lanes == 0:
            nchw = as_nchw(new)
            low.alias(node.name, Slot(low.view(source.storage, start, nchw), new, nchw))
            return
        begin, stride = [0, 0, 0], [1, 1]
        axis = dim if len(old) == 4 or dim == 1 else dim + 1  # rank 3 maps have one row
        begin[axis - 1] = start
        if axis > 1:
            stride[axis - 2] = step
        _copy_region(
            low, node, source, low.new_blocked(node.name), start=begin, size=list(as_nchw(new)[1:]), stride=stride
        )
        return
    strides = _strides(old)
    attrs = {
        "dims": list(new),
        "in_strides": [s * (step if d == dim else 1) for d, s in enumerate(strides)],
        "out_strides": _strides(new),
        "in_offset": start * strides[dim],
    }
    low.emit("strided_copy", node.name, [low.plain(value)], low.new_plain(node.name), attrs=attrs, node=node)


@lowers("pad")
def pad(low: Lowerer, node: Node) -> None:
    value, pads, fill = node.inputs[0], node.attrs["pads"], float(node.attrs["value"])
    old, new = low.dims(value), low.dims(node.name)
    if low.is_blocked(value) and len(old) in (3, 4) and pads[0] == [0, 0]:
        source, out = low.blocked(value), low.new_blocked(node.name)
        low.emit("fill", f"{node.name}.fill", [], out, attrs={"value": fill})
        before = [p[0] for p in pads[1:]]
        to = before if len(old) == 4 else [before[0], 0, before[1]]
        _copy_region(low, node, source, out, to=to, size=list(source.nchw[1:]), zero_border=False)
        return
    source, out = low.plain(value), low.new_plain(node.name)
    low.emit("fill", f"{node.name}.fill", [], out, attrs={"value": fill})
    strides = _strides(new)
    attrs = {
        "dims": list(old),
        "in_strides": _strides(old),
        "out_strides": strides,
        "out_offset": sum(p[0] * s for p, s in zip(pads, strides, strict=True)),
    }
    low.emit("strided_copy", node.name, [source], out, attrs=attrs, node=node)


@lowers("constant")
def constant(low: Lowerer, node: Node) -> None:
    low.emit("fill", node.name, [], low.new_plain(node.name), weights={"value": low.weight(node, "value")}, node=node)


@lowers("index_select")
def index_select(low: Lowerer, node: Node) -> None:
    """Through plain memory, one run of what lies behind the axis at a time."""
    dims, dim = low.dims(node.inputs[0]), node.attrs["dim"]
    attrs = {"axis": dims[dim], "inner": math.prod(dims[dim + 1 :]), "indices": list(node.attrs["indices"])}
    low.emit("gather", node.name, [low.plain(node.inputs[0])], low.new_plain(node.name), attrs=attrs, node=node)


@lowers("edge_pad2d")
def edge_pad(low: Lowerer, node: Node) -> None:
    """Every new row and column is a copy of one of the image's."""
    top, left, bottom, right = node.attrs["padding"]
    _, _, height, width = low.dims(node.inputs[0])
    mode = {"reflect": "reflect", "replicate": "edge"}[node.attrs["mode"]]
    attrs: dict[str, Any] = {}
    weights = {}
    for letter, extent, before, after in (("y", height, top, bottom), ("x", width, left, right)):
        index = np.pad(np.arange(extent), (before, after), mode=mode).tolist()  # type: ignore[call-overload]
        attrs |= {f"{letter}0": index, f"{letter}1": index}
        weights[f"w{letter}"] = np.zeros(len(index), np.float32)
    source, out = low.blocked(node.inputs[0]), low.new_blocked(node.name)
    low.emit("resize", node.name, [source], out, attrs=attrs, weights=weights, node=node)


@lowers("resize")
def resize(low: Lowerer, node: Node) -> None:
    source = low.blocked(node.inputs[0])
    out = low.new_blocked(node.name)
    attrs: dict[str, Any] = {}
    weights = {}
    for axis, letter in ((0, "y"), (1, "x")):
        scale = node.attrs["scale"]
        first, second, weight = _positions(
            source.nchw[2 + axis], out.nchw[2 + axis], mode=node.attrs["mode"],
            align_corners=bool(node.attrs["align_corners"]), scale=None if scale is None else float(scale[axis]),
        )  # fmt: skip
        attrs |= {f"{letter}0": first, f"{letter}1": second}
        weights[f"w{letter}"] = weight
    low.emit("resize", node.name, [source], out, attrs=attrs, weights=weights, node=node)


def _positions(
    size: int, out: int, *, mode: str, align_corners: bool, scale: float | None
) -> tuple[list[int], list[int], np.ndarray[Any, np.dtype[np.float32]]]:
    """Two source rows and the second one's weight for every output row, by torch's interpolate."""
    index = np.arange(out, dtype=np.float64)
    ratio = 1.0 / scale if scale is not None else size / out
    if out == size:  # torch copies, whatever the scale says
        same = list(range(size))
        return same, same, np.zeros(out, np.float32)
    if mode == "nearest":
        if out == 2 * size:  # torch's shortcut, whatever the scale says
            half = [i // 2 for i in range(out)]
            return half, half, np.zeros(out, np.float32)
        # torch computes this in float32
        source = np.floor(index.astype(np.float32) * np.float32(ratio)).astype(np.int64)
        first = np.minimum(source, size - 1)
        return first.tolist(), first.tolist(), np.zeros(out, np.float32)
    if align_corners:
        position = index * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.maximum((index + 0.5) * ratio - 0.5, 0.0)
    first = np.minimum(np.floor(position).astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    return first.tolist(), second.tolist(), (position - first).astype(np.float32)
