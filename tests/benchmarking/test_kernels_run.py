"""``run_kernels`` goes on where it was stopped, and ``fastcnn bench --kernels`` writes and judges what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcnn.benchmarking import NetResult
from fastcnn.benchmarking.kernels import (
    LAYER_CASES,
    ROWS,
    TRAINING_CASE,
    AlgorithmTime,
    Case,
    KernelsResult,
    Layer,
    run,
    run_kernels,
)
from fastcnn.benchmarking.kernels.cases import chart_layers
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.cli.errors import DONE, GOAL_MISSED
from fastcnn.cli.main import run_cli
from fastcnn.reporting.host import host_facts
from tests.benchmarking.kernel_results import engine


class Machine:
    """Stands in for every measurement: remembers what it was asked, and may be slow, fail or be stopped."""

    def __init__(self, *, ratio: float = 0.05, fails: str = "", stops_after: int = 10**6) -> None:
        self.asked: list[tuple[str, str]] = []
        self.ratio, self.fails, self.stops_after = ratio, fails, stops_after

    def _note(self, what: str, layer: Layer) -> None:
        if len(self.asked) == self.stops_after:
            raise KeyboardInterrupt
        self.asked.append((what, layer.name))
        if layer.name == self.fails:
            raise EngineFailedError(f"{what}: it died")

    def inference(self, case: Case, timing: Any, say: Any) -> NetResult:
        self._note("layers", case.layer)
        peers = (engine(peer, self.ratio) for peer in case.peers)
        return NetResult(net=case.layer.name, shape=case.layer.shape, engines=(engine("fastcnn"), *peers))

    def training(self, case: Case, timing: Any, say: Any) -> NetResult:
        self._note("training", case.layer)
        engines = (engine("fastcnn"), engine("torch", self.ratio))
        return NetResult(net=case.layer.name, shape=case.layer.shape, engines=engines)

    def point(self, layer: Layer, isa: str, **rest: Any) -> tuple[AlgorithmTime, ...]:
        self._note(isa, layer)
        return (
            AlgorithmTime(algorithm="direct", block_ms=(2.0, 2.0), way="direct:7x4:pixels", error=1e-7),
            AlgorithmTime(algorithm="fft:16", block_ms=(1.0, 1.0), way="fft:16:tiles:14", error=1e-7),
        )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """``use(machine)`` lets that machine measure, on a host with avx512 and avx2, at commit abc."""
    monkeypatch.setattr(run, "commit", lambda: "abc")
    monkeypatch.setattr(run, "instruction_sets", lambda: ("avx512", ("avx512", "avx2"), {}))

    def install(machine: Machine) -> None:
        monkeypatch.setattr(run, "_inference", machine.inference)
        monkeypatch.setattr(run, "_training", machine.training)
        monkeypatch.setattr(run, "time_point", machine.point)

    return install


def measure(machine: Machine, use: Callable[[Machine], None], **options: Any) -> KernelsResult:
    use(machine)
    return run_kernels(**{"rows": ROWS, "threads": 2, **options})


def test_everything_is_measured_once(use: Callable[[Machine], None]) -> None:
    machine = Machine()
    result = measure(machine, use)
    expected = [("layers", case.layer.name) for case in LAYER_CASES] + [("training", TRAINING_CASE.layer.name)]
    expected += [(isa, layer.name) for layer in chart_layers(ROWS) for isa in ("avx512", "avx2")]
    assert machine.asked == expected
    assert len(result.cells) == 12
    assert len(result.points) == 2 * 61
    assert all(cell.commit == "abc" and cell.date for cell in (*result.cells, *result.points))
    assert not any(item.missed() for item in (*result.cells, *result.points))


def test_rows_and_only_choose(use: Callable[[Machine], None]) -> None:
    machine = Machine()
    measure(machine, use, rows=["training", "by-batch"], only="k7-c64-m56-b16")
    assert machine.asked == [(what, "k7-c64-m56-b16") for what in ("training", "avx512", "avx2")]


def test_a_stopped_run_goes_on_where_it_was(use: Callable[[Machine], None]) -> None:
    saved: list[str] = []
    rows = ["layers", "by-kernel"]
    with pytest.raises(KeyboardInterrupt):
        measure(Machine(stops_after=15), use, rows=rows, save=lambda so_far: saved.append(so_far.dumps()))
    assert len(saved) == 15
    kept, lines = KernelsResult.loads(saved[-1]), list[str]()
    rest = Machine()
    result = measure(rest, use, rows=rows, kept=kept, progress=lines.append)
    # Eleven layers and four points (two kernels, each at two instruction sets) were there.
    assert rest.asked[0] == ("avx512", "k7-c64-m56-b1")
    assert len(rest.asked) == 2 * 15 - 4
    assert (len(result.cells), len(result.points)) == (11, 30)
    assert sum("kept from" in line for line in lines) == 15


@pytest.mark.parametrize("options", [{"again": True}, {"seconds": 9.0}, {"threads": 1}, {"rounds": 1}])
def test_other_settings_are_measured_again(use: Callable[[Machine], None], options: dict[str, Any]) -> None:
    kept = measure(Machine(), use, rows=["layers", "by-batch"])
    other = Machine()
    measure(other, use, rows=["layers"], kept=kept, **options)
    assert len(other.asked) == 11


def test_what_another_commit_measured_is_measured_again_but_not_lost(
    use: Callable[[Machine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = measure(Machine(), use)
    monkeypatch.setattr(run, "commit", lambda: "def")
    machine = Machine()
    result = measure(machine, use, rows=["by-kernel"], only="k9-c64-m56-b1", kept=kept)
    assert len(machine.asked) == 2
    assert len(result.points) == 2 * 61
    assert {p.layer.name for p in result.points if p.commit == "def"} == {"k9-c64-m56-b1"}


def test_one_failure_does_not_end_the_run(use: Callable[[Machine], None]) -> None:
    result = measure(Machine(fails="k5-c64-m56-b1"), use)
    missed = [(item.label, item.missed()) for item in (*result.cells, *result.points) if item.missed()]
    assert missed == [(f"{what}, k5-c64-m56-b1", f"{what}: it died") for what in ("layers", "avx512", "avx2")]


def test_a_bad_setting_is_refused_before_anything_is_measured(use: Callable[[Machine], None]) -> None:
    machine = Machine()
    with pytest.raises(ValueError, match="rounds=0"):
        measure(machine, use, rounds=0)
    assert machine.asked == []


def test_the_second_instruction_set_is_drawn_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        active = "avx512_vnni"
        available = ("scalar", "avx2", "avx512_vnni")

        def host(self) -> dict[str, Any]:
            return {"isa_active": self.active, "isa_available": list(self.available)}

    native = Native()
    monkeypatch.setattr(run, "_native", native)
    assert run.instruction_sets() == ("avx512_vnni", ("avx512_vnni", "avx2"), {})
    native.active = "avx2"
    assert run.instruction_sets() == ("avx2", ("avx2",), {})
    native.active, native.available = "neon", ("scalar", "neon")
    assert run.instruction_sets() == ("neon", ("neon",), {"avx2": "this machine cannot run avx2"})


RUN = ("bench", "--kernels", "--threads", "1", "--rows", "layers,by-kernel")


def test_the_command_keeps_draws_and_says(
    use: Callable[[Machine], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    machine = Machine()
    use(machine)
    words = [*RUN, "--out", "k.json", "--html", "k.html", "--png", "k.png"]
    assert run_cli(words) == DONE
    out, _ = capsys.readouterr()
    assert "0.050 (0.06) torch" in out
    assert "direct is overtaken from 3 on" in out
    written = json.loads((tmp_path / "k.json").read_text())
    assert (len(written["cells"]), len(written["points"])) == (11, 30)
    assert written["cells"][0]["result"]["engines"][0]["spread"] == pytest.approx(0.1)
    assert "chart-by-kernel-0-avx2" in (tmp_path / "k.html").read_text()
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")
    assert run_cli([*RUN, "--out", "k.json", "--json"]) == DONE
    out, err = capsys.readouterr()
    assert json.loads(out)["points"] == written["points"]
    assert "layers, k5-c64-m56-b1: kept from" in err
    assert len(machine.asked) == 41
    assert run_cli([*RUN, "--out", "k.json", "--again", "--only", "k3-c64-m56-b1"]) == DONE
    assert len(machine.asked) == 43
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.html", "k.json", "k.png"]


def test_a_goal_that_is_missed_gives_exit_code_one(
    use: Callable[[Machine], None], capsys: pytest.CaptureFixture[str]
) -> None:
    use(Machine(ratio=0.29))
    assert run_cli(["bench", "--kernels", "--rows", "layers", "--only", "k7-c64-m56-b8"]) == GOAL_MISSED
    out, err = capsys.readouterr()
    assert "layers, k7-c64-m56-b8: 0.290 of torch's time, the goal is 0.28" in err
    assert "MISSED" in out
    # At 0.29 the goal of 0.3 for 5x5 is met, and so is that of the training step.
    assert run_cli(["bench", "--kernels", "--rows", "layers,training", "--only", "k5-c64-m56-b8"]) == DONE
    assert run_cli(["bench", "--kernels", "--rows", "training"]) == DONE


def test_a_point_that_fails_gives_exit_code_one(
    use: Callable[[Machine], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use(Machine(fails="k9-c64-m56-b1"))
    words = ["bench", "--kernels", "--rows", "by-kernel", "--out", str(tmp_path / "k.json")]
    assert run_cli(words) == GOAL_MISSED
    assert "avx2, k9-c64-m56-b1: avx2: it died" in capsys.readouterr().err
    # What was not chosen is not judged, even where it is shown.
    assert run_cli([*words, "--only", "k3-c64-m56-b1"]) == DONE
    assert "failed: avx2: it died" in capsys.readouterr().out


@pytest.mark.slow
def test_the_real_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One layer for real: peers, every algorithm at both instruction sets, each in processes of its own."""
    out = tmp_path / "k.json"
    words = ("--only", "k5-c64-m56-b1", "--threads", "1", "--rounds", "1", "--seconds", "0.02", "--out", str(out))
    # On a busy machine a goal may be missed; nothing may fail.
    assert run_cli(["bench", "--kernels", *words]) in (DONE, GOAL_MISSED)
    found = KernelsResult.loads(out.read_text())
    (cell,) = found.cells
    assert cell.failure == ""
    assert cell.result is not None
    assert {e.engine for e in cell.result.engines} == {"fastcnn", "torch", "onnxruntime", "openvino", "ncnn", "mnn"}
    assert not [e.failure for e in cell.result.engines if e.failure]
    assert cell.ours is not None
    assert cell.ours.error is not None
    assert cell.ours.error <= 1e-4
    assert found.host["cpu"] == host_facts()["cpu"]
    assert found.isas == run.instruction_sets()[1]
    for point in found.points:
        assert point.missed() == ""
        assert {"direct", "winograd:4", "winograd:2", "fft:16", "fft:32"} <= {a.algorithm for a in point.algorithms}
        assert all(len(a.block_ms) == 1 and a.block_ms[0] > 0 for a in point.algorithms)
        assert all(a.error is not None and a.error <= 1e-3 for a in point.algorithms)


@pytest.mark.slow
def test_a_real_training_step() -> None:
    from fastcnn.benchmarking.kernels.training import time_training

    layer = Layer(kernel=7, channels=32, size=16, batch=2)
    found = time_training(layer, threads=1, rounds=1, seconds=0.02, warmup_s=0.0, say=lambda line: None)
    ours, peer = found.engines
    assert (ours.engine, peer.engine) == ("fastcnn", "torch")
    assert peer.ratio is not None
    # Sums of thousands of float32 terms.
    assert max(ours.error or 1, peer.error or 1) <= 1e-5
