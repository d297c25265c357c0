"""Multiplications and bytes of every kernel family, against counts done by hand or by plain loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastcnn.benchmarking.profile.work import Work, step_work
from fastcnn.engine.plan.slots import Candidate, Draft, Slot, Storage

LANES = 8


def slot(*nchw: int, blocked: bool = True) -> Slot:
    n, c, h, w = nchw
    return Slot(Storage((n, c, h, w), blocked, LANES), (n, c, h, w), (n, c, h, w))


def work(
    op: str, source: Slot, out: Slot, weight: tuple[int, ...] | None, *, residual: Slot | None = None,
    attrs: dict[str, Any] | None = None, chosen: dict[str, Any] | None = None, macs: int = 1, weight_bytes: int = 0,
) -> Work:  # fmt: skip
    given = {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1, **(attrs or {})}
    weights = {} if weight is None else {"weight": np.zeros(weight, np.float32)}
    candidate = Candidate(op, op, chosen or {})
    inputs = [source] if residual is None else [source, residual]
    draft = Draft("layer", "", op, inputs, out, given, weights, [candidate], macs=macs)
    return step_work(draft, candidate, lanes=LANES, weight_bytes=weight_bytes)


def test_a_convolution_multiplies_every_tap_of_every_pixel() -> None:
    found = work("direct", slot(2, 16, 7, 9), slot(2, 24, 5, 7), (24, 16, 3, 3))
    assert found.multiplications == 2 * 5 * 7 * 9 * 16 * 24
    assert (found.family, found.counted, found.out_map) == ("direct", True, (5, 7))


def test_channels_and_filters_are_filled_up_to_whole_vectors() -> None:
    found = work("direct", slot(1, 12, 5, 5), slot(1, 20, 5, 5), (20, 12, 1, 1))
    assert found.multiplications == 25 * 16 * 24
    assert found.family == "1x1"
    assert found.input_bytes == 4 * 25 * 16
    assert found.output_bytes == 4 * 25 * 24


def test_a_planar_stem_reads_its_true_channels() -> None:
    found = work("direct", slot(1, 3, 9, 9, blocked=False), slot(1, 16, 4, 4), (16, 3, 3, 3), attrs={"stride": [2, 2]})
    assert found.multiplications == 16 * 9 * 3 * 16
    assert found.input_bytes == 4 * 3 * 9 * 9


@pytest.mark.parametrize(("groups", "apart"), [(2, 2), (4, 4), (8, 4), (32, 4), (1, 1)])
def test_groups_narrower_than_a_vector_multiply_zeros(groups: int, apart: int) -> None:
    """32 channels in vectors of 8: at most four groups stay apart."""
    found = work("direct", slot(1, 32, 3, 3), slot(1, 32, 3, 3), (32, 32 // groups, 1, 1), attrs={"groups": groups})
    assert found.multiplications == 9 * 32 * 32 // apart
    assert found.family == ("grouped" if groups > 1 else "1x1")


@pytest.mark.parametrize(
    ("m", "kernel", "out", "tiles"),
    [(4, 3, (14, 14), 16), (6, 3, (14, 14), 9), (2, 3, (7, 9), 20), (6, 3, (7, 13), 6), (4, 5, (9, 4), 3),
     (4, 3, (1, 1), 1)],
)  # fmt: skip
def test_winograd_counts_the_tiles_that_stick_out(m: int, kernel: int, out: tuple[int, int], tiles: int) -> None:
    height, width = out
    found = work(
        "winograd", slot(3, 16, height, width), slot(3, 8, height, width), (8, 16, kernel, kernel),
        attrs={"padding": [kernel // 2] * 4}, chosen={"m": m},
    )  # fmt: skip
    assert found.multiplications == 3 * tiles * (m + kernel - 1) ** 2 * 16 * 8
    assert found.family == "winograd"


@pytest.mark.parametrize(
    ("rows", "images", "pixels"),
    [
        (9, 1, 2 * 80),  # rows of 7 + 2 pixels: 8 * 9 + 7 = 79
        (4, 1, 2 * (48 + 48 + 16)),  # two blocks of 3 * 9 + 7 = 34, one of 7
        (9, 2, 192),  # 11 rows of the copy from image to image: 11 * 9 + 79 = 178
    ],
)
def test_amx_multiplies_whole_tiles(rows: int, images: int, pixels: int) -> None:
    found = work(
        "amx", slot(2, 20, 9, 7), slot(2, 24, 9, 7), (24, 20, 3, 3), attrs={"padding": [1] * 4},
        chosen={"rows": rows, "images": images},
    )  # fmt: skip
    lanes = 2 * LANES
    assert found.multiplications == pixels * 9 * (-(-20 // lanes) * lanes) * 24
    assert (found.family, found.counted) == ("direct", True)


def test_amx_multiplies_rows_of_taps_of_a_picture() -> None:
    found = work(
        "amx", slot(1, 3, 8, 8, blocked=False), slot(1, 16, 4, 4), (16, 3, 3, 3), attrs={"stride": [2, 2]},
        chosen={"rows": 4, "images": 1},
    )  # fmt: skip
    step = -(-9 // (2 * LANES)) * 2 * LANES
    row = 4 - 1 + -(-step // 6)
    assert found.multiplications == -(-(3 * row + 4) // 16) * 16 * 3 * step * 16


def test_depthwise_multiplies_one_channel_at_a_time() -> None:
    found = work("depthwise", slot(2, 20, 6, 6), slot(2, 20, 6, 6), (20, 1, 5, 5), attrs={"padding": [2] * 4})
    assert found.multiplications == 2 * 24 * 36 * 25


@pytest.mark.parametrize(
    ("stride", "kernel", "padding", "dilation"), [(2, 3, 1, 1), (2, 2, 0, 1), (3, 2, 0, 1), (1, 3, 1, 1), (2, 3, 2, 2)]
)
def test_a_transposed_convolution_multiplies_where_taps_fall(
    stride: int, kernel: int, padding: int, dilation: int
) -> None:
    """Counted pixel by pixel; a pixel no tap reaches still takes one product with zero."""
    size = 5
    out = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
    taps = 0
    for y, x in itertools.product(range(out), repeat=2):
        hits = sum(
            (y + padding - i * dilation) % stride == 0 and (x + padding - j * dilation) % stride == 0
            for i in range(kernel)
            for j in range(kernel)
        )
        taps += max(1, hits)
    found = work(
        "transposed", slot(1, 8, size, size), slot(1, 16, out, out), (8, 16, kernel, kernel),
        attrs={"stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2},
    )  # fmt: skip
    assert found.multiplications == taps * 8 * 16


def test_a_linear_layer_reads_its_packed_weights() -> None:
    found = work("direct", slot(1, 512, 7, 7), slot(1, 1000, 1, 1), (1000, 512, 7, 7), weight_bytes=100_352_000)
    assert found.family == "linear"
    assert found.multiplications == 512 * 49 * 1000
    assert (found.weight_bytes, found.input_bytes, found.output_bytes) == (100_352_000, 4 * 512 * 49, 4000)


def test_only_the_pixels_that_windows_touch_are_read() -> None:
    strided = work("direct", slot(1, 8, 10, 10), slot(1, 8, 5, 5), (8, 8, 1, 1), attrs={"stride": [2, 2]})
    assert strided.input_bytes == 4 * 8 * 25
    padded = work("direct", slot(1, 8, 6, 6), slot(1, 8, 6, 6), (8, 8, 3, 3), attrs={"padding": [1] * 4})
    assert padded.input_bytes == 4 * 8 * 36
    added = work("direct", slot(1, 8, 6, 6), slot(1, 8, 6, 6), (8, 8, 1, 1), residual=slot(1, 8, 6, 6))
    assert added.input_bytes == 2 * 4 * 8 * 36


def test_steps_that_only_move_values_have_bytes_alone() -> None:
    pool = work("pool", slot(1, 12, 8, 8), slot(1, 12, 4, 4), None, macs=0)
    assert (pool.multiplications, pool.counted, pool.family) == (0, True, "pool")
    assert (pool.input_bytes, pool.output_bytes) == (4 * 16 * 64, 4 * 16 * 16)
    part = work("copy_region", slot(2, 24, 8, 8), slot(2, 40, 8, 8), None, macs=0, attrs={"size": [12, 8, 8]})
    assert part.input_bytes == part.output_bytes == 4 * 2 * 12 * 64
    moved = work("strided_copy", slot(1, 6, 4, 4), slot(1, 9, 4, 4), None, macs=0, attrs={"dims": [1, 6, 4, 4]})
    assert moved.input_bytes == moved.output_bytes == 4 * 6 * 16


def test_a_kernel_nobody_counts_is_marked() -> None:
    found = work("tomorrow", slot(1, 8, 4, 4), slot(1, 8, 4, 4), (8, 8, 3, 3), macs=77)
    assert (found.multiplications, found.counted) == (77, False)
