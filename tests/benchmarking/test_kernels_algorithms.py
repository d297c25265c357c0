"""Every algorithm put into a layer computes that layer, is the one it is called, and is timed by its own step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn import _native
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.kernels import Layer
from fastcnn.benchmarking.kernels import algorithms as module
from fastcnn.benchmarking.kernels.algorithms import CompiledLayer, time_algorithms
from fastcnn.benchmarking.kernels.worker import Task, main, run_task
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.tiles import WINOGRAD_TILES
from tests.engine.nets import ISAS
from tests.reference.interpreter import run_graph

SMALL = {3: Layer(kernel=3, channels=32, size=17), 5: Layer(kernel=5, channels=32, size=12, batch=2)}
FAST = [isa for isa in ISAS if isa != "scalar"]

# Direct sums, FFT: float32. Winograd: as the kernels' own tests allow its largest form. 16-bit weights: 2^-15 of the
# largest, a few hundred terms. Three products of bf16: 2^-15 of a product at most.
TOLERANCE = {"direct": 2e-6, "fft": 4e-6, "winograd": 4e-4, "fft_i16": 2e-4, "direct_i16": 2e-4, "amx_bf16x3": 5e-5}
TOLERANCE |= {"winograd_i16": 4e-4, "amx_bf16x6": 4e-6}


def given(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """An input, and the layer's output in float64."""
    x = np.random.default_rng(3).standard_normal(layer.shape).astype(np.float32)
    (exact,) = run_graph(layer.graph(), {"x": x})
    return x, exact


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("kernel", SMALL)
def test_every_way_computes_the_layer(isa: str, kernel: int) -> None:
    layer = SMALL[kernel]
    compiled = CompiledLayer.make(layer, make_target(isa, 2))
    x, exact = given(layer)
    ways = compiled.ways()
    names = {f"winograd:{m}" for m in WINOGRAD_TILES[kernel, kernel]}
    names |= {f"fft:{t}" for t in _native.fft_sizes(isa) if t >= kernel}
    assert {"direct", *names} <= set(ways)
    assert next(iter(ways)) == "direct"
    for name, candidates in ways.items():
        for candidate in candidates:
            compiled.put(candidate)
            compiled.built.net.poison()
            error = relative_error(compiled.run(x), exact)
            assert error <= TOLERANCE[name.split(":")[0]], (name, candidate.label, error)
            running = compiled.built.net.kernel(compiled.index)
            assert running.startswith(candidate.op), (running, candidate)


def test_ways_differ_and_share_the_algorithm() -> None:
    compiled = CompiledLayer.make(Layer(kernel=3, channels=64), make_target(FAST[0], 2))
    for name, candidates in compiled.ways().items():
        keys = [(c.op, sorted(c.attrs.items())) for c in candidates]
        assert all(key not in keys[:i] for i, key in enumerate(keys)), name
        if ":" in name:
            op, size = name.split(":")
            assert {c.attrs["m" if op.startswith("winograd") else "tile"] for c in candidates} == {int(size)}


class Steps:
    """Stands in for the clock between the steps: the layer's step takes 5 ms, each other one 1 ms."""

    def __init__(self, index: int) -> None:
        self.index, self.asked, self.late, self.slow = index, list[int](), False, list[int]()

    def __call__(self, built: Any, inputs: Any, repeats: int) -> np.ndarray:
        self.asked.append(repeats)
        times = np.full((built.net.steps, repeats), 0.001)
        times[self.index] = 0.005
        if self.late:  # the reading thread was put aside: the step before has the layer's time too
            times[self.index - 1] += times[self.index]
            times[self.index] = 0.0
        times[self.index, self.slow] *= 10
        return times


def test_only_the_layers_own_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledLayer.make(SMALL[3], make_target(FAST[0], 1))
    x, _ = given(SMALL[3])
    clock = Steps(compiled.index)
    monkeypatch.setattr(module, "profile", clock)
    compiled.time_layout(x)
    others = compiled.built.net.steps - 1
    assert others >= 2
    assert compiled.layout_s == pytest.approx(0.001 * others)
    clock.asked.clear()
    assert compiled.seconds(x, budget_s=0.075) == pytest.approx(0.005)
    # The first call says how many fill the budget.
    assert clock.asked == [1, int(0.075 / (0.005 + 0.001 * others))]
    clock.late = True
    assert compiled.seconds(x, budget_s=0.075) == pytest.approx(0.005)
    clock.late = False
    compiled.seconds(x, budget_s=0.0)
    compiled.seconds(x, budget_s=1e9)
    assert clock.asked[-3::2] == [3, 2000]


