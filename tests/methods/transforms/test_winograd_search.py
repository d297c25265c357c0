"""Errors of forms are measured right, computed figures predict them, and the search finds the points of least error."""

from __future__ import annotations

import io
import itertools
import json
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fastcnn.methods.transforms.winograd import (
    CANDIDATES,
    POINTS,
    PointSearch,
    bound_form,
    default_points,
    measure_form,
    search_points,
    searched_points,
    simple_rationals,
    winograd_matrices,
)
from fastcnn.methods.transforms.winograd.search import growths

KERNELS = {
    4: "0 1 -1",
    6: "0 2/3 -2/3 3/2 -3/2",
    8: "0 1 -1 1/2 -1/2 2 -2",
    10: "0 2/5 -2/5 4/5 -4/5 5/4 -5/4 7/3 -7/3",
}
"""Points of the native kernels by tile size; test_native_matrices compares them with the kernels' own."""
HALF_UNIT = 2.0**-24
SMALL = ("0", "1", "-1", "1/2", "-1/2", "2", "-2", "3/2", "-3/2", "2/3", "-2/3")


def unsigned(points: Any) -> frozenset[tuple[Fraction, ...]]:
    """A set of points and its mirror image."""
    return frozenset((tuple(sorted(points)), tuple(sorted(-p for p in points))))


def random_sets(seed: int, count: int, many: int) -> list[tuple[Fraction, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(CANDIDATES[i] for i in rng.choice(len(CANDIDATES), count, replace=False)) for _ in range(many)]


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 7), (1, 4), (5, 1)])
def test_growth_is_that_of_random_products(m: int, r: int) -> None:
    """The definition, on samples: the mean square of the products that are summed, over that of the outputs."""
    form = winograd_matrices(m, r)
    a_t, g, b_t = form.arrays()
    rng = np.random.default_rng(0)
    taps, tiles = rng.standard_normal((r, 40_000)), rng.standard_normal((m + r - 1, 40_000))
    summed = (a_t**2) @ ((g @ taps) * (b_t @ tiles)) ** 2
    growth = np.sqrt(summed.mean() / r)
    assert bound_form(form).growth == pytest.approx(growth, rel=0.05)


@pytest.mark.parametrize(("m", "r"), [(1, 2), (2, 3), (4, 3), (6, 3), (8, 3), (4, 7)])
def test_growths_of_many_are_those_of_each(m: int, r: int) -> None:
    sets = random_sets(m, m + r - 2, 20)
    found = growths(m, r, np.array([[float(p) for p in points] for points in sets]))
    assert found == pytest.approx([bound_form(winograd_matrices(m, r, points)).growth for points in sets], rel=1e-9)


def test_growth_does_not_depend_on_scaling() -> None:
    scaled, plain = (bound_form(winograd_matrices(6, 3, scale=scale)) for scale in (True, False))
    assert scaled.growth == pytest.approx(plain.growth, rel=1e-12)
    assert scaled.condition == plain.condition
    assert scaled.norm_product == pytest.approx(plain.norm_product, rel=1e-12)


@pytest.mark.parametrize(("m", "r"), [(4, 3), (6, 3), (4, 5), (8, 3)])
def test_growth_predicts_the_measured_error(m: int, r: int) -> None:
    sets = random_sets(1, m + r - 2, 25)
    forms = [winograd_matrices(m, r, points) for points in sets]
    growth = np.array([bound_form(form).growth for form in forms])
    measured = [measure_form(form, trials=400) for form in forms]
    images = np.array([error.rms_2d for error in measured]) / (growth**2 * HALF_UNIT)
    lines = np.array([error.rms_1d for error in measured]) / (growth * HALF_UNIT)
    for ratio in (images, lines):
        assert ratio.min() > 0.5
        assert ratio.max() < 2.0
    bounds = [bound_form(form) for form in forms]
    ranks = [
        np.argsort(np.argsort(values))
        for values in (
            [error.rms_2d for error in measured],
            growth,
            [bound.norm_product for bound in bounds],
            [bound.condition for bound in bounds],
        )
    ]
    by_growth, *others = (np.corrcoef(ranks[0], rank)[0, 1] for rank in ranks[1:])
    assert by_growth > 0.97
    assert by_growth > max(others), "the bounds of the worst case rank less well"


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (8, 3)])
def test_no_error_exceeds_the_bound(m: int, r: int) -> None:
    """In the 1-norm, tile by tile: roundings of three matrices, three sums and one product."""
    form = winograd_matrices(m, r)
    tile = m + r - 1
    rng = np.random.default_rng(2)
    tiles = rng.uniform(-1, 1, (5000, tile)).astype(np.float32)
    taps = rng.uniform(-1, 1, (5000, r)).astype(np.float32)
    a_t, g, b_t = form.arrays(np.float32)
    got = ((taps @ g.T) * (tiles @ b_t.T)) @ a_t.T
    want = np.stack([(tiles[:, i : i + r].astype(float) * taps).sum(1) for i in range(m)], axis=1)
    roundings = (tile + 1) + (r + 1) + (tile + 1) + 1
    size = np.linalg.norm(taps.astype(float), axis=1) * np.linalg.norm(tiles.astype(float), axis=1)
    bound = bound_form(form).norm_product * size * roundings * HALF_UNIT
    error = np.abs(got - want).sum(1)
    assert (error <= bound).all()
    assert error.max() > 0


