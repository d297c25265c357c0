"""Convolutions, transposed convolutions and fully connected layers."""

from __future__ import annotations

from typing import Any

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Unsupported, lowers, spread
from fastcnn.engine.capture.shape import add_axis, drop_axis


def _same_padding(kernel: list[int], dilation: list[int]) -> list[int]:
    """Padding that keeps the size at stride 1; the odd one goes after, as in torch."""
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def _forward(lower: Lowering, a: Arguments, spatial: int) -> str:
    x, weight = a.value("input"), a.constant("weight")
    if lower.rank(x) != spatial + 2:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    dilation = spread(a["dilation"], spatial)
    kernel = [int(n) for n in weight.tensor.shape[2:]]
    padding: Any = a["padding"]
    if padding == "same":
        padding = _same_padding(kernel, dilation)
    elif padding == "valid":
        padding = [0] * (2 * spatial)
    else:
        padding = spread(padding, spatial) * 2
    return lower.emit(
        f"conv{spatial}d",
        [x],
        params={"weight": weight, "bias": _bias(a)},
        attrs={
            "stride": spread(a["stride"], spatial),
            "padding": padding,
            "dilation": dilation,
            "groups": int(a["groups"]),
        },
    )


def _bias(a: Arguments) -> Constant | None:
    return None if a["bias"] is None else a.constant("bias")


@lowers("aten::conv2d")
def conv2d(lower: Lowering, a: Arguments) -> str:
    """torch.conv2d, with integer, "same" or "valid" padding."""
    return _forward(lower, a, 2)


@lowers("aten::conv1d")
def conv1d(lower: Lowering, a: Arguments) -> str:
    """torch.conv1d, likewise."""
    return _forward(lower, a, 1)


@lowers("aten::conv_transpose2d")
def conv_transpose2d(lower: Lowering, a: Arguments) -> str:
    """torch.conv_transpose2d."""
    x = a.value("input")
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return lower.emit(
        "conv_transpose2d",
        [x],
        params={"weight": a.constant("weight"), "bias": _bias(a)},
        attrs={key: spread(a[key], 2) for key in ("stride", "padding", "output_padding", "dilation")}
        | {"groups": int(a["groups"])},
    )


@lowers("aten::conv_transpose1d")
def conv_transpose1d(lower: Lowering, a: Arguments) -> str:
    """torch.conv_transpose1d, as the 2-d one on an image of one row."""
    x, weight = a.value("input"), a.constant("weight")
    if lower.rank(x) != 3:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    fill = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    y = lower.emit(
        "conv_transpose2d",
        [add_axis(lower, x, 2)],
        params={"weight": Constant(weight.tensor.unsqueeze(2)), "bias": _bias(a)},
        attrs={key: [one, *spread(a[key], 1)] for key, one in fill.items()} | {"groups": int(a["groups"])},
    )
    return drop_axis(lower, y, 2)


@lowers("aten::linear")
def linear(lower: Lowering, a: Arguments) -> str:
    """torch.nn.functional.linear."""
    weight = a.constant("weight")
    if weight.tensor.dim() != 2:
        raise Unsupported(f"the weight has shape {tuple(weight.tensor.shape)}, not two axes")
    return lower.emit("linear", [a.value("input")], params={"weight": weight, "bias": _bias(a)})


@lowers("aten::addmm")
def addmm(lower: Lowering, a: Arguments) -> str:
    """bias + x @ w with constant w and bias."""
    if a["alpha"] != 1 or a["beta"] != 1 or a.constant("self").tensor.dim() != 1:
        raise Unsupported("only bias + x @ weight is supported")
    weight = Constant(a.constant("mat2").tensor.t())
    return lower.emit("linear", [a.value("mat1")], params={"weight": weight, "bias": a.constant("self")})


@lowers("aten::mm", "aten::matmul", "aten::bmm")
def matmul(lower: Lowering, a: Arguments) -> str:
    """x @ w with a constant matrix w; or matrices of the input, one product for each index of the axes before."""
    x, other = a.at(0), a.at(1)
    if isinstance(x, str) and isinstance(other, str):
        return lower.emit("matmul", [x, other])
    if not isinstance(other, Constant) or other.tensor.dim() != 2:
        raise Unsupported("only products with a constant matrix on the right, or of two values, are supported")
    return lower.emit("linear", [a.value("self")], params={"weight": Constant(other.tensor.t())})


@lowers("aten::conv3d", "aten::conv_transpose3d")
def conv3d(lower: Lowering, a: Arguments) -> str:
    """Volumes are outside the engine."""
    raise Unsupported("three-dimensional convolutions are outside the engine: it runs nets on pictures and lines")
