"""What every trained method must do: prepare, step, finish, resume, and end in ordinary or converted modules."""

from __future__ import annotations

import copy
import io
import warnings
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.methods.contract import MethodConfig
from fastcnn.methods.registry import method_of
from tests.conformance.cases import find, session_cases


def net() -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 9, 3, padding=1),
            norm=nn.BatchNorm2d(9),
            act=nn.ReLU(),
            depth=nn.Conv2d(9, 9, 3, groups=9, stride=2),
            point=nn.Conv2d(9, 17, 1, bias=False),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            hidden=nn.Linear(68, 15),
            last=nn.Linear(15, 3),
        )
    )


def calibration(config: MethodConfig, seed: int = 0) -> Tensor | None:
    """Inputs for a method that captures a net; others refuse them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 3, 9, 9, generator=generator) if method_of(config).kind == "captured" else None


def prepare(model: nn.Module, config: MethodConfig, seed: int = 0) -> Any:
    return fc.prepare(model, config, data=calibration(config, seed))


def train(trainee: Any, steps: int, start: int = 0) -> None:
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.01, momentum=0.0)
    for index in range(start, start + steps):
        torch.manual_seed(index)
        optimizer.zero_grad()
        trainee(torch.randn(4, 3, 9, 9)).square().mean().backward()
        # Sums of signs are large where no batch norm follows.
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        trainee.step()


@pytest.fixture(params=session_cases(), ids=lambda case: f"{case[0]}[{case[1]}]")
def config(request: pytest.FixtureRequest) -> MethodConfig:
    name, example = request.param
    found: MethodConfig = find(name).config.examples()[example]
    return found


def test_training_ends_in_a_model_with_a_line_per_layer(config: MethodConfig) -> None:
    dense = net()
    before = copy.deepcopy(dense.state_dict())
    trainee = prepare(dense, config)
    train(trainee, 6)
    small = fc.convert(trainee)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert not any("parametrizations" in name for name, _ in small.named_modules())
    layers = {line.layer for line in fc.report(small)}
    assert layers == {"stem", "depth", "point", "hidden", "last"}
    assert {line.status for line in fc.report(small)} <= {"done", "declined"}
    assert all(line.why for line in fc.report(small))
    assert any(line.status == "done" for line in fc.report(small))
    out = small.eval()(torch.randn(2, 3, 9, 9))
    assert torch.isfinite(out).all()


def test_the_trained_net_is_the_converted_net(config: MethodConfig) -> None:
    """Where a session only masks, ending it must not change the function."""
    if config.method == "deep-compression":
        pytest.skip("its end shares weights, which changes the function")
    trainee = prepare(net(), config)
    train(trainee, 6)
    trainee.eval()
    x = torch.randn(2, 3, 9, 9)
    want = trainee(x)
    assert torch.equal(fc.convert(trainee).eval()(x), want)


def test_state_dict_resumes_exactly(config: MethodConfig) -> None:
    whole = prepare(net(), config)
    train(whole, 6)
    first = prepare(net(), config)
    train(first, 3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = prepare(net(), config, seed=1)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(second, 3, start=3)
    left, right = fc.convert(whole).state_dict(), fc.convert(second).state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_without_training_it_goes_straight_to_its_target(config: MethodConfig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = fc.convert(net(), config, data=calibration(config))
    assert any(line.status == "done" for line in fc.report(small))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own copy of a captured graph
def test_deepcopy_of_a_trainee_trains_alike(config: MethodConfig) -> None:
    one = prepare(net(), config)
    two = copy.deepcopy(one)
    train(one, 3)
    train(two, 3)
    left, right = fc.convert(one).state_dict(), fc.convert(two).state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_frozen_submodules_keep_their_mode(config: MethodConfig) -> None:
    model = net()
    model.norm.eval()
    if method_of(config).kind == "captured":
        trainee = prepare(model, config)
        before = trainee.get_buffer("model.norm.running_mean").clone()
        train(trainee, 1)
        assert torch.equal(trainee.get_buffer("model.norm.running_mean"), before)
        assert trainee.training
        return  # its net is for inference, and has no norms
    trainee = fc.prepare(model, config)
    small = fc.convert(trainee)
    assert not small.get_submodule("norm").training
    assert small.training
