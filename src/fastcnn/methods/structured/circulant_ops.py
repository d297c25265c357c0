"""``torch.ops.fastcnn.circulant_linear``, ``block_circulant_linear``, ``block_circulant_conv2d``: all rules of each.

A circulant matrix C(v)[r, c] = v[(r - c) mod n] multiplies by C(v) x = irfft(rfft(v) * rfft(x)), and its transpose by
irfft(conj(rfft(v)) * rfft(x)). Hence the gradients, for a gradient g of the output:

    of x: irfft(conj(rfft(v)) * rfft(g))        of v: irfft(sum over the batch of rfft(g) * conj(rfft(x)))

Blocks of a matrix share the transforms of the inputs and of the outputs; between them stands, for each frequency, one
product of matrices (linear) or one convolution (conv) with a p x q matrix of complex numbers. Where that takes more
multiply-adds than the dense layer (small blocks, few of them), the dense weight is written out instead; see
:func:`takes_spectra`. Gradients go the same way as the layer does, and can be differentiated again. Halves are
computed in float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def transform_macs(length: int) -> int:
    """Multiply-adds of a real transform, 1.5 n log2 n.

    Half of a complex transform of radix 2, whose n / 2 * log2 n butterflies take 6 each: a + w b takes 4, and a - w b,
    which is 2 a less that, takes 2.
    """
    return round(1.5 * length * math.log2(length))


def product_macs(length: int) -> int:
    """Multiply-adds of the product of two real signals' spectra: 4 at a complex frequency, 1 at a real one."""
    return 2 * length - 2 + length % 2


