"""The model of energy and memory, against small nets counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn._extras import MissingExtraError
from fastcnn.engine.capture import capture
from fastcnn.reproduction.lowprecision import energy
from fastcnn.reproduction.lowprecision.energy import Modelled, access_pj, modelled, word_pj

MULTIPLY_ADD, SCALED = 3.7 + 0.9, 3.7 + 0.9


def of(net: nn.Module, *shape: int, **settings: Any) -> Modelled:
    return modelled(capture(net.eval(), [torch.randn(*shape)], strict=True), [shape], **settings)


def test_the_smallest_memory_that_holds_it() -> None:
    sizes = (1, 8192, 8193, 32768, 32769, 1 << 20, (1 << 20) + 1)
    assert [access_pj(size) for size in sizes] == [10, 10, 20, 20, 100, 100, 1300]
    assert access_pj(1 << 30, dram=2600.0) == 2600
    assert word_pj() == pytest.approx(0.6)


def test_a_float_layer_and_its_activation() -> None:
    found = of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU()), 1, 3, 8, 8)
    assert found.weight_bytes == 4 * 8 * 27
    assert found.map_bytes == 4 * 64 * (3 + 8)  # the picture is read, the map written
    assert found.arithmetic_mj == pytest.approx(1e-9 * 8 * 27 * 64 * MULTIPLY_ADD)
    assert found.weights_mj == pytest.approx(1e-9 * 4 * 8 * 27 / 8 * 10)
    assert found.maps_mj == pytest.approx(1e-9 * 4 * 64 * 11 / 8 * 10)
    assert found.total_mj == pytest.approx(found.arithmetic_mj + found.weights_mj + found.maps_mj)


def test_the_batch_counts_but_for_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False))
    one, four = of(net, 1, 3, 8, 8), of(net, 4, 3, 8, 8)
    assert four.weight_bytes == one.weight_bytes
    assert four.weights_mj == one.weights_mj
    assert four.map_bytes == 4 * one.map_bytes
    assert four.arithmetic_mj == pytest.approx(4 * one.arithmetic_mj)


def test_memories_by_what_they_hold() -> None:
    """600 x 600 numbers are past a megabyte; their maps fit the smallest cache."""
    net = nn.Sequential(nn.Linear(600, 600, bias=False))
    for dram in (1300.0, 2600.0):
        found = of(net, 1, 600, dram=dram)
        assert found.weights_mj == pytest.approx(1e-9 * 4 * 600 * 600 / 8 * dram)
        assert found.maps_mj == pytest.approx(1e-9 * 4 * 1200 / 8 * 10)


class Shortcut(nn.Module):
    """A map is read by a layer and added to what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x)
        return y + self.second(y)


def test_shortcuts_are_read_once_more() -> None:
    found = of(Shortcut(), 1, 4, 6, 6)
    assert found.map_bytes == 4 * 4 * 36 * (1 + 1 + 2 + 1)
    assert found.arithmetic_mj == pytest.approx(1e-9 * 4 * 36 * (2 * 36 * MULTIPLY_ADD + 0.9))


def test_int8_layers() -> None:
    """A byte for a weight and in the map between; the picture becomes bytes first."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False)).eval()
    found = of(fc.convert(net, fc.Int8Config(), data=[torch.randn(2, 3, 8, 8)]), 1, 3, 8, 8)
    assert found.weight_bytes == 8 * 27 + 6 * 72 + 4 * (8 + 6)
    assert found.map_bytes == 3 * 64 * (4 + 1 + 1) + 8 * 36 * 2 + 4 * 6 * 16
    products, outputs = 8 * 36 * 27 + 6 * 16 * 72, 8 * 36 + 6 * 16
    assert found.arithmetic_mj == pytest.approx(1e-9 * (products * (0.2 + 0.1) + outputs * SCALED))


def test_int8_shortcuts_are_bytes_too() -> None:
    small = fc.convert(Shortcut().eval(), fc.Int8Config(), data=[torch.randn(2, 4, 6, 6)])
    found = of(small, 1, 4, 6, 6)
    assert found.map_bytes == 4 * 36 * ((4 + 1 + 1) + 1 + 2 + 4)


def test_layers_of_signs() -> None:
    """Words of 64 products, a bit for each number of the map between, a threshold in the place of the batch norm."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.Conv2d(64, 10, 3, bias=False)
    ).eval()
    found = of(fc.convert(net, fc.BNNConfig(skip=())), 1, 32, 10, 10)
    assert found.weight_bytes == 64 * 40 + 4 * 64 + 10 * 72
    picture, whole, pooled, sums = 32 * 100, 64 * 64, 64 * 16, 10 * 4
    assert found.map_bytes == picture * (4 + 2 / 8) + (2 * whole + 2 * pooled) / 8 + 4 * sums
    words = 64 * 64 * 5 + 40 * 9
    rest = 64 * 64 * 0.1 + 40 * SCALED + 64 * 16 * 4 * 0.9
    assert found.arithmetic_mj == pytest.approx(1e-9 * (words * 0.6 + rest))


def test_a_map_that_is_read_in_two_forms() -> None:
    """Signs of a layer whose map is a shortcut too are made of the floats."""
    small = fc.convert(Shortcut().eval(), fc.BNNConfig(skip=()), layers="second")
    found = of(small, 1, 4, 6, 6)
    numbers = 4 * 36
    # The picture; the map written, made signs of, read as signs, added; the result.
    assert found.map_bytes == pytest.approx(numbers * (4 + 4 + (4 + 1 / 8) + 1 / 8 + 4 + 4), abs=1)


def test_weights_of_signs_on_real_inputs_are_dense() -> None:
    """As the engine runs them."""
    small = fc.convert(nn.Sequential(nn.Conv2d(8, 4, 3, bias=False)), fc.BWNConfig(skip=()))
    found = of(small, 1, 8, 5, 5)
    assert found.arithmetic_mj == pytest.approx(1e-9 * 4 * 9 * 72 * MULTIPLY_ADD)
    assert found.weight_bytes == 4 * (4 * 72 + 4)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        name: Modelled(weight_bytes=8000000 // size, map_bytes=1, arithmetic_mj=4.0 / size, weights_mj=0.0, maps_mj=0.0)
        for name, size in (("float32", 1), ("signs", 32))
    }
    monkeypatch.setitem(energy.NETS, "paper", ("A net", lambda: rows))
    assert energy.main(["--net", "paper", "--out", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| A net | weights, MB |")
    assert lines[3] == "| signs | 0.25 | 0.00 | 0.125 | 0.000 | 0.000 | 0.125 | 32.0 |"
    assert json.loads((tmp_path / "out.json").read_text())["paper"]["signs"]["total_mj"] == 0.125
    assert energy.main(["--net", "paper", "--out", str(tmp_path / "no" / "out.json")]) == 2
    assert "error:" in capsys.readouterr().err

    def absent() -> dict[str, Modelled]:
        raise MissingExtraError("the net zoo needs pytorchcv")

    monkeypatch.setitem(energy.NETS, "resnet18", ("Another", absent))
    assert energy.main([]) == 2
    assert "the net zoo needs pytorchcv" in capsys.readouterr().err
