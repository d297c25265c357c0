"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.plan.candidates import (
    AmxLayer,
    amx_candidates,
    amx_likely,
    bf16_candidates,
    direct_candidates,
)
from fastcnn.engine.plan.lowering.epilogue import bias_weights, split_epilogue
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers
from fastcnn.engine.plan.slots import Candidate, Slot
from fastcnn.engine.plan.tiles import depthwise_candidates, tile_candidates


@lowers("conv2d", "conv1d")
def conv(low: Lowerer, node: Node) -> None:
    """Depthwise kernel for one filter per channel; else direct, tiled by Winograd or FFT, or AMX, among candidates."""
    weight, a = low.weight(node, "weight"), node.attrs
    stride, padding, dilation = list(a["stride"]), list(a["padding"]), list(a["dilation"])
    if node.op == "conv1d":
        weight = weight[:, :, None, :]
        stride, dilation, padding = [1, *stride], [1, *dilation], [0, padding[0], 0, padding[1]]
    value, groups = node.inputs[0], int(a["groups"])
    residual, attrs = split_epilogue(node)
    attrs |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    channels, filters = low.dims(value)[1], weight.shape[0]
    lanes = low.target.lanes
    note = f"weights expanded from {a['expanded_from']}" if a.get("expanded_from") else ""

    if groups == channels == filters and channels > 1:
        source, out = low.blocked(value), low.new_blocked(node.name)
        source.storage.need_border(padding)
        candidates = _split_rows(low)
        if stride == [1, 1] and not low.exact:
            fast = depthwise_candidates(
                low.target, batch=out.nchw[0], channels=channels, kernel=weight.shape[2:4],
                dilation=(dilation[0], dilation[1]), out_map=out.nchw[2:],
            )  # fmt: skip
            large = min(weight.shape[2:4]) >= _FFT_FROM
            candidates = fast + candidates if large else candidates + fast
        low.emit(
            candidates[0].op, node.name, _with_residual(low, source, residual), out, attrs=attrs,
            weights=bias_weights(weight, low.param(node, "bias")), node=node, note=note, candidates=candidates,
        )  # fmt: skip
        return

    # Few channels waste most of a block; a planar map of them is read one float at a time instead.
    wasted = -(-channels // lanes) * lanes / channels
    planar = groups == 1 and wasted > 1.3 and len(low.dims(value)) == 4 and not low.is_blocked(value)
    source = low.planar(value, padding) if planar else low.blocked(value)
    source.storage.need_border(padding)
    inputs = _with_residual(low, source, residual)
    out = low.new_blocked(node.name)
    batch, _, out_h, out_w = out.nchw
    candidates = direct_candidates(
        low.target, batch=batch, in_channels=channels, out_channels=filters, kernel=weight.shape[2:4],
        stride=(stride[0], stride[1]), out_map=(out_h, out_w), exact=low.exact,
    )  # fmt: skip
    if low.relaxed and not planar:
        rounded = bf16_candidates(
            low.target, candidates, channels=channels, kernel=weight.shape[2:4], stride=(stride[0], stride[1]),
            out_map=(out_h, out_w),
        )  # fmt: skip
        candidates = rounded + candidates
    tiled = not planar and groups == 1
    if tiled and not low.exact and channels >= lanes and filters >= lanes:
        fast = tile_candidates(
            low.target, batch=batch, in_channels=channels, out_channels=filters, kernel=weight.shape[2:4],
            stride=(stride[0], stride[1]), dilation=(dilation[0], dilation[1]), out_map=(out_h, out_w),
            relaxed=low.relaxed,
        )  # fmt: skip
        few = stride != [1, 1] and min(weight.shape[2:4]) < _PHASES_FROM
        first = 0 if few else 2 if low.relaxed else len(fast)
        candidates = fast[:first] + candidates[:2] + fast[first:] + candidates[2:]
    if not low.exact and groups == 1:
        layer = AmxLayer(
            batch=batch, in_channels=channels, out_channels=filters, kernel=weight.shape[2:4],
            stride=(stride[0], stride[1]), dilation=(dilation[0], dilation[1]), out_map=(out_h, out_w), planar=planar,
        )  # fmt: skip
        tiles = amx_candidates(layer, low.target, relaxed=low.relaxed)
        likely = amx_likely(layer, low.target)
        candidates = tiles + candidates if likely else candidates[:2] + tiles + candidates[2:]
    if groups > 1 and not _whole_blocks(groups, channels, filters, lanes):
        note = "groups narrower than a vector: run dense, zeros between them"
    low.emit(
        candidates[0].op, node.name, inputs, out, attrs=attrs,
        weights=bias_weights(weight, low.param(node, "bias")), candidates=candidates, node=node, note=note,
    )  # fmt: skip


_PHASES_FROM = 5
"""Kernels with a stride from that many rows and columns: tiles of their phases are the best guess."""
_FFT_FROM = 11
"""Depthwise kernels from that many rows and columns: the FFT is the best guess."""


def _whole_blocks(groups: int, channels: int, filters: int, lanes: int) -> bool:
    return (channels // groups) % lanes == 0 and (filters // groups) % lanes == 0


@lowers("conv_transpose2d")
def conv_transpose(low: Lowerer, node: Node) -> None:
    """One direct convolution per output phase."""
    weight, a = low.weight(node, "weight"), node.attrs
    value = node.inputs[0]
    residual, attrs = split_epilogue(node)
    source = low.blocked(value)
    out = low.new_blocked(node.name)
    batch, channels, in_h, in_w = source.nchw
    _, filters, out_h, out_w = out.nchw
    border = []
    for axis, (size, out_size) in enumerate(((in_h, out_h), (in_w, out_w))):
        # Input rows that taps of output row o reach: (o + padding - k * dilation) / stride, where that divides.
        reach = (weight.shape[2 + axis] - 1) * a["dilation"][axis]
        before = max(0, -((a["padding"][axis] - reach) // a["stride"][axis]))
        after = max(0, (out_size - 1 + a["padding"][axis]) // a["stride"][axis] - (size - 1))
        border.append((before, after))
    source.storage.need_border([border[0][0], border[1][0], border[0][1], border[1][1]])
    attrs |= {
        "stride": list(a["stride"]), "padding": list(a["padding"]), "dilation": list(a["dilation"]),
        "groups": int(a["groups"]),
    }  # fmt: skip
    candidates = [
        Candidate(c.label, "transposed", c.attrs)
        for c in direct_candidates(
            low.target, batch=batch, in_channels=channels, out_channels=filters, kernel=weight.shape[2:4],
            stride=(1, 1), out_map=(max(1, out_h // a["stride"][0]), max(1, out_w // a["stride"][1])), exact=low.exact,
        )
        if c.exact
    ]  # fmt: skip
    low.emit(
        "transposed", node.name, _with_residual(low, source, residual), out, attrs=attrs,
        weights=bias_weights(weight, low.param(node, "bias")), candidates=candidates, node=node,
    )  # fmt: skip


@lowers("linear")
def linear(low: Lowerer, node: Node) -> None:
    """A 1x1 convolution on maps of one pixel; after a flatten, a convolution as large as the map."""
    weight, value = low.weight(node, "weight"), node.inputs[0]
    bias = low.param(node, "bias")
    residual, attrs = split_epilogue(node)
    note = f"weights expanded from {node.attrs['expanded_from']}" if node.attrs.get("expanded_from") else ""
    rank = len(low.dims(value))
    if rank < 2:
        raise GraphError(f"node {node.name!r}: linear needs a batch axis")
    flat = low.flattened_map(value) if rank == 2 else None
    if flat is not None:
        source = low.blocked(flat)
        weight = weight.reshape(weight.shape[0], *source.nchw[1:])
    elif rank == 2:
        source, weight = low.blocked(value), weight[:, :, None, None]
    else:
        source, weight = _as_rows(low, low.plain(value)), weight[:, :, None, None]
    if rank == 2:
        out = low.new_blocked(node.name)
        inputs = _with_residual(low, source, residual)
    else:
        rows = source.dims[0]
        out = low.temporary((rows, weight.shape[0]), blocked=True)
        inputs = [source] if residual is None else [source, _as_rows(low, low.plain(residual))]
    _emit_linear(low, node, inputs, out, weight, bias, attrs, note)
    if rank > 2:
        result = low.new_plain(node.name)
        flat_view = Slot(result.storage, out.dims, out.nchw)
        low.emit_relayout(node.name, out, flat_view)


def _emit_linear(
    low: Lowerer,
    node: Node,
    inputs: list[Slot],
    out: Slot,
    weight: Array,
    bias: Array | None,
    attrs: dict[str, object],
    note: str,
) -> None:
    candidates = direct_candidates(
        low.target, batch=out.nchw[0], in_channels=weight.shape[1], out_channels=weight.shape[0],
        kernel=weight.shape[2:4], stride=(1, 1), out_map=(1, 1), exact=low.exact,
    )  # fmt: skip
    low.emit(
        "direct", node.name, inputs, out,
        attrs=attrs | {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1},
        weights=bias_weights(weight, bias), candidates=candidates, node=node, note=note,
    )  # fmt: skip


def _as_rows(low: Lowerer, plain: Slot) -> Slot:
    """(..., I) as (rows, I), blocked."""
    width = plain.dims[-1]
    rows = 1
    for extent in plain.dims[:-1]:
        rows *= extent
    view = Slot(plain.storage, (rows, width), (rows, width, 1, 1))
    out = low.temporary((rows, width), blocked=True)
    low.emit_relayout("rows", view, out)
    return out


def _with_residual(low: Lowerer, source: Slot, residual: str | None) -> list[Slot]:
    return [source] if residual is None else [source, low.blocked(residual)]


def _split_rows(low: Lowerer) -> list[Candidate]:
    if low.target.threads == 1:
        return [Candidate("depthwise:rows", "depthwise", {"split": "rows"})]
    return [Candidate(f"depthwise:{split}", "depthwise", {"split": split}) for split in ("rows", "planes")]
