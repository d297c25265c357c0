"""What 8 bits cost: one small run of both parts, and when a gate holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastcnn.reproduction.lowprecision import int8_accuracy
from fastcnn.reproduction.winograd_labels.nets import CifarResNet
from fastcnn.reproduction.winograd_labels.pictures import Pictures


def test_a_resnet_is_compared_with_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = CifarResNet(32)
    assert sum(p.numel() for p in net.parameters()) == 464_154
    net(torch.randn(16, 3, 32, 32))
    weights = tmp_path / "net.safetensors"
    save_file(net.state_dict(), weights)
    x = torch.randn(24, 3, 32, 32)
    labels = net.eval()(x).argmax(1)
    pictures = Pictures(inputs=x, labels=labels, sha256="a" * 64)
    monkeypatch.setattr(int8_accuracy, "load_pictures", lambda *_: pictures)
    monkeypatch.setattr(int8_accuracy, "CALIBRATED", 8)
    found = int8_accuracy.cifar(32, weights, tmp_path, threads=1)
    assert found["accuracy_before"] == 100.0
    assert found["lost"] == pytest.approx(100.0 - found["accuracy_after"])
    assert found["passed"] is (found["lost"] <= 0.5)
    assert found["file_bytes"][1] < found["file_bytes"][0] / 3
    assert "ResNet-32" in int8_accuracy.table([found])


def test_folds_are_tested_on_what_did_not_calibrate_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(12, 3, 16, 16)
    found = int8_accuracy.agreement(net.eval(), x, net(x).argmax(1), threads=1)
    assert set(found["agreement"]) == {"fastcnn", "openvino-int8 performance", "openvino-int8 mixed"}
    assert [fold["photographs"] for fold in found["folds"]] == [6, 6]
    assert [fold["calibrated_on"] for fold in found["folds"]] == ["even", "odd"]
    kept = sum(fold["same_labels"]["fastcnn"] for fold in found["folds"])
    assert found["agreement"]["fastcnn"] == pytest.approx(100 * kept / 12)
    assert found["passed"] is (found["agreement"]["fastcnn"] >= 95 and found["behind_rival"] <= 2)


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--nets", str(tmp_path), "--cifar10", str(tmp_path), "--out", str(tmp_path / "x.json")]
    assert int8_accuracy.main([*where, "--photographs", str(tmp_path / "none.zip")]) == 2
    assert "none.zip" in capsys.readouterr().err
    assert int8_accuracy.main([*where, "--photographs", "x.zip", "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
