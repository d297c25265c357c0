"""``torch.ops.fastcnn.int8_conv2d`` and ``int8_linear``: reference and shapes.

An input counts as q - zero, q = clamp(round(x * factor) + zero, 0, 255); sums of whole numbers are taken in float64,
which holds them exactly, and become scale * sum + bias in the input's dtype. There are no gradients: what trains is
:func:`fastcnn.methods.lowprecision.int8_training.trained_layer`.

References
----------
Jacob et al. 2018, arXiv:1712.05877, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def whole_levels(x: Tensor, factor: float, zero: int) -> Tensor:
    """q - zero, float64."""
    return ((x * factor).round_().add_(zero).clamp_(0, 255) - zero).double()


def scaled(sums: Tensor, dtype: torch.dtype, scale: Tensor, bias: Tensor | None) -> Tensor:
    """scale * sums + bias of each output (axis 1), each step in this dtype."""
    shape = (-1, *[1] * (sums.dim() - 2))
    y = sums.to(dtype) * scale.to(dtype).reshape(shape)
    return y if bias is None else y + bias.to(dtype).reshape(shape)


@torch.library.custom_op("fastcnn::int8_conv2d", mutates_args=())
def int8_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    factor: float,
    zero: int,
) -> Tensor:
    """Convolution of levels with weights of 8 bits: scale * sums + bias.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    weight : Tensor, shape (O, C / groups, kh, kw), int8
    scale : Tensor, shape (O,)
        Of a whole number of the weight times one of the input.
    bias : Tensor, shape (O,), optional
    padding : sequence of int
        Rows above and below, columns left and right, of real zeros.
    factor : float
        Levels in a unit of the input.
    zero : int
        Level of 0.

    Raises
    ------
    TypeError
        If the weight is not int8.
    """
    _check(weight)
    q = whole_levels(x, factor, zero)
    sums = F.conv2d(q, weight.double(), None, tuple(stride), tuple(padding), tuple(dilation), groups)
    return scaled(sums, x.dtype, scale, bias)


@int8_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    factor: float,
    zero: int,
) -> Tensor:
    return F.conv2d(x, weight.to(x.dtype), None, tuple(stride), tuple(padding), tuple(dilation), groups)


@torch.library.custom_op("fastcnn::int8_linear", mutates_args=())
def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, factor: float, zero: int) -> Tensor:
    """Fully connected layer of levels with weights of 8 bits, (N, I) to (N, O); see :func:`int8_conv2d`."""
    _check(weight)
    sums = F.linear(whole_levels(x, factor, zero), weight.double())
    return scaled(sums.reshape(-1, len(weight)), x.dtype, scale, bias).reshape(sums.shape)


@int8_linear.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, factor: float, zero: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _check(weight: Tensor) -> None:
    if weight.dtype != torch.int8:
        raise TypeError(f"weight must be int8, got {weight.dtype}")
