"""ACDC against explicit matrices of scipy's cosines: the map, its gradients by hand, its start, cascades."""

from __future__ import annotations

import copy
import doctest
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft
import scipy.stats
import torch
from torch import Tensor, nn

from fastcnn.methods.contract import DeclinedError, LinearSpec
from fastcnn.methods.structured import acdc as module
from fastcnn.methods.structured.acdc import ACDCConfig, ACDCLinear, parameter_groups

Array = npt.NDArray[np.float64]
SHAPES = [(1, 1), (3, 17), (8, 8), (7, 9), (16, 3), (17, 40), (5, 8)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(10)


def cosines(n: int) -> Array:
    """C with dct(x) = x C, orthonormal."""
    matrix: Array = scipy.fft.dct(np.eye(n), norm="ortho", axis=1)
    return matrix


def explicit(layer: ACDCLinear, x: Array) -> Array:
    """The whole cascade, by full matrices and a loop over the numbers of each permutation."""
    a, d = layer.a.detach().double().numpy(), layer.d.detach().double().numpy()
    beta = np.zeros_like(a) if layer.beta is None else layer.beta.detach().double().numpy()
    n = a.shape[1]
    c = cosines(n)
    h = np.zeros((len(x), n))
    h[:, : layer.in_features] = x
    for k in range(len(a)):
        if k:
            if layer.activation == "relu":
                h = np.maximum(h, 0)
            moved = np.zeros_like(h)
            for j, place in enumerate(layer.permutations[k - 1].tolist()):
                moved[:, j] = h[:, place]
            h = moved
        h = (h @ np.diag(a[k]) @ c @ np.diag(d[k]) + beta[k]) @ c.T
    return h[:, : layer.out_features]


def randomised(in_features: int, out_features: int, **settings: Any) -> ACDCLinear:
    """A layer in float64 whose every number is generic."""
    layer = ACDCLinear(in_features, out_features, dtype=torch.float64, **settings)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "activation"), [(1, "relu"), (1, "none"), (2, "none"), (3, "relu")])
def test_the_map_is_the_product_of_its_factors(
    shape: tuple[int, int], bias: bool, layers: int, activation: Any
) -> None:
    layer = randomised(*shape, bias=bias, layers=layers, activation=activation, seed=5)
    x = torch.randn(4, shape[0], dtype=torch.float64)
    want = explicit(layer, x.numpy())
    # Some of these cascades give zero throughout: compare with what they hold.
    limit = 1e-13 * (np.abs(want).max() + 1)
    assert np.abs(layer(x).detach().numpy() - want).max() <= limit
    if activation == "relu" and layers > 1:
        with pytest.raises(TypeError, match=f"between its {layers} layers stands for no linear layer"):
            layer.to_dense()
        return
    dense = layer.to_dense()
    assert (dense.bias is not None) == bias
    assert np.abs(dense(x).detach().numpy() - want).max() <= 10 * limit


@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (0,), (2, 0)])
def test_any_leading_axes(lead: tuple[int, ...]) -> None:
    layer = randomised(6, 11, layers=2)
    x = torch.randn(*lead, 6, dtype=torch.float64)
    got = layer(x).detach().numpy()
    assert got.shape == (*lead, 11)
    assert np.allclose(got.reshape(-1, 11), explicit(layer, x.reshape(-1, 6).numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 16, 600])
def test_ones_are_the_identity(n: int) -> None:
    layer = ACDCLinear(n, n, std=0.0, dtype=torch.float64)
    x = torch.randn(3, n, dtype=torch.float64)
    assert torch.allclose(layer(x), x, rtol=0, atol=1e-13)
    cascade = ACDCLinear(n, n, std=0.0, layers=3, activation="none", dtype=torch.float64)
    want = x[:, cascade.permutations[0].long()][:, cascade.permutations[1].long()]
    assert torch.allclose(cascade(x), want, rtol=0, atol=1e-13)


def test_the_long_transform_is_the_same_map() -> None:
    """N beyond 512 goes through the FFT."""
    layer = randomised(600, 530, layers=2)
    x = torch.randn(2, 600, dtype=torch.float64)
    want = explicit(layer, x.numpy())
    assert np.abs(layer(x).detach().numpy() - want).max() <= 1e-12 * np.abs(want).max()


