"""What one call of the engine is asked to do, in plain integers and words."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch

from fastcnn.methods.contract import check_count
from fastcnn.methods.transforms.convolution.lengths import TILES

Algorithm = Literal["fft", "winograd"]

AUTO = -1
"""``ConvSettings.size``: the engine chooses the tile."""
FULL = 0
"""``ConvSettings.size`` of FFT: one tile holds the whole padded map."""

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What layers may hold; halves are computed in float32."""

MAX_WINOGRAD_TAPS = 7
"""Longest kernel served by Winograd: beyond it F(m, r) has no useful accuracy."""
MAX_WINOGRAD_TILE = {"float32": 10, "float64": 14}
"""Longest tile t = m + r - 1 per arithmetic: the error grows exponentially with t, and points run out at 14."""


@dataclass(frozen=True, kw_only=True)
class ConvSettings:
    """Arguments of a convolution and the algorithm that carries it out.

    Parameters
    ----------
    algorithm : {"fft", "winograd"}
    size : int
        FFT: ``AUTO``, ``FULL`` or the tile's length. Winograd: ``AUTO`` or m, the outputs per tile and axis.
    memory : int
        Cap in bytes on everything held beside input, output, weight and their gradients; 0 for none.
    stride, padding, dilation, groups
        As in ``F.conv2d``.
    """

    algorithm: Algorithm
    size: int = AUTO
    memory: int = 0
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def check_memory(memory: int | None) -> int:
    """Return the engine's number of bytes, 0 for None."""
    if memory is None:
        return 0
    check_count("memory", memory, 1)
    return memory


def check_pair(name: str, value: object, low: int) -> None:
    """Raise unless an integer or a pair of them (TypeError), all at least ``low`` (ValueError)."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if any(isinstance(one, bool) or not isinstance(one, Integral) for one in pair):
        raise TypeError(f"{name} must be an integer or a pair of integers, got {type(value).__name__} {value!r}")
    if len(pair) != 2:
        raise ValueError(f"{name}={value!r} has {len(pair)} values: give an integer or a pair of integers")
    if min(pair) < low:
        raise ValueError(f"{name}={value!r} is out of range: it must be at least {low}")


def check_dtype(dtype: object) -> None:
    """Raise unless None or a dtype (TypeError) that layers are served in (ValueError)."""
    if dtype is None:
        return
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype, got {type(dtype).__name__} {dtype!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype} is not supported: choose {', '.join(map(str, DTYPES))}")


def taps_of(kernel: int, stride: int) -> int:
    """Taps left of a kernel after the polyphase split: ``ceil(kernel / stride)``."""
    return -(-kernel // stride)


def winograd_step(taps: int) -> int:
    """Outputs per tile and axis chosen for a kernel: t = 6 up to 4 taps, t = 8 above, 1 where there is one tap."""
    if taps == 1:
        return 1
    return (7 if taps <= 4 else 9) - taps


def why_unsupported(
    algorithm: Algorithm,
    size: int,
    *,
    kernel_size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    precision: str = "float32",
) -> str:
    """Say why the algorithm cannot carry out a convolution, and what to do; empty if it can.

    Parameters
    ----------
    precision : {"float32", "float64"}
        What is computed in; halves are computed in float32.
    """
    for kernel, s, d in zip(kernel_size, stride, dilation, strict=True):
        if s > 1 and d > 1:
            return f"stride={s} and dilation={d} on one axis have no polyphase form: use nn.Conv2d"
        taps = taps_of(kernel, s)
        if algorithm == "fft":
            if size > FULL and taps > size:
                longer = [tile for tile in TILES if tile >= taps]
                return (
                    f"a kernel of {taps} taps does not fit in tile={size}: choose "
                    f"{' or '.join(map(str, [*longer, repr('full')]))}"
                )
            continue
        if taps > MAX_WINOGRAD_TAPS:
            return f"a kernel of {taps} taps is too long for Winograd (at most {MAX_WINOGRAD_TAPS}): use FFTConfig"
        step = winograd_step(taps) if size == AUTO else size
        longest = MAX_WINOGRAD_TILE[precision]
        if taps > 1 and step + taps - 1 > longest:
            return (
                f"F({step}, {taps}) has a tile of {step + taps - 1}, and in {precision} at most {longest} is accurate "
                f"enough: choose m <= {longest + 1 - taps}"
            )
    return ""
