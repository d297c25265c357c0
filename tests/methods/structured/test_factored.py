"""Chains of layers: what they stand for, whatever the geometry, and what every factorisation keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.methods.contract import DeclinedError
from fastcnn.methods.structured.cp import CPConfig, CPConv2d
from fastcnn.methods.structured.cp_als import cp_als, rebuild
from fastcnn.methods.structured.factored import block_diagonal, compose, without_groups
from fastcnn.methods.structured.low_rank import LowRankConfig, LowRankLinear
from fastcnn.methods.structured.separable import SeparableConfig, SeparableConv2d
from fastcnn.methods.structured.svd import SVDConfig, SVDConv2d, SVDLinear
from fastcnn.methods.structured.tucker import TuckerConfig, TuckerConv2d, tucker2

FULL: list[tuple[Any, Any]] = [
    (SVDConv2d, SVDConfig(energy=1.0, force=True)),
    (TuckerConv2d, TuckerConfig(energy=1.0, force=True)),
    (SeparableConv2d, SeparableConfig(energy=1.0, force=True)),
    (SeparableConv2d, SeparableConfig(rank=9, scheme=1, force=True)),
    (CPConv2d, CPConfig(rank=1, force=True)),  # at the rank that its ladder ends with
]
GEOMETRY: list[dict[str, Any]] = [
    {},
    {"stride": (2, 1), "padding": (1, 2)},
    {"dilation": (2, 3), "padding": 2, "stride": 2},
    {"groups": 2, "padding": 1},
    {"padding": 1, "padding_mode": "circular", "bias": False},
    {"padding": "same", "dilation": 2},
]


def loops(x: Tensor, chain: list[tuple[Tensor, int]]) -> Tensor:
    """The chain at stride 1 by plain sums, float64."""
    for weight, groups in chain:
        out, fan_in, kh, kw = weight.shape
        y = torch.zeros(x.shape[0], out, x.shape[2] - kh + 1, x.shape[3] - kw + 1, dtype=torch.float64)
        for o in range(out):
            first = o // (out // groups) * fan_in
            for c in range(fan_in):
                for u in range(kh):
                    for v in range(kw):
                        part = x[:, first + c, u : u + y.shape[2], v : v + y.shape[3]]
                        y[:, o] += weight[o, c, u, v] * part
        x = y
    return x


def test_compose_is_the_chain() -> None:
    torch.manual_seed(0)
    chain = [
        (torch.randn(6, 4, 1, 2, dtype=torch.float64), 1),
        (torch.randn(6, 1, 3, 1, dtype=torch.float64), 6),
        (torch.randn(4, 3, 1, 3, dtype=torch.float64), 2),
    ]
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    whole = compose(chain)
    assert whole.shape == (4, 4, 3, 4)
    assert torch.allclose(loops(x, [(whole, 1)]), loops(x, chain), atol=1e-12)


def test_groups_there_and_back() -> None:
    weight = torch.randn(6, 2, 3, 1)
    wide = without_groups(weight, 3)
    assert wide.shape == (6, 6, 3, 1)
    assert int((wide != 0).sum()) == weight.numel()
    assert torch.equal(block_diagonal(wide, 3), weight)


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
@pytest.mark.parametrize(("cls", "config"), FULL, ids=lambda item: getattr(item, "method", item.__class__.__name__))
def test_full_rank_rebuilds_weight_and_outputs(cls: Any, config: Any, geometry: dict[str, Any]) -> None:
    torch.manual_seed(1)
    dense = nn.Conv2d(6, 8, 3, **geometry)
    if cls is CPConv2d:
        config = CPConfig(rank=CPConv2d.ladder(dense, config).most[0], force=True)
    layer = cls.from_dense(dense, config)
    weight = layer.to_dense().weight
    assert float((weight - dense.weight).detach().norm() / dense.weight.detach().norm()) < 1e-5
    x = torch.randn(2, 6, 11, 12)
    with torch.no_grad():
        want = dense.double()(x.double())
        assert float((layer(x) - want).abs().max() / want.abs().max()) < 1e-5


def test_cp_of_an_exact_sum_of_outer_products() -> None:
    torch.manual_seed(0)
    factors = [torch.randn(2, extent, 4, dtype=torch.float64) for extent in (9, 8, 3, 5)]
    tensors = rebuild(factors)
    reference = sum(torch.einsum("i,j,k,l->ijkl", *(factor[1, :, r] for factor in factors)) for r in range(4))
    assert torch.allclose(tensors[1], reference)  # type: ignore[arg-type]
    found = cp_als(tensors, 4, starts=3, sweeps=500, tolerance=1e-12)
    for b in range(2):
        assert float((rebuild(found)[b] - tensors[b]).norm() / tensors[b].norm()) < 1e-5
    lengths = [factor.norm(dim=1) for factor in found]
    assert all(torch.allclose(lengths[0], other) for other in lengths[1:])
    dense = nn.Conv2d(8, 9, (3, 5))
    with torch.no_grad():
        dense.weight.copy_(tensors[0])
    layer = CPConv2d.from_dense(dense, CPConfig(rank=4, starts=3))
    assert float((layer.to_dense().weight - dense.weight).detach().norm() / dense.weight.detach().norm()) < 1e-3


def test_more_starts_are_never_worse_and_seeds_decide() -> None:
    torch.manual_seed(0)
    tensors = torch.randn(3, 6, 5, 4, dtype=torch.float64)

    def error(**settings: Any) -> Tensor:
        return (rebuild(cp_als(tensors, 5, sweeps=30, **settings)) - tensors).flatten(1).norm(dim=1)

    assert bool((error(starts=4) <= error() + 1e-12).all())
    assert torch.equal(error(starts=2, seed=3), error(starts=2, seed=3))


def test_svd_error_is_what_is_cut_off() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(40, 30)
    singular = torch.linalg.svdvals(dense.weight.detach().double())
    last = float(singular.norm())
    for rank in (1, 5, 12, 17):
        layer = SVDLinear.from_dense(dense, SVDConfig(rank=rank))
        missed = float((layer.weight - dense.weight.detach().double()).norm())
        assert missed == pytest.approx(float(singular[rank:].square().sum().sqrt()), rel=1e-5)
        assert missed < last
        last = missed
    reduce, expand = (stage.weight.detach() for stage in layer.stages)
    assert float(reduce.norm()) == pytest.approx(float(expand.norm()), rel=1e-4), "balanced"


def test_hooi_is_no_worse_than_what_the_modes_discard() -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 16, 3, 3, dtype=torch.float64)
    found = tucker2(weight, (7, 9))
    rebuilt = torch.einsum("oiuv,ic,fo->fcuv", found.core, found.input, found.output)
    lost = [
        float(torch.linalg.svdvals(weight.movedim(mode, 0).flatten(1))[rank:].square().sum())
        for mode, rank in ((1, 7), (0, 9))
    ]
    error = float((weight - rebuilt).square().sum())
    assert max(lost) - 1e-9 <= error <= sum(lost) + 1e-9


def test_planted_tucker_ranks_are_found_by_evbmf_and_energy() -> None:
    torch.manual_seed(0)
    core, left, right = torch.randn(5, 4, 3, 3), torch.randn(40, 5), torch.randn(32, 4)
    dense = nn.Conv2d(32, 40, 3)
    with torch.no_grad():
        dense.weight.copy_(torch.einsum("oiuv,fo,ci->fcuv", core, left, right))
        dense.weight.add_(0.05 * dense.weight.std() * torch.randn_like(dense.weight))
    assert TuckerConv2d.from_dense(dense, TuckerConfig(evbmf=1.0, multiple_of=1)).ranks == (4, 5)
    assert TuckerConv2d.from_dense(dense, TuckerConfig(evbmf=2.0, multiple_of=1)).ranks == (8, 10)
    assert TuckerConv2d.from_dense(dense, TuckerConfig(energy=0.98, multiple_of=1)).ranks == (4, 5)


@pytest.mark.parametrize(
    ("cls", "config", "dense", "said"),
    [
        (TuckerConv2d, TuckerConfig(rank=1), nn.Conv2d(8, 8, 1), "it is 1x1.*use SVDConfig"),
        (CPConv2d, CPConfig(rank=1), nn.Conv2d(8, 8, 1), "it is 1x1.*use SVDConfig"),
        (SeparableConv2d, SeparableConfig(rank=1), nn.Conv2d(8, 8, (1, 5)), "a kernel of 1x5 has no second axis"),
        (
            CPConv2d,
            CPConfig(rank=8, force=False),
            nn.Conv2d(2, 3, 3),
            "rank 8 would need .* neither smaller nor faster",
        ),
    ],
    ids=["tucker", "cp", "separable", "gain"],
)
def test_what_is_declined_and_why(cls: Any, config: Any, dense: nn.Conv2d, said: str) -> None:
    with pytest.raises(DeclinedError, match=said):
        cls.from_dense(dense, config)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    dense = nn.Conv2d(4, 4, 3)
    with torch.no_grad():
        dense.weight[0, 0, 0, 0] = bad
    for cls, config in FULL:
        with pytest.raises(ValueError, match="weight holds 1 non-finite value"):
            cls.from_dense(dense, config)


@pytest.mark.parametrize(
    "layer",
    [
        SVDLinear(64, 32, rank=8),
        SVDConv2d(8, 16, 3, rank=8),
        TuckerConv2d(16, 32, 3, ranks=(8, 8)),
        CPConv2d(8, 16, 3, rank=12),
        SeparableConv2d(8, 16, 3, rank=12),
        SeparableConv2d(8, 16, 3, rank=2, scheme=1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_from_scratch_each_chain_keeps_the_variance_and_learns(layer: Any) -> None:
    torch.manual_seed(0)
    layer.reset_parameters()
    linear = isinstance(layer, SVDLinear)
    x = torch.randn(512, 64) if linear else torch.randn(32, layer.in_channels, 9, 9)
    y = layer(x).detach()
    assert 0.4 < float(y.var()) < 2.0, "unit fan-in in every stage"
    goal = torch.tanh(y + 0.5 * torch.randn_like(y))
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_the_final_layer_alone_is_low_rank() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 200))
    small = fc.convert(net, LowRankConfig(rank=8))
    assert type(small[0]) is nn.Linear  # type: ignore[index]
    assert isinstance(small[2], LowRankLinear)  # type: ignore[index]
    assert [line.layer for line in fc.report(small)] == ["2"]
    layer = small[2]  # type: ignore[index]
    want = layer.weight.square().sum()
    assert float(layer.penalty().detach()) == pytest.approx(float(want), rel=1e-5)
    with pytest.raises(DeclinedError, match="neither smaller nor faster"):
        LowRankLinear.from_dense(nn.Linear(512, 10), LowRankConfig(rank=10))


def test_a_stage_before_the_stride_counts_every_position() -> None:
    layer = TuckerConv2d(16, 32, 3, stride=2, ranks=(4, 8))
    assert layer.theory().macs == 16 * 4 * 4 + 4 * 8 * 9 + 8 * 32
    layer = SeparableConv2d(16, 32, 3, stride=2, rank=8)  # type: ignore[assignment]
    assert layer.theory().macs == 2 * 16 * 8 * 3 + 8 * 32 * 3, "columns are strided down, not across"


def test_parts_of_a_chain_are_layers_for_other_methods() -> None:
    torch.manual_seed(0)
    small = fc.convert(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU()), TuckerConfig(rank=8))
    shared = fc.convert(small, fc.KMeansConfig(clusters=16))
    assert [line.layer for line in fc.report(shared)][1:] == ["0.stages.reduce", "0.stages.core", "0.stages.expand"]
    assert shared(torch.randn(1, 16, 5, 5)).shape == (1, 16, 3, 3)
