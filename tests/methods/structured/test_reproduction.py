"""Trainings of structured layers: what is compared with what, and when a gate holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.compression import calibrate
from fastcnn.methods.structured.tucker import TuckerConv2d
from fastcnn.reproduction import trials
from fastcnn.reproduction.structured import conv_net, conv_speed, dense_layers
from fastcnn.reproduction.structured.agreement import measure
from fastcnn.reproduction.structured.mobilenet_v2 import MobileNetV2
from fastcnn.reproduction.trials import Spread, Trial, gather, parameters, versus
from fastcnn.reproduction.winograd_labels.nets import vgg_like
from fastcnn.reproduction.winograd_labels.pictures import Pictures


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("way", dense_layers.LAYERS)
def test_dense_nets_of_equal_size_have_no_more_parameters_and_hardly_fewer(net: str, way: str) -> None:
    ours = dense_layers.build(net, way, 0)
    equal = dense_layers.build(net, f"dense like {way}", 0)
    assert parameters(equal) <= parameters(ours)
    assert parameters(equal) > 0.97 * parameters(ours)
    assert not any(type(module) in {type(dense_layers.LAYERS[way](0))} for module in equal.modules())
    assert ours(torch.zeros(2, 1, 28, 28)).shape == equal(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    smaller = 1024 * 1024 / dense_layers.weights_of(ours, dense_layers.HIDDEN[net])
    assert smaller >= dense_layers.GATES[way].smaller


def test_predicted_layers_learn_a_quarter() -> None:
    torch.manual_seed(0)
    model = dense_layers.predicted(dense_layers.denil(), torch.randn(64, 1, 28, 28), 0)
    whole = 784 * 500 + 500 * 500
    assert whole == 4 * dense_layers.weights_of(model, dense_layers.HIDDEN["denil"])
    assert type(model.get_submodule("5")) is nn.Linear
    equal = dense_layers.build("denil", "dense like predicted", 0)
    held = parameters(model) + 500 * 125  # the predictor that comes from data
    assert dense_layers.numbers_of(model, dense_layers.HIDDEN["denil"]) == whole // 4 + 500 * 125
    assert 0.97 * held < parameters(equal) <= held


def results(drop: float, *, seeds: int = 3) -> list[dict[str, Any]]:
    """Of every training, structured ones so many points below the dense."""
    found = []
    for name in dense_layers.names(list(dense_layers.HIDDEN)):
        _, way = name.split("/")
        for seed in range(seeds):
            accuracy = 90.0 + 0.1 * (seed - 1) - (drop if way in dense_layers.GATES else 0.0)
            sizes = {"layer_weights": 1024, "dense_weights": 1024 * 1024} if way in dense_layers.GATES else {}
            settings = {"epochs": dense_layers.EPOCHS}
            found.append({"name": name, "seed": seed, "accuracy": accuracy, "params": 1, "settings": settings, **sizes})
    return found


def test_gates() -> None:
    nets = list(dense_layers.HIDDEN)
    held = dense_layers.summary(results(0.5), nets, [0, 1, 2])
    assert held["passed"]
    assert len(held["gates"]) == 11
    assert "MISSED" not in dense_layers.table(held)
    missed = dense_layers.summary(results(0.51), nets, [0, 1, 2])
    assert not missed["passed"]
    assert {row["way"] for row in missed["gates"] if not row["passed"]} == {"block-circulant"}
    assert not dense_layers.summary(results(0.5)[:-1], nets, [0, 1, 2])["passed"]
    assert not dense_layers.summary(results(0.5, seeds=2), nets, [0, 1])["passed"]
    short = [{**result, "settings": {"epochs": 2}} for result in results(0.5)]
    assert not dense_layers.summary(short, nets, [0, 1, 2])["passed"]
    part = [result for result in results(0.5) if result["name"].startswith("mlp/")]
    assert not dense_layers.summary(part, ["mlp"], [0, 1, 2])["passed"]
    large = [{**result, "dense_weights": 2 * 1024} if "dense_weights" in result else result for result in results(0.0)]
    assert not any(row["passed"] for row in dense_layers.summary(large, nets, [0, 1, 2])["gates"])


def test_who_is_ahead_by_more_than_the_spread() -> None:
    high, low = Spread.of([90.0, 90.2, 90.4]), Spread.of([89.0, 89.2, 89.4])
    assert versus(high, low) == {"difference": pytest.approx(1.0), "sd": pytest.approx(0.08**0.5), "ahead": "first"}
    assert versus(low, high)["ahead"] == "second"
    assert versus(high, Spread.of([89.9, 90.1, 90.3]))["ahead"] == "neither"
    assert versus(Spread.of([90.0]), low) == {"difference": pytest.approx(0.8), "sd": None, "ahead": "unknown"}


def test_results_made_differently_are_not_put_together(tmp_path: Path) -> None:
    made = [Trial(name="mlp/dense", seed=seed) for seed in range(3)]
    for trial in made[:2]:
        trial.folder(tmp_path).mkdir()
        document = {"torch": "2", "data_sha256": "a", "settings": {"epochs": trial.seed}}
        (trial.folder(tmp_path) / trials.RESULT).write_text(json.dumps(document))
    with pytest.raises(trials.StaleResultError, match=r"mlp/dense, seed 1 was made with another settings .* remove"):
        gather(made, tmp_path)
    assert len(gather([made[0], made[2]], tmp_path)) == 1


def test_results_of_other_settings_are_found_before_anything_is_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(name="mlp/dense", seed=0)
    trial.folder(tmp_path).mkdir()
    (trial.folder(tmp_path) / trials.RESULT).write_text(json.dumps({"settings": {"epochs": 1, "rates": [1, 2]}}))

    def run(settings: dict[str, Any]) -> None:
        made = [trial, Trial(name="mlp/dense", seed=1)]
        trials.run_trials("no.such.module", [], made, tmp_path, jobs=1, title="t", settings=lambda trial: settings)

    with pytest.raises(trials.StaleResultError, match=r"mlp/dense, seed 0 was made with other settings .* remove"):
        run({"epochs": 2, "rates": (1, 2)})
    with pytest.raises(trials.TrialFailedError, match="seed 1"):
        run({"epochs": 1, "rates": (1, 2)})
    assert trials.interrupted_or(lambda: run({}) or 0, tmp_path) == 1  # type: ignore[func-returns-value]
    assert "error: mlp/dense, seed 0" in capfd.readouterr().err


def test_a_trial_that_fails_is_named(tmp_path: Path) -> None:
    arguments = ["--data", f"fashion-mnist:{tmp_path}/nowhere", "--runs", str(tmp_path)]
    with pytest.raises(trials.TrialFailedError, match="mlp/dense, seed 0: ended with 1; see"):
        trials.run_trials(
            dense_layers.MODULE, arguments, [Trial(name="mlp/dense", seed=0)], tmp_path, jobs=1, title="test"
        )
    assert "nowhere" in (tmp_path / "mlp-dense-0" / trials.LOG).read_text()


def test_mobilenet_v2_is_the_published_one() -> None:
    model = MobileNetV2()
    assert parameters(model) == 3_504_872
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == 52


def test_agreement_is_judged_out_of_fold() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    inputs, truth = torch.randn(12, 3, 4, 4), torch.arange(12) % 10
    from fastcnn.methods.structured.svd import SVDConfig

    found = measure(model, SVDConfig(rank=4, force=True), inputs, truth)
    assert [fold["photographs"] for fold in found["folds"]] == [6, 6]
    assert found["agreement"] == pytest.approx(sum(fold["same_labels"] for fold in found["folds"]) / 12 * 100)
    assert found["agreement"] < 100
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(32, 10) @ torch.randn(10, 48) / 8)
    exact, large = (measure(model, SVDConfig(rank=rank, force=True, ridge=1e-6), inputs, truth) for rank in (10, 20))
    assert exact["agreement"] == large["agreement"] == 100
    assert (exact["passed"], large["passed"]) == (True, False)  # the second has more parameters than the dense net


def test_conv_net_ways_save_what_they_must() -> None:
    """On the untrained net and random pictures: structure alone decides."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 3, 32, 32)
    pictures = Pictures(inputs=inputs, labels=torch.arange(512) % 10, sha256="")
    net = vgg_like().eval()
    dense = conv_net.macs(net)
    assert dense["17"] == 128 * 128 * 9 * 64
    for way, count in (("scheme-2", "macs"), ("cp", "macs"), ("svd", "params")):
        small = conv_net.convert(net, way, pictures, {})
        run = {
            "params": parameters(small),
            "dense_params": parameters(net),
            "macs": conv_net.macs(small),
            "dense_macs": dense,
        }
        assert run[count] != run[f"dense_{count}"]
        assert conv_net._fewer(way, run) >= conv_net.GATES[way].fewer
    copied = conv_net.convert(net, "dense", pictures, {})
    assert copied is not net
    assert conv_net.same(conv_net.answers(copied.train(), pictures), conv_net.answers(net, pictures)) == 100.0


