"""The inputs on which a plan's error is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.plan import make
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.plan import Plan
from fastcnn.engine.plan.probes import PICTURES, Probes, normal_inputs
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import Maker, compiled, native


def seen(monkeypatch: pytest.MonkeyPatch, inputs: list[Array], shape: tuple[int, ...]) -> list[Array]:
    """What the net is run on for these inputs."""
    make_net = Maker(0, shape)
    net = native(compiled(make_net.graph(make_net.op("relu", "x0")), "scalar"))
    found: list[Array] = []

    def run_once(built: Built, probe: list[Array]) -> list[Array]:
        found.append(probe[0].copy())
        return [probe[0]]

    monkeypatch.setattr(tuning, "run_once", run_once)
    Probes(net, inputs)
    return found


def roughness(x: Array) -> float:
    """Of neighbours' differences, against the deviation: 2 in noise."""
    return float(np.mean(np.diff(x, axis=-1) ** 2) / np.var(x))


@pytest.mark.parametrize(("batch", "sets"), [(1, 4), (2, 2), (3, 2), (8, 2)])
def test_four_pictures_and_a_smooth_one(monkeypatch: pytest.MonkeyPatch, batch: int, sets: int) -> None:
    shape = (batch, 2, 40, 70)
    (given,) = normal_inputs([shape])
    probes = seen(monkeypatch, [given], shape)
    assert len(probes) == sets
    assert len(probes) * batch >= PICTURES
    np.testing.assert_array_equal(probes[0], given)
    assert [roughness(x) < 0.2 for x in probes] == [False, True, False, True][:sets]
    assert len({x.tobytes() for x in probes}) == sets
    assert all(x.dtype == np.float32 and x.shape == shape for x in probes)


def test_they_keep_to_the_range_of_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    given = np.stack([rng.uniform(0, 255, (32, 32)), rng.uniform(-1, 1, (32, 32)), np.full((32, 32), 7.0)])
    given = given[None].astype(np.float32)
    for probe in seen(monkeypatch, [given], given.shape)[1:]:
        for channel, like in zip(probe[0], given[0], strict=True):
            assert like.min() <= channel.min()
            assert channel.max() <= like.max()
            assert channel.std() > 0.3 * like.std() or like.std() == 0


@pytest.mark.parametrize("value", [3e38, np.inf, np.nan])
def test_inputs_at_the_end_of_the_numbers_are_no_error(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    given = np.full((1, 1, 4, 4), value, np.float32)
    given[0, 0, 0, 0] = -1.0
    with np.errstate(all="ignore"):
        probes = seen(monkeypatch, [given], given.shape)
    assert len(probes) == PICTURES
    assert np.isfinite(probes[1]).all() == bool(np.isfinite(value))


def test_rows_of_features_are_probed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(seen(monkeypatch, normal_inputs([(1, 7)]), (1, 7))) == PICTURES


def test_the_worst_probe_is_what_a_plan_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """One probe in four exceeds the budget: the kernels give way."""
    maker = Maker(2, (1, 16, 18, 18))
    graph = maker.graph(maker.op("relu", maker.conv("x0", 16, 16)))
    target = make_target("scalar", 1)

    def plan() -> Plan:
        return CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic").plan

    def gave_way() -> bool:
        return any("exceeded the error budget" in note for note in plan().notes)

    assert not gave_way()
    calls = [0]
    measure = tuning.relative_error

    def relative_error(y: Sequence[Array], exact: Sequence[Array]) -> float:
        calls[0] += 1
        return 1.01e-3 * make.SAFETY if calls[0] == PICTURES - 1 else measure(y, exact)

    monkeypatch.setattr(tuning, "relative_error", relative_error)
    assert gave_way()
    assert calls[0] >= 2 * PICTURES
