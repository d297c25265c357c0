"""Low rank by singular value decomposition: W = U V, a thin layer before a thin layer, for every layer of a net.

Wins where the spectrum of the weight falls quickly: large linear layers, 1x1 convolutions with many channels. Loses on
small layers and flat spectra. Approximate; with ``data`` the error of the outputs is minimised, not that of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    LinearSpec,
    Sight,
    Spec,
    check_count,
    check_finite,
    check_range,
    spec_of,
)
from fastcnn.methods.dense import PaddingMode, conv_arguments, linear_arguments
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured.calibration import Moments, whitened_svd
from fastcnn.methods.structured.factored import (
    FactoredConv2d,
    FactoredLinear,
    Geometry,
    Stage,
    chain_cost,
    geometry_of,
    grouped,
    spec_geometry,
)
from fastcnn.methods.structured.ranks import Ladder, Measure, RankConfig, Ranked, Ranks, energy_rank


@dataclass(frozen=True, kw_only=True)
class SVDConfig(RankConfig):
    """Low rank for every conv and linear layer, by SVD of its weight.

    A weight W of shape (m, n) becomes U (m, r) times V (r, n); a convolution's n is C / groups * kh * kw, and V is a
    convolution with the taps of the dense one, U a 1x1. Both factors get the square root of the singular values.
    With ``data``, the singular values are those of the outputs: W C^(1/2), where C is the covariance of what the layer
    sees, and the bias takes up the mean of what is lost.

    Parameters
    ----------
    rank, energy, keep, budget, speedup, budget_of, measure, multiple_of, force
        As in :class:`~fastcnn.methods.structured.ranks.RankConfig`; give exactly one of the first five.
    ridge : float
        With ``data``: added to the covariance's diagonal, as a share of its mean, so that directions that the
        calibration inputs lack are not given up entirely.

    References
    ----------
    Xue, Li and Gong 2013, "Restructuring of deep neural network acoustic models with singular value decomposition",
    Interspeech; data-aware form: Zhang, Zou, He and Sun 2015, arXiv:1505.06798, without the nonlinearity.
    """

    method: ClassVar[str] = "svd"
    calibrates: ClassVar[bool] = True

    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("ridge", self.ridge, 0.0, 1e6)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A rank for every layer, and one that is larger than its layer."""
        return (cls(rank=1), cls(rank=3, force=True))


def _stages(spec: Spec, rank: int, geometry: Geometry) -> dict[str, Stage]:
    groups = spec.groups if isinstance(spec, ConvSpec) else 1
    n = spec.in_channels if isinstance(spec, ConvSpec) else spec.in_features
    reduce = Stage(in_channels=n, out_channels=rank * groups, groups=groups, **vars(geometry))
    expand = Stage(in_channels=rank * groups, out_channels=spec.out_channels, groups=groups)
    return {"reduce": reduce, "expand": expand}


