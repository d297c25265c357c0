"""Rules for ranks: energy, EVBMF, the settings of a config, the steps of a ladder."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.methods.contract import DeclinedError, Sight
from fastcnn.methods.structured.cp import CPConfig, CPConv2d
from fastcnn.methods.structured.evbmf import evbmf_rank
from fastcnn.methods.structured.ranks import choose, energy_rank, vector_width
from fastcnn.methods.structured.svd import SVDConfig, SVDLinear
from fastcnn.methods.structured.tucker import TuckerConfig, TuckerConv2d


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (64, 576), (50, 50)])
@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_evbmf_finds_the_planted_rank(shape: tuple[int, int], rank: int) -> None:
    for seed in range(3):
        generator = np.random.default_rng(seed)
        signal = generator.normal(size=(shape[0], rank)) @ generator.normal(size=(rank, shape[1]))
        noisy = signal + 0.3 * generator.normal(size=shape)
        assert evbmf_rank(np.linalg.svd(noisy, compute_uv=False), shape) == rank


def test_evbmf_does_not_depend_on_the_scale() -> None:
    generator = np.random.default_rng(1)
    noisy = generator.normal(size=(30, 4)) @ generator.normal(size=(4, 50)) + 0.2 * generator.normal(size=(30, 50))
    singular = np.linalg.svd(noisy, compute_uv=False)
    assert [evbmf_rank(scale * singular, (30, 50)) for scale in (1e-6, 1.0, 1e6)] == [4, 4, 4]


def test_evbmf_of_special_matrices() -> None:
    assert evbmf_rank(np.zeros(5), (5, 9)) == 0
    exact = np.linalg.svd(np.outer(np.arange(1.0, 8), np.arange(1.0, 12)), compute_uv=False)
    assert evbmf_rank(exact, (7, 11)) >= 1
    with pytest.raises(ValueError, match=r"shape \(5,\) for a matrix of shape \(5, 9\), got \(4,\)"):
        evbmf_rank(np.ones(4), (5, 9))


def test_energy_rank() -> None:
    singular = torch.tensor([3.0, 2.0, 1.0, 0.0])  # squares 9, 4, 1, 0 of 14
    assert [energy_rank(singular, share) for share in (0.5, 9 / 14, 0.65, 13 / 14, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert [energy_rank(singular, share, "values") for share in (0.5, 0.6, 5 / 6, 1.0)] == [1, 2, 2, 3]
    assert energy_rank(torch.zeros(3), 0.9) == 1


BAD: list[tuple[type[Any], dict[str, Any], type[Exception], str]] = [
    (SVDConfig, {}, ValueError, "exactly one of rank, energy, keep, budget, speedup, got none"),
    (SVDConfig, {"rank": 3, "energy": 0.5}, ValueError, "got rank, energy"),
    (SVDConfig, {"rank": 0}, ValueError, "rank=0 is out of range"),
    (SVDConfig, {"rank": 2.5}, TypeError, "rank must be an integer, got float"),
    (SVDConfig, {"energy": 1.5}, ValueError, "energy=1.5 is out of range"),
    (SVDConfig, {"keep": 0.0}, ValueError, "keep=0 keeps nothing"),
    (SVDConfig, {"speedup": 0.5}, ValueError, "speedup=0.5 is out of range"),
    (SVDConfig, {"rank": 1, "measure": "cubes"}, ValueError, "measure='cubes' is not supported"),
    (SVDConfig, {"rank": 1, "multiple_of": 0}, ValueError, "multiple_of=0"),
    (SVDConfig, {"rank": 1, "force": 1}, TypeError, "force must be True or False, got 1"),
    (SVDConfig, {"rank": 1, "ridge": -1.0}, ValueError, "ridge=-1.0 is out of range"),
    (TuckerConfig, {"ranks": (1, 2), "rank": 3}, ValueError, "exactly one of .*ranks, evbmf, got rank, ranks"),
    (TuckerConfig, {"ranks": (1,)}, TypeError, r"ranks must be a pair of integers, got \(1,\)"),
    (TuckerConfig, {"ranks": (1, 0)}, ValueError, "ranks=0 is out of range"),
    (TuckerConfig, {"evbmf": 0.0}, ValueError, "evbmf=0.0 is out of range"),
]


@pytest.mark.parametrize(("config", "settings", "error", "said"), BAD, ids=[str(settings) for _, settings, *_ in BAD])
def test_bad_settings_are_named(config: Any, settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        config(**settings)


def test_ranks_that_are_found_are_whole_vectors_and_given_ones_are_not() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(100, 80)
    assert SVDLinear.from_dense(dense, SVDConfig(rank=13)).rank == 13
    found = SVDLinear.from_dense(dense, SVDConfig(energy=0.3)).rank
    assert found % vector_width() == 0
    assert vector_width() in (8, 16)
    exact = SVDLinear.from_dense(dense, SVDConfig(energy=0.3, multiple_of=1)).rank
    assert found - vector_width() < exact <= found
    assert SVDLinear.from_dense(dense, SVDConfig(energy=1.0, force=True)).rank == 80, "rounded up to full at most"


def test_keep_is_a_bound() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(256, 192)
    for keep in (0.2, 0.5, 0.9):
        layer = SVDLinear.from_dense(dense, SVDConfig(keep=keep, multiple_of=1))
        weights = sum(stage.weights for stage in layer.chain)
        assert weights <= keep * dense.weight.numel() < weights + 256 + 192, "the largest that fits"
    with pytest.raises(DeclinedError, match=r"its smallest form needs 7168 weights, more than keep=0\.1 of 49152"):
        SVDLinear.from_dense(dense, SVDConfig(keep=0.1, multiple_of=16))


def test_an_energy_that_cp_cannot_keep_is_declined() -> None:
    torch.manual_seed(0)
    with pytest.raises(DeclinedError, match=r"the largest with fewer weights, keeps .* of the energy, not 99\.9%"):
        CPConv2d.from_dense(nn.Conv2d(24, 24, 3), CPConfig(energy=0.999))


def test_a_rank_that_does_not_fit_is_declined_and_never_clamped() -> None:
    with pytest.raises(DeclinedError, match="rank 9 exceeds rank 8, the largest this layer can have"):
        SVDLinear.from_dense(nn.Linear(20, 8), SVDConfig(rank=9))
    with pytest.raises(DeclinedError, match=r"rank 7 would need 196 weights and 196 .*: neither smaller nor faster"):
        SVDLinear.from_dense(nn.Linear(20, 8), SVDConfig(rank=7))
    with pytest.raises(DeclinedError, match="ranks 3, 40 exceeds ranks 8, 16"):
        TuckerConv2d.from_dense(nn.Conv2d(8, 16, 3), TuckerConfig(ranks=(3, 40)))


def made_up(ms_of_rank: dict[int, float] | None = None, dense: float = 10.0) -> Sight:
    """Timing by a table: 10 ms for the dense layer, a tenth of it per 16 ranks."""

    def latency(layer: nn.Module) -> float:
        assert isinstance(layer, SVDLinear)
        return layer.rank / 16 if ms_of_rank is None else ms_of_rank[layer.rank]

    return Sight(moments=None, input_shape=(1, 256), latency_ms=latency, dense_ms=lambda: dense)


def test_speedup_takes_the_largest_rank_that_is_fast_enough() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(512, 512)
    ladder = SVDLinear.ladder(dense, SVDConfig(speedup=2.0, multiple_of=16))
    for speedup, rank in ((1.0, 160), (2.0, 80), (5.0, 32), (10.0, 16)):
        config = SVDConfig(speedup=speedup, multiple_of=16)
        assert choose(ladder, config, made_up()) == (rank,)
    with pytest.raises(
        DeclinedError, match="no ranks are 100 times as fast as its 10 ms; fastest that were tried: 1 ms"
    ):
        choose(ladder, SVDConfig(speedup=100.0, multiple_of=16), made_up())
    with pytest.raises(DeclinedError, match="speedup is measured at the size of its input: give convert data"):
        choose(ladder, SVDConfig(speedup=2.0), None)


@pytest.mark.parametrize(
    "config",
    [
        fc.SVDConfig(energy=0.5),
        fc.TuckerConfig(energy=0.5),
        fc.TuckerConfig(evbmf=1.0),
        fc.CPConfig(energy=0.5),
        fc.SeparableConfig(energy=0.5),
        fc.SeparableConfig(energy=0.5, scheme=1),
    ],
    ids=lambda config: f"{config.method}-{config.rules()}",
)
def test_steps_grow_and_errors_do_not(config: Any) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(24, 32, 3)
    layer = next(iter(m for m in fc.list_methods() if m.config is type(config))).layers[nn.Conv2d]
    ladder = layer.ladder(dense, config)
    steps = ladder.steps(config)
    assert len(steps) > 1
    weights = [ladder.weights(ranks) for ranks in steps]
    assert weights == sorted(set(weights))
    errors = [ladder.error(ranks) for ranks in steps]
    assert all(later <= earlier + 1e-3 for earlier, later in itertools.pairwise(errors))
    built = ladder.build(steps[0])
    missed = (built.to_dense().weight - dense.weight).detach().norm() / dense.weight.detach().norm()
    assert float(missed) <= errors[0] + 1e-5
    assert ladder.macs(steps[0]) == built.theory().macs
