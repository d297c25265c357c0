"""Exact Cook-Toom generation of the Winograd matrices of F(m, r).

``y = A^T [(G g) * (B^T d)]`` is the correlation of a tile d (t = m + r - 1 values) with a kernel g (r taps),
giving m outputs with t multiplications. Everything is done in ``fractions.Fraction``, so the identity is
proved, not sampled; casting to floats is the caller's last step. Exact as algebra; in float32 the error
grows with t (F(6,3) ten to thirty times direct convolution's). Oracle of the native kernels' matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import frexp

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.winograd.points import check_form, default_points

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True, kw_only=True)
class WinogradMatrices:
    """Exact matrices of F(m, r) and the points they were made from.

    Parameters
    ----------
    a_t : m x t
        Output transform A^T.
    g : t x r
        Kernel transform G.
    b_t : t x t
        Input transform B^T.
    points : tuple of Fraction
        The t - 1 finite points; the last one is infinity.
    """

    m: int
    r: int
    points: tuple[Fraction, ...]
    a_t: Matrix
    g: Matrix
    b_t: Matrix

    def arrays(self, dtype: npt.DTypeLike = np.float64) -> tuple[npt.NDArray[np.floating], ...]:
        """Return (A^T, G, B^T) rounded once to ``dtype``."""
        made = (np.array([[float(v) for v in row] for row in mat], dtype=dtype) for mat in (self.a_t, self.g, self.b_t))
        return tuple(made)


def winograd_matrices(
    m: int, r: int, points: Sequence[Fraction | int | str] | None = None, *, scale: bool = True
) -> WinogradMatrices:
    """Generate the exact matrices of F(m, r) and prove their identity.

    Parameters
    ----------
    m : int
        Outputs per tile, at least 1.
    r : int
        Kernel taps, at least 1.
    points : sequence of m + r - 2 distinct rationals, optional
        Interpolation points besides infinity; default: the table of Barabasz et al.
    scale : bool
        Multiply row j of G by a power of two c_j and row j of B^T by 1 / c_j so that both have a similar
        largest entry. Powers of two lose nothing in floating point.

    Returns
    -------
    WinogradMatrices

    Raises
    ------
    ValueError
        If m or r is below 1, a point is repeated, or their number is wrong.

    References
    ----------
    Lavin and Gray 2016, arXiv:1509.09308; Toom 1963; Cook 1966.

    Examples
    --------
    >>> winograd_matrices(2, 3).a_t[1]
    (Fraction(0, 1), Fraction(-1, 1), Fraction(1, 1), Fraction(1, 1))
    """
    check_form(m, r)
    tile = m + r - 1
    finite = default_points(m, r) if points is None else tuple(Fraction(p) for p in points)
    if len(finite) != tile - 1:
        raise ValueError(f"points has {len(finite)} entries: F({m},{r}) needs m + r - 2 = {tile - 1}, infinity apart")
    if len(set(finite)) != len(finite):
        raise ValueError(f"points must be distinct, got {[str(p) for p in finite]}")

    a_t = [[p**i for p in finite] + [Fraction(int(i == m - 1))] for i in range(m)]
    g: list[list[Fraction]] = []
    b_t: list[list[Fraction]] = []
    for j, p in enumerate(finite):
        others = [q for i, q in enumerate(finite) if i != j]
        norm = Fraction(1)
        for q in others:
            norm *= p - q
        g.append([p**k / norm for k in range(r)])
        b_t.append([*_from_roots(others), Fraction(0)])
    g.append([Fraction(int(k == r - 1)) for k in range(r)])
    b_t.append(_from_roots(finite))
    if scale:
        for row_g, row_b in zip(g, b_t, strict=True):
            factor = _power_of_two(max(map(abs, row_b)) / max(map(abs, row_g)))
            row_g[:] = [v * factor for v in row_g]
            row_b[:] = [v / factor for v in row_b]
    made = WinogradMatrices(m=m, r=r, points=finite, a_t=_freeze(a_t), g=_freeze(g), b_t=_freeze(b_t))
    if not is_exact(made):
        raise AssertionError(f"F({m},{r}) over {finite} fails its identity")
    return made


def is_exact(mats: WinogradMatrices) -> bool:
    """Whether ``A^T[(G e_k) * (B^T e_l)]`` is 1 where output i reads input l through tap k (l = i + k), else 0."""
    tile = mats.m + mats.r - 1
    for i in range(mats.m):
        for k in range(mats.r):
            for pos in range(tile):
                total = sum((mats.a_t[i][j] * mats.g[j][k] * mats.b_t[j][pos] for j in range(tile)), Fraction(0))
                if total != (1 if pos == i + k else 0):
                    return False
    return True


def _from_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of prod (z - a), low degree first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        for i, value in enumerate(coefficients):
            shifted[i] -= root * value
        coefficients = shifted
    return coefficients


def _power_of_two(ratio: Fraction) -> Fraction:
    """Power of two nearest to sqrt(ratio) from below, so that scaled rows of G and B^T have similar maxima."""
    exponent = (frexp(float(ratio))[1] - 1) // 2
    return Fraction(2) ** exponent


def _freeze(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
