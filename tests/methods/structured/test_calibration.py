"""Conversion with calibration inputs: moments, the optimum they define, and whole nets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.compression.calibrate import _move_norm, _norm_inputs, sights
from fastcnn.methods.contract import DeclinedError
from fastcnn.methods.structured import calibration
from fastcnn.methods.structured.calibration import Gatherer, RowMoments, whitened_svd

CONFIGS: list[Any] = [
    fc.SVDConfig(rank=8),
    fc.TuckerConfig(ranks=(8, 8)),
    fc.CPConfig(rank=16),
    fc.SeparableConfig(rank=12),
    fc.SeparableConfig(rank=2, scheme=1),
]


def pictures(count: int, channels: int = 3, size: int = 12, seed: int = 0) -> Tensor:
    """Smooth pictures whose channels go together, not around zero: unlike noise, with a covariance worth knowing."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, 4, generator=torch.Generator().manual_seed(7))
    noise = torch.randn(count, 4, size + 8, size + 8, generator=generator)
    smooth = F.avg_pool2d(noise, 5, 1)[:, :, 2 : size + 2, 2 : size + 2]
    return (
        torch.einsum("cd,ndhw->nchw", mix, smooth)
        + 0.5
        + 0.02 * torch.randn(count, channels, size, size, generator=generator)
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_moments_are_those_of_the_patches(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, bias=bias)
    x = pictures(5, 4, 9)
    y = layer(x).detach()
    gatherer = Gatherer(layer, 5)
    gatherer.add(x[:2], y[:2])
    gatherer.add(x[2:], y[2:])
    moments = gatherer.moments()
    assert moments.count == 5 * 25
    padded = F.pad(x, (1, 1, 1, 1)).double()
    for g, part in enumerate(moments.groups):
        samples, outputs = [], []
        for n in range(5):
            for i in range(5):
                for j in range(5):
                    c = 4 // groups
                    samples.append(padded[n, g * c : (g + 1) * c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten())
                    outputs.append(y[n, g * 6 // groups : (g + 1) * 6 // groups, i, j].double())
        s, o = torch.stack(samples), torch.stack(outputs)
        if bias:
            s, o = s - s.mean(0), o - o.mean(0)
        assert torch.allclose(part.covariance, s.T @ s / len(s), atol=1e-9)
        assert torch.allclose(part.cross_covariance, o.T @ s / len(s), atol=1e-9)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ((3, 2), {"padding": (1, 2)}),
        ((1, 5), {"padding": "same", "dilation": (1, 2)}),
        ((4, 3), {"stride": (2, 1), "padding": (2, 0), "dilation": (1, 3)}),
    ],
)
def test_patches_are_what_the_convolution_multiplies(padding_mode: Any, kernel: tuple[int, int], more: Any) -> None:
    """Rows times the weight's rows are the outputs, position by position, however the window walks."""
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 6, kernel, padding_mode=padding_mode, groups=2, **more).double()
    x = torch.randn(3, 4, 11, 9, dtype=torch.float64)
    gatherer = Gatherer(layer, 3)
    rows, outputs = gatherer.inputs(x, 0), gatherer.outputs(layer(x).detach(), 0)
    patches = rows.reshape(len(rows), 2, -1)
    products = torch.einsum("sgn,gmn->sgm", patches, layer.weight.detach().reshape(2, 3, -1)).flatten(1)
    assert layer.bias is not None
    torch.testing.assert_close(products + layer.bias.detach(), outputs)
    assert len(rows) == layer(x)[:, 0].numel()


def test_positions_are_sampled_where_there_are_many() -> None:
    layer = nn.Conv2d(2, 2, 3)
    gatherer = Gatherer(layer, 300)
    x = pictures(300, 2, 40)
    gatherer.add(x, layer(x).detach())
    assert 15_000 < gatherer.moments().count <= 20_000


def test_no_input_and_no_number_are_named() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="saw no calibration input"):
        Gatherer(layer, 1).moments()
    gatherer = Gatherer(layer, 1)
    gatherer.add(torch.full((1, 3), torch.nan), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="hold NaN or Inf"):
        gatherer.moments()


