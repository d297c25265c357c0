"""XNOR-Net and binary-weight networks: the best scale, its gradients, and the map of input sizes, by hand."""

from __future__ import annotations

import itertools
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


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def prepared(dense: nn.Module, config: Any) -> Any:
    return fc.prepare(nn.Sequential(dense), config)


def packed(dense: nn.Module, config: Any) -> Any:
    return fc.convert(nn.Sequential(dense), config)[0]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_alpha_is_the_best_scale_of_each_output(kind: str) -> None:
    dense: Any = nn.Conv2d(4, 6, 3, groups=2) if kind == "conv" else nn.Linear(33, 5)
    layer = packed(dense, fc.BWNConfig(skip=()))
    weight = dense.weight.detach().double().flatten(1)
    alpha = layer.scale.double()
    torch.testing.assert_close(alpha, weight.abs().sum(1) / weight.shape[1], rtol=1e-6, atol=0.0)

    def error(scale: Tensor) -> Tensor:
        return (weight - scale[:, None] * signs(weight)).square().sum(1)

    for factor in (0.5, 0.99, 1.01, 2.0):
        assert bool((error(alpha) < error(factor * alpha)).all())
    # ||W - alpha B||^2 = ||W||^2 - K alpha^2.
    torch.testing.assert_close(error(alpha), weight.square().sum(1) - weight.shape[1] * alpha**2, rtol=1e-5, atol=0.0)
    assert torch.equal(layer.weight.flatten(1), layer.scale[:, None] * signs(dense.weight.detach().flatten(1)))


def test_a_gaussian_weight_keeps_two_of_pi_of_its_energy() -> None:
    dense = nn.Linear(400, 300)
    nn.init.normal_(dense.weight, generator=torch.Generator().manual_seed(0))
    (line,) = fc.report(fc.convert(nn.Sequential(dense), fc.BWNConfig(skip=())))
    assert line.weight_error**2 == pytest.approx(1 - 2 / math.pi, abs=0.005)


