"""``fastcnn.convert`` with data: a clock that the test sets decides layer by layer, and the report says by how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.methods.transforms.convolution import measure
from fastcnn.methods.transforms.convolution.layer import TransformConv2d
from fastcnn.methods.transforms.fft_conv import FFTConfig, FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConfig, WinogradConv2d


class Clock:
    """Stands still but for forward passes: ``nn.Conv2d`` takes a millisecond per tap, ours what the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ours_ms = 0.0
        self.calls = {"ours": 0, "dense": 0}

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, who: str, milliseconds: float) -> None:
        self.calls[who] += 1
        self.now += milliseconds / 1e3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    ours, dense = TransformConv2d.forward, nn.Conv2d.forward

    def slow_ours(self: TransformConv2d, input: Tensor) -> Tensor:
        clock.pass_by("ours", clock.ours_ms)
        return ours(self, input)

    def slow_dense(self: nn.Conv2d, input: Tensor) -> Tensor:
        clock.pass_by("dense", self.kernel_size[0] * self.kernel_size[1])
        return dense(self, input)

    monkeypatch.setattr(TransformConv2d, "forward", slow_ours)
    monkeypatch.setattr(nn.Conv2d, "forward", slow_dense)
    monkeypatch.setattr(measure, "time", clock)
    measure._TIMINGS.clear()
    yield clock
    measure._TIMINGS.clear()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2),
    )  # fmt: skip


@pytest.mark.parametrize(("config", "cls"), [(FFTConfig(), FFTConv2d), (WinogradConfig(), WinogradConv2d)])
@pytest.mark.parametrize("training", [True, False])
def test_winners_are_converted_and_losers_declined(clock: Clock, config: Any, cls: Any, training: bool) -> None:
    """17 ms against 9 of the 3x3 layer and 25 of the 5x5 layer; the stem is declined by rule, untimed."""
    clock.ours_ms = 17.0
    model, batch = net().train(training), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        wanted = model(batch)
    done = fc.convert(model, config, data=[batch])
    assert [type(done[i]) for i in (0, 2, 4)] == [nn.Conv2d, nn.Conv2d, cls]
    assert all(type(model[i]) is nn.Conv2d for i in (0, 2, 4))
    what = ("forward and backward" if training else "forward") + " at (2, 32, 12, 12)"
    lines = {line.layer: line for line in fc.report(done)}
    assert {name: line.status for name, line in lines.items()} == {"0": "declined", "2": "declined", "4": "done"}
    assert "3 channels and 32 filters per group are too few" in lines["0"].why
    assert f"it is no faster: 17 ms against 9 ms of nn.Conv2d, {what}; force=True" in lines["2"].why
    assert f"measured, 17 ms against 25 ms of nn.Conv2d, {what}" in lines["4"].why
    assert clock.calls["ours"] == 2 * (1 + measure.ROUNDS), "two layers, a warm-up each"
    with torch.no_grad():
        assert float((done(batch) - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    assert all(measure.input_shape_of(model[i]) is None for i in (0, 2, 4))
    assert all(measure.input_shape_of(done[i]) is None for i in (0, 2, 4))


def test_a_slow_call_is_not_repeated_for_long(clock: Clock) -> None:
    clock.ours_ms = 1e3 * (measure.BUDGET_SECONDS + 1)
    with pytest.warns(NothingDoneWarning, match="3e\\+03 ms against 25 ms"):
        fc.convert(net(), FFTConfig(), data=[torch.randn(1, 3, 8, 8)], layers="4")
    assert clock.calls["ours"] == 2, "the warm-up and one round"


def test_all_may_lose_or_win(clock: Clock) -> None:
    batch = torch.randn(1, 3, 8, 8)
    clock.ours_ms = 26.0
    with pytest.warns(NothingDoneWarning, match="26 ms against 9 ms"):
        fc.convert(net(), FFTConfig(), data=[batch])
    measure._TIMINGS.clear()
    clock.ours_ms = 8.0
    done = fc.convert(net(), FFTConfig(), data=[batch])
    assert [type(done[i]) for i in (0, 2, 4)] == [nn.Conv2d, FFTConv2d, FFTConv2d]


def test_a_tensor_is_one_batch(clock: Clock) -> None:
    clock.ours_ms = 8.0
    model = nn.Sequential(*net(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    batch = torch.randn(2, 3, 12, 12)
    for data in (batch, [batch], [(batch, torch.zeros(2))], iter([batch])):
        done = fc.convert(model, FFTConfig(), data=data)
        assert "at (2, 32, 12, 12)" in {line.layer: line.why for line in fc.report(done)}["4"]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ("cifar10:DIR", TypeError, "must be a tensor or batches of them, got str"),
        (3, TypeError, "must be a tensor or batches of them, got int"),
        ([], ValueError, "data holds no batch"),
        ([3], TypeError, "a batch of data must be a tensor, or begin with one, got int"),
        ([()], TypeError, "a batch of data must be a tensor, or begin with one, got tuple"),
        (torch.randn(2, 5, 12, 12), ValueError, r"does not run on the first batch of data, of shape \(2, 5, 12, 12\)"),
    ],
)
def test_data_that_is_none(data: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        fc.convert(net(), FFTConfig(), data=data)
