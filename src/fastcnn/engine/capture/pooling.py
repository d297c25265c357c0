"""Pools, means and maxima over the image."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fastcnn.engine.capture.lowering import Deferred, Lowering
from fastcnn.engine.capture.registry import Arguments, Handler, Unsupported, axis, lowers, spread
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


@lowers("aten::max_unpool2d", deferred=True)
def max_unpool2d(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.max_unpool2d on a max pool's indices: the graph holds the map that was pooled instead."""
    x, indices = a.value("self"), a["indices"]
    pool = _pool_behind(indices.node) if isinstance(indices, Deferred) else None
    if pool is None:
        raise Unsupported("the indices do not come straight from a max pool")
    assert isinstance(pool.target, torch._ops.OpOverload)
    given = Arguments(pool.target._schema, pool.args, pool.kwargs)
    pooled_from = lower.value_of(given["self"])
    if not isinstance(pooled_from, str) or set(spread(given["dilation"], 2)) != {1}:
        raise Unsupported("the pool is dilated, or pools a constant")
    attrs = _window(lower, given, pooled_from, 2)
    return lower.emit("max_unpool2d", [x, pooled_from], attrs=attrs)


def _pool_behind(node: fx.Node) -> fx.Node | None:
    """The max pool whose second result this is."""
    if node.target is not operator.getitem or node.args[1] != 1:
        return None
    pool = node.args[0]
    if not isinstance(pool, fx.Node) or not isinstance(pool.target, torch._ops.OpOverload):
        return None
    return pool if pool.target._schema.name == "aten::max_pool2d_with_indices" else None


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


def _reduction(op: str) -> Handler:
    def handler(lower: Lowering, a: Arguments) -> str:
        x = a.value("self")
        return lower.emit(op, [x], attrs={"dims": _dims(lower, a, x), "keepdim": bool(a.get("keepdim", False))})

    handler.__doc__ = f"{op} over some or all axes."
    return handler


for _op in ("mean", "sum", "amax"):
    lowers(f"aten::{_op}")(_reduction(_op))


@lowers("aten::max")
def max_(lower: Lowering, a: Arguments) -> Any:
    """The largest value, over everything or along one axis; indices are not made."""
    if a.get("other") is not None:
        raise Unsupported("the larger of two tensors, element by element")
    y = _reduction("amax")(lower, a)
    return y if a.get("dim") is None else [y, None]
