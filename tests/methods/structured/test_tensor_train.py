"""Tensor trains: the error bound of TT-SVD, both sweeps against loops, layers against the matrices they stand for."""

from __future__ import annotations

import copy
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.methods.contract import ConvSpec, DeclinedError, LinearSpec, relative_error
from fastcnn.methods.structured import tt_ops
from fastcnn.methods.structured.tensor_train import TTConfig, TTConv2d, TTLinear
from fastcnn.methods.structured.tt_decomposition import (
    factor_count,
    factorise,
    full_ranks,
    goes_rightward,
    level,
    matrix_factors,
    sweep_macs,
    tt_matrix,
    tt_svd,
)

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def tensor_by_loops(cores: list[Tensor]) -> Array:
    """Every entry of a train as the product of its matrices."""
    values = [core.detach().double().numpy() for core in cores]
    sizes = [value.shape[1] for value in values]
    out = np.empty(sizes)
    for index in np.ndindex(*sizes):
        product = np.ones((1, 1))
        for value, i in zip(values, index, strict=True):
            product = product @ value[:, i, :]
        out[index] = product[0, 0]
    return out


def matrix_by_loops(cores: Any) -> Array:
    """Every entry of a TT-matrix as the product of its matrices; indices of the first core are the outermost."""
    values = [core.detach().double().numpy() for core in cores]
    outs, ins = [value.shape[1] for value in values], [value.shape[2] for value in values]
    out = np.empty((math.prod(outs), math.prod(ins)))
    for row, i in enumerate(np.ndindex(*outs)):
        for column, j in enumerate(np.ndindex(*ins)):
            product = np.ones((1, 1))
            for value, a, b in zip(values, i, j, strict=True):
                product = product @ value[:, a, b, :]
            out[row, column] = product[0, 0]
    return out


def tails(tensor: Array, ranks: list[int]) -> list[float]:
    """Norm of what the best cut of each unfolding at those ranks must lose."""
    found = []
    for k, rank in enumerate(ranks, 1):
        singular = np.linalg.svd(tensor.reshape(math.prod(tensor.shape[:k]), -1), compute_uv=False)
        found.append(float(np.sqrt((singular[rank:] ** 2).sum())))
    return found


# Decomposition.


@pytest.mark.parametrize("epsilon", [0.9, 0.5, 0.2, 0.05, 1e-6])
def test_the_error_of_a_random_tensor_is_within_epsilon(epsilon: float) -> None:
    tensor = torch.randn(4, 5, 3, 6, dtype=torch.float64)
    norm = float(tensor.norm())
    cores = tt_svd(tensor, delta=epsilon * norm / 3**0.5)
    ranks = [core.shape[2] for core in cores[:-1]]
    error = float(np.linalg.norm(tensor_by_loops(cores) - tensor.numpy()))
    assert error <= epsilon * norm
    lost = tails(tensor.numpy(), ranks)
    # Not below what any train of those ranks must lose, and within sqrt(d - 1) of it.
    assert max(lost) <= error * (1 + 1e-9) + 1e-12
    assert error <= math.hypot(*lost) * (1 + 1e-9) + 1e-12
    assert error > epsilon * norm / 20 or epsilon < 0.05, "an epsilon that is far from used up cuts nothing"


def test_planted_ranks_are_found_and_rebuilt() -> None:
    planted = [torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 2), (2, 5, 3), (3, 4, 2), (2, 6, 1))]
    tensor = torch.from_numpy(tensor_by_loops(planted))
    cores = tt_svd(tensor, delta=1e-9 * float(tensor.norm()))
    assert [core.shape[2] for core in cores] == [2, 3, 2, 1]
    assert np.allclose(tensor_by_loops(cores), tensor.numpy(), atol=1e-9 * float(tensor.norm()))
    # A larger epsilon still holds on it.
    rough = tt_svd(tensor, delta=0.5 * float(tensor.norm()) / 3**0.5)
    assert float(np.linalg.norm(tensor_by_loops(rough) - tensor.numpy())) <= 0.5 * float(tensor.norm())


