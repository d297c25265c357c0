"""DoReFa-Net: levels of weights, inputs and gradients by their formulas, and the noise of the last."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


EPS = 2.0**-16


def linear(weight: Tensor, **settings: Any) -> Any:
    """A net of one linear layer with this weight and no bias, in training."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    real = {"weight_bits": 32, "input_bits": 32, "gradient_bits": 32}
    return fc.prepare(nn.Sequential(layer), fc.DoReFaConfig(skip=(), **{**real, **settings}))


def quantized(x: Tensor, bits: int) -> Tensor:
    """Q_k by its formula, of numbers in [0, 1]."""
    top = 2**bits - 1
    return torch.tensor([round(top * value) / top for value in x.flatten().tolist()], dtype=x.dtype).reshape(x.shape)


def levels_of_weight(weight: Tensor, bits: int) -> Tensor:
    """The paper's weights, float64."""
    weight = weight.double()
    if bits == 1:
        return torch.where(weight >= 0, 1.0, -1.0).double() * weight.abs().mean()
    tangent = weight.tanh()
    return 2 * quantized(tangent / (2 * tangent.abs().max()) + 0.5, bits) - 1


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_levels_of_inputs(bits: int) -> None:
    """Idempotent, monotone, 2^k of them, halves to even; what is outside [0, 1] goes to its ends."""
    trainee = linear(torch.eye(1).double(), input_bits=bits)
    top = 2**bits - 1
    x = torch.linspace(-0.25, 1.25, 6001, dtype=torch.float64)[:, None]
    y = trainee(x).detach()
    torch.testing.assert_close(y, quantized(x.clip(0, 1), bits), rtol=0.0, atol=1e-12)
    assert torch.equal(trainee(y), y)
    assert bool((y[1:] >= y[:-1]).all())
    assert len(y.unique()) == 2**bits
    assert (float(y[0]), float(y[-1])) == (0.0, pytest.approx(1.0, abs=1e-15))
    # The middle is half way between two levels, and in binary exactly so: 1/2 goes to 0, 3/2 to 2, 7/2 to 4 ...
    middle = trainee(torch.tensor([[0.5]], dtype=torch.float64)).detach()
    assert round(float(middle) * top) == (0 if bits == 1 else 2 ** (bits - 1))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_gradients_of_inputs_stop_at_the_ends(bits: int) -> None:
    values = [-1.0, -EPS, 0.0, EPS, 0.3, 0.5, 1 - EPS, 1.0, 1 + EPS, 2.0]
    x = torch.tensor([values], requires_grad=True)
    linear(torch.eye(len(values)), input_bits=bits)(x).backward(torch.full((1, len(values)), 3.0))
    assert x.grad is not None
    for value, found in zip(values, x.grad[0].tolist(), strict=True):
        assert found == pytest.approx(3.0 if 0 <= value <= 1 else 0.0, rel=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [0.01, 1.0, 20.0])
def test_weights_of_more_bits_fill_minus_one_to_one(bits: int, size: float) -> None:
    weight = size * torch.linspace(-1.0, 1.0, 4001).reshape(1, -1)
    weight = weight[:, torch.randperm(4001, generator=torch.Generator().manual_seed(0))]
    small: Any = fc.convert(linear(weight, weight_bits=bits))
    found = small[0].weight
    assert (float(found.min()), float(found.max())) == (-1.0, 1.0)
    top = 2**bits - 1
    steps = (found.double() + 1) * top / 2
    assert float((steps - steps.round()).abs().max()) < 1e-4
    assert len(steps.round().unique()) == 2**bits or size == 20.0
    # Where the float32 tangent and the float64 one are not at odds over a half.
    tangent = weight.double().tanh()
    exact = top * (tangent / (2 * tangent.abs().max()) + 0.5)
    sure = ((exact - exact.floor()) - 0.5).abs() > 1e-3
    assert float(sure.double().mean()) > 0.9
    want = levels_of_weight(weight, bits)
    torch.testing.assert_close(found.double()[sure], want[sure], rtol=0.0, atol=1e-6)


