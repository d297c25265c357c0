"""Tucker-2: a convolution as 1x1, a smaller core convolution, 1x1; channels are reduced on both sides.

Wins on convolutions with many channels on both sides and 3x3 taps or more; loses on stems, depthwise and 1x1 layers
(which :class:`~fastcnn.methods.structured.svd.SVDConfig` serves). Approximate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    Sight,
    check_count,
    check_finite,
    check_range,
)
from fastcnn.methods.dense import PaddingMode, conv_arguments
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured.calibration import Whitening, refine, whitenings
from fastcnn.methods.structured.evbmf import evbmf_rank
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

_SWEEPS = 10
"""Of HOOI, at most; it stops when the fit improves by less than 1e-6 of the whole."""


@dataclass(frozen=True, kw_only=True)
class TuckerConfig(RankConfig):
    """Tucker-2 for convolutions with more than one tap: C -> R_in by 1x1, k x k core R_in -> R_out, 1x1 to F.

    Parameters
    ----------
    ranks : tuple of int, optional
        (R_in, R_out) of each group. ``rank`` gives both the same.
    evbmf : float, optional
        Ranks by empirical variational Bayes of both unfoldings, times this number (1 in the paper). Where it sees
        noise only it says 0, which counts as 1; rounded up as any rank that was found.
    rank, energy, keep, budget, speedup, budget_of, measure, multiple_of, force
        As in :class:`~fastcnn.methods.structured.ranks.RankConfig`, ``energy`` of each unfolding; give exactly one of
        the first five, ``ranks`` and ``evbmf``.
    ridge : float
        As in :class:`~fastcnn.methods.structured.svd.SVDConfig`, for conversion with ``data``.

    References
    ----------
    Kim, Park, Yoo, Choi, Yang and Shin 2015, arXiv:1511.06530. Differs: ranks can be rounded to the vector width and
    chosen by measured time, and the factors fitted to the outputs on calibration inputs.
    """

    method: ClassVar[str] = "tucker"
    calibrates: ClassVar[bool] = True

    ranks: tuple[int, int] | None = None
    evbmf: float | None = None
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranks is not None:
            if not isinstance(self.ranks, tuple) or len(self.ranks) != 2:
                raise TypeError(f"ranks must be a pair of integers, got {self.ranks!r}")
            for rank in self.ranks:
                check_count("ranks", rank, 1)
        if self.evbmf is not None:
            check_range("evbmf", self.evbmf, 0.01, 100.0)
        check_range("ridge", self.ridge, 0.0, 1e6)

    @classmethod
    def rules(cls) -> tuple[str, ...]:
        """Settings of which exactly one says what the ranks are."""
        return (*super().rules(), "ranks", "evbmf")

    def given(self, count: int) -> Ranks | None:
        """Both ranks, if they are given."""
        return self.ranks if self.ranks is not None else super().given(count)

    @classmethod
    def as_given(cls, ranks: Ranks) -> dict[str, Any]:
        """Both ranks."""
        return {"ranks": ranks}

    def found(self, ladder: Ladder) -> Ranks:
        """By EVBMF or energy."""
        if self.evbmf is None:
            return super().found(ladder)
        assert isinstance(ladder, TuckerLadder)
        return tuple(
            max(1, min(round(self.evbmf * rank), most))
            for rank, most in zip(ladder.evbmf_ranks(), ladder.most, strict=True)
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Rank 1, and two ranks that differ."""
        return (cls(rank=1, force=True), cls(ranks=(1, 2), force=True))


def _stages(spec: ConvSpec, ranks: Ranks, geometry: Geometry) -> dict[str, Stage]:
    groups, (inner, outer) = spec.groups, ranks
    return {
        "reduce": Stage(in_channels=spec.in_channels, out_channels=inner * groups, groups=groups),
        "core": Stage(in_channels=inner * groups, out_channels=outer * groups, groups=groups, **vars(geometry)),
        "expand": Stage(in_channels=outer * groups, out_channels=spec.out_channels, groups=groups),
    }


@dataclass(frozen=True)
class Tucker2:
    """W[f, c, u, v] = sum over (o, i) of output[f, o] core[o, i, u, v] input[i, c]."""

    input: Tensor
    core: Tensor
    output: Tensor


