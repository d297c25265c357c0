"""FFT and Winograd layers in the engine: plain convolutions with the same weights; the planner picks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.methods.transforms.fft_conv import FFTConfig, FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConfig, WinogradConv2d

if importlib.util.find_spec("fastcnn._native") is None:
    pytest.skip("fastcnn._native is not built: make build", allow_module_level=True)

from fastcnn.artifact import load_graph, save_graph
from fastcnn.engine.capture import capture

LAYERS: list[Any] = [
    lambda **a: FFTConv2d(**a, tile=8),
    lambda **a: FFTConv2d(**a, memory=1 << 20),
    lambda **a: WinogradConv2d(**a, m=4),
]
SHAPES: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (5, 3), "stride": 2, "padding": (2, 1), "groups": 2},
    {"kernel_size": 3, "dilation": 2, "bias": False},
    {"kernel_size": 4, "padding": "same"},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", LAYERS)
def test_the_graph_holds_a_plain_convolution(make: Any, shape: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = make(in_channels=4, out_channels=6, **shape).eval()
    x = torch.randn(2, 4, 13, 12)
    graph = capture(layer, (x,))
    nodes = [node for node in graph if node.op not in ("input", "pad")]
    assert [node.op for node in nodes] == ["conv2d"]
    weights = {key: value for key, value in graph.weights.items() if value.shape == tuple(layer.weight.shape)}
    assert [np.array_equal(value, layer.weight.detach().numpy()) for value in weights.values()] == [True]
    save_graph(tmp_path / "net.fcnn", graph)
    assert load_graph(tmp_path / "net.fcnn").graph.to_json() == graph.to_json()


@pytest.mark.parametrize("config", [FFTConfig(force=True), WinogradConfig(force=True)])
def test_a_converted_net_is_the_same_plan_as_the_dense_one(config: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 5, padding=2))
    net.eval()
    converted = fc.convert(net, config)
    x = torch.randn(1, 3, 20, 20)
    dense, other = (fc.compile(model, x, threads=1, strict=True, tune=False) for model in (net, converted))
    assert np.array_equal(np.asarray(dense(x.numpy())), np.asarray(other(x.numpy())))
    ops = [[node.op for node in capture(model, (x,))] for model in (net, converted)]
    assert ops[0] == ops[1]