def test_tucker_ranks_of_all_layers_are_taken_in_one_conversion() -> None:
    """Each layer is fitted behind the converted ones before it; the report names all of them."""
    torch.manual_seed(0)
    net = vgg_like().eval()
    data = [torch.randn(16, 3, 32, 32)]
    ranks = {"3": (16, 16), "17": (64, 112)}
    for given in (data, None):
        small = conv_net.with_tucker(net, ranks, given)
        found = {name: module.ranks for name, module in small.named_modules() if isinstance(module, TuckerConv2d)}
        assert found == ranks
        assert [line.layer for line in fc.report(small).layers] == ["3", "17"]
    assert isinstance(net.get_submodule("3"), nn.Conv2d)


def test_conv_net_gates() -> None:
    def of(way: str, accuracy: float, seed: int) -> dict[str, Any]:
        return {
            "name": way,
            "seed": seed,
            "accuracy": accuracy,
            "accuracy_untrained": 50.0,
            "same_answers": 95.0,
            "params": 10,
            "dense_params": 40,
            "macs": {"17.0": 10},
            "dense_macs": {"17": 40},
        }

    def found(drop: float, count: int = 11) -> dict[str, Any]:
        runs = [
            of(trial.name, 86.0 - drop * (trial.name != "dense"), trial.seed) for trial in conv_net.trials_of([0, 1, 2])
        ]
        assert len(runs) == 11
        return conv_net.summary(runs[:count], [0, 1, 2])

    assert found(0.7)["passed"]
    assert [row["way"] for row in found(0.8)["gates"] if not row["passed"]] == ["scheme-2"]
    assert [row["way"] for row in found(0.9)["gates"] if not row["passed"]] == ["scheme-2", "svd"]
    assert not found(0.7, 10)["passed"]
    assert not conv_net.summary([], [0, 1, 2])["passed"]
    two = [of(trial.name, 86.0, trial.seed) for trial in conv_net.trials_of([0, 1])]
    assert not conv_net.summary(two, [0, 1])["passed"]
    assert "MISSED" in conv_net.table(found(0.8))


