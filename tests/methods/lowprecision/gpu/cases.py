"""Layers of bits for the GPU's kernels: what goes in, and what must come out by plain loops in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcnn.methods.lowprecision.binary_ops import binary_conv2d, binary_linear, pack_planes, sign
from fastcnn.methods.lowprecision.gpu.window import Window

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A convolution of given arguments; ``levels`` and ``tile`` (rm, rn, tm, tn) are 0 and () where there are none.

    With a tile it goes to the kernels past the op and its rule.
    """

    shape: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 1
    planes: tuple[int, ...] = (1,)
    levels: int = 0
    dtype: str = "float32"
    scaled: bool = True
    last: bool = False
    linear: bool = False
    tile: tuple[int, ...] = ()

    def __str__(self) -> str:
        given = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return " ".join(f"{name}={value}" for name, value, usual in given if value != usual).replace(", ", ",")

    @property
    def window(self) -> Window:
        return Window(
            kernel_size=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation,
            groups=self.groups, pad_value=self.pad_value,
        )  # fmt: skip


CONVOLUTIONS = [
    # Channels one either side of a word, with all that may stand around a map.
    *(
        Case(shape=(2, channels, 4, 5), outputs=5, kernel=(3, 3), padding=(1, 1, 1, 1), pad_value=pad)
        for channels, pad in itertools.product((16, 31, 32, 33, 63, 64, 65), (-1, 0, 1))
    ),
    Case(shape=(3, 40, 7, 9), outputs=18, kernel=(3, 2), stride=(2, 3), padding=(2, 0, 1, 3), pad_value=0),
    Case(shape=(1, 150, 6, 5), outputs=18, kernel=(2, 3), dilation=(3, 2), padding=(3, 2, 3, 2), pad_value=-1),
    Case(shape=(2, 60, 5, 6), outputs=21, kernel=(3, 3), padding=(1, 1, 1, 1), groups=3, pad_value=-1),
    Case(shape=(2, 34, 5, 6), outputs=4, kernel=(3, 3), padding=(1, 1, 1, 1), groups=2, pad_value=0, scaled=False),
    # Kernels larger than the map; nothing of the map in some windows.
    Case(shape=(2, 20, 2, 1), outputs=3, kernel=(5, 5), padding=(4, 4, 4, 4), stride=(2, 1), pad_value=0),
    Case(shape=(2, 20, 2, 1), outputs=3, kernel=(1, 1), padding=(2, 2, 2, 2), pad_value=-1),
    Case(shape=(2, 96, 6, 5), outputs=17, stride=(2, 2), scaled=False),
    Case(shape=(2, 48, 6, 5), outputs=20, kernel=(3, 3), padding=(1, 1, 1, 1), last=True, pad_value=0),
    *(
        Case(shape=(1, 33, 4, 4), outputs=6, kernel=(3, 3), padding=(1, 1, 1, 1), dtype=dtype, pad_value=0)
        for dtype in ("float16", "bfloat16", "float64")
    ),
    # Weights of four levels, of three; inputs of two and four.
    Case(shape=(2, 35, 5, 5), outputs=9, kernel=(3, 3), padding=(1, 1, 1, 1), planes=(1, 2), pad_value=0),
    Case(shape=(2, 35, 5, 5), outputs=9, kernel=(3, 3), padding=(1, 0, 1, 2), planes=(1, 1), pad_value=-1),
    Case(shape=(2, 35, 5, 5), outputs=9, kernel=(3, 3), padding=(1, 1, 1, 1), levels=1),
    Case(shape=(2, 72, 5, 4), outputs=9, kernel=(2, 3), padding=(1, 1, 1, 1), levels=3, stride=(2, 1), last=True),
    Case(shape=(2, 72, 5, 4), outputs=8, kernel=(3, 3), padding=(1, 1, 1, 1), levels=3, groups=2),
    Case(
        shape=(1, 20, 5, 4), outputs=6, kernel=(2, 2), padding=(0, 0, 1, 1), levels=7, planes=(1, 2, 4),
        tile=(1, 2, 4, 8),
    ),
    # Many programs, most of them full.
    Case(shape=(2, 40, 6, 7), outputs=19, kernel=(3, 3), padding=(1, 1, 1, 1), pad_value=0, tile=(2, 1, 16, 8)),
    Case(shape=(2, 40, 7, 7), outputs=22, kernel=(3, 3), groups=2, tile=(4, 2, 8, 4), last=True),
]  # fmt: skip
LINEARS = [
    *(Case(shape=(3, inputs, 1, 1), outputs=7, linear=True) for inputs in (31, 32, 64, 65, 300)),
    Case(shape=(1, 500, 1, 1), outputs=300, linear=True, dtype="float64"),
    Case(shape=(130, 70, 1, 1), outputs=5, linear=True, scaled=False),
    Case(shape=(33, 130, 1, 1), outputs=40, linear=True, planes=(1, 2), dtype="float16"),
    Case(shape=(33, 130, 1, 1), outputs=40, linear=True, levels=3, dtype="bfloat16"),
    Case(shape=(37, 290, 1, 1), outputs=41, linear=True, tile=(2, 4, 4, 8)),
]
CASES = [*CONVOLUTIONS, *LINEARS]
ODD_VALUES = (0.0, -0.0, 1e-45, -1e-45, float("inf"), -float("inf"), float("nan"))


