"""``torch.ops.fastcnn.sign``, ``quantize``, ``binary_conv2d``, ``binary_linear``: reference, shapes and gradients.

The sign of 0, and of -0, is +1 here, unlike ``torch.sign``, which would make a third value of it. Its gradient is that
of a hard tanh, 1 where |x| <= 1 and 0 elsewhere (the straight-through estimator). The two layers are what is left of
trained ones: weights are planes of signs, in bits as the file has them, and there are no gradients. In training a layer
multiplies whole numbers as floats; sums of up to 2^24 are exact in float32, so that both say the same. On a GPU, bits
are counted where :mod:`fastcnn.methods.lowprecision.gpu` serves the layer.

References
----------
Hubara, Courbariaux, Soudry, El-Yaniv and Bengio 2016, arXiv:1602.02830, section 1.3, for the estimator; Rastegari et
al. 2016, arXiv:1603.05279, for the scaled sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.lowprecision.gpu.rule import take_note, why_reference
from fastcnn.methods.lowprecision.gpu.window import Window


@torch.library.custom_op("fastcnn::sign", mutates_args=())
def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; NaN is -1."""
    one = torch.ones((), dtype=x.dtype, device=x.device)
    return torch.where(x >= 0, one, -one)


@sign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _sign_setup(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _sign_backward(ctx: Any, grad: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    passed: Tensor = grad * (x.abs() <= 1)
    return passed


sign.register_autograd(_sign_backward, setup_context=_sign_setup)


@torch.library.custom_op("fastcnn::quantize", mutates_args=())
def quantize(x: Tensor, factor: float, step: float, zero: int, low: int, high: int) -> Tensor:
    """(clamp(round(x * factor) + zero, low, high) - zero) * step, halves to even; a line for gradients inside."""
    return ((x * factor).round_().add_(zero).clamp_(low, high) - zero) * step


@quantize.register_fake
def _(x: Tensor, factor: float, step: float, zero: int, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


def _quantize_setup(ctx: Any, inputs: tuple[Tensor, float, float, int, int, int], output: Tensor) -> None:
    x, ctx.factor, step, ctx.zero, ctx.low, ctx.high = inputs
    ctx.slope = ctx.factor * step
    ctx.save_for_backward(x)


def _quantize_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    level = x * ctx.factor + ctx.zero
    passed = (level >= ctx.low) & (level <= ctx.high)
    return grad * passed * ctx.slope, None, None, None, None, None


quantize.register_autograd(_quantize_backward, setup_context=_quantize_setup)


def pack_planes(weight: Tensor, planes: Sequence[int]) -> Tensor:
    """Bits (m O, bytes), plane by plane, of a weight that is a sum of signs times factors.

    Parameters
    ----------
    weight : Tensor, shape (O, ...)
        Whole numbers.
    planes : sequence of int
        Factors, rising: of 1, 2 and 4 the odd numbers from -7 to 7 are made, of 1 and 1 -2, 0 and 2.

    Raises
    ------
    ValueError
        If a weight is no such sum.
    """
    rest, parts = weight.detach(), []
    for factor in reversed(planes):
        parts.append(pack_signs(rest))
        rest = rest - factor * torch.where(rest < 0, -1.0, 1.0)
    if bool((rest != 0).any()):
        raise ValueError(f"a weight is no sum of signs times {list(planes)}")
    return torch.cat(parts[::-1])


def pack_signs(weight: Tensor) -> Tensor:
    """Bits (O, bytes) of a weight's signs, uint8: 1 for -1, lowest bit first, rows filled up to 64-bit words.

    Parameters
    ----------
    weight : Tensor, shape (O, ...)

    Raises
    ------
    ValueError
        If a weight is NaN.
    """
    if bool(torch.isnan(weight).any()):
        raise ValueError("a weight is NaN, which has no sign")
    negative = (weight < 0).flatten(1)
    wide = -(-negative.shape[1] // 64) * 64
    bits = F.pad(negative.to(torch.uint8), (0, wide - negative.shape[1])).reshape(len(weight), -1, 8)
    places = torch.tensor([1 << k for k in range(8)], dtype=torch.uint8, device=weight.device)
    return (bits * places).sum(2, dtype=torch.uint8)


def unpack_signs(bits: Tensor, count: int) -> Tensor:
    """The signs (O, count) that bits stand for, float32."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    found = (bits[:, :, None] >> places) & 1
    return 1.0 - 2.0 * found.flatten(1)[:, :count].to(torch.float32)


def unpack_planes(bits: Tensor, planes: Sequence[int], count: int) -> Tensor:
    """The weight (O, count) that bits stand for, whole numbers as float32; ValueError if they do not fit."""
    _check_bits(bits, planes, count)
    signs = unpack_signs(bits, count).reshape(len(planes), -1, count)
    factors = torch.tensor(planes, dtype=torch.float32, device=bits.device)
    return (signs * factors[:, None, None]).sum(0)


def _check_bits(bits: Tensor, planes: Sequence[int], count: int) -> None:
    wide = -(-count // 64) * 8
    if len(planes) == 0 or (bits.dim() == 2 and bits.shape[0] % len(planes)):
        raise ValueError(f"bits of shape {tuple(bits.shape)} are not {len(planes)} planes of a row for each output")
    if bits.dtype != torch.uint8 or bits.dim() != 2 or bits.shape[1] != wide:
        raise ValueError(
            f"bits must be uint8 of shape (rows, {wide}) for {count} weights of an output, got {bits.dtype} of "
            f"{tuple(bits.shape)}: make them by pack_signs"
        )


def _scaled(sums: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *[1] * (sums.dim() - 2))
    if scale is not None:
        sums = sums * scale.reshape(shape)
    return sums if bias is None else sums + bias.reshape(shape)


def _sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    top, left = padding[0], padding[1]
    return (top, left, padding[2], padding[3]) if len(padding) == 4 else (top, left, top, left)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]


@torch.library.custom_op("fastcnn::binary_conv2d", mutates_args=())
def binary_conv2d(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    planes: Sequence[int],
    binarize: bool,
    pad_value: int,
    levels: int = 0,
) -> Tensor:
    """Convolution with weights of few bits: scale * sums + bias.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    bits : Tensor, shape (m O, bytes)
        From :func:`pack_planes` of a weight (O, C / groups, kh, kw).
    scale, bias : Tensor, shape (O,), optional
    padding : sequence of int
        Rows above and below, columns left and right; or top, left, bottom, right.
    planes : sequence of int
        Factors of the m planes; [1] for weights of +-1.
    binarize : bool
        Whether inputs count by their signs.
    pad_value : {-1, 0, 1}
        What stands around a map of signs; around others it is zero.
    levels : int
        A promise that inputs are whole numbers from 0 to it; 0 where there is none. Kernels of bits rely on it.

    Raises
    ------
    ValueError
        If the bits do not fit channels and kernel, or pad_value is another number.
    """
    channels = x.shape[1] // groups
    kh, kw = kernel_size
    _check_bits(bits, planes, channels * kh * kw)
    if pad_value not in (-1, 0, 1):
        raise ValueError(f"pad_value={pad_value} is not a sign or zero: give -1, 0 or 1")
    top, left, bottom, right = _sides(padding)
    window = Window(
        kernel_size=(kh, kw), stride=_pair(stride), padding=(top, left, bottom, right), dilation=_pair(dilation),
        groups=groups, pad_value=pad_value,
    )  # fmt: skip
    outputs = bits.shape[0] // len(planes)
    why = why_reference(
        x, bits, scale, bias, channels=channels, products=channels * kh * kw, planes=planes, binarize=binarize,
        levels=levels, elements=window.elements(x, outputs),
    )  # fmt: skip
    take_note("binary_conv2d", x, why)
    if not why:
        from fastcnn.methods.lowprecision.gpu.products import convolve

        return convolve(x, bits, scale, bias, window=window, planes=planes, levels=0 if binarize else levels)
    weight = unpack_planes(bits, planes, channels * kh * kw).reshape(-1, channels, kh, kw).to(x.dtype)
    if binarize:
        x = sign(x)
    around = float(pad_value) if binarize else 0.0
    x = F.pad(x, (left, right, top, bottom), value=around)
    return _scaled(F.conv2d(x, weight, None, tuple(stride), 0, tuple(dilation), groups), scale, bias)


@binary_conv2d.register_fake
def _(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    planes: Sequence[int],
    binarize: bool,
    pad_value: int,
    levels: int = 0,
) -> Tensor:
    weight = x.new_empty(bits.shape[0] // len(planes), x.shape[1] // groups, *kernel_size)
    top, left, bottom, right = _sides(padding)
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, None, tuple(stride), 0, tuple(dilation), groups)


@torch.library.custom_op("fastcnn::binary_linear", mutates_args=())
def binary_linear(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    planes: Sequence[int],
    binarize: bool,
    levels: int = 0,
) -> Tensor:
    """Fully connected layer with weights of few bits, (N, I) to (N, O): scale * sums + bias.

    Parameters
    ----------
    x, bits, scale, bias, planes, binarize, levels
        As in :func:`binary_conv2d`, for x of shape (N, I).

    Raises
    ------
    ValueError
        If the bits do not fit the inputs.
    """
    products = x.shape[1]
    _check_bits(bits, planes, products)
    why = why_reference(
        x, bits, scale, bias, channels=products, products=products, planes=planes, binarize=binarize, levels=levels,
        elements=x.shape[0] * (bits.shape[0] // len(planes)) if x.dim() == 2 else 0,
    )  # fmt: skip
    take_note("binary_linear", x, why)
    if not why:
        from fastcnn.methods.lowprecision.gpu.products import multiply

        return multiply(x, bits, scale, bias, planes=planes, levels=0 if binarize else levels)
    weight = unpack_planes(bits, planes, products).to(x.dtype)
    return _scaled(F.linear(sign(x) if binarize else x, weight), scale, bias)


@binary_linear.register_fake
def _(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    planes: Sequence[int],
    binarize: bool,
    levels: int = 0,
) -> Tensor:
    return x.new_empty(x.shape[0], bits.shape[0] // len(planes))
