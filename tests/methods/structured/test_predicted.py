"""Predicted parameters: kernels against NumPy, smooth weights are predicted, layers equal what they rebuild."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.methods.contract import ConvSpec, DeclinedError, LinearSpec, Sight, relative_error
from fastcnn.methods.structured.calibration import GroupMoments, Moments
from fastcnn.methods.structured.predicted import PredictedConfig, PredictedConv2d, PredictedLinear

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def smooth(count: int, channels: int, height: int, width: int) -> Tensor:
    """Weights (count, channels * height * width) that vary slowly over a picture: sums of a few low cosines."""
    generator = np.random.default_rng(0)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    found = np.zeros((count, channels, height, width))
    for f, c in np.ndindex(count, channels):
        for a in range(3):
            for b in range(3):
                wave = np.cos(math.pi * a * (y + 0.5) / height) * np.cos(math.pi * b * (x + 0.5) / width)
                found[f, c] += generator.normal() * wave
    return torch.from_numpy(found.reshape(count, -1)).float()


def dense_linear(weight: Tensor) -> nn.Linear:
    dense = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        dense.weight.copy_(weight)
    return dense


def sight_of(*seconds: Tensor) -> Sight:
    """A sight of which only the second moments are read."""
    groups = tuple(
        GroupMoments(
            mean=torch.zeros(len(second)),
            second=second,
            out_mean=torch.zeros(1),
            cross=torch.zeros(1, len(second)),
            centred=False,
        )
        for second in seconds
    )

    def never(*_: object) -> float:
        raise AssertionError("no layer is timed here")

    return Sight(moments=Moments(groups, 1), input_shape=(1,), latency_ms=never, dense_ms=never)


def chosen_of(basis: Array, kernel: Array, ridge: float) -> list[int]:
    """Inputs alpha of a transposed U (n_alpha, n), which is checked against (K_aa + ridge I)^-1 K_a."""
    # A learned input is predicted from itself before all others: the largest entry of its row.
    found = [int(np.argmax(row)) for row in basis]
    rows = kernel[found]
    want = np.linalg.solve(rows[:, found] + ridge * np.eye(len(found)), rows)
    assert np.allclose(basis, want, atol=1e-9)
    return found


def squared_exponential(channels: int, height: int, width: int, scale: float) -> Array:
    """K by loops."""
    places = list(np.ndindex(channels, height, width))
    kernel = np.zeros((len(places), len(places)))
    for i, (c, y, x) in enumerate(places):
        for j, (d, v, u) in enumerate(places):
            kernel[i, j] = (c == d) * math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * scale**2))
    return kernel


def test_predictors_of_a_picture_are_ridge_regression_with_its_kernel() -> None:
    config = PredictedConfig(keep=0.3, grid=(4, 5), width=0.8, ridge=0.05)
    layer = PredictedLinear(40, 7, config=config, dtype=torch.float64)
    assert layer.basis.shape == (12, 40)
    chosen = chosen_of(layer.basis.numpy(), squared_exponential(2, 4, 5, 0.8), 0.05)
    assert len(set(chosen)) == 12
    assert chosen == sorted(chosen)
    # Nothing is predicted across channels.
    for row, place in zip(layer.basis, chosen, strict=True):
        other = row[20:] if place < 20 else row[:20]
        assert not other.any()


def test_predictors_of_taps_are_those_of_a_small_picture() -> None:
    config = PredictedConfig(keep=0.4, width=0.7, ridge=0.02)
    layer = PredictedConv2d(4, 6, (3, 2), groups=2, config=config, dtype=torch.float64)
    assert layer.basis.shape == (2 * 5, 2, 3, 2)
    kernel = squared_exponential(2, 3, 2, 0.7)
    first, second = (part.reshape(5, 12).numpy() for part in layer.basis.chunk(2))
    assert chosen_of(first, kernel, 0.02) != chosen_of(second, kernel, 0.02), "each group draws its own"


def test_predictors_from_data_use_the_second_moments_over_their_mean_diagonal() -> None:
    roots = torch.randn(2, 18, 30, dtype=torch.float64)
    seconds = [root @ root.T / 30 + torch.eye(18, dtype=torch.float64) for root in roots]
    config = PredictedConfig(keep=0.5, kernel="covariance", ridge=0.1, force=True)
    dense = nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64)
    layer = PredictedConv2d.from_dense(dense, config, sight_of(*seconds))
    for part, second in zip(layer.basis.chunk(2), seconds, strict=True):
        kernel = second.numpy() / np.trace(second.numpy()) * 18
        chosen_of(part.reshape(9, 18).numpy(), kernel, 0.1)


def test_covariance_predicts_inputs_that_move_together() -> None:
    mixing = torch.randn(60, 6, dtype=torch.float64)
    second = mixing @ mixing.T + 1e-4 * torch.eye(60, dtype=torch.float64)
    # Weights in the span of what the layer sees, as training leaves them.
    dense = dense_linear((mixing @ torch.randn(6, 50, dtype=torch.float64)).T.float())
    config = PredictedConfig(keep=0.1, kernel="covariance", ridge=1e-3, force=True)
    near = PredictedLinear.from_dense(dense, config, sight_of(second)).to_dense().weight
    far = PredictedLinear.from_dense(dense, PredictedConfig(keep=0.1, kernel="random")).to_dense().weight
    assert relative_error(dense.weight, near) < 0.05
    assert relative_error(dense.weight, far) > 0.5


def test_learned_inputs_lie_apart() -> None:
    for seed in range(5):
        config = PredictedConfig(keep=0.25, grid=(1, 40), width=1.0, seed=seed)
        chosen = np.argmax(PredictedLinear(40, 3, config=config).basis.numpy(), axis=1)
        assert np.diff(chosen).min() >= 2, chosen


def test_columns_choose_inputs_of_their_own_from_data_too() -> None:
    root = torch.randn(40, 60, dtype=torch.float64)
    config = PredictedConfig(keep=0.25, kernel="covariance", columns=2, force=True)
    layer = PredictedLinear.from_dense(nn.Linear(40, 6), config, sight_of(root @ root.T))
    one, two = (set(np.argmax(part.numpy(), axis=1).tolist()) for part in layer.basis.chunk(2))
    assert len(one | two) > 12, "without a spread both columns would take the largest variances"


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_coordinates_beat_the_baselines_on_smooth_weights(kind: str) -> None:
    if kind == "linear":
        dense: Any = dense_linear(smooth(50, 2, 14, 14))
        cls: Any = PredictedLinear
    else:
        dense, cls = nn.Conv2d(4, 30, 7), PredictedConv2d
        with torch.no_grad():
            dense.weight.copy_(smooth(30, 4, 7, 7).reshape(30, 4, 7, 7))
    errors = {}
    kernels: tuple[Any, ...] = ("coordinates", "random", "identity")
    for kernel in kernels:
        config = PredictedConfig(keep=0.25, kernel=kernel, grid=(14, 14), width=1.5)
        errors[kernel] = relative_error(dense.weight, cls.from_dense(dense, config).to_dense().weight)
    assert errors["coordinates"] < 0.5 * errors["random"], errors
    assert errors["coordinates"] < 0.5 * errors["identity"], errors


@pytest.mark.parametrize("kernel", ["coordinates", "identity", "random"])
def test_all_weights_learned_rebuild_the_layer(kernel: Any) -> None:
    config = PredictedConfig(keep=1.0, kernel=kernel, grid=(3, 4), ridge=1e-9, force=True)
    linear = nn.Linear(24, 9, dtype=torch.float64)
    conv = nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64)
    for dense, cls in ((linear, PredictedLinear), (conv, PredictedConv2d)):
        layer = cls.from_dense(dense, config)  # type: ignore[attr-defined]
        assert torch.allclose(layer.to_dense().weight, dense.weight, rtol=0, atol=1e-7)


def test_the_fit_is_the_best_there_is() -> None:
    dense = nn.Linear(24, 9, dtype=torch.float64)
    layer = PredictedLinear.from_dense(dense, PredictedConfig(grid=(4, 6), keep=0.5))
    basis = layer.basis.numpy()
    left = dense.weight.detach().numpy() - layer.weight.numpy()
    # What is left is orthogonal to every predictor, and picking W[:, alpha] is worse.
    assert np.allclose(left @ basis.T, 0, atol=1e-10)
    chosen = [int(np.argmax(row)) for row in basis]
    picked = dense.weight.detach().numpy()[:, chosen] @ basis
    assert np.linalg.norm(left) < np.linalg.norm(dense.weight.detach().numpy() - picked)


def test_columns_lift_the_limit_of_the_rank() -> None:
    dense = nn.Linear(40, 24, dtype=torch.float64)
    for columns in (1, 2, 4):
        config = PredictedConfig(keep=0.1, kernel="identity", columns=columns)
        layer = PredictedLinear.from_dense(dense, config)
        weight = layer.weight.numpy()
        assert np.linalg.matrix_rank(weight) > 4 * (columns - 1)
        for rows in np.split(weight, columns):
            assert np.linalg.matrix_rank(rows) <= 4
            assert (np.abs(rows).sum(0) > 0).sum() == 4
        assert sum(p.numel() for p in layer.parameters()) == 24 * 4 + 24


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_dense_layer_with_the_rebuilt_weight(columns: int, bias: bool) -> None:
    config = PredictedConfig(keep=0.3, kernel="random", columns=columns)
    layer = PredictedLinear(20, 12, bias, config=config, dtype=torch.float64)
    rows = []
    for o in range(12):
        block = o // (12 // columns)
        rows.append(layer.w_alpha.detach().numpy()[o] @ layer.basis.numpy()[block * 6 : block * 6 + 6])
    x = torch.randn(2, 3, 20, dtype=torch.float64)
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias.normal_()
    want = x.numpy() @ np.array(rows).T + (layer.bias.detach().numpy() if layer.bias is not None else 0)
    assert np.allclose(layer(x).detach().numpy(), want, atol=1e-12)
    assert np.allclose(layer.to_dense().weight.detach().numpy(), np.array(rows), atol=1e-13)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 2)},
        {"kernel_size": 3, "stride": (2, 1), "padding": (1, 3), "bias": False},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "stride": 2, "groups": 2},
        {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_conv_is_the_dense_conv_with_the_rebuilt_weight(arguments: dict[str, Any], columns: int) -> None:
    layer = PredictedConv2d(4, 12, **arguments, config=PredictedConfig(columns=columns), dtype=torch.float64)
    groups = arguments.get("groups", 1)
    learned, each = layer.w_alpha.shape[1], 12 // (groups * columns)
    dense = nn.Conv2d(4, 12, **arguments, dtype=torch.float64)
    with torch.no_grad():
        for f in range(12):
            block = f // each
            own = layer.basis[block * learned : (block + 1) * learned]
            dense.weight[f] = sum(float(layer.w_alpha[f, a]) * own[a] for a in range(learned))
        if dense.bias is not None and layer.bias is not None:
            layer.bias.normal_()
            dense.bias.copy_(layer.bias)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    assert torch.allclose(layer(x), dense(x), atol=1e-12)
    assert torch.allclose(layer(x[0]), dense(x[0]), atol=1e-12)
    assert torch.allclose(layer.to_dense().weight, dense.weight, atol=1e-13)


def test_gradients_and_their_gradients() -> None:
    linear = PredictedLinear(12, 6, config=PredictedConfig(kernel="random", columns=2), dtype=torch.float64)
    conv = PredictedConv2d(2, 4, 3, groups=2, config=PredictedConfig(), dtype=torch.float64)
    for layer, x in ((linear, torch.randn(2, 12)), (conv, torch.randn(1, 2, 5, 5))):
        names = [name for name, _ in layer.named_parameters()]
        values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

        def call(x: Tensor, *parameters: Tensor, layer: Any = layer, names: Any = names) -> Tensor:
            given = dict(zip(names, parameters, strict=True))
            out: Tensor = torch.func.functional_call(layer, given, (x,))
            return out

        assert torch.autograd.gradcheck(call, (x.double().requires_grad_(), *values), fast_mode=True)
        assert torch.autograd.gradgradcheck(call, (x.double().requires_grad_(), *values), fast_mode=True)
        assert not layer.basis.requires_grad


def test_counts_and_cost() -> None:
    spec = ConvSpec(in_channels=8, out_channels=12, kernel_size=(3, 3), groups=2, output_size=(5, 7))
    config = PredictedConfig(keep=0.25, columns=3)
    layer = PredictedConv2d(8, 12, 3, groups=2, config=config)
    cost = PredictedConv2d.cost(config, spec)
    # n = 36, of which 9 are learned; U of 2 groups by 3 columns.
    assert (cost.params, cost.param_bytes) == (12 * 9 + 12, 4 * (12 * 9 + 12 + 6 * 9 * 36))
    assert cost.params == sum(p.numel() for p in layer.parameters())
    assert cost.param_bytes == sum(t.numel() * 4 for t in layer.state_dict().values())
    assert cost.macs == 35 * (6 * 9 * 36 + 12 * 9)
    theory = layer.theory()
    assert (theory.params, theory.macs, theory.bytes) == (12 * 9, 6 * 9 * 36 + 12 * 9, 4 * (12 * 9 + 12))
    linear = PredictedLinear.cost(PredictedConfig(keep=0.1), LinearSpec(in_features=784, out_features=500, bias=False))
    assert (linear.params, linear.macs) == (500 * 78, 78 * 784 + 500 * 78)


def test_predictors_from_data_are_counted_as_stored() -> None:
    second = torch.eye(40, dtype=torch.float64)
    dense = nn.Linear(40, 100)
    config = PredictedConfig(keep=0.25, kernel="covariance")
    with_data = PredictedLinear.from_dense(dense, config, sight_of(second))
    assert with_data.theory().bytes == 4 * (100 * 10 + 100 + 10 * 40)
    without = PredictedLinear.from_dense(dense, PredictedConfig(keep=0.25, kernel="identity"))
    assert without.theory().bytes == 4 * (100 * 10 + 100)
    assert without.theory().params == 1100


def test_the_start_of_training_has_the_variance_that_was_asked_for() -> None:
    layers: list[Any] = [
        PredictedLinear(196, 300, config=PredictedConfig(grid=(14, 14))),
        PredictedConv2d(6, 90, 5, groups=2, config=PredictedConfig(kernel="random", columns=3)),
    ]
    for layer, fan_in in zip(layers, (196, 75), strict=True):
        assert float(layer.weight.square().mean()) == pytest.approx(2 / fan_in, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_training_from_scratch_lowers_the_loss(kind: str) -> None:
    config = PredictedConfig(grid=(5, 6), keep=0.5)
    layer: Any = PredictedLinear(30, 8, config=config) if kind == "linear" else PredictedConv2d(3, 8, 3, config=config)
    x = torch.randn(64, 30) if kind == "linear" else torch.randn(16, 3, 6, 6)
    target = dense_linear(smooth(8, 1, 5, 6)) if kind == "linear" else nn.Conv2d(3, 8, 3)
    if kind == "conv":
        with torch.no_grad():
            target.weight.fill_(0.3)
    before = layer.basis.clone()
    wanted = target(x).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.mse_loss(layer(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(layer.basis, before), "predictors are fixed"


def test_the_seed_alone_decides_what_is_learned() -> None:
    kernels: tuple[Any, ...] = ("coordinates", "identity", "random")
    for kernel in kernels:
        one, two, other = (
            PredictedLinear(40, 4, config=PredictedConfig(kernel=kernel, grid=(5, 8), seed=seed)).basis
            for seed in (0, 0, 1)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


def test_conversion_leaves_its_argument_and_keeps_state() -> None:
    dense = nn.Conv2d(3, 4, 3, dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    before = copy.deepcopy(dense.state_dict())
    layer = PredictedConv2d.from_dense(dense, PredictedConfig())
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert layer.bias is not None
    assert (layer.training, layer.w_alpha.requires_grad, layer.bias.requires_grad) == (False, False, True)
    assert {t.dtype for t in layer.state_dict().values()} == {torch.float64}
    with torch.no_grad():
        layer.bias.add_(1.0)
    assert torch.equal(dense.bias, before["bias"])  # type: ignore[arg-type]


def test_state_dict_and_deepcopy() -> None:
    config = PredictedConfig(kernel="random", seed=1)
    layer = PredictedConv2d(3, 4, 3, config=config)
    other = PredictedConv2d(3, 4, 3, config=PredictedConfig(kernel="random", seed=2))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 3, 6, 6)
    want = layer(x).detach().clone()
    assert torch.equal(other(x), want), "the file carries the predictors"
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.w_alpha.zero_()
        twin.basis.zero_()
    assert torch.equal(layer(x), want)


def test_declined_layers_say_why() -> None:
    linear = nn.Linear(20, 9)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (linear, {}, "needs the height and width of the picture it is given: set grid"),
        (linear, {"grid": (3, 3)}, r"its 20 inputs are no pictures of grid=\(3, 3\)"),
        (linear, {"kernel": "identity", "columns": 2}, "columns=2 does not divide its 9 outputs"),
        (linear, {"kernel": "covariance"}, "give convert data"),
        (linear, {"kernel": "identity", "keep": 1.0}, "20 learned weights of 20 would need 180 stored numbers and 580"),
        (nn.Conv2d(4, 6, 1), {}, "one pixel each"),
        (nn.Conv2d(4, 6, 3, groups=2), {"columns": 2}, "does not divide its 3 outputs of each group"),
    ]
    for dense, settings, why in cases:
        cls: Any = PredictedLinear if isinstance(dense, nn.Linear) else PredictedConv2d
        with pytest.raises(DeclinedError, match=why):
            cls.from_dense(dense, PredictedConfig(**settings))
    assert PredictedConv2d.from_dense(nn.Conv2d(4, 6, 1), PredictedConfig(force=True)).w_alpha.shape == (6, 1)
    with pytest.raises(ValueError, match="PredictedLinear cannot be made: columns=2 does not divide its 9 outputs"):
        PredictedLinear(20, 9, config=PredictedConfig(kernel="identity", columns=2))
    with pytest.raises(DeclinedError, match="every calibration input of it is zero"):
        PredictedLinear.from_dense(
            linear, PredictedConfig(kernel="covariance", force=True), sight_of(torch.zeros(20, 20))
        )


def test_inputs_that_predict_each_other_ask_for_a_larger_ridge() -> None:
    with pytest.raises(ValueError, match=r"singular with ridge=1e-18.*give a larger ridge, 1e-06"):
        PredictedLinear(36, 4, config=PredictedConfig(grid=(6, 6), width=1e4, ridge=1e-18))
    PredictedLinear(36, 4, config=PredictedConfig(grid=(6, 6), width=1e4, ridge=1e-6))


def test_a_model_is_converted_and_the_rest_reported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten(), nn.Linear(128, 10))
    small = fc.convert(model, PredictedConfig())
    lines = {line.layer: line for line in fc.report(small)}
    assert [lines[name].status for name in ("0", "2", "4")] == ["done", "declined", "declined"]
    assert lines["0"].params_after == 16 * 19 + 16
    assert small(torch.randn(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(bad: float) -> None:
    dense = nn.Conv2d(3, 2, 3)
    with torch.no_grad():
        dense.weight[1, 1, 1, 1] = bad
    with pytest.raises(ValueError, match="1 non-finite"):
        PredictedConv2d.from_dense(dense, PredictedConfig())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"keep": 0}, ValueError, "keep=0 is out of range"),
        ({"keep": 1.5}, ValueError, "keep=1.5 is out of range"),
        ({"keep": "all"}, TypeError, "keep must be a number, got str"),
        ({"columns": 0}, ValueError, "columns=0"),
        ({"kernel": "laplace"}, ValueError, "kernel='laplace' is not supported: choose from 'coordinates'"),
        ({"grid": 28}, TypeError, "grid must be"),
        ({"grid": (28, 0)}, ValueError, "width of grid=0"),
        ({"width": 0.0}, ValueError, "width must be above 0"),
        ({"ridge": 0}, ValueError, "ridge must be above 0"),
        ({"ridge": -1.0}, ValueError, "ridge=-1.0"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"force": None}, TypeError, "force must be True or False, got None"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PredictedConfig(**settings)


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
        PredictedConv2d(4, 5, 3, config=PredictedConfig())(x)
    with pytest.raises(ValueError, match=r"5 channels on axis -1, got shape \(2, 4\)"):
        PredictedLinear(5, 2, config=PredictedConfig(kernel="identity"))(torch.zeros(2, 4))


def test_empty_batch_gives_an_empty_output_with_a_working_backward() -> None:
    conv = PredictedConv2d(3, 4, 3, config=PredictedConfig())
    linear = PredictedLinear(8, 4, config=PredictedConfig(kernel="random", columns=2))
    for layer, x, shape in ((conv, torch.zeros(0, 3, 8, 8), (0, 4, 6, 6)), (linear, torch.zeros(2, 0, 8), (2, 0, 4))):
        out = layer(x.requires_grad_())
        assert out.shape == shape
        out.sum().backward()
        assert layer.w_alpha.grad is not None
        assert not layer.w_alpha.grad.any()


def test_autocast_and_export_run() -> None:
    net = nn.Sequential(
        PredictedConv2d(3, 8, 3, config=PredictedConfig(columns=2)),
        nn.Flatten(),
        PredictedLinear(128, 6, config=PredictedConfig(kernel="random", columns=2)),
    ).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x)
    assert low.dtype == torch.bfloat16
    full = net(x).detach()
    assert torch.allclose(low.float(), full, atol=0.05 * float(full.abs().max()))
    program = torch.export.export(net, (x,))
    assert torch.equal(program.module()(x), full)