def test_the_condition_is_that_of_evaluating_a_polynomial() -> None:
    """F(2, 2) over 0 and 1: coefficients (a, b, c) to values at 0, 1 and infinity."""
    evaluation = np.array([[1.0, 0, 0], [1, 1, 1], [0, 0, 1]])
    largest, *_, least = np.linalg.svd(evaluation, compute_uv=False)
    assert bound_form(winograd_matrices(2, 2, (0, 1))).condition == pytest.approx(largest / least, rel=1e-12)


def test_measuring_is_repeatable_and_sees_a_wrong_matrix() -> None:
    form = winograd_matrices(4, 3)
    assert measure_form(form, trials=50, seed=3) == measure_form(form, trials=50, seed=3)
    assert measure_form(form, trials=50, seed=3) != measure_form(form, trials=50, seed=4)
    rows = [list(row) for row in form.b_t]
    rows[1][1] += Fraction(1, 1000)
    wrong = type(form)(m=4, r=3, points=form.points, a_t=form.a_t, g=form.g, b_t=tuple(map(tuple, rows)))
    bad = measure_form(wrong, trials=50, seed=3)
    assert min(bad.max_1d, bad.rms_1d, bad.max_2d, bad.rms_2d) > 1e-5


def test_direct_correlation_has_growth_one() -> None:
    """F(1, r) over no points but those of a tile as long as the kernel is r products, each once."""
    assert bound_form(winograd_matrices(1, 1)).growth == 1.0
    error = measure_form(winograd_matrices(1, 1), trials=500)
    assert 0 < error.rms_1d < HALF_UNIT


@pytest.mark.parametrize("tile", range(2, 13))
def test_the_searched_points_lose_least(tile: int) -> None:
    """Beside the published table's, whatever the kernel's size; pairs, so that kernels share halves as before."""
    for r in {2, 3, 5, 7} & set(range(2, tile + 1)):
        m = tile + 1 - r
        searched, table = searched_points(m, r), default_points(m, r)
        if searched == table:
            assert tile in (2, 3, 4, 8, 11)
            continue
        assert set(searched) == {-p for p in searched}
        ours, theirs = (measure_form(winograd_matrices(m, r, points), trials=1000) for points in (searched, table))
        assert ours.rms_2d < (0.8 if tile < 12 else 0.9) * theirs.rms_2d, (m, r)
        assert ours.max_2d < theirs.max_2d, (m, r)


def test_better_points_cost_a_kernel_nothing() -> None:
    """Each coefficient that is not zero is one instruction, whatever its value."""
    integers, kernel = (winograd_matrices(4, 3, points.split()) for points in ("0 1 -1 2 -2", KERNELS[6]))
    nonzeros = [sum(value != 0 for row in (*form.a_t, *form.b_t) for value in row) for form in (integers, kernel)]
    assert nonzeros[0] == nonzeros[1] == bound_form(integers).nonzeros == bound_form(kernel).nonzeros == 40


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("m", "r"), [(2, 3), (3, 3), (4, 3), (2, 5)])
def test_counting_out_finds_the_least_growth(m: int, r: int, pairs: bool) -> None:
    """Against every subset of the candidates, tried one by one."""
    found = search_points(m, r, candidates=SMALL, pairs=pairs, trials=20, keep=3, progress=False)
    assert found.exhaustive
    count = m + r - 2
    every = [set(map(Fraction, points)) for points in itertools.combinations(SMALL, count)]
    if pairs:
        every = [points for points in every if points == {-p for p in points}]
    assert found.examined == len({unsigned(points) for points in every})
    least = sorted(bound_form(winograd_matrices(m, r, sorted(points))).growth for points in every)
    assert min(s.bounds.growth for s in found.ranked) == pytest.approx(least[0], rel=1e-9)


