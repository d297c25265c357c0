"""Forms of images: rectangular and split kernels, and strides, give the plain correlation at the cost they state."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.methods.transforms.winograd import (
    WinogradSum,
    nested_form,
    polyphase,
    split_kernel,
    winograd_correlate,
    winograd_correlate_sum,
)

Array = npt.NDArray[Any]
FLOAT64 = 1e-11
"""Relative error of tiles of up to 14 in float64: the growth of F(8, 7), squared, is some 1e4."""


def plain(x: Array, w: Array, stride: tuple[int, int] = (1, 1)) -> Array:
    """Correlation output by output, in float64."""
    (filters, _, r1, r2), (s1, s2) = w.shape, stride
    height, width = (x.shape[1] - r1) // s1 + 1, (x.shape[2] - r2) // s2 + 1
    made = np.empty((filters, height, width))
    for f in range(filters):
        for i in range(height):
            for j in range(width):
                made[f, i, j] = (x[:, i * s1 : i * s1 + r1, j * s2 : j * s2 + r2].astype(float) * w[f]).sum()
    return made


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def error(got: Array, want: Array) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    m1=st.integers(1, 8), m2=st.integers(1, 8), r1=st.integers(1, 7), r2=st.integers(1, 7), extra=st.integers(0, 9),
    wide=st.integers(0, 9), channels=st.integers(1, 3), filters=st.integers(1, 3),
)  # fmt: skip
def test_every_pair_of_forms_correlates(
    m1: int, m2: int, r1: int, r2: int, extra: int, wide: int, channels: int, filters: int
) -> None:
    x, w = numbers(m1, channels, r1 + extra, r2 + wide), numbers(r2, filters, channels, r1, r2)
    form = nested_form((m1, m2), (r1, r2))
    assert (form.output_tile, form.kernel_size) == ((m1, m2), (r1, r2))
    got = winograd_correlate(x, w, form)
    assert got.dtype == np.float64
    assert np.abs(got - plain(x, w)).max() <= FLOAT64 * np.abs(w).sum((1, 2, 3)).max()


def test_axes_do_not_change_places() -> None:
    """The rows' form goes along the height: a kernel that only looks down needs no columns."""
    x = numbers(0, 1, 9, 5)
    w = np.zeros((1, 1, 4, 1))
    w[0, 0, 3] = 1.0
    assert error(winograd_correlate(x, w, nested_form((3, 2), (4, 1))), x[:, 3:]) <= FLOAT64


def test_points_may_differ_along_the_axes() -> None:
    other = nested_form((4, 4), 3, points=((0, 1, -1, 2, -2), None))
    assert other.rows.points == (0, 1, -1, 2, -2)
    assert other.columns.points == (0, -1, 1, Fraction(1, 2), -2)
    x, w = numbers(1, 2, 11, 10), numbers(2, 3, 2, 3, 3)
    assert error(winograd_correlate(x, w, other), plain(x, w)) <= FLOAT64


@pytest.mark.parametrize(
    ("tile", "kernel", "multiplications"),
    [
        (2, 3, Fraction(4)),
        (4, 3, Fraction(9, 4)),
        (6, 3, Fraction(16, 9)),
        (2, 5, Fraction(9)),
        (4, 5, Fraction(4)),
        (4, 7, Fraction(25, 4)),
        (4, (1, 7), Fraction(10, 4)),
        (4, (7, 1), Fraction(10, 4)),
        ((2, 4), 3, Fraction(4 * 6, 2 * 4)),
        ((6, 2), (3, 5), Fraction(8 * 6, 6 * 2)),
    ],
)
def test_a_form_counts_its_multiplications(tile: Any, kernel: Any, multiplications: Fraction) -> None:
    form = nested_form(tile, kernel)
    taps = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    assert form.multiplications == multiplications
    assert form.saving == taps[0] * taps[1] / multiplications
    # What is multiplied for one tile is what a transformed kernel holds.
    spectra = len(form.rows.g) * len(form.columns.g)
    assert form.multiplications == Fraction(spectra, form.output_tile[0] * form.output_tile[1])
    assert form.weight_growth == Fraction(spectra, taps[0] * taps[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 6), r1=st.integers(1, 11), r2=st.integers(1, 7), s1=st.integers(1, 4), s2=st.integers(1, 3),
    most=st.sampled_from([1, 2, 3, 4]), extra=st.integers(0, 8), wide=st.integers(0, 8),
)  # fmt: skip
def test_pieces_add_up_to_the_correlation(
    m: int, r1: int, r2: int, s1: int, s2: int, most: int, extra: int, wide: int
) -> None:
    made = polyphase((r1, r2), m, stride=(s1, s2), most_taps=most)
    x, w = numbers(m, 2, r1 + extra, r2 + wide), numbers(r1, 2, 2, r1, r2)
    want = plain(x, w, (s1, s2))
    assert np.abs(winograd_correlate_sum(x, w, made) - want).max() <= FLOAT64 * np.abs(w).sum((1, 2, 3)).max()
    covered = np.zeros((r1, r2), dtype=int)
    for piece in made.pieces:
        part = covered[piece.taps]
        assert part.shape == piece.form.kernel_size
        assert max(part.shape) <= most
        part += 1
    assert (covered == 1).all(), "every tap belongs to one piece"


def axes(made: WinogradSum) -> list[tuple[int, ...]]:
    """Taps of the pieces along each axis, by start."""
    return [
        tuple(dict(sorted((p.start[axis], p.form.kernel_size[axis]) for p in made.pieces)).values()) for axis in (0, 1)
    ]


