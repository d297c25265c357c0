"""CP: a convolution as 1x1, a column of taps, a row of taps for each channel, 1x1; a sum of separable outer products.

Saves most multiplications of all factorisations. Its depthwise stages are bound by memory, so the time saved is less.
Approximate; not unique in its scale, and known to diverge in training at high rates: fine-tune at a low one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    DeclinedError,
    Sight,
    check_count,
    check_finite,
    check_range,
)
from fastcnn.methods.dense import PaddingMode, conv_arguments
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured.calibration import refine, whitenings
from fastcnn.methods.structured.cp_als import cp_als, rebuild
from fastcnn.methods.structured.factored import (
    FactoredConv2d,
    Geometry,
    Stage,
    chain_cost,
    geometry_of,
    grouped,
    spec_geometry,
)
from fastcnn.methods.structured.ranks import Ladder, Measure, RankConfig, Ranked, Ranks


@dataclass(frozen=True, kw_only=True)
class CPConfig(RankConfig):
    """CP decomposition of convolutions with more than one tap, by alternating least squares.

    Parameters
    ----------
    rank, energy, keep, budget, speedup, budget_of, multiple_of, force
        As in :class:`~fastcnn.methods.structured.ranks.RankConfig`; give exactly one of the first five. The rank may
        exceed the channels. ``measure`` has no meaning here: a CP decomposition has no spectrum.
    starts : int
        Of the iteration; the first from singular vectors, the others random. The best is taken.
    seed : int
    ridge : float
        As in :class:`~fastcnn.methods.structured.svd.SVDConfig`, for conversion with ``data``.

    References
    ----------
    Lebedev, Ganin, Rakhuba, Oseledets and Lempitsky 2014, arXiv:1412.6553. Differs: alternating least squares with a
    small ridge instead of damped nonlinear least squares; with ``data`` the factors are then fitted to the outputs.
    """

    method: ClassVar[str] = "cp"
    calibrates: ClassVar[bool] = True

    starts: int = 1
    seed: int = 0
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("starts", self.starts, 1, 100)
        check_count("seed", self.seed, 0)
        check_range("ridge", self.ridge, 0.0, 1e6)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Rank 1, and a rank above the channels of small layers."""
        return (cls(rank=1, force=True), cls(rank=5, force=True, starts=2))


def _stages(spec: ConvSpec, rank: int, geometry: Geometry) -> dict[str, Stage]:
    wide = rank * spec.groups
    down, across = split_geometry(geometry)
    return {
        "reduce": Stage(in_channels=spec.in_channels, out_channels=wide, groups=spec.groups),
        "column": Stage(in_channels=wide, out_channels=wide, groups=wide, **vars(down)),
        "row": Stage(in_channels=wide, out_channels=wide, groups=wide, **vars(across)),
        "expand": Stage(in_channels=wide, out_channels=spec.out_channels, groups=spec.groups),
    }