def test_exchanging_finds_what_counting_out_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(pairs: bool) -> PointSearch:
        return search_points(4, 3, candidates=SMALL, pairs=pairs, trials=20, keep=1, starts=6, progress=False)

    ways = [search(False), search(True)]
    monkeypatch.setattr("fastcnn.methods.transforms.winograd.search.MOST_SETS", 0)
    ways += [search(False), search(True)]
    assert [way.exhaustive for way in ways] == [True, True, False, False]
    assert [unsigned(way.best.points) for way in ways[:2]] == [unsigned(way.best.points) for way in ways[2:]]
    assert ways[2].examined < ways[0].examined


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (4, 7)])
def test_nothing_better_is_found_than_the_kernels_points(m: int, r: int) -> None:
    """Of tiles of 10 there are some as good, within five percent: one set serves all forms of a tile."""
    tile = m + r - 1
    kernel, integers = tuple(map(Fraction, KERNELS[tile].split())), tuple(map(Fraction, (0, 1, -1, 2, -2)))
    assert unsigned(kernel) == unsigned(searched_points(m, r))
    found = search_points(
        m, r, candidates=simple_rationals(8), pairs=True, beside=[kernel, *[integers] * (tile == 6)], keep=4,
        progress=False,
    )  # fmt: skip
    score = next(s for s in found.ranked if unsigned(s.points) == unsigned(kernel))
    if tile < 10:
        assert found.best is score
    assert score.error.rms_2d <= 1.05 * found.best.error.rms_2d
    if tile == 6:
        by_integers = next(s for s in found.ranked if unsigned(s.points) == unsigned(integers))
        assert score.error.rms_2d * 2 < by_integers.error.rms_2d
    if tile in (6, 10):
        published = next(s for s in found.ranked if s.points == default_points(m, r))
        assert score.error.rms_2d * 1.4 < published.error.rms_2d


def test_the_search_is_repeatable_prints_and_records_itself() -> None:
    first, again = (search_points(6, 3, trials=50, keep=3, starts=2, seed=5, progress=False) for _ in range(2))
    assert first == again
    assert not first.exhaustive
    assert [s.error.rms_2d for s in first.ranked] == sorted(s.error.rms_2d for s in first.ranked)
    record = json.loads(json.dumps(first.to_json()))
    assert (record["m"], record["r"], record["seed"], record["trials"]) == (6, 3, 5, 50)
    assert [tuple(map(Fraction, s["points"])) for s in record["ranked"]] == [s.points for s in first.ranked]
    assert record["ranked"][0]["rms_2d"] == first.best.error.rms_2d
    assert record["ranked"][0]["growth"] == first.best.bounds.growth
    lines = str(first).splitlines()
    assert lines[0].startswith("F(6,3): ")
    assert "by exchange" in lines[0]
    assert len(lines) == 2 + len(first.ranked)
    for line, score in zip(lines[2:], first.ranked, strict=True):
        assert f"{score.error.rms_2d:.2e}" in line
        assert " ".join(map(str, score.points)) in line
    assert sum("(table)" in line for line in lines) == 1


class Terminal(io.StringIO):
    """Takes what is drawn on stderr."""

    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stand in for stderr: from within a test, as pytest replaces it between a fixture and its test."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_without_a_terminal_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    search_points(2, 3, candidates=SMALL, trials=5, keep=1)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_is_drawn_unless_it_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    search_points(2, 3, candidates=SMALL, trials=5, keep=1, progress=False)
    assert terminal.getvalue() == ""
    search_points(2, 3, candidates=SMALL, trials=5, keep=1)
    assert "points of F(2,3)" in terminal.getvalue()


def test_an_interrupt_ends_the_search_and_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastcnn.methods.transforms.winograd.search.measure_form", stop)
    with pytest.raises(KeyboardInterrupt):
        search_points(2, 3, candidates=SMALL)
    hidden, shown = (terminal.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown, "the cursor is hidden while the bar is drawn, and shown again"


def test_simple_rationals_come_in_lowest_terms_and_both_signs() -> None:
    made = simple_rationals(4)
    assert made[:3] == (0, 1, -1)
    assert len(set(made)) == len(made)
    assert set(made) == {Fraction(s * p, q) for p in range(5) for q in range(1, 5) for s in (1, -1)}
    assert default_points(2, 3) == (0, -1, 1)
    assert len(default_points(8, 7)) == 13 == len(POINTS)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: search_points(1, 1), ValueError, "no finite points"),
        (lambda: search_points(0, 3), ValueError, "m=0"),
        (lambda: search_points(2, 3, trials=0), ValueError, "trials=0"),
        (lambda: search_points(2, 3, keep=1.5), TypeError, r"keep must be an integer, got 1\.5"),  # type: ignore[arg-type]
        (lambda: search_points(2, 3, seed=-1), ValueError, "seed=-1"),
        (lambda: search_points(4, 3, candidates=(0, 1, -1)), ValueError, "3 points and a set needs 5"),
        (lambda: search_points(2, 3, candidates=(0, 1, "1/2", "2/4")), ValueError, "distinct, got 1/2"),
        (lambda: search_points(4, 3, candidates=(0, 1, -1, 2), pairs=True), ValueError, "got 1 pairs and 0"),
        (lambda: search_points(2, 3, candidates=(1, -1, 2), pairs=True), ValueError, "got 1 pairs without 0"),
        (lambda: search_points(2, 3, beside=[(0, 1)]), ValueError, "points has 2 entries"),
        (lambda: measure_form(winograd_matrices(2, 3), trials=0), ValueError, "trials=0"),
        (lambda: default_points(20, 3), ValueError, "pass points="),
        (lambda: simple_rationals(0), ValueError, "largest=0"),
    ],
)
def test_bad_arguments_are_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
