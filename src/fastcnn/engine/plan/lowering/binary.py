"""Binary layers: maps of signs, one bit each, and the convolutions that count differing bits.

Inputs of two levels or four, or weights of four, are planes of signs: a number q of k bits is
(2^k - 1 + sum of 2^j s_j) / 2, with s_j the sign of its bit j. Sums of products are then halves of whole numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph import binary
from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.candidates import byte_tile_candidates
from fastcnn.engine.plan.lowering.epilogue import split_epilogue
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers, tiled
from fastcnn.engine.plan.slots import Slot

WORD = 32
MOST_PLANES = 2


def has_bits_kernel(node: Node, shape: Shape, outputs: int, source: Node | None) -> bool:
    """Whether a layer runs on bits: its inputs and weights are signs, in groups of whole words of channels.

    Or inputs have one or two bits and weights one, or one and two; then in a single group.
    """
    planes, groups = node.attrs["planes"], int(node.attrs.get("groups", 1))
    if not node.attrs["binarize"]:
        bits = _input_bits(source)
        return groups == 1 and planes in ([1], [1, 2]) and 1 <= bits * len(planes) <= MOST_PLANES
    if planes != [1]:
        return False
    return groups == 1 or (int(node.attrs["in_channels"]) // groups % WORD == 0 and outputs // groups % WORD == 0)


def _input_bits(source: Node | None) -> int:
    """Bits of what a node makes, if it rounds to 0 ... 2^k - 1; 0 if it does not, or to more than k = 2."""
    return {1: 1, 3: 2}.get(binary.top_level(source), 0)


@lru_cache
def _tiles(isa: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(t), int(p)) for t, p in _native.bits_tiles(isa))


def words(node: Node, bits: Array) -> Array:
    """A weight as kernels of bits have it: (O, taps * words of a group's channels), viewed as float32."""
    weight = binary.unpack(node, bits)
    if weight.ndim == 2:
        weight = weight[:, :, None, None]
    outputs, channels, kh, kw = weight.shape
    rows = np.zeros((outputs, kh * kw, -(-channels // WORD) * WORD), np.bool_)
    rows[:, :, :channels] = (weight < 0).transpose(0, 2, 3, 1).reshape(outputs, kh * kw, channels)
    packed = np.packbits(rows, axis=2, bitorder="little").view("<u4")
    view: Array = np.ascontiguousarray(packed.reshape(outputs, -1)).view(np.float32)
    return view


def planes_of_words(node: Node, bits: Array) -> Array:
    """Words of every plane, the one with the largest factor first: (O, planes * taps * words)."""
    one = node.with_(attrs={**node.attrs, "planes": [1]})
    rows = len(bits) // len(node.attrs["planes"])
    planes = [words(one, bits[p * rows : (p + 1) * rows]) for p in reversed(range(len(node.attrs["planes"])))]
    return np.concatenate(planes, axis=1)


def planes_of(low: Lowerer, source: Node, value: str) -> Slot:
    """The planes of signs of a value's levels, as ``source`` would round it; made on first need."""
    name = f"{value}.{source.attrs['high']} levels of {source.attrs['factor']}"
    if low.has_bits(name):
        return low.bits(name)
    blocked = low.blocked(value)
    batch, channels, height, width = blocked.nchw
    planes = _input_bits(source)
    if planes > 1:
        channels = planes * -(-channels // WORD) * WORD
    slot = low.new_bits(name, (batch, channels, height, width))
    limits = level_limits(np.float32(source.attrs["factor"]), int(source.attrs["high"]))
    low.emit("signs", f"{source.name}.levels", [blocked], slot, weights={"limits": limits})
    return slot


def level_limits(factor: np.float32, count: int) -> Array:
    """The least float32 that rounds to each of 1 ... count when multiplied by ``factor``, as ``quantize`` does it.

    Found among all floats by bisection, for halves go to even numbers, and products are rounded.
    """
    found = []
    for level in range(1, count + 1):
        # Positive floats are in the order of their bits.
        low, high = np.int32(0), np.float32(np.finfo(np.float32).max).view(np.int32)
        while high - low > 1:
            middle = np.int32((int(low) + int(high)) // 2)
            with np.errstate(over="ignore"):
                reached = np.rint(middle.view(np.float32) * factor) >= level
            low, high = (low, middle) if reached else (middle, high)
        found.append(high.view(np.float32))
    return np.array(found, np.float32)


def bits_of(low: Lowerer, value: str) -> Slot:
    """The signs of a value, made on first need."""
    if not low.has_bits(value):
        source = low.blocked(value)
        slot = low.new_bits(value)
        low.emit("signs", f"{value}.signs", [source], slot)
    return low.bits(value)


@lowers("binary_conv2d")
def binary_conv(low: Lowerer, node: Node) -> None:
    """Signs to signs by thresholds, or to floats by a scale."""
    a = node.attrs
    geometry: dict[str, Any] = {key: list(a[key]) for key in ("stride", "padding", "dilation")}
    geometry |= {"kernel": list(a["kernel_size"]), "groups": int(a["groups"])}
    _emit(low, node, _source(low, node, node.inputs[0]), geometry, int(a["pad_value"]))


@lowers("binary_linear")
def binary_linear(low: Lowerer, node: Node) -> None:
    """A convolution of one pixel; of a flattened map, one as large as the map."""
    value = node.inputs[0]
    geometry: dict[str, Any] = {
        "kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1,
    }  # fmt: skip
    levels = None if node.attrs["binarize"] else low.maker(value)
    read = value if levels is None else levels.inputs[0]
    flat = low.flattened_map(read)
    if flat is None:
        _emit(low, node, _source(low, node, value), geometry, 1)
        return
    channels, height, width = low.dims(flat)[1:]
    as_conv = node.with_(
        op="binary_conv2d",
        attrs={**node.attrs, "in_channels": channels, "kernel_size": [height, width], "groups": 1},
    )
    source = bits_of(low, flat) if levels is None else planes_of(low, levels, flat)
    _emit(low, as_conv, source, geometry | {"kernel": [height, width]}, 1)


def _source(low: Lowerer, node: Node, value: str) -> Slot:
    if node.attrs["binarize"]:
        return bits_of(low, value)
    maker = low.maker(value)
    assert maker is not None
    return planes_of(low, maker, maker.inputs[0])


def reads_planes(node: Node) -> bool:
    """Whether a node makes planes of signs of what its input is rounded from."""
    return node.op in binary.BINARY and not node.attrs["binarize"]


def _emit(low: Lowerer, node: Node, source: Slot, geometry: dict[str, Any], pad_value: int) -> None:
    bits, padding = low.raw(node, "bits"), geometry["padding"]
    source.storage.need_border(padding)
    residual, attrs = split_epilogue(node)
    weights: dict[str, Array] = {"weight": planes_of_words(node, bits)}
    length = binary.reach(node)
    inputs = [source]
    limited = "thresholds" in node.params
    if limited and _only_signs_read(low, node.name):
        out = low.new_bits(node.name)
        limits = length - low.raw(node, "thresholds").astype(np.int64)
        weights["limits"] = np.clip(limits, -(1 << 30), 1 << 30).astype(np.float32)
    elif limited:
        # Sums are whole numbers: half below the threshold is as good.
        out = low.temporary(low.dims(node.name), blocked=True)
        weights["bias"] = np.float32(0.5) - low.raw(node, "thresholds").astype(np.float32)
    else:
        out = low.new_blocked(node.name)
        inputs += [] if residual is None else [low.blocked(residual)]
        weights |= {role: low.weight(node, role) for role in ("scale", "bias") if role in node.params}
    top = 0 if node.attrs["binarize"] else (1 << _input_bits(low.maker(node.inputs[0]))) - 1
    if top:
        # The border stands for zeros, of which all bits are clear; sums are twice as large.
        length *= top
        attrs |= {"in_planes": top.bit_length(), "weight_planes": len(node.attrs["planes"])}
        scale = weights.get("scale", np.ones(len(weights["weight"]), np.float32))
        weights["scale"] = scale * np.float32(0.5)
        corrections, cases = _corrections(node, bits, geometry, source, out, -1)
        whole = binary.unpack(node, bits).reshape(len(scale), -1).astype(np.float64).sum(1)
        weights["corrections"] = (top * (corrections - whole)).astype(np.float32)
        attrs |= cases
    elif any(padding) and pad_value != 1:
        weights["corrections"], cases = _corrections(node, bits, geometry, source, out, pad_value)
        attrs |= cases
    candidates = tiled("sign_conv", _tiles(low.target.isa), out.nchw[2:])
    one_plane = attrs.get("in_planes", 1) * attrs.get("weight_planes", 1) == 1
    if one_plane and geometry["groups"] == 1 and out.nchw[2:] != (1, 1):
        candidates = byte_tile_candidates("sign_amx", low.target, out.nchw, 8 * weights["weight"].nbytes) + candidates
    attrs |= geometry | {"length": length}
    low.emit("sign_conv", node.name, inputs, out, attrs=attrs, weights=weights, candidates=candidates, node=node)
    if limited and not low.has_bits(node.name):
        low.emit("math", f"{node.name}.signs", [out], low.new_blocked(node.name), attrs={"kind": "sign"})


def _only_signs_read(low: Lowerer, value: str) -> bool:
    """Whether binary layers alone read a value, themselves or behind pools and flattenings."""
    if value in low.graph.outputs:
        return False
    return all(
        (user.op in binary.BINARY and user.attrs["binarize"])
        or ((user.op in ("max_pool2d", "sign") or low.flattens(user)) and _only_signs_read(low, user.name))
        for user in low.users(value)
    )


def _corrections(
    node: Node, bits: Array, geometry: dict[str, Any], source: Slot, out: Slot, pad_value: int
) -> tuple[Array, dict[str, Any]]:
    """What a border of +1 adds too much, by cases of rows and columns: (cases, cases, O), and each output's case.

    A case is the set of a kernel's rows (or columns) that lie outside; the first is none.
    """
    weight = binary.unpack(node, bits).astype(np.float64)
    taps = weight.reshape(len(weight), -1, *geometry["kernel"]).sum(1)  # (O, kh, kw)
    cases: list[list[tuple[bool, ...]]] = []
    indices: list[list[int]] = []
    for axis in range(2):
        size, outputs = source.nchw[2 + axis], out.nchw[2 + axis]
        stride, dilation, before = (geometry[key][axis] for key in ("stride", "dilation", "padding"))
        outside = [
            tuple(not 0 <= o * stride - before + k * dilation < size for k in range(geometry["kernel"][axis]))
            for o in range(outputs)
        ]
        known = list(dict.fromkeys([(False,) * geometry["kernel"][axis], *outside]))
        cases.append(known)
        indices.append([known.index(case) for case in outside])
    found = np.empty((len(cases[0]), len(cases[1]), len(weight)))
    for i, rows in enumerate(cases[0]):
        for j, columns in enumerate(cases[1]):
            out_of_map = np.logical_or.outer(np.array(rows), np.array(columns))
            found[i, j] = (1 - pad_value) * (taps * out_of_map).sum((1, 2))
    return found.astype(np.float32), {"row_cases": indices[0], "column_cases": indices[1]}


@lowers("sign")
def sign(low: Lowerer, node: Node) -> None:
    """Where binary layers alone read it, its input's signs; a step of floats else."""
    value = node.inputs[0]
    if low.users(node.name) and _only_signs_read(low, node.name) and 2 <= len(low.dims(value)) <= 4:
        low.same_bits(node.name, bits_of(low, value))
        return
    blocked = low.is_blocked(value)
    source = low.blocked(value) if blocked else low.plain(value)
    out = low.new_blocked(node.name) if blocked else low.new_plain(node.name)
    low.emit("math", node.name, [source], out, attrs={"kind": "sign"}, node=node)
