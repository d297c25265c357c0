"""Pools, means and maxima over the image."""

from __future__ import annotations

from typing import Any

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Unsupported, axis, lowers, spread
from fastcnn.engine.capture.shape import add_axis, drop_axis


def _window(lower: Lowering, a: Arguments, x: str, spatial: int) -> dict[str, Any]:
    if lower.rank(x) != spatial + 2:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    kernel = spread(a["kernel_size"], spatial)
    return {
        "kernel_size": kernel,
        "stride": spread(a["stride"], spatial) if a["stride"] else kernel,
        "padding": spread(a["padding"], spatial) * 2,
        "ceil_mode": bool(a["ceil_mode"]),
    }


def _max_pool(lower: Lowering, a: Arguments, spatial: int) -> str:
    x = a.value("self")
    attrs = _window(lower, a, x, spatial) | {"dilation": spread(a["dilation"], spatial)}
    return lower.emit(f"max_pool{spatial}d", [x], attrs=attrs)


@lowers("aten::max_pool2d")
def max_pool2d(lower: Lowering, a: Arguments) -> str:
    """torch.max_pool2d."""
    return _max_pool(lower, a, 2)


@lowers("aten::max_pool1d")
def max_pool1d(lower: Lowering, a: Arguments) -> str:
    """torch.max_pool1d."""
    return _max_pool(lower, a, 1)


@lowers("aten::max_pool2d_with_indices")
def max_pool2d_with_indices(lower: Lowering, a: Arguments) -> list[Any]:
    """The same with indices; a net that reads them gets a torch step for them."""
    return [_max_pool(lower, a, 2), None]


def _avg_pool(lower: Lowering, a: Arguments, spatial: int) -> str:
    x = a.value("self")
    attrs = _window(lower, a, x, spatial) | {
        "count_include_pad": bool(a["count_include_pad"]),
        "divisor_override": a.get("divisor_override"),
    }
    whole = tuple(attrs["kernel_size"]) == lower.shape(x)[2:] and not any(attrs["padding"])
    if lower.whole_pool_as_mean and whole and attrs["divisor_override"] is None:
        return lower.emit("mean", [x], attrs={"dims": list(range(2, spatial + 2)), "keepdim": True})
    return lower.emit(f"avg_pool{spatial}d", [x], attrs=attrs)


@lowers("aten::avg_pool2d")
def avg_pool2d(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.avg_pool2d."""
    return _avg_pool(lower, a, 2)


@lowers("aten::avg_pool1d")
def avg_pool1d(lower: Lowering, a: Arguments) -> str:
    """torch.avg_pool1d."""
    return _avg_pool(lower, a, 1)


def _adaptive(lower: Lowering, a: Arguments, kind: str) -> str:
    x = a.value("self")
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return lower.emit(f"adaptive_{kind}_pool2d", [x], attrs={"output_size": spread(a["output_size"], 2)})


@lowers("aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool2d")
def adaptive_avg_pool2d(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.adaptive_avg_pool2d."""
    return _adaptive(lower, a, "avg")


@lowers("aten::adaptive_max_pool2d")
def adaptive_max_pool2d(lower: Lowering, a: Arguments) -> list[Any]:
    """torch.nn.functional.adaptive_max_pool2d; indices are not made."""
    return [_adaptive(lower, a, "max"), None]


def _adaptive_1d(lower: Lowering, a: Arguments, kind: str) -> str:
    x = a.value("self")
    if lower.rank(x) != 3:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    size = [1, *spread(a["output_size"], 1)]
    y = lower.emit(f"adaptive_{kind}_pool2d", [add_axis(lower, x, 2)], attrs={"output_size": size})
    return drop_axis(lower, y, 2)


@lowers("aten::adaptive_avg_pool1d")
def adaptive_avg_pool1d(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.adaptive_avg_pool1d, on an image of one row."""
    return _adaptive_1d(lower, a, "avg")


@lowers("aten::adaptive_max_pool1d")
def adaptive_max_pool1d(lower: Lowering, a: Arguments) -> list[Any]:
    """torch.nn.functional.adaptive_max_pool1d, on an image of one row; indices are not made."""
    return [_adaptive_1d(lower, a, "max"), None]


def _dims(lower: Lowering, a: Arguments, x: str) -> list[int]:
    given = a.get("dim")
    rank = lower.rank(x)
    if given is None or given == []:
        return list(range(rank))
    dims = given if isinstance(given, list) else [given]
    return sorted(axis(int(d), rank) for d in dims)


@lowers("aten::mean")
def mean(lower: Lowering, a: Arguments) -> str:
    """Mean over some or all axes."""
    x = a.value("self")
    return lower.emit("mean", [x], attrs={"dims": _dims(lower, a, x), "keepdim": bool(a.get("keepdim", False))})


@lowers("aten::sum")
def sum_(lower: Lowering, a: Arguments) -> str:
    """Sum over the channels, as mean times their count (the only count that no image size changes)."""
    x = a.value("self")
    dims = _dims(lower, a, x)
    if dims != [1]:
        raise Unsupported("only a sum over the channels (dim=1) is supported")
    y = lower.emit("mean", [x], attrs={"dims": dims, "keepdim": bool(a.get("keepdim", False))})
    return lower.emit("mul_scalar", [y], attrs={"value": float(lower.shape(x)[1])})


@lowers("aten::amax")
def amax(lower: Lowering, a: Arguments) -> str:
    """Maximum over the whole image."""
    x = a.value("self")
    if lower.rank(x) != 4 or _dims(lower, a, x) != [2, 3]:
        raise Unsupported("only the maximum over the image (dim=(2, 3)) is supported")
    y = lower.emit("adaptive_max_pool2d", [x], attrs={"output_size": [1, 1]})
    return y if a["keepdim"] else drop_axis(lower, drop_axis(lower, y, 3), 2)
