"""Circulant layers: equal to matrices written out by loops, gradients by the paper's formulas, nearest projections."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import ConvSpec, DeclinedError, LinearSpec
from fastcnn.methods.structured import circulant_ops as ops
from fastcnn.methods.structured.circulant import (
    BlockCirculantConfig,
    BlockCirculantConv2d,
    BlockCirculantLinear,
    CirculantConfig,
    CirculantLinear,
)

Array = npt.NDArray[Any]
F64 = torch.float64
Layer = CirculantLinear | BlockCirculantLinear | BlockCirculantConv2d
# (in_features, out_features): 1, odd, even, fewer, as many, more outputs than inputs
SIZES = [(1, 1), (1, 3), (2, 2), (5, 3), (5, 5), (6, 4), (6, 13), (7, 15), (8, 8), (16, 16)]
# (in_features, out_features, block_size, by way of spectra)
BLOCKS = [
    (1, 1, 4, False),
    (7, 5, 1, False),
    (6, 9, 2, False),
    (20, 20, 4, True),
    (30, 26, 5, True),
    (17, 33, 3, True),
    (16, 64, 8, True),
    (5, 3, 16, False),
]
# (arguments of nn.Conv2d, block_size, by way of spectra)
CONVS: list[tuple[dict[str, Any], int, bool]] = [
    ({"in_channels": 3, "out_channels": 5, "kernel_size": 3}, 1, False),
    ({"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}, 4, False),
    ({"in_channels": 8, "out_channels": 12, "kernel_size": 3, "padding": 1}, 4, True),
    ({"in_channels": 7, "out_channels": 10, "kernel_size": (2, 3), "bias": False}, 3, True),
    ({"in_channels": 12, "out_channels": 18, "kernel_size": 3, "groups": 2, "padding": (0, 2)}, 4, True),
    ({"in_channels": 6, "out_channels": 4, "kernel_size": 3, "groups": 2}, 2, True),
    ({"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4}, 2, False),
    ({"in_channels": 10, "out_channels": 9, "kernel_size": 3, "dilation": (1, 2), "stride": (2, 1)}, 5, True),
    ({"in_channels": 16, "out_channels": 16, "kernel_size": 1}, 4, True),
    # The stride passes over three of four positions, all of which would be transformed.
    ({"in_channels": 16, "out_channels": 16, "kernel_size": 1, "stride": 2}, 4, False),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def array(x: Tensor) -> Array:
    return x.detach().numpy()


def circulant_by_loops(vectors: Array, signs: Array, rows: int) -> Array:
    d = vectors.shape[1]
    weight = np.zeros((rows, d))
    for i in range(rows):
        for j in range(d):
            weight[i, j] = vectors[i // d, (i % d - j) % d] * signs[i // d, j]
    return weight


def blocks_by_loops(vectors: Array, rows: int, columns: int, groups: int = 1) -> Array:
    """Weight (rows, columns, ...); ``columns`` of a group."""
    b, p, each = vectors.shape[2], vectors.shape[0] // groups, rows // groups
    weight = np.zeros((rows, columns, *vectors.shape[3:]))
    for f in range(rows):
        g, r = divmod(f, each)
        for c in range(columns):
            weight[f, c] = vectors[g * p + r // b, c // b, (r % b - c % b) % b]
    return weight


def linear(kind: str, inputs: int, outputs: int, **settings: Any) -> CirculantLinear | BlockCirculantLinear:
    """A layer with a random bias, in float64."""
    cls = CirculantLinear if kind == "circulant" else BlockCirculantLinear
    layer = cls(inputs, outputs, dtype=F64, **settings)
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    return layer


def weight_by_loops(layer: Layer) -> Array:
    vectors = array(layer.vectors)
    if isinstance(layer, CirculantLinear):
        return circulant_by_loops(vectors, array(layer.signs), layer.out_features)
    if isinstance(layer, BlockCirculantLinear):
        return blocks_by_loops(vectors, layer.out_features, layer.in_features)
    return blocks_by_loops(vectors, layer.out_channels, layer.in_channels // layer.groups, layer.groups)


@pytest.mark.parametrize(("d", "k"), SIZES)
@pytest.mark.parametrize("signs", [True, False])
def test_circulant_is_its_explicit_matrix(d: int, k: int, signs: bool) -> None:
    layer = linear("circulant", d, k, seed=3, signs=signs)
    weight = weight_by_loops(layer)
    x = torch.randn(2, 3, d, dtype=F64)
    assert np.allclose(array(layer(x)), array(x) @ weight.T + array(layer.bias), rtol=0, atol=1e-12)
    assert np.array_equal(array(layer.to_dense().weight), weight)
    assert np.allclose(array(layer(x[0, 0])), array(layer(x))[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("inputs", "outputs", "b", "spectra"), BLOCKS)
def test_blocks_are_their_explicit_matrix(inputs: int, outputs: int, b: int, spectra: bool) -> None:
    assert ops.takes_spectra(outputs, inputs, b) == spectra
    layer = linear("blocks", inputs, outputs, block_size=b)
    weight = weight_by_loops(layer)
    x = torch.randn(2, 3, inputs, dtype=F64)
    assert np.allclose(array(layer(x)), array(x) @ weight.T + array(layer.bias), rtol=0, atol=1e-12)
    assert np.array_equal(array(layer.to_dense().weight), weight)
    assert np.allclose(array(layer(x[0, 0])), array(layer(x))[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("arguments", "b", "spectra"), CONVS)
def test_conv_blocks_are_their_explicit_matrix_at_every_tap(
    arguments: dict[str, Any], b: int, spectra: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = BlockCirculantConv2d(**arguments, block_size=b, dtype=F64)
    ways, choose = [], ops.takes_spectra
    monkeypatch.setattr(ops, "takes_spectra", lambda *a, **k: ways.append(choose(*a, **k)) or ways[-1])
    weight = torch.from_numpy(weight_by_loops(layer))
    x = torch.randn(2, layer.in_channels, 7, 6, dtype=F64)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    want = F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert torch.allclose(layer(x), want, rtol=0, atol=1e-12)
    assert torch.allclose(layer(x[0]), want[0], rtol=0, atol=1e-12)
    assert set(ways) == {spectra}
    assert torch.equal(layer.to_dense().weight, weight)


@pytest.mark.parametrize(("arguments", "b"), [(c[0], c[1]) for c in CONVS])
def test_both_ways_of_a_conv_agree_with_their_gradients(
    arguments: dict[str, Any], b: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = BlockCirculantConv2d(**arguments, block_size=b, dtype=F64)
    found = []
    for way in (True, False):
        monkeypatch.setattr(ops, "takes_spectra", lambda *_, way=way, **__: way)
        layer.zero_grad()
        torch.manual_seed(5)
        x = torch.randn(2, layer.in_channels, 7, 6, dtype=F64, requires_grad=True)
        y = layer(x)
        y.backward(torch.randn_like(y))
        found.append([y, x.grad, *(p.grad for p in layer.parameters())])
    for left, right in zip(*found, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("inputs", "outputs", "b"), [c[:3] for c in BLOCKS])
def test_both_ways_of_a_linear_layer_agree_with_their_gradients(
    inputs: int, outputs: int, b: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = linear("blocks", inputs, outputs, block_size=b)
    found = []
    for way in (True, False):
        monkeypatch.setattr(ops, "takes_spectra", lambda *_, way=way, **__: way)
        layer.zero_grad()
        torch.manual_seed(5)
        x = torch.randn(4, inputs, dtype=F64, requires_grad=True)
        y = layer(x)
        y.backward(torch.randn_like(y))
        found.append([y, x.grad, *(p.grad for p in layer.parameters())])
    for left, right in zip(*found, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=1e-11)


def test_signs_are_an_involution_that_a_seed_makes() -> None:
    layer = CirculantLinear(40, 100, seed=5)
    assert (layer.signs.shape, layer.signs.dtype) == ((3, 40), torch.int8)
    assert set(layer.signs.unique().tolist()) == {-1, 1}
    assert torch.equal(layer.signs * layer.signs, torch.ones_like(layer.signs))
    assert len({tuple(row.tolist()) for row in layer.signs}) == 3, "every matrix has signs of its own"
    assert torch.equal(layer.signs, CirculantLinear(40, 100, seed=5).signs)
    assert not torch.equal(layer.signs, CirculantLinear(40, 100, seed=6).signs)
    assert bool((CirculantLinear(40, 100, signs=False).signs == 1).all())
    assert "signs" in layer.state_dict()


def test_signs_leave_the_random_numbers_of_training_alone() -> None:
    torch.manual_seed(1)
    first = CirculantLinear(9, 9, seed=0)
    torch.manual_seed(1)
    other = CirculantLinear(9, 9, seed=4)
    assert torch.equal(first.vectors, other.vectors)


@pytest.mark.parametrize("d", [1, 6, 7])
def test_circulants_commute_and_signs_stop_them(d: int) -> None:
    x = torch.randn(3, d, dtype=F64)
    plain = [CirculantLinear(d, d, bias=False, signs=False, dtype=F64) for _ in range(2)]
    assert torch.allclose(plain[0](plain[1](x)), plain[1](plain[0](x)), rtol=0, atol=1e-12)
    signed = [CirculantLinear(d, d, bias=False, seed=seed, dtype=F64) for seed in (1, 2)]
    same = torch.allclose(signed[0](signed[1](x)), signed[1](signed[0](x)), rtol=0, atol=1e-6)
    assert same == (d == 1)


def test_without_signs_a_shifted_input_gives_the_shifted_output() -> None:
    x = torch.randn(2, 9, dtype=F64)
    for signs in (False, True):
        layer = CirculantLinear(9, 9, bias=False, signs=signs, dtype=F64)
        shifts = torch.allclose(layer(x.roll(2, -1)), layer(x).roll(2, -1), rtol=0, atol=1e-9)
        assert shifts == (not signs)


@pytest.mark.parametrize(("d", "k"), SIZES)
def test_circulant_gradients_are_those_of_the_formulas(d: int, k: int) -> None:
    layer = linear("circulant", d, k, seed=2)
    x = torch.randn(4, d, dtype=F64, requires_grad=True)
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    q, signs, vectors = layer.vectors.shape[0], array(layer.signs).astype(float), array(layer.vectors)
    g = np.zeros((4, q * d))
    g[:, :k] = array(upstream)
    g = g.reshape(4, q, d)
    of_g, of_x = np.fft.fft(g), np.fft.fft(array(x)[:, None] * signs)
    # dv = ifft(sum over the batch of fft(G) conj fft(D x)); dx = D ifft(fft(G) conj fft(v)), summed over the pairs
    grad_v = np.fft.ifft((of_g * of_x.conj()).sum(0)).real
    grad_x = (signs * np.fft.ifft(of_g * np.fft.fft(vectors).conj()).real).sum(1)
    assert x.grad is not None
    assert layer.vectors.grad is not None
    assert layer.bias is not None
    assert np.allclose(array(layer.vectors.grad), grad_v, rtol=0, atol=1e-12)
    assert np.allclose(array(x.grad), grad_x, rtol=0, atol=1e-12)
    assert torch.allclose(layer.bias.grad, upstream.sum(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "outputs", "b"), [c[:3] for c in BLOCKS])
def test_block_gradients_are_those_of_the_formulas(inputs: int, outputs: int, b: int) -> None:
    layer = linear("blocks", inputs, outputs, block_size=b)
    p, q, _ = layer.vectors.shape
    x = torch.randn(4, inputs, dtype=F64, requires_grad=True)
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    wide_g, wide_x = np.zeros((4, p * b)), np.zeros((4, q * b))
    wide_g[:, :outputs], wide_x[:, :inputs] = array(upstream), array(x)
    of_g, of_x = np.fft.fft(wide_g.reshape(4, p, b)), np.fft.fft(wide_x.reshape(4, q, b))
    grad_v = np.fft.ifft(np.einsum("npk,nqk->pqk", of_g, of_x.conj())).real
    grad_x = np.fft.ifft(np.einsum("npk,pqk->nqk", of_g, np.fft.fft(array(layer.vectors)).conj())).real
    assert x.grad is not None
    assert layer.vectors.grad is not None
    assert np.allclose(array(layer.vectors.grad), grad_v, rtol=0, atol=1e-12)
    assert np.allclose(array(x.grad), grad_x.reshape(4, -1)[:, :inputs], rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"in_features": 6, "out_features": 9}, {"in_features": 5, "out_features": 1}])
def test_linear_blocks_of_one_are_the_dense_layer(arguments: dict[str, int]) -> None:
    dense = nn.Linear(**arguments)
    layer = BlockCirculantLinear.from_dense(dense, BlockCirculantConfig(block_size=1, force=True))
    x = torch.randn(3, arguments["in_features"])
    assert torch.equal(layer.to_dense().weight, dense.weight)
    assert torch.allclose(layer(x), dense(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_conv_blocks_of_one_are_the_dense_layer(groups: int) -> None:
    dense = nn.Conv2d(6, 9, 3, padding=1, groups=groups)
    layer = BlockCirculantConv2d.from_dense(dense, BlockCirculantConfig(block_size=1, force=True))
    x = torch.randn(2, 6, 5, 4)
    assert torch.equal(layer.to_dense().weight, dense.weight)
    assert torch.allclose(layer(x), dense(x), rtol=0, atol=1e-6)


def basis_of(layer: Layer) -> list[Array]:
    """Dense weight of each single vector entry."""
    shape, found = layer.vectors.shape, []
    twin = copy.deepcopy(layer)
    for place in np.ndindex(*shape):
        with torch.no_grad():
            twin.vectors.zero_()
            twin.vectors[place] = 1.0
        found.append(weight_by_loops(twin))
    return found


CONVERSIONS: list[tuple[Callable[[], Any], Any, CirculantConfig | BlockCirculantConfig]] = [
    *[
        (lambda d=d, k=k: nn.Linear(d, k, dtype=F64), CirculantLinear, CirculantConfig(seed=4, force=True))
        for d, k in SIZES[:8]
    ],
    *[
        (
            lambda i=i, o=o: nn.Linear(i, o, dtype=F64),
            BlockCirculantLinear,
            BlockCirculantConfig(block_size=b, force=True),
        )
        for i, o, b in [(1, 1, 4), (6, 9, 2), (10, 6, 4), (7, 8, 3)]
    ],
    *[
        (
            lambda a=a: nn.Conv2d(**a, dtype=F64),
            BlockCirculantConv2d,
            BlockCirculantConfig(block_size=b, force=True),
        )
        for a, b in [
            ({"in_channels": 5, "out_channels": 3, "kernel_size": (1, 2)}, 3),
            ({"in_channels": 6, "out_channels": 4, "kernel_size": (2, 1), "groups": 2}, 2),
        ]
    ],
]  # fmt: skip


@pytest.mark.parametrize(("make", "cls", "config"), CONVERSIONS)
def test_conversion_is_the_least_squares_fit(make: Callable[[], Any], cls: Any, config: Any) -> None:
    dense = make()
    layer = cls.from_dense(dense, config)
    basis = basis_of(layer)
    residual = array(dense.weight) - weight_by_loops(layer)
    # Normal equations: what is left stands at right angles to every weight of this form, so none is nearer.
    assert max(abs(float((residual * direction).sum())) for direction in basis) < 1e-12
    matrix = np.stack([direction.ravel() for direction in basis], 1)
    best = np.linalg.lstsq(matrix, array(dense.weight).ravel(), rcond=None)[0]
    assert np.allclose(array(layer.vectors).ravel(), best, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("make", "cls", "config"), CONVERSIONS)
def test_a_weight_of_the_form_is_found_again(make: Callable[[], Any], cls: Any, config: Any) -> None:
    layer = cls.from_dense(make(), config)
    again = cls.from_dense(layer.to_dense(), config)
    assert torch.allclose(again.vectors, layer.vectors, rtol=0, atol=1e-12)
    assert torch.allclose(again.to_dense().weight, layer.to_dense().weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dense", "cls", "config", "want"),
    [
        (nn.Linear(64, 64), CirculantLinear, CirculantConfig(), 1 - 1 / 64),
        (nn.Linear(64, 16), CirculantLinear, CirculantConfig(), 1 - 1 / 16),
        (nn.Linear(64, 64), BlockCirculantLinear, BlockCirculantConfig(block_size=4), 1 - 1 / 4),
        (nn.Conv2d(32, 32, 3), BlockCirculantConv2d, BlockCirculantConfig(block_size=8), 1 - 1 / 8),
    ],
)
def test_a_weight_without_structure_is_mostly_missed_as_the_pages_say(
    dense: nn.Conv2d | nn.Linear, cls: Any, config: Any, want: float
) -> None:
    nn.init.normal_(dense.weight)
    left = (cls.from_dense(dense, config).weight - dense.weight).square().sum() / dense.weight.square().sum()
    assert float(left.detach()) == pytest.approx(want, abs=0.03)


@pytest.mark.parametrize(("d", "k"), SIZES)
def test_parameters_of_a_circulant_layer(d: int, k: int) -> None:
    layer = CirculantLinear(d, k)
    assert sum(p.numel() for p in layer.parameters()) == d * math.ceil(k / d) + k


@pytest.mark.parametrize(("arguments", "b"), [(c[0], c[1]) for c in CONVS])
def test_parameters_of_blocks(arguments: dict[str, Any], b: int) -> None:
    conv = BlockCirculantConv2d(**arguments, block_size=b)
    g, c, f = conv.groups, conv.in_channels, conv.out_channels
    count = g * math.ceil(f / g / b) * math.ceil(c / g / b) * b * math.prod(conv.kernel_size)
    assert conv.vectors.numel() == count
    assert conv.vectors.shape[2:] == (b, *conv.kernel_size)
    assert BlockCirculantLinear(c, f, block_size=b).vectors.shape == (math.ceil(f / b), math.ceil(c / b), b)


def test_cost_is_arithmetic() -> None:
    # A transform of 1024 takes 1.5 * 1024 * 10 multiply-adds, a product of spectra 4 * 511 + 2.
    square = CirculantLinear.cost(CirculantConfig(), LinearSpec(in_features=1024, out_features=1024))
    assert (square.macs, square.params, square.param_bytes) == (2 * 15360 + 2046, 2048, 4 * 2048 + 1024)
    tall = CirculantLinear.cost(CirculantConfig(), LinearSpec(in_features=4, out_features=9, bias=False))
    assert (tall.macs, tall.params, tall.param_bytes) == (3 * (2 * 12 + 6), 12, 60)
    # 64 + 64 transforms of 16, 96 each; 64 * 64 products of 30.
    spec = LinearSpec(in_features=1024, out_features=1024)
    blocks = BlockCirculantLinear.cost(BlockCirculantConfig(block_size=16), spec)
    assert (blocks.macs, blocks.params, blocks.param_bytes) == (128 * 96 + 4096 * 30, 65536 + 1024, 4 * 66560)
    conv = BlockCirculantConv2d.cost(
        BlockCirculantConfig(block_size=4),
        ConvSpec(in_channels=16, out_channels=24, kernel_size=(3, 3), groups=2, output_size=(5, 7), bias=False),
    )
    assert (conv.macs, conv.params) == (35 * 2 * (5 * 12 + 6 * 9 * 6), 2 * 6 * 4 * 9)
    # Few channels: the dense weight is written out.
    few = BlockCirculantConv2d.cost(
        BlockCirculantConfig(block_size=16), ConvSpec(in_channels=3, out_channels=4, kernel_size=(3, 3))
    )
    assert few.macs == few.workspace_bytes / 4 == 108


def test_theory_counts_what_the_layer_holds() -> None:
    layer = CirculantLinear(16, 16)
    theory = layer.theory()
    assert (theory.params, theory.bytes) == (32, 4 * 32 + 2)
    assert theory.macs == CirculantLinear.cost(CirculantConfig(), LinearSpec(in_features=16, out_features=16)).macs
    assert CirculantLinear(16, 16, signs=False).theory().bytes == 4 * 32
    with torch.no_grad():
        layer.vectors.zero_()[0, 3] = 1.0
    # One of 16 places, a number, and 16 signs.
    assert layer.theory().params == 17
    assert layer.theory().bytes == pytest.approx((16 * 0.3373 + 32 + 16) / 8 + 64, abs=1)
    blocks = BlockCirculantConv2d(8, 12, 3, stride=2, padding=1, block_size=4).theory()
    # Four input positions for each output position.
    assert (blocks.params, blocks.macs, blocks.bytes) == (216 + 12, (2 * 4 + 3) * 12 + 6 * 9 * 6, 4 * 228)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (CirculantLinear(500, 3000), 500),
        (BlockCirculantLinear(600, 600, block_size=8), 600),
        (BlockCirculantConv2d(64, 64, 3, groups=2, block_size=4), 32 * 9),
    ],
)
def test_training_from_scratch_starts_as_he_says(layer: Layer, fan_in: int) -> None:
    nn.init.constant_(layer.vectors, 7.0)
    nn.init.constant_(layer.bias, 7.0)  # type: ignore[arg-type]
    layer.reset_parameters()
    values = layer.vectors.detach()
    assert float(values.var()) == pytest.approx(2 / fan_in, rel=0.15)
    assert abs(float(values.mean())) < 0.1 * float(values.std())
    assert layer.bias is not None
    assert float(layer.bias.detach().abs().sum()) == 0.0


TRAINEES: list[Callable[[], Layer]] = [
    lambda: CirculantLinear(12, 30),
    lambda: BlockCirculantLinear(12, 30, block_size=4),
    lambda: BlockCirculantConv2d(8, 12, 3, padding=1, block_size=4),
]


@pytest.mark.parametrize("make", TRAINEES)
def test_training_from_scratch_finds_a_layer_of_its_form(make: Callable[[], Layer]) -> None:
    layer, target = make(), make()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    x = torch.randn(16, 8, 6, 6) if isinstance(layer, BlockCirculantConv2d) else torch.randn(64, 12)
    want = target(x).detach()
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (layer(x) - want).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize(("make", "cls", "config"), CONVERSIONS)
def test_from_dense_leaves_its_argument_and_keeps_its_state(make: Callable[[], Any], cls: Any, config: Any) -> None:
    dense = make().eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    layer = cls.from_dense(dense, config)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert (layer.training, layer.vectors.dtype) == (False, F64)
    assert (layer.vectors.requires_grad, layer.bias.requires_grad) == (False, True)
    assert torch.equal(layer.bias, dense.bias)
    with torch.no_grad():
        layer.bias.add_(1.0)
    assert not torch.equal(dense.bias, layer.bias)
    back = layer.to_dense()
    assert (back.training, back.weight.requires_grad, back.bias.requires_grad) == (False, False, True)


@pytest.mark.parametrize("make", TRAINEES)
def test_copies_and_saved_states_are_equal(make: Callable[[], Layer]) -> None:
    layer = make()
    x = torch.randn(2, 8, 6, 6) if isinstance(layer, BlockCirculantConv2d) else torch.randn(2, 12)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    other = make()
    if isinstance(other, CirculantLinear):
        other.signs.neg_()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("padding", ["same", "valid", 0, (2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_words_and_modes_match_conv2d(padding: str | int | tuple[int, int], mode: str) -> None:
    dense = nn.Conv2d(6, 8, (2, 4), padding=padding, dilation=(1, 2), padding_mode=mode, dtype=F64)
    layer = BlockCirculantConv2d.from_dense(dense, BlockCirculantConfig(block_size=2))
    dense = layer.to_dense()
    x = torch.randn(2, 6, 9, 11, dtype=F64)
    with warnings.catch_warnings():
        # nn.Conv2d itself warns that an even kernel with "same" needs a padded copy.
        warnings.filterwarnings("ignore", message="Using padding='same'")
        want = dense(x)
    assert torch.allclose(layer(x), want, rtol=0, atol=1e-12)
    assert torch.allclose(layer(x[0]), want[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("cls", "config", "dense", "message"),
    [
        (CirculantLinear, CirculantConfig(), nn.Linear(9, 1), "9 weights, no fewer than its 9"),
        (CirculantLinear, CirculantConfig(), nn.Linear(1, 9), "9 weights, no fewer than its 9"),
        (BlockCirculantLinear, BlockCirculantConfig(block_size=1), nn.Linear(4, 4), "blocks of 1 need 16 weights"),
        (BlockCirculantLinear, BlockCirculantConfig(), nn.Linear(4, 4), "blocks of 16 need 16 weights"),
        (BlockCirculantConv2d, BlockCirculantConfig(block_size=2), nn.Conv2d(6, 6, 3, groups=6), "108 weights"),
        (BlockCirculantConv2d, BlockCirculantConfig(), nn.Conv2d(3, 4, 3), "144 weights, no fewer than its 108"),
    ],
)
def test_layers_that_become_no_smaller_are_declined(cls: Any, config: Any, dense: Any, message: str) -> None:
    with pytest.raises(DeclinedError, match=message):
        cls.from_dense(dense, config)
    forced = type(config)(**{**vars(config), "force": True})
    assert cls.from_dense(dense, forced).to_dense().weight.shape == dense.weight.shape


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(bad: float) -> None:
    dense, conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        dense.weight[1, 1] = conv.weight[1, 1, 1, 1] = bad
    with pytest.raises(ValueError, match="1 non-finite"):
        CirculantLinear.from_dense(dense, CirculantConfig())
    with pytest.raises(ValueError, match="1 non-finite"):
        BlockCirculantLinear.from_dense(dense, BlockCirculantConfig(block_size=4))
    with pytest.raises(ValueError, match="1 non-finite"):
        BlockCirculantConv2d.from_dense(conv, BlockCirculantConfig(block_size=4))


@pytest.mark.parametrize(
    ("config", "settings", "error", "message"),
    [
        (CirculantConfig, {"seed": -1}, ValueError, "seed=-1 is out of range"),
        (CirculantConfig, {"seed": 2**63}, ValueError, "seed=9223372036854775808"),
        (CirculantConfig, {"seed": 1.0}, TypeError, "seed must be an integer, got float"),
        (CirculantConfig, {"signs": 1}, TypeError, "signs must be True or False, got 1"),
        (CirculantConfig, {"force": None}, TypeError, "force must be True or False, got None"),
        (BlockCirculantConfig, {"block_size": 0}, ValueError, "block_size=0 is out of range: it must be at least 1"),
        (BlockCirculantConfig, {"block_size": 2.5}, TypeError, "block_size must be an integer, got float"),
        (BlockCirculantConfig, {"block_size": True}, TypeError, "block_size must be an integer, got bool"),
        (BlockCirculantConfig, {"force": "yes"}, TypeError, "force must be True or False, got 'yes'"),
        (lambda **s: CirculantLinear(4, 4, **s), {"seed": -2}, ValueError, "seed=-2"),
        (lambda **s: CirculantLinear(4, 4, **s), {"signs": 0}, TypeError, "signs must be True or False"),
        (lambda **s: CirculantLinear(4, **s), {"out_features": 0}, ValueError, "out_features=0"),
        (lambda **s: BlockCirculantLinear(4, 4, **s), {"block_size": -3}, ValueError, "block_size=-3"),
        (lambda **s: BlockCirculantLinear(out_features=4, **s), {"in_features": 0}, ValueError, "in_features=0"),
        (lambda **s: BlockCirculantConv2d(4, 4, 3, **s), {"block_size": 0}, ValueError, "block_size=0"),
        (lambda **s: BlockCirculantConv2d(4, 4, 3, **s), {"groups": 3}, ValueError, "divisible by groups"),
    ],
)
def test_bad_settings_are_named(
    config: Callable[..., object], settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 3, 8), ValueError, "must have 3 channels on axis -3"),
        (torch.zeros(8), ValueError, r"3 or 4 dimensions, got shape \(8,\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, r"3 channels on axis -3, got shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, r"must be floating point, got torch\.int64"),
        (torch.zeros(1, 3, 8, 8, dtype=F64), TypeError, "float64 but its weights are torch.float32"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "floating point, got torch.complex64"),
        (np.zeros((1, 3, 8, 8)), TypeError, "must be a torch.Tensor, got ndarray"),
        (torch.zeros(1, 3, 2, 8), ValueError, "padded height 2, but its kernel reaches over 3"),
        (torch.zeros(1, 3, 8, 1), ValueError, "padded width 3, but its kernel reaches over 5"),
    ],
)
def test_bad_inputs_are_named(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BlockCirculantConv2d(3, 4, 3, padding=(0, 1), dilation=(1, 2))(x)


@pytest.mark.parametrize("layer", [CirculantLinear(5, 2), BlockCirculantLinear(5, 2)])
def test_bad_rows_are_named(layer: nn.Module) -> None:
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf"{name} must have 5 channels on axis -1, got shape \(2, 4\)"):
        layer(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="channels on axis -1"):
        layer(torch.zeros(()))
    with pytest.raises(TypeError, match=r"float64 but its weights are torch\.float32"):
        layer(torch.zeros(5, dtype=F64))


EVERY: list[tuple[Callable[[], Layer], tuple[int, ...]]] = [
    (lambda: CirculantLinear(5, 12), (2, 5)),
    (lambda: BlockCirculantLinear(6, 6, block_size=4), (2, 6)),
    (lambda: BlockCirculantLinear(20, 20, block_size=4), (2, 20)),
    (lambda: BlockCirculantConv2d(3, 4, (1, 2), block_size=2), (2, 3, 4, 5)),
    (lambda: BlockCirculantConv2d(12, 8, 3, stride=(1, 2), groups=2, padding=1, block_size=4), (2, 12, 4, 5)),
]
"""All three layers, blocks by both ways, and an input."""


def test_every_way_is_among_them() -> None:
    ways = [ops.takes_spectra(6, 6, 4), ops.takes_spectra(20, 20, 4), ops.takes_spectra(4, 3, 2, 2)]
    assert [*ways, ops.takes_spectra(4, 6, 4, 9, fold=2)] == [False, True, False, True]


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_empty_batch_gives_an_empty_output_with_a_working_backward(
    make: Callable[[], Layer], shape: tuple[int, ...]
) -> None:
    layer = make()
    x = torch.zeros(0, *shape[1:], requires_grad=True)
    out = layer(x)
    assert out.shape == (0, *layer(torch.zeros(shape)).shape[1:])
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert layer.vectors.grad is not None
    assert float(layer.vectors.grad.abs().sum()) == 0.0


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_gradients_of_gradients(make: Callable[[], Layer], shape: tuple[int, ...]) -> None:
    layer = make().double()
    names = [name for name, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return out

    x = torch.randn(shape, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, *values), fast_mode=True)


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_parameters_that_ask_for_no_gradient_get_none(make: Callable[[], Layer], shape: tuple[int, ...]) -> None:
    layer = make().double()
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    (want,) = torch.autograd.grad(layer(x).square().sum(), x)
    want_vectors = torch.autograd.grad(layer(x.detach()).square().sum(), layer.vectors)[0]
    layer.vectors.requires_grad_(False)
    layer(x).square().sum().backward()
    assert layer.vectors.grad is None
    assert x.grad is not None
    assert torch.allclose(x.grad, want)
    layer.vectors.requires_grad_(True)
    layer(x.detach()).square().sum().backward()
    assert layer.vectors.grad is not None
    assert torch.allclose(layer.vectors.grad, want_vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_the_ops_are_well_formed(make: Callable[[], Layer], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, x = make().to(dtype), torch.randn(shape).to(dtype).requires_grad_()
    op = getattr(torch.ops.fastcnn, str(layer.kernel))
    vectors, bias = layer.vectors, layer.bias
    arguments: tuple[Any, ...]
    if isinstance(layer, CirculantLinear):
        arguments = (x, vectors, layer.signs, bias, layer.out_features)
    elif isinstance(layer, BlockCirculantLinear):
        arguments = (x, vectors, bias, layer.out_features)
    else:
        lists = (list(layer.stride), [1, 0], list(layer.dilation))
        arguments = (x, vectors, bias, layer.out_channels, *lists, layer.groups)
    for values in (arguments, tuple(None if a is bias else a for a in arguments)):
        torch.library.opcheck(op, values, test_utils=["test_schema", "test_autograd_registration", "test_faketensor"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_halves_are_computed_in_float32(make: Callable[[], Layer], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = make().to(dtype)
    full = copy.deepcopy(layer).float()
    x = torch.randn(shape).to(dtype)
    out, want = layer(x), full(x.float())
    # Rounded once, at the end.
    assert out.dtype == dtype
    assert torch.equal(out, want.to(dtype))
    upstream = torch.randn_like(out)
    out.backward(upstream)
    want.backward(upstream.float())
    assert layer.vectors.grad is not None
    assert full.vectors.grad is not None
    assert torch.equal(layer.vectors.grad, full.vectors.grad.to(dtype))


@pytest.mark.parametrize(("make", "shape"), EVERY)
def test_autocast_runs(make: Callable[[], Layer], shape: tuple[int, ...]) -> None:
    layer, x = make(), torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    rounded = copy.deepcopy(layer).to(torch.bfloat16)
    # Autocast rounds what goes in and what comes out; inside, the op computes in float32.
    assert torch.equal(out, rounded(x.to(torch.bfloat16)))
    out.float().square().sum().backward()
    rough = layer.vectors.grad
    assert rough is not None
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert layer.vectors.grad is not None
    assert torch.allclose(rough, layer.vectors.grad, rtol=0.1, atol=0.05 * float(layer.vectors.grad.abs().max()))


@pytest.mark.parametrize("block_size", [1, 4])
def test_channels_last_stays(block_size: int) -> None:
    layer = BlockCirculantConv2d(8, 8, 3, padding=1, block_size=block_size)
    x = torch.randn(2, 8, 5, 6)
    last = x.to(memory_format=torch.channels_last)
    assert layer(x).is_contiguous()
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(last), layer(x), rtol=0, atol=1e-6)