def test_more_rank_never_means_more_error() -> None:
    tensor = torch.randn(4, 4, 4, 4, dtype=torch.float64)
    errors = [
        float(np.linalg.norm(tensor_by_loops(tt_svd(tensor, rank=rank)) - tensor.numpy())) for rank in (1, 2, 4, 8, 16)
    ]
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-12 * float(tensor.norm())


def test_rank_one_is_a_kronecker_product() -> None:
    parts = [np.random.default_rng(k).normal(size=shape) for k, shape in enumerate([(3, 2), (2, 4), (2, 3)])]
    product = np.kron(np.kron(parts[0], parts[1]), parts[2])
    cores = tt_matrix(torch.from_numpy(product), (3, 2, 2), (2, 4, 3), delta=1e-10)
    assert [core.shape for core in cores] == [(1, 3, 2, 1), (1, 2, 4, 1), (1, 2, 3, 1)]
    found = [core[0, :, :, 0].numpy() for core in cores]
    assert np.allclose(np.kron(np.kron(found[0], found[1]), found[2]), product, atol=1e-12)
    layer = TTLinear(product.shape[1], product.shape[0], rank=1, factors=3, dtype=torch.float64)
    given = [core.detach().numpy()[0, :, :, 0] for core in layer.cores]
    want = np.kron(np.kron(given[0], given[1]), given[2])[:12, :24]
    assert np.allclose(layer.weight.numpy(), want, atol=1e-14)


@pytest.mark.parametrize("shape", [(13, 22), (16, 16), (17, 31), (1, 7), (5, 1), (1, 1), (64, 30)], ids=str)
@pytest.mark.parametrize("factors", [None, 2, 3, 4])
def test_full_rank_is_exact_at_odd_and_prime_sizes(shape: tuple[int, int], factors: int | None) -> None:
    dense = nn.Linear(*shape, dtype=torch.float64)
    layer = TTLinear.from_dense(dense, TTConfig(rank=10**6, factors=factors, force=True))
    assert torch.allclose(layer.to_dense().weight, dense.weight, rtol=0, atol=1e-13)
    assert torch.equal(layer.to_dense().bias, dense.bias)


def test_levelled_cores_are_the_same_train() -> None:
    cores = tt_svd(torch.randn(3, 4, 5, dtype=torch.float64))
    even = level(cores)
    assert np.allclose(tensor_by_loops(even), tensor_by_loops(cores), atol=1e-13)
    sizes = [float(core.square().mean().sqrt()) for core in even]
    assert max(sizes) == pytest.approx(min(sizes))
    zero = [torch.zeros(1, 2, 1), torch.ones(1, 2, 1)]
    assert all(torch.equal(a, b) for a, b in zip(level(zero), zero, strict=True))


# Shapes.


@pytest.mark.parametrize("count", [1, 2, 3])
def test_factors_are_the_cheapest_there_are(count: int) -> None:
    for n in range(1, 41):
        found = factorise(n, count)
        assert list(found) == sorted(found)
        best = min(
            math.prod(factors) * sum(factors)
            for factors in itertools.combinations_with_replacement(range(1, n + 1), count)
            if math.prod(factors) >= n
        )
        assert math.prod(found) * sum(found) == best
        assert math.prod(found) >= n


