"""BinaryConnect and BNN: gradients by hand, signs drawn at random, training in steps, and what it ends in."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


EPS = 2.0**-20
EDGES = [0.0, -0.0, EPS, -EPS, 0.5, -0.5, 1 - EPS, EPS - 1, 1.0, -1.0, 1 + EPS, -1 - EPS, 3.0, -3.0]


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def linear(weight: Tensor, config: Any) -> Any:
    """A net of one linear layer with this weight and no bias, in training."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return fc.prepare(nn.Sequential(layer), config)


SLOPES: dict[str, Callable[[float], float]] = {
    "hard-tanh": lambda x: 1.0 if abs(x) <= 1 else 0.0,
    "polynomial": lambda x: max(0.0, 2 - 2 * abs(x)),
}


@pytest.mark.parametrize("estimator", SLOPES)
def test_gradients_either_side_of_one(estimator: str) -> None:
    """Of inputs by the estimator, of weights by a hard tanh, each by a loop."""
    x = torch.tensor([EDGES, EDGES[::-1]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([EDGES[k:] + EDGES[:k] for k in (0, 3, 8)], dtype=torch.float64)
    trainee = linear(weight, fc.BNNConfig(skip=(), estimator=estimator))  # type: ignore[arg-type]
    grad = torch.tensor([[1.0, -2.0, 5.0], [0.25, 3.0, -7.0]], dtype=torch.float64)
    y = trainee(x)
    y.backward(grad)
    given, held = x.detach().tolist(), weight.tolist()
    for n in range(2):
        for o in range(3):
            products = [(1 if a >= 0 else -1) * (1 if b >= 0 else -1) for a, b in zip(given[n], held[o], strict=True)]
            assert y[n, o] == sum(products)
    assert x.grad is not None
    found = trainee.get_parameter("model.0.weight").grad
    for i in range(len(EDGES)):
        for n in range(2):
            back = sum(float(grad[n, o]) * (1 if held[o][i] >= 0 else -1) for o in range(3))
            assert x.grad[n, i] == pytest.approx(back * SLOPES[estimator](given[n][i]), abs=1e-12)
        for o in range(3):
            back = sum(float(grad[n, o]) * (1 if given[n][i] >= 0 else -1) for n in range(2))
            assert found[o, i] == pytest.approx(back * SLOPES["hard-tanh"](held[o][i]), abs=1e-12)


@pytest.mark.parametrize("pad_value", [1, -1, 0])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_multiply_signs(pad_value: int, groups: int) -> None:
    torch.manual_seed(groups)
    dense = nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(1, 2), groups=groups)
    with torch.no_grad():
        dense.weight.mul_(6.0)
    trainee = fc.prepare(nn.Sequential(dense), fc.BNNConfig(skip=(), pad_value=pad_value))  # type: ignore[arg-type]
    x = (2 * torch.randn(3, 4, 6, 7)).requires_grad_()
    y = trainee(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    given, held = signs(x.detach().double()), signs(dense.weight.detach().double())
    given.requires_grad_()
    held.requires_grad_()
    assert dense.bias is not None
    want = F.conv2d(
        F.pad(given, (1, 1, 2, 2), value=float(pad_value)),
        held,
        dense.bias.detach().double(),
        stride=(1, 2),
        dilation=(1, 2),
        groups=groups,
    )
    assert torch.equal(y, (want - dense.bias.double().reshape(-1, 1, 1)).float() + dense.bias.reshape(-1, 1, 1))
    want.backward(grad.double())
    assert x.grad is not None
    assert given.grad is not None
    assert held.grad is not None
    torch.testing.assert_close(x.grad.double(), given.grad * (x.detach().abs() <= 1), rtol=1e-5, atol=1e-5)
    found = trainee.get_parameter("model.0.weight").grad
    assert found is not None
    assert 0 < int((found == 0).sum()) < found.numel()
    torch.testing.assert_close(found.double(), held.grad * (dense.weight.abs() <= 1), rtol=1e-5, atol=1e-5)


def within(found: Tensor, chance: Tensor, draws: int) -> None:
    """Frequencies are what chances let expect, to five standard deviations; 0 and 1 exactly."""
    spread = (chance * (1 - chance) / draws).sqrt()
    assert bool(((found - chance).abs() <= 5 * spread).all()), (found - chance).abs().max()


def test_weights_are_drawn_as_often_as_they_are_near_one() -> None:
    values = torch.linspace(-1.5, 1.5, 31)
    trainee = linear(values.expand(4000, -1), fc.BinaryConnectConfig(skip=(), stochastic_weights=True, seed=5))
    drawn = trainee(torch.eye(31))
    assert bool((drawn.abs() == 1).all())
    within((drawn > 0).double().mean(1), ((values.double() + 1) / 2).clip(0, 1), 4000)
    # Rows draw apart from each other: of those at 0 half agree.
    middle = drawn[15]
    assert float((middle[1:] == middle[:-1]).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_inputs_are_drawn_as_often_as_they_are_near_one() -> None:
    values = torch.linspace(-1.5, 1.5, 31)
    config = fc.BNNConfig(skip=(), weights=False, stochastic_inputs=True, seed=6)
    drawn = linear(torch.eye(31), config)(values.expand(4000, -1))
    assert bool((drawn.abs() == 1).all())
    within((drawn > 0).double().mean(0), ((values.double() + 1) / 2).clip(0, 1), 4000)
    middle = drawn[:, 15]
    assert float((middle[1:] == middle[:-1]).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_gradients_of_drawn_signs_are_those_of_a_hard_tanh() -> None:
    x = torch.tensor([EDGES], dtype=torch.float64, requires_grad=True)
    trainee = linear(torch.eye(len(EDGES)).double(), fc.BNNConfig(skip=(), weights=False, stochastic_inputs=True))
    trainee(x).backward(torch.full((1, len(EDGES)), 3.0, dtype=torch.float64))
    assert x.grad is not None
    assert x.grad[0].tolist() == [3.0 if abs(value) <= 1 else 0.0 for value in EDGES]
    weight = torch.tensor([EDGES], dtype=torch.float64)
    trainee = linear(weight, fc.BinaryConnectConfig(skip=(), stochastic_weights=True))
    trainee(torch.full((1, len(EDGES)), 2.0, dtype=torch.float64)).sum().backward()
    found = trainee.get_parameter("model.0.weight").grad
    assert found[0].tolist() == [2.0 if abs(value) <= 1 else 0.0 for value in EDGES]


def test_draws_depend_on_seed_step_and_layer_alone() -> None:
    def net(seed: int) -> Any:
        model = nn.Sequential(nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False))
        for layer in model:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        return fc.prepare(model, fc.BinaryConnectConfig(skip=(), stochastic_weights=True, seed=seed))

    def drawn(trainee: Any) -> list[Tensor]:
        return [layer(torch.eye(50)) for layer in trainee.model]

    one = net(0)
    first = drawn(one)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(one), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(net(0)), strict=True))
    one.step()
    others = [first[1], *drawn(one), *drawn(net(1))]
    for other in others:
        assert float((other == first[0]).double().mean()) == pytest.approx(0.5, abs=0.06)
    one.eval()
    assert all(bool((layer == 1).all()) for layer in drawn(one))


@pytest.mark.parametrize(
    "settings",
    [
        {"stochastic_inputs": True},
        {"stochastic_inputs": True, "stochastic_weights": True},
        {"stochastic_inputs": True, "outputs": True},
    ],
    ids=str,
)
def test_draws_do_not_depend_on_how_a_step_is_cut_into_batches(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4, 5))
    whole = fc.prepare(model, fc.BNNConfig(skip=(), **settings))
    parts, x = copy.deepcopy(whole), 0.5 * torch.randn(7, 2, 4, 4)
    for _ in range(2):
        want = whole(x)
        assert torch.equal(torch.cat([parts(x[:1]), parts(x[1:5]), parts(x[5:])]), want)
        whole.step()
        parts.step()
        assert not torch.equal(whole(x), want)
        whole.model[0]._samples = whole.model[2]._samples = 0


