"""Trainings of few bits: the nets that are trained, one small training to its file, and when a gate holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

import fastcnn as fc
from fastcnn.compression.batches import TensorBatches
from fastcnn.data import load_data
from fastcnn.reproduction.lowprecision import trainings
from fastcnn.reproduction.lowprecision.ways import WAYS, Stage, bipolar, squared_hinge, steps_of_first_stage
from fastcnn.reproduction.trials import RESULT, Trial, restore
from fastcnn.reproduction.winograd_labels.pictures import MEAN, STD


@pytest.mark.parametrize("name", WAYS)
def test_every_way_builds_trains_packs_and_runs(name: str) -> None:
    """One step, then the packed net in the engine: the labels are the trained net's."""
    torch.manual_seed(0)
    way = WAYS[name]
    stage = way.stages[-1]
    x = torch.randn(32, *((1, 28, 28) if way.data == "mnist" else (3, 32, 32)))
    x = bipolar(x) if way.bipolar else x
    model: Any = way.build()
    if way.config is not None:
        model = fc.prepare(model, way.config(0))
    optimizer = trainings._optimizer(model, stage, 10, list(model.parameters()), lr=stage.rate, weight_decay=0.0)
    loss = way.loss(model(x), torch.randint(0, 10, (32,)))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if way.config is not None:
        model.step()
    want = model.eval()(x).argmax(1)
    small = fc.convert(model) if way.config is not None else model
    if way.config is not None:
        assert any(line.status == "done" for line in fc.report(small))
    net = fc.compile(small.eval(), x[:1], threads=1, strict=True, tune=False)
    got = [int(np.asarray(net(picture[None].contiguous().numpy())).argmax()) for picture in x]
    # In real numbers two outputs may be as good as equal.
    assert (torch.tensor(got) == want).sum() >= 31


def test_one_training_from_pictures_to_its_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 1, 28, 28)
    y = (x.mean((1, 2, 3)) > 0).long()
    data = trainings.Data(
        batches=TensorBatches(x, y, batch_size=16), inputs=x, labels=y, sha256="a" * 64, test_sha256="b" * 64
    )
    monkeypatch.setattr(trainings, "load", lambda *_: data)
    way = dataclasses.replace(WAYS["mlp/bitwise"], stages=(Stage(epochs=1, rate=1e-3), Stage(epochs=2, rate=1e-3)))
    monkeypatch.setitem(WAYS, "mlp/bitwise", way)
    trial = Trial(name="mlp/bitwise", seed=3)
    trainings.train(trial, "mnist:none", "none", tmp_path)
    result = json.loads((trial.folder(tmp_path) / RESULT).read_text())
    assert len(result["curve"]) == 3
    assert result["same_as_trained"] == 100.0
    assert result["file_bytes"] == (trial.folder(tmp_path) / trainings.FILE).stat().st_size
    assert len(result["sittings"]) == 1
    assert [stage["epochs"] for stage in result["settings"]["stages"]] == [1, 2]
    assert steps_of_first_stage(way, 4) == 4
    assert steps_of_first_stage(WAYS["mlp/bnn"], 4) == 0


@pytest.fixture
def svhn(tmp_path: Path) -> str:
    """A DATA string for 40 and 20 pictures."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 20)):
        pictures = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = rng.integers(1, 11, (count, 1)).astype(np.uint8)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pictures, "y": labels})
    return f"svhn:{tmp_path}"


def test_svhn_stands_for_cifar10(svhn: str) -> None:
    """Its pictures and labels, shifted but not mirrored; its results are no others'."""
    way = WAYS["vgg/bnn"]
    data = trainings.load(way, "mnist:none", svhn)
    assert data.inputs.shape == (20, 3, 32, 32)
    assert len(data.batches) == 1
    known = load_data(svhn, split="train")
    pixels = torch.from_numpy(np.asarray(known.images)).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    for _ in range(3):
        ((inputs, labels),) = data.batches
        for picture, label in zip(inputs, labels.tolist(), strict=True):
            # Four pixels off in each direction at most: the middle is there, and the right way round.
            middle = (picture * STD[:, None, None] + MEAN[:, None, None])[:, 8:24, 8:24].mul(255).round()
            places = [
                int(known.labels[i])  # type: ignore[index]
                for i in range(40)
                for top in range(4, 13)
                for left in range(4, 13)
                if torch.equal(pixels[i, :, top : top + 16, left : left + 16].float(), middle)
            ]
            assert places == [label]
    trial = Trial(name="vgg/bnn", seed=0)
    assert trainings.settings_of(trial, svhn)["data"] == "svhn"
    assert trainings.settings_of(trial, "folder") == trainings.settings_of(trial)
    assert trainings.settings_of(trial)["data"] == "cifar10"
    assert trainings.settings_of(Trial(name="mlp/bnn", seed=0), svhn)["data"] == "mnist"


