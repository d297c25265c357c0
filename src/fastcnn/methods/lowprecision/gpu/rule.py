"""Which kernels run a layer of few bits: those of bits on a GPU, or the reference in torch; and how to see it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

logger = logging.getLogger("fastcnn")

CAPABILITY = (7, 5)
"""The oldest compute capability that the kernels are compiled for in tests."""
TRITON = (3, 7)
"""The oldest release whose compiler leaves no barriers in the kernels."""
MOST_PAIRS = 2
"""Planes of inputs times planes of weights. A multiprocessor counts 16 words of 32 products in the cycle in which it
does 128 products in float32 (compute capability 9.0; recalled from NVIDIA's table, not measured): 4 times as many with
one pair, twice with two."""
FEWEST_CHANNELS = 16
"""Of a group: with fewer, words of 32 are less than half full."""
LARGEST_SUM = 1 << 24
"""Up to it float32 holds every whole number."""
MOST_ELEMENTS = 1 << 31
"""Of a map: positions are counted in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What ran one call of an op.

    Attributes
    ----------
    op : str
        ``binary_conv2d`` or ``binary_linear``.
    shape : tuple of int
        Of its input.
    kernel : {"triton", "reference"}
    why : str
        Why it was the reference; empty if it was not.
    """

    op: str
    shape: tuple[int, ...]
    kernel: str
    why: str = ""


_watched: ContextVar[list[Choice] | None] = ContextVar("_watched", default=None)


@contextlib.contextmanager
def watch() -> Iterator[list[Choice]]:
    """Collect what ran each call of a layer of few bits, in order, while the context is open in this thread."""
    found: list[Choice] = []
    token = _watched.set(found)
    try:
        yield found
    finally:
        _watched.reset(token)


def take_note(op: str, x: Tensor, why: str) -> None:
    """Tell who watches, and the debug log, which kernel an op takes; ``why`` as :func:`why_reference` says it."""
    kernel = "reference" if why else "triton"
    found = _watched.get()
    if found is not None:
        found.append(Choice(op=op, shape=tuple(x.shape), kernel=kernel, why=why))
    logger.debug("%s of %s runs on the %s kernel%s", op, tuple(x.shape), kernel, f": {why}" if why else "")


def why_reference(
    x: Tensor,
    bits: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *,
    channels: int,
    products: int,
    planes: Sequence[int],
    binarize: bool,
    levels: int,
    elements: int,
) -> str:
    """Why the kernels of bits do not serve a layer; empty if they do.

    Parameters
    ----------
    channels, products : int
        Inputs that a group has, and products of one output.
    x, bits, scale, bias, planes, binarize, levels
        As in :func:`~fastcnn.methods.lowprecision.binary_ops.binary_conv2d`.
    elements : int
        Of the outputs; 0 or less if there are none.
    """
    if why := why_not_here(x.device):
        return why
    if not binarize and not levels:
        return "inputs are real: they have no bits to count"
    pairs = len(planes) * (1 if binarize else levels.bit_length())
    if pairs > MOST_PAIRS:
        return f"{pairs} pairs of planes take about as long as float32: at most {MOST_PAIRS} are served"
    if channels < FEWEST_CHANNELS:
        return f"groups of {channels} channels leave words of 32 bits mostly empty: {FEWEST_CHANNELS} at least"
    given = [t for t in (x, scale, bias) if t is not None]
    if {t.device for t in (*given, bits)} != {x.device}:
        return "inputs, bits, scale and bias are on several devices"
    dtypes = {t.dtype for t in given}
    if len(dtypes) > 1 or not dtypes <= {torch.float16, torch.bfloat16, torch.float32, torch.float64}:
        return f"inputs, scale and bias must have one type, got {', '.join(sorted(map(str, dtypes)))}"
    largest = products * (1 if binarize else levels) * sum(abs(factor) for factor in planes)
    if largest > LARGEST_SUM:
        return f"sums may reach {largest}, more than 2^24"
    if elements <= 0 or x.numel() == 0:
        return "there are no outputs"
    if max(elements, x.numel()) >= MOST_ELEMENTS:
        return "maps of 2^31 elements or more are not served"
    return ""


def why_not_here(device: torch.device) -> str:
    """Why no layer is served on a device; empty if some are. The CPU serves them under TRITON_INTERPRET=1, slowly."""
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"inputs are on {device.type}"
    if why := why_not_triton():
        return why
    if device.type == "cpu":
        from fastcnn.methods.lowprecision.gpu.products import INTERPRETED

        # The variable counts where triton was imported after it was set.
        return "" if INTERPRETED else "inputs are on cpu"
    if torch.version.hip is not None:
        return "kernels are for NVIDIA GPUs"
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        return f"the GPU has compute capability {found[0]}.{found[1]}: {CAPABILITY[0]}.{CAPABILITY[1]} at least"
    return ""


@cache
def why_not_triton() -> str:
    """What is wrong with the triton that is installed, looked up once; empty if nothing."""
    cure = 'run  python3 -m pip install "fastcnn[gpu]"'
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return f"triton is not installed: {cure}"
    if tuple(map(int, found.split(".")[:2])) < TRITON:
        return f"triton {found} is installed, {TRITON[0]}.{TRITON[1]} is the oldest that serves: {cure}"
    return ""