def test_gradients_by_hand() -> None:
    """The formulas of one layer with explicit matrices, against autograd."""
    layer = randomised(6, 9, seed=8)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(5, 9, dtype=torch.float64)
    layer(x).backward(outer)
    c, a, d = cosines(9), layer.a.detach().numpy()[0], layer.d.detach().numpy()[0]
    rows = np.zeros((5, 9))
    rows[:, :6] = x.detach().numpy()
    z = outer.numpy() @ c
    q = (z * d) @ c.T
    assert layer.beta is not None
    for parameter, want in (
        (layer.d, (z * ((rows * a) @ c)).sum(0)),
        (layer.beta, z.sum(0)),
        (layer.a, (q * rows).sum(0)),
    ):
        assert parameter.grad is not None
        assert np.allclose(parameter.grad[0].numpy(), want, rtol=0, atol=1e-12)
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), (q * a)[:, :6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "relu"), [(1, True), (2, False), (3, True)])
def test_gradients_of_first_and_second_order(layers: int, relu: bool, bias: bool) -> None:
    layer = randomised(3, 4, bias=bias, layers=layers, seed=8)
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, a: Tensor, d: Tensor, beta: Tensor | None = None) -> Tensor:
        out: Tensor = torch.ops.fastcnn.acdc_linear(x, a, d, beta, layer.permutations, relu, 4)
        return out

    assert torch.autograd.gradcheck(call, (x, *values))
    assert torch.autograd.gradgradcheck(call, (x, *values))


def test_gradients_of_a_cascade_are_autograds_of_its_definition() -> None:
    layer = randomised(7, 5, layers=3, seed=4)
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(6, 5, dtype=torch.float64)
    layer(x).backward(outer)
    a, d, beta = (p.detach().clone().requires_grad_() for p in layer.parameters())
    y = x.detach().clone().requires_grad_()
    c = torch.from_numpy(cosines(7))
    h = y
    for k in range(3):
        h = h if k == 0 else h.clamp(min=0)[:, layer.permutations[k - 1].tolist()]
        h = ((h * a[k]) @ c * d[k] + beta[k]) @ c.t()
    h[:, :5].backward(outer)
    for got, want in zip((x, *layer.parameters()), (y, a, d, beta), strict=True):
        assert got.grad is not None
        assert torch.allclose(got.grad, want.grad, rtol=0, atol=1e-12)  # type: ignore[arg-type]
        assert float(got.grad.abs().max()) > 0


@pytest.mark.parametrize("bias", [True, False])
def test_the_op_is_well_formed(bias: bool) -> None:
    layer = ACDCLinear(5, 9, bias, layers=2)
    torch.library.opcheck(
        torch.ops.fastcnn.acdc_linear,
        (torch.randn(2, 3, 5, requires_grad=True), layer.a, layer.d, layer.beta, layer.permutations, True, 9),
        test_utils=["test_schema", "test_autograd_registration", "test_faketensor"],
    )


def test_diagonals_start_around_one_and_permutations_are_drawn_once() -> None:
    layer = ACDCLinear(2000, 100, layers=3, std=0.2, seed=1, dtype=torch.float64)
    assert layer.beta is not None
    assert float(layer.beta.detach().abs().max()) == 0
    for diagonal in (layer.a, layer.d):
        values = diagonal.detach().flatten().numpy()
        assert scipy.stats.kstest((values - 1) / 0.2, "norm").pvalue > 0.01
    assert not torch.equal(layer.a, layer.d)
    assert layer.permutations.shape == (2, 2000)
    assert layer.permutations.dtype == torch.int32
    for row in layer.permutations:
        assert sorted(row.tolist()) == list(range(2000))
    assert not torch.equal(layer.permutations[0], layer.permutations[1])


def test_the_seed_decides_alone_and_the_global_generator_is_left_alone() -> None:
    dense = nn.Linear(20, 30)
    before = torch.get_rng_state()
    one = ACDCLinear(20, 30, layers=3, seed=4)
    ACDCLinear.from_dense(dense, config())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    other = ACDCLinear(20, 30, layers=3, seed=4)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    different = ACDCLinear(20, 30, layers=3, seed=5)
    assert not torch.equal(one.permutations, different.permutations)
    assert not torch.equal(one.a, different.a)
    with torch.no_grad():
        other.a.zero_()
        other.permutations.zero_()
    other.reset_parameters()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def config(**settings: Any) -> ACDCConfig:
    return ACDCConfig(steps=3, force=True, **settings)


