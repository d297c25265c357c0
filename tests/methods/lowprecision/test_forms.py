"""One net's forms: from two small trainings to times, bytes, a table and a picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcnn.compression.batches import TensorBatches
from fastcnn.reproduction.lowprecision import forms, trainings
from fastcnn.reproduction.lowprecision.ways import WAYS, Stage
from fastcnn.reproduction.trials import Trial
from fastcnn.reproduction.winograd_labels.pictures import Pictures


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a float and a binary training of a few pictures."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 3, 32, 32), torch.arange(32) % 10
    pictures = Pictures(inputs=x, labels=y, sha256="a" * 64)
    data = trainings.Data(
        batches=TensorBatches(x, y, batch_size=16), inputs=x, labels=y, sha256="a" * 64, test_sha256="b" * 64
    )
    monkeypatch.setattr(trainings, "load", lambda *_: data)
    monkeypatch.setattr(forms, "load_pictures", lambda *_: pictures)
    monkeypatch.setattr(forms, "CALIBRATED", 16)
    for name in ("vgg/float", "vgg/bwn"):
        monkeypatch.setitem(WAYS, name, dataclasses.replace(WAYS[name], stages=(Stage(epochs=1, rate=1e-3),)))
        trainings.train(Trial(name=name, seed=0), "mnist:none", "none", tmp_path)
    return tmp_path


def test_from_trainings_to_a_picture(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, png = tmp_path / "forms.json", tmp_path / "forms.png"
    arguments = ["--runs", str(runs), "--cifar10", "none", "--out", str(out), "--png", str(png), "--threads", "1"]
    assert forms.main([*arguments, "--rounds", "1", "--seconds", "0.01"]) == 0
    rows = {row["form"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"vgg/float", "vgg/bwn", "vgg/int8"}
    assert rows["vgg/int8"]["bytes"] < rows["vgg/float"]["bytes"] / 3
    assert all(len(row["ms"]) == 1 and row["ms"][0] > 0 for row in rows.values())
    trained = json.loads((Trial(name="vgg/float", seed=0).folder(runs) / "result.json").read_text())
    assert rows["vgg/float"]["accuracy"] == trained["accuracy"]
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "vgg/int8" in capsys.readouterr().out


def test_what_is_missing_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common: list[Any] = ["--cifar10", "none", "--out", str(tmp_path / "forms.json")]
    assert forms.main(["--runs", str(tmp_path / "nothing"), *common]) == 2
    assert "no result of vgg/float with seed 0" in capsys.readouterr().err
    (Trial(name="vgg/float", seed=0).folder(runs) / trainings.WEIGHTS).write_bytes(b"no weights")
    assert forms.main(["--runs", str(runs), *common]) == 2
    assert "does not hold the weights of vgg/float" in capsys.readouterr().err
    assert forms.main(["--runs", str(runs), *common, "--rounds", "0"]) == 2
    assert not (tmp_path / "forms.json").exists()
