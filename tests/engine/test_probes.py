"""The inputs on which a plan's error is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fastcnn.engine.graph import Graph
from fastcnn.engine.graph.graph import Array, GraphError
from fastcnn.engine.plan import make, probes
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.plan import Plan
from fastcnn.engine.plan.probes import PICTURES, Probes, normal_inputs
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import Maker, compiled, native


def seen(
    monkeypatch: pytest.MonkeyPatch, inputs: list[Array], output: Callable[[Array], Array] = lambda x: x
) -> list[Array]:
    """What a net of one input is run on for these inputs, where that is what it answers."""
    maker = Maker(0, inputs[0].shape)
    net = native(compiled(maker.graph(maker.op("relu", "x0")), "scalar"))
    found: list[Array] = []

    def run_once(built: Built, probe: list[Array]) -> list[Array]:
        found.append(probe[0].copy())
        return [output(probe[0])]

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "run_once", run_once)
        kept = Probes(net, inputs)
    assert len(kept._probes) <= len(found)
    return [probe[0] for probe, _ in kept._probes]


def roughness(x: Array) -> float:
    """Of neighbours' differences, against the deviation: 2 in noise."""
    return float(np.mean(np.diff(x, axis=-1) ** 2) / np.var(x))


@pytest.mark.parametrize(("batch", "sets"), [(1, 4), (2, 2), (3, 2), (8, 2)])
def test_four_pictures_and_a_smooth_one(monkeypatch: pytest.MonkeyPatch, batch: int, sets: int) -> None:
    shape = (batch, 2, 40, 70)
    (given,) = normal_inputs([shape])
    found = seen(monkeypatch, [given])
    assert len(found) == sets
    assert len(found) * batch >= PICTURES
    np.testing.assert_array_equal(found[0], given)
    assert [roughness(x) < 0.2 for x in found] == [False, True, False, True][:sets]
    assert len({x.tobytes() for x in found}) == sets
    assert all(x.dtype == np.float32 and x.shape == shape for x in found)


@pytest.mark.parametrize("size", [32, 9, 70])
def test_they_are_like_every_channel(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(3)
    given = np.stack([rng.uniform(0, 255, (size, size)), rng.uniform(-1, 1, (size, size)), np.full((size, size), 7.0)])
    given = given[None].astype(np.float32)
    for probe in seen(monkeypatch, [given])[1:]:
        for channel, like in zip(probe[0], given[0], strict=True):
            assert like.min() <= channel.min()
            assert channel.max() <= like.max()
            assert abs(channel.mean() - like.mean()) <= 0.25 * like.std()
            assert channel.std() == pytest.approx(like.std(), rel=0.3)


def test_a_constant_example_stands_for_any(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, [np.full((1, 3, 20, 20), 2, np.float32)])
    assert len(found) == PICTURES
    assert all(x.std() > 0.3 for x in found[1:])


@pytest.mark.parametrize("value", [3e38, np.inf, np.nan])
def test_inputs_at_the_end_of_the_numbers_are_no_error(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    given = np.full((1, 1, 4, 4), value, np.float32)
    given[0, 0, 0, 0] = -1.0
    with np.errstate(all="ignore"):
        found = seen(monkeypatch, [given])
    assert len(found) == (PICTURES if np.isfinite(value) else 1)
    assert all(np.isfinite(x).all() for x in found[1:])


def test_rows_of_features_are_probed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(seen(monkeypatch, normal_inputs([(1, 7)]))) == PICTURES


@pytest.mark.parametrize("answer", [lambda x: x * np.nan, lambda x: x * 1e-4])
def test_what_a_net_does_not_answer_is_left_out(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Array], Array]
) -> None:
    (given,) = normal_inputs([(1, 2, 40, 40)])
    found = seen(monkeypatch, [given], lambda x: x if np.array_equal(x, given) else answer(x))
    np.testing.assert_array_equal(found, [given])


def test_inputs_that_belong_together() -> None:
    """A root of a difference that the examples keep positive: made-up ones do not, and are no reason to give way."""
    shape = (1, 16, 18, 18)
    maker = Maker(2, shape, shape)
    y = maker.conv(maker.op("relu", maker.conv(maker.op("sqrt", maker.op("sub", "x0", "x1")), 16, 16)), 16, 16)
    (low,) = normal_inputs([shape])
    net = CompiledNet(
        maker.graph(y), make_target("scalar", 1), tolerance=1e-3, exact=False, how="heuristic",
        calibration=[low + 1, low],
    )  # fmt: skip
    assert net.plan.error is not None
    assert any("winograd" in step.kernel for step in net.plan.steps)