def test_the_whitened_svd_is_the_best_of_its_rank() -> None:
    """No step away from it, of either factor, lowers the error of the outputs."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 10).double()
    x = torch.randn(400, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    seen = x + 0.3 * torch.randn_like(x)  # as earlier approximated layers would give it
    y = layer(x).detach()
    gatherer = Gatherer(layer, 400)
    gatherer.add(seen, y)
    (part,) = gatherer.moments().groups
    reduce, expand = whitened_svd(layer.weight.detach(), part, ridge=0.0).cut(4)

    def error(v: Tensor, u: Tensor) -> Tensor:
        missed = y - seen @ (u @ v).T
        return (missed - missed.mean(0)).square().sum(1).mean()

    v, u = reduce.clone().requires_grad_(), expand.clone().requires_grad_()
    least = error(v, u)
    gradients = torch.autograd.grad(least, (v, u))
    assert max(float(g.abs().max()) for g in gradients) < 1e-8 * float(y.square().sum(1).mean())
    plain = whitened_svd(layer.weight.detach(), None, ridge=0.0).cut(4)
    assert float(least.detach()) < 0.8 * float(error(*plain))


def test_singular_values_are_the_error_of_the_outputs() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 10).double()
    x = torch.randn(500, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    y = layer(x).detach()
    gatherer = Gatherer(layer, 500)
    gatherer.add(x, y)
    (part,) = gatherer.moments().groups
    spectrum = whitened_svd(layer.weight.detach(), part, ridge=0.0)
    reduce, expand = spectrum.cut(3)
    missed = y - x @ (expand @ reduce).T
    lost = float((missed - missed.mean(0)).square().sum(1).mean())
    assert lost == pytest.approx(float(spectrum.singular[3:].square().sum()), rel=1e-6)


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 25, 40),
    )


def settled() -> nn.Sequential:
    """The net with batch norms that have seen pictures."""
    model = net().train()
    with torch.no_grad():
        for seed in range(10):
            model(pictures(32, seed=seed + 50))
    return model.eval()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{getattr(c, 'scheme', '')}")
def test_calibration_lowers_the_error_of_outputs_it_has_not_seen(config: Any) -> None:
    model = settled()
    layers = [name for name in ("3", "6", "9") if config.method == "svd" or name != "9"]
    before = copy.deepcopy(model.state_dict())
    x = pictures(64, seed=1)
    with torch.no_grad():
        want = model(pictures(64, seed=2))
        errors = [
            float((fc.convert(model, config, layers, data=data)(pictures(64, seed=2)) - want).norm() / want.norm())
            for data in (None, x)
        ]
    assert errors[1] < 0.8 * errors[0]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert not model.training


def test_the_mode_is_kept() -> None:
    for training in (True, False):
        model = settled().train(training)
        small = fc.convert(model, fc.SVDConfig(rank=4), ["3"], data=pictures(16))
        assert {module.training for module in small.modules()} == {training}


def test_batches_of_any_form_give_the_same_net() -> None:
    model = settled()
    x = pictures(32, seed=1)
    whole = fc.convert(model, fc.SVDConfig(rank=6), ["3", "6"], data=x)
    labels = torch.zeros(16)
    parts = fc.convert(model, fc.SVDConfig(rank=6), ["3", "6"], data=[(x[:16], labels), [x[16:], labels]])
    y = pictures(4, seed=5)
    with torch.no_grad():
        assert torch.allclose(whole(y), parts(y), atol=1e-4)


def test_norms_follow_what_conversion_changed() -> None:
    """By what it changed on the same pictures, whatever those are like: bright ones do for all others."""
    model = settled()
    changed = copy.deepcopy(model)
    bright, y = [pictures(64, seed=1) + 1.0], pictures(64, seed=2)
    with torch.no_grad():
        changed[0].weight.mul_(1.3)  # type: ignore[index,union-attr,operator]
        changed[3].bias.add_(0.2)  # type: ignore[index,union-attr,operator]
        before = _norm_inputs(model, ["1", "4"], bright)
        for name in ("1", "4"):
            _move_norm(changed.get_submodule(name), before[name], _norm_inputs(changed, [name], bright)[name])
        want = model(y)
        assert float((changed(y) - want).abs().max() / want.abs().max()) < 0.01
        assert not torch.allclose(changed[1].running_var, model[1].running_var, rtol=0.5)  # type: ignore[index,arg-type]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_wide_layers_keep_rows_and_come_out_the_same(bias: bool, ridge: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than features, as of the first linear layer of VGG-16: no matrix of its inputs squared."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(48, 40, bias=bias), nn.ReLU(), nn.Linear(40, 12, bias=bias))
    data = [torch.randn(9, 20) @ torch.randn(20, 48) + 1 for _ in range(3)]
    config = fc.SVDConfig(rank=7, ridge=ridge, force=True)
    want = fc.convert(model, config, data=data)
    monkeypatch.setattr(calibration, "WIDEST", 4)
    got = fc.convert(model, config, data=data)
    for x in (*data, torch.randn(5, 48)):
        torch.testing.assert_close(got(x), want(x), rtol=1e-3, atol=1e-4)
    ((_, sight), _) = sights(model, ["0", "2"], data)
    assert sight is not None
    rows = sight.moments.of_group(0)
    assert isinstance(rows, RowMoments)
    x = torch.cat(data).double()
    x = x - x.mean(0) if bias else x
    matrix = torch.randn(5, 48, dtype=torch.float64)
    assert rows.energy(matrix) == pytest.approx(float((x @ matrix.T).square().sum()) / len(x))
    for what in ("second", "covariance"):
        with pytest.raises(DeclinedError, match=r"second moments of its 48 inputs take .* layers of 4 inputs at most"):
            getattr(rows, what)


@pytest.mark.parametrize("batches", [1, 3, 60])
def test_wide_layers_keep_a_limited_number_of_rows(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Inputs and outputs of the same rows, and no view of maps that are overwritten later."""
    monkeypatch.setattr(calibration, "WIDEST", 4)
    monkeypatch.setattr(calibration, "MOST_WIDE_ROWS", 12)
    layer = nn.Linear(8, 3).double()
    gatherer = Gatherer(layer, 60)
    for x in torch.randn(60, 8, dtype=torch.float64).chunk(batches):
        gatherer.add(x, layer(x).detach())
        x.zero_()
    rows = gatherer.moments().of_group(0)
    assert isinstance(rows, RowMoments)
    assert rows.inputs.shape == (12, 8)
    torch.testing.assert_close(layer(rows.inputs), rows.outputs)
    assert float(rows.inputs.abs().min()) > 0
    again = Gatherer(layer, 60)
    for _ in range(3):  # called three times for every input
        x = torch.randn(60, 8, dtype=torch.float64)
        again.add(x, layer(x).detach())
    assert again.moments().count == 12


