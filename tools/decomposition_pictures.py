"""Draw the pictures of docs/concepts/decomposition.md: ``python tools/decomposition_pictures.py``.

What they show is read off what they explain: the unfoldings of an array of indices, the stages of the layers.
``--check`` changes nothing and exits 1 if a picture differs.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from fastcnn.methods.structured.cp import CPConv2d
from fastcnn.methods.structured.factored import Stage
from fastcnn.methods.structured.separable import SeparableConv2d
from fastcnn.methods.structured.svd import SVDConv2d
from fastcnn.methods.structured.tensor_train import TTConv2d
from fastcnn.methods.structured.tucker import TuckerConv2d

sys.path.insert(0, str(Path(__file__).parent))  # tests load this file by its path
from pictures import FOLDER, box, line, picture, text, write_or_check

CHANNELS = 128
"""Of the page's layer, on both sides; its kernel is 3x3."""


def low_rank() -> str:
    """A matrix as a tall one times a wide one, to scale."""
    m, n, r, scale, top = 256, 512, 40, 0.5, 48
    height, width, thin = m * scale, n * scale, r * scale
    whole, tall, wide, bottom = 24, 344, 424, top + m * scale
    return picture(
        720,
        int(bottom) + 84,
        "A matrix of low rank is a tall matrix times a wide one",
        [
            text(whole, top - 14, f"W: {m} × {n}"),
            box(whole, top, width, height, "cell"),
            text((whole + width + tall) / 2, top + height / 2 + 5, "=", "middle"),
            text(tall, top - 14, f"U: {m} × {r}"),
            box(tall, top, thin, height, "good"),
            text((tall + thin + wide) / 2, top + 15, "·", "middle"),
            box(wide, top, width, thin, "good"),
            text(wide, top + thin + 20, f"V: {r} × {n}"),
            text(whole, bottom + 24, f"m n = {m * n:,} numbers"),
            text(tall, bottom + 24, f"r (m + n) = {r * (m + n):,} numbers"),
            text(whole, bottom + 58, f"Linear({n}, {m})", "code small"),
            text(tall, bottom + 58, f"Linear({n}, {r}, bias=False), Linear({r}, {m})", "code small"),
        ],
    )


def grid(x: float, y: float, rows: int, columns: int, size: float) -> str:
    """Lines around and between cells."""
    across = "".join(f"M{x:g} {y + size * k:g}h{size * columns:g}" for k in range(rows + 1))
    down = "".join(f"M{x + size * k:g} {y:g}v{size * rows:g}" for k in range(columns + 1))
    return f'<path d="{across}{down}" class="line"/>'


def unfoldings() -> str:
    """The weight as a table of kernels, and two matrices made of it, one row of each marked."""
    filters, channels, taps, tap, cell, left, right, top = 4, 5, 3, 9, 7, 76, 330, 62
    pitch = taps * tap + 8
    index = np.arange(filters * channels * taps * taps).reshape(filters, channels, taps, taps)
    by_filter = index.reshape(filters, -1)
    by_column = index.transpose(1, 2, 0, 3).reshape(channels * taps, filters * taps)
    parts = [
        text(left, 22, "weight[f, c]: a kernel for each pair"),
        text(left, top - 14, "input channel c →", "small"),
        text(left - 12, top + 20, "filter", "end small"),
        text(left - 12, top + 36, "f ↓", "end small"),
    ]
    for f in range(filters):
        parts += [grid(left + pitch * c, top + pitch * f, taps, taps, tap) for c in range(channels)]
    below = top + cell * filters + 54
    for matrix, y, row, kind, title in (
        (by_filter, top, 1, "good", "(F, C kh kw): a row holds one filter"),
        (by_column, below, taps * 3, "bad", "(C kh, F kw): a row holds a line of taps of c in every filter"),
    ):
        rows, columns = matrix.shape
        parts += [text(right, y - 14, title, "small"), grid(right, y, rows, columns, cell)]
        parts.append(box(right, y + cell * row, cell * columns, cell, kind))
        for f, c, u, v in zip(*np.unravel_index(matrix[row], index.shape), strict=True):
            parts.append(box(left + pitch * c + tap * v, top + pitch * f + tap * u, tap, tap, kind))
    height = below + cell * channels * taps
    return picture(720, height + 16, "A convolution's weight and two of its unfoldings", parts)


def forms() -> list[tuple[str, tuple[Stage, ...]]]:
    """Names and stages of the forms, for the page's layer at the page's ranks."""
    shape = {"in_channels": CHANNELS, "out_channels": CHANNELS, "kernel_size": 3, "padding": 1, "bias": False}
    dense = Stage(in_channels=CHANNELS, out_channels=CHANNELS, kernel_size=(3, 3), padding=(1, 1))
    return [
        ("dense", (dense,)),
        ("SVD", SVDConv2d(**shape, rank=32).chain),
        ("separable", SeparableConv2d(**shape, rank=48).chain),
        ("Tucker-2", TuckerConv2d(**shape, ranks=(48, 48)).chain),
        ("CP", CPConv2d(**shape, rank=128).chain),
    ]


