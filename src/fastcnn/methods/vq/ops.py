"""``torch.ops.fastcnn.codebook_conv2d`` and ``codebook_linear``: fake kernel, autograd rule, reference path.

The weight is ``codebook[codes]``. Gradients: of the input as for the dense layer; of entry j of the
codebook, the sum of the dense weight gradient over the members of j; entry 0 is the exact zero and gets
none; codes get none. The reference path expands the weight and calls torch's convolution on any device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def expand(codebook: Tensor, codes: Tensor) -> Tensor:
    """Return ``codebook[codes]``, shape of ``codes``, dtype of ``codebook``."""
    return codebook[codes.to(torch.int64)]


def _collect(grad_weight: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Sum a dense weight gradient over the members of each codebook entry; entry 0 gets none."""
    summed = grad_weight.new_zeros(codebook.shape[0]).index_add(
        0, codes.to(torch.int64).flatten(), grad_weight.flatten()
    )
    keep = torch.ones_like(summed)
    keep[0] = 0
    return summed * keep


@torch.library.custom_op("fastcnn::codebook_conv2d", mutates_args=())
def codebook_conv2d(
    x: Tensor,
    codebook: Tensor,
    codes: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Convolve x (N, C, H, W) with the weight ``codebook[codes]``; arguments as in ``F.conv2d``."""
    return F.conv2d(x, expand(codebook, codes), bias, stride, padding, dilation, groups)


@codebook_conv2d.register_fake
def _(
    x: Tensor,
    codebook: Tensor,
    codes: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    weight = codebook.new_empty(codes.shape)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codebook, codes, bias, stride, padding, dilation, groups = inputs
    ctx.save_for_backward(x, codebook, codes)
    ctx.geometry = (list(stride), list(padding), list(dilation), groups)
    ctx.has_bias = bias is not None


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, codebook, codes = ctx.saved_tensors
    stride, padding, dilation, groups = ctx.geometry
    need_x, need_book, _, need_bias, *_ = ctx.needs_input_grad
    need_bias = ctx.has_bias and need_bias
    weight = expand(codebook, codes)
    bias_sizes = [weight.shape[0]] if ctx.has_bias else None
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, bias_sizes, stride, padding, dilation, False, [0, 0], groups, [need_x, need_book, need_bias]
    )
    grad_book = _collect(grad_weight, codebook, codes) if need_book else None
    return (
        grad_x if need_x else None,
        grad_book,
        None,
        grad_bias if need_bias else None,
        None,
        None,
        None,
        None,
    )


codebook_conv2d.register_autograd(_conv_backward, setup_context=_conv_setup)


@torch.library.custom_op("fastcnn::codebook_linear", mutates_args=())
def codebook_linear(x: Tensor, codebook: Tensor, codes: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x (..., I) with the weight ``codebook[codes]`` (O, I), as ``F.linear`` does."""
    return F.linear(x, expand(codebook, codes), bias)


@codebook_linear.register_fake
def _(x: Tensor, codebook: Tensor, codes: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, codebook.new_empty(codes.shape), bias)


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codebook, codes, bias = inputs
    ctx.save_for_backward(x, codebook, codes)
    ctx.has_bias = bias is not None


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, codebook, codes = ctx.saved_tensors
    need_x, need_book, _, need_bias = ctx.needs_input_grad
    rows = grad.reshape(-1, grad.shape[-1])
    grad_x = grad @ expand(codebook, codes) if need_x else None
    grad_book = _collect(rows.t() @ x.reshape(-1, x.shape[-1]), codebook, codes) if need_book else None
    return grad_x, grad_book, None, rows.sum(0) if ctx.has_bias and need_bias else None


codebook_linear.register_autograd(_linear_backward, setup_context=_linear_setup)
