"""Signs and levels with gradients that go straight through: what the methods of this room are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcnn.methods.lowprecision.binary_ops import sign


def straight(x: Tensor, value: Tensor) -> Tensor:
    """The value, to the last bit, with the gradient of x."""
    y: Tensor = value.detach() + (x - x.detach())
    return y


def polynomial_sign(x: Tensor) -> Tensor:
    """Sign whose gradient is 2 - 2 |x| on [-1, 1] and 0 elsewhere.

    References
    ----------
    Liu et al. 2018 (Bi-Real Net), arXiv:1808.00278, section 3.3.
    """
    y: Tensor = _PolynomialSign.apply(x)  # type: ignore[no-untyped-call]
    return y


class _PolynomialSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        signs: Tensor = sign(x)
        return signs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = (2 - 2 * x.abs()).clamp_(min=0)
        return grad * slope


def stochastic_sign(x: Tensor, generator: torch.Generator) -> Tensor:
    """+1 with probability (x + 1) / 2, clipped to [0, 1]; the gradient is that of a hard tanh.

    References
    ----------
    Courbariaux, Bengio and David 2015, arXiv:1511.00363, section 2.3.
    """
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    drawn = torch.where(noise < (x.detach() + 1) / 2, 1.0, -1.0).to(x.dtype)
    return through_hard_tanh(x, drawn)


def through_hard_tanh(x: Tensor, value: Tensor) -> Tensor:
    """The value, with the gradient of a hard tanh of x: 1 where |x| <= 1, else 0."""
    return straight(x * (x.detach().abs() <= 1), value)


def paper_sign(weight: Tensor, alpha: Tensor) -> Tensor:
    """Sign of a weight that is scaled by alpha = mean |W| afterwards, with the gradient that its paper gives.

    Of alpha sgn(W) that is g (1 / K + alpha 1[|W| <= 1]), the diagonal of the full gradient.

    Parameters
    ----------
    weight : Tensor, shape (O, ...)
    alpha : Tensor, shape (O,)

    References
    ----------
    Rastegari et al. 2016, arXiv:1603.05279, section 3.1.
    """
    y: Tensor = _PaperSign.apply(weight, alpha)  # type: ignore[no-untyped-call]
    return y


class _PaperSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(weight, alpha)
        signs: Tensor = sign(weight)
        return signs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # What comes is alpha g.
        weight, alpha = ctx.saved_tensors
        wide = alpha.reshape(-1, *[1] * (weight.dim() - 1))
        mean = torch.where(wide > 0, 1 / (wide * weight[0].numel()), 0.0)
        return grad * (mean + (weight.abs() <= 1)), None


def quantized_gradient(y: Tensor, bits: int, generators: Any) -> Tensor:
    """The same value, whose gradient is rounded to levels of each sample's largest one, with noise.

    ``2 M (Q(g / 2 M + 1/2 + s / L) - 1/2)`` with M the largest |g| of the sample, L = 2^bits - 1 and s uniform in
    (-1/2, 1/2): unbiased.

    Parameters
    ----------
    bits : int
    generators : callable (int) -> torch.Generator
        Noise of a sample by its place in the batch.

    References
    ----------
    Zhou et al. 2016, arXiv:1606.06160, section 2.5.
    """
    out: Tensor = _QuantizedGradient.apply(y, bits, generators)  # type: ignore[no-untyped-call]
    return out


class _QuantizedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bits: int, generators: Any) -> Tensor:
        ctx.levels, ctx.generators = (1 << bits) - 1, generators
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if grad.numel() == 0:
            return grad, None, None
        noise = torch.empty_like(grad, memory_format=torch.contiguous_format)
        for place, part in enumerate(noise):
            part.uniform_(-0.5, 0.5, generator=ctx.generators(place))
        top = grad.abs().amax(tuple(range(1, grad.dim())), keepdim=True)
        inside = (grad / (2 * top) + 0.5 + noise / ctx.levels).clamp_(0, 1)
        rounded = 2 * top * ((inside * ctx.levels).round_() / ctx.levels - 0.5)
        return torch.where(top > 0, rounded, 0.0), None, None


def ternary(weight: Tensor, zeros: float) -> Tensor:
    """Signs of a weight with exactly ``round(zeros * n)`` of its n entries 0: the smallest, of equal ones the first."""
    count = round(zeros * weight.numel())
    signs: Tensor = sign(weight)
    if count == 0:
        return signs
    order = torch.sort(weight.detach().abs().flatten(), stable=True).indices
    mask = torch.ones(weight.numel(), dtype=weight.dtype, device=weight.device)
    mask[order[:count]] = 0
    return signs * mask.reshape(weight.shape)
