"""Search for the points of F(m, r) that lose least in float32.

Two steps. The growth of a form (:mod:`fastcnn.methods.transforms.winograd.error`) is computed for every set of
candidates where those can be counted out, else for the sets that exchanging one point after another leads to from
random starts; it predicts the measured error within a third or so. The sets of least growth are then measured, and
ranked by what was measured, beside the published table's points.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.winograd.error import FormBounds, FormError, bound_form, measure_form
from fastcnn.methods.transforms.winograd.matrices import winograd_matrices
from fastcnn.methods.transforms.winograd.point_sets import Block, PointSets
from fastcnn.methods.transforms.winograd.points import (
    POINTS,
    check_count,
    check_form,
    default_points,
    simple_rationals,
)

CANDIDATES: tuple[Fraction, ...] = simple_rationals(5)
"""0 and all +-p/q with p and q up to 5: 39 points."""

MOST_SETS = 200_000
"""Sets of candidates that are counted out; where there are more, points are exchanged."""

_CHUNK = 1 << 14
"""Sets whose growth is computed at once."""

Points = tuple[Fraction, ...]
Advance = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class PointScore:
    """One set of points: its measured errors, its figures, and where it comes from ("search", "table" or "given")."""

    points: Points
    error: FormError
    bounds: FormBounds
    source: str

    def to_json(self) -> dict[str, Any]:
        """Points as text, numbers flat."""
        named = {"points": [str(p) for p in self.points], "source": self.source}
        return named | asdict(self.error) | asdict(self.bounds)


@dataclass(frozen=True, kw_only=True)
class PointSearch:
    """Sets of points for F(m, r), the least measured error of images (``rms_2d``) first.

    Parameters
    ----------
    examined : int
        Sets whose growth was computed; a set and its mirror image count once.
    exhaustive : bool
        Whether those were all there are.
    ranked : tuple of PointScore
    """

    m: int
    r: int
    pairs: bool
    trials: int
    seed: int
    examined: int
    exhaustive: bool
    ranked: tuple[PointScore, ...]

    @property
    def best(self) -> PointScore:
        """The set with the least measured error."""
        return self.ranked[0]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        fields = ("m", "r", "pairs", "trials", "seed", "examined", "exhaustive")
        return {name: getattr(self, name) for name in fields} | {"ranked": [score.to_json() for score in self.ranked]}

    def __str__(self) -> str:
        how = "all" if self.exhaustive else "by exchange"
        lines = [
            f"F({self.m},{self.r}): {self.examined:,} sets examined ({how}), {len(self.ranked)} measured on "
            f"{self.trials} tiles, seed {self.seed}",
            "  max 2-D   rms 2-D   max 1-D   rms 1-D   growth     norms     cond.  points",
        ]
        for s in self.ranked:
            e, b = s.error, s.bounds
            numbers = (e.max_2d, e.rms_2d, e.max_1d, e.rms_1d)
            mark = "" if s.source == "search" else f"  ({s.source})"
            lines.append(
                " ".join(f"{v:9.2e}" for v in numbers)
                + f" {b.growth:8.2f} {b.norm_product:9.3g} {b.condition:9.3g}  {' '.join(map(str, s.points))}{mark}"
            )
        return "\n".join(lines)


def search_points(
    m: int,
    r: int,
    *,
    candidates: Sequence[Fraction | int | str] = CANDIDATES,
    pairs: bool = False,
    beside: Sequence[Sequence[Fraction | int | str]] = (),
    trials: int = 2000,
    keep: int = 16,
    starts: int = 16,
    seed: int = 0,
    progress: bool | None = None,
) -> PointSearch:
    """Search the points of F(m, r) among candidates, and measure the best.

    Parameters
    ----------
    m, r : int
        Outputs per tile and kernel taps, at least 1, and at least 3 together.
    candidates : sequence of distinct rationals
        What points are chosen from; at least m + r - 2.
    pairs : bool
        Only pairs c, -c, and 0 where m + r is even. The two rows of a pair differ in signs only, so that kernels
        compute their even and odd halves once. Other candidates are passed over.
    beside : sequence of sets of points
        To be measured too, such as a kernel's own. The published table's set always is.
    trials : int
        Random tiles per measured set.
    keep : int
        Sets of least growth that are measured.
    starts : int
        Random starts of exchanging, where the sets are too many to count out.
    seed : int
        Decides starts and tiles; the same seed gives the same result.
    progress : bool, optional
        A bar on stderr; by default only if that is a terminal.

    Returns
    -------
    PointSearch
        ``print`` shows a table, ``to_json()`` gives a record.

    Raises
    ------
    TypeError
        If m, r, trials, keep, starts or seed is no integer.
    ValueError
        If one of them is too small, a candidate is repeated, or the candidates are too few.

    References
    ----------
    Barabasz et al. 2018, arXiv:1803.10986, by measured error alone; Alam et al. 2022,
    arXiv:2201.10369, among groups of c, -c, 1/c, -1/c.

    Examples
    --------
    >>> found = search_points(2, 3, candidates=["0", "1", "-1", "2", "-2"], trials=200, progress=False)
    >>> sorted(map(str, found.best.points))
    ['-1', '0', '1']
    """
    check_form(m, r)
    for name, value, least in (("trials", trials, 1), ("keep", keep, 1), ("starts", starts, 1), ("seed", seed, 0)):
        check_count(name, value, least)
    count = m + r - 2
    if count < 1:
        raise ValueError("F(1,1) has no finite points: there is nothing to search; m + r must be at least 3")
    sets = PointSets(tuple(Fraction(c) for c in candidates), count, pairs)
    exhaustive = len(sets) <= MOST_SETS
    wanted = [(tuple(Fraction(p) for p in points), "given") for points in beside]
    if count <= len(POINTS):
        wanted.append((default_points(m, r), "table"))
    rounds = -(-len(sets) // _CHUNK) if exhaustive else starts
    with _bar(f"points of F({m},{r})", rounds + keep + len(wanted), progress) as advance:
        found = _count_out(m, r, sets, advance) if exhaustive else _exchange(m, r, sets, starts, seed, advance)
        ordered = sorted(found, key=lambda members: (found[members], members))
        wanted += [(sets.points(members), "search") for members in ordered[:keep]]
        scores: dict[Points, PointScore] = {}
        for points, source in wanted:
            if _unsigned(points) not in scores:
                form = winograd_matrices(m, r, points)
                error = measure_form(form, trials=trials, seed=seed)
                score = PointScore(points=points, error=error, bounds=bound_form(form), source=source)
                scores[_unsigned(points)] = score
            advance()
    ranked = tuple(sorted(scores.values(), key=lambda score: (score.error.rms_2d, score.points)))
    return PointSearch(
        m=m, r=r, pairs=pairs, trials=trials, seed=seed, examined=len(found), exhaustive=exhaustive, ranked=ranked
    )


def growths(m: int, r: int, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Growth of F(m, r), shape (S,), for many sets of finite points at once, shape (S, m + r - 2).

    The same figure as :func:`bound_form` gives for one, without exact matrices.
    """
    many, count = points.shape
    differences = points[:, :, None] - points[:, None, :]
    differences[:, np.arange(count), np.arange(count)] = 1.0
    powers = points[:, :, None] ** np.arange(max(m, r))
    g_rows = ((powers[:, :, :r] / differences.prod(2)[:, :, None]) ** 2).sum(2)
    b_rows = np.empty((many, count))
    whole = np.zeros((many, count + 1))
    whole[:, 0] = 1.0
    for j in range(count):
        part = np.zeros((many, count))
        part[:, 0] = 1.0
        for i in range(count):
            if i != j:
                part = _times_root(part, points[:, i])
        b_rows[:, j] = (part**2).sum(1)
        whole = _times_root(whole, points[:, j])
    terms = ((powers[:, :, :m] ** 2) * (g_rows * b_rows)[:, :, None]).sum(1)
    terms[:, m - 1] += (whole**2).sum(1)
    growth: npt.NDArray[np.float64] = np.sqrt(terms.mean(1) / r)
    return growth


