"""Batch, group, instance, layer and local response normalisation."""

from __future__ import annotations

import numpy as np

from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Value, axis, lowers
from fastcnn.engine.onnx_import.walk import Walk


@lowers("BatchNormalization")
def batch_normalization(lower: Walk, call: Call) -> list[Value | None]:
    """Per channel, with stored statistics."""
    x = lower.value(call.given(0, "X"))
    if call.flag("training_mode"):
        raise Unsupported("it is in training mode: export the net in eval mode")
    if not call.flag("spatial", True):
        raise Unsupported("spatial=0 (statistics per pixel) is not supported")
    roles = ("weight", "bias", "running_mean", "running_var")
    params = {role: call.constant(1 + i, role) for i, role in enumerate(roles)}
    y = lower.emit("batch_norm", [x], params=params, attrs={"eps": call.number("epsilon", 1e-5)})
    return [y, *[None] * 4]


@lowers("LRN")
def lrn(lower: Walk, call: Call) -> str:
    """Local response normalisation over the channels (Krizhevsky et al. 2012)."""
    x = lower.value(call.given(0, "X"))
    if not call.has("size"):
        raise Damaged("its size is missing")
    size = call.integer("size", 1)
    if size % 2 == 0:
        raise Unsupported(f"its size is {size}: ONNX places an even window otherwise than the engine; give an odd size")
    return lower.emit(
        "local_response_norm",
        [x],
        attrs={
            "size": size,
            "alpha": call.number("alpha", 1e-4),
            "beta": call.number("beta", 0.75),
            "k": call.number("bias", 1.0),
        },
    )


@lowers("InstanceNormalization")
def instance_normalization(lower: Walk, call: Call) -> str:
    """Every channel of every picture by its own statistics."""
    x = lower.value(call.given(0, "input"))
    params = {"weight": call.constant(1, "scale"), "bias": call.constant(2, "bias")}
    groups = lower.shape(x)[1] if lower.rank(x) > 1 else 1
    return lower.emit("group_norm", [x], params=params, attrs={"groups": groups, "eps": call.number("epsilon", 1e-5)})


@lowers("GroupNormalization")
def group_normalization(lower: Walk, call: Call) -> str:
    """Groups of channels by their own statistics (the version of opset 18, one scale per group, is deprecated)."""
    x, groups = lower.value(call.given(0, "X")), call.integer("num_groups", 0)
    params = {"weight": call.constant(1, "scale"), "bias": call.constant(2, "bias")}
    if groups < 1 or lower.rank(x) < 2 or lower.shape(x)[1] % groups:
        raise Damaged(f"its num_groups is {groups}, for an input of shape {lower.shape(x)}")
    return lower.emit("group_norm", [x], params=params, attrs={"groups": groups, "eps": call.number("epsilon", 1e-5)})


@lowers("LayerNormalization")
def layer_normalization(lower: Walk, call: Call) -> list[Value | None]:
    """The last axes of every entry by their own statistics."""
    x = lower.value(call.given(0, "X"))
    first = axis(call.integer("axis", -1), lower.rank(x))
    if call.integer("stash_type", 1) != 1:
        raise Unsupported("its stash_type is not float32")
    extents = lower.shape(x)[first:]
    params = {"weight": call.constant(1, "scale"), "bias": call.optional_constant(2, "bias")}
    for role, value in params.items():
        if value is None or value.array.shape == extents:
            continue
        try:
            np.broadcast_to(value.array, extents)
        except ValueError:
            raise Damaged(f"its {role} has shape {value.array.shape}, for axes of {extents}") from None
        spread = f"spread {extents}"
        params[role] = lower.derive(value, spread, lambda array: np.array(np.broadcast_to(array, extents)))
    attrs = {"axes": lower.rank(x) - first, "eps": call.number("epsilon", 1e-5)}
    return [lower.emit("layer_norm", [x], params=params, attrs=attrs), None, None]