class SVDLadder(Ladder):
    """Singular values of every group; a rank for all of them."""

    def __init__(
        self, cls: type[SVDLinear] | type[SVDConv2d], dense: nn.Conv2d | nn.Linear, ridge: float, sight: Sight | None
    ) -> None:
        check_finite(dense.weight, "weight")
        super().__init__(spec_of(dense), geometry_of(dense))
        self._cls, self._dense = cls, dense
        groups = self.spec.groups if isinstance(self.spec, ConvSpec) else 1
        self._moments: Moments | None = sight.moments if sight is not None else None
        seen = [None] * groups if self._moments is None else list(self._moments.groups)
        matrices = [part.flatten(1) for part in grouped(dense.weight, groups)]
        self._parts = [whitened_svd(matrix, part, ridge) for matrix, part in zip(matrices, seen, strict=True)]

    @property
    def most(self) -> Ranks:
        """Full rank of a group's matrix."""
        return (len(self._parts[0].singular),)

    def stages(self, ranks: Ranks) -> list[Stage]:
        """A convolution with the taps, or a linear layer, and what expands its channels."""
        return list(_stages(self.spec, ranks[0], self.geometry).values())

    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Of the group that needs most."""
        return (max(energy_rank(part.singular, energy, measure) for part in self._parts),)

    def error(self, ranks: Ranks) -> float:
        """Root of the squared singular values that are cut off, over all of them."""
        squares = torch.stack([part.singular**2 for part in self._parts])
        whole = float(squares.sum())
        return (float(squares[:, ranks[0] :].sum()) / whole) ** 0.5 if whole else 0.0

    def build(self, ranks: Ranks) -> SVDLinear | SVDConv2d:
        """The layer at this rank; its bias makes up for the mean of what is lost, where moments are known."""
        dense = self._dense
        arguments = conv_arguments(dense) if isinstance(dense, nn.Conv2d) else linear_arguments(dense)
        layer = self._cls(**arguments, rank=ranks[0], device=dense.weight.device, dtype=dense.weight.dtype)
        cuts = [part.cut(ranks[0]) for part in self._parts]
        bias = None
        if self._moments is not None and dense.bias is not None:
            seen = self._moments.groups
            bias = torch.cat([s.out_mean - u @ (v @ s.mean) for (v, u), s in zip(cuts, seen, strict=True)])
        layer.take_over(dense, [torch.cat([v for v, _ in cuts]), torch.cat([u for _, u in cuts])], bias)
        return layer


def _cost(config: SVDConfig, spec: Spec) -> Cost:
    if config.rank is None:
        raise ValueError("the rank depends on the weights: its cost is known once the layer is converted")
    return chain_cost(list(_stages(spec, config.rank, spec_geometry(spec)).values()), spec)


@register_method(SVDConfig)
class SVDLinear(Ranked, FactoredLinear):
    """Two linear layers, I -> rank -> O, in the place of one.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    rank : int

    References
    ----------
    Xue, Li and Gong 2013.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rank: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("rank", rank, 1)
        self.rank = rank
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)

    def plan_stages(self) -> dict[str, Stage]:
        """``reduce`` and ``expand``."""
        spec = LinearSpec(in_features=self.in_features, out_features=self.out_features)
        return _stages(spec, self.rank, spec_geometry(spec))

    @classmethod
    def ladder(cls, dense: nn.Linear, config: SVDConfig, sight: Sight | None = None) -> SVDLadder:
        """Every rank there is for a layer."""
        return SVDLadder(cls, dense, config.ridge, sight)

    @staticmethod
    def cost(config: SVDConfig, spec: LinearSpec) -> Cost:
        """Cost in float32, for a rank that is given; ValueError for one that depends on the weights."""
        return _cost(config, spec)

    def extra_repr(self) -> str:
        """Shape and rank."""
        return f"{super().extra_repr()}, rank={self.rank}"


@register_method(SVDConfig)
class SVDConv2d(Ranked, FactoredConv2d):
    """A convolution to ``rank`` channels of each group, then a 1x1 convolution, in the place of one.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; the first stage has all but the bias.
    rank : int
        Of each group.

    References
    ----------
    Xue, Li and Gong 2013, for the matrix of all filters.
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
        """``reduce`` with the taps, and ``expand``."""
        return _stages(self.spec, self.rank, geometry)

    @classmethod
    def ladder(cls, dense: nn.Conv2d, config: SVDConfig, sight: Sight | None = None) -> SVDLadder:
        """Every rank there is for a layer."""
        return SVDLadder(cls, dense, config.ridge, sight)

    @staticmethod
    def cost(config: SVDConfig, spec: ConvSpec) -> Cost:
        """Cost in float32, for a rank that is given; ValueError for one that depends on the weights."""
        return _cost(config, spec)

    def extra_repr(self) -> str:
        """Shape and rank."""
        return f"{super().extra_repr()}, rank={self.rank}"
