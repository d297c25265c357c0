"""Activations and residuals in the words of the native steps."""

from __future__ import annotations

import math
from typing import Any

from fastcnn.engine.graph.graph import Array, Node

_PLAIN = ("silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "exp", "softplus", "mish")


def activation_attrs(op: str, attrs: dict[str, Any]) -> dict[str, Any]:
    """Step attributes of a graph activation."""
    if op == "relu":
        return {"act": "clamp", "act_lo": 0.0, "act_hi": math.inf}
    if op == "clamp":
        low, high = attrs["min"], attrs["max"]
        return {
            "act": "clamp",
            "act_lo": -math.inf if low is None else float(low),
            "act_hi": math.inf if high is None else float(high),
        }
    if op == "gelu":
        return {"act": "gelu" if attrs["approximate"] == "none" else "gelu_tanh"}
    if op == "leaky_relu":
        return {"act": "leaky_relu", "act_alpha": float(attrs["negative_slope"])}
    if op == "elu":
        return {"act": "elu", "act_alpha": float(attrs["alpha"])}
    if op in _PLAIN:
        return {"act": op}
    raise ValueError(f"{op!r} is no activation")


def split_epilogue(node: Node) -> tuple[str | None, dict[str, Any]]:
    """The residual's value name and the step attributes of a node's epilogue."""
    epilogue = node.attrs.get("epilogue")
    if not epilogue:
        return None, {}
    attrs: dict[str, Any] = {}
    if epilogue["activation"] is not None:
        rest = {key: value for key, value in epilogue["activation"].items() if key != "op"}
        attrs |= activation_attrs(epilogue["activation"]["op"], rest)
    if epilogue["residual"] is not None:
        attrs |= {"residual": 1, "act_before_residual": int(epilogue["order"] == "act_then_add")}
    return epilogue["residual"], attrs


def bias_weights(weight: Array, bias: Array | None) -> dict[str, Array]:
    """The weights dictionary of a layer."""
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