def test_wide_layers_take_a_few_positions_of_each_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WIDEST", 4)
    monkeypatch.setattr(calibration, "MOST_WIDE_ROWS", 12)
    layer, x = nn.Linear(8, 3), torch.arange(4 * 30 * 8.0).reshape(4, 30, 8)
    gatherer = Gatherer(layer, 4)
    gatherer.add(x, layer(x).detach())
    moments = gatherer.moments()
    assert moments.count == 12
    part = moments.of_group(0)
    assert isinstance(part, RowMoments)
    torch.testing.assert_close(part.outputs, layer(part.inputs.float()).double(), rtol=1e-5, atol=1e-3)


def off_centre(norm: nn.BatchNorm2d, mean: Tensor) -> Tensor:
    """Distance of a mean from what a norm expects, in the standard deviations it expects."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return (mean - norm.running_mean) / norm.running_var.sqrt()


def test_norms_are_moved_before_the_next_layer_is_looked_at() -> None:
    """In the order in which the net runs: at the end every norm sees about what it expects."""
    model = settled()
    data = pictures(64, seed=1)
    small = fc.convert(model, fc.SVDConfig(rank=2), ["0", "3"], data=data)
    for name in ("1", "4"):
        ours, theirs = (_norm_inputs(net, [name], [data])[name] for net in (small, model))
        norm, old = small.get_submodule(name), model.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(old, nn.BatchNorm2d)
        assert float((off_centre(norm, ours.mean) - off_centre(old, theirs.mean)).abs().max()) < 0.05


def test_layers_that_the_inputs_do_not_reach_are_declined() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(20, 20), nn.Linear(20, 20)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    small = fc.convert(Two(), fc.SVDConfig(rank=4), data=torch.randn(50, 20))
    lines = {line.layer: (line.status, line.why) for line in fc.report(small)}
    assert lines["used"][0] == "done"
    assert lines["spare"] == ("declined", "the calibration inputs do not reach it")


def test_a_shared_layer_is_fitted_to_all_of_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(20, 20)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(torch.relu(self.layer(x)))
            return out

    model, data = Twice(), torch.randn(50, 20)
    ((name, sight),) = sights(model, ["layer"], [data])
    assert name == "layer"
    assert sight is not None
    assert sight.moments.count == 100
    both = torch.cat((data, torch.relu(model.layer(data)).detach())).double()
    assert torch.allclose(sight.moments.groups[0].second, both.T @ both / 100, atol=1e-6)
    small = fc.convert(model, fc.SVDConfig(rank=4), data=data)
    assert [line.status for line in fc.report(small)] == ["done"]


def test_layers_that_are_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(20, 20), nn.BatchNorm1d(20)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(input=self.layer(input=x))
            return out

    small = fc.convert(Named().eval(), fc.SVDConfig(rank=4), data=torch.randn(50, 20))
    assert [line.status for line in fc.report(small)] == ["done"]


def test_data_that_would_be_ignored_is_refused() -> None:
    x = torch.randn(4, 4, 8, 8)
    model = nn.Sequential(nn.Conv2d(4, 8, 3))
    for config in (
        fc.PredictedConfig(keep=0.3),
        fc.BiclusteredConfig(input_groups=1, output_groups=1, ranks=(2, 2)),
        fc.MonochromaticConfig(),
    ):
        with pytest.raises(ValueError, match="reads no calibration data, as it is set"):
            fc.convert(model, config, data=x)


def test_bad_data_is_named() -> None:
    model = settled()
    config = fc.SVDConfig(rank=4)
    with pytest.raises(TypeError, match="data must be a tensor or batches of them, got int"):
        fc.convert(model, config, data=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data holds no batch"):
        fc.convert(model, config, data=[])
    with pytest.raises(TypeError, match="must be a tensor, or begin with one, got str"):
        fc.convert(model, config, data=["picture"])
    with pytest.raises(ValueError, match=r"does not run on the first batch of data, of shape \(2, 5, 12, 12\)"):
        fc.convert(model, config, data=torch.zeros(2, 5, 12, 12))
    with pytest.raises(ValueError, match="hold NaN or Inf"):
        fc.convert(model, config, data=torch.full((2, 3, 12, 12), torch.nan))
