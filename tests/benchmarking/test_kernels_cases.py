"""The layers, peers, goals and axes of ``bench --kernels``, and the layer in its three forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastcnn.benchmarking.engines import KNOWN_PEERS
from fastcnn.benchmarking.kernels import CHARTS, LAYER_CASES, ROWS, TRAINING_CASE, Goal, Layer
from fastcnn.benchmarking.kernels.cases import chart_layers
from tests.reference.interpreter import run_graph


def test_every_goal_is_the_one_that_was_set() -> None:
    found = {case.layer.name: {goal.peers: goal.ratio for goal in case.goals} for case in LAYER_CASES}
    desktop, mobile = ("torch", "onnxruntime", "openvino"), ("ncnn", "mnn")
    wanted = {5: 0.30, 7: 0.28, 11: 0.18, 15: 0.11, 31: 0.06}
    expected = {f"k{k}-c64-m56-b{n}": {desktop: ratio} for n in (1, 8) for k, ratio in wanted.items()}
    for batch in (1, 8):
        expected[f"k5-c64-m56-b{batch}"][mobile] = 0.6
    expected["dw31-c256-m56-b1"] = {desktop: 0.5}
    assert found == expected
    assert TRAINING_CASE.layer == Layer(kernel=7, channels=64, size=56, batch=16)
    assert TRAINING_CASE.goals == (Goal(peers=("torch",), ratio=0.5),)


def test_goals_are_against_peers_that_take_part() -> None:
    for case in (*LAYER_CASES, TRAINING_CASE):
        assert set(case.peers) <= set(KNOWN_PEERS)
        assert all(set(goal.peers) <= set(case.peers) for goal in case.goals)
        # ncnn and MNN are timed for the kernels they have fast forms of.
        assert ("mnn" in case.peers) == (case.layer.kernel in (5, 7) and case.layer.batch != 16)


def test_the_charts_cover_their_axes() -> None:
    axes = {
        (chart.name, line): [getattr(layer, chart.axis) for layer in layers]
        for chart in CHARTS
        for line, layers in chart.lines.items()
    }
    assert axes.pop(("by-kernel", 0)) == list(range(3, 32, 2))
    assert axes.pop(("depthwise", 0)) == list(range(7, 32, 4))
    assert axes == {
        (name, k): values
        for name, values in {
            "by-channels": [16, 32, 64, 128, 256, 512],
            "by-map": [7, 14, 28, 56, 112],
            "by-batch": [1, 2, 4, 8, 16],
        }.items()
        for k in (3, 5, 7)
    }
    assert ("layers", "training", *(chart.name for chart in CHARTS)) == ROWS


def test_a_layer_of_several_charts_is_measured_once() -> None:
    layers = chart_layers(ROWS)
    assert len(layers) == len(set(layers)) == 15 + 7 + 3 * (6 + 5 + 5) - 3 * 3
    assert chart_layers(["by-kernel"]) == tuple(Layer(kernel=k) for k in range(3, 32, 2))
    assert chart_layers(["layers", "training"]) == ()


@pytest.mark.parametrize(
    "layer", [Layer(kernel=5, channels=6, size=9, batch=2), Layer(kernel=3, channels=4, size=7, depthwise=True)]
)
def test_module_and_graph_are_the_same_layer(layer: Layer) -> None:
    x = np.random.default_rng(0).standard_normal(layer.shape)
    (expected,) = run_graph(layer.graph(), {"x": x})
    with torch.no_grad():
        found = layer.module().double()(torch.from_numpy(x)).numpy()
    assert found.shape == layer.shape
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_a_layer_counts_its_multiplications() -> None:
    assert Layer(kernel=7).macs == 64 * 64 * 49 * 56 * 56
    assert Layer(kernel=31, channels=256, depthwise=True).macs == 256 * 961 * 56 * 56
    assert Layer(kernel=31, channels=256, depthwise=True).name == "dw31-c256-m56-b1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kernel": 4}, "kernel=4 is not allowed: choose an odd one"),
        ({"kernel": 3, "channels": 0}, "channels=0 is not allowed: choose at least 1"),
        ({"kernel": 3, "batch": -1}, "batch=-1"),
    ],
)
def test_impossible_layers_are_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Layer(kernel=given["kernel"], channels=given.get("channels", 64), batch=given.get("batch", 1))


@pytest.mark.parametrize(("peers", "ratio"), [((), 0.5), (("torch",), 0.0), (("torch",), float("nan"))])
def test_impossible_goals_are_refused(peers: tuple[str, ...], ratio: float) -> None:
    with pytest.raises(ValueError, match="name peers and a positive ratio"):
        Goal(peers=peers, ratio=ratio)
