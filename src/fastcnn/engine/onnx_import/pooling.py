"""Pools, means and maxima."""

from __future__ import annotations

from typing import Any

from fastcnn.engine.onnx_import.errors import Unsupported
from fastcnn.engine.onnx_import.registry import Call, Value, axes, lowers
from fastcnn.engine.onnx_import.shape import add_axis, drop_axis
from fastcnn.engine.onnx_import.walk import Walk
from fastcnn.engine.onnx_import.windows import auto_pad, explicit_pads, spatial_axes, window


@lowers("MaxPool")
def max_pool(lower: Walk, call: Call) -> list[Value | None]:
    """Largest of each window; indices are not made."""
    x = lower.value(call.given(0, "X"))
    w = window(call, lower.shape(x))
    attrs = {
        "kernel_size": w.kernel_size,
        "stride": w.stride,
        "padding": w.padding,
        "dilation": w.dilation,
        "ceil_mode": call.flag("ceil_mode"),
    }
    return [lower.emit(f"max_pool{len(w.stride)}d", [x], attrs=attrs), None]


@lowers("AveragePool")
def average_pool(lower: Walk, call: Call) -> str:
    """Mean of each window."""
    x = lower.value(call.given(0, "X"))
    if lower.rank(x) == 5:
        return _mean_in_depth(lower, call, x)
    w = window(call, lower.shape(x))
    if set(w.dilation) != {1}:
        raise Unsupported(f"its dilations are {w.dilation}; an average over spread pixels is not supported")
    attrs: dict[str, Any] = {
        "kernel_size": w.kernel_size,
        "stride": w.stride,
        "padding": w.padding,
        "ceil_mode": call.flag("ceil_mode"),
        "count_include_pad": call.flag("count_include_pad"),
        "divisor_override": None,
    }
    return lower.emit(f"avg_pool{len(w.stride)}d", [x], attrs=attrs)


def _mean_in_depth(lower: Walk, call: Call, x: str) -> str:
    """Mean over a window of depth alone, as a pool over a matrix of depth by pixels."""
    kernel, shape = call.integers("kernel_shape") or [], lower.shape(x)
    trivial = all(set(call.integers(name) or [1]) == {1} for name in ("strides", "dilations"))
    if (
        len(kernel) != 3
        or kernel[1:] != [1, 1]
        or not trivial
        or any(explicit_pads(call, 3))
        or auto_pad(call)
        not in (
            "NOTSET",
            "VALID",
        )
    ):
        spatial_axes(call, shape)  # refuses by name
    flat = lower.emit("reshape", [x], attrs={"shape": [0, 0, 0, -1]})
    attrs: dict[str, Any] = {
        "kernel_size": [kernel[0], 1],
        "stride": [1, 1],
        "padding": [0, 0, 0, 0],
        "ceil_mode": False,
        "count_include_pad": False,
        "divisor_override": None,
    }
    y = lower.emit("avg_pool2d", [flat], attrs=attrs)
    return lower.emit("reshape", [y], attrs={"shape": [0, 0, 0, *shape[3:]]})


@lowers("GlobalAveragePool")
def global_average_pool(lower: Walk, call: Call) -> str:
    """Mean over the image."""
    x = lower.value(call.given(0, "X"))
    if lower.rank(x) == 4:
        return lower.emit("adaptive_avg_pool2d", [x], attrs={"output_size": [1, 1]})
    spatial_axes(call, lower.shape(x))
    return lower.emit("mean", [x], attrs={"dims": [2], "keepdim": True})


@lowers("GlobalMaxPool")
def global_max_pool(lower: Walk, call: Call) -> str:
    """Maximum over the image."""
    x = lower.value(call.given(0, "X"))
    if spatial_axes(call, lower.shape(x)) == 2:
        return lower.emit("adaptive_max_pool2d", [x], attrs={"output_size": [1, 1]})
    y = lower.emit("adaptive_max_pool2d", [add_axis(lower, x, 2)], attrs={"output_size": [1, 1]})
    return drop_axis(lower, y, 2)


def _dims(lower: Walk, call: Call, x: str) -> list[int]:
    dims = call.attr_or_input("axes", 1)
    if not dims:
        return [] if call.flag("noop_with_empty_axes") else list(range(lower.rank(x)))
    return sorted(axes(dims, lower.rank(x)))


@lowers("ReduceMean", "ReduceSum", "ReduceMax")
def reduce(lower: Walk, call: Call) -> str:
    """Mean, sum or maximum over some or all axes."""
    x = lower.value(call.given(0, "data"))
    dims, op = _dims(lower, call, x), {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax"}[call.op]
    return lower.emit(op, [x], attrs={"dims": dims, "keepdim": call.flag("keepdims", True)}) if dims else x
