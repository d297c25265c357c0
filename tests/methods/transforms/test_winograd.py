"""Winograd matrices: the identity holds exactly, for any points, and gives the plain correlation."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from fractions import Fraction
from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.methods.transforms import winograd
from fastcnn.methods.transforms.winograd import POINTS, WinogradMatrices, is_exact, winograd_matrices


@pytest.mark.parametrize("r", range(1, 8))
@pytest.mark.parametrize("m", range(1, 9))
def test_correlation_is_exact_in_rationals(m: int, r: int) -> None:
    made = winograd_matrices(m, r, points=POINTS[: m + r - 2] if m + r > 14 else None)
    rng = np.random.default_rng(m * 100 + r)
    tile = [Fraction(int(v), 7) for v in rng.integers(-50, 50, m + r - 1)]
    taps = [Fraction(int(v), 3) for v in rng.integers(-50, 50, r)]
    products = [
        sum(g * t for g, t in zip(g_row, taps, strict=True)) * sum(b * d for b, d in zip(b_row, tile, strict=True))
        for g_row, b_row in zip(made.g, made.b_t, strict=True)
    ]
    outputs = [sum(a * p for a, p in zip(row, products, strict=True)) for row in made.a_t]
    assert outputs == [sum(tile[i + k] * taps[k] for k in range(r)) for i in range(m)]


@pytest.mark.parametrize("r", range(1, 8))
@pytest.mark.parametrize("m", range(1, 9))
def test_output_i_is_input_i_plus_k_through_tap_k_and_no_other(m: int, r: int) -> None:
    """The identity on every unit vector, in integers: rows of A^T, G and B^T brought to a common denominator first."""
    made = winograd_matrices(m, r)
    tile = m + r - 1
    assert (len(made.a_t), len(made.g), len(made.b_t)) == (m, tile, tile)
    scale = lcm(*(value.denominator for matrix in (made.a_t, made.g, made.b_t) for row in matrix for value in row))
    whole = [
        np.array([[int(value * scale) for value in row] for row in matrix], dtype=object)
        for matrix in (made.a_t, made.g, made.b_t)
    ]
    for k in range(r):
        through = whole[0] @ (whole[1][:, k, None] * whole[2])
        want = np.zeros((m, tile), dtype=object)
        for i in range(m):
            want[i, i + k] = scale**3
        assert np.array_equal(through, want), (m, r, k)


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5)])
def test_point_order_changes_the_matrices_but_not_the_result(m: int, r: int) -> None:
    points = winograd_matrices(m, r).points
    other = winograd_matrices(m, r, tuple(reversed(points)))
    assert other.points == tuple(reversed(points))
    assert is_exact(other)
    assert [row[-2::-1] for row in other.a_t] == [row[:-1] for row in winograd_matrices(m, r).a_t]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda m: st.tuples(
            st.just(m),
            st.lists(st.fractions(-5, 5, max_denominator=6), min_size=m + 1, max_size=m + 1, unique=True),
            st.booleans(),
        )
    )
)
def test_any_distinct_points_work(case: tuple[int, list[Fraction], bool]) -> None:
    m, points, scale = case
    assert is_exact(winograd_matrices(m, 3, points, scale=scale))


def test_the_check_notices_a_wrong_entry() -> None:
    good = winograd_matrices(4, 3)
    rows = [list(row) for row in good.b_t]
    rows[2][3] += Fraction(1, 1024)
    bad = WinogradMatrices(m=4, r=3, points=good.points, a_t=good.a_t, g=good.g, b_t=tuple(tuple(row) for row in rows))
    assert not is_exact(bad)


def test_scaling_is_by_powers_of_two_and_balances_the_rows() -> None:
    plain, scaled = winograd_matrices(6, 3, scale=False), winograd_matrices(6, 3)
    for before, after, b_row in zip(plain.g, scaled.g, scaled.b_t, strict=True):
        factor = next(a / b for a, b in zip(after, before, strict=True) if b)
        top, bottom = factor.numerator, factor.denominator
        assert top & (top - 1) == 0
        assert bottom & (bottom - 1) == 0
        assert Fraction(1, 4) <= max(map(abs, after)) / max(map(abs, b_row)) <= 4


def test_f23_is_exact_on_integers_in_float64() -> None:
    a_t, g, b_t = winograd_matrices(2, 3).arrays()
    rng = np.random.default_rng(0)
    image, kernel = rng.integers(-99, 99, (4, 4)), rng.integers(-99, 99, (3, 3))
    out = a_t @ ((g @ kernel @ g.T) * (b_t @ image @ b_t.T)) @ a_t.T
    want = [[(image[y : y + 3, x : x + 3] * kernel).sum() for x in range(2)] for y in range(2)]
    assert np.array_equal(out, want)


@pytest.mark.parametrize(("m", "r", "low", "high"), [(2, 3, 0, 4e-6), (4, 3, 0, 4e-5), (6, 3, 0, 1e-4)])
def test_float32_error_stays_in_its_class(m: int, r: int, low: float, high: float) -> None:
    a_t, g, b_t = winograd_matrices(m, r).arrays(np.float32)
    rng = np.random.default_rng(1)
    tile = rng.uniform(-1, 1, (512, m + r - 1, m + r - 1)).astype(np.float32)
    taps = rng.uniform(-1, 1, (512, r, r)).astype(np.float32)
    out = a_t @ ((g @ taps @ g.T) * (b_t @ tile @ b_t.T)).sum(0) @ a_t.T
    want = [[(tile[:, y : y + r, x : x + r].astype(np.float64) * taps).sum() for x in range(m)] for y in range(m)]
    error = np.abs(out - want).max() / np.abs(want).max()
    assert low <= error <= high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: winograd_matrices(0, 3), "m=0"),
        (lambda: winograd_matrices(2, -1), "r=-1"),
        (lambda: winograd_matrices(2, 3, (0, 1)), "points has 2 entries"),
        (lambda: winograd_matrices(2, 3, (0, 1, 1)), "distinct"),
        (lambda: winograd_matrices(20, 3), "pass points="),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match=r"m must be an integer, got 2\.0"):
        winograd_matrices(2.0, 3)  # type: ignore[arg-type]


MODULES = [module.name for module in pkgutil.iter_modules(winograd.__path__, f"{winograd.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    found = [doctest.DocTestFinder().find(importlib.import_module(name)) for name in MODULES]
    assert sum(bool(test.examples) for tests in found for test in tests) >= 5