@dataclass(frozen=True)
class Given:
    """What a case is computed from."""

    x: Tensor
    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None


def given(case: Case) -> Given:
    """Inputs with zeros of both signs and the like among them; scales that halves hold, or any of float32."""
    generator = torch.Generator().manual_seed(17)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(case.shape, generator=generator).to(dtype)
    if case.levels:
        x = torch.randint(0, case.levels + 1, case.shape, generator=generator).to(dtype)
        x.view(-1)[0] = torch.nan
    else:
        x.view(-1)[: len(ODD_VALUES)] = torch.tensor(ODD_VALUES, dtype=torch.float64).to(dtype)
        x[-1] = -x[-1].abs() if case.pad_value < 0 else x[-1]
    if case.last:
        x = x.to(memory_format=torch.channels_last)
    size = (case.outputs, case.shape[1] // case.groups, *case.kernel)
    weight = sum(f * (2 * torch.randint(0, 2, size, generator=generator) - 1) for f in case.planes)
    assert isinstance(weight, Tensor)
    scale = bias = None
    if case.scaled:
        scale, bias = torch.randn(2, case.outputs, generator=generator).to(dtype)
        if case.dtype in ("float16", "bfloat16"):
            scale, bias = 2.0 ** torch.arange(case.outputs).fmod(3).to(dtype), torch.arange(case.outputs).to(dtype)
    return Given(x, weight.float(), scale, bias)


def expected(case: Case) -> Array:
    """Window by window in float64, then scale and bias in the type of the inputs."""
    have = given(case)
    x = have.x.double().numpy()
    values = np.nan_to_num(x) if case.levels else np.where(x >= 0, 1.0, -1.0)
    around = 0.0 if case.levels else float(case.pad_value)
    n, _, height, width = case.shape
    weight = have.weight.double().numpy()
    outputs, channels, kh, kw = weight.shape
    top, left, bottom, right = case.padding
    out_height = (height + top + bottom - case.dilation[0] * (kh - 1) - 1) // case.stride[0] + 1
    out_width = (width + left + right - case.dilation[1] * (kw - 1) - 1) // case.stride[1] + 1
    sums = np.zeros((n, outputs, out_height, out_width))
    for o, oh, ow, r, s in itertools.product(*map(range, (outputs, out_height, out_width, kh, kw))):
        h = oh * case.stride[0] - top + r * case.dilation[0]
        w = ow * case.stride[1] - left + s * case.dilation[1]
        first = o // (outputs // case.groups) * channels
        inside = 0 <= h < height and 0 <= w < width
        seen = values[:, first : first + channels, h, w] if inside else np.full((n, channels), around)
        sums[:, o, oh, ow] += (seen * weight[o, :, r, s]).sum(1)
    if case.dtype in ("float16", "bfloat16"):
        # All of these are whole numbers that the type holds.
        y = sums if have.scale is None else sums * have.scale.double().numpy()[:, None, None]
        y = y if have.bias is None else y + have.bias.double().numpy()[:, None, None]
        assert np.abs(y).max() <= (2048 if case.dtype == "float16" else 1e9)
        return torch.from_numpy(y).to(have.x.dtype).double().numpy()
    y = sums.astype(case.dtype)
    if have.scale is not None and have.bias is not None:
        y = y * have.scale.numpy()[:, None, None]
        y = y + have.bias.numpy()[:, None, None]
    return y


def computed(case: Case, device: str) -> Tensor:
    """What the op says on a device, or the kernels themselves if the case has a tile."""
    have = given(case)
    x, scale, bias = (None if t is None else t.to(device) for t in (have.x, have.scale, have.bias))
    bits = pack_planes(have.weight, case.planes).to(device)
    assert x is not None
    if case.linear:
        x = x[:, :, 0, 0]
    if case.tile:
        from fastcnn.methods.lowprecision.gpu.products import Tile, convolve, multiply

        tile = Tile(**dict(zip(("rm", "rn", "tm", "tn"), case.tile, strict=True)))
        more: Any = {"planes": case.planes, "levels": case.levels, "tile": tile}
        if case.linear:
            y = multiply(x, bits, scale, bias, **more)
        else:
            y = convolve(x, bits, scale, bias, window=case.window, **more)
    elif case.linear:
        y = binary_linear(x, bits, scale, bias, list(case.planes), not case.levels, case.levels)
    else:
        y = binary_conv2d(
            x, bits, scale, bias, list(case.kernel), list(case.stride), list(case.padding), list(case.dilation),
            case.groups, list(case.planes), not case.levels, case.pad_value, case.levels,
        )  # fmt: skip
    return y[:, :, None, None] if case.linear else y


def rows_and_words() -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """By channels: a map, the words of its signs, and those of a weight made of the same rows."""
    from fastcnn.methods.lowprecision.gpu.products import lay_out, pack

    found = {}
    for channels in (16, 31, 32, 33, 64, 65, 127):
        x = torch.randn(3, channels, 1, 1, generator=torch.Generator().manual_seed(channels))
        found[channels] = (x, pack(x), lay_out(pack_planes(sign(x), (1,)), planes=1, channels=channels, taps=1))
    return found
