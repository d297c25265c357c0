"""Fastfood against explicit matrices in numpy: the map, its gradients by hand, its start, its fit to a dense layer."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor, nn

from fastcnn.methods.contract import DeclinedError, LinearSpec
from fastcnn.methods.structured.fastfood import FastfoodConfig, FastfoodLinear

Array = npt.NDArray[np.float64]
SHAPES = [(1, 1), (3, 17), (8, 8), (7, 9), (16, 3), (17, 40), (5, 8)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(9)


def transform_matrix(n: int) -> Array:
    matrix: Array = scipy.linalg.hadamard(n) / np.sqrt(n)
    return matrix


def permutation_matrix(places: Array) -> Array:
    """P with (P v)[j] = v[places[j]]."""
    matrix = np.zeros((len(places), len(places)))
    for j, place in enumerate(places):
        matrix[j, int(place)] = 1
    return matrix


def block_matrices(layer: FastfoodLinear) -> list[Array]:
    """D1 H D2 P H D3 of every block, in full."""
    found = []
    scale, gauss, signs = (t.detach().double().numpy() for t in (layer.scale, layer.gauss, layer.signs))
    h = transform_matrix(scale.shape[1])
    for k in range(scale.shape[0]):
        p = permutation_matrix(layer.permutation[k].numpy())
        found.append(np.diag(scale[k]) @ h @ np.diag(gauss[k]) @ p @ h @ np.diag(signs[k]))
    return found


def explicit(layer: FastfoodLinear) -> Array:
    """The dense weight: the blocks below each other, cut to the layer's size."""
    return np.concatenate(block_matrices(layer))[: layer.out_features, : layer.in_features]


def randomised(in_features: int, out_features: int, **settings: Any) -> FastfoodLinear:
    """A layer in float64 whose every number is generic."""
    layer = FastfoodLinear(in_features, out_features, dtype=torch.float64, **settings)
    with torch.no_grad():
        for tensor in (layer.scale, layer.gauss, layer.signs, layer.bias):
            if tensor is not None:
                tensor.normal_()
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_map_is_the_product_of_its_factors(shape: tuple[int, int], bias: bool, adaptive: bool) -> None:
    layer = randomised(*shape, bias=bias, adaptive=adaptive, seed=5)
    weight = explicit(layer)
    x = torch.randn(4, shape[0], dtype=torch.float64)
    want = x.numpy() @ weight.T + (layer.bias.detach().numpy() if layer.bias is not None else 0)
    got = layer(x).detach().numpy()
    assert np.abs(got - want).max() <= 1e-13 * np.abs(want).max()
    assert np.abs(layer.weight.numpy() - weight).max() <= 1e-13 * np.abs(weight).max()
    dense = layer.to_dense()
    assert torch.equal(dense.weight, layer.weight)
    assert (dense.bias is not None) == bias
    assert torch.allclose(dense(x), layer(x), rtol=0, atol=1e-12 * float(np.abs(want).max()))


@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (0,), (2, 0)])
def test_any_leading_axes(lead: tuple[int, ...]) -> None:
    layer = randomised(6, 11)
    x = torch.randn(*lead, 6, dtype=torch.float64)
    want = x.numpy() @ explicit(layer).T + layer.bias.detach().numpy()  # type: ignore[union-attr]
    got = layer(x).detach().numpy()
    assert got.shape == (*lead, 11)
    assert np.allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 4, 16])
def test_nothing_but_the_signs_and_no_permutation_is_a_sign_flip(n: int) -> None:
    """D1 = D2 = 1 and P = id leave H H = I."""
    layer = FastfoodLinear(n, n, dtype=torch.float64)
    with torch.no_grad():
        layer.scale.fill_(1)
        layer.gauss.fill_(1)
        layer.permutation.copy_(torch.arange(n))
    assert torch.allclose(layer.weight, torch.diag(layer.signs.detach()[0]), rtol=0, atol=1e-15)
    with torch.no_grad():
        layer.signs.fill_(1)
    assert torch.allclose(layer.weight, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-15)