def gradient_of_weight(config: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the real weight, and of the one that is multiplied, in a layer with real inputs."""
    dense = nn.Conv2d(weight.shape[1], weight.shape[0], (2, 3), bias=False, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(weight)
    trainee = prepared(dense, config)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, weight.shape[1], 4, 5, generator=generator, dtype=torch.float64)
    y = trainee(x)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(grad)
    multiplied = torch.zeros_like(weight, requires_grad=True)
    F.conv2d(x, multiplied).backward(grad)
    assert multiplied.grad is not None
    return trainee.get_parameter("model.0.weight").grad, multiplied.grad


def weight_across_one() -> Tensor:
    """Some entries beyond 1, some just there."""
    weight = 0.8 * torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    eps = 2.0**-30
    weight[0].view(-1)[:6] = torch.tensor([1.0, -1.0, 1 + eps, -1 - eps, 1 - eps, eps - 1], dtype=torch.float64)
    return weight


@pytest.mark.parametrize("gradient", ["full", "paper"])
def test_gradients_of_the_scaled_sign(gradient: str) -> None:
    weight = weight_across_one()
    found, g = gradient_of_weight(fc.BWNConfig(skip=(), gradient=gradient), weight)  # type: ignore[arg-type]
    want = torch.zeros_like(weight)
    for o in range(3):
        w, back = weight[o].flatten().tolist(), g[o].flatten().tolist()
        count = len(w)
        alpha = sum(map(abs, w)) / count
        total = sum(b * math.copysign(1, v) for b, v in zip(back, w, strict=True))
        for i in range(count):
            inside = 1.0 if abs(w[i]) <= 1 else 0.0
            if gradient == "full":
                value = alpha * back[i] * inside + math.copysign(1, w[i]) / count * total
            else:
                value = back[i] * (1 / count + alpha * inside)
            want[o].view(-1)[i] = value
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gradient", ["full", "paper"])
def test_a_filter_of_zeros_is_finite(gradient: str) -> None:
    weight = weight_across_one()
    weight[1] = 0.0
    found, _ = gradient_of_weight(fc.BWNConfig(skip=(), gradient=gradient), weight)  # type: ignore[arg-type]
    assert bool(torch.isfinite(found).all())
    dense = nn.Linear(5, 2)
    nn.init.zeros_(dense.weight)
    small = fc.convert(nn.Sequential(dense), fc.XNORConfig(skip=()))
    assert torch.equal(small(torch.randn(3, 5)), dense.bias.expand(3, 2))


def test_centred_weights() -> None:
    """The mean over input channels goes before signs and alpha; gradients go back through that."""
    weight = weight_across_one()
    config = fc.BWNConfig(skip=(), center=True)
    dense = nn.Conv2d(4, 3, (2, 3), bias=False, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(weight)
    centred = weight - weight.sum(1, keepdim=True) / 4
    alpha = centred.abs().flatten(1).sum(1) / 24
    torch.testing.assert_close(packed(dense, config).weight, alpha[:, None, None, None] * signs(centred))
    found, g = gradient_of_weight(config, weight)
    wide = alpha[:, None, None, None]
    total = (g * signs(centred)).sum((1, 2, 3), keepdim=True)
    inner = wide * g * (centred.abs() <= 1) + signs(centred) / 24 * total
    torch.testing.assert_close(found, inner - inner.sum(1, keepdim=True) / 4, rtol=1e-10, atol=1e-12)
    flat = nn.Linear(4, 3)
    assert torch.equal(packed(flat, config).weight.sign(), signs(flat.weight.detach()))


def test_a_learned_scale_is_a_parameter() -> None:
    weight = weight_across_one()
    config = fc.BWNConfig(skip=(), alpha="learned")
    found, g = gradient_of_weight(config, weight)
    alpha = weight.abs().flatten(1).sum(1) / 24
    torch.testing.assert_close(found, alpha[:, None, None, None] * g * (weight.abs() <= 1))
    trainee = prepared(nn.Linear(7, 3), config)
    assert {name for name, _ in trainee.named_parameters()} == {
        f"model.0.{name}" for name in ("weight", "bias", "alpha")
    }
    x, held = torch.randn(5, 7), signs(trainee.model[0].weight.detach())
    trainee(x).sum().backward()
    torch.testing.assert_close(trainee.model[0].alpha.grad, (x.sum(0) * held).sum(1), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        trainee.model[0].alpha.copy_(torch.tensor([0.5, 2.0, -1.0]))
    want = trainee.eval()(x)
    small: Any = fc.convert(trainee)
    assert small[0].scale.tolist() == [0.5, 2.0, -1.0]
    assert torch.equal(small(x), want)
    assert not list(small.parameters())


def test_without_a_scale_there_is_none() -> None:
    layer = packed(nn.Conv2d(3, 4, 3), fc.XNORConfig(skip=(), alpha="none"))
    assert layer.scale is None
    assert bool((layer.weight.abs() == 1).all())


def box(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Mean |x| over channels of the group and places under the kernel, by loops; what is outside counts as 0."""
    n, c, h, w = x.shape
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = conv.kernel_size, conv.stride, conv.padding, conv.dilation  # type: ignore[misc]
    height = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    out = torch.zeros(n, conv.out_channels, height, width, dtype=torch.float64)
    size, each = c // conv.groups, conv.out_channels // conv.groups
    sizes = x.double().abs().tolist()
    for b, g, i, j in itertools.product(range(n), range(conv.groups), range(height), range(width)):
        total = 0.0
        for r, s in itertools.product(range(kh), range(kw)):
            y, z = i * sh - ph + r * dh, j * sw - pw + s * dw
            if 0 <= y < h and 0 <= z < w:
                total += sum(sizes[b][k][y][z] for k in range(g * size, (g + 1) * size)) / size
        out[b, g * each : (g + 1) * each, i, j] = total / (kh * kw)
    return out


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": (2, 1)},
        {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (2, 1), "padding": (0, 1)},
        {"kernel_size": 3, "groups": 2, "padding": 1, "stride": 2},
        {"kernel_size": 1, "groups": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("pad_value", [1, 0])
def test_beta_is_the_mean_size_of_inputs_under_the_kernel(arguments: dict[str, Any], pad_value: int) -> None:
    torch.manual_seed(8)
    dense, x = nn.Conv2d(4, 6, **arguments), torch.randn(2, 4, 6, 5)
    x[0] = 0.0
    trainee = prepared(dense, fc.XNORConfig(skip=(), beta=True, pad_value=pad_value)).eval()  # type: ignore[arg-type]
    ph, pw = dense.padding
    given = F.pad(signs(x.double()), (pw, pw, ph, ph), value=float(pad_value))  # type: ignore[arg-type]
    held = signs(dense.weight.detach().double())
    sums = F.conv2d(given, held, None, dense.stride, 0, dense.dilation, dense.groups)
    alpha = dense.weight.detach().double().abs().flatten(1).mean(1)
    assert dense.bias is not None
    bias = dense.bias.detach().double()
    want = sums * alpha[:, None, None] * box(x, dense) + bias[:, None, None]
    for net in (trainee, fc.convert(trainee)):
        torch.testing.assert_close(net(x).double(), want, rtol=1e-5, atol=1e-5)
        assert torch.equal(net(x)[0], dense.bias[:, None, None].expand_as(want[0]))


def test_beta_of_linear_layers() -> None:
    torch.manual_seed(9)
    dense, x = nn.Linear(70, 5), torch.randn(2, 3, 70)
    small = fc.convert(nn.Sequential(dense), fc.XNORConfig(skip=(), beta=True))
    weight, rows = dense.weight.detach().double(), x.double()
    want = (
        signs(rows) @ signs(weight).T * weight.abs().mean(1) * rows.abs().mean(-1, keepdim=True) + dense.bias.double()
    )
    torch.testing.assert_close(small(x).double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_engine_multiplies_by_beta(groups: int) -> None:
    torch.manual_seed(10)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups), nn.Flatten(), nn.Linear(54, 3))
    small = fc.convert(model, fc.XNORConfig(skip=(), beta=True, pad_value=0)).eval()
    x = torch.randn(2, 4, 6, 5)
    net = fc.compile(small, x, strict=True, tune=False, tolerance="exact")
    torch.testing.assert_close(torch.as_tensor(net(x.numpy())), small(x), rtol=1e-5, atol=1e-5)


def test_binary_weights_see_real_inputs() -> None:
    torch.manual_seed(11)
    dense, x = nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), torch.randn(2, 3, 5, 6)
    weight = dense.weight.detach().double()
    alpha = weight.abs().flatten(1).mean(1)
    given = F.pad(x.double(), (1, 1, 1, 1), mode="reflect")
    assert dense.bias is not None
    want = F.conv2d(given, signs(weight) * alpha[:, None, None, None], dense.bias.detach().double())
    small = fc.convert(nn.Sequential(dense), fc.BWNConfig(skip=()))
    torch.testing.assert_close(small(x).double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "ratio"), [(3, 9.0), (64, 30.3), (256, 31.6)])
