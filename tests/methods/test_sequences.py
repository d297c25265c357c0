"""Convolutions over sequences: every method for convolutions serves them, as ones of a single row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.methods.sequences import SequenceConv

GEOMETRY: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 3, "padding": 2},
    {"groups": 2, "padding": 1},
    {"padding": "same", "dilation": 2, "bias": False},
    {"padding": 2, "padding_mode": "reflect"},
]
CONFIGS: list[Any] = [
    fc.SVDConfig(energy=1.0, force=True),
    fc.TuckerConfig(energy=1.0, force=True),
    fc.KMeansConfig(clusters=65535),
    fc.BlockCirculantConfig(block_size=1, force=True),
]


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.method)
def test_a_lossless_conversion_keeps_the_outputs(config: Any, geometry: dict[str, Any]) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv1d(8, 12, 5, **geometry)).eval()
    small = fc.convert(dense, config)
    (line,) = fc.report(small)
    assert (line.layer, line.status) == ("0", "done")
    assert isinstance(small[0], SequenceConv)  # type: ignore[index]
    x = torch.randn(3, 8, 21)
    with torch.no_grad():
        want = dense.double()(x.double())
        for given, expected in ((x, want), (x[1], want[1])):
            assert (small(given) - expected).abs().max() / want.abs().max() < 1e-5


def test_a_speech_net_at_low_rank(tmp_path: Any) -> None:
    """Time-delay layers and a classifier: fitted to data, half the parameters, through engine and file."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(40, 64, 5, dilation=2), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 96, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(96, 200),
    ).eval()  # fmt: skip
    x = torch.randn(16, 40, 60)
    small = fc.convert(net, fc.SVDConfig(budget=0.5, multiple_of=1), data=x)
    assert {line.layer for line in fc.report(small)} == {"0", "3", "7"}
    assert sum(p.numel() for p in small.parameters()) <= 0.5 * sum(p.numel() for p in net.parameters())
    compiled = fc.compile(small.eval(), x, strict=True)
    with torch.no_grad():
        want = small(x).numpy()
    assert np.abs(np.asarray(compiled(x.numpy())) - want).max() / np.abs(want).max() < 1e-5
    compiled.save(tmp_path / "net.fcnn")
    loaded = fc.load(tmp_path / "net.fcnn")
    assert np.abs(np.asarray(loaded(x.numpy())) - want).max() / np.abs(want).max() < 1e-5


def test_names_are_those_of_the_model() -> None:
    net = nn.ModuleDict({"a": nn.Conv1d(8, 8, 3), "b": nn.Conv1d(8, 8, 3), "c": nn.Linear(8, 8)})
    small: Any = fc.convert(net, fc.SVDConfig(rank=2, force=True), layers=["a", "c"])
    assert [line.layer for line in fc.report(small)] == ["a", "c"]
    assert type(small["b"]) is nn.Conv1d
    assert torch.equal(small["b"].weight, net["b"].weight)
    with pytest.raises(ValueError, match="The model has: a, b, c"):
        fc.convert(net, fc.SVDConfig(rank=2), layers="d")
    again: Any = fc.convert(small, fc.SVDConfig(rank=2, force=True), layers="b")
    assert [line.layer for line in fc.report(again)] == ["a", "c", "b"]


def test_a_layer_that_is_declined_stays_what_it_was() -> None:
    net = nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU())
    with pytest.warns(NothingDoneWarning, match="0: "):
        small: Any = fc.convert(net, fc.SVDConfig(rank=4))
    assert type(small[0]) is nn.Conv1d
    assert small.state_dict().keys() == net.state_dict().keys()


def test_bad_input_is_refused_by_name() -> None:
    small = fc.convert(nn.Sequential(nn.Conv1d(8, 8, 3)), fc.SVDConfig(rank=2, force=True))
    with pytest.raises(ValueError, match="SequenceConv must have 8 channels on axis -2"):
        small(torch.randn(2, 4, 9))
    with pytest.raises(ValueError, match="must have 2 or 3 dimensions"):
        small(torch.randn(2, 2, 8, 9))
