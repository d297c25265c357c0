"""int8 in training: gradients by hand, ranges that follow, and that the net in training is the int8 net it becomes."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.compression.batches import TensorBatches
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.data.digits import load_digits
from fastcnn.methods.lowprecision.int8_graph import folded
from fastcnn.methods.lowprecision.int8_levels import levels_between, quantize_weight
from fastcnn.methods.lowprecision.int8_ops import int8_conv2d, int8_linear
from fastcnn.methods.lowprecision.int8_training import (
    TrackedLevels,
    batch_ends,
    real_numbers,
    trained_layer,
)
from tests.methods.lowprecision.test_int8 import net as block


class Residual(nn.Module):
    """Blocks whose shortcuts are a map that layers read, and a layer's own output; a dropout; a norm that is alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.one_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two, self.two_norm = nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(16)
        self.down, self.down_norm = nn.Conv2d(8, 16, 1, stride=2), nn.BatchNorm2d(16)
        self.alone = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(16, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        x = F.relu(x + self.one_norm(self.one(x)))
        x = F.relu(self.down_norm(self.down(x)) + self.two_norm(self.two(x)))
        x = F.hardswish(self.depth(F.relu(self.alone(x))))
        z: Tensor = self.last(self.drop(x.mean((2, 3))))
        return z


def residual(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    made = Residual()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return made


NETS = {"block": block, "residual": residual}
X = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def train(trainee: Any, steps: int, start: int = 0, lr: float = 0.02) -> list[float]:
    """Steps by plain descent, each on pictures and with dropouts of its own."""
    optimizer = torch.optim.SGD(trainee.parameters(), lr=lr)
    trainee.train()
    losses = []
    for index in range(start, start + steps):
        torch.manual_seed(index)
        x = torch.randn(12, 3, 16, 16)
        optimizer.zero_grad()
        loss = F.cross_entropy(trainee(x), (x.mean((1, 2, 3)) > 0).long())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        trainee.step()
        losses.append(loss.item())
    return losses


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(
        torch.equal(value, two[key]) if isinstance(value, Tensor) else value == two[key] for key, value in one.items()
    )


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-4.0, 0.0), (2.0, 5.0)])
def test_gradients_pass_between_the_ends_and_nowhere_else(low: float, high: float) -> None:
    levels = levels_between(low, high)
    ends = torch.tensor([-levels.zero / levels.factor, (255 - levels.zero) / levels.factor])
    size = (high - min(low, 0.0)) / 255
    inside = torch.tensor([ends[0] + 1e-3 * size, ends.mean(), ends[1] - 1e-3 * size])
    # Less than half a level beyond an end the level is that of the end: a value is cut off, and has no gradient.
    outside = torch.tensor([ends[0] - 1e-3 * size, ends[0] - 9.0, ends[1] + 1e-3 * size, ends[1] + 9.0])
    x = torch.cat((inside, outside)).requires_grad_()
    given = TrackedLevels(low, high, fc.Int8Config()).eval()(x)
    assert torch.equal(given[0], given[0].round())
    y = real_numbers(given)
    assert torch.allclose(y[3:], torch.stack((ends[0], ends[0], ends[1], ends[1])), rtol=1e-6)
    y.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]), rtol=1e-6)


WALKS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "linear": (None, (5, 7), (4, 7)),
    "plain": (([1, 1], [1, 1], [1, 1], 1), (2, 4, 6, 5), (3, 4, 3, 3)),
    "stride": (([2, 1], [0, 1], [1, 2], 1), (2, 4, 7, 7), (3, 4, 3, 3)),
    "depthwise": (([1, 1], [1, 1], [1, 1], 4), (2, 4, 6, 5), (4, 1, 3, 3)),
}