def test_speed_gates_of_tucker() -> None:
    times = {conv_speed.EXACT: [2.0, 2.0, 2.0], conv_speed.FP32: [1.2, 1.1, 1.3], conv_speed.TUCKER: [1.0, 1.0, 1.0]}
    errors = dict.fromkeys(times, 1e-6)
    own = conv_speed.row(conv_speed.OWN, times, errors)
    assert (own["gain_over_exact"], own["gain_over_fp32"], own["passed"]) == (2.0, pytest.approx(1.2), True)
    assert conv_speed.row("vgg16", times, errors)["passed"]
    slower = {**times, conv_speed.FP32: [0.9, 1.1, 0.9]}
    assert not conv_speed.row(conv_speed.OWN, slower, errors)["passed"]
    assert not conv_speed.row("vgg16", {**times, conv_speed.FP32: [1.14] * 3}, errors)["passed"]
    assert not conv_speed.row(conv_speed.OWN, {**times, conv_speed.EXACT: [1.24] * 3}, errors)["passed"]
    assert not conv_speed.row("vgg16", times, {**errors, conv_speed.TUCKER: 2e-4})["passed"]
    assert "MISSED" in conv_speed.table([conv_speed.row(conv_speed.OWN, slower, errors)])


def test_layers_that_are_no_faster_are_declined_with_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock alone: the second layer's chain is made out to take longer than the dense one, with one outlier."""
    net = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 32, 3), nn.Conv2d(32, 64, 3)).eval()
    timed: list[nn.Module] = []

    def layer_ms(layer: Any, shape: tuple[int, ...], threads: int) -> float:
        timed.append(layer)
        if len(timed) == 2:
            return 100.0
        return 1.0 if isinstance(layer, nn.Conv2d) else layer.ranks[1] / 20  # type: ignore[no-any-return]

    monkeypatch.setattr(calibrate, "layer_ms", layer_ms)
    ranks = {"0": (8, 16), "1": (16, 32), "2": (16, 19), "3": (16, 32)}
    found = conv_speed.layer_times(net, ranks, (1, 32, 12, 12), 1)
    assert [found[name]["declined"] for name in ranks] == [False, True, False, True]
    assert found["0"]["ms"] == pytest.approx(0.8)  # the median
    assert (found["1"]["dense_ms"], found["1"]["ms"]) == (1.0, pytest.approx(1.6))
    assert "curve" not in found["0"]
    curve = found["1"]["curve"]
    assert len(curve) > 1
    assert [point["ms"] for point in curve] == [point["ranks"][1] / 20 for point in curve]
    assert all(point["ranks"][1] <= 32 for point in curve)
    assert found["3"] is not None


def test_other_nets_get_the_same_share_of_their_channels() -> None:
    net = vgg_like()
    assert conv_speed.shares(net, {"10": (32, 16), "17": (32, 96)}) == (0.375, 0.5)
    found = conv_speed.ranks_by_share(net, (0.5, 0.5))
    assert found["17"] == (64, 64)
    assert "0" not in found  # three colours
    assert set(found) == {"3", "7", "10", "14", "17"}
    small = conv_speed.with_tucker(net, {"17": (64, 64)})
    assert parameters(small) < parameters(net)
