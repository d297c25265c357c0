"""One budget for a whole model: kept, at the least loss, and said where it cannot be."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.compression import calibrate
from fastcnn.compression.share_out import share_out
from fastcnn.methods.contract import DeclinedError
from fastcnn.methods.registry import method_of
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
    """Against every combination of ranks of two layers; the last step may overshoot by one rung."""
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
        if other_weights <= weights
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


@pytest.mark.parametrize("config", [fc.TuckerConfig(budget=0.6), fc.SeparableConfig(budget=0.6)])
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
    plain = calibrate._calls

    def counted(
        model: nn.Module, names: list[str], batch: Tensor, *, enough: int | None = None
    ) -> list[tuple[str, Tensor, Tensor]]:
        passes.append(len(names))
        return plain(model, names, batch, enough=enough)

    monkeypatch.setattr(calibrate, "_calls", counted)
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
