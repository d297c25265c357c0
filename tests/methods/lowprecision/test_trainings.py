"""Trainings of few bits: the nets that are trained, one small training to its file, and when a gate holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn.compression.batches import TensorBatches
from fastcnn.reproduction.lowprecision import trainings
from fastcnn.reproduction.lowprecision.ways import WAYS, bipolar, squared_hinge, steps_of_first_stage
from fastcnn.reproduction.trials import RESULT, Trial


@pytest.mark.parametrize("name", WAYS)
def test_every_way_builds_trains_packs_and_runs(name: str) -> None:
    """One step, then the packed net in the engine: the labels are the trained net's."""
    torch.manual_seed(0)
    way = WAYS[name]
    x = torch.randn(32, *((1, 28, 28) if way.data == "mnist" else (3, 32, 32)))
    x = bipolar(x) if way.bipolar else x
    model: Any = way.build()
    if way.config is not None:
        model = fc.prepare(model, way.config(0))
    optimizer = trainings._optimizer(model, way, 10, list(model.parameters()), lr=way.rates[0], weight_decay=0.0)
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
    way = dataclasses.replace(WAYS["mlp/bitwise"], epochs=(1, 2))
    monkeypatch.setitem(WAYS, "mlp/bitwise", way)
    trial = Trial(name="mlp/bitwise", seed=3)
    trainings.train(trial, "mnist:none", Path("none"), tmp_path)
    result = json.loads((trial.folder(tmp_path) / RESULT).read_text())
    assert len(result["curve"]) == 3
    assert result["same_as_trained"] == 100.0
    assert result["file_bytes"] == (trial.folder(tmp_path) / trainings.FILE).stat().st_size
    assert len(result["sittings"]) == 1
    assert result["settings"]["epochs"] == [1, 2]
    assert steps_of_first_stage(way, 4) == 4
    assert steps_of_first_stage(WAYS["mlp/bnn"], 4) == 0


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


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([], "--out is missing"),
        (["--out", "x.json", "--seeds", "1", "1"], "--seeds: 1 1 must be different"),
        (["--out", "x.json", "--jobs", "0"], "--jobs must be at least 1"),
        (["--out", "x.json", "--only", "nets"], "nothing is called so; there are mlp/float"),
        (["--out", "x.json"], "nowhere"),
    ],
)
def test_bad_arguments_are_named(extra: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--mnist", "mnist:nowhere", "--cifar10", "nowhere", "--runs", "runs"]
    assert trainings.main([*where, *extra]) == 2
    assert said in capsys.readouterr().err