def relative(layer: ACDCLinear, dense: nn.Linear) -> float:
    weight = dense.weight.detach()
    return float((layer.to_dense().weight.detach() - weight).norm() / weight.norm())


def regress(layer: ACDCLinear, target: Tensor, steps: int) -> float:
    """Share of ||W||^2 that is left after training on the images of the unit vectors."""
    units = torch.eye(target.shape[1])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(units) - target.t()).square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        return float((layer(units) - target.t()).square().sum() / target.square().sum())


def test_a_deep_cascade_learns_near_the_identity_and_stalls_around_zero() -> None:
    """The paper's experiment in small: a random 32 x 32 operator, eight layers without ReLU."""
    target = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    near_one = ACDCLinear(32, 32, bias=False, layers=8, activation="none", seed=1)
    around_zero = copy.deepcopy(near_one)
    with torch.no_grad():
        around_zero.a.sub_(1)
        around_zero.d.sub_(1)
    assert float(around_zero.a.detach().std()) == pytest.approx(0.061, rel=0.1)
    assert regress(near_one, target, 400) < 0.7
    assert regress(around_zero, target, 400) > 0.999


def test_deeper_cascades_fit_better() -> None:
    target = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    left = [
        regress(ACDCLinear(32, 32, bias=False, layers=layers, activation="none", seed=1), target, 250)
        for layers in (1, 4, 12)
    ]
    assert left[0] > left[1] + 0.05
    assert left[1] > left[2] + 0.05


@pytest.mark.parametrize(("make", "rate"), [("SGD", 0.2), ("Adam", 0.03)])
def test_training_from_scratch_with_relu_lowers_a_loss(make: str, rate: float) -> None:
    net = nn.Sequential(ACDCLinear(12, 24, layers=3, seed=0), nn.ReLU(), ACDCLinear(24, 3, layers=2, seed=1))
    x = torch.randn(256, 12)
    labels = (x[:, :3] + 0.5 * x[:, 3:6]).argmax(1)
    start = [p.detach().clone() for p in net.parameters()]
    optimizer = getattr(torch.optim, make)(net.parameters(), lr=rate)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(start, net.parameters(), strict=True))


def test_conversion_recovers_a_matrix_of_its_own_form() -> None:
    source = ACDCLinear(24, 24, bias=False, std=0.3, seed=2)
    dense = source.to_dense()

    def error(steps: int) -> float:
        return relative(ACDCLinear.from_dense(dense, ACDCConfig(steps=steps)), dense)

    errors = [error(steps) for steps in (0, 100, 300)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.02


def test_conversion_of_a_generic_matrix_is_only_a_start_but_better_than_nothing() -> None:
    dense = nn.Linear(48, 48)
    for layers in (1, 3):
        layer = ACDCLinear.from_dense(dense, ACDCConfig(layers=layers, activation="none"))
        assert 0.5 < relative(layer, dense) < 1


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_fit_does_not_depend_on_the_size_of_the_weight(size: float) -> None:
    dense = nn.Linear(16, 12, dtype=torch.float64)
    settings = config(layers=2, activation="none")
    plain = ACDCLinear.from_dense(dense, settings).to_dense().weight
    with torch.no_grad():
        dense.weight.mul_(size)
    again = ACDCLinear.from_dense(dense, settings).to_dense().weight
    assert torch.allclose(again, size * plain, rtol=1e-8, atol=1e-10 * size)


def test_the_fit_in_parts_is_the_fit_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = nn.Linear(20, 40, dtype=torch.float64)
    whole = ACDCLinear.from_dense(dense, config())
    monkeypatch.setattr("fastcnn.methods.structured.matrix_fit.NUMBERS", 3 * 40)
    parts = ACDCLinear.from_dense(dense, config())
    assert torch.allclose(whole.a, parts.a, rtol=1e-9, atol=1e-12)
    assert torch.allclose(whole.d, parts.d, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "layers"), list(itertools.product([(9, 20), (20, 9), (8, 8)], [1, 2])))
