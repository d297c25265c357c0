"""Batch norm in eval mode, norms over each picture, and what has vanished by then."""

from __future__ import annotations

from typing import Any

import torch

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Unsupported, axis, lowers


def _vector(a: Arguments, name: str, channels: int, default: float) -> Constant:
    """A per-channel parameter; a layer without affine parameters gets neutral ones."""
    if a[name] is None:
        return Constant(torch.full((channels,), default))
    return a.constant(name)


def _batch_norm(lower: Lowering, a: Arguments) -> str:
    x = a.value("input")
    if a["running_mean"] is None or a["running_var"] is None:
        raise Unsupported("it normalises by the statistics of the batch (track_running_stats=False)")
    channels = lower.shape(x)[1]
    return lower.emit(
        "batch_norm",
        [x],
        params={
            "weight": _vector(a, "weight", channels, 1.0),
            "bias": _vector(a, "bias", channels, 0.0),
            "running_mean": a.constant("running_mean"),
            "running_var": a.constant("running_var"),
        },
        attrs={"eps": float(a["eps"])},
    )


@lowers("aten::batch_norm")
def batch_norm(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.batch_norm with training=False."""
    if a["training"]:
        raise Unsupported("it normalises by the statistics of the batch (training=True)")
    return _batch_norm(lower, a)


@lowers("aten::_native_batch_norm_legit_no_training")
def batch_norm_functional(lower: Lowering, a: Arguments) -> list[Any]:
    """The same after torch's functionalisation; the saved statistics are not made."""
    return [_batch_norm(lower, a), None, None]


def _optional(a: Arguments, name: str) -> Constant | None:
    return None if a[name] is None else a.constant(name)


def _group_norm(lower: Lowering, a: Arguments, groups: int) -> str:
    params = {"weight": _optional(a, "weight"), "bias": _optional(a, "bias")}
    return lower.emit("group_norm", [a.value("input")], params=params, attrs={"groups": groups, "eps": float(a["eps"])})


@lowers("aten::group_norm")
def group_norm(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.group_norm."""
    return _group_norm(lower, a, int(a["num_groups"]))


@lowers("aten::instance_norm")
def instance_norm(lower: Lowering, a: Arguments) -> str:
    """One group per channel; or, where running statistics are used, batch norm."""
    if not a["use_input_stats"]:
        return _batch_norm(lower, a)
    return _group_norm(lower, a, lower.shape(a.value("input"))[1])


@lowers("aten::layer_norm")
def layer_norm(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.layer_norm."""
    params = {"weight": _optional(a, "weight"), "bias": _optional(a, "bias")}
    attrs = {"axes": len(a["normalized_shape"]), "eps": float(a["eps"])}
    return lower.emit("layer_norm", [a.value("input")], params=params, attrs=attrs)


@lowers("aten::linalg_vector_norm")
def vector_norm(lower: Lowering, a: Arguments) -> str:
    """The Euclidean norm over given axes (torch.nn.functional.normalize asks for it)."""
    if lower.scalar(a["ord"]) != 2.0:
        raise Unsupported("only the norm of order 2 is supported")
    if a["dim"] is None:
        raise Unsupported("a norm over the whole batch")
    x = a.value("self")
    dims = sorted(axis(int(d), lower.rank(x)) for d in a["dim"])
    squares = lower.emit("sum", [lower.emit("mul", [x, x])], attrs={"dims": dims, "keepdim": bool(a["keepdim"])})
    return lower.emit("sqrt", [squares])


@lowers("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout")
def dropout(lower: Lowering, a: Arguments) -> str:
    """Nothing, in eval mode."""
    if a["train"]:
        raise Unsupported("dropout is called with training=True, so the output is random")
    return a.value("input")