def test_signs_on_all_diagonals_keep_lengths() -> None:
    layer = FastfoodLinear(32, 32, dtype=torch.float64, seed=2)
    assert set(layer.signs.detach().flatten().tolist()) == {-1.0, 1.0}
    with torch.no_grad():
        layer.scale.copy_(torch.randn_like(layer.scale).sign())
        layer.gauss.copy_(torch.randn_like(layer.gauss).sign())
    x = torch.randn(7, 32, dtype=torch.float64)
    y = layer(x)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1), rtol=1e-13, atol=0)
    assert not torch.allclose(y.abs(), x.abs())


@pytest.mark.parametrize("seed", [0, 1])
def test_permutations_are_permutations_and_differ_between_blocks(seed: int) -> None:
    layer = FastfoodLinear(64, 200, seed=seed)
    assert layer.permutation.shape == (4, 64)
    assert layer.permutation.dtype == torch.int32
    for row in layer.permutation:
        assert sorted(row.tolist()) == list(range(64))
    assert not torch.equal(layer.permutation[0], layer.permutation[1])
    other = FastfoodLinear(64, 200, seed=seed + 1)
    assert not torch.equal(layer.permutation, other.permutation)


def test_rows_start_as_long_as_those_of_a_dense_layer() -> None:
    """Row lengths are sqrt(2 / in) chi_N: exactly D1 |D2| / sqrt(N), in distribution those of Gaussian rows."""
    n = 256
    layer = FastfoodLinear(n, 8 * n, dtype=torch.float64, seed=1)
    lengths = np.linalg.norm(explicit(layer), axis=1)
    d1 = layer.scale.detach().numpy()
    d2 = np.linalg.norm(layer.gauss.detach().numpy(), axis=1, keepdims=True)
    assert np.allclose(lengths, (d1 * d2 / np.sqrt(n)).ravel(), rtol=1e-12)
    assert scipy.stats.kstest(lengths * np.sqrt(n / 2), scipy.stats.chi(n).cdf).pvalue > 0.01
    # A wrong gain, by 2 percent, would not pass.
    assert scipy.stats.kstest(1.02 * lengths * np.sqrt(n / 2), scipy.stats.chi(n).cdf).pvalue < 1e-4


@pytest.mark.parametrize("in_features", [128, 100, 65])
def test_outputs_start_with_the_variance_of_a_dense_layer(in_features: int) -> None:
    """Each entry has the variance 2 / in, for inputs that fill the blocks and for those that do not."""
    weights = [FastfoodLinear(in_features, 1024, seed=seed).weight for seed in range(6)]
    variances = [float(weight.square().mean()) for weight in weights]
    assert np.mean(variances) == pytest.approx(2 / in_features, rel=0.03)
    layers = [FastfoodLinear(in_features, 1024, seed=seed) for seed in range(6)]
    out = torch.stack([layer(torch.randn(64, in_features)).detach().var() for layer in layers])
    assert float(out.mean()) == pytest.approx(2.0, rel=0.05)


def test_the_seed_decides_alone_and_the_global_generator_is_left_alone() -> None:
    dense = nn.Linear(20, 30)
    before = torch.get_rng_state()
    one = FastfoodLinear(20, 30, seed=4)
    FastfoodLinear.from_dense(dense, config())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    other = FastfoodLinear(20, 30, seed=4)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    with torch.no_grad():
        other.scale.zero_()
        other.permutation.zero_()
    other.reset_parameters()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def config(**settings: Any) -> FastfoodConfig:
    return FastfoodConfig(steps=3, force=True, **settings)


def test_gradients_by_hand() -> None:
    """The formulas with explicit matrices, block by block, against autograd."""
    layer = randomised(6, 13, seed=8)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(5, 13, dtype=torch.float64)
    layer(x).backward(outer)
    n, blocks = 8, 2
    h = transform_matrix(n)
    rows = np.zeros((5, n))
    rows[:, :6] = x.detach().numpy()
    g = np.zeros((5, blocks * n))
    g[:, :13] = outer.numpy()
    d1, d2, d3 = (t.detach().numpy() for t in (layer.scale, layer.gauss, layer.signs))
    want_x = np.zeros((5, n))
    for k in range(blocks):
        p = permutation_matrix(layer.permutation[k].numpy())
        part = g[:, k * n : (k + 1) * n]
        a = rows * d3[k]
        b = a @ h.T @ p.T
        c = (b * d2[k]) @ h.T
        q = (part * d1[k]) @ h.T
        u = (q * d2[k]) @ p @ h.T
        for tensor, want in (
            (layer.scale, (part * c).sum(0)),
            (layer.gauss, (q * b).sum(0)),
            (layer.signs, (u * rows).sum(0)),
        ):
            assert tensor.grad is not None
            assert np.allclose(tensor.grad[k].numpy(), want, rtol=0, atol=1e-12)
        want_x += u * d3[k]
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), want_x[:, :6], rtol=0, atol=1e-12)
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert np.allclose(layer.bias.grad.numpy(), outer.sum(0).numpy(), rtol=0, atol=1e-12)