def test_a_training_of_svhn(svhn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WAYS, "vgg/bnn", dataclasses.replace(WAYS["vgg/bnn"], stages=(Stage(epochs=1, rate=5e-3),)))
    trial = Trial(name="vgg/bnn", seed=1)
    trainings.train(trial, "mnist:none", svhn, tmp_path / "runs")
    result = json.loads((trial.folder(tmp_path / "runs") / RESULT).read_text())
    assert result["settings"]["data"] == "svhn"
    assert result["same_as_trained"] == 100.0


def results(drop: float, *, same: float = 100.0) -> list[dict[str, Any]]:
    """Of every training: each way so many points below what it is compared with, or above its least accuracy."""
    found = []
    for name in WAYS:
        gate = trainings.GATES.get(name, trainings.Gate())
        base = 90.0 if gate.least is None else gate.least + 1.0
        for seed in trainings.SEEDS:
            accuracy = base - (drop if name in trainings.GATES else 0.0) + 0.01 * (seed - 1)
            found.append(
                {"name": name, "accuracy": accuracy, "file_bytes": 1, "same_as_trained": same, "seconds": 60.0}
            )
    return found


def test_gates() -> None:
    held = trainings.summary(results(0.5), trainings.SEEDS)
    assert held["passed"]
    assert "MISSED" not in trainings.table(held)
    assert held["minutes"] == len(WAYS) * 3
    missed = trainings.summary(results(0.51), trainings.SEEDS)
    assert not missed["passed"]
    assert [row["way"] for row in missed["gates"] if not row["passed"]] == ["vgg/dorefa-8-8-8"]
    assert "MISSED" in trainings.table(missed)
    assert not trainings.summary(results(0.0, same=99.99), trainings.SEEDS)["passed"]
    assert not trainings.summary(results(0.0)[:-1], trainings.SEEDS)["passed"]


def test_the_squared_hinge_by_hand() -> None:
    outputs, labels = torch.tensor([[0.5, -2.0, 0.0]]), torch.tensor([0])
    assert float(squared_hinge(outputs, labels)) == pytest.approx(0.5**2 + 0.0 + 1.0)


def test_results_of_an_earlier_record_are_not_trained_again(tmp_path: Path) -> None:
    record, runs = tmp_path / "record.json", tmp_path / "runs"
    known = {"name": "mlp/bnn", "seed": 1, "accuracy": 99.0}
    record.write_text(json.dumps({"passed": False, "runs": [known, {**known, "seed": 2}]}))
    trials = [Trial(name="mlp/bnn", seed=seed) for seed in (0, 1)]
    restore(record, trials, runs)
    assert [trial.result(runs) for trial in trials] == [None, known]
    record.write_text(json.dumps({"runs": [{**known, "accuracy": 98.0}]}))
    restore(record, trials, runs)
    assert trials[1].result(runs) == known, "what is there is left"
    record.write_text("[1]")
    with pytest.raises(ValueError, match=r"record\.json holds no results of trainings"):
        restore(record, trials, runs)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([], "--out is missing"),
        (["--out", "x.json", "--seeds", "1", "1"], "--seeds: 1 1 must be different"),
        (["--out", "x.json", "--jobs", "0"], "--jobs must be at least 1"),
        (["--out", "x.json", "--only", "nets"], "nothing is called so; there are mlp/float"),
        (["--out", "x.json"], "nowhere"),
        (["--out", "x.json", "--mnist", "mnist:{mnist}", "--cifar10", "svhn:none"], "svhn:none"),
    ],
)
def test_bad_arguments_are_named(
    extra: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "svhn:none" in extra:
        monkeypatch.setattr(trainings, "mnist_pictures", lambda *_: None)
    where = ["--mnist", "mnist:nowhere", "--cifar10", "nowhere", "--runs", "runs"]
    assert trainings.main([*where, *extra]) == 2
    assert said in capsys.readouterr().err
