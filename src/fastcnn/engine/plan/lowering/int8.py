"""Layers of 8 bits: maps of bytes from layer to layer where all readers want the same levels, floats elsewhere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph.binary import top_level
from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.int8 import INT8
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.candidates import byte_tile_candidates
from fastcnn.engine.plan.lowering.binary import reads_planes
from fastcnn.engine.plan.lowering.epilogue import split_epilogue
from fastcnn.engine.plan.lowering.lowerer import Levels, Lowerer, lowers, tiled
from fastcnn.engine.plan.slots import Slot

GROUP, NARROW = 16, 4
AS_THEY_ARE: Levels = (1.0, 0)
"""Of whole numbers."""


def has_int8_kernel(node: Node, shape: Shape, weight: Shape) -> bool:
    """Whether a layer of 8 bits runs on bytes: one group, or a filter of its own for each of more than 4 channels."""
    if node.op == "int8_linear" or node.attrs["groups"] == 1:
        return True
    return bool(node.attrs["groups"] == weight[0] == shape[1] > NARROW)


@lru_cache
def _tiles(isa: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(t), int(p)) for t, p in _native.int8_tiles(isa))


def levels_of(node: Node) -> Levels:
    """What a layer makes of its input."""
    return float(np.float32(node.attrs["factor"])), int(node.attrs["zero"])


def wanted(low: Lowerer, value: str) -> Levels | None:
    """The levels that all who read a value want of it; None if they differ, or one reads floats."""
    if value in low.graph.outputs:
        return None
    found: set[Levels | None] = set()
    for user in low.users(value):
        if (user.op in INT8 and value not in user.inputs[1:]) or (
            user.op == "quantize" and (user.attrs["low"], user.attrs["high"]) == (0, 255)
        ):
            found.add(levels_of(user))
        elif user.op == "max_pool2d" or low.flattens(user):
            found.add(wanted(low, user.name))
        else:
            found.add(None)
    return found.pop() if len(found) == 1 else None


def bytes_of(low: Lowerer, value: str, levels: Levels) -> Slot:
    """A value's levels, made on first need."""
    known = low.known_bytes(value, levels)
    if known is not None:
        return known
    maker = rounding(low, value, levels)
    if maker is not None:
        return _of_levels(low, maker, maker.inputs[0])
    source = low.plain(value) if low.dims(value)[1] <= NARROW else low.blocked(value)
    slot = low.new_bytes(value, levels)
    _emit_bytes(low, f"{value}.bytes", source, slot, levels)
    return slot


def rounding(low: Lowerer, value: str, levels: Levels) -> Node | None:
    """The node that rounds a value to whole numbers from 0 on, if such are read as they are."""
    maker = low.maker(value)
    return maker if levels == AS_THEY_ARE and top_level(maker) else None


def _of_levels(low: Lowerer, maker: Node, read: str) -> Slot:
    """Bytes of what ``maker`` would round, or of the map that it rounds a flattening of."""
    name = f"{read}.{maker.attrs['high']} levels of {maker.attrs['factor']}"
    known = low.known_bytes(name, AS_THEY_ARE)
    if known is not None:
        return known
    source = low.plain(read) if low.dims(read)[1] <= NARROW else low.blocked(read)
    slot = low.new_bytes(name, AS_THEY_ARE, low.dims(read))
    attrs = {"factor": levels_of(maker)[0], "zero": 0, "border": 0, "high": int(maker.attrs["high"])}
    low.emit("bytes", f"{maker.name}.bytes", [source], slot, attrs=attrs)
    return slot


def _emit_bytes(low: Lowerer, name: str, source: Slot, slot: Slot, levels: Levels, node: Node | None = None) -> None:
    attrs = {"factor": levels[0], "zero": levels[1], "border": levels[1]}
    low.emit("bytes", name, [source], slot, attrs=attrs, node=node)


@lowers("quantize")
def quantize(low: Lowerer, node: Node) -> None:
    """Bytes that stand for floats, which are made if somebody reads them."""
    value, a = node.inputs[0], node.attrs
    dims = low.dims(node.name)
    if _only_levels_read(low, node):
        return
    if (a["low"], a["high"]) == (0, 255) and 2 <= len(dims) <= 4 and _readers_take_bytes(low, node):
        slot = bytes_of(low, value, levels_of(node))
        low.stands_for(node.name, slot, levels_of(node), float(np.float32(a["step"])))
        return
    blocked = low.is_blocked(value)
    source = low.blocked(value) if blocked else low.plain(value)
    out = low.new_blocked(node.name) if blocked else low.new_plain(node.name)
    low.emit("math", node.name, [source], out, attrs={"kind": "quantize", **a}, node=node)