def test_the_dense_bias_is_kept_exactly(shape: tuple[int, int], layers: int) -> None:
    dense = nn.Linear(*shape, dtype=torch.float64)
    layer = ACDCLinear.from_dense(dense, config(layers=layers, activation="none"))
    assert torch.allclose(layer.to_dense().bias, dense.bias, rtol=0, atol=1e-14)
    assert torch.allclose(layer(torch.zeros(shape[0], dtype=torch.float64)), dense.bias, rtol=0, atol=1e-14)


def test_conversion_leaves_its_argument_and_keeps_its_state() -> None:
    dense = nn.Linear(9, 20, dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    with torch.no_grad():
        layer = ACDCLinear.from_dense(dense, config(seed=2, std=0.1))
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert (layer.training, layer.a.dtype, layer.seed, layer.std) == (False, torch.float64, 2, 0.1)
    assert layer.beta is not None
    assert (layer.a.requires_grad, layer.d.requires_grad, layer.beta.requires_grad) == (False, False, True)
    rebuilt = layer.to_dense()
    assert not rebuilt.training
    assert (rebuilt.weight.requires_grad, rebuilt.bias.requires_grad) == (False, True)
    dense.bias.requires_grad_(False)
    again = ACDCLinear.from_dense(dense, config(seed=2, std=0.1))
    assert again.beta is not None
    assert not again.beta.requires_grad
    assert torch.equal(layer.a, again.a)


def test_what_conversion_declines() -> None:
    with pytest.raises(DeclinedError, match=r"ACDCLinear\(300, 200, layers=4\) and train it from scratch"):
        ACDCLinear.from_dense(nn.Linear(300, 200), ACDCConfig(layers=4, force=True))
    with pytest.raises(DeclinedError, match="12 parameters and 24 multiply-adds instead of 12 and 8: neither"):
        # a, d and beta of 4; 2 * 4 + 2 * 8 multiply-adds.
        ACDCLinear.from_dense(nn.Linear(2, 4), ACDCConfig())
    dense = nn.Linear(64, 64)
    nn.init.zeros_(dense.weight)
    with pytest.raises(DeclinedError, match="every weight is zero"):
        ACDCLinear.from_dense(dense, ACDCConfig())
    with torch.no_grad():
        dense.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="1 non-finite"):
        ACDCLinear.from_dense(dense, ACDCConfig())


@pytest.mark.parametrize(("shape", "bias", "layers"), list(itertools.product(SHAPES, (True, False), (1, 4))))
def test_parameters_equal_the_formula(shape: tuple[int, int], bias: bool, layers: int) -> None:
    layer = ACDCLinear(*shape, bias, layers=layers)
    spec = LinearSpec(in_features=shape[0], out_features=shape[1], bias=bias)
    cost = ACDCLinear.cost(ACDCConfig(layers=layers), spec)
    n = max(shape)
    want = layers * n * (3 if bias else 2)
    assert sum(p.numel() for p in layer.parameters()) == cost.params == want
    held = sum(t.numel() * t.element_size() for t in layer.state_dict().values())
    assert cost.param_bytes == held == 4 * (want + (layers - 1) * n)
    assert cost.macs == layers * (2 * n + 2 * int(np.ceil(n * np.log2(n))))


def test_theory_stores_the_permutations_as_a_seed() -> None:
    one = ACDCLinear(100, 200, dtype=torch.float64).theory()
    assert one.bytes == 8 * 3 * 200
    assert one.params == 3 * 200
    layer = ACDCLinear(100, 200, bias=False, layers=3)
    with torch.no_grad():
        layer.d[1, :5] = 0
    assert layer.theory().bytes == 4 * 6 * 200 + 8
    assert layer.theory().params == 6 * 200 - 5


def test_permutations_survive_state_dict_and_deepcopy() -> None:
    layer = randomised(9, 20, layers=3)
    x = torch.randn(3, 9, dtype=torch.float64)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    other = ACDCLinear(9, 20, layers=3, seed=11, dtype=torch.float64)
    assert not torch.equal(other.permutations, layer.permutations)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.permutations, layer.permutations)
    assert torch.equal(other(x), layer(x))
    assert other.half().permutations.dtype == torch.int32