def dense(walk: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias) if walk is None else F.conv2d(x, weight, bias, *walk)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", WALKS)
def test_gradients_of_a_layer_are_those_of_the_rounded_dense_one(name: str, training: bool) -> None:
    """Of inputs and weight as if rounding were not there, where they are not cut off."""
    walk, shape, weights = WALKS[name]
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(weights), torch.randn(weights[0])
    ours = [value.clone().requires_grad_() for value in (x, weight, bias)]
    tracked = TrackedLevels(-1.0, 1.5, fc.Int8Config()).eval()
    y = trained_layer(tracked(ours[0]), ours[1], ours[2], None, walk, training)

    whole, steps = quantize_weight(weight)
    seen = real_numbers(tracked(x)).requires_grad_()
    rounded = (whole * steps.reshape(-1, *[1] * (weight.dim() - 1))).requires_grad_()
    plain = bias.clone().requires_grad_()
    want = dense(walk, seen, rounded, plain)
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(want)
    y.backward(grad)  # type: ignore[no-untyped-call]
    want.backward(grad)  # type: ignore[no-untyped-call]
    levels = tracked.levels()
    inside = (x * levels.factor + levels.zero >= 0) & (x * levels.factor + levels.zero <= 255)
    assert 0.05 < 1 - inside.double().mean() < 0.5
    assert seen.grad is not None
    for mine, theirs in zip(ours, (seen.grad * inside, rounded.grad, plain.grad), strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_sums_that_float32_cannot_hold_are_exact_in_eval_mode(training: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.rand(6, 9000) + 1, torch.rand(8, 9000) + 1, torch.randn(8)
    tracked = TrackedLevels(0.0, 2.0, fc.Int8Config()).eval()
    whole, steps = quantize_weight(weight)
    levels = tracked.levels()
    scale = (steps.double() / levels.factor).float()
    want = int8_linear(x, whole, scale, bias, levels.factor, levels.zero)
    assert float(want.min() / scale.max()) > 1 << 26
    got = trained_layer(tracked(x), weight, bias, None, None, training)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    assert torch.equal(got, want) != training


def test_folding_changes_no_whole_number() -> None:
    """So that a norm may stay behind the sums in training, negative factors included."""
    torch.manual_seed(0)
    weight, gain = torch.randn(32, 16, 3, 3), torch.randn(32)
    mean, var = torch.randn(32), torch.rand(32) + 0.1
    new, _ = folded(weight, None, gain, torch.randn(32), mean, var, 1e-5)
    one, steps = quantize_weight(weight)
    two, new_steps = quantize_weight(new)
    factor = gain / (var + 1e-5).sqrt()
    assert torch.equal(two, one * gain.sign().to(torch.int8)[:, None, None, None])
    torch.testing.assert_close(new_steps, steps * factor.abs())


def test_a_norm_uses_the_batch_in_training_and_is_folded_in_eval_mode() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(16, 6, 8, 8), torch.randn(9, 6, 3, 3)
    walk = ([1, 1], [1, 1], [1, 1], 1)
    gain, shift = torch.randn(9, requires_grad=True), torch.randn(9, requires_grad=True)
    tracked = TrackedLevels(-2.0, 2.0, fc.Int8Config()).eval()
    whole, steps = quantize_weight(weight)
    sums = F.conv2d(real_numbers(tracked(x)), whole * steps[:, None, None, None], None, *walk)
    mean, var = torch.zeros(9), torch.ones(9)
    y = trained_layer(tracked(x), weight, None, (gain, shift, mean, var, 0.1, 1e-5, True), walk, True)
    torch.testing.assert_close(y, F.batch_norm(sums, None, None, gain, shift, True), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean, 0.1 * sums.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(var, 0.9 + 0.1 * sums.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=1e-4)
    # With the statistics of this batch as running ones eval mode says the same, and so do its gradients.
    grads = torch.autograd.grad(y.square().sum(), (gain, shift))
    mean, var = sums.mean((0, 2, 3)), sums.var((0, 2, 3), unbiased=False)
    for training in (True, False):
        norm = (gain, shift, mean, var, 0.1, 1e-5, False)
        z = trained_layer(tracked(x), weight, None, norm, walk, training)
        torch.testing.assert_close(z, y, rtol=1e-3, atol=1e-3)
        for mine, theirs in zip(torch.autograd.grad(z.square().sum(), (gain, shift)), grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-1)
    # It is the int8 layer of the folded weight, to the last bit.
    new_weight, new_bias = folded(weight, None, gain.detach(), shift.detach(), mean, var, 1e-5)
    whole, steps = quantize_weight(new_weight)
    levels = tracked.levels()
    scale = (steps.double() / levels.factor).float()
    assert torch.equal(z, int8_conv2d(x, whole, scale, new_bias, *walk, levels.factor, levels.zero))


# --- ranges ---------------------------------------------------------------------------------------------------------


def test_ranges_follow_the_batches_in_training_alone() -> None:
    tracked = TrackedLevels(-1.0, 2.0, fc.Int8Config(ranges="min-max", range_decay=0.75))
    x = torch.tensor([-3.0, 0.5, 6.0])
    tracked.eval()(x)
    assert (float(tracked.low), float(tracked.high)) == (-1.0, 2.0)
    tracked.train()(x)
    assert (float(tracked.low), float(tracked.high)) == (0.75 * -1 + 0.25 * -3, 0.75 * 2 + 0.25 * 6)
    tracked(x[:0])
    tracked.frozen = True
    tracked(100 * x)
    assert (float(tracked.low), float(tracked.high)) == (-1.5, 3.0)
    still = TrackedLevels(-1.0, 2.0, fc.Int8Config(range_decay=1)).train()
    still(torch.tensor([-math.inf, 7.0]))
    assert (float(still.low), float(still.high)) == (-1.0, 2.0)


@pytest.mark.parametrize("shape", [(64, 16, 40, 40), (3, 7, 5), (1,), (1 << 17,)])
def test_ends_of_a_batch_leave_a_share_out(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    low, high = batch_ends(x, 100.0)
    assert (low, high) == (x.min(), x.max())
    low, high = batch_ends(x, 90.0)
    if x.numel() < 1000:
        assert x.min() <= low <= high <= x.max()
    else:
        assert abs(float(low) + 1.645) < 0.05
        assert abs(float(high) - 1.645) < 0.05


def test_the_sample_of_a_batch_has_every_column_and_channel() -> None:
    """49 would be a stride of this size that sees one pixel of each 7 x 7 map."""
    x = torch.zeros(2048, 32, 7, 7)
    x[:, :, 3, 5] = 1.0
    assert batch_ends(x, 99.0)[1] == 1.0
    share = 100 * (1 - 4 / 49)  # two times the share of this pixel is left out at each end
    assert batch_ends(x, share)[1] == 0.0


def test_from_a_step_on_ranges_and_norms_stay() -> None:
    config = fc.Int8Config(freeze_after=3, range_decay=0.5)
    trainee = fc.prepare(residual(), config, data=X)

    def settled() -> dict[str, Tensor]:
        return {
            key: value.clone()
            for key, value in trainee.state_dict().items()
            if key.endswith((".low", ".high", "running_mean", "running_var"))
        }

    before = settled()
    train(trainee, 2)
    early = settled()
    assert not any(torch.equal(before[key], value) for key, value in early.items() if value.any())
    train(trainee, 1, start=2)
    late = settled()
    weight = trainee.get_parameter("model.one.weight").clone()
    train(trainee, 2, start=3)
    assert not torch.equal(late["model.x_levels.low"], early["model.x_levels.low"])
    assert same(settled(), late)
    assert not torch.equal(trainee.get_parameter("model.one.weight"), weight)
    again = fc.prepare(residual(), config, data=X)
    again.load_state_dict(trainee.state_dict())
    train(trainee, 1, start=5)
    train(again, 1, start=5)
    assert same(trainee.state_dict(), again.state_dict())


# --- the net in training is the net it becomes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("ranges", ["percentile", "min-max"])
def test_untrained_it_is_what_convert_makes(name: str, ranges: Any) -> None:
    config = fc.Int8Config(ranges=ranges)
    model = NETS[name]().eval()
    before = copy.deepcopy(model.state_dict())
    trainee = fc.prepare(model, config, data=X)
    assert not trainee.training
    y = trainee(X)
    small, want = fc.convert(trainee), fc.convert(model, config, data=X)
    assert torch.equal(y, small(X))
    assert torch.equal(y, want(X))
    assert same(small.state_dict(), want.state_dict())
    ops = [[node.target for node in made.graph.nodes if node.op == "call_function"] for made in (small, want)]  # type: ignore[union-attr]
    assert ops[0] == ops[1]
    assert str(fc.report(small)) == str(fc.report(want))
    assert same(before, dict(model.state_dict()))


@pytest.mark.parametrize("name", NETS)
def test_trained_it_is_what_it_becomes_to_the_last_bit(name: str) -> None:
    trainee = fc.prepare(NETS[name]().train(), fc.Int8Config(range_decay=0.9), data=X)
    assert trainee.training
    train(trainee, 6)
    trainee.eval()
    x = 1.5 * torch.randn(40, 3, 16, 16)
    with torch.no_grad():
        y = trainee(x)
        small = fc.convert(trainee)
        assert torch.equal(small(x), y)
    assert not small.training
    assert {type(module).__name__ for module in small.modules()}.isdisjoint({"TrackedLevels", "Mode"})
    assert all(line.status == "done" for line in fc.report(small))
    compiled = fc.compile(small, x, strict=True, tune=False)
    got = np.asarray(compiled(x.numpy()))
    assert np.abs(got - y.numpy()).max() < 0.01 * float(y.abs().max())
    clear = y.topk(2).values.diff().abs().flatten() > 0.02 * y.abs().max()
    assert clear.sum() > 10
    assert torch.equal(torch.from_numpy(got.argmax(1))[clear], y.argmax(1)[clear])


@pytest.mark.parametrize("name", NETS)
def test_training_mode_differs_from_eval_mode_by_norms_and_dropouts_alone(name: str) -> None:
    model = NETS[name]()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    trainee = fc.prepare(model, fc.Int8Config(freeze_after=0), data=X)
    with torch.no_grad():
        y, z = trainee.eval()(X), trainee.train()(X)
    # A sum rounded in float32 may move a level.
    assert float((y - z).abs().max()) < 0.01 * float(y.abs().max())
    assert float((y - z).abs().mean()) < 1e-4 * float(y.abs().max())


def test_layers_left_in_float32_train_too() -> None:
    config = fc.Int8Config(skip=("first_conv", "last_linear"), exclude="down")
    trainee = fc.prepare(residual(), config, data=X)
    before = {name: value.detach().clone() for name, value in trainee.named_parameters() if "weight" in name}
    train(trainee, 3)
    assert not any(torch.equal(value, trainee.get_parameter(name)) for name, value in before.items())
    y = trainee.eval()(X)
    small = fc.convert(trainee)
    assert torch.equal(small(X), y)
    status = {line.layer: line.status for line in fc.report(small)}
    assert status == dict.fromkeys(("one", "two", "depth"), "done") | dict.fromkeys(
        ("stem", "down", "last"), "declined"
    )
    # The int8 net knows no mode.
    assert torch.equal(small.train()(X), y)


def test_modes_of_modules_stay_as_they_were() -> None:
    model = residual().train()
    model.one_norm.eval()
    model.alone.eval()
    trainee = fc.prepare(model, fc.Int8Config(), data=X)
    before = {key: value.clone() for key, value in trainee.state_dict().items() if "running" in key}
    trainee(X)
    moved = {
        key for key, value in trainee.state_dict().items() if key in before and not torch.equal(value, before[key])
    }
    names = {key.split(".")[1] for key in moved}
    assert names == {"two_norm", "down_norm"}


def test_dropouts_drop_in_training_alone() -> None:
    trainee = fc.prepare(residual().train(), fc.Int8Config(freeze_after=0), data=X)
    with torch.no_grad():
        one, two = trainee(X), trainee(X)
    assert not torch.equal(one, two)
    # Half of what the last layer reads is gone, and the rest is twice as large.
    assert float((one - two).abs().mean()) > 0.1 * float(one.abs().mean())
    trainee.eval()
    assert torch.equal(trainee(X), trainee(X))


def test_frozen_parameters_stay() -> None:
    model = residual()
    model.one.weight.requires_grad_(False)
    model.one_norm.requires_grad_(False)
    trainee = fc.prepare(model, fc.Int8Config(), data=X)
    train(trainee, 2)
    assert torch.equal(trainee.get_parameter("model.one.weight"), model.one.weight)
    assert torch.equal(trainee.get_parameter("model.one_norm.bias"), model.one_norm.bias)
    assert not torch.equal(trainee.get_parameter("model.two.weight"), model.two.weight)


def test_a_mean_of_all_batches_goes_on_as_a_moving_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.Linear(784, 2))
    trainee = fc.prepare(model, fc.Int8Config(), data=X)
    train(trainee, 1)
    assert trainee.get_buffer("model.1.running_mean").any()
    assert model[1].momentum is None


def test_a_layer_that_is_called_twice_stays_and_says_so() -> None:
    """Its norms must not be folded either: the second would fold what the first had."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.last = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.conv(self.norm(self.conv(x))))
            z: Tensor = self.last(x).mean((2, 3))
            return z

    torch.manual_seed(0)
    model = Twice().eval()
    nn.init.uniform_(model.norm.weight, 0.2, 0.4)
    small = fc.convert(model, fc.Int8Config(), data=X)
    with torch.no_grad():
        want = model(X)
        assert float((small(X) - want).abs().max()) < 0.05 * float(want.abs().max())
    lines = {line.layer: line for line in fc.report(small)}
    assert lines["conv"].status == "declined"
    assert "calls it 2 times" in lines["conv"].why
    assert lines["last"].status == "done"
    trainee = fc.prepare(model, fc.Int8Config(), data=X)
    train(trainee, 2)
    y = trainee.eval()(X)
    assert torch.equal(fc.convert(trainee)(X), y)


# --- training -------------------------------------------------------------------------------------------------------


def test_digits_learn_again_what_harsh_clipping_took(tmp_path: Path) -> None:
    """A fifth of all inputs cut off at each end: training on int8 numbers wins back what conversion alone loses."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: make test installs it")
    parts = []
    for split in ("train", "test"):
        data = load_digits(split)
        parts += [torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(data.labels)]
    x, y, test_x, test_y = parts
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10),
    )  # fmt: skip

    def right(net: nn.Module) -> float:
        with torch.no_grad():
            return 100.0 * float((net(test_x).argmax(1) == test_y).double().mean())

    batches = TensorBatches(x, y, batch_size=64)
    fc.finetune(model, batches, epochs=4, lr=5e-3)
    model.eval()
    config = fc.Int8Config(percentile=60.0)
    after = right(fc.convert(model, config, data=x[:256]))
    trainee = fc.prepare(model.train(), config, data=x[:256])
    history = fc.finetune(trainee, batches, epochs=3, lr=2e-3, checkpoint_dir=tmp_path)
    assert history.epochs[-1].loss < 0.7 * history.epochs[0].loss
    trained = right(trainee.eval())
    small = fc.convert(trainee)
    assert right(small) == trained
    assert trained > after + 2
    assert trained > right(model) - 2


