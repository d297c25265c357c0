"""Layers of converted methods on a GPU, where there is one, and int8 in training: the GPU says what the CPU says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from tests.conformance.cases import Case, layer_cases

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CASES = [c for c in layer_cases() if c.example == 0 and c.shape in ("c17-wide", "groups", "stride-2", "l17")]


def outcome(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs, and gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    assert x.grad is not None
    return [y, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_says_what_the_cpu_says(case: Case) -> None:
    layer = case.layer(torch.float64)
    if layer is None:
        pytest.skip("the method declines this shape")
    x = case.input(torch.float64)
    for ours, theirs in zip(outcome(copy.deepcopy(layer).cuda(), x.cuda()), outcome(layer, x), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conversion_of_a_layer_on_the_gpu(case: Case) -> None:
    layer = case.layer(torch.float64)
    if layer is None:
        pytest.skip("the method declines this shape")
    there = case.layer_class.from_dense(case.dense(torch.float64).cuda(), case.config)
    assert {t.device.type for t in there.state_dict().values()} == {"cuda"}
    x = case.input(torch.float64)
    torch.testing.assert_close(there(x.cuda()).cpu(), layer(x))


def test_int8_trains_on_the_gpu() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(512, 5)
    ).cuda()
    x = torch.randn(16, 3, 12, 12)
    trainee = fc.prepare(net, fc.Int8Config(), data=x.cuda())
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.01)
    before = trainee.get_parameter("model.0.weight").clone()
    for _ in range(3):
        optimizer.zero_grad()
        trainee(x.cuda()).square().mean().backward()
        optimizer.step()
        trainee.step()
    assert {value.device.type for value in trainee.state_dict().values() if isinstance(value, Tensor)} == {"cuda"}
    assert not torch.equal(trainee.get_parameter("model.0.weight"), before)
    y = trainee.eval()(x.cuda())
    small = fc.convert(trainee)
    assert torch.equal(small(x.cuda()), y)
    torch.testing.assert_close(small.cpu()(x), y.cpu())
