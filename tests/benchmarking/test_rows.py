"""Suite exact: its rows, what counts as met, and that a stopped run goes on where it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcnn.benchmarking import (
    ROW_SUITES,
    SUITES,
    BenchResult,
    Cell,
    EngineResult,
    NetResult,
    Row,
    RowsResult,
    run_rows,
)
from fastcnn.benchmarking.engines import KNOWN_PEERS
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.rows import EXACT_ROWS, skip_reason
from fastcnn.cli.errors import BAD_INPUT, DONE, GOAL_MISSED
from fastcnn.cli.main import run_cli

_ROWSUITE = sys.modules["fastcnn.benchmarking.rowsuite"]
_ROWS = sys.modules["fastcnn.benchmarking.rows"]


def test_every_row_names_known_peers_and_nets() -> None:
    assert len({row.name for row in EXACT_ROWS}) == len(EXACT_ROWS) == 6
    for row in EXACT_ROWS:
        assert set(row.peers) <= set(KNOWN_PEERS)
        assert list(row.goals) == list(SUITES["exact"])
        assert all(0 < goal < 2 for goal in row.goals.values())
    goals = {row.name: row.goals for row in EXACT_ROWS}
    assert goals["batch1"]["vgg16"] == 0.72
    assert goals["batch8"]["vgg16"] == 0.33
    assert goals["avx2"]["mobilenetv2"] == 1.35
    assert goals["one-thread"]["resnet50"] == 0.95


def engine(name: str, ratio: float | None = None, *, error: float | None = 1e-6, failure: str = "") -> EngineResult:
    blocks = () if failure else (1.0, 1.0, 1.1)
    return EngineResult(engine=name, version="1", block_ms=blocks, error=error, ratio=ratio, failure=failure, calls=9)


def cell(*engines: EngineResult, goal: float | None = 0.7, max_error: float | None = 1e-4, failure: str = "") -> Cell:
    net = NetResult(net="tiny", shape=(1, 3, 8, 8), engines=engines, isa="avx2") if engines else None
    return Cell(
        row="batch1", net="tiny", goal=goal, max_error=max_error, result=net, failure=failure, commit="c", date="d",
        settings={"rounds": 3},
    )  # fmt: skip


def test_the_best_peer_is_the_one_hardest_to_beat() -> None:
    found = cell(engine("fastcnn"), engine("torch", 0.3), engine("mnn", 0.65), engine("ncnn", 0.6))
    assert (found.best.engine if found.best else "", found.ratio) == ("mnn", 0.65)
    assert found.missed() == ""
    assert found.to_json()["met"] is True


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (cell(engine("fastcnn"), engine("mnn", 0.71)), "0.710 of mnn's time, the goal is 0.7"),
        (cell(engine("fastcnn", error=2e-4), engine("mnn", 0.5)), "error 0.0002 is above 0.0001"),
        (cell(engine("fastcnn", error=None), engine("mnn", 0.5)), "error None is above 0.0001"),
        (cell(engine("fastcnn"), engine("mnn", 0.5), engine("ncnn", failure="it died")), "ncnn: it died"),
        (cell(engine("fastcnn", failure="no file"), engine("mnn")), "fastcnn: no file"),
        (cell(failure="the tuner died"), "the tuner died"),
        (cell(engine("fastcnn")), "no ratio"),
        (cell(engine("fastcnn", error=3e-3), engine("ov", 0.5, error=2e-3), max_error=None), "the peer's is 0.002"),
    ],
)
def test_what_is_not_good_enough_is_said(found: Cell, said: str) -> None:
    assert said in found.missed()
    assert found.to_json()["met"] is False


def test_an_error_below_the_peers_is_allowed_where_the_row_says_so() -> None:
    assert cell(engine("fastcnn", error=1e-3), engine("ov", 0.5, error=2e-3), max_error=None).missed() == ""
    assert cell(engine("fastcnn"), engine("ov", 5.0), goal=None).missed() == ""


def test_a_cell_survives_its_json() -> None:
    found = cell(engine("fastcnn"), engine("mnn", 0.71))
    assert Cell.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert Cell.from_json(json.loads(json.dumps(cell(failure="x").to_json()))) == cell(failure="x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON of a suite"),
        ('{"suite": "exact", "host": {"cpu": "A"}}', "no JSON of a suite"),
        ('{"suite": "exact", "host": {"cpu": "A"}, "cells": [{}]}', "no JSON of a suite"),
        ('{"suite": "other", "host": {"cpu": "A"}, "cells": []}', "holds suite 'other'"),
        ('{"suite": "exact", "host": {"cpu": "B"}, "cells": []}', "measured on 'B', this machine is 'A'"),
    ],
)
def test_a_foreign_file_is_not_continued(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RowsResult.kept_cells(text, suite="exact", cpu="A")


ROWS = (
    Row(name="one", title="one", peers=("mnn",), goals={"a": 0.7, "b": 0.7}),
    Row(name="two", title="two", peers=("torch", "mnn"), goals={"a": 0.7}, batch=8, threads=1, isa="scalar"),
)


class Bench:
    """Stands in for the timing: remembers what it was asked, and may fail or be stopped."""

    def __init__(self, *, fails: str = "", stops_after: int = 99) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fails, self.stops_after = fails, stops_after

    def __call__(self, models: Any, shape: Any, *, against: Any, threads: int, isa: str, **rest: Any) -> BenchResult:
        ((name, _),) = models
        self.asked.append((name, tuple(shape), tuple(against), threads, isa))
        if len(self.asked) > self.stops_after:
            raise KeyboardInterrupt
        if name == self.fails:
            raise EngineFailedError("fastcnn: the tuner died")
        engines = (engine("fastcnn"), *(engine(peer, 0.5) for peer in against))
        net = NetResult(net=name, shape=tuple(shape), engines=engines)
        return BenchResult(nets=(net,), settings={}, host={}, commit=None, date="")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RowsResult]:
    """``measure(bench, ...)`` runs both rows on nets a and b with that stand-in."""
    monkeypatch.setattr(_ROWSUITE, "commit", lambda: "abc")
    monkeypatch.setattr(_ROWSUITE, "skip_reason", lambda row: "")

    def call(bench: Bench, **options: Any) -> RowsResult:
        monkeypatch.setattr(_ROWSUITE, "benchmark", bench)
        given = {"chosen": ["one", "two"], "threads": 2, "size": 32, **options}
        return run_rows("exact", ROWS, {"a": object, "b": object}, **given)

    return call


def test_rows_are_measured_under_their_own_conditions(measure: Callable[..., RowsResult]) -> None:
    bench = Bench()
    result = measure(bench)
    assert bench.asked == [
        (net, *conditions)
        for net in ("a", "b")
        for conditions in (
            ((1, 3, 32, 32), ("mnn",), 2, ""),
            ((8, 3, 32, 32), ("torch", "mnn"), 1, "scalar"),
        )
    ]
    assert [(c["row"], c["net"]) for c in result.to_json()["cells"]] == [
        ("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"),
    ]  # fmt: skip
    found = result.cell("two", "b")
    assert found is not None
    assert (found.goal, found.missed()) == (None, "")


def test_a_stopped_run_goes_on_where_it_was(measure: Callable[..., RowsResult]) -> None:
    saved: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        measure(Bench(stops_after=2), save=lambda so_far: saved.append(so_far.dumps()))
    assert len(saved) == 2
    cpu = json.loads(saved[-1])["host"]["cpu"]
    kept = RowsResult.kept_cells(saved[-1], suite="exact", cpu=cpu)
    rest = Bench()
    result = measure(rest, kept=kept)
    assert [name for name, *_ in rest.asked] == ["b", "b"]
    assert len(result.cells) == 4
    for options in ({"again": True}, {"seconds": 9.0}, {"threads": 3}):
        other = Bench()
        measure(other, kept=kept, **options)
        # Row "two" runs on one thread whatever the run is told.
        assert len(other.asked) == (3 if "threads" in options else 4)


def test_what_another_commit_measured_is_measured_again_but_not_lost(
    measure: Callable[..., RowsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = measure(Bench()).cells
    monkeypatch.setattr(_ROWSUITE, "commit", lambda: "def")
    bench = Bench()
    result = measure(bench, kept=kept, chosen=["one"], only="a")
    assert len(bench.asked) == 1
    assert {(c.row, c.net): c.commit for c in result.cells} == {
        ("one", "a"): "def", ("one", "b"): "abc", ("two", "a"): "abc", ("two", "b"): "abc",
    }  # fmt: skip


def test_one_failure_does_not_end_the_run(measure: Callable[..., RowsResult]) -> None:
    result = measure(Bench(fails="a"))
    assert [bool(c.missed()) for c in sorted(result.cells, key=lambda c: c.net)] == [True, True, False, False]


def test_rows_that_say_nothing_here_are_left_out_with_a_reason(
    measure: Callable[..., RowsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ROWSUITE, "skip_reason", lambda row: "no such unit" if row.name == "two" else "")
    bench, lines = Bench(), list[str]()
    result = measure(bench, progress=lines.append)
    assert {shape[0] for _, shape, *_ in bench.asked} == {1}
    assert dict(result.skipped) == {"two": "no such unit"}
    assert "row two is left out: no such unit" in lines


def test_why_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        isa = "avx512"

        def host(self) -> dict[str, Any]:
            return {"isa_active": self.isa, "isa_available": ["scalar", "avx2", "avx512"]}

    native = Native()
    monkeypatch.setattr(_ROWS, "native", lambda: native)
    capped = Row(name="x", title="x", peers=("mnn",), goals={}, isa="avx2")
    assert skip_reason(capped) == ""
    native.isa = "avx2"
    assert "the same as the row without one" in skip_reason(capped)
    assert "cannot run neon" in skip_reason(Row(name="x", title="x", peers=("mnn",), goals={}, isa="neon"))
    unknown = Row(name="x", title="x", peers=("mnn",), goals={}, tolerance="careless")
    assert "no tolerance 'careless'" in skip_reason(unknown)
    default = Row(name="x", title="x", peers=("openvino-default",), goals={})
    monkeypatch.setattr(_ROWS, "host_facts", lambda: {"flags": ["avx2"]})
    assert "float32 here" in skip_reason(default)
    monkeypatch.setattr(_ROWS, "host_facts", lambda: {"flags": ["avx2", "avx512_bf16"]})
    assert skip_reason(default) == ""


SOURCE = """
from torch import nn

