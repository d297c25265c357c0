"""Convolutions and products of bits on a GPU: tensors in, kernels launched, tensors out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from fastcnn.methods.lowprecision.gpu import kernels
from fastcnn.methods.lowprecision.gpu.window import Window

WORD = 32
PACKED_AT_ONCE = 128
"""Pixels, or outputs of a weight, of a program that packs: one for each thread of four warps."""
THREADS = 256
UNROLLED = (4, 3, 2, 1)
"""Words that the innermost loop takes at once, the first that divides them."""
INTERPRETED = not isinstance(kernels.convolve, JITFunction)
"""Whether TRITON_INTERPRET=1 was set when triton was first imported: tensors are then on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """How a program divides its work: ``rm`` positions times ``rn`` outputs for each of ``tm`` times ``tn`` threads."""

    rm: int
    rn: int
    tm: int
    tn: int

    @property
    def positions(self) -> int:
        """Of a program."""
        return self.rm * self.tm

    @property
    def outputs(self) -> int:
        """Of a program."""
        return self.rn * self.tn


def choose_tile(positions: int, outputs: int, groups: int, processors: int) -> Tile:
    """The largest tile that is not mostly empty and still gives every processor two programs, or else the smallest.

    Parameters
    ----------
    positions, outputs : int
        Of the whole layer; outputs of one group.
    processors : int
        Streaming multiprocessors.
    """
    side = 16
    tm = min(side, _power(positions))
    tn = min(side, _power(outputs)) if tm == side else THREADS // tm
    tm = THREADS // tn
    # 8 x 8 sums and their operands are what 255 registers hold.
    rm, rn = (min(8, _power(triton.cdiv(size, threads))) for size, threads in ((positions, tm), (outputs, tn)))
    while rm * rn > 1:
        programs = triton.cdiv(positions, rm * tm) * triton.cdiv(outputs, rn * tn) * groups
        if programs >= 2 * processors:
            break
        rm, rn = (rm // 2, rn) if rm >= rn else (rm, rn // 2)
    return Tile(rm=rm, rn=rn, tm=tm, tn=tn)


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()


def pack(x: Tensor, *, groups: int = 1, planes: int = 0) -> Tensor:
    """Words of a map, int32 (planes, N, groups * words, H W): of its signs, or of planes of levels.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Real, or whole numbers 0 ... 2^planes - 1. NaN counts as -1 and as 0.
    groups : int
        Each begins with a word of its own.
    planes : int
        0 for signs.
    """
    n, channels, height, width = x.shape
    wide = triton.cdiv(channels // groups, WORD)
    shape = (max(planes, 1), n, height * width, groups * wide)
    if x.stride(1) == 1:
        words = torch.empty(shape, dtype=torch.int32, device=x.device).transpose(2, 3)
    else:
        words = torch.empty((shape[0], n, shape[3], shape[2]), dtype=torch.int32, device=x.device)
    count = n * height * width
    with on_device(x):
        kernels.pack[(triton.cdiv(count, PACKED_AT_ONCE) * wide, groups)](
            x, words, count, height * width, width, channels // groups, wide, *x.stride(), *words.stride(),
            SIGNS=not planes, PLANES=shape[0], BLOCK=PACKED_AT_ONCE, num_warps=4,
        )  # fmt: skip
    return words


def lay_out(bits: Tensor, *, planes: int, channels: int, taps: int) -> Tensor:
    """Words of a weight, int32 (planes, taps * words, O), from its bits as files have them.

    Parameters
    ----------
    bits : Tensor, shape (planes O, bytes)
        Of rows in the order (channel, tap): see :func:`~fastcnn.methods.lowprecision.binary_ops.pack_planes`.
    channels, taps : int
        Of a group; kh times kw.
    """
    outputs, wide = bits.shape[0] // planes, triton.cdiv(channels, WORD)
    rows = bits.contiguous().view(torch.int32)
    words = torch.empty((planes, taps * wide, outputs), dtype=torch.int32, device=bits.device)
    with on_device(bits):
        kernels.lay_out[(taps * wide, triton.cdiv(outputs, PACKED_AT_ONCE), planes)](
            rows, words, outputs, channels, rows.shape[1], TAPS=taps, BLOCK=PACKED_AT_ONCE, num_warps=4
        )
    return words


def convolve_words(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *,
    size: tuple[int, int],
    channels: int,
    signs: bool,
    planes: Sequence[int],
    window: Window,
    tile: Tile | None = None,
) -> None:
    """Fill y (N, O, H', W') with scale * sums + bias.

    Parameters
    ----------
    x, weight : Tensor
        Words from :func:`pack` and :func:`lay_out`.
    size : tuple of int
        Height and width of the input.
    channels : int
        Of a group.
    signs : bool
        Whether the inputs are signs, or else planes of levels.
    planes : sequence of int
        Factors of the weight's planes.
    """
    n, outputs, out_height, out_width = y.shape
    groups, wide = window.groups, triton.cdiv(channels, WORD)
    positions, per_group = n * out_height * out_width, outputs // groups
    scale, bias = (None if t is None else t.expand(outputs).contiguous() for t in (scale, bias))
    tile = tile or choose_tile(positions, per_group, groups, _processors(x.device))
    grid = (triton.cdiv(positions, tile.positions), triton.cdiv(per_group, tile.outputs), groups)
    with on_device(x):
        kernels.convolve[grid](
            x, weight, y, scale, bias, positions, per_group, channels, wide, *size, out_height * out_width, out_width,
            *window.padding[:2], *window.stride, *window.dilation, *x.stride(), y.stride(0), y.stride(1), y.stride(3),
            KH=window.kernel_size[0], KW=window.kernel_size[1], SIGNS=signs, PLANES=x.shape[0], FACTORS=tuple(planes),
            PADDED=any(window.padding), PAD=window.pad_value if signs else 0,
            UNROLL=next(count for count in UNROLLED if wide % count == 0),
            RM=tile.rm, RN=tile.rn, TM=tile.tm, TN=tile.tn, ALONG_OUTPUTS=y.stride(1) == 1, NATIVE=not INTERPRETED,
            num_warps=max(1, tile.tm * tile.tn // 32), enable_fp_fusion=False,
        )  # fmt: skip


def convolve(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *,
    window: Window,
    planes: Sequence[int],
    levels: int = 0,
    tile: Tile | None = None,
) -> Tensor:
    """Pack, lay out and convolve: what the op ``binary_conv2d`` says, of signs or, if ``levels`` is given, of these."""
    n, channels, height, width = x.shape
    kh, kw = window.kernel_size
    per_group = channels // window.groups
    words = pack(x, groups=window.groups, planes=levels.bit_length())
    weight = lay_out(bits, planes=len(planes), channels=per_group, taps=kh * kw)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    y = torch.empty(
        (n, bits.shape[0] // len(planes), *window.size(height, width)), dtype=x.dtype, device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    convolve_words(
        words, weight, y, scale, bias, size=(height, width), channels=per_group, signs=not levels, planes=planes,
        window=window, tile=tile,
    )  # fmt: skip
    return y


def multiply(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *,
    planes: Sequence[int],
    levels: int = 0,
    tile: Tile | None = None,
) -> Tensor:
    """The same of ``binary_linear``, (N, I) to (N, O): rows are maps of one pixel."""
    maps = x[:, :, None, None]
    words = pack(maps, planes=levels.bit_length())
    weight = lay_out(bits, planes=len(planes), channels=x.shape[1], taps=1)
    y = x.new_empty((x.shape[0], bits.shape[0] // len(planes)))
    convolve_words(
        words, weight, y[:, :, None, None], scale, bias, size=(1, 1), channels=x.shape[1], signs=not levels,
        planes=planes, window=Window(), tile=tile,
    )  # fmt: skip
    return y


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