def test_weights_become_signs_at_their_step() -> None:
    torch.manual_seed(2)
    weight, x = torch.randn(3, 20) / 4, torch.randn(5, 20)
    trainee = linear(weight, fc.BNNConfig(skip=(), weights_from=2))
    early = copy.deepcopy(trainee)
    for _ in range(2):
        for mode in (True, False):
            torch.testing.assert_close(trainee.train(mode)(x), signs(x) @ weight.T)
        trainee.step()
    assert torch.equal(trainee(x), signs(x) @ signs(weight).T)
    # A session that ends before goes there at once.
    assert torch.equal(fc.convert(early)(x), signs(x) @ signs(weight).T)


def test_real_weights_stay_real() -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(3, 20) / 4, torch.randn(5, 20)
    trainee = linear(weight, fc.BNNConfig(skip=(), weights=False))
    trainee.step()
    small: Any = fc.convert(trainee).eval()
    torch.testing.assert_close(small(x), signs(x) @ weight.T)
    assert torch.equal(small[0].weight, weight)
    (line,) = fc.report(small)
    assert (line.status, line.weight_error) == ("done", 0.0)
    assert line.bytes_after == line.bytes_before
    net = fc.compile(small, x, strict=True, tune=False)
    torch.testing.assert_close(torch.as_tensor(net(x.numpy())), small(x), rtol=1e-5, atol=1e-5)


