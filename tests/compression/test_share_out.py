"""One budget for a whole model: kept, at the least loss, and said where it cannot be."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.compression import calibrate
from fastcnn.compression import share_out as module
from fastcnn.compression.share_out import BudgetError, _least_loss, _Rung, check_kept, share_out
from fastcnn.methods.contract import DeclinedError
from fastcnn.methods.registry import method_of
from fastcnn.methods.structured.factored import chain_macs_at, walked
from fastcnn.methods.structured.ranks import Ranked
from fastcnn.methods.structured.svd import SVDLadder, SVDLinear


def size(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in model.parameters())


def low_rank_linear(inputs: int, outputs: int, rank: int, seed: int) -> nn.Linear:
    """A layer of exactly that rank."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(
            torch.randn(outputs, rank, generator=generator) @ torch.randn(rank, inputs, generator=generator) / 8
        )
    return layer


def test_the_layer_that_loses_nothing_gives_up_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(low_rank_linear(64, 64, 8, 0), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    small = fc.convert(model, fc.SVDConfig(budget=0.75, multiple_of=1))
    assert size(small) <= 0.75 * size(model)
    assert isinstance(small[0], SVDLinear)  # type: ignore[index]  # Sequential
    assert isinstance(small[2], nn.Linear)  # type: ignore[index]
    x = torch.randn(32, 64)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    lines = {line.layer: line for line in fc.report(small).layers}
    assert lines["2"].status == "declined"
    assert "other layers lose less for what they give up" in lines["2"].why


@pytest.mark.parametrize("budget", [0.9, 0.6, 0.3])
def test_no_other_ranks_of_that_size_lose_less(budget: float) -> None:
    """Against every combination of ranks of two layers that is as small as it must be."""
    torch.manual_seed(1)
    spread = torch.logspace(0, -3, 24)
    model = nn.Sequential(nn.Linear(24, 24, bias=False), nn.Linear(24, 48, bias=False))
    with torch.no_grad():
        left, right = torch.linalg.qr(torch.randn(24, 24))[0], torch.linalg.qr(torch.randn(24, 24))[0]
        model[0].weight.copy_(left * spread @ right)
    config = fc.SVDConfig(budget=budget, multiple_of=1)
    choices = share_out(model, method_of(config), config, [("0", None), ("1", None)])
    ladders = {name: SVDLadder(SVDLinear, model.get_submodule(name), config.ridge, None) for name in ("0", "1")}  # type: ignore[arg-type]

    def loss_and_size(ranks: tuple[int | None, int | None]) -> tuple[float, int]:
        loss, weights = 0.0, 0
        for rank, (name, ladder) in zip(ranks, ladders.items(), strict=True):
            loss += 0.0 if rank is None else ladder.error((rank,)) ** 2
            weights += model.get_submodule(name).weight.numel() if rank is None else ladder.weights((rank,))  # type: ignore[operator,union-attr]
        return loss, weights

    first, second = (None if isinstance(choice, str) else choice.rank for choice in choices.values())  # type: ignore[attr-defined]
    loss, weights = loss_and_size((first, second))
    assert weights <= budget * size(model)
    options: list[int | None] = [None, *range(1, 25)]
    best = min(
        other_loss
        for other in product(options, options)
        for other_loss, other_weights in [loss_and_size(other)]
        if other_weights <= budget * size(model)
    )
    assert loss <= best + 1e-9


def test_energies_are_of_outputs_where_inputs_are_known() -> None:
    """A layer whose inputs have few directions loses nothing by giving up the others; its weight would not show it."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(48, 48, bias=False), nn.Linear(48, 48, bias=False))
    data = torch.randn(512, 4) @ torch.randn(4, 48)
    small = fc.convert(model, fc.SVDConfig(budget=0.5, multiple_of=1, ridge=1e-6), data=data)
    assert size(small) <= 0.5 * size(model)
    torch.testing.assert_close(small(data), model(data), rtol=1e-3, atol=1e-3)


def test_a_budget_of_multiply_adds() -> None:
    """It falls on the layers with many positions, where one of parameters falls on those with many weights."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 256), nn.Linear(256, 10),
    ).eval()  # fmt: skip
    data = torch.randn(400, 3, 12, 12)
    dense = calibrate.layer_macs(model, data)
    assert dense == {"0": 432 * 144, "1": 2304 * 144, "4": 64 * 256, "5": 2560}
    config = fc.SVDConfig(budget=0.6, budget_of="multiply-adds", multiple_of=1)
    fast = fc.convert(model, config, data=data)
    assert sum(calibrate.layer_macs(fast, data).values()) <= 0.6 * sum(dense.values())
    assert isinstance(fast[4], nn.Linear)  # type: ignore[index]
    small = fc.convert(model, fc.SVDConfig(budget=0.6, multiple_of=1), data=data)
    assert size(small) <= 0.6 * size(model)
    assert not isinstance(small[4], nn.Linear)  # type: ignore[index]
    with pytest.raises(ValueError, match="multiply-adds depend on the size of the input"):
        fc.convert(model, config)


