"""What convolutions and pools share: kernel, stride, dilation, and padding in ONNX's four spellings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastcnn.engine.graph.schema import MAX_WINDOW, Shape, show
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call


@dataclass(frozen=True, kw_only=True)
class Window:
    """Numbers of one window, one per spatial axis; ``padding`` holds those before, then those after."""

    kernel_size: list[int]
    stride: list[int]
    dilation: list[int]
    padding: list[int]


def spatial_axes(call: Call, shape: Shape) -> int:
    """Number of axes after batch and channels: 1 or 2."""
    spatial = len(shape) - 2
    if spatial not in (1, 2):
        kind = "Conv3d and other 3-d operations are" if spatial == 3 else "it is"
        raise Unsupported(f"{kind} not supported: {call.op} works on 1 or 2 spatial axes, got shape {shape}")
    return spatial


def per_axis(call: Call, name: str, count: int, default: int) -> list[int]:
    """Return one positive number per spatial axis."""
    given = call.integers(name)
    if given is None:
        return [default] * count
    if len(given) != count or not all(1 <= n <= MAX_WINDOW for n in given):
        raise Damaged(f"its {name} must be {count} numbers in 1..{MAX_WINDOW}, got {show(given)}")
    return given


def window(call: Call, x: Shape, kernel: Sequence[int] | None = None) -> Window:
    """Read a convolution's or pool's window; automatic padding is worked out for the input shape ``x``.

    Parameters
    ----------
    kernel : sequence of int, optional
        Of the weight; without it (pools) the attribute ``kernel_shape`` must be there.
    """
    spatial = spatial_axes(call, x)
    if kernel is None and not call.has("kernel_shape"):
        raise Damaged("its kernel_shape is missing")
    kernel_size = per_axis(call, "kernel_shape", spatial, 1) if call.has("kernel_shape") else list(kernel or [])
    if kernel is not None and kernel_size != list(kernel):
        raise Damaged(f"its kernel_shape is {kernel_size}, its weight's kernel {list(kernel)}")
    stride, dilation = per_axis(call, "strides", spatial, 1), per_axis(call, "dilations", spatial, 1)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    return Window(
        kernel_size=kernel_size,
        stride=stride,
        dilation=dilation,
        padding=_padding(call, x[2:], reach, stride),
    )


def explicit_pads(call: Call, count: int) -> list[int]:
    """Return the attribute ``pads``, non-negative."""
    pads = call.integers("pads")
    if pads is None:
        return [0] * (2 * count)
    if len(pads) != 2 * count or not all(0 <= n <= MAX_WINDOW for n in pads):
        raise Damaged(f"its pads must be {2 * count} numbers in 0..{MAX_WINDOW}, got {show(pads)}")
    return pads


def auto_pad(call: Call) -> str:
    """Return the attribute ``auto_pad``, checked."""
    word = call.text("auto_pad", "NOTSET")
    if word not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Damaged(f"its auto_pad is {word!r}: allowed are NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    return word


def _padding(call: Call, extents: Sequence[int], reach: Sequence[int], stride: Sequence[int]) -> list[int]:
    word = auto_pad(call)
    if word == "NOTSET":
        return explicit_pads(call, len(extents))
    if word == "VALID":
        return [0] * (2 * len(extents))
    before, after = [], []
    for extent, r, s in zip(extents, reach, stride, strict=True):
        total = max((-(-extent // s) - 1) * s + r - extent, 0)
        small, large = total // 2, total - total // 2
        before.append(small if word == "SAME_UPPER" else large)
        after.append(large if word == "SAME_UPPER" else small)
    return before + after
