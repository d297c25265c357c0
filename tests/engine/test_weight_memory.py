"""A limit for packed weights: kept, paid for where it costs least, and refused where nothing is left to give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import _native
from fastcnn.engine.graph import Graph
from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan import make, tune
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.make import How
from fastcnn.engine.plan.plan import Plan
from fastcnn.engine.plan.probes import PICTURES
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import WINOGRAD, Maker, error_of, inputs_for


def three_layers() -> Graph:
    """A large layer, a small one, and one that Winograd is not for."""
    maker = Maker(3, (1, 16, 24, 24))
    x = maker.op("relu", maker.conv("x0", 16, 96))
    x = maker.op("relu", maker.conv(x, 96, 96))
    return maker.graph(maker.conv(x, 96, 16, 1))


def planned(limit: int | None, how: How = "heuristic") -> CompiledNet:
    target = make_target("scalar", 1, weight_bytes=limit)
    return CompiledNet(three_layers(), target, tolerance=1e-3, exact=False, how=how)


@pytest.mark.parametrize("how", ["heuristic", "tune"])
def test_the_limit_holds_and_is_told(how: How) -> None:
    free = planned(None, how)
    least = planned(None)
    direct = 4 * (16 * 96 * 9 + 96 * 96 * 9 + 96 * 16) + 4 * 3 * 128
    assert any("winograd" in step.kernel for step in least.plan.steps)
    limit = direct + 8192
    net = planned(limit, how)
    assert net.plan.weight_bytes <= limit
    assert free.plan.weight_bytes >= net.plan.weight_bytes
    if free.plan.weight_bytes > limit:
        assert any("takes too much memory" in note for note in net.plan.notes)
    assert error_of(net, inputs_for(net.graph)) <= WINOGRAD[8]


def test_only_what_is_needed_is_given_up() -> None:
    """One layer's spectra are enough to give: the other keeps its own."""
    free = planned(None)
    spectra = [step for step in free.plan.steps if "winograd" in step.kernel]
    assert len(spectra) == 2
    net = planned(free.plan.weight_bytes - 1)
    assert sum("winograd" in step.kernel for step in net.plan.steps) >= 1
    assert len([note for note in net.plan.notes if "too much memory" in note]) == 1


def test_too_small_a_limit_is_refused() -> None:
    with pytest.raises(GraphError, match=r"packed weights need [0-9,]+ bytes .*, weight_memory allows 1,000"):
        planned(1000)


def test_other_shapes_keep_it() -> None:
    limit = 4 * (16 * 96 * 9 + 96 * 96 * 9 + 96 * 16) + 16384
    net = planned(limit)
    assert net.plan_for((2, 16, 30, 30)).weight_bytes <= limit


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-5, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_limits(value: Any, error: type[Exception]) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Conv2d(3, 8, 3).eval()
    with pytest.raises(error, match="weight_memory="):
        fastcnn.compile(model, np.zeros((1, 3, 8, 8), np.float32), weight_memory=value)


def test_wide_layers_of_few_channels_end_too() -> None:
    """Their biases weigh as much as their weights: candidates of one size must not replace each other for ever."""
    maker = Maker(5, (1, 8, 6, 6))
    graph = maker.graph(maker.conv("x0", 8, 512, 1))
    target = make_target("scalar", 2, weight_bytes=1000)
    with pytest.raises(GraphError, match="weight_memory allows 1,000"):
        CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic")


def winograd_is_fast(built: Built, *_: Any) -> np.ndarray:
    return np.array([0.1 if "winograd" in built.net.kernel(i) else 1.0 for i in range(built.net.steps)])


def test_the_plan_says_why_a_slower_kernel_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tune, "typical", winograd_is_fast)
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path))
    limit = 4 * (16 * 96 * 9 + 96 * 96 * 9 + 96 * 16) + 16384
    net = planned(limit, "tune")
    dropped = {note.split(":")[0] for note in net.plan.notes if "too much memory" in note}
    assert len(dropped) == 2
    assert all("weight_memory asked for it" in step.why for step in net.plan.steps if step.layer in dropped)