def net():
    body = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16, 5))
"""


@pytest.fixture
def tiny_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Suite exact with one tiny net and two rows."""
    (tmp_path / "row_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(SUITES, "exact", {"tiny": ("row_nets", "net")})
    rows = (
        Row(name="capped", title="held to scalar", peers=("onnxruntime",), goals={"tiny": 1e9}, isa="scalar"),
        Row(name="hard", title="impossible", peers=("onnxruntime",), goals={"tiny": 1e-9}),
    )
    monkeypatch.setitem(ROW_SUITES, "exact", rows)
    return tmp_path


RUN = ("bench", "--suite", "exact", "--size", "16", "--threads", "1", "--rounds", "1", "--seconds", "0.02")


def test_a_capped_row_for_real(tiny_suite: Path) -> None:
    """Our instruction set is capped in a process of its own; the peer is timed beside it."""
    from fastcnn.benchmarking import suite_models

    def make() -> Any:
        return next(model for _, model in suite_models("exact", (1, 3, 16, 16)))

    result = run_rows(
        "exact", ROW_SUITES["exact"], {"tiny": make}, chosen=["capped"], size=16, threads=1, rounds=1, seconds=0.02,
        warmup_s=0.02,
    )  # fmt: skip
    (found,) = result.cells
    assert found.result is not None
    assert found.result.isa == "scalar"
    assert "_scalar" in found.result.plan
    assert found.missed() == ""
    assert found.best is not None
    assert found.best.engine == "onnxruntime"


def test_the_command_keeps_what_is_measured(
    tiny_suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    monkeypatch.setattr(_ROWSUITE, "benchmark", bench)
    assert run_cli([*RUN, "--rows", "capped", "--out", "e.json"]) == DONE
    out, _ = capsys.readouterr()
    assert "not measured" in out
    assert "0.50 (1e+09) onnxruntime" in out
    written = json.loads((tiny_suite / "e.json").read_text())
    assert [(c["row"], c["net"], c["best"], c["met"]) for c in written["cells"]] == [
        ("capped", "tiny", "onnxruntime", True)
    ]
    assert run_cli([*RUN, "--rows", "capped", "--out", "e.json", "--json"]) == DONE
    out, err = capsys.readouterr()
    assert "capped, tiny: kept from" in err
    assert json.loads(out)["cells"] == written["cells"]
    assert len(bench.asked) == 1
    assert run_cli([*RUN, "--rows", "capped", "--out", "e.json", "--again"]) == DONE
    assert len(bench.asked) == 2


def test_a_goal_that_is_missed_gives_exit_code_one(
    tiny_suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ROWSUITE, "benchmark", Bench())
    assert run_cli([*RUN, "--rows", "hard"]) == GOAL_MISSED
    assert "hard, tiny: 0.500 of onnxruntime's time, the goal is 1e-09" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "none"), "allowed: capped, hard"),
        (("--only", "vgg"), "allowed: tiny"),
        (("--batch", "8"), "the rows of suite exact fix --batch"),
        (("--against", "torch", "--tolerance", "exact"), "fix --against and --tolerance"),
        (("--out", "bad.json"), "cannot be continued"),
    ],
)
def test_what_the_rows_fix_cannot_be_given(
    tiny_suite: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    (tiny_suite / "bad.json").write_text("{}")
    assert run_cli([*RUN, *words]) == BAD_INPUT
    assert said in capsys.readouterr().err


def test_rows_need_their_suite(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bench", "--suite", "foundation", "--rows", "batch1"]) == BAD_INPUT
    assert "go with --suite exact" in capsys.readouterr().err