@pytest.mark.parametrize(
    ("made", "taps", "multiplications"),
    [
        (split_kernel(5, 2), (3, 2), Fraction((4 + 3) ** 2, 4)),
        (split_kernel(5, 4), (3, 2), Fraction((6 + 5) ** 2, 16)),
        (split_kernel(7, 4), (3, 2, 2), Fraction((6 + 5 + 5) ** 2, 16)),
        (split_kernel(7, 4, most_taps=4), (4, 3), Fraction((7 + 6) ** 2, 16)),
        (split_kernel(3, 4), (3,), Fraction(36, 16)),
        (polyphase(3, 2), (2, 1), Fraction((3 + 2) ** 2, 4)),
        (polyphase(3, 4), (2, 1), Fraction((5 + 4) ** 2, 16)),
        (polyphase(5, 4), (3, 2), Fraction((6 + 5) ** 2, 16)),
        (polyphase(7, 4), (4, 3), Fraction((7 + 6) ** 2, 16)),
        (polyphase(7, 4, most_taps=3), (2, 2, 3), None),
        (polyphase(3, 4, stride=4), (1, 1, 1), Fraction(9)),
    ],
)
def test_pieces_are_few_and_counted(made: WinogradSum, taps: tuple[int, ...], multiplications: Fraction | None) -> None:
    found = axes(made)
    assert [tuple(sorted(axis)) for axis in found] == [tuple(sorted(taps))] * 2
    if multiplications is not None:
        assert made.multiplications == multiplications
    size = made.kernel_size[0] * made.kernel_size[1]
    assert made.saving == size / made.multiplications
    assert made.weight_growth * size == sum(len(p.form.rows.g) * len(p.form.columns.g) for p in made.pieces)


def test_one_dimensional_kernels_are_split_along_their_axis_only() -> None:
    made = split_kernel((1, 7), 4)
    assert axes(made) == [(1,), (3, 2, 2)]
    assert {piece.form.output_tile for piece in made.pieces} == {(1, 4)}
    assert str(made) == "F(1x4,1x3) at 0,0 + F(1x4,1x2) at 0,3 + F(1x4,1x2) at 0,5"


def test_splitting_is_more_accurate_than_one_large_tile() -> None:
    """At the same 4x4 outputs a tile; both in float32, at 64 channels."""
    x, w = numbers(0, 64, 34, 34).astype(np.float32), numbers(1, 8, 64, 7, 7).astype(np.float32)
    want = plain(x, w)
    direct, split = winograd_correlate(x, w, nested_form(4, 7)), winograd_correlate_sum(x, w, split_kernel(7, 4))
    assert direct.dtype == split.dtype == np.float32
    assert error(split, want) * 4 < error(direct, want)


@pytest.mark.parametrize("terms", [1, 3, 64, 1000])
def test_channels_are_summed_whatever_the_sums(terms: int) -> None:
    x, w = numbers(3, 70, 8, 9), numbers(4, 2, 70, 3, 3)
    assert error(winograd_correlate(x, w, nested_form(4, 3), sum_terms=terms), plain(x, w)) <= FLOAT64
    assert error(winograd_correlate_sum(x, w, polyphase(3, 2), sum_terms=terms), plain(x, w, (2, 2))) <= FLOAT64


def test_short_sums_round_less() -> None:
    x, w = numbers(0, 512, 26, 26).astype(np.float32), numbers(1, 4, 512, 3, 3).astype(np.float32)
    short, long = (error(winograd_correlate(x, w, nested_form(4, 3), sum_terms=n), plain(x, w)) for n in (32, 512))
    assert short * 1.5 < long


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: nested_form(0, 3), ValueError, "output_tile=0"),
        (lambda: nested_form(2, (3, 0)), ValueError, "kernel_size=0"),
        (lambda: nested_form(2.0, 3), TypeError, r"output_tile must be an integer, got 2\.0"),  # type: ignore[arg-type]
        (lambda: nested_form((2, 2, 2), 3), TypeError, "output_tile must be an integer or two of them"),  # type: ignore[arg-type]
        (lambda: polyphase(3, 2, stride=0), ValueError, "stride=0"),
        (lambda: split_kernel(5, 2, most_taps=0), ValueError, "most_taps=0"),
    ],
)
def test_bad_sizes_are_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("x", "w", "kind", "message"),
    [
        (np.zeros((2, 5, 5), "f4"), np.zeros((1, 2, 3, 3)), TypeError, "input is float32, weight float64"),
        (np.zeros((2, 5, 5), "f2"), np.zeros((1, 2, 3, 3), "f2"), TypeError, "float16"),
        (np.zeros((5, 5)), np.zeros((1, 1, 3, 3)), ValueError, r"input must have shape \(C, H, W\)"),
        (np.zeros((2, 5, 5)), np.zeros((1, 3, 3, 3)), ValueError, "weight has 3 channels and input 2"),
        (np.zeros((2, 5, 5)), np.zeros((1, 2, 5, 3)), ValueError, r"kernels of \(5, 3\) and the form is for \(3, 3\)"),
        (np.zeros((2, 2, 5)), np.zeros((1, 2, 3, 3)), ValueError, "larger than the input"),
    ],
)
def test_bad_arrays_are_named(x: Array, w: Array, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        winograd_correlate(x, w, nested_form(2, 3))
    with pytest.raises(kind, match=message):
        winograd_correlate_sum(x, w, split_kernel(3, 2))


def test_sums_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="sum_terms=0"):
        winograd_correlate(np.zeros((1, 5, 5)), np.zeros((1, 1, 3, 3)), nested_form(2, 3), sum_terms=0)
