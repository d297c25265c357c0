"""Magnitude pruning: masks hold through any optimizer, schedules grow, results are ordinary modules."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import fastcnn as fc
from fastcnn.methods.contract import EmptyLayerError
from fastcnn.methods.pruning.magnitude import MagnitudeConfig, MagnitudeSession


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 8, 3),
            act=nn.ReLU(),
            depth=nn.Conv2d(8, 8, 3, groups=8),
            conv=nn.Conv2d(8, 12, 3, bias=False),
            flat=nn.Flatten(),
            fc=nn.Linear(12 * 4, 20),
            last=nn.Linear(20, 5),
        )
    )


def zeros(module: nn.Module) -> float:
    weight = module.get_parameter("weight")
    return float((weight == 0).double().mean())


@pytest.mark.parametrize("make", ["SGD", "Adam", "AdamW"])
def test_masked_weights_stay_exactly_zero_through_training(make: str) -> None:
    trainee = fc.prepare(net(), MagnitudeConfig(sparsity=0.8, skip=()))
    options = {"lr": 0.05, "weight_decay": 0.1} | ({"momentum": 0.9, "nesterov": True} if make == "SGD" else {})
    optimizer = getattr(torch.optim, make)(trainee.parameters(), **options)
    masks = {name: value.clone() for name, value in trainee.named_buffers() if name.endswith("mask")}
    assert len(masks) == 5
    for _ in range(6):
        optimizer.zero_grad()
        trainee(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        trainee.step()
        for name, mask in masks.items():
            stored = trainee.get_parameter(name.removesuffix("0.mask") + "original")
            assert torch.equal(stored[~mask], torch.zeros_like(stored[~mask]))
            assert not torch.signbit(stored.detach()[~mask]).any()
            assert stored.grad is not None
            assert torch.equal(stored.grad[~mask], torch.zeros_like(stored[~mask]))
    small = fc.convert(trainee)
    assert [type(m) for m in small] == [type(m) for m in net()]
    assert small.state_dict().keys() == net().state_dict().keys()
    assert zeros(small.fc) == pytest.approx(0.8, abs=1e-3)  # type: ignore[arg-type]


def test_momentum_would_move_them_without_the_step() -> None:
    # The reason step() exists: weight gets momentum before pruning, then coasts.
    trainee = fc.prepare(net(), MagnitudeConfig(sparsity=0.9, begin=2, skip=()))
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.05, momentum=0.9)
    for index in range(4):
        optimizer.zero_grad()
        trainee(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        if index < 2:
            trainee.step()
    weight = trainee.get_submodule("model.fc").parametrizations
    assert float(weight["weight"].original.ne(0).double().mean()) > 0.5  # type: ignore[index,union-attr,operator]


def test_ratio_counts_are_exact_per_layer_with_overrides() -> None:
    config = MagnitudeConfig(sparsity=0.5, overrides={"f*": 0.75, "conv": 0.9}, exclude="last", skip=("depthwise",))
    small = fc.convert(net(), config)
    for name, want in {"first": 0.75, "conv": 0.9, "fc": 0.75}.items():
        weight = small.get_parameter(f"{name}.weight")
        assert int((weight == 0).sum()) == round(want * weight.numel())
    why = {line.layer: line for line in fc.report(small)}
    assert why["last"].status == why["depth"].status == "declined"
    assert why["last"].why == "excluded by 'last'"
    assert "depthwise" in why["depth"].why
    assert torch.equal(small.get_parameter("last.weight"), net().last.weight)  # type: ignore[arg-type]
    assert [line.layer for line in fc.report(small)] == ["first", "depth", "conv", "fc", "last"]


def test_default_exclusions() -> None:
    small = fc.convert(net(), MagnitudeConfig(sparsity=0.5))
    done = {line.layer for line in fc.report(small) if line.status == "done"}
    assert done == {"conv", "fc"}


def test_threshold_is_quality_times_std_of_the_dense_weight() -> None:
    dense = net()
    small = fc.convert(dense, MagnitudeConfig(mode="threshold", quality=0.7, overrides={"conv": 0.2}, skip=()))
    for name, quality in {"fc": 0.7, "conv": 0.2}.items():
        before, after = dense.get_parameter(f"{name}.weight"), small.get_parameter(f"{name}.weight")
        cut = quality * float(before.detach().double().std(correction=0))
        assert torch.equal(after == 0, before.abs() < cut)


def test_threshold_does_not_prune_what_shrank_while_retraining() -> None:
    trainee = fc.prepare(net(), MagnitudeConfig(mode="threshold", quality=0.7, skip=()))
    before = trainee.session.sparsity()  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in trainee.parameters():
            parameter.mul_(0.01)
    trainee.step()
    small = fc.convert(trainee)
    assert zeros(small.get_submodule("fc")) == pytest.approx(before["fc"])


def test_global_mode_reaches_the_total_and_favours_large_layers() -> None:
    dense = net()
    with torch.no_grad():
        dense.conv.weight.mul_(0.001)  # type: ignore[operator]
    small = fc.convert(dense, MagnitudeConfig(mode="global", sparsity=0.5, skip=(), exclude="conv"))
    layers = [small.get_parameter(f"{n}.weight") for n in ("first", "depth", "fc", "last")]
    total = sum(w.numel() for w in layers)
    assert sum(int((w == 0).sum()) for w in layers) == round(0.5 * total)
    with pytest.raises(EmptyLayerError, match="layer 'conv' would lose all of its 864 weights"):
        fc.convert(dense, MagnitudeConfig(mode="global", sparsity=0.6, skip=()))


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ("oneshot", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.0, 0.2, 0.2, 0.2 + 0.8 / 3, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 0.2 + 1.6 / 3, 1.0]),
        ("cubic", [0.0, 0.0, 0.2, 0.2, 1 - 0.8 * 8 / 27, 1 - 0.8 * 8 / 27, 1 - 0.8 / 27, 1 - 0.8 / 27, 1.0]),
    ],
)
def test_schedules(schedule: str, want: list[float]) -> None:
    config = MagnitudeConfig(schedule=schedule, begin=2, end=8, every=2, initial=0.2)  # type: ignore[arg-type]
    assert [config.progress(step) for step in range(9)] == pytest.approx(want)


def test_gradual_masks_only_grow() -> None:
    trainee = fc.prepare(net(), MagnitudeConfig(sparsity=0.9, schedule="cubic", end=6, skip=()))
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.1)
    dead = torch.zeros(20, 48, dtype=torch.bool)
    counts = []
    for _ in range(8):
        trainee(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        trainee.step()
        weight = trainee.get_submodule("model.fc").weight
        assert isinstance(weight, torch.Tensor)
        assert (weight[dead] == 0).all()
        dead = weight == 0
        counts.append(int(dead.sum()))
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2] == round(0.9 * 960)
    assert counts[0] < counts[1] < counts[2]


def test_tied_parameters_share_one_mask_and_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 2))
    model[2].weight = model[0].weight  # type: ignore[assignment]
    trainee = fc.prepare(model, MagnitudeConfig(sparsity=0.5, skip=()))
    assert len(list(trainee.parameters())) == 5
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        trainee(torch.randn(3, 6)).sum().backward()
        optimizer.step()
        trainee.step()
    small = fc.convert(trainee)
    assert small.get_submodule("0").weight is small.get_submodule("2").weight
    assert zeros(small.get_submodule("0")) == 0.5


def test_masks_of_torch_prune_are_taken_over() -> None:
    dense = net()
    prune.random_unstructured(dense.fc, "weight", 0.3)  # type: ignore[no-untyped-call]
    dense(torch.zeros(1, 3, 8, 8))
    mask = dense.fc.weight_mask.bool()  # type: ignore[operator,union-attr]
    small = fc.convert(dense, MagnitudeConfig(sparsity=0.5, skip=()))
    weight = small.get_parameter("fc.weight")
    assert int((weight == 0).sum()) == 480
    assert (weight[~mask] == 0).all()
    assert hasattr(dense.fc, "weight_orig")
    shared = fc.convert(dense, fc.KMeansConfig(clusters=8), layers="fc")
    assert torch.equal(shared.get_submodule("fc").codes != 0, mask)  # type: ignore[union-attr]


def test_model_and_report_of_a_pruned_net() -> None:
    dense = net()
    before = copy.deepcopy(dense.state_dict())
    small = fc.convert(dense, MagnitudeConfig(sparsity=0.75, skip=(), exclude=("first", "depth", "last", "conv")))
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    line = fc.report(small).of("fc")[0]
    assert (line.params_before, line.params_after) == (980, 260)
    assert (line.macs_before, line.macs_after) == (960, 240)
    assert line.bytes_before == 4 * 980
    # 240 floats, where they stand (960 H2(1/4) bits), 20 biases.
    assert line.bytes_after == pytest.approx(4 * 240 + 960 * 0.811278 / 8 + 80, abs=2)
    gone = (before["fc.weight"] - small.get_parameter("fc.weight").detach()).norm() / before["fc.weight"].norm()
    assert line.weight_error == pytest.approx(float(gone), rel=1e-5)


def test_non_finite_weights_are_refused_before_anything_changes() -> None:
    dense = net()
    with torch.no_grad():
        dense.fc.weight[0, 0] = float("nan")  # type: ignore[index,operator]
    with pytest.raises(ValueError, match="weight of layer 'fc' holds 1 non-finite"):
        fc.prepare(dense, MagnitudeConfig(skip=()))


def test_an_emptied_layer_is_an_error_that_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    session = MagnitudeSession(model, MagnitudeConfig(mode="threshold", quality=0.0, skip=()), ["0", "1"])
    session.config = MagnitudeConfig(mode="threshold", quality=99.0, skip=())
    weight = model[0].weight
    assert isinstance(weight, torch.Tensor)
    before = weight.detach().clone()
    with pytest.raises(EmptyLayerError, match="lower its sparsity or quality"):
        session._prune(1.0)
    assert torch.equal(model[0].weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sparsity": 1.0}, ValueError, r"sparsity=1\.0 is out of range: allowed is 0\.0 <= sparsity < 1\.0"),
        ({"sparsity": -0.1}, ValueError, "sparsity"),
        ({"sparsity": float("nan")}, ValueError, "sparsity=nan"),
        ({"sparsity": "0.5"}, TypeError, "sparsity must be a number, got str '0.5'"),
        ({"mode": "filter"}, ValueError, "mode='filter' is not supported: choose from 'layer', 'global'"),
        ({"quality": -1}, ValueError, "quality=-1"),
        ({"overrides": {"fc": 1.5}}, ValueError, r"overrides\['fc'\]=1\.5"),
        ({"overrides": {3: 0.5}}, TypeError, "glob patterns"),
        ({"overrides": {"fc": 0.5}, "mode": "global"}, ValueError, "use exclude"),
        ({"skip": "bias"}, ValueError, "skip='bias'"),
        ({"exclude": 3}, TypeError, "exclude must be a glob pattern"),
        ({"schedule": "cubic", "begin": 5, "end": 2}, ValueError, "end=2 lies before begin=5"),
        ({"every": 0}, ValueError, "every=0"),
        ({"begin": True}, TypeError, "begin must be an integer, got bool"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MagnitudeConfig(**settings)  # type: ignore[arg-type]