def test_weights_that_never_flip_are_not_clipped() -> None:
    """Clipping keeps latent weights where they can change their sign; of real ones it would change the function."""
    trainee = linear(torch.tensor([[3.0, -0.5]]), fc.BNNConfig(skip=(), weights=False))
    trainee.step()
    assert trainee.get_parameter("model.0.weight").tolist() == [[3.0, -0.5]]


def test_outputs_are_signs_except_of_the_last_linear_layer() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 20), nn.Linear(20, 4))
    trainee = fc.prepare(model, fc.BNNConfig(skip=(), outputs=True)).eval()
    small: Any = fc.convert(copy.deepcopy(trainee))
    x = torch.randn(5, 3, 6, 6)
    for net in (trainee.model, small):
        maps = net[0](x)
        hidden = net[2](maps.flatten(1))
        assert bool((maps.abs() == 1).all())
        assert bool((hidden.abs() == 1).all())
        assert bool((net(x).abs() != 1).any())
    assert [layer.signs_out for layer in (small[0], small[2], small[3])] == [True, True, False]
    assert torch.equal(small(x), trainee(x))
    made = fc.compile(small, x, strict=True, tune=False)
    assert torch.equal(torch.as_tensor(made(x.numpy())), small(x))


def test_binaryconnect_may_end_in_floats() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, bias=False), nn.Flatten(), nn.Linear(16, 3))
    config = fc.BinaryConnectConfig(skip=(), stochastic_weights=True, inference="float")
    trainee = fc.prepare(model, config)
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.01)
    x = torch.randn(4, 2, 6, 6)
    for _ in range(3):
        trainee(x).square().mean().backward()
        optimizer.step()
        trainee.step()
    held = {name: value.detach().clone() for name, value in trainee.model.state_dict().items()}
    want = trainee.eval()(x)
    small: Any = fc.convert(trainee)
    assert [type(layer) for layer in small] == [nn.Conv2d, nn.Flatten, nn.Linear]
    assert small.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(held[name], value) for name, value in small.state_dict().items())
    assert torch.equal(small(x), want)
    assert small[0].stride == (2, 2)
    assert small[2].weight.requires_grad


def test_binaryconnect_leaves_inputs_real() -> None:
    torch.manual_seed(6)
    weight, x = torch.randn(4, 90), torch.randn(3, 90)
    small = fc.convert(linear(weight, fc.BinaryConnectConfig(skip=())))
    torch.testing.assert_close(small(x).double(), x.double() @ signs(weight).double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [fc.BNNConfig, fc.BinaryConnectConfig, fc.XNORConfig, fc.BWNConfig, fc.BitwiseConfig])