def test_a_spectrum_that_falls_all_at_once_does_not_overshoot() -> None:
    """Its convex hull has two corners only: from one to the other a layer would give up far more than it must."""
    torch.manual_seed(8)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(2)))
    for layer in model:
        nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]  # a linear layer's
    small = fc.convert(model, fc.SVDConfig(budget=0.8, multiple_of=1))
    assert 0.79 * size(model) < size(small) <= 0.8 * size(model)


def test_many_layers_are_shared_out_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more choices than are kept, the budget holds still, and little is lost by that."""
    generator = torch.Generator().manual_seed(9)
    ladders = [
        [_Rung(None, 1000, 0.0)]
        + [
            _Rung((rank,), 20 * rank, float(torch.rand(1, generator=generator)) * (50 - rank) / 50)
            for rank in range(49, 0, -1)
        ]
        for _ in range(12)
    ]

    def found(room: int) -> tuple[int, float]:
        picked = [rungs[index] for rungs, index in zip(ladders, _least_loss(ladders, room), strict=True)]
        return sum(rung.size for rung in picked), sum(rung.lost for rung in picked)

    exact = found(5555)
    assert exact[0] <= 5555
    monkeypatch.setattr(module, "_MOST_CHOICES", 100)
    coarse = found(5555)
    assert coarse[0] <= 5555
    assert exact[1] <= coarse[1] <= 1.1 * exact[1]


def test_layers_that_cannot_give_anything_up_say_why() -> None:
    """One that inputs do not reach, ones whose weight is tied, one that no rank makes smaller."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.thin = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 1)
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.thin(self.second(self.first(self.used(x))))  # type: ignore[no-any-return]

    torch.manual_seed(7)
    model = Net().eval()
    data = torch.randn(128, 64)
    small = fc.convert(model, fc.SVDConfig(budget=0.8, multiple_of=1), data=data)
    assert size(small) <= 0.8 * size(model)
    why = {line.layer: line.why for line in fc.report(small).layers if line.status == "declined"}
    assert why["idle"] == "the calibration inputs do not reach it"
    assert why["thin"] == "no rank makes it smaller"
    assert "tied" in why["first"]
    assert "tied" in why["second"]
    with pytest.raises(BudgetError, match=r"still has 0\.\d+ .*idle: the calibration inputs do not reach it"):
        fc.convert(model, fc.SVDConfig(budget=0.5, multiple_of=1), data=data)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Conv2d(8, 16, (3, 1), dilation=2),
        nn.Conv2d(8, 16, 5, stride=(1, 3), padding="valid", padding_mode="circular"),
        nn.Conv2d(8, 16, (3, 4), padding=(1, 2)),
        nn.Conv2d(8, 16, 3, padding=2, padding_mode="reflect"),
        nn.Conv2d(8, 16, 1, padding=2),
        nn.Conv2d(8, 16, (1, 3), padding=(2, 1)),
    ],
)
@pytest.mark.parametrize("config", [fc.SVDConfig(rank=2), fc.TuckerConfig(rank=4), fc.SeparableConfig(rank=4)])
def test_multiply_adds_are_those_of_the_chain(conv: nn.Conv2d, config: fc.SVDConfig) -> None:
    """Stages in front of the taps see the input's positions, those behind it the output's; maps of odd sizes."""
    data = torch.randn(2, 8, 13, 11)
    layer_class = method_of(config).layers[nn.Conv2d]
    assert issubclass(layer_class, Ranked)
    if layer_class.why_not(conv):
        pytest.skip("the method does not serve it")
    ladder = layer_class.ladder(conv, config)
    ranks = config.given(len(ladder.most))
    assert ranks is not None
    chain = ladder.build(ranks)
    outputs: list[int] = []
    for stage in chain.stages:
        stage.register_forward_hook(lambda module, args, y: outputs.append(module.weight[0].numel() * y[0].numel()))
    chain(data)
    expected = sum(outputs)
    assert chain_macs_at(ladder.stages(ranks), walked(conv, (1, 8, 13, 11))) == expected
    assert sum(calibrate.layer_macs(nn.Sequential(chain), data).values()) == expected
    dense = nn.Sequential(conv)
    assert calibrate.layer_macs(dense, data) == {"0": conv.weight[0].numel() * conv(data)[0].numel()}


