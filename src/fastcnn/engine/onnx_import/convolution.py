"""Conv and ConvTranspose."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.engine.graph.schema import MAX_WINDOW
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, lowers
from fastcnn.engine.onnx_import.shape import add_axis, cut, drop_axis
from fastcnn.engine.onnx_import.walk import Walk
from fastcnn.engine.onnx_import.windows import auto_pad, explicit_pads, per_axis, spatial_axes, window


def _weight(call: Call, spatial: int) -> Constant:
    weight = call.constant(1, "weight")
    if weight.array.ndim != spatial + 2 or not weight.array.size:
        raise Damaged(f"its weight has shape {weight.array.shape}; {spatial + 2} axes like the input's are needed")
    return weight


def _groups(call: Call) -> int:
    groups = call.integer("group", 1)
    if not 1 <= groups <= MAX_WINDOW:
        raise Damaged(f"its group is {groups}: allowed is 1..{MAX_WINDOW}")
    return groups


@lowers("Conv")
def conv(lower: Walk, call: Call) -> str:
    """Convolution over 1 or 2 axes, any padding."""
    x = lower.value(call.given(0, "X"))
    spatial = spatial_axes(call, lower.shape(x))
    weight = _weight(call, spatial)
    w = window(call, lower.shape(x), weight.array.shape[2:])
    return lower.emit(
        f"conv{spatial}d",
        [x],
        params={"weight": weight, "bias": call.optional_constant(2, "bias")},
        attrs={"stride": w.stride, "padding": w.padding, "dilation": w.dilation, "groups": _groups(call)},
    )


@lowers("ConvTranspose")
def conv_transpose(lower: Walk, call: Call) -> str:
    """Transposed convolution; in 1-d, as an image of one row.

    The graph pads alike before and after. What ONNX takes off more before than after comes back as output padding; what
    it takes off more after is cut.
    """
    x = lower.value(call.given(0, "X"))
    spatial = spatial_axes(call, lower.shape(x))
    weight = _weight(call, spatial)
    kernel = [int(n) for n in weight.array.shape[2:]]
    if call.integers("kernel_shape") not in (None, kernel):
        raise Damaged(f"its kernel_shape is {call.integers('kernel_shape')}, its weight's kernel {kernel}")
    stride, dilation = per_axis(call, "strides", spatial, 1), per_axis(call, "dilations", spatial, 1)
    extra = call.integers("output_padding") or [0] * spatial
    if len(extra) != spatial or not all(0 <= n <= MAX_WINDOW for n in extra):
        raise Damaged(f"its output_padding must be {spatial} numbers in 0..{MAX_WINDOW}, got {extra}")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    full = [s * (n - 1) + r for s, n, r in zip(stride, lower.shape(x)[2:], reach, strict=True)]
    pads = _pads(call, lower.shape(x)[2:], [f + e for f, e in zip(full, extra, strict=True)], stride)
    padding, out_padding, ends = [], [], []
    for i in range(spatial):
        before, after = pads[i], pads[spatial + i] - extra[i]
        # full - before - after is the output's extent; the graph's rule gives full - 2 * padding + output_padding.
        padding.append(before)
        out_padding.append(max(before - after, 0))
        ends.append(full[i] - before - after if after > before else None)
        if out_padding[i] and out_padding[i] >= max(stride[i], dilation[i]):
            raise Unsupported(
                f"its pads {pads} with output_padding {extra} leave {out_padding[i]} more after than before; less than "
                f"the stride or dilation is supported"
            )
    one = [1] if spatial == 1 else []
    zero = [0] if spatial == 1 else []
    attrs: dict[str, Any] = {
        "stride": one + stride,
        "padding": zero + padding,
        "output_padding": zero + out_padding,
        "dilation": one + dilation,
        "groups": _groups(call),
    }
    if spatial == 1:
        x = add_axis(lower, x, 2)
        weight = lower.derive(weight, "row", lambda array: np.expand_dims(array, 2))
    y = lower.emit(
        "conv_transpose2d", [x], params={"weight": weight, "bias": call.optional_constant(2, "bias")}, attrs=attrs
    )
    if spatial == 1:
        y = drop_axis(lower, y, 2)
    for i, end in enumerate(ends):
        if end is not None:
            y = cut(lower, y, 2 + i, 0, end)
    return y


def _pads(call: Call, extents: tuple[int, ...], full: list[int], stride: list[int]) -> list[int]:
    """Padding taken off before, then after."""
    word, wanted = auto_pad(call), call.integers("output_shape")
    if wanted is None:
        if word == "NOTSET":
            return explicit_pads(call, len(full))
        if word == "VALID":
            return [0] * (2 * len(full))
        wanted = [n * s for n, s in zip(extents, stride, strict=True)]
    if len(wanted) == len(full) + 2:
        wanted = wanted[2:]
    if len(wanted) != len(full) or min(wanted) < 1:
        raise Damaged(f"its output_shape is {wanted}, for {len(full)} spatial axes")
    total = [max(f - n, 0) for f, n in zip(full, wanted, strict=True)]
    if any(f < n for f, n in zip(full, wanted, strict=True)):
        raise Unsupported(f"its output_shape {wanted} is larger than the {full} that stride and kernel give")
    if any(t % 2 for t in total) and word not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(
            f"its output_shape {wanted} leaves an odd padding {total} and auto_pad does not say on which side"
        )
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if word == "SAME_UPPER" else large + small