def test_bands_are_timed_with_the_kernels_that_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pool runs in bands with a direct convolution, not with Winograd, and the cache knows of one of them."""
    monkeypatch.setattr(tune, "typical", winograd_is_fast)
    monkeypatch.setattr(tune, "FUSED_GAINS", 1e9)
    maker = Maker(4, (1, 16, 24, 24))
    window = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0] * 4, "dilation": [1, 1], "ceil_mode": False}
    graph = maker.graph(maker.conv(maker.op("max_pool2d", maker.conv("x0", 16, 96), **window), 96, 8, 1))

    def bands(limit: int | None, how: str) -> int:
        target = make_target("scalar", 1, weight_bytes=limit)
        net = CompiledNet(graph, target, tolerance=1e-3, exact=False, how="tune")
        assert net.plan.how == how
        return len(net.plan.bands)

    small = 4 * (16 * 96 * 9 + 96 * 8) + 16384
    for order in ((None, small), (small, None)):
        monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path / str(order)))
        expected = [int(limit == small) for limit in order]
        assert [bands(limit, how) for limit, how in zip(order, ("tuned", "tuned earlier"), strict=True)] == expected
        assert [bands(limit, "tuned earlier") for limit in order] == expected


def saved_net(path: Path) -> Plan:
    """For this machine, as a saved plan is followed only there."""
    isa = str(_native.host()["isa_active"])
    net = CompiledNet(three_layers(), make_target(isa, 1), tolerance=1e-3, exact=False, how="heuristic")
    net.save(path)
    return net.plan


def test_a_saved_error_says_nothing_of_other_kernels(tmp_path: Path) -> None:
    free = saved_net(tmp_path / "net.fcnn")
    assert free.error is not None
    same = fastcnn.load(tmp_path / "net.fcnn", threads=1, weight_memory=free.weight_bytes).plan
    assert same.error_as_saved
    assert same.choices() == free.choices()
    plan = fastcnn.load(tmp_path / "net.fcnn", threads=1, weight_memory=free.weight_bytes - 1).plan
    assert not plan.error_as_saved
    assert "as saved" not in str(plan)
    assert plan.error is not None
    assert plan.error != free.error
    whys = {step.layer: step.why for step in plan.steps}
    changed = [layer for layer, choice in plan.choices().items() if choice != free.choices()[layer]]
    assert len(changed) == 1
    for layer in plan.choices():
        assert ("weight_memory asked for it" if layer in changed else "saved") in whys[layer]


def test_a_saved_net_too_large_to_measure_gets_exact_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = saved_net(tmp_path / "net.fcnn")
    monkeypatch.setattr(make, "MOST_MACS", 1)
    plan = fastcnn.load(tmp_path / "net.fcnn", threads=1, weight_memory=free.weight_bytes - 1).plan
    assert plan.error is None
    assert not any("winograd" in step.kernel for step in plan.steps)
    assert any("exact kernels" in note for note in plan.notes)


def test_smaller_kernels_keep_the_error_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is as exact as the one before; the net is not, by what is measured here, with small Winograd tiles."""
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path))
    monkeypatch.setattr(tune, "typical", winograd_is_fast)
    free = planned(None, "tune").plan
    measure, running = tune.relative_error, tune.run_once
    small = [False]

    def run_once(built: Built, inputs: Any) -> Any:
        small[0] = any(c.attrs.get("m", 9) < free_m for c in built.chosen if c.op == "winograd")
        return running(built, inputs)

    free_m = min(int(step.choice.split(":")[1]) for step in free.steps if step.choice.startswith("winograd"))
    monkeypatch.setattr(tune, "run_once", run_once)
    monkeypatch.setattr(tune, "relative_error", lambda y, exact: 1.0 if small[0] else measure(y, exact))
    limit = free.weight_bytes * 2 // 3
    net = planned(limit, "tune")
    assert any("takes too much memory" in note for note in net.plan.notes)
    assert any("exceeded the error budget" in note for note in net.plan.notes)
    assert net.plan.weight_bytes <= limit
    assert net.plan.error is not None
    assert net.plan.error <= 1e-3 * make.SAFETY_RELAXED
    assert not small[0]


def test_a_limit_that_leaves_no_exact_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats take twice the memory of weights in 16 bits; these are too rough here, as soon as they are asked for."""
    maker = Maker(6, (1, 256, 4, 4))
    graph = maker.graph(maker.conv("x0", 256, 256))
    half = 4 * 256 * 256 * 9 // 2
    target = make_target("scalar", 2)
    plan = CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic").plan
    assert plan.weight_bytes > 3 * half // 2
    target = replace(target, weight_bytes=3 * half // 2)
    assert CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic").plan.weight_bytes < 3 * half // 2
    errors = iter([1e-6] * PICTURES)
    monkeypatch.setattr(tune, "relative_error", lambda y, exact: next(errors, 0.5))
    with pytest.raises(GraphError, match=rf"weight_memory={3 * half // 2} leaves for n0_conv2d .* error of 5\.0e-01"):
        CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic")