def test_known_factors() -> None:
    assert factorise(1024, 5) == (4, 4, 4, 4, 4)
    assert factorise(784, 4) == (4, 4, 7, 7)
    assert factorise(17, 2) == (3, 6)
    assert factorise(97, 3) == (4, 5, 5)
    assert factorise(1, 3) == (1, 1, 1)
    assert math.prod(factorise(1_000_003, 5)) < 1.01 * 1_000_003
    assert matrix_factors(100, 784, 4) == (factorise(100, 4)[::-1], (4, 4, 7, 7))
    assert [factor_count(n, n) for n in (1, 64, 65, 512, 513, 4096, 4097, 10**6)] == [2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("arguments", [(0, 2), (3, 0), (3, 17), (2.5, 2), (True, 2)])
def test_bad_sizes_are_named(arguments: tuple[int, int]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(n|count)(=| must be an integer)"):
        factorise(*arguments)


def test_sweeps_cost_what_the_loops_do() -> None:
    shapes = [(1, 2, 3, 4), (4, 5, 2, 3), (3, 2, 7, 1)]
    # Counted by hand: rows already made * columns ahead * numbers in the core.
    assert sweep_macs(shapes, rightward=True) == 24 * (2 * 7) + 120 * 2 * 7 + 42 * (2 * 5)
    assert sweep_macs(shapes, rightward=False) == 42 * (3 * 2) + 120 * 3 * 2 + 24 * (5 * 2)
    assert not goes_rightward(shapes)
    assert goes_rightward([(1, 2, 9, 2), (2, 9, 2, 1)])
    # Oseledets' formula, for the sweep from the last core.
    total = 0
    for k, (before, m, n, after) in enumerate(shapes):
        total += math.prod(s[2] for s in shapes[:k]) * math.prod(s[1] for s in shapes[k + 1 :]) * n * after * m * before
    assert sweep_macs(shapes, rightward=False) == total


# The op.


def random_cores(shapes: list[tuple[int, int, int, int]]) -> list[Tensor]:
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


BOTH = [
    [(1, 2, 9, 2), (2, 9, 2, 1)],
    [(1, 2, 3, 4), (4, 5, 2, 3), (3, 2, 7, 1)],
    [(1, 3, 3, 2), (2, 1, 4, 3), (3, 2, 1, 2), (2, 2, 2, 1)],
    [(1, 4, 5, 1)],
]


@pytest.fixture(params=[True, False], ids=["rightward", "leftward"])
def rightward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    way: bool = request.param
    monkeypatch.setattr(tt_ops, "goes_rightward", lambda shapes: way)
    return way


@pytest.mark.parametrize("shapes", BOTH, ids=str)
@pytest.mark.parametrize("cut", [0, 1])
def test_both_orders_are_the_dense_product(shapes: list[tuple[int, int, int, int]], cut: int, rightward: bool) -> None:
    cores = random_cores(shapes)
    matrix = matrix_by_loops(cores)[: matrix_by_loops(cores).shape[0] - cut, : matrix_by_loops(cores).shape[1] - cut]
    x, bias = torch.randn(2, 3, matrix.shape[1], dtype=torch.float64), torch.randn(matrix.shape[0], dtype=torch.float64)
    for own in (bias, None):
        got = torch.ops.fastcnn.tt_linear(x, cores, own, matrix.shape[1], matrix.shape[0]).detach().numpy()
        want = x.numpy() @ matrix.T + (0 if own is None else own.numpy())
        assert np.allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("shapes", BOTH[:3], ids=str)
def test_gradients_and_their_gradients(shapes: list[tuple[int, int, int, int]], rightward: bool) -> None:
    cores = random_cores(shapes)
    inputs, outputs = math.prod(s[2] for s in shapes) - 1, math.prod(s[1] for s in shapes) - 1
    x = torch.randn(2, inputs, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, bias: Tensor, *cores: Tensor) -> Tensor:
        out: Tensor = torch.ops.fastcnn.tt_linear(x, list(cores), bias, inputs, outputs)
        return out

    assert torch.autograd.gradcheck(call, (x, bias, *cores), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, bias, *cores), fast_mode=True)


def test_gradients_that_nobody_wants_are_not_made() -> None:
    cores = [core.detach() for core in random_cores(BOTH[1])]
    cores[1].requires_grad_()
    x = torch.randn(2, 42, dtype=torch.float64)
    torch.ops.fastcnn.tt_linear(x, cores, None, 42, 20).square().sum().backward()
    matrix = torch.from_numpy(matrix_by_loops(cores))
    toward = 2 * (x @ matrix.T)
    # Entry (a, i, j, b) of the middle core meets the inner core's neighbours on both sides.
    grad = np.zeros(cores[1].shape)
    left, right = cores[0].numpy(), cores[2].numpy()
    for i, j in np.ndindex(20, 42):
        i0, i1, i2 = np.unravel_index(i, (2, 5, 2))
        j0, j1, j2 = np.unravel_index(j, (3, 2, 7))
        weight = float((toward[:, i] * x[:, j]).sum())
        grad[:, i1, j1, :] += weight * np.outer(left[0, i0, j0, :], right[:, i2, j2, 0])
    assert cores[1].grad is not None
    assert np.allclose(cores[1].grad.numpy(), grad, atol=1e-10)
    assert cores[0].grad is None
    assert x.grad is None


@pytest.mark.parametrize("shapes", BOTH[:2], ids=str)
def test_the_op_is_well_formed(shapes: list[tuple[int, int, int, int]]) -> None:
    cores = random_cores(shapes)
    inputs, outputs = math.prod(s[2] for s in shapes), math.prod(s[1] for s in shapes) - 1
    x = torch.randn(3, inputs, dtype=torch.float64, requires_grad=True)
    for bias in (None, torch.randn(outputs, dtype=torch.float64)):
        torch.library.opcheck(
            torch.ops.fastcnn.tt_linear.default,
            (x, cores, bias, inputs, outputs),
            test_utils=["test_schema", "test_autograd_registration", "test_faketensor"],
        )


# Layers.


@pytest.mark.parametrize("epsilon", [0.7, 0.3, 0.05])
def test_the_epsilon_of_a_config_bounds_the_error_of_both_layers(epsilon: float) -> None:
    for dense in (nn.Linear(50, 34, dtype=torch.float64), nn.Conv2d(12, 10, 3, dtype=torch.float64)):
        cls: Any = TTLinear if isinstance(dense, nn.Linear) else TTConv2d
        layer = cls.from_dense(dense, TTConfig(rank=None, epsilon=epsilon, force=True))
        error = relative_error(dense.weight, layer.to_dense().weight)
        assert error <= epsilon
        assert epsilon < 0.3 or error > epsilon / 5, "an epsilon that is far from used up cuts nothing"


def test_epsilon_zero_is_exact() -> None:
    dense = nn.Conv2d(5, 7, (2, 3), dtype=torch.float64)
    layer = TTConv2d.from_dense(dense, TTConfig(rank=None, epsilon=0.0, force=True))
    assert torch.allclose(layer.to_dense().weight, dense.weight, rtol=0, atol=1e-14)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 2)},
        {"kernel_size": 3, "stride": (2, 1), "padding": (1, 3), "bias": False},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "stride": 2},
        {"kernel_size": 1, "stride": (2, 3), "padding": (0, 2)},
        {"kernel_size": 1, "padding": 1, "padding_mode": "replicate"},
        {"kernel_size": (1, 3), "dilation": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_conv_is_the_dense_conv_with_the_rebuilt_weight(arguments: dict[str, Any], rank: int) -> None:
    layer = TTConv2d(5, 7, **arguments, rank=rank, dtype=torch.float64)
    channels, filters = 5, 1 if layer.spatial is None else layer.spatial.shape[0]
    matrix = matrix_by_loops(layer.cores)
    weight = np.zeros((7, 5, *layer.kernel_size))
    for f, c, a in np.ndindex(7, channels, filters):
        taps = np.ones((1, 1)) if layer.spatial is None else layer.spatial.detach().numpy()[a, 0]
        weight[f, c] += matrix[f, c * filters + a] * taps
    dense = nn.Conv2d(5, 7, **arguments, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None and dense.bias is not None:
            layer.bias.normal_()
            dense.bias.copy_(layer.bias)
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    assert torch.allclose(layer(x), dense(x), atol=1e-12)
    assert torch.allclose(layer(x[0]), dense(x[0]), atol=1e-12)
    assert torch.allclose(layer.to_dense().weight, dense.weight, atol=1e-13)
    assert (layer.spatial is None) == (layer.kernel_size == (1, 1))


def test_full_rank_conv_is_exact_and_channels_last_stays() -> None:
    dense = nn.Conv2d(6, 11, (3, 2), padding=1, dtype=torch.float64)
    layer = TTConv2d.from_dense(dense, TTConfig(rank=500, force=True))
    assert layer.spatial is not None
    assert layer.spatial.shape == (6, 1, 3, 2)
    x = torch.randn(2, 6, 8, 7, dtype=torch.float64)
    out = layer(x)
    assert torch.allclose(out, dense(x), atol=1e-12)
    assert out.is_contiguous()
    assert layer(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_a_shift_of_the_picture_shifts_the_output() -> None:
    layer = TTConv2d(3, 4, 3, rank=2, dtype=torch.float64)
    x = torch.randn(1, 3, 10, 12, dtype=torch.float64)
    assert torch.allclose(layer(x)[..., 2:, 3:], layer(x[..., 2:, 3:]), atol=1e-12)
    y = torch.randn_like(x)
    linear = TTConv2d(3, 4, 3, rank=2, bias=False, dtype=torch.float64)
    assert torch.allclose(linear(2 * x - y), 2 * linear(x) - linear(y), atol=1e-12)


def test_parameters_are_counted_as_the_formula_says() -> None:
    linear = TTLinear(784, 100, rank=5, factors=4)
    ins, outs = (4, 4, 7, 7), factorise(100, 4)[::-1]
    ranks = (1, *(min(5, full) for full in full_ranks([m * n for m, n in zip(outs, ins, strict=True)])), 1)
    want = sum(ranks[k] * outs[k] * ins[k] * ranks[k + 1] for k in range(4)) + 100
    assert sum(p.numel() for p in linear.parameters()) == want
    cost = TTLinear.cost(TTConfig(rank=5, factors=4), LinearSpec(in_features=784, out_features=100))
    assert (cost.params, cost.param_bytes) == (want, 4 * want)
    assert cost.macs == linear.theory().macs
    assert linear.theory().params == want - 100, "the bias starts at zero"
    assert linear.theory().bytes == 4 * want
    conv = TTConv2d(64, 48, 5, rank=6)
    spec = ConvSpec(in_channels=64, out_channels=48, kernel_size=(5, 5), output_size=(7, 9))
    params = sum(p.numel() for p in conv.parameters())
    assert conv.spatial is not None
    assert conv.spatial.shape == (6, 1, 5, 5)
    cost = TTConv2d.cost(TTConfig(rank=6), spec)
    assert (cost.params, cost.macs) == (params, conv.theory().macs * 63)
    shapes = [tuple(core.shape) for core in conv.cores]
    assert conv.theory().macs == 64 * 6 * 25 + min(sweep_macs(shapes, rightward=way) for way in (True, False))
    assert cost.workspace_bytes > 0


def test_multiply_adds_above_the_dense_layers_are_reported() -> None:
    layer = TTLinear(256, 256, rank=40, factors=4)
    assert layer.theory().params < 65536 < layer.theory().macs


def test_names_of_parameters() -> None:
    assert list(TTLinear(16, 16, rank=2).state_dict()) == ["bias", "cores.0", "cores.1"]
    assert set(TTConv2d(4, 4, 3, bias=False).state_dict()) == {"spatial", "cores.0", "cores.1"}
    assert "factors=4*4 x 4*4, ranks=(2,)" in repr(TTLinear(16, 16, rank=2))


def test_ranks_may_be_given_one_by_one() -> None:
    assert TTLinear(64, 64, rank=(3, 5), factors=3).shape.ranks == (3, 5)
    assert TTConv2d(8, 8, 3, rank=(4, 7)).shape.ranks == (4, 7)
    assert TTConv2d(8, 8, 1, rank=(7,)).shape.ranks == (7,)
    with pytest.raises(ValueError, match=r"rank=\(3,\) holds 1 ranks: this layer has 2"):
        TTLinear(64, 64, rank=(3,), factors=3)
    with pytest.raises(ValueError, match=r"rank=\(17, 5\) is out of range: ranks between these cores are at most \(16"):
        TTLinear(64, 64, rank=(17, 5), factors=3)
    with pytest.raises(ValueError, match=r"rank=\(10, 5\) is out of range: 9 taps have at most 9"):
        TTConv2d(8, 8, 3, rank=(10, 5))


def test_the_start_of_training_has_the_variance_that_was_asked_for() -> None:
    layers: list[Any] = [TTLinear(256, 200, rank=6), TTConv2d(24, 30, 3, rank=4)]
    for layer, fan_in in zip(layers, (256, 24 * 9), strict=True):
        squares = []
        for _ in range(60):
            layer.reset_parameters()
            squares.append(float(layer.weight.square().mean()))
        # A product of few random numbers has heavy tails: the mean of 60 draws is what can be compared.
        assert np.mean(squares) == pytest.approx(2 / fan_in, rel=0.35)
        assert layer.bias is not None
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_training_from_scratch_lowers_the_loss(kind: str) -> None:
    layer: Any = TTLinear(30, 20, rank=4) if kind == "linear" else TTConv2d(4, 6, 3, rank=4)
    x = torch.randn(64, 30) if kind == "linear" else torch.randn(16, 4, 6, 6)
    target: nn.Module = TTLinear(30, 20, rank=2) if kind == "linear" else TTConv2d(4, 6, 3, rank=2)
    with torch.no_grad():
        wanted = target(x)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.mse_loss(layer(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_conversion_leaves_its_argument_and_keeps_state() -> None:
    dense = nn.Conv2d(16, 24, 3, dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    layer = TTConv2d.from_dense(dense, TTConfig(rank=3))
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert not layer.training
    assert [p.requires_grad for name, p in layer.named_parameters() if name != "bias"] == [False] * 3
    assert layer.bias is not None
    assert (layer.bias.requires_grad, layer.bias.dtype) == (True, torch.float64)
    with torch.no_grad():
        layer.bias.zero_()
    assert dense.bias is not None
    assert dense.bias.any()
    sizes = [float(p.detach().square().mean().sqrt()) for name, p in layer.named_parameters() if name != "bias"]
    assert max(sizes) == pytest.approx(min(sizes)), "the norm is spread over all cores"


def test_state_dict_and_deepcopy() -> None:
    for layer, x in ((TTLinear(20, 30, rank=3), torch.randn(4, 20)), (TTConv2d(4, 5, 3), torch.randn(2, 4, 6, 6))):
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        twin = copy.deepcopy(layer)
        other: nn.Module = TTLinear(20, 30, rank=3) if isinstance(layer, TTLinear) else TTConv2d(4, 5, 3)
        other.load_state_dict(torch.load(file, weights_only=True))
        want = layer(x).detach().clone()
        assert torch.equal(other(x), want)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1.0)
        assert torch.equal(layer(x), want)


def test_declined_layers_say_why() -> None:
    with pytest.raises(DeclinedError, match="its 2 groups have filters of their own"):
        TTConv2d.from_dense(nn.Conv2d(8, 8, 3, groups=2), TTConfig(force=True))
    with pytest.raises(DeclinedError, match=r"cores of ranks 8 would hold \d+ numbers, no fewer than its 64 weights"):
        TTLinear.from_dense(nn.Linear(8, 8), TTConfig())
    with pytest.raises(DeclinedError, match="no fewer than its 4096 weights"):
        TTLinear.from_dense(nn.Linear(64, 64), TTConfig(rank=None, epsilon=1e-3))
    with pytest.raises(DeclinedError, match="would hold 16 numbers, no fewer than its 16 weights"):
        TTLinear.from_dense(nn.Linear(4, 4), TTConfig(rank=2))
    zero = nn.Linear(64, 64)
    nn.init.zeros_(zero.weight)
    with pytest.raises(DeclinedError, match="every weight is zero"):
        TTLinear.from_dense(zero, TTConfig())
    assert TTLinear.from_dense(nn.Linear(8, 8), TTConfig(force=True)).in_features == 8
    with pytest.raises(ValueError, match="groups=2 is not supported by TTConv2d"):
        TTConv2d(4, 4, 3, groups=2)
    with pytest.raises(ValueError, match="groups=2: a TT-convolution has one group"):
        TTConv2d.cost(TTConfig(), ConvSpec(in_channels=4, out_channels=4, kernel_size=(3, 3), groups=2))
    with pytest.raises(ValueError, match="the ranks depend on the weights"):
        TTLinear.cost(TTConfig(rank=None, epsilon=0.1), LinearSpec(in_features=4, out_features=4))


def test_a_model_is_converted_and_the_rest_reported() -> None:
    convs = (nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4))
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(512, 99))
    small = fc.convert(model, TTConfig(rank=4))
    lines = {line.layer: line for line in fc.report(small)}
    assert [lines[name].status for name in ("0", "2", "4")] == ["done", "declined", "done"]
    assert lines["4"].params_after < lines["4"].params_before / 10
    assert 0 < lines["4"].weight_error < 1
    assert small(torch.randn(1, 3, 8, 8)).shape == (1, 99)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(bad: float) -> None:
    dense = nn.Linear(30, 20)
    with torch.no_grad():
        dense.weight[1, 1] = bad
    with pytest.raises(ValueError, match="1 non-finite"):
        TTLinear.from_dense(dense, TTConfig())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rank": 0}, ValueError, "rank=0"),
        ({"rank": 2.5}, TypeError, "rank must be an integer, got float"),
        ({"rank": None}, ValueError, "exactly one of rank and epsilon, got rank=None, epsilon=None"),
        ({"epsilon": 0.1}, ValueError, "got rank=8, epsilon=0.1: set rank=None"),
        ({"rank": None, "epsilon": 1.0}, ValueError, "epsilon=1.0 is out of range"),
        ({"rank": None, "epsilon": -0.1}, ValueError, "epsilon=-0.1"),
        ({"factors": 1}, ValueError, "factors=1 is out of range: it must be between 2 and 16"),
        ({"factors": "4"}, TypeError, "factors must be an integer, got str"),
        ({"force": 1}, TypeError, "force must be True or False, got 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TTConfig(**settings)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 3, 8), ValueError, "must have 4 channels on axis -3"),
        (torch.zeros(8), ValueError, r"3 or 4 dimensions, got shape \(8,\)"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.int64), TypeError, r"must be floating point, got torch\.int64"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.float64), TypeError, "float64 but its weights are torch.float32"),
        (np.zeros((1, 4, 8, 8)), TypeError, "must be a torch.Tensor, got ndarray"),
    ],
)
def test_bad_inputs_are_named(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TTConv2d(4, 5, 3)(x)
    with pytest.raises(ValueError, match=r"5 channels on axis -1, got shape \(2, 4\)"):
        TTLinear(5, 2)(torch.zeros(2, 4))
    with pytest.raises(TypeError, match="rank must be an integer, got float"):
        TTLinear(5, 2, rank=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in_features=0"):
        TTLinear(0, 2)


def test_empty_batch_gives_an_empty_output_with_a_working_backward() -> None:
    conv, linear = TTConv2d(3, 4, 3), TTLinear(7, 5)
    for layer, x, shape in ((conv, torch.zeros(0, 3, 8, 8), (0, 4, 6, 6)), (linear, torch.zeros(2, 0, 7), (2, 0, 5))):
        out = layer(x.requires_grad_())
        assert out.shape == shape
        out.sum().backward()
        assert x.grad is not None
        assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def test_halves_are_summed_in_float32() -> None:
    layer = TTLinear(300, 200, rank=8).bfloat16()
    x = torch.randn(5, 300).bfloat16()
    want = x.double() @ layer.weight.T
    got = layer(x)
    assert got.dtype == torch.bfloat16
    # One rounding to bfloat16, of half a unit in the eighth place.
    beyond = (got.double() - want).abs() - 2**-8 * want.abs()
    assert float(beyond.detach().max()) < 1e-4 * float(want.abs().max())
    got.sum().backward()
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {torch.bfloat16}


def test_autocast_runs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), TTConv2d(4, 5, 3, rank=3), nn.Flatten(), TTLinear(125, 6, rank=4))
    x = torch.randn(1, 3, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        loss = out.square().sum()
    assert out.dtype == torch.bfloat16
    full = net(x).detach()
    assert torch.allclose(out.float(), full, atol=0.05 * float(full.abs().max()))
    loss.backward()
    rough = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(x).square().sum().backward()
    for low, exact in zip(rough, [p.grad for p in net.parameters()], strict=True):
        assert exact is not None
        assert torch.allclose(low, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_export_names_the_kernel() -> None:
    layer = nn.Sequential(TTConv2d(4, 5, 3, rank=3), nn.Flatten(), TTLinear(80, 6, rank=4)).eval()
    x = torch.randn(2, 4, 6, 6)
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), layer(x))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("fastcnn.tt_linear.default") == 2
