"""Goals, ratios, the best algorithm, curves and the JSON of ``bench --kernels``, on made-up figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fastcnn.benchmarking.kernels import CHARTS, AlgorithmTime, Goal, KernelsResult, Layer, LayerCell
from fastcnn.benchmarking.kernels.curves import BEST, crossover, exponent, line_curves, line_points, summary
from fastcnn.benchmarking.kernels.points import join
from tests.benchmarking.kernel_results import by_kernel, cell, engine, point, result

BOTH = (Goal(peers=("torch", "openvino"), ratio=0.3), Goal(peers=("ncnn", "mnn"), ratio=0.6))


def test_each_goal_is_held_against_the_best_of_its_own_peers() -> None:
    found = cell(
        engine("fastcnn"), engine("torch", 0.1), engine("openvino", 0.29), engine("ncnn", 0.2), engine("mnn", 0.59),
        goals=BOTH,
    )  # fmt: skip
    assert found.missed() == ""
    chosen = [found.best(goal.peers) for goal in BOTH]
    assert [best.engine if best else "" for best in chosen] == ["openvino", "mnn"]
    best = found.best()
    assert best is not None
    assert best.engine == "mnn"
    assert found.to_json()["met"] is True


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (cell(engine("fastcnn"), engine("openvino", 0.31)), "0.310 of openvino's time, the goal is 0.3"),
        (
            cell(engine("fastcnn"), engine("openvino", 0.2), engine("mnn", 0.61), goals=BOTH),
            "0.610 of mnn's time, the goal is 0.6",
        ),
        (cell(engine("fastcnn"), engine("openvino", 0.2), goals=BOTH), "no ratio against ncnn, mnn"),
        (cell(engine("fastcnn", error=2e-4), engine("torch", 0.1)), "error 0.0002 is above 0.0001"),
        (cell(engine("fastcnn", error=None), engine("torch", 0.1)), "error None is above 0.0001"),
        (cell(engine("fastcnn"), engine("torch", 0.1), engine("openvino", failure="it died")), "openvino: it died"),
        (cell(engine("fastcnn", failure="no file"), engine("torch")), "fastcnn: no file"),
        (cell(failure="the tuner died"), "the tuner died"),
    ],
)
def test_what_is_not_good_enough_is_said(found: LayerCell, said: str) -> None:
    assert said in found.missed()
    assert found.to_json()["met"] is False


def test_the_best_algorithm_keeps_the_error_of_the_tolerance() -> None:
    found = point(Layer(kernel=7), {"direct": 4.0, "fft:16": 1.0, "winograd:4": 2.0})
    assert found.best is not None
    assert (found.best.algorithm, found.gain) == ("fft:16", 4.0)
    coarse = replace(found.algorithms[1], error=2e-4)
    careful = replace(found, algorithms=(found.algorithms[0], coarse, found.algorithms[2]))
    assert careful.best is not None
    assert (careful.best.algorithm, careful.gain) == ("winograd:4", 2.0)


def test_the_gain_is_the_median_of_ratios_of_the_same_round() -> None:
    base = point(Layer(kernel=7), {"direct": 1.0})
    times = (
        AlgorithmTime(algorithm="direct", block_ms=(8.0, 20.0, 6.0), error=0.0),
        AlgorithmTime(algorithm="fft:16", block_ms=(2.0, 4.0, 1.0), error=0.0),
    )
    # 4, 5 and 6; the medians of the times would give 8 / 2. The machine was slow in the second round.
    assert replace(base, algorithms=times).gain == 5.0
    assert times[1].ms == 2.0
    assert times[1].spread == 1.5


def test_a_point_without_figures_says_why() -> None:
    base = point(Layer(kernel=7), {"direct": 1.0, "fft:16": 0.5})
    assert base.missed() == ""
    assert replace(base, failure="it died", algorithms=()).missed() == "it died"
    assert "no algorithm has an error of at most 0.0001" in point(Layer(kernel=7), {"direct": 1.0}, error=1.0).missed()
    only_fft = replace(base, algorithms=base.algorithms[1:])
    assert only_fft.missed() == "the direct algorithm was not timed"
    assert only_fft.gain is None


def test_direct_is_a_square_and_fft_is_flat() -> None:
    chart = CHARTS[0]
    found = result(*by_kernel())
    curves = {curve.name: curve for curve in line_curves(found, chart, 0, "avx512")}
    assert list(curves) == ["direct", BEST, "fft:32"]
    assert curves["direct"].x == tuple(range(3, 32, 2))
    assert exponent(curves["direct"]) == pytest.approx(2.0)
    assert exponent(curves["fft:32"]) == pytest.approx(0.0, abs=1e-12)
    # 0.01 k^2 < 0.5 up to k = 7.
    assert [t.algorithm for t in curves[BEST].times[:4]] == ["direct", "direct", "direct", "fft:32"]
    assert crossover(line_points(found, chart, 0, "avx512")) == 9
    grows, line = summary(found)
    assert grows == "avx512: 15x15 and 31x31 take best 1.0 and 1.0, direct 4.6 and 19.6 times as long as 7x7"
    assert "avx512, along kernel size k: direct grows as its power 2.00" in line
    assert "direct is overtaken from 9 on" in line


def test_a_lone_win_is_no_crossover() -> None:
    times = [{"direct": 1.0, "fft:16": 0.5}, {"direct": 1.0, "fft:16": 2.0}, {"direct": 2.0, "fft:16": 1.0}]
    points = [(k, point(Layer(kernel=k), t)) for k, t in zip((3, 5, 7), times, strict=True)]
    assert crossover(points) == 7
    assert crossover(points[:2]) is None


def test_curves_leave_out_what_has_no_figures() -> None:
    first = point(Layer(kernel=3), {"direct": 1.0, "winograd:4": 0.5})
    failed = AlgorithmTime(algorithm="fft:64", failure="transformed weights would take 6.0 GiB")
    second = point(Layer(kernel=5), {"direct": 2.0})
    found = result(replace(first, algorithms=(*first.algorithms, failed)), second)
    curves = {curve.name: curve.x for curve in line_curves(found, CHARTS[0], 0, "avx512")}
    assert curves == {"direct": (3, 5), BEST: (3, 5), "winograd:4": (3,)}
    assert exponent(line_curves(found, CHARTS[0], 0, "avx512")[-1]) is None


def test_rounds_are_joined_in_order() -> None:
    def answer(ms: float, error: float = 1e-7, failure: str = "") -> list[dict[str, object]]:
        record = {"algorithm": "direct", "way": f"way{ms}", "ms": ms, "error": error, "failure": failure}
        return [record]

    (found,) = join([answer(2.0, 3e-7), answer(1.0)])
    assert found == AlgorithmTime(algorithm="direct", block_ms=(2.0, 1.0), way="way1.0", error=3e-7)
    (broken,) = join([answer(2.0), answer(1.0, failure="outputs are not finite")])
    assert broken == AlgorithmTime(algorithm="direct", failure="outputs are not finite")
    with pytest.raises(ValueError, match="the rounds tried different algorithms"):
        join([answer(1.0), []])


def test_the_document_survives_its_json() -> None:
    cells = cell(engine("fastcnn"), engine("torch", 0.2)), cell(failure="x", row="training")
    found = result(*by_kernel(), *by_kernel("avx2"), cells=cells)
    assert KernelsResult.loads(found.dumps()) == found
    assert found.isas == ("avx512", "avx2")
    data = json.loads(found.dumps())
    assert data["cells"][0]["ratio"] == 0.2
    assert data["cells"][0]["commit"] == "c0ffee"
    assert data["points"][0]["gain"] == 1.0
    assert data["points"][0]["algorithms"][0]["spread"] == pytest.approx(0.1 / 1.05)


def test_a_new_measurement_takes_the_place_of_the_old_one() -> None:
    old, new = cell(failure="x"), cell(engine("fastcnn"), engine("torch", 0.2))
    found = result(cells=(old,)).having(new).having(by_kernel()[0]).having(by_kernel("avx2")[0])
    assert found.cells == (new,)
    assert len(found.points) == 2
    again = replace(by_kernel()[0], date="tomorrow")
    assert found.having(again).point("avx512", "k3-c64-m56-b1") == again
    assert len(found.having(again).points) == 2


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"kind": "exact"}', '{"kind": "kernels"}', '{"kind": "kernels", "isa": "x", "cells": [{}]}'],
)
def test_a_foreign_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON of bench --kernels"):
        KernelsResult.loads(text)
