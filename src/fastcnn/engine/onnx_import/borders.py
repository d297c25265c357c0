"""Pad and Resize."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcnn.engine.graph.schema import MAX_WINDOW, show
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, axes, lowers, shortest
from fastcnn.engine.onnx_import.shape import add_axis, cut, drop_axis
from fastcnn.engine.onnx_import.walk import Walk


@lowers("Pad")
def pad(lower: Walk, call: Call) -> str:
    """Constant, mirrored or repeated padding; negative amounts cut."""
    x, mode = lower.value(call.given(0, "data")), call.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise Unsupported(f"its mode is {mode!r}; constant, reflect and edge are supported")
    rank, amounts = lower.rank(x), call.attr_or_input("pads", 1)
    value = call.number("value", 0.0) if call.has("value") else call.scalar_input(2, "value")
    given = call.int_input(3, "axes")
    dims = list(range(rank)) if given is None else axes(given, rank)
    if amounts is None or len(amounts) != 2 * len(dims) or not all(-(1 << 31) < n <= MAX_WINDOW for n in amounts):
        raise Damaged(f"its pads are {show(amounts)}, for axes {dims}")
    pads = [[0, 0] for _ in range(rank)]
    for i, dim in enumerate(dims):
        before, after = amounts[i], amounts[len(dims) + i]
        extent = lower.shape(x)[dim]
        if before < 0 or after < 0:
            x = cut(lower, x, dim, max(0, -before), max(0, extent + min(0, after)))
        pads[dim] = [max(before, 0), max(after, 0)]
    if not any(map(any, pads)):
        return x
    if mode != "constant":
        return _edge_pad(lower, x, pads, "reflect" if mode == "reflect" else "replicate")
    return lower.emit("pad", [x], attrs={"pads": pads, "value": float(value or 0.0)})


def _edge_pad(lower: Walk, x: str, pads: list[list[int]], mode: str) -> str:
    rank = lower.rank(x)
    if rank not in (3, 4) or any(pads[0]) or any(pads[1]):
        raise Unsupported(f"it mirrors or repeats other axes than those of the image: pads {pads}")
    (top, bottom), (left, right) = ([0, 0], pads[2]) if rank == 3 else pads[2:]
    y = add_axis(lower, x, 2) if rank == 3 else x
    y = lower.emit("edge_pad2d", [y], attrs={"padding": [top, left, bottom, right], "mode": mode})
    return drop_axis(lower, y, 2) if rank == 3 else y


@lowers("Resize", "Upsample")
def resize(lower: Walk, call: Call) -> str:
    """Nearest or bilinear resize, where ONNX's rule for the source pixel is the graph's (torch's)."""
    x = lower.value(call.given(0, "X"))
    rank, shape = lower.rank(x), lower.shape(x)
    if rank not in (3, 4):
        raise Unsupported(f"only images (N, C, H, W) and lines (N, C, L) are supported, got shape {shape}")
    scales, sizes = _target(call, shape)
    out = sizes or [math.floor(n * s) for n, s in zip(shape[2:], scales or [], strict=True)]
    if min(out) < 1:
        raise Damaged(f"it leaves {out} of an image of {shape[2:]}")
    narrow = [int(np.float32(n) * np.float32(s)) for n, s in zip(shape[2:], scales or shape[2:], strict=True)]
    if scales is not None and out != narrow:  # the product lies on two sides of a whole number in float32 and float64
        raise Unsupported(f"its scales {scales} fall on the edge between two sizes of an image of {shape[2:]}")
    # Whole multiples are written as a scale, which serves other image sizes too.
    if sizes is not None and all(o % n == 0 for o, n in zip(sizes, shape[2:], strict=True)):
        scales, sizes = [float(o // n) for o, n in zip(sizes, shape[2:], strict=True)], None
    mode, align = _rule(call, shape[2:], out, scales)
    if rank == 3:
        x = add_axis(lower, x, 2)
        scales, sizes = (None if s is None else [1, *s] for s in (scales, sizes))
    attrs = {"size": sizes, "scale": None if scales is None else [float(s) for s in scales], "mode": mode}
    y = lower.emit("resize", [x], attrs={**attrs, "align_corners": align})
    return drop_axis(lower, y, 2) if rank == 3 else y


def _target(call: Call, shape: tuple[int, ...]) -> tuple[list[float] | None, list[int] | None]:
    """Scales or sizes of the spatial axes, exactly one of them."""
    old = call.op == "Upsample" or call.opset < 11
    sizes = None if old else call.int_input(3, "sizes")
    scales: list[float] | None = None
    if call.has("scales"):
        scales = [shortest(s) for s in call.numbers("scales") or []]
    elif sizes is None or not sizes:
        constant = call.optional_constant(1 if old else 2, "scales")
        if constant is None or constant.array.ndim != 1 or constant.array.dtype.kind != "f" or not constant.array.size:
            raise Damaged("it has neither scales nor sizes")
        scales, sizes = [shortest(s) for s in constant.array], None
    given = call.integers("axes")
    dims = list(range(len(shape))) if given is None else axes(given, len(shape))
    values: Sequence[float] = scales if scales is not None else sizes or []
    if len(values) != len(dims) or not all(0 < v < 1 << 31 for v in values):
        raise Damaged(f"its scales or sizes are {show(list(values))}, for axes {dims} of shape {shape}")
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("keep_aspect_ratio_policy other than 'stretch' is not supported")
    whole: list[float] = [1.0] * len(shape) if scales is not None else list(shape)
    for dim, v in zip(dims, values, strict=True):
        whole[dim] = v
    if whole[:2] != ([1.0, 1.0] if scales is not None else list(shape[:2])):
        raise Unsupported("it resizes the batch or the channels")
    return (whole[2:], None) if scales is not None else (None, [int(n) for n in whole[2:]])


def _rule(call: Call, x: Sequence[int], out: Sequence[int], scales: Sequence[float] | None) -> tuple[str, bool]:
    """Return (mode, align_corners) of the graph's resize that does the same; Unsupported if there is none."""
    mode = call.text("mode", "nearest")
    old = call.op == "Upsample" or call.opset < 11
    where = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else call.text("nearest_mode", "round_prefer_floor")
    if call.flag("antialias"):
        raise Unsupported("antialias is not supported")
    ratios = list(scales) if scales is not None else [o / n for o, n in zip(out, x, strict=True)]
    whole = all(float(r).is_integer() for r in ratios)
    if mode == "nearest":
        centred = where in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
        if where == "asymmetric" and (
            nearest == "floor" or (nearest == "round_prefer_floor" and set(ratios) <= {1, 2})
        ):
            return "nearest", False
        if centred and whole and nearest in ("round_prefer_floor", "round_prefer_ceil"):
            return "nearest", False
        raise Unsupported(
            f"nearest with coordinate_transformation_mode={where!r}, nearest_mode={nearest!r} and scales {ratios} is "
            f"not supported: the engine takes pixel floor(i / scale) (asymmetric and floor, half_pixel at whole scales)"
        )
    if mode != "linear":
        raise Unsupported(f"its mode is {mode!r}; nearest and linear are supported")
    exact = all(n * r == o for n, r, o in zip(x, ratios, out, strict=True))
    single = any(o == 1 != n for n, o in zip(x, out, strict=True))
    if where == "align_corners":
        return "bilinear", True
    if where == "half_pixel" or (where == "half_pixel_symmetric" and exact):
        return "bilinear", False
    if where == "pytorch_half_pixel" and not single:
        return "bilinear", False
    raise Unsupported(
        f"linear with coordinate_transformation_mode={where!r} is not supported here: allowed are half_pixel, "
        f"align_corners, and pytorch_half_pixel where no axis shrinks to 1"
    )