def count_blocks(size: int, block_size: int) -> int:
    """Blocks that hold ``size`` channels, the last one filled with zeros."""
    return -(-size // block_size)


def spectral_macs(rows: int, columns: int, block_size: int, taps: int = 1, fold: int = 1) -> int:
    """Multiply-adds by way of spectra, per row (linear) or output position (conv), without the weight's own transform.

    Parameters
    ----------
    rows, columns : int
        Output and input channels (of a group).
    block_size : int
    taps : int
        kh * kw.
    fold : int
        Input positions per output position, the product of the strides.
    """
    p, q = count_blocks(rows, block_size), count_blocks(columns, block_size)
    return (q * fold + p) * transform_macs(block_size) + p * q * taps * product_macs(block_size)


def takes_spectra(rows: int, columns: int, block_size: int, taps: int = 1, fold: int = 1) -> bool:
    """Whether spectra take fewer multiply-adds than the dense weight; arguments as in :func:`spectral_macs`."""
    # int(): a compiler may hand over symbols, of which the choice must not depend on a batch.
    rows, columns, block_size = int(rows), int(columns), int(block_size)
    return spectral_macs(rows, columns, block_size, taps, fold) < rows * columns * taps


def expand(vectors: Tensor, rows: int, columns: int, groups: int = 1) -> Tensor:
    """Write out the dense weight.

    Parameters
    ----------
    vectors : Tensor, shape (groups * p, q, b, ...)
    rows : int
        Output channels, of all groups; at most groups * p * b.
    columns : int
        Input channels of a group; at most q * b.
    groups : int

    Returns
    -------
    Tensor, shape (rows, columns, ...)
    """
    blocks, q, b, *taps = vectors.shape
    steps = torch.arange(b, device=vectors.device)
    wide = vectors[:, :, (steps[:, None] - steps) % b].transpose(1, 2)
    wide = wide.reshape(groups, blocks // groups * b, q * b, *taps)
    return wide[:, : rows // groups, :columns].reshape(rows, columns, *taps)


def collect(weight: Tensor, block_size: int, groups: int = 1) -> Tensor:
    """Sum a dense weight, or its gradient, over the wrapped diagonals of each block: the adjoint of :func:`expand`.

    Parameters
    ----------
    weight : Tensor, shape (rows, columns, ...)
    block_size : int
    groups : int

    Returns
    -------
    Tensor, shape (groups * p, q, b, ...)
    """
    rows, columns, *taps = weight.shape
    rows, b = rows // groups, block_size
    p, q = count_blocks(rows, b), count_blocks(columns, b)
    wide = weight.reshape(groups, rows, columns, *taps)
    wide = F.pad(wide, [0, 0] * len(taps) + [0, q * b - columns, 0, p * b - rows])
    blocks = wide.reshape(groups * p, b, q, b, *taps).transpose(1, 2)
    steps = torch.arange(b, device=weight.device)
    # The entries of diagonal k stand in rows (c + k) mod b of columns c.
    return blocks[:, :, (steps[:, None] + steps) % b, steps].sum(3)


def _working(dtype: torch.dtype) -> torch.dtype:
    """What halves are computed in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _plain(x: Tensor) -> Any:
    """Context in which autocast leaves the arithmetic of an op alone."""
    return torch.autocast(x.device.type, enabled=False)


def _blocks(x: Tensor, count: int, length: int) -> Tensor:
    """Last axis, filled with zeros, as ``count`` blocks: (..., n) to (..., count, length)."""
    return F.pad(x, (0, count * length - x.shape[-1])).reshape(*x.shape[:-1], count, length)


def _spectrum(x: Tensor, dim: int = -1) -> Tensor:
    """Real transform along an axis other than the first, which may be empty."""
    # MKL refuses an empty batch: it is given a row of zeros for the time being.
    empty = x.shape[0] == 0
    full = torch.cat((x, x.new_zeros(1, *x.shape[1:]))) if empty else x
    y: Tensor = torch.fft.rfft(full, dim=dim)
    return y[:0] if empty else y


def _signal(x: Tensor, length: int, dim: int = -1) -> Tensor:
    """Inverse of :func:`_spectrum`."""
    empty = x.shape[0] == 0
    full = torch.cat((x, x.new_zeros(1, *x.shape[1:]))) if empty else x
    y: Tensor = torch.fft.irfft(full, n=length, dim=dim)
    return y[:0] if empty else y


# One circulant matrix for each `length` outputs, with signs before it.


@torch.library.custom_op("fastcnn::circulant_linear", mutates_args=())
def circulant_linear(x: Tensor, vectors: Tensor, signs: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    """Multiply x (..., d) by C(v) D for each pair of ``vectors`` (q, d) and ``signs`` (q, d); keep the first outputs.

    ``signs`` are +1 and -1 in any dtype, D = diag(signs); ``bias`` (out_features,) is added last.
    """
    dtype = _working(x.dtype)
    pairs, length = vectors.shape
    with _plain(x):
        flipped = x.reshape(-1, 1, length).to(dtype) * signs.to(dtype)
        y = _signal(_spectrum(flipped) * _spectrum(vectors.to(dtype)), length)
        y = y.reshape(-1, pairs * length)[:, :out_features]
        y = y if bias is None else y + bias.to(dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], out_features).contiguous()


@circulant_linear.register_fake
def _(x: Tensor, vectors: Tensor, signs: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)


def _circulant_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, vectors, signs, bias, _ = inputs
    ctx.save_for_backward(x, vectors, signs)
    ctx.has_bias = bias is not None


def _circulant_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, vectors, signs = ctx.saved_tensors
    need_x, need_vectors, _, need_bias, _ = ctx.needs_input_grad
    pairs, length = vectors.shape
    dtype = _working(x.dtype)
    signs = signs.to(dtype)
    grad_x = grad_vectors = None
    spectrum = _spectrum(_blocks(grad.reshape(-1, grad.shape[-1]).to(dtype), pairs, length))
    if need_x:
        kernel = _spectrum(vectors.to(dtype)).conj()
        grad_x = (_signal(spectrum * kernel, length) * signs).sum(1).to(x.dtype).reshape(x.shape)
    if need_vectors:
        seen = _spectrum(x.reshape(-1, 1, length).to(dtype) * signs).conj()
        # One inverse transform for the whole batch.
        grad_vectors = _signal((spectrum * seen).sum(0), length).to(vectors.dtype)
    return grad_x, grad_vectors, None, _bias_gradient(grad) if ctx.has_bias and need_bias else None, None


def _bias_gradient(grad: Tensor) -> Tensor:
    """Sum over the rows of (..., O)."""
    return grad.reshape(-1, grad.shape[-1]).sum(0)


circulant_linear.register_autograd(_circulant_backward, setup_context=_circulant_setup)


# A matrix of circulant blocks.


def transpose(vectors: Tensor) -> Tensor:
    """Vectors (q, p, b) of the transposed matrix: blocks change places, and each vector runs backwards from entry 0."""
    return vectors.transpose(0, 1).flip(2).roll(1, 2)


def _multiply(x: Tensor, vectors: Tensor, out_features: int) -> Tensor:
    """Multiply rows (N, I) by the matrix: (N, O)."""
    p, q, b = vectors.shape
    if not takes_spectra(out_features, x.shape[1], b):
        return x @ expand(vectors, out_features, x.shape[1]).t()
    seen = _spectrum(_blocks(x, q, b)).permute(2, 0, 1)
    kernel = _spectrum(vectors).permute(2, 1, 0)
    y = _signal((seen @ kernel).permute(1, 2, 0), b)
    return y.reshape(x.shape[0], p * b)[:, :out_features]


def _correlate(grad: Tensor, x: Tensor, b: int) -> Tensor:
    """Gradient (p, q, b) of the vectors, from rows (N, O) and (N, I)."""
    if not takes_spectra(grad.shape[1], x.shape[1], b):
        return collect(grad.t() @ x, b)
    spectrum = _spectrum(_blocks(grad, count_blocks(grad.shape[1], b), b)).permute(2, 1, 0)
    seen = _spectrum(_blocks(x, count_blocks(x.shape[1], b), b)).permute(2, 0, 1).conj()
    return _signal((spectrum @ seen).permute(1, 2, 0), b)


@torch.library.custom_op("fastcnn::block_circulant_linear", mutates_args=())
def block_circulant_linear(x: Tensor, vectors: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    """Multiply x (..., I) by the matrix whose b x b blocks are C(vectors[i, j]), ``vectors`` of shape (p, q, b).

    I is filled with zeros to q * b, the outputs are cut from p * b; ``bias`` (out_features,) is added last.
    """
    dtype = _working(x.dtype)
    with _plain(x):
        y = _multiply(x.reshape(-1, x.shape[-1]).to(dtype), vectors.to(dtype), out_features)
        y = y if bias is None else y + bias.to(dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], out_features).contiguous()


@block_circulant_linear.register_fake
def _(x: Tensor, vectors: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, vectors, bias, _ = inputs
    ctx.save_for_backward(x, vectors)
    ctx.has_bias = bias is not None


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, vectors = ctx.saved_tensors
    need_x, need_vectors, need_bias, _ = ctx.needs_input_grad
    dtype = _working(x.dtype)
    grad_x = grad_vectors = None
    if need_x:
        grad_x = torch.ops.fastcnn.block_circulant_linear(grad, transpose(vectors), None, x.shape[-1])
    if need_vectors:
        rows, seen = (t.reshape(-1, t.shape[-1]).to(dtype) for t in (grad, x))
        grad_vectors = _correlate(rows, seen, vectors.shape[2]).to(vectors.dtype)
    return grad_x, grad_vectors, _bias_gradient(grad) if ctx.has_bias and need_bias else None, None


block_circulant_linear.register_autograd(_linear_backward, setup_context=_linear_setup)


# The same with a kernel of taps in the place of every number. Between the transforms stands one real convolution with
# a group for each frequency: its channels are the real parts of the blocks, then the imaginary parts.


def _to_spectra(x: Tensor, groups: int, count: int, b: int) -> Tensor:
    """Transform along channels: (N, C, H, W) to (N, groups * bins * 2 * count, H, W)."""
    n, channels, height, width = x.shape
    wide = x.reshape(n, groups, channels // groups, height, width)
    wide = F.pad(wide, (0, 0, 0, 0, 0, count * b - channels // groups))
    parts = torch.view_as_real(_spectrum(wide.reshape(n, groups, count, b, height, width), dim=3))
    return parts.permute(0, 1, 3, 6, 2, 4, 5).reshape(n, groups * (b // 2 + 1) * 2 * count, height, width)


def _from_spectra(y: Tensor, groups: int, count: int, b: int, channels: int) -> Tensor:
    """Transform back and cut: (N, groups * bins * 2 * count, H, W) to (N, channels, H, W)."""
    n, _, height, width = y.shape
    parts = y.reshape(n, groups, b // 2 + 1, 2, count, height, width)
    spectrum = torch.complex(parts[:, :, :, 0], parts[:, :, :, 1]).permute(0, 1, 3, 2, 4, 5)
    blocks = _signal(spectrum, b, dim=3).reshape(n, groups, count * b, height, width)
    return blocks[:, :, : channels // groups].reshape(n, channels, height, width)


def _kernel_spectra(vectors: Tensor, groups: int) -> Tensor:
    """Real form [[re, -im], [im, re]] of the weight's spectra: (groups * bins * 2 p, 2 q, kh, kw)."""
    blocks, q, b, kh, kw = vectors.shape
    p, bins = blocks // groups, b // 2 + 1
    spectrum = _spectrum(vectors, dim=2).reshape(groups, p, q, bins, kh, kw).permute(0, 3, 1, 2, 4, 5)
    real, imag = spectrum.real, spectrum.imag
    stacked = torch.cat((torch.cat((real, -imag), 3), torch.cat((imag, real), 3)), 2)
    return stacked.reshape(groups * bins * 2 * p, 2 * q, kh, kw)


def _kernel_gradient(grad: Tensor, groups: int, p: int, q: int, b: int) -> Tensor:
    """Gradient of the vectors from that of the real form: rfft(g) * conj(rfft(x)), transformed back."""
    kh, kw = grad.shape[2:]
    parts = grad.reshape(groups, b // 2 + 1, 2, p, 2, q, kh, kw)
    real = parts[:, :, 0, :, 0] + parts[:, :, 1, :, 1]
    imag = parts[:, :, 1, :, 0] - parts[:, :, 0, :, 1]
    spectrum = torch.complex(real, imag).permute(0, 2, 3, 1, 4, 5)
    return _signal(spectrum, b, dim=3).reshape(groups * p, q, b, kh, kw)


def _conv_takes_spectra(channels: int, vectors: Tensor, out_channels: int, stride: list[int], groups: int) -> bool:
    taps = int(vectors.shape[3]) * int(vectors.shape[4])
    return takes_spectra(
        out_channels // groups, channels // groups, vectors.shape[2], taps, fold=stride[0] * stride[1]
    )  # fmt: skip


def _format_of(x: Tensor) -> torch.memory_format:
    """Channels last if x is, beyond doubt."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@torch.library.custom_op("fastcnn::block_circulant_conv2d", mutates_args=())
def block_circulant_conv2d(
    x: Tensor,
    vectors: Tensor,
    bias: Tensor | None,
    out_channels: int,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Convolve x (N, C, H, W); each tap's matrix has the circulant blocks C(vectors[i, j, :, u, v]).

    ``vectors`` have shape (groups * p, q, b, kh, kw); blocks g * p to (g + 1) * p belong to group g. The channels of
    each group are filled with zeros to q * b, its outputs cut from p * b. The rest is as in ``F.conv2d``.
    """
    dtype = _working(x.dtype)
    channels = x.shape[1]
    blocks, q, b = vectors.shape[:3]
    with _plain(x):
        image, kernel = x.to(dtype), vectors.to(dtype)
        if _conv_takes_spectra(channels, vectors, out_channels, stride, groups):
            seen, weight = _to_spectra(image, groups, q, b), _kernel_spectra(kernel, groups)
            y = F.conv2d(seen, weight, None, stride, padding, dilation, groups * (b // 2 + 1))
            y = _from_spectra(y, groups, blocks // groups, b, out_channels)
        else:
            weight = expand(kernel, out_channels, channels // groups, groups)
            y = F.conv2d(image, weight, None, stride, padding, dilation, groups)
        y = y if bias is None else y + bias.to(dtype)[:, None, None]
        return y.to(x.dtype).contiguous(memory_format=_format_of(x))


@block_circulant_conv2d.register_fake
def _(
    x: Tensor,
    vectors: Tensor,
    bias: Tensor | None,
    out_channels: int,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    size = [
        (x.shape[i + 2] + 2 * padding[i] - dilation[i] * (vectors.shape[i + 3] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    ]
    return torch.empty(
        (x.shape[0], out_channels, *size), dtype=x.dtype, device=x.device, memory_format=_format_of(x)
    )  # fmt: skip


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, vectors, bias, out_channels, stride, padding, dilation, groups = inputs
    ctx.save_for_backward(x, vectors)
    ctx.geometry = (out_channels, list(stride), list(padding), list(dilation), groups)
    ctx.has_bias = bias is not None


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, vectors = ctx.saved_tensors
    out_channels, stride, padding, dilation, groups = ctx.geometry
    need_x, need_vectors, need_bias, *_ = ctx.needs_input_grad
    dtype = _working(x.dtype)
    channels = x.shape[1]
    blocks, q, b = vectors.shape[:3]
    p, mask = blocks // groups, [need_x, need_vectors, False]
    image, kernel, back = x.to(dtype), vectors.to(dtype), grad.to(dtype)
    grad_x = grad_vectors = None
    if _conv_takes_spectra(channels, vectors, out_channels, stride, groups):
        grad_seen, grad_weight, _ = torch.ops.aten.convolution_backward(
            _to_spectra(back, groups, p, b), _to_spectra(image, groups, q, b), _kernel_spectra(kernel, groups), None,
            stride, padding, dilation, False, [0, 0], groups * (b // 2 + 1), mask,
        )  # fmt: skip
        if need_x:
            grad_x = _from_spectra(grad_seen, groups, q, b, channels)
        if need_vectors:
            grad_vectors = _kernel_gradient(grad_weight, groups, p, q, b)
    else:
        weight = expand(kernel, out_channels, channels // groups, groups)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            back, image, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
        )
        if need_vectors:
            grad_vectors = collect(grad_weight, b, groups)
    return (
        None if grad_x is None else grad_x.to(x.dtype),
        None if grad_vectors is None else grad_vectors.to(vectors.dtype),
        grad.sum((0, 2, 3)) if ctx.has_bias and need_bias else None,
        None,
        None,
        None,
        None,
        None,
    )


block_circulant_conv2d.register_autograd(_conv_backward, setup_context=_conv_setup)