def test_layers_that_see_one_channel_are_declined(make: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1, groups=4), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 1, 1)
    )
    small: Any = fc.convert(model, make(skip=()))
    lines = fc.report(small)
    assert [line.status for line in lines] == ["declined", "declined", "done", "done"]
    assert all("one input channel" in line.why and "int8" in line.why for line in lines[:2])
    assert type(small[0]) is type(small[1]) is nn.Conv2d
    assert torch.equal(small[0].weight, model[0].weight)  # type: ignore[arg-type]
    with pytest.warns(NothingDoneWarning, match="one input channel"):
        fc.convert(model, make(skip=()), layers="0")


def test_a_gaussian_weight_keeps_its_report() -> None:
    """||W - sgn W|| / ||W|| and the bytes of rows of whole words."""
    torch.manual_seed(7)
    dense = nn.Linear(130, 6)
    small = fc.convert(nn.Sequential(dense), fc.BNNConfig(skip=()))
    (line,) = fc.report(small)
    weight = dense.weight.detach().double()
    error = (weight - signs(weight)).norm() / weight.norm()
    assert line.weight_error == pytest.approx(float(error), rel=1e-9)
    assert line.bytes_after == 6 * 3 * 8 + 4 * 6
    assert line.bytes_before == 4 * 6 * 131
    assert (line.macs_before, line.macs_after) == (780, 780)
    assert math.isfinite(line.weight_error)


@pytest.mark.parametrize(
    ("make", "settings", "error", "message"),
    [
        (fc.BNNConfig, {"inputs": 1}, TypeError, "inputs must be True or False, got 1"),
        (fc.BNNConfig, {"stochastic_weights": None}, TypeError, "stochastic_weights must be True or False, got None"),
        (fc.BNNConfig, {"inputs": False, "weights": False}, ValueError, "inputs, weights and outputs are all False"),
        (fc.BNNConfig, {"pad_value": 2}, ValueError, "pad_value=2 is out of range: it must be between -1 and 1"),
        (fc.BNNConfig, {"pad_value": "1"}, TypeError, "pad_value must be an integer, got str"),
        (fc.BNNConfig, {"estimator": "relu"}, ValueError, "estimator='relu' .* 'hard-tanh', 'polynomial'"),
        (fc.BNNConfig, {"weights_from": -1}, ValueError, "weights_from=-1 is out of range: it must be at least 0"),
        (fc.BNNConfig, {"weights_from": 1.5}, TypeError, "weights_from must be an integer, got float 1.5"),
        (fc.BNNConfig, {"seed": -3}, ValueError, "seed=-3 is out of range"),
        (fc.BNNConfig, {"skip": "bias"}, ValueError, "skip='bias' .* 'first_conv', 'last_linear', 'depthwise'"),
        (fc.BNNConfig, {"exclude": 3}, TypeError, "exclude must be a glob pattern or a sequence of them, got 3"),
        (fc.BinaryConnectConfig, {"inference": "int8"}, ValueError, "inference='int8' .* 'sign', 'float'"),
        (fc.BinaryConnectConfig, {"weights": False, "inputs": True}, ValueError, r"BNNConfig\(weights=False\)"),
        (fc.BinaryConnectConfig, {"inference": "float", "outputs": True}, ValueError, "leave inputs and outputs False"),
    ],
)
def test_bad_settings_are_named(make: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**settings)


@pytest.mark.parametrize("pad_value", [True, 1.0, 0.0])
def test_a_pad_value_is_a_whole_number(pad_value: Any) -> None:
    """Equal to one is not enough: it goes to files and to the engine as an integer."""
    try:
        config = fc.BNNConfig(pad_value=pad_value)
    except (TypeError, ValueError):
        return
    assert type(config.pad_value) is int