class Pyramid(nn.Module):
    """One convolution for maps of three sizes."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.conv(F.avg_pool2d(x, 2**k)).mean((2, 3)) for k in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 48, 1, padding=1), nn.Conv2d(32, 48, 5)]
)
@pytest.mark.parametrize("budget", [0.8, 0.5])
def test_a_layer_that_is_called_for_maps_of_many_sizes(conv: nn.Conv2d, budget: float) -> None:
    torch.manual_seed(0)
    model, data = Pyramid(conv).eval(), torch.randn(2, conv.in_channels, 24, 24)
    before = sum(calibrate.layer_macs(model, data).values())
    small = fc.convert(model, fc.SVDConfig(budget=budget, budget_of="multiply-adds", multiple_of=1), data=data)
    after = sum(calibrate.layer_macs(small, data).values())
    assert 0.9 * budget * before < after <= budget * before


def test_the_smallest_ranks_are_among_those_that_are_tried() -> None:
    """And what the ranks looked at leave of the budget is used."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 400, bias=False))
    for budget, rank in ((0.005, 1), (0.5, 100), (0.515, 103)):
        (small,) = fc.convert(model, fc.SVDConfig(budget=budget, multiple_of=1)).children()
        assert isinstance(small, SVDLinear)
        assert small.rank == rank


def test_a_budget_that_was_not_kept_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(BudgetError, match=r"was not kept: the model has 1\.000 of its 72 parameters"):
        check_kept(model, fc.SVDConfig(budget=0.5), 72, None)
    check_kept(model, fc.SVDConfig(budget=0.5), 144, None)


@pytest.mark.parametrize(
    "config", [fc.TuckerConfig(budget=0.6), fc.SeparableConfig(budget=0.6), fc.CPConfig(budget=0.6)]
)
def test_every_factorisation_takes_a_budget(config: fc.TuckerConfig) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3)
    )
    small = fc.convert(model.eval(), config, data=torch.randn(4, 3, 12, 12))
    assert size(small) <= 0.6 * size(model)
    assert small(torch.randn(2, 3, 12, 12)).shape == (2, 32, 6, 6)


def test_what_cannot_be_kept_is_said() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 10))
    with pytest.raises(
        ValueError, match=r"budget=0\.01 cannot be kept: .* the model still has 0\.\d+ of its 1386 parameters"
    ):
        fc.convert(model, fc.SVDConfig(budget=0.01, multiple_of=1))
    with pytest.raises(DeclinedError, match=r"shared out among the layers of a model: call fastcnn\.convert"):
        SVDLinear.from_dense(nn.Linear(32, 32), fc.SVDConfig(budget=0.5))
    for budget in (0.0, 1.5):
        with pytest.raises(ValueError, match="budget"):
            fc.SVDConfig(budget=budget)
    with pytest.raises(ValueError, match="needs exactly one of rank, energy, keep, budget, speedup"):
        fc.SVDConfig(budget=0.5, keep=0.5)


def test_what_is_gathered_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers in one pass over the inputs, or a pass for each."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    data = [torch.randn(4, 3, 10, 10), torch.randn(2, 3, 10, 10)]
    config = fc.SVDConfig(budget=0.6, multiple_of=1)
    passes: list[int] = []
    plain = calibrate._run

    def counted(model: nn.Module, names: list[str], *rest: Any, **more: Any) -> None:
        passes.append(len(names))
        plain(model, names, *rest, **more)

    monkeypatch.setattr(calibrate, "_run", counted)
    whole = fc.convert(model, config, data=data)
    assert max(passes) == 3
    passes.clear()
    monkeypatch.setattr(calibrate, "MOST_BYTES", 1)
    piecewise = fc.convert(model, config, data=data)
    assert max(passes) == 1
    for ours, theirs in zip(whole.parameters(), piecewise.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_net_runs_no_further_than_the_layer_in_question() -> None:
    """Fitting the first of two layers, the net in conversion does not run the second."""
    runs: list[str] = []

    class Told(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            runs.append(self.name)
            return x

    model = nn.Sequential(nn.Linear(32, 32), Told("between"), nn.Linear(32, 32), Told("behind")).eval()
    fc.convert(model, fc.SVDConfig(rank=4), data=torch.randn(64, 32))
    assert runs.count("behind") < runs.count("between")


@pytest.mark.parametrize("config", [fc.SVDConfig(budget=0.5, multiple_of=1), fc.SVDConfig(rank=4)])
def test_layers_that_work_in_place_change_nothing(config: fc.SVDConfig) -> None:
    """What a layer puts out is looked at before the activation behind it overwrites it."""

    def net(*, inplace: bool) -> nn.Module:
        torch.manual_seed(6)
        return nn.Sequential(
            nn.ReLU6(inplace), nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace), nn.Conv2d(16, 16, 3),
            nn.ReLU(inplace), nn.Conv2d(16, 16, 3), nn.Hardtanh(inplace=inplace),
        ).eval()  # fmt: skip

    data = [torch.randn(16, 3, 12, 12), torch.randn(8, 3, 12, 12)]
    given = [batch.clone() for batch in data]
    small, same = (fc.convert(net(inplace=inplace), config, data=data) for inplace in (True, False))
    assert all(torch.equal(batch, before) for batch, before in zip(data, given, strict=True))
    for ours, theirs in zip(small.parameters(), same.parameters(), strict=True):
        assert torch.equal(ours, theirs)
