"""Batch and local response normalisation."""

from __future__ import annotations

from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Value, lowers
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