def test_gradients_of_first_and_second_order() -> None:
    layer = randomised(3, 6, seed=8)
    assert layer.bias is not None
    drawn = (layer.scale, layer.gauss, layer.signs, layer.bias)
    values = [tensor.detach().clone().requires_grad_() for tensor in drawn]
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = torch.ops.fastcnn.fastfood_linear(x, scale, gauss, signs, layer.permutation, bias, 6)
        return out

    assert torch.autograd.gradcheck(call, (x, *values))
    assert torch.autograd.gradgradcheck(call, (x, *values))


@pytest.mark.parametrize("bias", [True, False])
def test_the_op_is_well_formed(bias: bool) -> None:
    layer = FastfoodLinear(5, 11, bias)
    arguments = [t.detach().requires_grad_() for t in (layer.scale, layer.gauss, layer.signs)]
    torch.library.opcheck(
        torch.ops.fastcnn.fastfood_linear,
        (torch.randn(2, 3, 5, requires_grad=True), *arguments, layer.permutation, layer.bias, 11),
        test_utils=["test_schema", "test_autograd_registration", "test_faketensor"],
    )


def test_linearity() -> None:
    layer = randomised(9, 20, bias=False)
    x, y = torch.randn(2, 3, 9, dtype=torch.float64)
    assert torch.allclose(layer(2 * x - 3 * y), 2 * layer(x) - 3 * layer(y), rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", ["SGD", "Adam"])
def test_training_from_scratch_lowers_a_loss(make: str) -> None:
    net = nn.Sequential(FastfoodLinear(12, 32, seed=0), nn.ReLU(), FastfoodLinear(32, 3, seed=1))
    x = torch.randn(256, 12)
    labels = (x[:, :3] + 0.5 * x[:, 3:6]).argmax(1)
    optimizer = getattr(torch.optim, make)(net.parameters(), lr=0.05)
    start = [p.detach().clone() for p in net.parameters()]
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(start, net.parameters(), strict=True))


