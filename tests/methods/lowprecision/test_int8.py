"""int8 after training: what the captured net computes, what its layers become, and that the engine says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.engine.capture import capture
from fastcnn.methods.lowprecision.int8_levels import Histogram, levels_between, quantize_weight
from fastcnn.methods.lowprecision.int8_ops import int8_conv2d, int8_linear


class Block(nn.Module):
    """Two convolutions beside a shortcut, as residual nets have them, then what else is common."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.expand = nn.Conv2d(24, 48, 1)
        self.depth = nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False)
        self.norm2 = nn.BatchNorm2d(48)
        self.project = nn.Conv2d(48, 24, 1)
        self.norm3 = nn.BatchNorm2d(24)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = nn.functional.relu6(self.expand(x))
        y = nn.functional.relu6(self.norm2(self.depth(y)))
        x = self.pool(x + self.norm3(self.project(y)))
        z: Tensor = self.last(x.mean((2, 3)))
        return z


def net(seed: int = 0) -> Block:
    torch.manual_seed(seed)
    made = Block()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return made.eval()


def by_hand(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, factor: float, zero: int, padding: int) -> Tensor:
    """Whole numbers in int64, one product after the other."""
    q = (x * factor).round().add(zero).clamp(0, 255).to(torch.int64) - zero
    q = nn.functional.pad(q, (padding,) * 4)
    kh, kw = weight.shape[2:]
    h, w = q.shape[2] - kh + 1, q.shape[3] - kw + 1
    sums = torch.zeros(len(x), len(weight), h, w, dtype=torch.int64)
    for i in range(kh):
        for j in range(kw):
            part = q[:, None, :, i : i + h, j : j + w]
            sums += (part * weight[:, :, i, j].to(torch.int64)[None, :, :, None, None]).sum(2)
    return sums.float() * scale[:, None, None] + bias[:, None, None]


def test_the_op_is_whole_numbers_times_a_scale() -> None:
    torch.manual_seed(0)
    x, weight = 3 * torch.randn(2, 300, 6, 5), torch.randint(-127, 128, (7, 300, 3, 3), dtype=torch.int8)
    scale, bias = torch.rand(7), torch.randn(7)
    got = int8_conv2d(x, weight, scale, bias, [1, 1], [1, 1], [1, 1], 1, 40.0, 120)
    assert torch.equal(got, by_hand(x, weight, scale, bias, 40.0, 120, 1))
    torch.library.opcheck(torch.ops.fastcnn.int8_conv2d, (x, weight, scale, bias, [1, 1], [1, 1], [1, 1], 1, 40.0, 120))
    rows = 3 * torch.randn(4, 300)
    line = int8_linear(rows, weight[:, :, 0, 0], scale, bias, 40.0, 120)
    assert torch.equal(
        line, by_hand(rows[:, :, None, None], weight[:, :, :1, :1], scale, bias, 40.0, 120, 0)[:, :, 0, 0]
    )
    with pytest.raises(TypeError, match=r"weight must be int8, got torch\.float32"):
        int8_linear(rows, weight[:, :, 0, 0].float(), scale, bias, 40.0, 120)


def test_weights_have_a_step_for_each_output() -> None:
    weight = torch.randn(5, 8, 3, 3) * torch.tensor([1e-3, 1.0, 10.0, 0.0, 3.0])[:, None, None, None]
    whole, steps = quantize_weight(weight)
    assert whole.dtype == torch.int8
    assert int(whole.abs().amax()) == 127
    assert steps[3] == 1.0
    assert not bool(whole[3].any())
    error = (whole.double() * steps.double()[:, None, None, None] - weight.double()).abs().flatten(1).amax(1)
    assert bool((error <= steps.double() / 2 * (1 + 1e-6)).all())
    with pytest.raises(ValueError, match="non-finite"):
        quantize_weight(torch.full((1, 1), float("nan")))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-2.0, -1.0), (2.0, 5.0), (0.0, 0.0), (-4.0, 0.0)])
def test_zero_is_a_level(low: float, high: float) -> None:
    found = levels_between(low, high)
    assert 0 <= found.zero <= 255
    for value in (min(low, 0.0), 0.0, max(high, 0.0)):
        q = min(255, max(0, round(value * found.factor) + found.zero))
        assert abs((q - found.zero) / found.factor - value) <= 0.75 / found.factor


def test_histograms_widen_and_clip() -> None:
    torch.manual_seed(0)
    x = torch.randn(200_000)
    whole = Histogram()
    for part, size in zip(x.split(50_000), (1e-3, 1.0, 1.0, 1.0), strict=True):
        whole.add(part * size)
    whole.add(torch.tensor([50.0]))
    low, high = whole.ends(100.0)
    assert low <= float(x[50_000:].min()) < low + 0.2
    assert 50.0 <= high < 50.2
    low, high = whole.ends(99.0)
    kept = x.clone()
    kept[:50_000] *= 1e-3
    assert abs(high - float(torch.quantile(kept[::7], 0.995))) < 0.2
    assert abs(low - float(torch.quantile(kept[::7], 0.005))) < 0.2
    assert Histogram().ends(99.0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="NaN or Inf"):
        whole.add(torch.tensor([float("inf")]))


