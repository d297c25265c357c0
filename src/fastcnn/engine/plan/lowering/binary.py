"""Binary layers: maps of signs, one bit each, and the convolutions that count differing bits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph import binary
from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.lowering.epilogue import split_epilogue
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers, tiled
from fastcnn.engine.plan.slots import Slot

WORD = 32


def has_bits_kernel(node: Node, shape: Shape, outputs: int) -> bool:
    """Whether a layer runs on bits: inputs and weights are signs, and groups have whole words of inputs and outputs."""
    if not node.attrs["binarize"] or node.attrs["planes"] != [1]:
        return False
    if node.op == "binary_linear":
        return True
    groups = int(node.attrs["groups"])
    return groups == 1 or all(count // groups % WORD == 0 for count in (int(node.attrs["in_channels"]), outputs))


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
    source = bits_of(low, node.inputs[0])
    _emit(low, node, source, geometry, int(a["pad_value"]))


@lowers("binary_linear")
def binary_linear(low: Lowerer, node: Node) -> None:
    """A convolution of one pixel; of a flattened map, one as large as the map."""
    value = node.inputs[0]
    geometry: dict[str, Any] = {
        "kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1,
    }  # fmt: skip
    flat = low.flattened_map(value)
    if flat is None:
        _emit(low, node, bits_of(low, value), geometry, 1)
        return
    source = bits_of(low, flat)
    _, channels, height, width = source.nchw
    as_conv = node.with_(
        op="binary_conv2d",
        attrs={**node.attrs, "in_channels": channels, "kernel_size": [height, width], "groups": 1},
    )
    _emit(low, as_conv, source, geometry | {"kernel": [height, width]}, 1)


def _emit(low: Lowerer, node: Node, source: Slot, geometry: dict[str, Any], pad_value: int) -> None:
    bits, padding = low.raw(node, "bits"), geometry["padding"]
    source.storage.need_border(padding)
    residual, attrs = split_epilogue(node)
    weights: dict[str, Array] = {"weight": words(node, bits)}
    length = binary.fan_in(node)
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
    if any(padding) and pad_value != 1:
        weights["corrections"], cases = _corrections(node, bits, geometry, source, out, pad_value)
        attrs |= cases
    candidates = tiled("sign_conv", _tiles(low.target.isa), out.nchw[2:])
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
