"""The reproduction of Deep Compression: the committed record, a small run, bad input, and the real thing (slow)."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn.compression.recipe import Recipe, Training
from fastcnn.reproduction import deep_compression as dc
from fastcnn.reproduction.lenet import NETS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(("net", "params"), [("lenet-300-100", 266_610), ("lenet-5", 431_080)])
def test_nets_are_those_of_the_paper(net: str, params: int) -> None:
    assert sum(p.numel() for p in NETS[net]().parameters()) == params
    assert NETS[net]()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("net", sorted(NETS))
def test_the_committed_record_holds_the_gates_and_adds_up(net: str) -> None:
    record = json.loads((RESULTS / f"deep_compression_{net}.json").read_text(encoding="utf-8"))
    runs = record["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    ratios = [run["dense_bytes"] / run["file_bytes"] for run in runs]
    drops = [run["control_accuracy"] - run["compressed_accuracy"] for run in runs]
    assert record["mean_ratio"] == pytest.approx(np.mean(ratios))
    assert record["mean_drop_points"] == pytest.approx(np.mean(drops), abs=1e-9)
    assert np.mean(ratios) >= 30
    assert np.mean(drops) <= 0.3
    assert record["passed"] is True
    params = sum(p.numel() for p in NETS[net]().parameters())
    for run in runs:
        assert run["dense_bytes"] == 4 * params
        assert run["predicted_bytes"] == pytest.approx(run["file_bytes"], rel=0.02)
        stages = Recipe.parse(run["recipe"]).stages
        trained = sum(stage.epochs for stage in stages if isinstance(stage, Training))
        # The control trained exactly as long as the compressed net: dense epochs, then as many again.
        assert run["control_epochs"] == len(run["dense_curve"]) == trained + dc.PLANS[net].dense.epochs


def fake_mnist(folder: Path) -> None:
    """Ten kinds of bright square, as IDX files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 600), ("t10k", 100)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for picture, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 5)
            picture[4 + 11 * row : 13 + 11 * row, 5 * column : 5 * column + 5] += 150
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


def test_a_small_run_writes_a_full_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_mnist(tmp_path)
    plan = dc.PLANS["lenet-300-100"]
    monkeypatch.setitem(dc.PLANS, "lenet-300-100", replace(plan, dense=replace(plan.dense, epochs=8)))
    monkeypatch.setattr(dc, "BATCH", 50)
    out = tmp_path / "results" / "record.json"
    code = dc.main(
        ["--net", "lenet-300-100", "--seeds", "4", "--data", str(tmp_path), "--out", str(out), "--save", str(tmp_path)]
    )
    record = json.loads(out.read_text(encoding="utf-8"))
    (run,) = record["runs"]
    assert code == (0 if record["passed"] else 1)
    assert run["file_bytes"] == (tmp_path / "lenet-300-100-4.fcnn").stat().st_size
    assert run["ratio"] == 266_610 * 4 / run["file_bytes"] > 30
    assert run["compressed_accuracy"] > 80
    assert [stage["stage"] for stage in run["stages"]] == ["prune", "retrain", "share", "tune"]
    assert run["control_epochs"] == 8 + 18
    assert json.loads(capsys.readouterr().out)["net"] == "lenet-300-100"
    net = fc.load(tmp_path / "lenet-300-100-4.fcnn")
    inputs, targets = dc.tensors(tmp_path, "test")
    hits = (np.asarray(net(inputs.numpy())).argmax(1) == targets.numpy()).mean()
    assert 100 * hits == pytest.approx(run["compressed_accuracy"])


def test_bad_input_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert dc.main(["--net", "lenet-5", "--data", str(tmp_path), "--out", str(out)]) == 2
    assert "error: --data: " in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit) as caught:
        dc.main(["--net", "alexnet", "--data", ".", "--out", "x"])
    assert caught.value.code == 2


@pytest.mark.slow
@pytest.mark.data
def test_one_seed_of_lenet_300_100_on_mnist(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    code = dc.main(["--net", "lenet-300-100", "--seeds", "0", "--data", str(data_dir / "mnist"), "--out", str(out)])
    record = json.loads(out.read_text(encoding="utf-8"))
    assert code == 0, record
    assert record["mean_ratio"] >= 30
    assert record["mean_drop_points"] <= 0.3