@pytest.mark.parametrize("ranges", ["percentile", "min-max"])
def test_a_net_keeps_its_outputs_within_a_few_percent(ranges: Any) -> None:
    dense = net()
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    x = torch.randn(32, 3, 16, 16)
    small = fc.convert(dense, fc.Int8Config(ranges=ranges), data=x)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert {line.layer for line in fc.report(small)} == {"stem", "expand", "depth", "project", "last"}
    assert all(line.status == "done" for line in fc.report(small))
    with torch.no_grad():
        y, z = dense(x), small(x)
        assert float((y - z).abs().max() / y.abs().max()) < 0.05
        assert torch.equal(small(x[:5]), z[:5])


def test_engine_and_file_say_what_the_module_says(tmp_path: Path) -> None:
    """To float32's rounding in the sums with a shortcut, which may move a level here and there."""
    dense, x = net(1), torch.randn(16, 3, 20, 20)
    small = fc.convert(dense, fc.Int8Config(), data=x)
    graph = capture(small, x, strict=True)
    assert {"int8_conv2d", "int8_linear", "quantize"} <= {node.op for node in graph}
    assert not {"conv2d", "linear", "batch_norm"} & {node.op for node in graph}
    compiled = fc.compile(small, x, strict=True)
    with torch.no_grad():
        want = small(x).numpy()
    got = np.asarray(compiled(x.numpy()))
    assert np.abs(got - want).max() < 0.01 * np.abs(want).max()
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.9
    compiled.save(tmp_path / "net.fcnn")
    assert np.array_equal(np.asarray(fc.load(tmp_path / "net.fcnn")(x.numpy())), got)


def test_plain_chains_are_equal_to_the_last_bit() -> None:
    torch.manual_seed(2)
    dense = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 20, 3, groups=20), nn.ReLU6(),
        nn.Conv2d(20, 33, 1), nn.ReLU(), nn.Flatten(), nn.Linear(33 * 36, 10),
    ).eval()  # fmt: skip
    x = torch.randn(8, 3, 16, 16)
    small = fc.convert(dense, fc.Int8Config(), data=x)
    with torch.no_grad():
        assert np.array_equal(np.asarray(fc.compile(small, x, strict=True)(x.numpy())), small(x).numpy())


def test_layers_that_stay_say_why() -> None:
    dense, x = net(), torch.randn(4, 3, 16, 16)
    config = fc.Int8Config(skip=("first_conv", "last_linear", "depthwise"), exclude="proj*")
    lines = {line.layer: line for line in fc.report(fc.convert(dense, config, data=x))}
    assert lines["expand"].status == "done"
    for name, why in (("stem", "first"), ("last", "last"), ("depth", "depthwise"), ("project", "excluded by 'proj*'")):
        assert lines[name].status == "declined"
        assert why in lines[name].why
    reflect = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    with pytest.warns(NothingDoneWarning, match="padding_mode='reflect' has no form of levels"):
        fc.convert(reflect, fc.Int8Config(), data=x)


def test_same_padding_and_inputs_of_more_axes() -> None:
    x = torch.randn(8, 8, 12, 12)
    even = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", dilation=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding="valid"))
    small = fc.convert(even.eval(), fc.Int8Config(), data=x)
    assert {line.status for line in fc.report(small)} == {"done"}
    with torch.no_grad():
        assert float((small(x) - even(x)).abs().max() / even(x).abs().max()) < 0.05
    odd = nn.Sequential(nn.Conv2d(8, 8, 2, padding="same"), nn.Conv2d(8, 8, 1), nn.Linear(12, 5)).eval()
    lines = {line.layer: line for line in fc.report(fc.convert(odd, fc.Int8Config(), data=x))}
    assert "uneven" in lines["0"].why
    assert lines["1"].status == "done"
    assert "more axes than (N, I)" in lines["2"].why


def test_a_gaussian_weight_errs_as_its_page_says() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64, 3, 3)
    whole, steps = quantize_weight(weight)
    error = (whole * steps[:, None, None, None] - weight).norm() / weight.norm()
    assert 0.0065 < float(error) < 0.0075


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="Int8Config needs calibration inputs"):
        fc.convert(net(), fc.Int8Config())
    with pytest.raises(ValueError, match=r"cannot be captured by torch\.export"):
        fc.convert(net(), fc.Int8Config(), data=torch.randn(4, 5, 16, 16))
    with pytest.raises(ValueError, match="NaN or Inf inside the net"):
        fc.convert(net(), fc.Int8Config(), data=torch.full((2, 3, 16, 16), float("nan")))
    with pytest.raises(ValueError, match="percentile=30 is out of range"):
        fc.Int8Config(percentile=30)
    with pytest.raises(ValueError, match="ranges='all' is not supported"):
        fc.Int8Config(ranges="all")  # type: ignore[arg-type]
