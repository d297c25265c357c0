"""Batch norm and AdaMax by shifts: powers of two by hand, formulas in plain Python, and the engine's bits."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.methods.lowprecision import shift_based
from fastcnn.methods.lowprecision.blocks import BinaryBlock
from fastcnn.methods.lowprecision.latent import parameter_groups
from fastcnn.methods.lowprecision.shift_based import ShiftAdaMax, ShiftBatchNorm1d, ShiftBatchNorm2d, ap2, shifted

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def by_hand(z: float) -> float:
    """sgn(z) 2^round(log2 |z|)."""
    return 0.0 if z == 0 else math.copysign(2.0 ** round(math.log2(abs(z))), z)


@pytest.mark.parametrize(
    ("z", "want"),
    [
        (1.0, 1.0), (1.41, 1.0), (1.42, 2.0), (1.5, 2.0), (2.0, 2.0), (2.8, 2.0), (2.9, 4.0), (3.0, 4.0), (5.0, 4.0),
        (6.0, 8.0), (0.75, 1.0), (0.7, 0.5), (0.3, 0.25), (0.1, 0.125), (-1.0, -1.0), (-3.0, -4.0), (-0.3, -0.25),
        (1000.0, 1024.0), (0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (-math.inf, -math.inf),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_ap2_of_numbers_known_by_heart(z: float, want: float, dtype: torch.dtype) -> None:
    found = ap2(torch.tensor([z], dtype=dtype))
    assert found.dtype == dtype
    assert found.item() == want
    assert math.copysign(1, found.item()) == math.copysign(1, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ap2_leaves_every_power_of_two_and_finds_the_next_one_above_the_root(dtype: torch.dtype) -> None:
    """From the smallest subnormal number to the largest power there is."""
    kind = torch.finfo(dtype)
    first, last = math.frexp(kind.smallest_normal * kind.eps)[1] - 1, math.frexp(kind.max)[1] - 1
    powers = torch.tensor([2.0**k for k in range(first, last + 1)], dtype=torch.float64).to(dtype)
    assert bool((powers > 0).all())
    for sign in (1, -1):
        assert torch.equal(ap2(sign * powers), sign * powers)
    # Numbers on either side of the root of 2, as near as the dtype has them, normal ones.
    parts = round(1 / kind.eps)
    below, above = (
        torch.tensor(n / parts, dtype=dtype) for n in (math.isqrt(2 * parts**2), math.isqrt(2 * parts**2) + 1)
    )
    normal = powers[powers >= kind.smallest_normal][:-1]
    assert torch.equal(ap2(normal * below), normal)
    assert torch.equal(ap2(normal * above), 2 * normal)
    # There is no power of two beyond the largest.
    assert ap2(torch.tensor([kind.max, -kind.max], dtype=dtype)).tolist() == [2.0**last, -(2.0**last)]


def test_ap2_of_subnormal_numbers() -> None:
    least = 2.0**-149
    z = torch.tensor([1, 2, 3, 5, 6, 11, 12, 1 << 22, 3 << 21], dtype=torch.float64) * least
    want = torch.tensor([1, 2, 4, 4, 8, 8, 16, 1 << 22, 1 << 23], dtype=torch.float64) * least
    assert torch.equal(ap2(z.float()).double(), want)


def test_ap2_is_the_formula() -> None:
    bits = torch.randint(-(1 << 31), 1 << 31, (20000,), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    z = bits.to(torch.int32).view(torch.float32)
    z = z[torch.isfinite(z) & (z.abs() < 2.0**127)]
    assert ap2(z).tolist() == [by_hand(float(value)) for value in z]
    assert torch.isnan(ap2(torch.tensor([math.nan]))).all()
    assert ap2(torch.empty(0, 3)).shape == (0, 3)


def test_ap2_wants_floats_and_has_no_gradient() -> None:
    with pytest.raises(TypeError, match=r"ap2 takes floats, got torch\.int64"):
        ap2(torch.tensor([3]))
    z = torch.tensor([3.0, -0.3], requires_grad=True)
    assert not ap2(z).requires_grad
    y = shifted(z)
    assert y.tolist() == [4.0, -0.25]
    (y * torch.tensor([2.0, 5.0])).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [2.0, 5.0]


LAYERS: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (ShiftBatchNorm1d, (16, 5)),
    (ShiftBatchNorm1d, (4, 5, 6)),
    (ShiftBatchNorm2d, (4, 5, 3, 7)),
]
each_layer = pytest.mark.parametrize(("build", "shape"), LAYERS)


def made(build: Callable[..., Any], seed: int = 0, **settings: Any) -> Any:
    """A layer of five channels whose numbers are no powers of two, one of them negative, one 0."""
    torch.manual_seed(seed)
    layer = build(5, **settings)
    if layer.affine:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.3, -0.6, 0.0, 3.1, 0.09]))
            layer.bias.copy_(torch.randn(5))
    return layer


def drawn(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    spread = torch.tensor([0.1, 1.0, 3.0, 20.0, 1.0]).reshape(1, -1, *[1] * (len(shape) - 2))
    return torch.randn(shape) * spread + torch.randn(spread.shape) * 5


def channels(x: Tensor) -> list[list[float]]:
    """Values of each channel as Python floats."""
    return x.detach().double().transpose(0, 1).flatten(1).tolist()  # type: ignore[no-any-return]


@each_layer
@pytest.mark.parametrize("affine", [True, False])
def test_training_is_the_papers_algorithm(build: Any, shape: tuple[int, ...], affine: bool) -> None:
    layer = made(build, affine=affine)
    x = drawn(shape)
    y = channels(layer(x))
    for c, values in enumerate(channels(x)):
        mean = sum(values) / len(values)
        centred = [value - mean for value in values]
        variance = sum(value * by_hand(value) for value in centred) / len(centred)
        scale = by_hand(1 / math.sqrt(variance + 1e-5)) * (by_hand(layer.weight[c].item()) if affine else 1.0)
        bias = layer.bias[c].item() if affine else 0.0
        np.testing.assert_allclose(y[c], [value * scale + bias for value in centred], rtol=2e-5, atol=2e-5)
        assert float(layer.running_mean[c]) == pytest.approx(mean * 0.125, rel=1e-4, abs=1e-5)
        assert float(layer.running_var[c]) == pytest.approx(0.875 + variance * 0.125, rel=1e-4)
    assert int(layer.num_batches_tracked) == 1


@each_layer
def test_outputs_are_within_what_powers_of_two_allow(build: Any, shape: tuple[int, ...]) -> None:
    """The estimate is within sqrt(2) of the variance, outputs within 2^1.25 of those of an ordinary batch norm."""
    farthest = 1.0
    for seed in range(40):
        x = drawn(shape, seed)
        layer = made(build, momentum=None)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(5))
        plain = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(5)
        plain.load_state_dict(layer.state_dict())
        y = (layer(x) - layer.bias.reshape(1, -1, *[1] * (x.dim() - 2))).detach()
        z = (plain(x) - plain.bias.reshape(1, -1, *[1] * (x.dim() - 2))).detach()
        ratio = (y / z)[z.abs() > 1e-3 * z.abs().amax()]
        assert float(ratio.min()) >= 2**-1.2501
        assert float(ratio.max()) <= 2**1.2501
        farthest = max(farthest, float(ratio.max()), 1 / float(ratio.min()))
        variance = x.transpose(0, 1).flatten(1).var(1, correction=0)
        assert bool((layer.running_var / variance).log2().abs().le(0.5001).all())
    assert farthest > 1.6  # it is not an ordinary batch norm


@each_layer
def test_gradients_take_powers_of_two_for_what_they_stand_for(build: Any, shape: tuple[int, ...]) -> None:
    layer = made(build).double()
    x, g = drawn(shape).double().requires_grad_(), torch.randn(shape, dtype=torch.float64)
    (layer(x) * g).sum().backward()
    rows, ups = channels(x), channels(g)
    found = channels(x.grad)  # type: ignore[arg-type]
    for c, (values, up) in enumerate(zip(rows, ups, strict=True)):
        n, weight = len(values), by_hand(layer.weight[c].item())
        mean = sum(values) / n
        centred = [value - mean for value in values]
        variance = sum(value * by_hand(value) for value in centred) / n
        inverse = by_hand((variance + 1e-5) ** -0.5)
        along = sum(a * b for a, b in zip(up, centred, strict=True))
        through = weight * along * -0.5 * (variance + 1e-5) ** -1.5
        inner = [a * inverse * weight + through * (b + by_hand(b)) / n for a, b in zip(up, centred, strict=True)]
        want = [value - sum(inner) / n for value in inner]
        np.testing.assert_allclose(found[c], want, rtol=1e-9, atol=1e-9)
        assert float(layer.weight.grad[c]) == pytest.approx(along * inverse, rel=1e-9, abs=1e-9)
        assert float(layer.bias.grad[c]) == pytest.approx(sum(up), rel=1e-9, abs=1e-9)


@each_layer
@pytest.mark.parametrize("affine", [True, False])
def test_after_training_it_is_one_power_of_two_and_one_shift(build: Any, shape: tuple[int, ...], affine: bool) -> None:
    layer = made(build, affine=affine)
    for seed in range(3):
        layer(drawn(shape, seed))
    layer.eval()
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    scale, shift = (part.detach() for part in layer.scale_and_shift())
    for c in range(5):
        mean, variance = float(layer.running_mean[c]), float(layer.running_var[c])
        power = by_hand(1 / math.sqrt(variance + 1e-5)) * (by_hand(layer.weight[c].item()) if affine else 1.0)
        assert float(scale[c]) == power
        assert float(shift[c]) == pytest.approx((layer.bias[c].item() if affine else 0.0) - mean * power, rel=1e-5)
    x = drawn(shape, 9)
    spread = (1, -1, *[1] * (len(shape) - 2))
    assert torch.equal(layer(x), x * scale.reshape(spread) + shift.reshape(spread))
    assert torch.equal(layer(x[:1]), layer(x)[:1])
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_running_statistics_of_all_batches_or_none() -> None:
    batches = [drawn((8, 5), seed) for seed in range(4)]
    layer = made(ShiftBatchNorm1d, momentum=None)
    for x in batches:
        layer(x)
    means = torch.stack([x.mean(0) for x in batches])
    torch.testing.assert_close(layer.running_mean, means.mean(0))
    bare = made(ShiftBatchNorm1d, track_running_stats=False)
    y = bare(batches[0])
    assert torch.equal(bare.eval()(batches[0]), y)
    assert bare.running_mean is None
    with pytest.raises(ValueError, match="no running statistics: make it with track_running_stats=True"):
        bare.scale_and_shift()


def test_its_state_is_that_of_a_batch_norm() -> None:
    plain, layer = nn.BatchNorm2d(5), made(ShiftBatchNorm2d)
    assert list(plain.state_dict()) == list(layer.state_dict())
    layer(drawn((4, 5, 3, 7)))
    plain.load_state_dict(layer.state_dict())
    again = ShiftBatchNorm2d(5)
    again.load_state_dict(plain.state_dict())
    x = drawn((2, 5, 4, 4), 3)
    assert torch.equal(again.eval()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (ShiftBatchNorm2d(5), (2, 5, 3), r"ShiftBatchNorm2d takes \(N, C, H, W\) with C = 5, got shape \(2, 5, 3\)"),
        (ShiftBatchNorm2d(5), (2, 4, 3, 3), r"got shape \(2, 4, 3, 3\)"),
        (ShiftBatchNorm1d(5), (2, 5, 3, 3), r"takes \(N, C\) or \(N, C, L\) with C = 5"),
        (ShiftBatchNorm1d(1), (4, 7), r"got shape \(4, 7\)"),
        (ShiftBatchNorm1d(5), (1, 5), "needs more than one value per channel in training"),
    ],
)
def test_inputs_that_do_not_fit_are_named(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))


def binary_net() -> nn.Sequential:
    """Layers of signs from the first to the last, with batch norms by shifts between them."""
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1, bias=False),
        ShiftBatchNorm2d(40),
        nn.Hardtanh(),
        nn.Conv2d(40, 64, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        ShiftBatchNorm2d(64),
        nn.Conv2d(64, 32, 3, bias=False),
        ShiftBatchNorm2d(32),
        nn.Flatten(),
        nn.Linear(32 * 4, 65, bias=False),
        ShiftBatchNorm1d(65),
        nn.Linear(65, 10, bias=False),
    )


def test_the_engine_gives_the_bits_of_the_trained_net(tmp_path: Path) -> None:
    """Sums of signs, thresholds, and where a pool stands before it a batch norm that is left: all to the last bit."""
    torch.manual_seed(5)
    trainee: Any = fc.prepare(binary_net(), fc.BNNConfig(skip=()))
    optimizer = ShiftAdaMax(parameter_groups(trainee, 2**-5), lr=2**-5)
    for _ in range(8):
        x, y = torch.randn(16, 3, 8, 8), torch.randint(0, 10, (16,))
        loss = F.cross_entropy(trainee(x) / 8, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trainee.step()
    trainee.eval()
    x = torch.randn(200, 3, 8, 8)
    with torch.no_grad():
        want = trainee(x)
    small = fc.convert(trainee).eval()
    assert isinstance(small[1], ShiftBatchNorm2d)
    with torch.no_grad():
        assert torch.equal(small(x), want)
    net = fc.compile(small, x[:2], threads=1, strict=True, tune=False)
    assert sum("became a threshold" in note for note in net.plan.notes) == 3
    assert torch.equal(torch.as_tensor(net(x.numpy())), want)
    net.save(tmp_path / "net.fcnn")
    assert torch.equal(torch.as_tensor(fc.load(tmp_path / "net.fcnn", threads=1)(x.numpy())), want)


def test_thresholds_are_those_of_the_layer_at_every_sum() -> None:
    """65 inputs by their signs, each output the same sum: every sum that there is, through the engine, against torch.

    Means and biases are such that the layer comes to 0 at whole sums.
    """
    torch.manual_seed(6)
    first, norm, last = nn.Linear(65, 200, bias=False), ShiftBatchNorm1d(200), nn.Linear(200, 200, bias=False)
    with torch.no_grad():
        first.weight.fill_(1.0)
        last.weight.copy_(2 * torch.eye(200) - 1)
        norm.weight.copy_(torch.randn(200))
        norm.running_var.copy_(torch.rand(200) * 40)  # type: ignore[union-attr]
        norm.running_mean.copy_((torch.randn(200) * 20).round())  # type: ignore[union-attr]
        norm.bias[::2] = torch.randn(100) * 0.1
        norm.weight[::11] = 0
    model = nn.Sequential(first, norm, last).eval()
    small = fc.convert(model, fc.BNNConfig(skip=())).eval()
    sums = torch.tensor([[1.0] * k + [-1.0] * (65 - k) for k in range(66)])
    net = fc.compile(small, sums, threads=1, strict=True, tune=False)
    assert any("became a threshold" in note for note in net.plan.notes)
    signs = torch.where(norm(first(sums)) >= 0, 1.0, -1.0)
    assert 0.05 < float((signs > 0).float().mean()) < 0.95
    assert torch.equal(torch.as_tensor(net(sums.numpy())), signs @ last.weight.detach().T)


def test_float_and_int8_nets_have_it_too() -> None:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), ShiftBatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 8))
    for seed in range(4):
        torch.manual_seed(seed)
        net(torch.randn(16, 3, 6, 6) * 3)
    net.eval()
    x = torch.randn(32, 3, 6, 6) * 3
    with torch.no_grad():
        want = net(x)
        compiled = fc.compile(net, x, threads=1, strict=True, tune=False)
        assert not any("norm" in step.kernel or "scale" in step.kernel for step in compiled.plan.steps)
        torch.testing.assert_close(torch.as_tensor(compiled(x.numpy())), want, rtol=1e-4, atol=1e-4)
        small = fc.convert(net, fc.Int8Config(), data=[x])
        assert float((small(x) - want).norm() / want.norm()) < 0.05
        again = fc.compile(small, x, threads=1, strict=True, tune=False)
        torch.testing.assert_close(torch.as_tensor(again(x.numpy())), small(x), rtol=1e-3, atol=1e-3)


def test_blocks_are_made_with_it() -> None:
    block: Any = BinaryBlock(4, 6, order="conv-first", shortcut=True, norm=ShiftBatchNorm2d)
    assert isinstance(block.norm, ShiftBatchNorm2d)
    assert isinstance(block.shortcut[-1], ShiftBatchNorm2d)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    assert block(torch.randn(2, 4, 5, 5)).shape == (2, 6, 5, 5)
    assert BinaryBlock(4, 6, norm=ShiftBatchNorm2d).norm.num_features == 4  # type: ignore[comparison-overlap]


class Adamax:
    """The same by hand, on Python floats."""

    def __init__(self, weights: list[float], lr: float, betas: tuple[float, float], decay: float) -> None:
        self.weights, self.lr, self.betas, self.decay = weights, lr, betas, decay
        self.m, self.v, self.t = [0.0] * len(weights), [0.0] * len(weights), 0

    def step(self, gradients: list[float]) -> None:
        self.t += 1
        first, second = by_hand(1 - self.betas[0]), by_hand(1 - self.betas[1])
        rate = by_hand(self.lr / (1 - (1 - first) ** self.t))
        for i, gradient in enumerate(gradients):
            g = gradient + by_hand(self.decay) * self.weights[i]
            self.m[i] = self.m[i] + (g - self.m[i]) * first
            self.v[i] = max(self.v[i] - self.v[i] * second, abs(g))
            if self.v[i]:
                self.weights[i] -= rate * self.m[i] / by_hand(self.v[i])


@pytest.mark.parametrize("decay", [0.0, 0.03])
@pytest.mark.parametrize(("lr", "betas"), [(2**-10, (1 - 2**-3, 1 - 2**-10)), (0.03, (0.9, 0.999)), (0.5, (0.0, 0.0))])
def test_steps_are_those_of_the_formula(lr: float, betas: tuple[float, float], decay: float) -> None:
    torch.manual_seed(8)
    weights = torch.randn(7, dtype=torch.float64)
    parameter = nn.Parameter(weights.clone())
    optimizer = ShiftAdaMax([parameter], lr=lr, betas=betas, weight_decay=decay)
    hand = Adamax(weights.tolist(), lr, betas, decay)
    for step in range(30):
        gradient = torch.randn(7, dtype=torch.float64) * 10.0 ** (step % 5 - 3)
        gradient[0] = 0.0
        gradient[1] *= step > 20
        parameter.grad = gradient
        optimizer.step()
        hand.step(gradient.tolist())
        np.testing.assert_allclose(parameter.detach(), hand.weights, rtol=1e-12, atol=1e-15)
    state = optimizer.state[parameter]
    assert state["step"] == 30
    np.testing.assert_allclose(state["exp_avg"], hand.m, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(state["exp_inf"], hand.v, rtol=1e-12, atol=1e-15)
    assert decay or parameter[0].item() == weights[0].item()  # it never had a gradient


def test_the_first_step_is_the_gradients_share_of_its_power_of_two() -> None:
    """m is g / 8 and the rate 8 lr, so a weight moves by lr g / AP2(g)."""
    parameter = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimizer = ShiftAdaMax([parameter])
    parameter.grad = torch.tensor([1.0, -3.0, 1e-20])
    optimizer.step()
    power = by_hand(float(torch.tensor(1e-20)))
    want = [1 - 2**-10, 1 + 2**-10 * 0.75, 1 - 2**-10 * (1e-20 / power)]
    torch.testing.assert_close(parameter.detach(), torch.tensor(want), rtol=1e-7, atol=0)


def test_the_state_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(steps: int, saved: Path | None = None) -> tuple[Tensor, Any]:
        torch.manual_seed(9)
        model = nn.Linear(6, 3)
        optimizer = ShiftAdaMax([{"params": [model.weight], "lr": 0.25}, {"params": [model.bias]}], lr=0.01)
        begin = 0
        if saved is not None:
            state = torch.load(saved, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            begin = 5
        for step in range(begin, begin + steps):
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return model.weight.detach(), {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    whole, _ = run(10)
    _, half = run(5)
    torch.save(half, tmp_path / "half.pt")
    rest, state = run(5, tmp_path / "half.pt")
    assert torch.equal(rest, whole)
    assert [group["lr"] for group in state["optimizer"]["param_groups"]] == [0.25, 0.01]


def test_closures_groups_and_parameters_without_gradients() -> None:
    torch.manual_seed(10)
    moved, fast, still = (nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = ShiftAdaMax([{"params": [moved]}, {"params": [fast], "lr": 2**-4}, {"params": [still]}], lr=2**-6)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (moved.sum() + fast.sum()).square()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == 36.0
    assert torch.equal(still.detach(), torch.ones(3))
    assert still not in optimizer.state
    assert torch.equal(1 - fast.detach(), 4 * (1 - moved.detach()))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [2**-7, 2**-5, 2**-7]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, r"lr=-1\.0 is out of range"),
        ({"lr": "fast"}, TypeError, "lr must be a number, got str 'fast'"),
        ({"lr": math.nan}, ValueError, "lr=nan is out of range"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\]=1\.0 is out of range: allowed is 0\.0 <= betas\[1\] < 1\.0"),
        ({"betas": (-0.1, 0.9)}, ValueError, r"betas\[0\]=-0\.1 is out of range"),
        ({"betas": 0.9}, TypeError, r"betas must be a pair of numbers, got 0\.9"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay=-0\.1 is out of range"),
    ],
)
def test_settings_that_are_none_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    with pytest.raises(error, match=message):
        ShiftAdaMax(parameters, **settings)
    with pytest.raises(error, match=message):
        ShiftAdaMax([{"params": parameters, **settings}])


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = ShiftAdaMax(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="no sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("binary", [False, True])
def test_a_loss_falls(binary: bool) -> None:
    torch.manual_seed(11)
    model: Any = nn.Sequential(
        nn.Linear(20, 64, bias=False), ShiftBatchNorm1d(64), nn.Hardtanh(),
        nn.Linear(64, 64, bias=False), ShiftBatchNorm1d(64), nn.Hardtanh(), nn.Linear(64, 3),
    )  # fmt: skip
    if binary:
        model = fc.prepare(model, fc.BNNConfig(exclude="0"))
    x = torch.randn(240, 20)
    y = (x[:, :3] + 0.3 * x[:, 3:6]).argmax(1)
    first = float(F.cross_entropy(model(x), y).detach())
    history = fc.finetune(
        model,
        [(x[i::8], y[i::8]) for i in range(8)],
        epochs=12,
        optimizer=partial(ShiftAdaMax),
        lr=2**-7,
        schedule="constant",
    )
    assert history.epochs[-1].loss < 0.5 * first


def test_the_docstrings_examples() -> None:
    assert doctest.testmod(shift_based).failed == 0
    assert doctest.testmod(shift_based).attempted >= 6
