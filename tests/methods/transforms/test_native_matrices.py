"""The native kernels' Winograd matrices, of every form there are kernels for, against the exact generator."""

from __future__ import annotations

import importlib.util
from fractions import Fraction

import numpy as np
import pytest

from fastcnn.methods.transforms.winograd import is_exact, searched_points, winograd_matrices

if importlib.util.find_spec("fastcnn._native") is None:
    pytest.skip("fastcnn._native is not built: make build", allow_module_level=True)

from fastcnn import _native
from fastcnn.engine.plan.tiles import WINOGRAD_TILES

FORMS = [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (4, 7), (3, 2), (5, 2), (7, 2)]
"""(m, r) of the axes of kernels r x r, 1 x r and r x 1, and of the phases of a stride."""


def native_points(m: int, r: int) -> tuple[Fraction, ...]:
    """The simplest fractions that the second row of A^T, (a_0, ..., a_(t-2), 0), holds as doubles."""
    tile = m + r - 1
    row = _native.winograd_matrices(m, r)[0][tile : 2 * tile]
    points = tuple(Fraction(value).limit_denominator(16) for value in row[:-1])
    assert [float(point) for point in points] == row[:-1]
    assert row[-1] == (1.0 if m == 2 else 0.0)
    return points


def test_there_are_no_other_forms() -> None:
    """What the module has, what the planner asks for and what is tested here are the same."""
    found = []
    for m in range(2, 17):
        for r in range(2, 17):
            try:
                _native.winograd_matrices(m, r)
            except ValueError:
                continue
            found.append((m, r))
    assert sorted(found) == sorted(FORMS)
    assert {(m, max(kernel)) for kernel, tiles in WINOGRAD_TILES.items() for m in tiles} == set(FORMS)


def test_a_form_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no such Winograd form"):
        _native.winograd_matrices(3, 3)


def test_an_axis_of_one_tap_is_left_alone() -> None:
    assert _native.winograd_matrices(1, 1) == ([1.0], [1.0], [1.0])


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_every_coefficient_is_the_double_nearest_to_the_exact_one(m: int, r: int) -> None:
    exact = winograd_matrices(m, r, native_points(m, r), scale=False)
    assert is_exact(exact)
    for native, matrix in zip(_native.winograd_matrices(m, r), (exact.a_t, exact.g, exact.b_t), strict=True):
        # Thirds and fifths are no doubles: a Fraction becomes the nearest one.
        assert native == [float(value) for row in matrix for value in row]


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_the_points_are_those_of_least_error_pairs_side_by_side(m: int, r: int) -> None:
    points = native_points(m, r)
    assert set(points) == set(searched_points(m, r))
    assert points[0] == 0
    assert [-p for p in points[1::2]] == list(points[2::2]), "the transforms share the halves of a pair"


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_the_native_matrices_correlate(m: int, r: int) -> None:
    """In float64, against the definition; nothing of the generator takes part."""
    tile = m + r - 1
    shapes = (m, tile), (tile, r), (tile, tile)
    a_t, g, b_t = (np.reshape(flat, shape) for flat, shape in zip(_native.winograd_matrices(m, r), shapes, strict=True))
    rng = np.random.default_rng(m * 16 + r)
    for _ in range(20):
        taps, inputs = rng.uniform(-1, 1, r), rng.uniform(-1, 1, tile)
        wanted = [sum(taps[k] * inputs[i + k] for k in range(r)) for i in range(m)]
        assert a_t @ ((g @ taps) * (b_t @ inputs)) == pytest.approx(wanted, rel=0, abs=1e-12)