def chains() -> str:
    """Maps as bars as high as they have channels, and the stages between them."""
    scale, width, step, left, top, row = 0.6, 12, 132, 148, 50, 104
    parts = [
        text(16, 22, "Bars: maps, as high as they have channels. In between: kernels and multiply-adds per position.")
    ]
    found = forms()
    for number, (name, stages) in enumerate(found):
        middle = top + row * number + 46
        sizes = [stages[0].in_channels, *(stage.out_channels for stage in stages)]
        parts.append(text(16, middle - 2, name))
        parts.append(text(16, middle + 16, f"{sum(stage.weights for stage in stages):,}", "small"))
        for k, size in enumerate(sizes):
            x, half = left + step * k, size * scale / 2
            parts.append(box(x, middle - half, width, 2 * half, "cell"))
            parts.append(text(x + width / 2, middle - half - 4, size, "middle small"))
        for k, stage in enumerate(stages):
            x1, x2 = left + step * k + width, left + step * (k + 1)
            before, after = sizes[k] * scale / 2, sizes[k + 1] * scale / 2
            corners = f"M{x1} {middle - before:g}L{x2} {middle - after:g}V{middle + after:g}L{x1} {middle + before:g}Z"
            parts.append(f'<path d="{corners}" class="{"good" if stage.groups == 1 else "bad"}"/>')
            kernel = "×".join(map(str, stage.kernel_size))
            parts.append(text((x1 + x2) / 2, middle - 2, kernel, "middle small code"))
            parts.append(text((x1 + x2) / 2, middle + 13, f"{stage.weights:,}", "middle small code"))
    bottom = top + row * len(found) + 6
    parts.append(box(16, bottom - 11, 14, 12, "good"))
    parts.append(text(38, bottom, "dense: every channel goes into every channel"))
    parts.append(box(400, bottom - 11, 14, 12, "bad"))
    parts.append(text(422, bottom, "depthwise: each channel on its own"))
    return picture(720, bottom + 16, "One layer in five forms", parts)


def train() -> str:
    """Cores of a TT-convolution with their small indices and ranks."""
    layer = TTConv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, rank=8)
    assert layer.spatial is not None
    filters, _, kh, kw = layer.spatial.shape
    subscripts = "₁₂₃₄₅"
    # Of each box: name, extents, what leaves it upwards, downwards and to the right.
    boxes: list[tuple[str, list[int], str, str, str]] = []
    for k, core in enumerate(layer.cores):
        before, m, n, after = core.shape
        edge = f"r{subscripts[k]} = {after}"
        if k == len(layer.cores) - 1:  # its columns are pairs of a digit and a filter
            n, after, edge = n // filters, filters, f"{filters} filters"
        extents = [before, m, n, after][k == 0 :]
        boxes.append((f"G{subscripts[k]}", extents, f"i{subscripts[k]} &lt; {m}", f"j{subscripts[k]} &lt; {n}", edge))
    boxes.append(("taps", [filters, kh, kw], "", f"u &lt; {kh}, v &lt; {kw}", ""))

    top, width, height, left, step = 84, 104, 58, 60, 168
    bottom, held = top + height, 0
    parts = [text(16, 28, f"output channel: its digits i{subscripts[0]} … i{subscripts[len(boxes) - 2]}", "small")]
    for k, (name, extents, upper, lower, edge) in enumerate(boxes):
        x, centre = left + step * k, left + step * k + width / 2
        parts.append(box(x, top, width, height, "bad" if name == "taps" else "good"))
        parts.append(text(centre, top + 24, name, "middle"))
        parts.append(text(centre, top + 44, "·".join(map(str, extents)), "middle small code"))
        if upper:
            parts += [line(centre, top - 26, centre, top), text(centre + 8, top - 14, upper, "small")]
        parts += [line(centre, bottom, centre, bottom + 26), text(centre + 8, bottom + 20, lower, "small")]
        if edge:
            parts.append(line(x + width, top + height / 2, x + step, top + height / 2))
            parts.append(text(x + (width + step) / 2, top + height / 2 - 8, edge, "middle small"))
        held += math.prod(extents)
    words = f"input channel: its digits j{subscripts[0]} … j{subscripts[len(boxes) - 2]}; taps: row u, column v"
    parts.append(text(16, bottom + 52, words, "small"))
    parts.append(text(16, bottom + 84, f"{held:,} numbers in place of {layer.weight.numel():,}."))
    return picture(720, bottom + 100, "A convolution as a train of small cores", parts)


PICTURES = {
    "decomposition-rank.svg": low_rank,
    "decomposition-weight.svg": unfoldings,
    "decomposition-chains.svg": chains,
    "decomposition-train.svg": train,
}


def main() -> int:
    """Write the pictures, or compare them."""
    return write_or_check(PICTURES, FOLDER, Path(__file__).name, __doc__)


if __name__ == "__main__":
    sys.exit(main())