def tucker2(weight: Tensor, ranks: Ranks, whitening: Whitening | None = None) -> Tucker2:
    """Best approximation of a weight (F, C, kh, kw) at these ranks: HOSVD, then HOOI until it stands still.

    With a whitening the error is that of the outputs, were the inputs of different taps independent.
    """
    inner, outer = ranks
    seen = weight if whitening is None else torch.einsum("fcuv,cd->fduv", weight, whitening.factor)
    whole = float(seen.square().sum())
    left = _basis(seen.flatten(1), outer)
    fit = -1.0
    for _ in range(_SWEEPS):
        reduced = torch.einsum("fo,fcuv->ocuv", left, seen)
        right = _basis(reduced.transpose(0, 1).flatten(1), inner)
        reduced = torch.einsum("ci,fcuv->fiuv", right, seen)
        left = _basis(reduced.flatten(1), outer)
        core = torch.einsum("fo,fiuv->oiuv", left, reduced)
        before, fit = fit, float(core.square().sum())
        if fit - before <= 1e-6 * whole:
            break
    reducing = right.T if whitening is None else whitening.undo(right.T)
    return _balanced(Tucker2(reducing, core, left))


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors (rows, rank), from the Gram matrix: there are few rows."""
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T)[1]
    return vectors.flip(1)[:, :rank]


def _balanced(factors: Tucker2) -> Tucker2:
    """The same product with factors of one root mean square, so that training moves all of them alike."""
    rms = [float(part.square().mean().sqrt()) for part in (factors.input, factors.core, factors.output)]
    if min(rms) == 0.0:
        return factors
    mean = (rms[0] * rms[1] * rms[2]) ** (1 / 3)
    return Tucker2(factors.input * (mean / rms[0]), factors.core * (mean / rms[1]), factors.output * (mean / rms[2]))


class TuckerLadder(Ladder):
    """Both unfoldings' singular values, of every group; a pair of ranks for all of them."""

    def __init__(self, dense: nn.Conv2d, config: TuckerConfig, sight: Sight | None) -> None:
        check_finite(dense.weight, "weight")
        super().__init__(ConvSpec.of(dense), geometry_of(dense))
        self._dense, self._sight, self._config = dense, sight, config
        self._weights = grouped(dense.weight, dense.groups)
        self._whitenings = whitenings(sight, dense, config.ridge)
        self._modes = [self._singular(w, s) for w, s in zip(self._weights, self._whitenings, strict=True)]

    @staticmethod
    def _singular(weight: Tensor, whitening: Whitening | None) -> tuple[Tensor, Tensor]:
        """Singular values of the unfoldings along inputs and outputs."""
        seen = weight if whitening is None else torch.einsum("fcuv,cd->fduv", weight, whitening.factor)
        return (
            torch.linalg.svdvals(seen.transpose(0, 1).flatten(1)),
            torch.linalg.svdvals(seen.flatten(1)),
        )

    @property
    def most(self) -> Ranks:
        """Full ranks of a group's two unfoldings."""
        return len(self._modes[0][0]), len(self._modes[0][1])

    def stages(self, ranks: Ranks) -> list[Stage]:
        """1x1, core, 1x1."""
        assert isinstance(self.spec, ConvSpec)
        return list(_stages(self.spec, ranks, self.geometry).values())

    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Of each unfolding, of the group that needs most."""
        return tuple(max(energy_rank(modes[i], energy, measure) for modes in self._modes) for i in range(2))

    def evbmf_ranks(self) -> Ranks:
        """By empirical variational Bayes, of the group that needs most; may be 0."""
        found = []
        for i in range(2):
            ranks = []
            for weight, modes in zip(self._weights, self._modes, strict=True):
                rows = weight.shape[1 - i]
                ranks.append(evbmf_rank(modes[i].numpy(), (rows, weight.numel() // rows)))
            found.append(max(ranks))
        return tuple(found)

    def error(self, ranks: Ranks) -> float:
        """By the energies that each mode discards, an upper bound within sqrt(2) of the best."""
        lost = whole = 0.0
        for modes in self._modes:
            whole += float(modes[0].square().sum())
            lost += sum(float(mode[rank:].square().sum()) for mode, rank in zip(modes, ranks, strict=True))
        return min(1.0, (lost / whole) ** 0.5) if whole else 0.0

    def build(self, ranks: Ranks) -> TuckerConv2d:
        """The layer at these ranks, refined on the outputs where calibration inputs are known."""
        dense = self._dense
        layer = TuckerConv2d(
            **conv_arguments(dense), ranks=(ranks[0], ranks[1]), device=dense.weight.device, dtype=dense.weight.dtype
        )
        parts = [tucker2(w, ranks, s) for w, s in zip(self._weights, self._whitenings, strict=True)]
        factors = [torch.cat([getattr(part, name) for part in parts]) for name in ("input", "core", "output")]
        layer.take_over(dense, factors)
        refine(layer, dense, self._sight, self._config.ridge)
        return layer


@register_method(TuckerConfig)
class TuckerConv2d(Ranked, FactoredConv2d):
    """1x1, k x k, 1x1 in the place of one convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; the core has stride, padding and dilation.
    ranks : tuple of int
        Channels of each group into the core, and out of it.

    References
    ----------
    Kim et al. 2015, arXiv:1511.06530.
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
        ranks: tuple[int, int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for rank in ranks:
            check_count("ranks", rank, 1)
        self.ranks = ranks
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip

    def plan_stages(self, geometry: Geometry) -> dict[str, Stage]:
        """``reduce``, ``core`` and ``expand``."""
        return _stages(self.spec, self.ranks, geometry)

    @classmethod
    def why_not(cls, dense: nn.Conv2d) -> str:
        """A core of one tap gains nothing."""
        one = dense.weight[0, 0].numel() == 1
        return "it is 1x1, and a core of one tap gains nothing: use SVDConfig" if one else ""

    @classmethod
    def ladder(cls, dense: nn.Conv2d, config: TuckerConfig, sight: Sight | None = None) -> TuckerLadder:
        """Every pair of ranks there is for a layer."""
        return TuckerLadder(dense, config, sight)

    @staticmethod
    def cost(config: TuckerConfig, spec: ConvSpec) -> Cost:
        """Cost in float32, for ranks that are given."""
        ranks = config.given(2)
        if ranks is None:
            raise ValueError("the ranks depend on the weights: their cost is known once the layer is converted")
        return chain_cost(list(_stages(spec, ranks, spec_geometry(spec)).values()), spec)

    def extra_repr(self) -> str:
        """Shape and ranks."""
        return f"{super().extra_repr()}, ranks={self.ranks}"
