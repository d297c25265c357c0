"""Whole nets: the captured graph, run in float64, equals the model run in float64."""

from __future__ import annotations

import copy
import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn.engine.capture import capture
from fastcnn.engine.graph import Graph, infer_shapes
from tests.models import PRETRAINED, lenet5, lenet300, load_pretrained
from tests.models.odd import ODD
from tests.reference.interpreter import run_graph, run_values

SCALE_TOLERANCE = 1e-9  # both sides compute in float64 from the same float32 weights; only summation order differs


def flat(outputs: object) -> list[torch.Tensor]:
    """Flatten a model's outputs in order."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return leaves


def assert_captured(model: nn.Module, x: torch.Tensor, graph: Graph) -> None:
    """Compare graph and model in float64 and every inferred shape with the computed one."""
    double = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        expected = [t.numpy() for t in flat(double(x.double()))]
    name = graph.inputs[0].name
    values = run_values(graph, {name: x.numpy()})
    got = [values[output] for output in graph.outputs]
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= SCALE_TOLERANCE * max(np.abs(b).max(), 1e-30)
    shapes = infer_shapes(graph, {name: tuple(x.shape)})
    assert {key: value.shape for key, value in values.items()} == shapes


def settle(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and affine values that a mistake would show in."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if module.weight is None:
                continue
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
    return model.eval()


@pytest.mark.parametrize("name", ODD)
def test_odd_nets(name: str) -> None:
    build, shape = ODD[name]
    torch.manual_seed(3)
    model, x = settle(build()), torch.randn(shape)
    if name == "unknown":
        with pytest.warns(UserWarning, match="runs in torch"):
            graph = capture(model, x)
    else:
        graph = capture(model, x, strict=True)
    assert_captured(model, x, graph)


@pytest.mark.parametrize("name", [n for n in ODD if n not in ("unknown",)])
def test_odd_nets_at_another_size(name: str) -> None:
    """The graph of one size serves another batch and image size, unless it says which axes it cannot."""
    build, shape = ODD[name]
    torch.manual_seed(4)
    model = settle(build())
    graph = capture(model, torch.randn(shape), strict=True)
    free = [i for i in range(len(shape)) if i != 1 and i not in graph.inputs[0].fixed]
    assert 0 in free
    step = 4 if name == "unet" else 3
    other = tuple(n + step if i in free else n for i, n in enumerate(shape))
    assert_captured(model, torch.randn(other), graph)


@pytest.mark.parametrize("build", [lenet300, lenet5])
def test_lenets(build: object) -> None:
    torch.manual_seed(5)
    model = build().eval()  # type: ignore[operator]
    graph = capture(model, torch.randn(1, 1, 28, 28), strict=True)
    assert_captured(model, torch.randn(3, 1, 28, 28), graph)


@pytest.mark.data
@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained_nets(name: str, data_dir: Path) -> None:
    model = load_pretrained(name, data_dir)
    shape = PRETRAINED[name][1]
    torch.manual_seed(6)
    graph = capture(model, torch.randn(1, *shape), strict=True)
    assert graph.inputs[0].fixed == ()
    height = shape[1] + (8 if shape[1] < 100 else -96)
    assert_captured(model, torch.randn(2, shape[0], height, height), graph)


ZOO = [
    "vgg.vgg16",
    "resnet.resnet18",
    "resnet.resnet50",
    "alexnet.alexnet",
    "alexnet.alexnetb",
    "mobilenetv2.mobilenetv2_w1",
]


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [*ZOO, "squeezenet.squeezenet_v1_0", "shufflenetv2.shufflenetv2_wd2", "densenet.densenet121"]
)
def test_zoo(path: str) -> None:
    module, builder = path.split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), builder)()
    torch.manual_seed(8)
    model, x = settle(model), torch.randn(1, 3, 224, 224)
    assert_captured(model, x, capture(model, x, strict=True))


def test_shared_weight_is_stored_once() -> None:
    build, shape = ODD["shared"]
    graph = capture(build().eval(), torch.randn(shape))
    convs = [node for node in graph if node.op == "conv2d"]
    assert len(convs) == 3
    assert len({node.params["weight"] for node in convs}) == 1


def test_outputs_keep_their_order() -> None:
    build, shape = ODD["two_outputs"]
    graph = capture(build().eval(), torch.randn(shape))
    got = run_graph(graph, {graph.inputs[0].name: np.zeros(shape, np.float32)})
    assert [a.shape for a in got] == [(2, 4, 6, 5), (2, 2), (2, 4, 6, 5)]
