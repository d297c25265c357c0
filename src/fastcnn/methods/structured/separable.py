"""Separable filters: a convolution as columns of taps, then rows of taps. Two schemes.

Scheme 2 (the default) is a k x 1 convolution to K channels, then a 1 x k to F: dense stages, whose speed follows their
multiply-adds. Scheme 1 gives every input channel M separable filters of its own and mixes their outputs by a 1x1: its
depthwise stages are bound by memory. Both win on kernels of 5 taps and more, and on 3x3 with many channels.
Approximate.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    Sight,
    check_choice,
    check_count,
    check_finite,
    check_range,
)
from fastcnn.methods.dense import PaddingMode, conv_arguments, pair
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured.calibration import refine, whitenings
from fastcnn.methods.structured.cp import split_geometry
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
from fastcnn.methods.structured.ranks import Ladder, Measure, RankConfig, Ranked, Ranks, energy_rank

Scheme = Literal[1, 2]


@dataclass(frozen=True, kw_only=True)
class SeparableConfig(RankConfig):
    """Separable filters for convolutions with more than one tap on both axes.

    Parameters
    ----------
    scheme : {1, 2}
        2: k x 1 from C to ``rank`` channels, 1 x k to F. 1: ``rank`` columns for each input channel, a row for each of
        them, then 1x1 to F.
    rank, energy, keep, budget, speedup, budget_of, measure, multiple_of, force
        As in :class:`~fastcnn.methods.structured.ranks.RankConfig`; give exactly one of the first five. Scheme 1 does
        not round its rank, which counts filters of one channel.
    ridge : float
        As in :class:`~fastcnn.methods.structured.svd.SVDConfig`, for conversion with ``data``.

    Without ``data`` this is the paper's filter reconstruction; with it, its data reconstruction.

    References
    ----------
    Jaderberg, Vedaldi and Zisserman 2014, arXiv:1405.3866. Differs: scheme 2's filters are found in closed form, by an
    SVD, as Tai et al. 2015, arXiv:1511.06067, do; data reconstruction minimises the error of the outputs layer by
    layer through their second moments instead of by stochastic gradients.
    """

    method: ClassVar[str] = "separable"
    calibrates: ClassVar[bool] = True

    scheme: Scheme = 2
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("scheme", self.scheme, (1, 2))  # type: ignore[arg-type]  # numbers
        check_range("ridge", self.ridge, 0.0, 1e6)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Both schemes."""
        return (cls(rank=1, force=True), cls(rank=2, scheme=1, force=True))


def _stages(spec: ConvSpec, scheme: Scheme, rank: int, geometry: Geometry) -> dict[str, Stage]:
    down, across = split_geometry(geometry)
    if scheme == 2:
        wide = rank * spec.groups
        return {
            "column": Stage(in_channels=spec.in_channels, out_channels=wide, groups=spec.groups, **vars(down)),
            "row": Stage(in_channels=wide, out_channels=spec.out_channels, groups=spec.groups, **vars(across)),
        }
    wide = rank * spec.in_channels
    return {
        "column": Stage(in_channels=spec.in_channels, out_channels=wide, groups=spec.in_channels, **vars(down)),
        "row": Stage(in_channels=wide, out_channels=wide, groups=wide, **vars(across)),
        "mix": Stage(in_channels=wide, out_channels=spec.out_channels, groups=spec.groups),
    }


class _SeparableLadder(Ladder):
    """What the ladders of both schemes share."""

    scheme: ClassVar[Scheme]

    def __init__(self, dense: nn.Conv2d, config: SeparableConfig, sight: Sight | None) -> None:
        check_finite(dense.weight, "weight")
        super().__init__(ConvSpec.of(dense), geometry_of(dense))
        self._dense, self._sight, self._config = dense, sight, config
        self._whitenings = whitenings(sight, dense, config.ridge)
        self._seen = [
            w if s is None else torch.einsum("fcuv,cd->fduv", w, s.factor)
            for w, s in zip(grouped(dense.weight, dense.groups), self._whitenings, strict=True)
        ]

    def stages(self, ranks: Ranks) -> list[Stage]:
        """Columns, rows, and in scheme 1 the mixture."""
        assert isinstance(self.spec, ConvSpec)
        return list(_stages(self.spec, self.scheme, ranks[0], self.geometry).values())

    def build(self, ranks: Ranks) -> SeparableConv2d:
        """The layer at this rank, refined on the outputs where calibration inputs are known."""
        dense = self._dense
        layer = SeparableConv2d(
            **conv_arguments(dense), scheme=self.scheme, rank=ranks[0], device=dense.weight.device,
            dtype=dense.weight.dtype,
        )  # fmt: skip
        layer.take_over(dense, self.factors(ranks[0]))
        refine(layer, dense, self._sight, self._config.ridge)
        return layer

    @abstractmethod
    def factors(self, rank: int) -> list[Tensor]:
        """Weights of the stages."""