class Stop(Exception):
    """Raised in the midst of training."""


def test_a_stopped_training_goes_on_to_the_same_net(tmp_path: Path) -> None:
    x = torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    batches = TensorBatches(x, (x.mean((1, 2, 3)) > 0).long(), batch_size=12)
    config = fc.Int8Config(range_decay=0.9, freeze_after=7)
    settings: dict[str, Any] = {"epochs": 2, "lr": 0.01, "optimizer": "sgd", "seed": 4}
    whole = fc.prepare(residual(), config, data=X)
    want = fc.finetune(whole, batches, **settings)

    class StopAtSeven(TensorBatches):
        given = 0

        def __iter__(self) -> Any:
            for batch in super().__iter__():
                if self.given == 7:
                    raise Stop
                self.given += 1
                yield batch

    stopped = StopAtSeven(batches.inputs, batches.targets, batch_size=12)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 3, **settings}
    with pytest.raises(Stop):
        fc.finetune(fc.prepare(residual(), config, data=X), stopped, **kept)
    # Ranges come from the checkpoint, whatever the new one was calibrated with.
    again = fc.prepare(residual(1), config, data=2 * X)
    got = fc.finetune(again, batches, **kept)
    assert got.resumed_from == 6
    assert got.epochs[-1].loss == want.epochs[-1].loss
    assert same(whole.state_dict(), again.state_dict())
    assert same(fc.convert(whole).state_dict(), fc.convert(again).state_dict())