def _times_root(coefficients: npt.NDArray[np.float64], roots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Coefficients (S, n), low degree first, of polynomials times (z - root), whose degree stays below n."""
    product = -roots[:, None] * coefficients
    product[:, 1:] += coefficients[:, :-1]
    return product


def _count_out(m: int, r: int, sets: PointSets, advance: Advance) -> dict[Block, float]:
    """Growth of every set."""
    found: dict[Block, float] = {}
    every = sets.all()
    while chunk := list(itertools.islice(every, _CHUNK)):
        found.update(zip(chunk, growths(m, r, sets.values[np.array(chunk)]).tolist(), strict=True))
        advance()
    return found


def _exchange(m: int, r: int, sets: PointSets, starts: int, seed: int, advance: Advance) -> dict[Block, float]:
    """Growth of the sets met on the way down from random starts, one block exchanged for the best other at a time."""
    found: dict[Block, float] = {}
    rng = np.random.default_rng(seed)
    for _ in range(starts):
        at, growth = sets.random(rng), float("inf")
        while True:
            near = {sets.canonical_of(chosen): chosen for chosen in [at, *sets.neighbours(at)]}
            fresh = [members for members in near if members not in found]
            if fresh:
                found.update(zip(fresh, growths(m, r, sets.values[np.array(fresh)]).tolist(), strict=True))
            best = min(near, key=lambda members: (found[members], members))
            if found[best] >= growth:
                break
            at, growth = near[best], found[best]
        advance()
    return found


def _unsigned(points: Points) -> Points:
    """The same for two sets that differ in order, or in the signs of all points."""
    return min(tuple(sorted(points)), tuple(sorted(-p for p in points)))


def _bar(title: str, total: int, progress: bool | None) -> AbstractContextManager[Advance]:
    """A bar on stderr, drawn only on a terminal, or nothing."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return nullcontext(lambda: None)
    from fastcnn.cli.output import progress_bar

    return progress_bar(title, total)
