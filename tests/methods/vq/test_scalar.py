"""Codebook layers: zeros stay exact, gradients are sums over members, codes and codebook agree with the dense layer."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import ConvSpec, DeclinedError, LinearSpec
from fastcnn.methods.vq.scalar import CodebookConv2d, CodebookLinear, KMeansConfig


def pruned(layer: nn.Conv2d | nn.Linear, density: float = 0.3) -> nn.Conv2d | nn.Linear:
    """Zero some weights in place."""
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < density)
    return layer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


def test_zeros_stay_exact_and_survivors_are_shared() -> None:
    dense = pruned(nn.Linear(40, 30))
    layer = CodebookLinear.from_dense(dense, KMeansConfig(clusters=6))
    assert torch.equal(layer.codes == 0, dense.weight == 0)
    zero = layer.codebook.detach()[0]
    assert zero == 0
    assert not torch.signbit(zero)
    assert layer.codebook.numel() == 7
    assert layer.codes.dtype == torch.uint8
    for j in range(1, 7):
        members = dense.weight.detach()[layer.codes == j].double()
        assert float(layer.codebook[j].detach()) == pytest.approx(float(members.mean()), rel=1e-6)


def test_more_clusters_than_distinct_weights_is_lossless() -> None:
    dense = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        dense.weight.copy_(torch.randint(-3, 4, dense.weight.shape) / 8)
    layer = CodebookConv2d.from_dense(dense, KMeansConfig(clusters=200))
    assert torch.equal(layer.to_dense().weight, dense.weight)
    assert layer.codebook.numel() == 7


def test_many_clusters_take_two_byte_codes() -> None:
    dense = nn.Linear(50, 50)
    layer = CodebookLinear.from_dense(dense, KMeansConfig(clusters=65535))
    assert layer.codes.dtype == torch.uint16
    assert torch.equal(layer.to_dense().weight, dense.weight)
    one = CodebookLinear.from_dense(dense, KMeansConfig(clusters=255))
    assert one.codes.dtype == torch.uint8


def test_codebook_gradient_is_the_sum_over_members_and_zero_gets_none() -> None:
    dense = pruned(nn.Conv2d(4, 6, 3, padding=1, groups=2))
    layer = CodebookConv2d.from_dense(dense, KMeansConfig(clusters=5)).double()
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    layer(x).square().sum().backward()
    weight = layer.weight.detach().requires_grad_()
    assert layer.bias is not None
    F.conv2d(x, weight, layer.bias.detach(), padding=1, groups=2).square().sum().backward()
    assert weight.grad is not None
    assert layer.codebook.grad is not None
    want = np.zeros(6)
    np.add.at(want, layer.codes.numpy().ravel(), weight.grad.numpy().ravel())
    want[0] = 0
    assert np.allclose(layer.codebook.grad.numpy(), want, rtol=1e-12)


@pytest.mark.parametrize("make", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_centroids_learn_and_the_zero_stays_under_any_optimizer(make: str) -> None:
    target = pruned(nn.Linear(20, 10))
    layer = CodebookLinear.from_dense(target, KMeansConfig(clusters=3))
    options = {"lr": 0.01, "weight_decay": 0.01} | ({"momentum": 0.9} if make == "SGD" else {})
    optimizer = getattr(torch.optim, make)(layer.parameters(), **options)
    x = torch.randn(256, 20)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = (layer(x) - target(x).detach()).square().mean()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
        assert float(layer.codebook.detach()[0]) == 0.0
    assert losses[-1] < losses[0]


def test_permuting_codebook_and_codes_together_changes_nothing() -> None:
    layer = CodebookLinear.from_dense(nn.Linear(16, 8), KMeansConfig(clusters=9))
    x = torch.randn(4, 16)
    want = layer(x)
    order = torch.cat((torch.tensor([0]), torch.randperm(9) + 1))
    with torch.no_grad():
        layer.codebook.copy_(layer.codebook[order].clone())
        layer.codes.copy_(torch.argsort(order)[layer.codes.long()].to(torch.uint8))
    assert torch.equal(layer(x), want)


@pytest.mark.parametrize("padding", ["same", "valid", 0, (2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_words_and_modes_match_conv2d(padding: str | int | tuple[int, int], mode: str) -> None:
    dense = nn.Conv2d(3, 4, (2, 4), padding=padding, dilation=(1, 2), padding_mode=mode)
    layer = CodebookConv2d.from_dense(dense, KMeansConfig(clusters=60000))
    x = torch.randn(2, 3, 9, 11)
    with warnings.catch_warnings():
        # nn.Conv2d itself warns that an even kernel with "same" needs a padded copy.
        warnings.filterwarnings("ignore", message="Using padding='same'")
        want = dense(x)
    assert torch.allclose(layer(x), want, atol=1e-6)
    assert torch.allclose(layer(x[0]), want[0], atol=1e-6)


def test_from_dense_leaves_its_argument_and_keeps_its_state() -> None:
    dense = nn.Conv2d(3, 4, 3, dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    layer = CodebookConv2d.from_dense(dense, KMeansConfig(clusters=4))
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert layer.bias is not None
    assert (layer.training, layer.codebook.dtype) == (False, torch.float64)
    assert (layer.codebook.requires_grad, layer.bias.requires_grad) == (False, True)
    with torch.no_grad():
        layer.bias.zero_()
    assert not torch.equal(dense.bias, layer.bias)  # type: ignore[arg-type]


def test_theory_counts_entropy_codebook_and_bias() -> None:
    dense = nn.Linear(64, 2)
    with torch.no_grad():
        dense.weight.zero_()
        dense.weight[:, :16] = 1.0
        dense.weight[:, 16:32] = -1.0
    theory = CodebookLinear.from_dense(dense, KMeansConfig(clusters=2)).theory()
    # Half the weights are zero, a quarter 1, a quarter -1: 1.5 bits each.
    assert theory.bytes == 128 * 1.5 / 8 + 4 * 2 + 4 * 2
    assert (theory.params, theory.macs) == (64 + 2, 64)


def test_cost_is_arithmetic() -> None:
    conv = CodebookConv2d.cost(
        KMeansConfig(clusters=16, conv_clusters=300),
        ConvSpec(in_channels=8, out_channels=6, kernel_size=(3, 5), groups=2, output_size=(10, 7)),
    )
    assert (conv.macs, conv.params, conv.param_bytes) == (360 * 70, 301 + 6, 4 * 307 + 2 * 360)
    linear = CodebookLinear.cost(KMeansConfig(clusters=16), LinearSpec(in_features=5, out_features=2, bias=False))
    assert (linear.macs, linear.params, linear.param_bytes) == (10, 11, 44 + 10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(bad: float) -> None:
    dense = nn.Linear(3, 2)
    with torch.no_grad():
        dense.weight[1, 1] = bad
    with pytest.raises(ValueError, match="1 non-finite"):
        CodebookLinear.from_dense(dense, KMeansConfig())


def test_all_zero_layer_is_declined() -> None:
    dense = nn.Linear(3, 2)
    nn.init.zeros_(dense.weight)
    with pytest.raises(DeclinedError, match="every weight is zero"):
        CodebookLinear.from_dense(dense, KMeansConfig())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"clusters": 0}, ValueError, "clusters=0"),
        ({"clusters": 65536}, ValueError, "clusters=65536"),
        ({"clusters": 2.5}, TypeError, "clusters must be an integer, got float"),
        ({"conv_clusters": -1}, ValueError, "conv_clusters=-1"),
        ({"algorithm": "elkan"}, ValueError, "algorithm='elkan' is not supported: choose from 'lloyd', 'optimal'"),
        ({"init": "zeros"}, ValueError, "init='zeros'"),
        ({"seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KMeansConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 3, 8), ValueError, "must have 3 channels on axis -3"),
        (torch.zeros(8), ValueError, r"3 or 4 dimensions, got shape \(8,\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, r"3 channels on axis -3, got shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, r"must be floating point, got torch\.int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), TypeError, "float64 but its weights are torch.float32"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "floating point, got torch.complex64"),
        (np.zeros((1, 3, 8, 8)), TypeError, "must be a torch.Tensor, got ndarray"),
    ],
)
def test_bad_inputs_are_named(x: Tensor, error: type[Exception], message: str) -> None:
    layer = CodebookConv2d(3, 4, 3)
    with pytest.raises(error, match=message):
        layer(x)
    with pytest.raises(ValueError, match=r"5 channels on axis -1, got shape \(2, 4\)"):
        CodebookLinear(5, 2)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="channels on axis -1"):
        CodebookLinear(5, 2)(torch.zeros(()))


def test_empty_batch_gives_an_empty_output_with_a_working_backward() -> None:
    layer = CodebookConv2d.from_dense(nn.Conv2d(3, 4, 3), KMeansConfig(clusters=4))
    out = layer(torch.zeros(0, 3, 8, 8, requires_grad=True))
    assert out.shape == (0, 4, 6, 6)
    out.sum().backward()
    assert layer.codebook.grad is not None
    assert float(layer.codebook.grad.abs().sum()) == 0.0


def test_double_backward() -> None:
    layer = CodebookConv2d.from_dense(nn.Conv2d(2, 2, 2, dtype=torch.float64), KMeansConfig(clusters=3))
    linear = CodebookLinear.from_dense(nn.Linear(4, 2, dtype=torch.float64), KMeansConfig(clusters=3))
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    book, line = layer.codebook, linear.codebook
    conv_args = (layer.codes, layer.bias, [1, 1], [0, 0], [1, 1], 1)
    assert torch.autograd.gradgradcheck(lambda a, b: torch.ops.fastcnn.codebook_conv2d(a, b, *conv_args), (x, book))
    assert torch.autograd.gradgradcheck(
        lambda a, b: torch.ops.fastcnn.codebook_linear(a, b, linear.codes, linear.bias), (rows, line)
    )


def test_autocast_runs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), CodebookConv2d.from_dense(nn.Conv2d(4, 5, 3), KMeansConfig(clusters=4)))
    x = torch.randn(1, 3, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        loss = out.square().sum()
    assert torch.allclose(out.float(), net(x), atol=0.05)
    loss.backward()
    rough = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(x).square().sum().backward()
    for low, full in zip(rough, [p.grad for p in net.parameters()], strict=True):
        assert full is not None
        assert torch.allclose(low, full, rtol=0.1, atol=0.1 * float(full.abs().max()))
