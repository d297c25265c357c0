"""The training step: what it computes, whose turn it is, which format of torch counts, and what fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.benchmarking.files import INPUTS
from fastcnn.benchmarking.kernels import Layer, process, training
from fastcnn.benchmarking.kernels.process import run_task_apart
from fastcnn.benchmarking.kernels.training import time_training, training_block, worst_error
from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import EngineFailedError

LAYER = Layer(kernel=5, channels=4, size=6, batch=2)


def by_loops(layer: Layer, x: np.ndarray, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """Output and both gradients in float64, tap by tap."""
    weight, bias = (array.astype(np.float64) for array in layer.parameters())
    pad = layer.kernel // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    output = np.zeros(layer.shape) + bias[None, :, None, None]
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    for u in range(layer.kernel):
        for v in range(layer.kernel):
            window = padded[:, :, u : u + layer.size, v : v + layer.size]
            output += np.einsum("fc,nchw->nfhw", weight[:, :, u, v], window)
            grad_weight[:, :, u, v] = np.einsum("nfhw,nchw->fc", gradient, window)
            grad_padded[:, :, u : u + layer.size, v : v + layer.size] += np.einsum(
                "fc,nfhw->nchw", weight[:, :, u, v], gradient
            )
    grad_input = grad_padded[:, :, pad : pad + layer.size, pad : pad + layer.size]
    return {"output": output, "grad_input": grad_input, "grad_weight": grad_weight}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the input and the output's gradient."""
    inputs = np.random.default_rng(0).standard_normal((2, *LAYER.shape)).astype(np.float32)
    np.save(tmp_path / INPUTS, inputs)
    return tmp_path


@pytest.mark.parametrize(
    ("engine", "variant"), [("fastcnn", "contiguous"), ("torch", "contiguous"), ("torch", "channels_last")]
)
def test_a_block_computes_output_and_both_gradients(
    folder: Path, engine: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "set_num_interop_threads", lambda n: None)  # possible once a process
    outputs = folder / "outputs.npz"
    answer = training_block(
        LAYER, folder, engine=engine, variant=variant, threads=1, warmup_s=0, seconds=0, outputs=str(outputs)
    )
    assert answer["calls"] >= 3
    assert answer["median_ms"] > 0
    exact = by_loops(LAYER, *np.load(folder / INPUTS))
    with np.load(outputs) as found:
        assert set(found) == set(exact)
        assert all(found[part].shape == exact[part].shape for part in exact)
        # Float32 sums of a few hundred terms.
        assert worst_error(dict(found), exact) <= 4e-6


@pytest.mark.parametrize("part", ["output", "grad_input", "grad_weight"])
def test_the_worst_of_the_three_results_counts(folder: Path, part: str) -> None:
    exact = by_loops(LAYER, *np.load(folder / INPUTS))
    found = {name: array.astype(np.float32) for name, array in exact.items()}
    assert worst_error(found, exact) < 1e-7
    worst = np.unravel_index(np.abs(exact[part]).argmax(), exact[part].shape)
    found[part][worst] *= 1.01
    assert worst_error(found, exact) == pytest.approx(0.01, rel=1e-3)
    found[part][worst] = np.nan
    with pytest.raises(EngineFailedError, match="not finite"):
        worst_error(found, exact)


def test_an_unknown_engine_takes_no_part(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"jax \(default\) takes no part in training"):
        training_block(LAYER, folder, engine="jax", variant="default", threads=1, warmup_s=0, seconds=0, outputs="")


class Clock:
    """Stands in for the worker: milliseconds of each turn, and exact results."""

    def __init__(self, fails: tuple[str, ...] = ()) -> None:
        self.turns: list[tuple[str, str]] = []
        self.fails = fails

    def __call__(self, task: Task) -> dict[str, Any]:
        turn = (task.engine, task.variant)
        self.turns.append(turn)
        if f"{task.engine} {task.variant}" in self.fails:
            raise EngineFailedError(f"{task.engine}, training: out of memory")
        number = self.turns.count(turn)
        ms = {"fastcnn": 2.0, "torch contiguous": 10.0}.get(task.engine, 8.0 if "last" in task.variant else 10.0)
        if task.outputs:
            np.savez(task.outputs, **by_loops(LAYER, *np.load(Path(task.folder) / INPUTS)))  # type: ignore[arg-type]
        return {"version": "1", "calls": 5, "median_ms": ms * number, "preempted_per_s": 50.0 * number}


def measure(clock: Clock, monkeypatch: pytest.MonkeyPatch, lines: list[str] | None = None) -> Any:
    monkeypatch.setattr(training, "run_task_apart", clock)
    said = [] if lines is None else lines
    return time_training(LAYER, threads=1, rounds=3, seconds=0.1, warmup_s=0.1, say=said.append)


def test_engines_take_turns_and_the_faster_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = Clock(), list[str]()
    found = measure(clock, monkeypatch, lines)
    assert clock.turns == [("fastcnn", "contiguous"), ("torch", "contiguous"), ("torch", "channels_last")] * 3
    ours, torch_result = found.engines
    assert (ours.engine, ours.block_ms, ours.ratio, ours.calls) == ("fastcnn", (2.0, 4.0, 6.0), None, 15)
    assert (torch_result.variant, torch_result.block_ms, torch_result.ratio) == (
        "channels_last",
        (8.0, 16.0, 24.0),
        0.25,
    )
    assert (ours.preempted_per_s, torch_result.preempted_per_s) == (150.0, 150.0)
    assert "k5-c4-m6-b2: torch was interrupted 150 times a second: the machine was busy" in lines
    assert ours.error < 1e-12
    assert torch_result.error < 1e-12


def test_a_format_that_fails_drops_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(Clock(("torch channels_last",)), monkeypatch)
    assert found.engine("torch").variant == "contiguous"
    assert found.engine("torch").ratio == 0.2
    neither = measure(Clock(("torch channels_last", "torch contiguous")), monkeypatch).engine("torch")
    assert (neither.ratio, neither.failure) == (None, "torch, training: out of memory")
    with pytest.raises(EngineFailedError, match="fastcnn, training: out of memory"):
        measure(Clock(("fastcnn contiguous",)), monkeypatch)


def test_a_process_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(
        kind="training", layer=LAYER.to_json(), folder=str(tmp_path), threads=1, warmup_s=0, seconds=0,
        result=str(tmp_path / "answer.json"), engine="jax",
    )  # fmt: skip
    with pytest.raises(EngineFailedError, match=r"^jax, training: ValueError: jax \(default\) takes no part"):
        run_task_apart(task)
    monkeypatch.setattr(process, "TIMEOUT_S", 0.01)
    with pytest.raises(EngineFailedError, match="jax, training: no answer within 0 s"):
        run_task_apart(task)
