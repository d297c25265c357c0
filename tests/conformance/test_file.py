"""Every method's layers through capture and the file: bit for bit."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from tests.conformance.cases import Case, find, layer_cases, session_cases
from tests.conformance.test_sessions import net, prepare, train

if importlib.util.find_spec("fastcnn._native") is None:
    pytest.skip("fastcnn._native is not built: make build", allow_module_level=True)

from fastcnn.artifact import load_graph, save_graph
from fastcnn.engine.capture import capture
from fastcnn.engine.graph import Graph


def same(left: Graph, right: Graph) -> None:
    assert left.to_json() == right.to_json()
    assert left.weights.keys() == right.weights.keys()
    for key, value in left.weights.items():
        other = right.weights[key]
        assert value.dtype == other.dtype
        assert np.array_equal(value.view(np.uint8), other.view(np.uint8)), key


@pytest.mark.parametrize("case", layer_cases(), ids=str)
def test_layer_survives_the_file_bitwise(case: Case, tmp_path: Path) -> None:
    layer = case.layer()
    if layer is None:
        pytest.skip("the method declines this shape")
    with warnings.catch_warnings():
        # Reflection padding is a torch step for the engine of this release; it cannot be saved.
        warnings.simplefilter("ignore")
        graph = capture(layer.eval(), (case.input(),))
    if any(node.op == "torch" for node in graph):
        assert case.shape == "reflect"
        pytest.skip("its padding mode is outside the engine's set")
    if layer.kernel is not None:
        # Another algorithm for the same weight is a plain convolution to the engine, which chooses by itself.
        wanted = "conv2d" if layer.kernel in ("fft_conv2d", "winograd_conv2d") else layer.kernel
        assert wanted in {node.op for node in graph}
    save_graph(tmp_path / "net.fcnn", graph)
    same(load_graph(tmp_path / "net.fcnn").graph, graph)


@pytest.mark.parametrize(("name", "example"), session_cases())
def test_trained_net_survives_the_file_bitwise(name: str, example: int, tmp_path: Path) -> None:
    trainee = prepare(net(), find(name).config.examples()[example])
    train(trainee, 6)
    small: nn.Module = fc.convert(trainee).eval()
    graph = capture(small, (torch.randn(2, 3, 9, 9),))
    save_graph(tmp_path / "net.fcnn", graph)
    same(load_graph(tmp_path / "net.fcnn").graph, graph)
