"""Turns, ratios, failures and records, with workers whose times are known; then the real thing on a tiny net."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn.benchmarking import BenchResult, NetResult, benchmark
from fastcnn.benchmarking import benchmark as _verb  # noqa: F401  the verb must be importable from the room
from fastcnn.benchmarking.benchmark import Settings, _rounds
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import EngineFailedError, run_worker
from fastcnn.benchmarking.results import EngineResult

_MODULE = sys.modules["fastcnn.benchmarking.benchmark"]
EXACT = np.array([[[1.0, -2.0]], [[0.5, 4.0]]])


class Workers:
    """Stands in for processes: block times by engine and variant, outputs, and failures."""

    def __init__(self, times: dict[str, list[float]], *, wrong: dict[str, Any] | None = None) -> None:
        self.times = {name: iter(values) for name, values in times.items()}
        self.wrong = wrong or {}
        self.order: list[str] = []
        self.preempted = 3.0

    def __call__(self, job: Job, *, timeout_s: float) -> dict[str, Any]:
        name = job.engine if job.variant == "default" else f"{job.engine}/{job.variant}"
        given = self.wrong.get(name, self.wrong.get(job.engine))
        if job.task == "convert":
            if isinstance(given, str) and given == "convert":
                raise EngineFailedError(f"{job.engine}: no converter")
            return {}
        self.order.append(name)
        if isinstance(given, str):
            raise EngineFailedError(f"{name}: broke")
        if job.outputs:
            np.save(job.outputs, EXACT.astype(np.float32) if given is None else given)
        return {"median_ms": next(self.times[name]), "calls": 5, "version": "1", "preempted_per_s": self.preempted}


def _run(workers: Workers, engines: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetResult:
    monkeypatch.setattr(_MODULE, "run_worker", workers)
    results = _rounds("net", engines, tmp_path, EXACT, Settings(threads=1, rounds=3), lambda _line: None)
    return NetResult(net="net", shape=(1, 1), engines=results)


def test_engines_take_turns_and_the_ratio_is_the_median_of_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers({"fastcnn": [1.0, 2.0, 9.0], "ncnn": [2.0, 2.0, 2.0]})
    net = _run(workers, ("fastcnn", "ncnn"), tmp_path, monkeypatch)
    assert workers.order == ["fastcnn", "ncnn"] * 3
    assert net.engine("fastcnn").median_ms == 2.0
    assert net.engine("fastcnn").spread == 4.0
    assert net.engine("fastcnn").ratio is None
    assert net.engine("ncnn").ratio == 1.0
    assert net.engine("ncnn").error == 0
    assert net.engine("ncnn").calls == 15


def test_the_faster_variant_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers({"fastcnn": [1.0] * 3, "torch/channels_last": [5.0] * 3, "torch/contiguous": [4.0] * 3})
    torch_result = _run(workers, ("fastcnn", "torch"), tmp_path, monkeypatch).engine("torch")
    assert (torch_result.variant, torch_result.median_ms, torch_result.ratio) == ("contiguous", 4.0, 0.25)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mnn": "convert"}, "no converter"),
        ({"mnn": "run"}, "broke"),
        ({"mnn": np.full((2, 1, 2), np.nan, np.float32)}, "outputs are not finite"),
        ({"mnn": np.zeros((2, 1, 3), np.float32)}, "outputs have shape (2, 1, 3)"),
    ],
)
def test_an_engine_that_fails_drops_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], words: str
) -> None:
    workers = Workers({"fastcnn": [1.0] * 3, "mnn": [1.0] * 3, "ncnn": [1.0] * 3}, wrong=wrong)
    net = _run(workers, ("fastcnn", "mnn", "ncnn"), tmp_path, monkeypatch)
    failed = net.engine("mnn")
    assert words in failed.failure
    assert failed.median_ms is None
    assert workers.order.count("mnn") <= 1
    assert net.engine("ncnn").ratio == 1.0


def test_the_error_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = EXACT.astype(np.float32)
    off[1, 0, 0] += 0.04
    workers = Workers({"fastcnn": [1.0] * 3, "mnn": [1.0] * 3}, wrong={"mnn": off})
    assert _run(workers, ("fastcnn", "mnn"), tmp_path, monkeypatch).engine("mnn").error == pytest.approx(0.01, rel=1e-5)


def test_a_busy_machine_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for preempted, said in ((3.0, []), (400.0, ["net: fastcnn was interrupted 400 times a second"])):
        workers = Workers({"fastcnn": [1.0] * 3})
        workers.preempted = preempted
        net = _run(workers, ("fastcnn",), tmp_path, monkeypatch)
        lines = BenchResult(nets=(net,), settings={}, host={}, commit=None, date="").disturbed()
        assert [line.partition(":")[0] + ":" + line.partition(":")[2].partition(":")[0] for line in lines] == said


def test_a_record_prints_and_is_plain_json() -> None:
    engines = (
        EngineResult(engine="fastcnn", block_ms=(1.0, 1.5, 1.1), error=1e-6),
        EngineResult(engine="torch", variant="contiguous", block_ms=(2.0, 2.0, 2.0), error=2e-6, ratio=0.55),
        EngineResult(engine="mnn", failure="no converter"),
    )
    net = NetResult(net="tiny", shape=(1, 3, 8, 8), engines=engines)
    result = BenchResult(nets=(net,), settings={}, host={}, commit=None, date="2020-01-01")
    data = json.loads(result.dumps())
    assert data["nets"][0]["engines"][1]["ratio"] == 0.55
    assert data["nets"][0]["engines"][0]["median_ms"] == 1.1
    text = str(result)
    assert "torch (contiguous)" in text
    assert "no converter" in text
    with pytest.raises(KeyError, match="openvino"):
        net.engine("openvino")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"threads": 0}, "threads=0"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"shape": (1, 3, 8)}, r"shape=\(1, 3, 8\)"),
        ({"shape": (0, 3, 8, 8)}, r"shape=\(0, 3, 8, 8\)"),
        ({"against": ["tensorrt"]}, "tensorrt"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        benchmark(nn.Identity(), **{"shape": (1, 3, 8, 8), **changes})


def test_a_file_has_no_peers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no torch model"):
        benchmark(tmp_path / "net.fcnn", (1, 3, 8, 8), against=["torch"])
    with pytest.raises(TypeError, match="models is a int"):
        benchmark(3)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def test_ours_against_a_peer_for_real(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lines: list[str] = []
    result = benchmark(
        {"tiny": Tiny().eval()},
        (2, 3, 13, 11),
        against=["onnxruntime"],
        threads=1,
        rounds=2,
        seconds=0.05,
        warmup_s=0.02,
        cache=tmp_path,
        progress=lines.append,
    )
    net = result.net("tiny")
    assert [e.engine for e in net.engines] == ["fastcnn", "onnxruntime"]
    for engine in net.engines:
        assert not engine.failure
        assert len(engine.block_ms) == 2
        assert engine.error is not None
        assert engine.error <= 1e-4
    assert net.engine("onnxruntime").ratio is not None
    assert net.isa
    assert any("round 2 of 2" in line for line in lines)
    assert json.loads(result.dumps())["settings"]["threads"] == 1
    (folder,) = tmp_path.iterdir()
    job = Job(
        task="time",
        engine="fastcnn",
        variant="default",
        folder=str(folder),
        threads=1,
        warmup_s=0,
        seconds=0,
        result=str(tmp_path / "r.json"),
    )
    assert run_worker(job, timeout_s=120)["torch_loaded"] is False
