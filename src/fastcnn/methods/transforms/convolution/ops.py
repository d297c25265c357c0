"""``torch.ops.fastcnn.fft_conv2d`` and ``winograd_conv2d``: fake kernels, autograd rules, and the eager path.

Each op has a companion ``..._backward`` that gives both gradients of one call, and whose own gradients are the same
two ops again, because y, grad_x and grad_w are bilinear in pairs of (x, weight, grad):

    d grad_x / d weight applied to v = grad_w(grad, v)        d grad_x / d grad applied to v = y(v, weight)

and so on; hence derivatives of any order. The ops make every spectrum anew. In eager training :func:`convolve` keeps
X and K from the forward pass instead, in an autograd function, because an op cannot hand on tensors without an
output of its own for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.passes import passes_for
from fastcnn.methods.transforms.convolution.settings import Algorithm, ConvSettings
from fastcnn.methods.transforms.convolution.torch_passes import empty_like_format


def _output_size(x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> list[int]:
    """Height and width of the output; works on symbolic sizes too."""
    return [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    ]


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y.add_(bias[:, None, None])


def _settings(
    algorithm: Algorithm,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    size: int,
    memory: int,
) -> ConvSettings:
    return ConvSettings(
        algorithm=algorithm,
        size=size,
        memory=memory,
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        groups=groups,
    )


def _define(algorithm: Algorithm) -> tuple[Any, Any]:
    """Make the op of one algorithm and its backward."""
    name = f"fastcnn::{algorithm}_conv2d"

    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        size: int,
        memory: int,
    ) -> Tensor:
        settings = _settings(algorithm, stride, padding, dilation, groups, size, memory)
        return _add_bias(passes_for(x, weight, settings).forward(x, weight)[0], bias)

    def backward(
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        size: int,
        memory: int,
        need_input: bool,
        need_weight: bool,
    ) -> tuple[Tensor, Tensor]:
        settings = _settings(algorithm, stride, padding, dilation, groups, size, memory)
        grad_x, grad_w = passes_for(x, weight, settings).backward(
            grad, x, weight, (), need_input=need_input, need_weight=need_weight
        )
        return x.new_empty(0) if grad_x is None else grad_x, weight.new_empty(0) if grad_w is None else grad_w

    op = torch.library.custom_op(name, forward, mutates_args=())
    op_backward = torch.library.custom_op(f"{name}_backward", backward, mutates_args=())

    @op.register_fake
    def _(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        size: int,
        memory: int,
    ) -> Tensor:
        shape = (x.shape[0], weight.shape[0], *_output_size(x, weight, stride, padding, dilation))
        return empty_like_format(shape, x)

    @op_backward.register_fake
    def _(
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        size: int,
        memory: int,
        need_input: bool,
        need_weight: bool,
    ) -> tuple[Tensor, Tensor]:
        return (
            empty_like_format(tuple(x.shape), x) if need_input else x.new_empty(0),
            weight.new_empty(weight.shape) if need_weight else weight.new_empty(0),
        )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, *arguments = inputs
        ctx.save_for_backward(x, weight)
        ctx.arguments = arguments
        ctx.has_bias = bias is not None

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        grad_x = grad_w = None
        if need_x or need_w:
            grad_x, grad_w = op_backward(grad, x, weight, *ctx.arguments, need_x, need_w)
        grad_b = grad.sum((0, 2, 3)) if ctx.has_bias and need_b else None
        return grad_x if need_x else None, grad_w if need_w else None, grad_b, *[None] * 6

    op.register_autograd(differentiate, setup_context=setup)

    def setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, x, weight, *arguments, need_input, need_weight = inputs
        ctx.save_for_backward(grad, x, weight)
        ctx.arguments = arguments
        ctx.needed = (need_input, need_weight)

    def differentiate_backward(ctx: Any, toward_x: Tensor | None, toward_w: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, x, weight = ctx.saved_tensors
        need_input, need_weight = ctx.needed
        toward_x = toward_x if need_input else None
        toward_w = toward_w if need_weight else None
        need_g, need_x, need_w = ctx.needs_input_grad[:3]
        of_g = of_x = of_w = None
        if toward_x is not None:
            if need_g:
                of_g = op(toward_x, weight, None, *ctx.arguments)
            if need_w:
                of_w = op_backward(grad, toward_x, weight, *ctx.arguments, False, True)[1]
        if toward_w is not None:
            if need_g:
                part = op(x, toward_w, None, *ctx.arguments)
                of_g = part if of_g is None else of_g + part
            if need_x:
                of_x = op_backward(grad, x, toward_w, *ctx.arguments, True, False)[0]
        return of_g, of_x, of_w, *[None] * 8

    op_backward.register_autograd(differentiate_backward, setup_context=setup_backward)
    return op, op_backward


_OPS: dict[Algorithm, tuple[Any, Any]] = {"fft": _define("fft"), "winograd": _define("winograd")}


def _arguments(settings: ConvSettings) -> tuple[Any, ...]:
    """Settings as the ops take them."""
    lists = (list(settings.stride), list(settings.padding), list(settings.dilation))
    return *lists, settings.groups, settings.size, settings.memory


class _Keeping(torch.autograd.Function):
    """Convolution without bias that keeps its spectra for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: ConvSettings) -> Tensor:
        passes = passes_for(x, weight, settings)
        y, kept = passes.forward(x, weight, for_input=ctx.needs_input_grad[0], for_weight=ctx.needs_input_grad[1])
        ctx.save_for_backward(x, weight, *kept)
        ctx.settings = settings
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        x, weight, *kept = ctx.saved_tensors
        need_x, need_w = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            # Someone will differentiate this once more: only the op knows how.
            grad_x, grad_w = _OPS[ctx.settings.algorithm][1](grad, x, weight, *_arguments(ctx.settings), need_x, need_w)
        else:
            passes = passes_for(x, weight, ctx.settings)  # the same: a graph does not keep native objects alive
            grad_x, grad_w = passes.backward(grad, x, weight, tuple(kept), need_input=need_x, need_weight=need_w)
        return grad_x if need_x else None, grad_w if need_w else None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, settings: ConvSettings, *, keep: bool) -> Tensor:
    """Convolve, differentiably.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    weight : Tensor, shape (F, C / g, kH, kW)
    bias : Tensor, shape (F,), optional
    settings : ConvSettings
    keep : bool
        Keep spectra between the passes of eager training (compiled graphs make them anew).

    Returns
    -------
    Tensor, shape (N, F, Ho, Wo)
    """
    recorded = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if keep and recorded and not is_traced():
        y: Tensor = _Keeping.apply(x, weight, settings)  # type: ignore[no-untyped-call]  # torch's own
        # In place where torch allows it, which spares fresh memory as large as the output.
        return y + bias[:, None, None] if bias is not None and y._is_view() else _add_bias(y, bias)
    y = _OPS[settings.algorithm][0](x, weight, bias, *_arguments(settings))
    return y


def is_traced() -> bool:
    """Whether the call becomes part of a graph (compile, export)."""
    return torch.compiler.is_compiling()