def test_bytes_of_a_layer_with_a_scale(channels: int, ratio: float) -> None:
    """The specification's table: O 64 ceil(K / 64) bits and 32 for each scale."""
    dense = nn.Conv2d(channels, 5, 3, bias=False)
    theory = packed(dense, fc.BWNConfig(skip=())).theory()
    length = 9 * channels
    assert theory.bytes == 5 * 8 * math.ceil(length / 64) + 4 * 5
    assert 4 * 5 * length / theory.bytes == pytest.approx(ratio, abs=0.05)
    assert (theory.params, theory.macs) == (5 * length + 5, 5 * length)


def test_stochastic_weights_keep_their_alpha() -> None:
    trainee = prepared(nn.Linear(40, 6, bias=False), fc.BWNConfig(skip=(), stochastic_weights=True))
    weight = trainee.model[0].weight.detach()
    drawn = trainee(torch.eye(40)).detach().T
    torch.testing.assert_close(drawn.abs(), weight.abs().mean(1, keepdim=True).expand_as(weight))
    assert not torch.equal(drawn.sign(), signs(weight))


def test_the_papers_gradient_does_not_silently_end_random_signs() -> None:
    """Either they do not go together, and the config says so, or signs are drawn."""
    try:
        config = fc.BWNConfig(skip=(), gradient="paper", stochastic_weights=True)
    except ValueError:
        return
    trainee = prepared(nn.Linear(40, 6, bias=False), config)
    assert not torch.equal(trainee(torch.eye(40)).T.sign(), signs(trainee.model[0].weight.detach()))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"alpha": "max"}, ValueError, "alpha='max' is not supported: choose from 'mean', 'learned', 'none'"),
        ({"gradient": "half"}, ValueError, "gradient='half' is not supported: choose from 'full', 'paper'"),
        ({"beta": 1}, TypeError, "beta must be True or False, got 1"),
        ({"center": "yes"}, TypeError, "center must be True or False, got 'yes'"),
        ({"gradient": "paper", "alpha": "learned"}, ValueError, "alpha='mean', not of alpha='learned'"),
        ({"beta": True, "inputs": False}, ValueError, "needs inputs=True"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fc.XNORConfig(**settings)