def test_fixed_diagonals_are_buffers_and_only_the_bias_learns() -> None:
    layer = FastfoodLinear(10, 20, adaptive=False, seed=6)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert set(layer.state_dict()) == {"scale", "gauss", "signs", "permutation", "bias"}
    adaptive = FastfoodLinear(10, 20, seed=6)
    assert torch.equal(layer.weight, adaptive.weight)
    x = torch.randn(3, 10, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert not layer.scale.requires_grad
    bare = FastfoodLinear(4, 4, bias=False, adaptive=False)
    assert list(bare.parameters()) == []
    assert not bare.to_dense().weight.requires_grad


def test_conversion_recovers_part_of_a_matrix_of_its_own_form() -> None:
    """The fit starts from the right signs and permutation (same seed) and must find the diagonals."""
    source = FastfoodLinear(32, 64, seed=3)
    with torch.no_grad():
        source.scale.mul_(torch.rand_like(source.scale) + 0.5)
        source.gauss.mul_(torch.rand_like(source.gauss) + 0.5)
    dense = source.to_dense()

    def error(steps: int) -> float:
        layer = FastfoodLinear.from_dense(dense, FastfoodConfig(seed=3, steps=steps))
        return float((layer.weight - source.weight).norm() / source.weight.norm())

    errors = [error(steps) for steps in (0, 100, 300)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.1


def test_conversion_of_a_generic_matrix_is_only_a_start_but_better_than_nothing() -> None:
    dense = nn.Linear(64, 64)
    layer = FastfoodLinear.from_dense(dense, FastfoodConfig())
    error = float((layer.weight - dense.weight.detach()).norm() / dense.weight.detach().norm())
    assert 0.5 < error < 1


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_fit_does_not_depend_on_the_size_of_the_weight(size: float) -> None:
    dense = nn.Linear(16, 16, dtype=torch.float64)
    plain = FastfoodLinear.from_dense(dense, config()).weight
    with torch.no_grad():
        dense.weight.mul_(size)
    again = FastfoodLinear.from_dense(dense, config()).weight
    assert torch.allclose(again, size * plain, rtol=1e-8, atol=1e-10 * size)


def test_the_fit_in_parts_is_the_fit_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = nn.Linear(20, 40, dtype=torch.float64)
    whole = FastfoodLinear.from_dense(dense, config())
    monkeypatch.setattr("fastcnn.methods.structured.matrix_fit.NUMBERS", 3 * 64)
    parts = FastfoodLinear.from_dense(dense, config())
    assert torch.allclose(whole.weight, parts.weight, rtol=1e-9, atol=1e-12)


def test_the_fit_keeps_the_best_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps far too large lead away from the start, which is kept then."""
    monkeypatch.setattr("fastcnn.methods.structured.matrix_fit.RATE", 50.0)
    dense = FastfoodLinear(16, 16, seed=3, dtype=torch.float64).to_dense()
    found = FastfoodLinear.from_dense(dense, config(seed=3)).weight
    want = dense.weight.detach()
    assert torch.allclose(found / found.norm(), want / want.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adaptive", [True, False])
def test_conversion_leaves_its_argument_and_keeps_its_state(adaptive: bool) -> None:
    dense = nn.Linear(9, 20, dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    with torch.no_grad():
        layer = FastfoodLinear.from_dense(dense, config(adaptive=adaptive, seed=2))
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert dense.weight.grad is None
    assert (layer.training, layer.scale.dtype, layer.seed) == (False, torch.float64, 2)
    assert not layer.scale.requires_grad
    assert layer.scale.grad is None
    assert layer.bias is not None
    assert torch.equal(layer.bias, dense.bias)
    assert layer.bias.requires_grad
    dense.bias.requires_grad_(False)
    frozen = FastfoodLinear.from_dense(dense, config(adaptive=adaptive)).bias
    assert frozen is not None
    assert not frozen.requires_grad
    with torch.no_grad():
        layer.bias.zero_()
    assert not torch.equal(dense.bias, layer.bias)
    again = FastfoodLinear.from_dense(dense, config(adaptive=adaptive, seed=2))
    assert torch.equal(layer.weight, again.weight)


def test_what_conversion_declines() -> None:
    with pytest.raises(DeclinedError, match="15 parameters and 28 multiply-adds instead of 12 and 9: neither"):
        # Diagonals 3 * 4 and a bias of 3; a block of 4 takes 3 * 4 + 2 * 8 multiply-adds.
        FastfoodLinear.from_dense(nn.Linear(3, 3), FastfoodConfig())
    with pytest.raises(DeclinedError, match="adaptive=False the diagonals stay random"):
        FastfoodLinear.from_dense(nn.Linear(300, 300), FastfoodConfig(adaptive=False))
    dense = nn.Linear(64, 64)
    nn.init.zeros_(dense.weight)
    with pytest.raises(DeclinedError, match="every weight is zero"):
        FastfoodLinear.from_dense(dense, FastfoodConfig())
    with torch.no_grad():
        dense.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 non-finite"):
        FastfoodLinear.from_dense(dense, FastfoodConfig())
    with pytest.raises(ValueError, match="1 non-finite"):
        FastfoodLinear.from_dense(dense, config(adaptive=False))


@pytest.mark.parametrize(("shape", "bias"), list(itertools.product(SHAPES, (True, False))))
def test_parameters_equal_the_formula(shape: tuple[int, int], bias: bool) -> None:
    in_features, out_features = shape
    n = 1
    while n < in_features:
        n *= 2
    blocks = -(-out_features // n)
    spec = LinearSpec(in_features=in_features, out_features=out_features, bias=bias)
    for adaptive in (True, False):
        layer = FastfoodLinear(in_features, out_features, bias, adaptive=adaptive)
        cost = FastfoodLinear.cost(FastfoodConfig(adaptive=adaptive), spec)
        want = (3 * n * blocks if adaptive else 0) + (out_features if bias else 0)
        assert sum(p.numel() for p in layer.parameters()) == cost.params == want
        held = sum(t.numel() * t.element_size() for t in layer.state_dict().values())
        assert cost.param_bytes == held == 4 * (4 * n * blocks + (out_features if bias else 0))
        assert cost.macs == blocks * (3 * n + 2 * n * (n.bit_length() - 1))


def test_theory_stores_what_was_drawn_as_a_seed() -> None:
    fixed = FastfoodLinear(100, 200, adaptive=False).theory()
    trained = FastfoodLinear(100, 200, dtype=torch.float64).theory()
    assert fixed.bytes == 4 * 200 + 8
    assert trained.bytes == 8 * (3 * 256 + 200) + 8
    assert fixed.params == trained.params == 3 * 256 + 200
    assert fixed.macs == 2 * (3 * 128 + 2 * 128 * 7)
    layer = FastfoodLinear(100, 200)
    with torch.no_grad():
        layer.scale[0, :5] = 0
    assert layer.theory().params == 3 * 256 + 200 - 5


def test_deepcopy_and_state_dict() -> None:
    layer = randomised(9, 20)
    x = torch.randn(3, 9, dtype=torch.float64)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    other = FastfoodLinear(9, 20, seed=11, dtype=torch.float64)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert other.permutation.dtype == torch.int32
    assert torch.equal(layer.float().half().double().permutation, twin.permutation)


def test_export_names_the_op() -> None:
    layer = FastfoodLinear(9, 20).eval()
    x = torch.randn(2, 9)
    program = torch.export.export(layer, (x,))
    assert "fastcnn.fastfood_linear.default" in {str(node.target) for node in program.graph.nodes}
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    layer = FastfoodLinear(64, 128).to(dtype)
    x = torch.randn(8, 64).to(dtype)
    exact = copy.deepcopy(layer).float()
    assert layer(x).dtype == dtype
    assert torch.equal(layer(x), exact(x.float()).to(dtype))
    layer(x).float().square().sum().backward()
    assert layer.scale.grad is not None
    assert layer.scale.grad.dtype == dtype
    from_half = FastfoodLinear.from_dense(nn.Linear(64, 64).to(dtype), config())
    assert from_half.scale.dtype == dtype


def test_autocast_runs() -> None:
    net = nn.Sequential(nn.Linear(16, 32), FastfoodLinear(32, 24))
    x = torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), net(x), atol=0.1)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_empty_batch_has_a_backward() -> None:
    layer = FastfoodLinear(9, 20)
    layer(torch.zeros(0, 9)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"adaptive": 1}, TypeError, "adaptive must be True or False, got int 1"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got float"),
        ({"steps": -1}, ValueError, "steps=-1"),
        ({"steps": True}, TypeError, "steps must be an integer, got bool"),
        ({"force": "yes"}, TypeError, "force must be True or False, got str 'yes'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FastfoodConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features=0"),
        ({"out_features": -3}, ValueError, "out_features=-3"),
        ({"in_features": 2.0}, TypeError, "in_features must be an integer, got float"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"adaptive": None}, TypeError, "adaptive must be True or False, got NoneType"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FastfoodLinear(**{"in_features": 4, "out_features": 4, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 8), ValueError, r"FastfoodLinear must have 5 channels on axis -1, got shape \(2, 8\)"),
        (torch.tensor(0.0), ValueError, r"shape \(\)"),
        (torch.zeros(2, 5, dtype=torch.int64), TypeError, r"floating point, got torch\.int64"),
        (torch.zeros(2, 5, dtype=torch.complex64), TypeError, r"torch\.complex64"),
        (torch.zeros(2, 5, dtype=torch.float64), TypeError, "float64 but its weights are torch.float32"),
        (np.zeros((2, 5)), TypeError, "got ndarray"),
    ],
)
def test_bad_inputs_are_named(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FastfoodLinear(5, 3)(x)