def test_state_dicts_go_round_bitwise() -> None:
    trainee = fc.prepare(residual(), fc.Int8Config(freeze_after=3), data=X)
    train(trainee, 4)
    file = io.BytesIO()
    torch.save(trainee.state_dict(), file)
    file.seek(0)
    other = fc.prepare(residual(1), fc.Int8Config(freeze_after=3), data=X[:4])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(trainee.state_dict(), other.state_dict())
    assert other.session.state() == {"steps": 4}
    assert torch.equal(other.eval()(X), trainee.eval()(X))
    # Frozen by its count of steps.
    low = other.get_buffer("model.x_levels.low").clone()
    other.train()(9 * X)
    assert torch.equal(other.get_buffer("model.x_levels.low"), low)


def test_training_touches_no_number_on_the_host() -> None:
    """On the meta device there are none: what syncs, or mixes devices, raises."""
    trainee = fc.prepare(residual(), fc.Int8Config(), data=X).to("meta")
    for training in (True, False):
        trainee.train(training)
        y = trainee(X.to("meta"))
        y.square().sum().backward()
        assert {parameter.grad.device.type for parameter in trainee.parameters() if parameter.grad is not None} == {
            "meta"
        }
        trainee.step()


def test_autocast_leaves_whole_numbers_alone() -> None:
    """A bfloat16 holds no sum of theirs. With a layer left in half precision the net is near what it is without."""
    for exclude in ("", "expand"):
        trainee = fc.prepare(block(), fc.Int8Config(exclude=exclude), data=X).train()
        state = copy.deepcopy(trainee.state_dict())
        with torch.no_grad():
            want = trainee(X)
            trainee.load_state_dict(state)
            with torch.autocast("cpu", torch.bfloat16):
                got = trainee(X)
        assert got.dtype == torch.float32
        if exclude:
            assert 0 < float((got - want).abs().max()) < 0.05 * float(want.abs().max())
        else:
            assert torch.equal(got, want)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match="Int8Config needs calibration inputs, some hundred of them: give prepare data"
    ):
        fc.prepare(block(), fc.Int8Config())
    with pytest.raises(ValueError, match="data holds no batch"):
        fc.prepare(block(), fc.Int8Config(), data=[])
    with pytest.raises(TypeError, match="data must be a tensor or batches of them, got int"):
        fc.prepare(block(), fc.Int8Config(), data=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cannot be captured by torch\.export"):
        fc.prepare(block(), fc.Int8Config(), data=torch.randn(4, 5, 16, 16))
    with pytest.raises(ValueError, match="NaN or Inf inside the net"):
        fc.prepare(block(), fc.Int8Config(), data=torch.full((2, 3, 16, 16), float("nan")))
    with pytest.raises(ValueError, match="BNNConfig reads no calibration data to prepare a model: leave data out"):
        fc.prepare(block(), fc.BNNConfig(), data=X)
    with pytest.raises(ValueError, match="KMeansConfig needs no session"):
        fc.prepare(block(), fc.KMeansConfig(), data=X)
    with pytest.raises(ValueError, match=r"range_decay=1\.5 is out of range"):
        fc.Int8Config(range_decay=1.5)
    with pytest.raises(ValueError, match="freeze_after=-1 is out of range"):
        fc.Int8Config(freeze_after=-1)
    with pytest.raises(TypeError, match=r"freeze_after must be an integer, got float 2\.5"):
        fc.Int8Config(freeze_after=2.5)  # type: ignore[arg-type]
    config = fc.Int8Config(range_decay=0.5, freeze_after=7)
    assert fc.Int8Config.from_json(config.to_json()) == config


def test_what_training_broke_is_named_and_nothing_is_changed() -> None:
    trainee = fc.prepare(residual().eval(), fc.Int8Config(), data=X)
    y = trainee(X)
    low = trainee.get_buffer("model.x_levels.low")
    kept = low.clone()
    low.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or Inf inside the net"):
        fc.convert(trainee)
    low.copy_(kept)
    weight = trainee.get_parameter("model.two.weight")
    with torch.no_grad():
        old = weight[0, 0, 0, 0].clone()
        weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="weight of layer 'two' holds"):
        fc.convert(trainee)
    with torch.no_grad():
        weight[0, 0, 0, 0] = old
    small = fc.convert(trainee)
    assert torch.equal(small(X), y)
    with pytest.raises(ValueError, match="session is finished"):
        fc.convert(trainee)


def test_nothing_to_do_is_said() -> None:
    reflect = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Dropout(0.5))
    trainee = fc.prepare(reflect, fc.Int8Config(), data=X)
    with pytest.warns(NothingDoneWarning, match="padding_mode='reflect' has no form of levels"):
        small = fc.convert(trainee)
    assert torch.equal(small(X), reflect.eval()(X))
