"""Batch norm in eval mode, and what has vanished by then."""

from __future__ import annotations

from typing import Any

import torch

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Unsupported, lowers


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


@lowers("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout")
def dropout(lower: Lowering, a: Arguments) -> str:
    """Nothing, in eval mode."""
    if a["train"]:
        raise Unsupported("dropout is called with training=True, so the output is random")
    return a.value("input")
