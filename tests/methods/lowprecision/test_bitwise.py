"""Bitwise networks: exact zeros, the stage of tangents and the stage of signs, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def bitwise(weight: Tensor, zeros: float) -> Tensor:
    """Signs without the first round(zeros n) weights in the order of size, then of place."""
    values = weight.flatten().tolist()
    order = sorted(range(len(values)), key=lambda k: (abs(values[k]), k))
    found = [1.0 if value >= 0 else -1.0 for value in values]
    for k in order[: round(zeros * len(values))]:
        found[k] = 0.0
    return torch.tensor(found, dtype=weight.dtype).reshape(weight.shape)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 15), nn.Linear(15, 12), nn.Linear(12, 4)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@pytest.mark.parametrize("zeros", [0.0, 0.1, 0.3, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("dense", [nn.Linear(7, 5), nn.Conv2d(4, 6, 3, groups=2)], ids=["linear", "conv"])
def test_zeros_are_counted_exactly_and_ties_go_by_place(dense: Any, zeros: float) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        dense.weight.copy_(torch.randint(-2, 3, dense.weight.shape) / 4)
    small: Any = fc.convert(nn.Sequential(dense), fc.BitwiseConfig(zeros=zeros))
    found = small[0].weight
    assert torch.equal(found, bitwise(dense.weight.detach(), zeros))
    assert int((found == 0).sum()) == round(zeros * found.numel())
    assert small[0].planes == ([1, 1] if zeros else [1])


def test_without_zeros_weights_are_pure_signs() -> None:
    small: Any = fc.convert(nn.Sequential(nn.Linear(9, 3)), fc.BitwiseConfig(zeros=0.0))
    assert small[0].scale is None
    assert small[0].theory().bytes == 3 * 8 + 4 * 3


def test_a_share_too_small_for_a_zero_leaves_none() -> None:
    torch.manual_seed(2)
    dense = nn.Linear(9, 3)
    small: Any = fc.convert(nn.Sequential(dense), fc.BitwiseConfig(zeros=0.01))
    assert torch.equal(small[0].weight, signs(dense.weight.detach()))


def test_a_layer_that_would_lose_all_weights_is_declined() -> None:
    model = nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 1))
    small = fc.convert(model, fc.BitwiseConfig(zeros=0.9))
    assert [line.status for line in fc.report(small)] == ["done", "declined"]
    assert "zeros=0.9 would leave none of its 2 weights" in fc.report(small).of("1")[0].why


def test_the_first_stage_is_a_net_of_tangents() -> None:
    model = net()
    trainee: Any = fc.prepare(model, fc.BitwiseConfig(real_steps=2, zeros=0.3))
    x = torch.randn(6, 20).double()
    y = trainee(x)
    y.square().sum().backward()
    z: Tensor = x
    for k, layer in enumerate(model):
        z = z @ torch.tanh(layer.weight).T + torch.tanh(layer.bias)  # type: ignore[arg-type]
        z = torch.tanh(z) if k < 2 else z
    torch.testing.assert_close(y, z)
    z.square().sum().backward()
    for found, want in zip(trainee.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, want.grad)
    torch.testing.assert_close(trainee.eval()(x), z)


def test_the_second_stage_begins_with_the_tangents_of_the_first() -> None:
    trainee: Any = fc.prepare(net(), fc.BitwiseConfig(real_steps=3))
    x = torch.randn(8, 20).double()
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.1)
    for step in range(1, 5):
        optimizer.zero_grad()
        trainee(x).square().sum().backward()
        optimizer.step()
        before = [parameter.detach().clone() for parameter in trainee.parameters()]
        trainee.step()
        for old, new in zip(before, trainee.parameters(), strict=True):
            want = {3: old.tanh(), 4: old.clip(-1, 1)}.get(step, old)
            torch.testing.assert_close(new.detach(), want, rtol=1e-12, atol=0.0)
    assert max(float(old.abs().max()) for old in before) > 1


@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_the_second_stage_by_hand(zeros: float) -> None:
    """Errors flow through what is multiplied, and through signs as through a hard tanh over sqrt(n)."""
    model = net(3)
    trainee: Any = fc.prepare(model, fc.BitwiseConfig(zeros=zeros))
    x = torch.randn(6, 20).double().requires_grad_()
    y = trainee(x)
    grad = torch.randn(6, 4).double()
    y.backward(grad)
    weights = [bitwise(layer.weight.detach(), zeros) for layer in model]  # type: ignore[arg-type,union-attr]
    biases = [signs(layer.bias.detach()) for layer in model]  # type: ignore[arg-type,union-attr]
    given, sums = [signs(x.detach())], []
    for k in range(3):
        sums.append(given[k] @ weights[k].T + biases[k])
        given.append(signs(sums[k]))
    assert torch.equal(y, sums[2])
    back = grad
    for k in (2, 1, 0):
        layer = trainee.model[k]
        torch.testing.assert_close(layer.weight.grad, back.T @ given[k], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(layer.bias.grad, back.sum(0), rtol=1e-10, atol=1e-12)
        # Inputs between layers are +-1, where a sign of them lets all through.
        back = back @ weights[k]
        if k:
            root = math.sqrt(weights[k - 1].shape[1])
            back = back * (sums[k - 1].abs() <= root) / root
    assert x.grad is not None
    torch.testing.assert_close(x.grad, back * (x.detach().abs() <= 1), rtol=1e-10, atol=1e-12)


def test_what_it_ends_in() -> None:
    """Biases of +-1, signs between layers, sums from the last; exactly so in the engine."""
    trainee: Any = fc.prepare(net(4).float(), fc.BitwiseConfig(zeros=0.3, real_steps=1))
    x = signs(torch.randn(16, 20))
    optimizer = torch.optim.Adam(trainee.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        trainee(x).square().sum().backward()
        optimizer.step()
        trainee.step()
    want = trainee.eval()(x)
    small: Any = fc.convert(trainee)
    assert torch.equal(small(x), want)
    for layer in small:
        assert bool((layer.bias.abs() == 1).all())
        assert set(layer.weight.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert [layer.signs_out for layer in small] == [True, True, False]
    assert bool((small[:2](x).abs() == 1).all())
    made = fc.compile(small, x, strict=True, tune=False)
    assert torch.equal(torch.as_tensor(made(x.numpy())), want)


def test_a_session_that_ends_in_its_first_stage_goes_to_signs() -> None:
    model = net(5)
    trainee: Any = fc.prepare(model, fc.BitwiseConfig(real_steps=100, zeros=0.25))
    trainee.step()
    small: Any = fc.convert(trainee)
    for layer, dense in zip(small, model, strict=True):
        assert torch.equal(layer.weight.double(), bitwise(dense.weight.detach(), 0.25))  # type: ignore[arg-type,union-attr]
        assert torch.equal(layer.bias, signs(dense.bias.detach()))  # type: ignore[arg-type,union-attr]


def test_a_tied_weight_has_its_tangent_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    nn.init.constant_(model[0].weight, 0.7)  # type: ignore[arg-type]
    model[1].weight = model[0].weight  # type: ignore[assignment]
    trainee: Any = fc.prepare(model, fc.BitwiseConfig(real_steps=1))
    trainee.step()
    assert trainee.model[0].weight is trainee.model[1].weight
    assert trainee.model[0].weight[0, 0].item() == pytest.approx(math.tanh(0.7))


@pytest.mark.parametrize("zeros", [0.0, 0.6])
def test_convolutions_with_zeros_around(zeros: float) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d(5, 4, 3, padding=1), nn.Flatten(), nn.Linear(36, 3)
    )
    small: Any = fc.convert(model, fc.BitwiseConfig(zeros=zeros)).eval()
    x = signs(torch.randn(4, 3, 5, 6))
    z = x
    for k in (0, 1):
        dense: Any = model[k]
        weight = bitwise(dense.weight.detach(), zeros)
        sums = nn.functional.conv2d(z, weight, None, dense.stride, dense.padding)
        z = signs(sums + signs(dense.bias.detach())[:, None, None])
    last: Any = model[3]
    want = z.flatten(1) @ bitwise(last.weight.detach(), zeros).T + signs(last.bias.detach())
    assert torch.equal(small(x), want)
    made = fc.compile(small, x, strict=True, tune=False)
    assert torch.equal(torch.as_tensor(made(x.numpy())), want)


def test_real_inputs_and_outputs() -> None:
    torch.manual_seed(7)
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3)), torch.randn(5, 8)
    small = fc.convert(model, fc.BitwiseConfig(zeros=0.5, inputs=False, outputs=False))
    z = x.double()
    for layer in model:
        z = z @ bitwise(layer.weight.detach(), 0.5).double().T + signs(layer.bias.detach()).double()  # type: ignore[arg-type,union-attr]
    torch.testing.assert_close(small(x).double(), z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"zeros": 1.0}, ValueError, r"zeros=1\.0 is out of range: allowed is 0\.0 <= zeros < 1\.0"),
        ({"zeros": -0.1}, ValueError, "zeros=-0.1 is out of range"),
        ({"zeros": float("nan")}, ValueError, "zeros=nan"),
        ({"zeros": "0.3"}, TypeError, "zeros must be a number, got str '0.3'"),
        ({"real_steps": -1}, ValueError, "real_steps=-1 is out of range: it must be at least 0"),
        ({"inputs": 0}, TypeError, "inputs must be True or False, got 0"),
        ({"outputs": "all"}, TypeError, "outputs must be True or False, got 'all'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fc.BitwiseConfig(**settings)