def split_geometry(geometry: Geometry) -> tuple[Geometry, Geometry]:
    """What a column of taps and a row of taps after it do of stride, padding and dilation."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = vars(geometry).values()
    return (
        Geometry(kernel_size=(kh, 1), stride=(sh, 1), padding=(ph, 0), dilation=(dh, 1)),
        Geometry(kernel_size=(1, kw), stride=(1, sw), padding=(0, pw), dilation=(1, dw)),
    )


class CPLadder(Ladder):
    """A decomposition for every rank: unlike singular values, components of one rank are no part of the next."""

    most_points = 16

    def __init__(self, dense: nn.Conv2d, config: CPConfig, sight: Sight | None) -> None:
        check_finite(dense.weight, "weight")
        super().__init__(ConvSpec.of(dense), geometry_of(dense))
        self._dense, self._sight, self._config = dense, sight, config
        weights = torch.stack(grouped(dense.weight, dense.groups))
        self._whitenings = whitenings(sight, dense, config.ridge)
        self._seen = torch.stack(
            [
                w if s is None else torch.einsum("fcuv,cd->fduv", w, s.factor)
                for w, s in zip(weights, self._whitenings, strict=True)
            ]
        )
        self._known: dict[int, list[Tensor]] = {}

    @property
    def most(self) -> Ranks:
        """Where a CP decomposition surely exists: a product of all mode sizes but the largest."""
        sizes = sorted(self._seen.shape[1:])
        return (sizes[0] * sizes[1] * sizes[2],)

    def stages(self, ranks: Ranks) -> list[Stage]:
        """1x1, column, row, 1x1."""
        assert isinstance(self.spec, ConvSpec)
        return list(_stages(self.spec, ranks[0], self.geometry).values())

    def steps(self, config: RankConfig) -> list[Ranks]:
        """Ranks up to the dense layer's weights, each an eighth larger than the one before."""
        found: list[Ranks] = []
        rank = 1
        while rank <= self.most[0]:
            ranks = self.rounded((rank,), config)
            if self.weights(ranks) > self.spec.weights and found:
                break
            if ranks not in found:
                found.append(ranks)
            rank = max(ranks[0] + 1, rank * 9 // 8)
        return found

    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Smallest of the steps' ranks whose error is small enough.

        Raises
        ------
        DeclinedError
            If none is.
        """
        steps = self.steps(self._config)
        least = self.error(steps[-1])
        if least**2 > 1 - energy + 1e-12:
            raise DeclinedError(
                f"rank {steps[-1][0]}, the largest with fewer weights, keeps {1 - least**2:.1%} of the energy, not "
                f"{energy:.1%}"
            )
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            if self.error(steps[middle]) ** 2 <= 1 - energy + 1e-12:
                high = middle
            else:
                low = middle + 1
        return steps[low]

    def error(self, ranks: Ranks) -> float:
        """Of the tensors that the iteration ends with."""
        whole = float(self._seen.norm())
        return float((self._seen - rebuild(self._factors(ranks[0]))).norm()) / whole if whole else 0.0

    def _factors(self, rank: int) -> list[Tensor]:
        if rank not in self._known:
            self._known[rank] = cp_als(self._seen, rank, seed=self._config.seed, starts=self._config.starts)
        return self._known[rank]

    def build(self, ranks: Ranks) -> CPConv2d:
        """The layer at this rank, refined on the outputs where calibration inputs are known."""
        dense = self._dense
        layer = CPConv2d(**conv_arguments(dense), rank=ranks[0], device=dense.weight.device, dtype=dense.weight.dtype)
        output, inputs, column, row = self._factors(ranks[0])
        reduce = [part.T if s is None else s.undo(part.T) for part, s in zip(inputs, self._whitenings, strict=True)]
        factors = [torch.cat(reduce), column.mT.flatten(0, 1), row.mT.flatten(0, 1), output.flatten(0, 1)]
        layer.take_over(dense, factors)
        refine(layer, dense, self._sight, self._config.ridge)
        return layer


@register_method(CPConfig)
class CPConv2d(Ranked, FactoredConv2d):
    """1x1, k x 1 and 1 x k on each channel, 1x1, in the place of one convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; the two depthwise stages share stride, padding and dilation by axis.
    rank : int
        Components, of each group.

    References
    ----------
    Lebedev et al. 2014, arXiv:1412.6553.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        rank: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("rank", rank, 1)
        self.rank = rank
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip

    def plan_stages(self, geometry: Geometry) -> dict[str, Stage]:
        """``reduce``, ``column``, ``row`` and ``expand``."""
        return _stages(self.spec, self.rank, geometry)

    @classmethod
    def why_not(cls, dense: nn.Conv2d) -> str:
        """One tap needs no column and no row."""
        one = dense.weight[0, 0].numel() == 1
        return "it is 1x1, where CP is a low rank with useless stages: use SVDConfig" if one else ""

    @classmethod
    def ladder(cls, dense: nn.Conv2d, config: CPConfig, sight: Sight | None = None) -> CPLadder:
        """Every rank there is for a layer."""
        return CPLadder(dense, config, sight)

    @staticmethod
    def cost(config: CPConfig, spec: ConvSpec) -> Cost:
        """Cost in float32, for a rank that is given."""
        if config.rank is None:
            raise ValueError("the rank depends on the weights: its cost is known once the layer is converted")
        return chain_cost(list(_stages(spec, config.rank, spec_geometry(spec)).values()), spec)

    def extra_repr(self) -> str:
        """Shape and rank."""
        return f"{super().extra_repr()}, rank={self.rank}"
