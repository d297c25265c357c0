"""Local response normalisation as torch exports it: a chain of thirteen operations instead of ONNX's own LRN.

x / (k + alpha * mean of x * x over a window of channels) ^ beta: the squares get an axis before the channels, zeros
around them, an average pool over the window, and lose the axis again. The engine has no pool over three axes and no
power of a fraction; the power therefore stays :class:`Partial` until the division by it completes the norm, and the
nodes before it, which nothing else reads, fall away.
"""

from __future__ import annotations

from typing import Any

from fastcnn.engine.graph.graph import Node
from fastcnn.engine.onnx_import.registry import Constant, Partial
from fastcnn.engine.onnx_import.walk import Walk


def norm_power(lower: Walk, base: str, exponent: float) -> Partial | None:
    """Return the chain up to the power, if that is what ends here."""
    k, alpha = 0.0, 1.0
    maker = lower.maker(base)
    if maker is not None and maker.op == "add_scalar":
        k, base = float(maker.attrs["value"]), maker.inputs[0]
        maker = lower.maker(base)
    if maker is not None and maker.op == "mul_scalar":
        alpha, base = float(maker.attrs["value"]), maker.inputs[0]
    pool = _before_reshapes(lower, base)
    if pool is None or pool.op != "avg_pool2d" or not _is_plain(pool):
        return None
    size = int(pool.attrs["kernel_size"][0])
    pad = _before_reshapes(lower, pool.inputs[0])
    if pad is None or pad.op != "pad" or pad.attrs["value"] != 0.0:
        return None
    pads: list[list[int]] = pad.attrs["pads"]
    lifted = lower.shape(pad.inputs[0])
    squares = _before_reshapes(lower, pad.inputs[0])
    if squares is None or squares.op != "mul" or squares.inputs[0] != squares.inputs[1]:
        return None
    x = squares.inputs[0]
    shape = lower.shape(x)
    fits = len(shape) in (3, 4) and lifted[:3] == (shape[0], 1, shape[1]) and lower.shape(base) == shape
    around = pads[2] == [size // 2, (size - 1) // 2] and not any(any(p) for i, p in enumerate(pads) if i != 2)
    if not (fits and around):
        return None
    return Partial(x, "norm", {"size": size, "alpha": alpha, "beta": exponent, "k": k})


def norm_quotient(lower: Walk, x: str | Constant | Partial | None, power: Partial) -> str | None:
    """Return the norm that a division by the power completes."""
    if power.stage != "norm" or x != power.x:
        return None
    attrs: dict[str, Any] = dict(power.attrs)
    return lower.emit("local_response_norm", [power.x], attrs=attrs)


def _before_reshapes(lower: Walk, value: str) -> Node | None:
    """Return the node that makes a value, reshapes after it left out (they keep every number in its order)."""
    maker = lower.maker(value)
    while maker is not None and maker.op in ("reshape", "flatten"):
        maker = lower.maker(maker.inputs[0])
    return maker


def _is_plain(pool: Node) -> bool:
    """Whether a pool averages down one column of a matrix, step by step, and nothing else."""
    a = pool.attrs
    return bool(
        a["kernel_size"][1] == 1
        and a["stride"] == [1, 1]
        and not any(a["padding"])
        and not a["ceil_mode"]
        and a["divisor_override"] is None
    )
