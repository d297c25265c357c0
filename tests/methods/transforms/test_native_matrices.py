"""The native kernels' Winograd matrices against the exact generator."""

from __future__ import annotations

import importlib.util
from fractions import Fraction

import pytest

from fastcnn.methods.transforms.winograd import WinogradMatrices, is_exact, winograd_matrices

if importlib.util.find_spec("fastcnn._native") is None:
    pytest.skip("fastcnn._native is not built: make build", allow_module_level=True)

from fastcnn import _native


def rows(flat: list[float], width: int) -> list[list[Fraction]]:
    """Exact values of a row-major matrix of doubles."""
    return [[Fraction(value) for value in flat[i : i + width]] for i in range(0, len(flat), width)]


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3)])
def test_native_matrices_are_the_exact_ones_up_to_powers_of_two(m: int, r: int) -> None:
    tile = m + r - 1
    flat_a, flat_g, flat_b = _native.winograd_matrices(m, r)
    a_t, g, b_t = rows(flat_a, tile), rows(flat_g, r), rows(flat_b, tile)
    points = a_t[1][:-1]
    exact = winograd_matrices(m, r, points)
    assert [tuple(row) for row in a_t] == list(exact.a_t)
    factors = []
    for native, ours in zip(b_t, exact.b_t, strict=True):
        factor = next(n / o for n, o in zip(native, ours, strict=True) if o)
        assert native == [o * factor for o in ours]
        for part in (abs(factor.numerator), factor.denominator):
            assert part & (part - 1) == 0
        factors.append(factor)
    for native, ours, factor in zip(g, exact.g, factors, strict=True):
        for got, want in zip(native, ours, strict=True):
            # G has thirds and fifteenths: right to the last bit of a double.
            assert abs(got - want / factor) <= abs(want / factor) * Fraction(1, 1 << 52)
    healed = WinogradMatrices(
        m=m,
        r=r,
        points=tuple(points),
        a_t=tuple(map(tuple, a_t)),
        g=tuple(tuple(want / f for want in row) for row, f in zip(exact.g, factors, strict=True)),
        b_t=tuple(map(tuple, b_t)),
    )
    assert is_exact(healed)