def test_rates_and_weight_decay_of_the_groups() -> None:
    first, second = ACDCLinear(8, 8, layers=2), ACDCLinear(8, 4, bias=False)
    second.a.requires_grad_(False)
    net = nn.Sequential(first, nn.ReLU(), second, nn.Linear(4, 2), first)
    groups = parameter_groups(net, lr=0.1)
    found = [([id(p) for p in group["params"]], group["lr"], group.get("weight_decay")) for group in groups]
    linear = net[3]
    assert isinstance(linear, nn.Linear)
    assert found[0] == ([id(first.a)], pytest.approx(2.4), 0.0)
    assert found[1] == ([id(first.d), id(second.d)], pytest.approx(1.2), 0.0)
    assert found[2] == ([id(first.beta), id(linear.weight), id(linear.bias)], 0.1, None)
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0, 0.01]
    assert [group["lr"] for group in parameter_groups(net, 0.1, a_factor=2, d_factor=3)] == pytest.approx(
        [0.2, 0.3, 0.1]
    )
    assert [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), lr=0.1)] == [2]
    assert [len(group["params"]) for group in parameter_groups(ACDCLinear(2, 2, bias=False), lr=0.1)] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr=-1.0"),
        ({"lr": "fast"}, TypeError, "lr must be a number, got str"),
        ({"lr": 0.1, "a_factor": -2}, ValueError, "a_factor=-2"),
        ({"lr": 0.1, "d_factor": float("nan")}, ValueError, "d_factor=nan"),
    ],
)
def test_bad_rates_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parameter_groups(ACDCLinear(2, 2), **arguments)


def test_the_examples_of_the_docstrings() -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0


def test_export_names_the_op() -> None:
    layer = ACDCLinear(9, 20, layers=2).eval()
    x = torch.randn(2, 9)
    program = torch.export.export(layer, (x,))
    assert "fastcnn.acdc_linear.default" in {str(node.target) for node in program.graph.nodes}
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    layer = ACDCLinear(64, 48, layers=2).to(dtype)
    x = torch.randn(8, 64).to(dtype)
    exact = copy.deepcopy(layer).float()
    assert layer(x).dtype == dtype
    assert torch.equal(layer(x), exact(x.float()).to(dtype))
    layer(x).float().square().sum().backward()
    assert layer.a.grad is not None
    assert layer.a.grad.dtype == dtype
    from_half = ACDCLinear.from_dense(nn.Linear(64, 64).to(dtype), config())
    assert from_half.a.dtype == dtype


def test_autocast_runs() -> None:
    net = nn.Sequential(nn.Linear(16, 32), ACDCLinear(32, 24, layers=2))
    x = torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), net(x), atol=0.1)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_empty_batch_has_a_backward() -> None:
    layer = ACDCLinear(9, 20, layers=2)
    layer(torch.zeros(0, 9)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) == 0


BAD_CASCADES = [
    ({"layers": 0}, ValueError, "layers=0"),
    ({"layers": 1.5}, TypeError, "layers must be an integer, got float"),
    ({"activation": "gelu"}, ValueError, "activation='gelu' is not supported: choose from 'none', 'relu'"),
    ({"seed": -1}, ValueError, "seed=-1"),
    ({"std": -0.1}, ValueError, "std=-0.1"),
    ({"std": 1.5}, ValueError, "std=1.5"),
    ({"std": "wide"}, TypeError, "std must be a number, got str"),
]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        *BAD_CASCADES,
        ({"steps": -1}, ValueError, "steps=-1"),
        ({"force": 1}, TypeError, "force must be True or False, got int 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ACDCConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *BAD_CASCADES,
        ({"in_features": 0}, ValueError, "in_features=0"),
        ({"out_features": 2.0}, TypeError, "out_features must be an integer, got float"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ACDCLinear(**{"in_features": 4, "out_features": 4, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 8), ValueError, r"ACDCLinear must have 5 channels on axis -1, got shape \(2, 8\)"),
        (torch.tensor(0.0), ValueError, r"shape \(\)"),
        (torch.zeros(2, 5, dtype=torch.int64), TypeError, r"floating point, got torch\.int64"),
        (torch.zeros(2, 5, dtype=torch.complex64), TypeError, r"torch\.complex64"),
        (torch.zeros(2, 5, dtype=torch.float64), TypeError, "float64 but its weights are torch.float32"),
        (np.zeros((2, 5)), TypeError, "got ndarray"),
    ],
)
def test_bad_inputs_are_named(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ACDCLinear(5, 3)(x)