class Scheme2Ladder(_SeparableLadder):
    """Singular values of the matrix [(c, u), (f, v)] of every group: the best filters in closed form."""

    scheme = 2

    def __init__(self, dense: nn.Conv2d, config: SeparableConfig, sight: Sight | None) -> None:
        super().__init__(dense, config, sight)
        # (F, C, u, v) -> rows (c, u), columns (f, v)
        self._parts = [
            torch.linalg.svd(w.permute(1, 2, 0, 3).flatten(2).flatten(0, 1), full_matrices=False) for w in self._seen
        ]

    @property
    def most(self) -> Ranks:
        """Full rank of a group's matrix."""
        return (len(self._parts[0].S),)

    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Of the group that needs most."""
        return (max(energy_rank(part.S, energy, measure) for part in self._parts),)

    def error(self, ranks: Ranks) -> float:
        """Root of the squared singular values that are cut off, over all of them."""
        squares = torch.stack([part.S**2 for part in self._parts])
        whole = float(squares.sum())
        return (float(squares[:, ranks[0] :].sum()) / whole) ** 0.5 if whole else 0.0

    def factors(self, rank: int) -> list[Tensor]:
        """Columns (K, C, k, 1) and rows (F, K, 1, k), with the square root of the singular values each."""
        filters, channels, kh, kw = self._seen[0].shape
        columns, rows = [], []
        for (left, singular, right), whitening in zip(self._parts, self._whitenings, strict=True):
            root = singular[:rank].sqrt()
            column = (left[:, :rank] * root).T.reshape(rank, channels, kh)
            if whitening is not None:
                column = whitening.undo(column.mT.reshape(-1, channels)).reshape(rank, kh, channels).mT
            columns.append(column)
            rows.append((root[:, None] * right[:rank]).reshape(rank, filters, kw).transpose(0, 1))
        return [torch.cat(columns), torch.cat(rows)]


class Scheme1Ladder(_SeparableLadder):
    """For each input channel a CP decomposition of its filters (F, k, k): bases and how the outputs mix them."""

    scheme = 1

    def __init__(self, dense: nn.Conv2d, config: SeparableConfig, sight: Sight | None) -> None:
        super().__init__(dense, config, sight)
        # Channels stay apart in this scheme, so that whitening could only mix what must not be mixed.
        self._channels = torch.cat([w.transpose(0, 1) for w in grouped(dense.weight, dense.groups)])
        self._known: dict[int, list[Tensor]] = {}
        self._errors: dict[int, float] = {}

    @property
    def most(self) -> Ranks:
        """A filter for every tap."""
        return (self._channels.shape[2] * self._channels.shape[3],)

    def rounded(self, ranks: Ranks, config: RankConfig) -> Ranks:
        """As they are: the rank counts filters of one channel."""
        return ranks

    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Smallest whose error is small enough, for all channels together."""
        for rank in range(1, self.most[0]):
            if self.error((rank,)) ** 2 <= 1 - energy + 1e-12:
                return (rank,)
        return self.most

    def error(self, ranks: Ranks) -> float:
        """Of all channels together."""
        if ranks[0] not in self._errors:
            whole = float(self._channels.norm())
            missed = float((self._channels - rebuild(self._cp(ranks[0]))).norm())
            self._errors[ranks[0]] = missed / whole if whole else 0.0
        return self._errors[ranks[0]]

    def _cp(self, rank: int) -> list[Tensor]:
        if rank == self.most[0]:
            return self._taps()
        if rank not in self._known:
            self._known[rank] = cp_als(self._channels, rank)
        return self._known[rank]

    def _taps(self) -> list[Tensor]:
        """At full rank: one column and one row with a single tap for each, and the weight itself mixes them."""
        channels, _, kh, kw = self._channels.shape
        down, across = torch.eye(kh).repeat_interleave(kw, 1), torch.eye(kw).repeat(1, kh)
        ones = torch.ones(channels, 1, 1, dtype=self._channels.dtype)
        return [self._channels.flatten(2), ones * down, ones * across]

    def factors(self, rank: int) -> list[Tensor]:
        """Columns and rows (C M, 1, ...), mixture (F, C / groups M)."""
        mixture, column, row = self._cp(rank)
        groups = self._dense.groups
        # (C, F / groups, M) -> groups of (F / groups, C / groups M)
        mixed = [part.transpose(0, 1).flatten(1) for part in mixture.chunk(groups)]
        return [column.mT.flatten(0, 1), row.mT.flatten(0, 1), torch.cat(mixed)]


@register_method(SeparableConfig)
class SeparableConv2d(Ranked, FactoredConv2d):
    """Columns of taps, then rows of taps, in the place of one convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; columns and rows share stride, padding and dilation by axis.
    scheme : {1, 2}
    rank : int
        Scheme 2: channels between the stages, of each group. Scheme 1: filters of each input channel.

    References
    ----------
    Jaderberg et al. 2014, arXiv:1405.3866.
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
        scheme: Scheme = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("rank", rank, 1)
        check_choice("scheme", scheme, (1, 2))  # type: ignore[arg-type]  # numbers
        self.rank, self.scheme = rank, scheme
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip

    def plan_stages(self, geometry: Geometry) -> dict[str, Stage]:
        """``column`` and ``row``; in scheme 1 also ``mix``."""
        return _stages(self.spec, self.scheme, self.rank, geometry)

    @classmethod
    def why_not(cls, dense: nn.Conv2d) -> str:
        """Taps on one axis only are a column or a row already."""
        down, across = pair(dense.kernel_size)
        return f"a kernel of {down}x{across} has no second axis of taps" if 1 in (down, across) else ""

    @classmethod
    def ladder(
        cls, dense: nn.Conv2d, config: SeparableConfig, sight: Sight | None = None
    ) -> Scheme1Ladder | Scheme2Ladder:
        """Every rank there is for a layer."""
        return (Scheme1Ladder if config.scheme == 1 else Scheme2Ladder)(dense, config, sight)

    @staticmethod
    def cost(config: SeparableConfig, spec: ConvSpec) -> Cost:
        """Cost in float32, for a rank that is given."""
        if config.rank is None:
            raise ValueError("the rank depends on the weights: its cost is known once the layer is converted")
        return chain_cost(list(_stages(spec, config.scheme, config.rank, spec_geometry(spec)).values()), spec)

    def extra_repr(self) -> str:
        """Shape, scheme and rank."""
        return f"{super().extra_repr()}, scheme={self.scheme}, rank={self.rank}"