def test_disturbed_calls_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledLayer.make(SMALL[3], make_target(FAST[0], 1))
    x, _ = given(SMALL[3])
    clock = Steps(compiled.index)
    monkeypatch.setattr(module, "profile", clock)
    clock.slow = [0]
    assert compiled.seconds(x, budget_s=0.0) == pytest.approx(0.005 + 0.001 * (compiled.built.net.steps - 1))


@pytest.mark.parametrize("taken", [0.0, -1e-6])
def test_what_takes_no_time_was_not_measured(taken: float, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledLayer.make(SMALL[5], make_target(FAST[0], 1))
    x, exact = given(SMALL[5])

    def fake(self: CompiledLayer, x: Any, *, budget_s: float) -> float:
        return taken if self.built.chosen[self.index].op == "fft" else 0.001

    monkeypatch.setattr(CompiledLayer, "seconds", fake)
    found = {record["algorithm"]: record for record in time_algorithms(compiled, x, exact, seconds=0.0)}
    assert found["fft:8"]["failure"] == "not measurable: the machine was busy"
    assert found["fft:8"]["ms"] is None
    assert found["winograd:4"]["ms"] == 1.0


def test_a_way_that_took_no_time_is_not_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledLayer.make(SMALL[5], make_target(FAST[0], 2))
    x, exact = given(SMALL[5])
    first = {name: ways[0].label for name, ways in compiled.ways().items() if len(ways) > 1}
    assert first

    def fake(self: CompiledLayer, x: Any, *, budget_s: float) -> float:
        return -1e-6 if self.built.chosen[self.index].label in first.values() else 0.001

    monkeypatch.setattr(CompiledLayer, "seconds", fake)
    found = {record["algorithm"]: record for record in time_algorithms(compiled, x, exact, seconds=0.0)}
    assert all(found[name]["way"] not in ("", label) for name, label in first.items())


def test_the_fastest_way_is_kept_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = SMALL[5]
    compiled = CompiledLayer.make(layer, make_target(FAST[0], 2))
    x, exact = given(layer)
    ways = compiled.ways()
    best = {name: candidates[-1].label for name, candidates in ways.items()}

    def fake(self: CompiledLayer, x: Any, *, budget_s: float) -> float:
        label = self.built.chosen[self.index].label
        return (0.002 if label in best.values() else 0.003) + (0.0 if budget_s == 1.0 else 0.1)

    monkeypatch.setattr(CompiledLayer, "seconds", fake)
    found = time_algorithms(compiled, x, exact, seconds=1.0)
    assert [record["algorithm"] for record in found] == list(ways)
    assert {record["algorithm"]: record["way"] for record in found} == best
    # The figure is that of the long block, not of the trial.
    assert [record["ms"] for record in found] == pytest.approx([2.0] * len(found))
    assert all(record["error"] <= TOLERANCE[record["algorithm"].split(":")[0]] for record in found)
    # A later round keeps to the ways it is told.
    told = {name: candidates[0].label for name, candidates in ways.items()}
    again = time_algorithms(compiled, x, exact, seconds=1.0, chosen=told)
    assert {record["algorithm"]: record["way"] for record in again} == told
    wrong = time_algorithms(compiled, x, exact + 0.5 * exact.max(), seconds=1.0)
    assert all(record["error"] > 0.3 for record in wrong)


def test_spectra_beyond_the_limit_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = SMALL[3]
    compiled = CompiledLayer.make(layer, make_target(FAST[0], 1))
    x, exact = given(layer)
    monkeypatch.setattr(CompiledLayer, "seconds", lambda self, x, budget_s: 0.001)
    # 8x8 points: 94 products for each of 32 x 32 pairs in four bytes; 12x12: 214.
    monkeypatch.setattr(module, "MOST_SPECTRA_BYTES", 4 * 94 * 32 * 32)
    found = {record["algorithm"]: record for record in time_algorithms(compiled, x, exact, seconds=0.0)}
    assert found["fft:8"]["ms"] == 1.0
    assert "transformed weights would take 0.0 GiB" in found["fft:12"]["failure"]
    assert found["fft:12"]["ms"] is None
    assert found["direct"]["failure"] == ""


def test_a_worker_refuses_what_it_does_not_know(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    odd: Any = "odd"
    task = Task(
        kind=odd, layer={"kernel": 3}, folder=str(tmp_path), threads=1, warmup_s=0, seconds=0,
        result=str(tmp_path / "answer.json"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="kind='odd' is unknown: choose 'training' or 'algorithms'"):
        run_task(task)
    (tmp_path / "odd.json").write_text(task.dumps())
    assert main([str(tmp_path / "odd.json")]) == 1
    assert "error: ValueError: kind='odd'" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text('{"kind": "training"}')
    assert main([str(tmp_path / "bad.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main([]) == 2
    assert not (tmp_path / "answer.json").exists()