def test_weights_of_one_bit_share_one_scale() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 9, 5))
    small: Any = fc.convert(model, fc.DoReFaConfig(skip=(), input_bits=32))
    for index in (0, 2):
        weight = model[index].weight.detach()  # type: ignore[union-attr]
        assert len(small[index].scale.unique()) == 1
        want = levels_of_weight(weight, 1).float()  # type: ignore[arg-type]
        torch.testing.assert_close(small[index].weight, want, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("settings", [{"weight_bits": 1}, {"weight_bits": 2}, {"weight_bits": 8}], ids=str)
@pytest.mark.parametrize("input_bits", [2, 32])
def test_a_layer_of_zeros_is_finite(settings: dict[str, int], input_bits: int) -> None:
    trainee = linear(torch.zeros(3, 6), **settings, input_bits=input_bits)
    x = torch.rand(4, 6, requires_grad=True)
    y = trainee(x)
    y.sum().backward()
    assert x.grad is not None
    for value in (y, x.grad, trainee.get_parameter("model.0.weight").grad):
        assert bool(torch.isfinite(value).all())
    want = levels_of_weight(torch.full((3, 6), 0.0), 1) if settings["weight_bits"] == 1 else None
    small = fc.convert(trainee)
    assert bool(torch.isfinite(small(x)).all())
    if want is not None:
        assert bool((small(x) == 0).all())


def test_gradients_of_weights_of_one_bit_go_straight_through() -> None:
    torch.manual_seed(2)
    weight, x, grad = 3 * torch.randn(4, 7).double(), torch.rand(5, 7).double(), torch.randn(5, 4).double()
    trainee = linear(weight, weight_bits=1)
    trainee(x).backward(grad)
    torch.testing.assert_close(trainee.get_parameter("model.0.weight").grad, grad.T @ x)


def test_gradients_of_weights_of_more_bits_are_those_of_the_tangent_over_its_largest() -> None:
    torch.manual_seed(3)
    weight, x, grad = torch.randn(2, 5).double(), torch.rand(5, 5).double(), torch.randn(5, 2).double()
    trainee = linear(weight, weight_bits=3)
    trainee(x).backward(grad)
    back, w = (grad.T @ x).flatten().tolist(), weight.flatten().tolist()
    t = [math.tanh(value) for value in w]
    p = max(range(len(t)), key=lambda k: abs(t[k]))
    largest = abs(t[p])
    want = []
    for j in range(len(w)):
        slope = back[j] / largest
        if j == p:
            slope -= sum(b * value for b, value in zip(back, t, strict=True)) * math.copysign(1, t[p]) / largest**2
        want.append(slope * (1 - t[j] ** 2))
    found = trainee.get_parameter("model.0.weight").grad
    torch.testing.assert_close(found.flatten(), torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize(("weight_bits", "input_bits"), [(1, 1), (1, 2), (2, 2), (4, 8), (8, 8), (3, 32), (32, 3)])
def test_layers_are_products_of_the_levels(weight_bits: int, input_bits: int) -> None:
    """In training and packed, with the padding's zeros exact."""
    torch.manual_seed(weight_bits)
    dense = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    config = fc.DoReFaConfig(skip=(), weight_bits=weight_bits, input_bits=input_bits)
    trainee = fc.prepare(nn.Sequential(dense), config)
    x = 1.5 * torch.rand(3, 4, 7, 6) - 0.25
    given = x.double() if input_bits == 32 else quantized(x.double().clip(0, 1), input_bits)
    weight = dense.weight.detach()
    held = weight.double() if weight_bits == 32 else levels_of_weight(weight, weight_bits)
    assert dense.bias is not None
    want = F.conv2d(given, held, dense.bias.detach().double(), stride=2, padding=1, groups=2)
    for net in (trainee, fc.convert(trainee)):
        torch.testing.assert_close(net(x).double(), want, rtol=1e-5, atol=2e-6)


def test_the_engine_runs_layers_whose_weights_stay_real() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(54, 4))
    small = fc.convert(model, fc.DoReFaConfig(skip=(), weight_bits=32, input_bits=3)).eval()
    x = torch.rand(2, 3, 6, 5)
    net = fc.compile(small, x, strict=True, tune=False, tolerance="exact")
    torch.testing.assert_close(torch.as_tensor(net(x.numpy())), small(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("weight_bits", "input_bits"), [(1, 2), (3, 4), (32, 4)])
def test_the_weight_does_not_depend_on_the_inputs_levels(weight_bits: int, input_bits: int) -> None:
    """What a report says of a weight's error, and the weight that a packed layer shows, are the weight's own."""
    torch.manual_seed(4)
    dense = nn.Linear(50, 8)
    config = fc.DoReFaConfig(skip=(), weight_bits=weight_bits, input_bits=input_bits)
    small: Any = fc.convert(nn.Sequential(dense), config)
    weight = dense.weight.detach().double()
    want = weight if weight_bits == 32 else levels_of_weight(weight, weight_bits)
    (line,) = fc.report(small)
    # Tangents were divided by their largest: the error is that in the size of the weight.
    size = float(weight.tanh().abs().max()) if weight_bits == 3 else 1.0
    assert line.weight_error == pytest.approx(float((weight - size * want).norm() / weight.norm()), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(small[0].weight.double(), want, rtol=1e-5, atol=1e-6)


def gradients(trainee: Any, grad: Tensor) -> Tensor:
    """What a layer of ones makes of its outputs' gradients."""
    x = torch.zeros_like(grad, requires_grad=True)
    trainee(x).backward(grad)
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_levels_of_gradients(bits: int) -> None:
    """2 M (n / L - 1/2) with M the sample's own largest, and no further than a step from where they were."""
    grad = torch.randn(6, 40, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    grad = grad * torch.tensor([1e-6, 1.0, 1e6, 3.0, 0.0, 1e-3], dtype=torch.float64)[:, None]
    found = gradients(linear(torch.eye(40).double(), gradient_bits=bits), grad)
    top = 2**bits - 1
    for n in range(6):
        largest = float(grad[n].abs().max())
        if largest == 0:
            assert not bool(found[n].any())
            continue
        steps = (found[n] / (2 * largest) + 0.5) * top
        assert float((steps - steps.round()).abs().max()) < 1e-9
        assert bool((steps.round() >= 0).all())
        assert bool((steps.round() <= top).all())
        assert float((found[n] - grad[n]).abs().max()) <= 2 * largest / top * (1 + 1e-9)
        at = int(grad[n].abs().argmax())
        assert float(found[n, at]) == pytest.approx(float(grad[n, at]), rel=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gradients_are_unbiased(bits: int) -> None:
    """Over 40 seeds and steps of 100 samples each, to five standard deviations."""
    row = torch.tensor([1.0, -1.0, 0.9, -0.77, 0.5, 0.31, -0.2, 0.01, 0.0], dtype=torch.float64)
    total, count = torch.zeros_like(row), 0
    for seed in range(20):
        trainee = linear(torch.eye(len(row)).double(), gradient_bits=bits, seed=seed)
        for _ in range(2):
            total += gradients(trainee, row.expand(100, -1)).sum(0)
            count += 100
            trainee.step()
    spread = 2 / (2**bits - 1) / 2 / math.sqrt(count)
    assert float((total / count - row).abs().max()) <= 5 * spread
    assert (total / count)[:2].tolist() == pytest.approx([1.0, -1.0], rel=1e-12)


def test_noise_depends_on_seed_step_layer_and_sample_alone() -> None:
    torch.manual_seed(5)
    grad = torch.rand(1, 60).double().expand(7, -1)
    trainee = linear(torch.eye(60).double(), gradient_bits=2, seed=3)
    parts, again = copy.deepcopy(trainee), linear(torch.eye(60).double(), gradient_bits=2, seed=3)
    whole = gradients(trainee, grad)
    torch.manual_seed(6)
    assert torch.equal(
        torch.cat([gradients(parts, grad[:2]), gradients(parts, grad[2:3]), gradients(parts, grad[3:])]), whole
    )
    assert torch.equal(gradients(again, grad), whole)
    assert all(not torch.equal(whole[0], row) for row in whole[1:])
    trainee.step()
    assert not torch.equal(gradients(trainee, grad), whole)
    assert not torch.equal(gradients(linear(torch.eye(60).double(), gradient_bits=2, seed=4), grad), whole)
    model = nn.Sequential(nn.Linear(60, 60, bias=False), nn.Linear(60, 60, bias=False)).double()
    for layer in model:
        nn.init.eye_(layer.weight)  # type: ignore[arg-type]
    config = fc.DoReFaConfig(skip=(), weight_bits=32, input_bits=32, gradient_bits=2, seed=3)
    two: Any = fc.prepare(model, config)
    assert not torch.equal(gradients(two.model[0], grad), gradients(two.model[1], grad))


def test_gradients_of_a_whole_step_do_not_depend_on_how_it_is_cut() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3)).double()
    x, found = torch.rand(6, 2, 4, 4).double(), []
    for cuts in ([6], [1, 2, 3], [4, 2]):
        trainee = fc.prepare(model, fc.DoReFaConfig(skip=(), gradient_bits=3))
        for part in x.split(cuts):
            trainee(part).square().sum().backward()
        found.append([parameter.grad for parameter in trainee.parameters()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_convolutions_round_a_samples_gradients_by_its_largest() -> None:
    dense = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(dense.weight)
    config = fc.DoReFaConfig(skip=(), weight_bits=32, input_bits=32, gradient_bits=1)
    grad = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    found = gradients(fc.prepare(nn.Sequential(dense), config), grad)
    for n in range(3):
        assert found[n].abs().flatten().tolist() == pytest.approx([float(grad[n].abs().max())] * 20, rel=1e-6)
    trainee = fc.prepare(nn.Sequential(dense), config).eval()
    assert torch.equal(gradients(trainee, grad), grad)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bytes_are_those_of_the_planes(bits: int) -> None:
    small: Any = fc.convert(nn.Sequential(nn.Linear(70, 9)), fc.DoReFaConfig(skip=(), weight_bits=bits))
    assert small[0].theory().bytes == 9 * 8 * 2 * bits + 4 * (9 + 9)
    assert small[0].bits.numel() == 9 * 8 * 2 * bits


def test_nothing_to_do_is_declined() -> None:
    from fastcnn.compression.convert import NothingDoneWarning

    config = fc.DoReFaConfig(skip=(), weight_bits=32, input_bits=32)
    with pytest.warns(NothingDoneWarning, match="all left real"):
        fc.convert(nn.Sequential(nn.Linear(3, 2)), config)


@pytest.mark.parametrize("name", ["weight_bits", "input_bits", "gradient_bits"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "=0 is out of range: it must be between 1 and 32"),
        (33, ValueError, "=33 is out of range: it must be between 1 and 32"),
        (9, ValueError, "=9 is not supported: give 1 to 8 bits, or 32 to leave it real"),
        (2.0, TypeError, " must be an integer, got float 2.0"),
        (True, TypeError, " must be an integer, got bool True"),
    ],
)
def test_bad_settings_are_named(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=name + message):
        fc.DoReFaConfig(**{name: value})
