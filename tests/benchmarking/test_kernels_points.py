"""A point of the charts: its rounds, each a process capped to an instruction set, and what they hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.benchmarking.files import EXACT, INPUTS
from fastcnn.benchmarking.kernels import Layer, points
from fastcnn.benchmarking.kernels.points import time_point
from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import EngineFailedError
from tests.reference.interpreter import run_graph

LAYER = Layer(kernel=3, channels=8, size=6, batch=2)


class Process:
    """Stands in for the worker: two algorithms, of which the first takes 4, 5, 6 ms and fails where it is told to."""

    def __init__(self, *, isa: str = "avx2", fails_in: int = 0, preempted: float = 0.0) -> None:
        self.tasks: list[Task] = []
        self.capped: list[str] = []
        self.isa, self.fails_in, self.preempted = isa, fails_in, preempted

    def __call__(self, task: Task, *, isa: str) -> dict[str, Any]:
        self.tasks.append(task)
        self.capped.append(isa)
        number = len(self.tasks)
        folder = Path(task.folder)
        x, exact = np.load(folder / INPUTS), np.load(folder / EXACT)
        (expected,) = run_graph(LAYER.graph(), {"x": x})
        assert exact.dtype == np.float64
        assert np.abs(exact - expected).max() <= 1e-12 * np.abs(expected).max()
        failure = "outputs are not finite" if number == self.fails_in else ""
        records = [
            {"algorithm": "direct", "way": f"a{number}", "ms": 3.0 + number, "error": 1e-7 * number, "failure": ""},
            {"algorithm": "fft:8", "way": f"b{number}", "ms": 1.0, "error": 1e-7, "failure": failure},
        ]
        return {"isa": self.isa, "algorithms": records, "preempted_per_s": self.preempted}


def measure(process: Process, monkeypatch: pytest.MonkeyPatch, lines: list[str] | None = None) -> Any:
    monkeypatch.setattr(points, "run_task_apart", process)
    said = [] if lines is None else lines
    return time_point(LAYER, "avx2", threads=2, rounds=3, seconds=3.0, warmup_s=1.0, say=said.append)


def test_rounds_keep_to_the_ways_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    direct, fft = measure(process, monkeypatch)
    assert process.capped == ["avx2"] * 3
    assert [task.chosen for task in process.tasks] == [{}, *[{"direct": "a1", "fft:8": "b1"}] * 2]
    assert {(task.seconds, task.warmup_s, task.threads) for task in process.tasks} == {(3.0 * 0.1, 0.1, 2)}
    assert (direct.block_ms, direct.error) == ((4.0, 5.0, 6.0), 3e-7)
    assert fft.block_ms == (1.0, 1.0, 1.0)


def test_an_algorithm_that_fails_in_one_round_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    direct, fft = measure(Process(fails_in=2), monkeypatch)
    assert direct.block_ms == (4.0, 5.0, 6.0)
    assert (fft.block_ms, fft.failure) == ((), "outputs are not finite")


def test_another_instruction_set_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineFailedError, match="the process ran avx512, not avx2"):
        measure(Process(isa="avx512"), monkeypatch)


def test_a_busy_machine_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    measure(Process(preempted=300.0), monkeypatch, lines)
    assert lines.count("k3-c8-m6-b2: avx2 was interrupted 300 times a second: the machine was busy") == 3
    quiet: list[str] = []
    measure(Process(preempted=20.0), monkeypatch, quiet)
    assert quiet == [f"avx2, k3-c8-m6-b2: round {n} of 3" for n in (1, 2, 3)]