def _only_levels_read(low: Lowerer, node: Node) -> bool:
    """Whether all who read what a node rounds make its levels themselves, in bytes or in planes of signs."""
    users = low.users(node.name)
    if node.name in low.graph.outputs or not users:
        return False
    return all(
        node.name not in user.inputs[1:]
        and (reads_planes(user) or (user.op in INT8 and rounding(low, node.name, levels_of(user)) is not None))
        for user in users
    )


def _readers_take_bytes(low: Lowerer, node: Node) -> bool:
    """Whether some layer of 8 bits reads a value, as its input at these levels or as what is added to its outputs."""
    wide = low.dims(node.name)[1] > NARROW
    return wide and any(
        user.op in INT8 and (node.name in user.inputs[1:] or levels_of(user) == levels_of(node))
        for user in low.users(node.name)
    )


@lowers("int8_conv2d")
def int8_conv(low: Lowerer, node: Node) -> None:
    """Bytes to bytes, or to floats."""
    weight = low.raw(node, "weight")
    a = node.attrs
    geometry = {key: list(a[key]) for key in ("stride", "padding", "dilation")} | {"kernel": list(weight.shape[2:])}
    source = bytes_of(low, node.inputs[0], levels_of(node))
    _emit(low, node, source, weight, geometry)


@lowers("int8_linear")
def int8_linear(low: Lowerer, node: Node) -> None:
    """A convolution of one pixel; of a flattened map, one as large as the map."""
    value, weight = node.inputs[0], low.raw(node, "weight")
    maker = rounding(low, value, levels_of(node))
    flat = low.flattened_map(value if maker is None else maker.inputs[0])
    geometry: dict[str, Any] = {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "kernel": [1, 1]}
    if flat is None:
        _emit(low, node, bytes_of(low, value, levels_of(node)), weight[:, :, None, None], geometry)
        return
    source = bytes_of(low, flat, levels_of(node)) if maker is None else _of_levels(low, maker, flat)
    shape = source.nchw[1:]
    _emit(low, node, source, weight.reshape(-1, *shape), geometry | {"kernel": list(shape[1:])})


def _emit(low: Lowerer, node: Node, source: Slot, weight: Array, geometry: dict[str, Any]) -> None:
    source.storage.need_border(geometry["padding"])
    residual, attrs = split_epilogue(node)
    outputs, zero = len(weight), levels_of(node)[1]
    depthwise = node.attrs.get("groups", 1) > 1
    start = -zero * weight.reshape(outputs, -1).astype(np.int64).sum(1)
    bias = low.weight(node, "bias") if "bias" in node.params else np.zeros(outputs, np.float32)
    weights = {"start": start.astype(np.float32), "scale": low.weight(node, "scale"), "bias": bias}
    weights["weight"] = _depthwise_bytes(weight) if depthwise else _conv_bytes(weight)
    inputs = [source]
    if residual is not None:
        known = low.meaning(residual)
        if known is None:
            inputs.append(low.blocked(residual))
        else:
            slot, (_, other_zero), step = known
            inputs.append(slot)
            attrs |= {"residual_step": step, "residual_zero": other_zero}
    levels = wanted(low, node.name)
    if levels is not None and low.dims(node.name)[1] > NARROW:
        out = low.new_bytes(node.name, levels)
        attrs |= {"out_factor": levels[0], "out_zero": levels[1], "border": levels[1]}
    else:
        out = low.new_blocked(node.name)
    op = "int8_depthwise" if depthwise else "int8_conv"
    candidates = None
    if not depthwise:
        candidates = tiled("int8_conv", _tiles(low.target.isa), out.nchw[2:])
        candidates = byte_tile_candidates("int8_amx", low.target, out.nchw, weight.nbytes) + candidates
    low.emit(op, node.name, inputs, out, attrs=attrs | geometry, weights=weights, candidates=candidates, node=node)


def _conv_bytes(weight: Array) -> Array:
    """(O, taps * words of a pixel), four channels to a word, viewed as float32."""
    outputs, channels, kh, kw = weight.shape
    padded = NARROW if channels <= NARROW else -(-channels // GROUP) * GROUP
    rows = np.zeros((outputs, kh * kw, padded), np.int8)
    rows[:, :, :channels] = weight.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, channels)
    view: Array = rows.reshape(outputs, -1).view(np.float32)
    return view


def _depthwise_bytes(weight: Array) -> Array:
    """(taps, words of a pixel), viewed as float32."""
    channels, _, kh, kw = weight.shape
    rows = np.zeros((kh * kw, -(-channels // GROUP) * GROUP), np.int8)
    rows[:, :channels] = weight.reshape(channels, kh * kw).T
    view: Array = rows.view(np.float32)
    return view