def test_pictures_are_those_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of many rows beside one picture makes no more pictures of it."""
    maker = Maker(0, (1, 4, 8, 8), (1000, 4))
    net = native(compiled(maker.graph(maker.op("relu", "x0"), maker.op("relu", "x1")), "scalar"))
    assert len(Probes(net, normal_inputs([(1, 4, 8, 8), (1000, 4)]))._probes) == PICTURES


def test_probes_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(0, (1, 4, 8, 8))
    net = native(compiled(maker.graph(maker.op("relu", "x0")), "scalar"))
    inputs = normal_inputs([(1, 4, 8, 8)])
    monkeypatch.setattr("fastcnn.engine.plan.limits.memory_limit", lambda: 4 * 2 * 256 * PICTURES - 1)
    with pytest.raises(GraphError, match="the inputs that tell this net's error"):
        Probes(net, inputs)


class Told:
    """Probes whose errors are told one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: Sequence[float]) -> None:
        maker = Maker(0, (1, 2, 40, 40))
        self.net = native(compiled(maker.graph(maker.op("relu", "x0")), "scalar"))
        self.probes = Probes(self.net, normal_inputs([(1, 2, 40, 40)]))
        self.errors = {exact[0].tobytes(): e for (_, exact), e in zip(self.probes._probes, errors, strict=True)}
        self.asked: list[float] = []
        monkeypatch.setattr(tuning, "relative_error", self._error)

    def _error(self, _: Sequence[Array], exact: Sequence[Array]) -> float:
        self.asked.append(self.errors[exact[0].tobytes()])
        return self.asked[-1]

    def ask(self, enough: float = math.inf) -> tuple[float, list[float]]:
        self.asked = []
        return self.probes.error(self.net, enough), self.asked


def test_the_worst_one_comes_first_and_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, [1, 2, 4, 3])
    assert told.ask() == (4, [1, 2, 4, 3])
    assert told.ask(3.5) == (4, [4])
    assert told.ask(4) == (4, [4, 1, 2, 3])
    told.errors = dict.fromkeys(told.errors, math.inf)
    assert told.ask(1) == (math.inf, [math.inf])
    told.errors = dict.fromkeys(told.errors, 0.0)
    assert told.ask(1) == (0, [0, 0, 0, 0])


def plan_of(graph: Graph) -> Plan:
    return CompiledNet(graph, make_target("scalar", 1), tolerance=1e-3, exact=False, how="heuristic").plan


def test_the_worst_probe_is_what_a_plan_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """One probe in four exceeds the budget: kernels give way, and the error that is left is the worst one."""
    maker = Maker(2, (1, 16, 18, 18))
    graph = maker.graph(maker.op("relu", maker.conv("x0", 16, 16)))
    assert not any("exceeded the error budget" in note for note in plan_of(graph).notes)
    calls = [0]

    def relative_error(y: Sequence[Array], exact: Sequence[Array]) -> float:
        calls[0] += 1
        if calls[0] == PICTURES - 1:
            return 1.01e-3 * make.SAFETY_RELAXED
        return 5e-4 if calls[0] == 2 * PICTURES - 1 else 1e-4

    monkeypatch.setattr(tuning, "relative_error", relative_error)
    plan = plan_of(graph)
    assert any("exceeded the error budget" in note for note in plan.notes)
    assert calls[0] >= 2 * PICTURES
    assert plan.error == 5e-4


def test_a_net_too_large_to_measure_counts_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(2, (1, 16, 18, 18))
    graph = maker.graph(maker.conv("x0", 16, 16))
    macs = 16 * 16 * 9 * 18 * 18
    monkeypatch.setattr(make, "MOST_MACS", macs * (1 + probes.made_up(1)))
    assert plan_of(graph).error is not None
    monkeypatch.setattr(make, "MOST_MACS", macs * (1 + probes.made_up(1)) - 1)
    assert plan_of(graph).error is None
