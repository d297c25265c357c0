"""How a rank is chosen: given, by energy, by a share of the weights, by EVBMF; rounded to the vector width.

A rank that the user gave is never changed: where it does not fit a layer, the layer is declined. Ranks that are found
are rounded up to whole vectors, since a kernel takes as long for nine channels as for sixteen.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from fastcnn.methods.contract import DeclinedError, MethodConfig, Sight, Spec, check_choice, check_count, check_range
from fastcnn.methods.structured.factored import Factored, Geometry, Stage, chain_macs

Measure = Literal["squares", "values"]
BudgetOf = Literal["parameters", "multiply-adds"]
Ranks = tuple[int, ...]
"""One number for each rank a method has."""


@lru_cache
def vector_width() -> int:
    """Floats in a vector of this machine's engine; 8 where the engine is not built."""
    if importlib.util.find_spec("fastcnn._native") is None:
        return 8
    from fastcnn import _native

    return max(8, int(_native.lanes(_native.host()["isa_active"])))


@dataclass(frozen=True, kw_only=True)
class RankConfig(MethodConfig):
    """Settings that factorisations share: exactly one of ``rank``, ``energy``, ``keep``, ``budget``, ``speedup``.

    Parameters
    ----------
    rank : int, optional
        The rank itself, of each group. Layers that it does not fit, or that it would make larger, are declined.
    energy : float, optional
        Smallest rank that keeps this share of the sum over ``measure``, above 0 and at most 1.
    keep : float, optional
        Largest rank that needs no more than this share of the dense layer's weights.
    budget : float, optional
        Largest share of the whole model's parameters (or multiply-adds) that may be left, shared out among the matched
        layers so that they lose the least energy in sum; see :mod:`fastcnn.compression.share_out`. Layers that it needs
        not touch stay dense.
    budget_of : {"parameters", "multiply-adds"}
        What ``budget`` is a share of. Multiply-adds are those of one input of ``data``.
    speedup : float, optional
        Largest rank that takes this machine at most 1 / ``speedup`` of the dense layer's time, by measurement at the
        input size that ``data`` shows; see :mod:`fastcnn.compression.latency`.
    measure : {"squares", "values"}
        What ``energy`` is a share of: squared singular values (the Frobenius norm), or the values themselves.
    multiple_of : int, optional
        Ranks that were found, not given, are rounded up to it. None: the vector width of this machine.
    force : bool
        Also convert layers that become neither smaller nor faster.
    """

    rank: int | None = None
    energy: float | None = None
    keep: float | None = None
    budget: float | None = None
    budget_of: BudgetOf = "parameters"
    speedup: float | None = None
    measure: Measure = "squares"
    multiple_of: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        given = [name for name in self.rules() if getattr(self, name) is not None]
        if len(given) != 1:
            wanted = ", ".join(self.rules())
            raise ValueError(f"{type(self).__name__} needs exactly one of {wanted}, got {', '.join(given) or 'none'}")
        if self.rank is not None:
            check_count("rank", self.rank, 1)
        for name in ("energy", "keep", "budget"):
            value = getattr(self, name)
            if value is not None:
                check_range(name, value, 0.0, 1.0)
                if value == 0:
                    raise ValueError(f"{name}=0 keeps nothing: give a share above 0")
        if self.speedup is not None:
            check_range("speedup", self.speedup, 1.0, 1e3)
        check_choice("budget_of", self.budget_of, ("parameters", "multiply-adds"))
        check_choice("measure", self.measure, ("squares", "values"))
        if self.multiple_of is not None:
            check_count("multiple_of", self.multiple_of, 1)
        if not isinstance(self.force, bool):
            raise TypeError(f"force must be True or False, got {self.force!r}")

    @classmethod
    def rules(cls) -> tuple[str, ...]:
        """Settings of which exactly one says what the rank is."""
        return ("rank", "energy", "keep", "budget", "speedup")

    def given(self, count: int) -> Ranks | None:
        """Ranks as the user gave them, ``count`` of them; None if they are to be found."""
        return None if self.rank is None else (self.rank,) * count

    def at(self, ranks: Ranks) -> Self:
        """The same settings with these ranks instead of a rule."""
        return replace(self, **{**dict.fromkeys(self.rules()), **self.as_given(ranks)})

    @classmethod
    def as_given(cls, ranks: Ranks) -> dict[str, Any]:
        """The setting that gives these ranks."""
        return {"rank": ranks[0]}

    def found(self, ladder: Ladder) -> Ranks:
        """Ranks by the rule that is left when none is given and none follows from size or time."""
        assert self.energy is not None
        return ladder.ranks_for(self.energy, self.measure)


def energy_rank(singular: Tensor, share: float, measure: Measure = "squares") -> int:
    """Smallest number of singular values, in descending order, that hold a share of the sum; at least 1."""
    weights = singular.double() ** 2 if measure == "squares" else singular.double()
    total = float(weights.sum())
    if total == 0.0:
        return 1
    held = torch.cumsum(weights, 0) / total
    # The whole of it is reached up to rounding only.
    return min(int((held < share - 1e-12).sum()) + 1, len(singular))


class Ladder(ABC):
    """Every way a method can factorise one layer, from the smallest ranks to the full ones.

    Parameters
    ----------
    spec : ConvSpec or LinearSpec
        Of the dense layer.
    geometry : Geometry
        Of the dense layer.
    """

    most_points: ClassVar[int] = 96
    """Ranks that a search looks at, evenly spread over the steps."""

    def __init__(self, spec: Spec, geometry: Geometry) -> None:
        self.spec, self.geometry = spec, geometry

    @property
    @abstractmethod
    def most(self) -> Ranks:
        """Full ranks, at which the weight is rebuilt exactly."""

    @abstractmethod
    def stages(self, ranks: Ranks) -> Sequence[Stage]:
        """The chain at these ranks."""

    @abstractmethod
    def ranks_for(self, energy: float, measure: Measure) -> Ranks:
        """Smallest ranks that keep a share of the energy, neither rounded nor capped."""

    @abstractmethod
    def error(self, ranks: Ranks) -> float:
        """Relative error at these ranks in the norm they are found by, before factors are fitted to the outputs."""

    @abstractmethod
    def build(self, ranks: Ranks) -> Factored:
        """The layer at these ranks."""

    def weights(self, ranks: Ranks) -> int:
        """Numbers in the factors."""
        return sum(stage.weights for stage in self.stages(ranks))

    def macs(self, ranks: Ranks) -> int:
        """Multiply-adds per position of the output."""
        return chain_macs(self.stages(ranks))

    def rounded(self, ranks: Ranks, config: RankConfig) -> Ranks:
        """Ranks that were found, up to the next multiples, at most full."""
        step = config.multiple_of or vector_width()
        return tuple(max(1, min(-(-rank // step) * step, most)) for rank, most in zip(ranks, self.most, strict=True))

    def steps(self, config: RankConfig) -> list[Ranks]:
        """Distinct rounded ranks, each larger than the one before: all of them, or those on the way of the energy."""
        if len(self.most) == 1:
            return list(dict.fromkeys(self.rounded((rank,), config) for rank in range(1, self.most[0] + 1)))
        found = dict.fromkeys(self.rounded(self.ranks_for(energy, config.measure), config) for energy in _ENERGIES)
        return sorted(found, key=self.weights)

    def why_no_gain(self, ranks: Ranks) -> str:
        """Why these ranks neither save weights nor multiply-adds; empty if they do."""
        weights, macs = self.weights(ranks), self.macs(ranks)
        if weights < self.spec.weights or macs < self.spec.weights:
            return ""
        return (
            f"{shown(ranks)} would need {weights} weights and {macs} multiply-adds per output position instead of "
            f"{self.spec.weights} of each: neither smaller nor faster"
        )


_ENERGIES = (*(1 - 0.93**i for i in range(120)), 1.0)
"""Rungs of a ladder, close to each other near 1, where ranks grow quickly."""


def shown(ranks: Ranks) -> str:
    """Ranks in words."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def choose(ladder: Ladder, config: RankConfig, sight: Sight | None) -> Ranks:
    """Ranks that the config asks for.

    Raises
    ------
    DeclinedError
        If the ranks given do not fit, nothing is small or fast enough, or nothing would be gained.
    """
    given = config.given(len(ladder.most))
    if given is not None:
        return _given(ladder, config, given)
    if config.speedup is not None:
        return _fast_enough(ladder, config, sight)
    if config.budget is not None:
        raise DeclinedError("a budget is shared out among the layers of a model: call fastcnn.convert")
    if config.keep is not None:
        limit = config.keep * ladder.spec.weights
        fit = [ranks for ranks in ladder.steps(config) if ladder.weights(ranks) <= limit]
        if not fit:
            raise DeclinedError(
                f"its smallest form needs {ladder.weights(ladder.steps(config)[0])} weights, more than "
                f"keep={config.keep:g} of {ladder.spec.weights}"
            )
        return fit[-1]
    ranks = ladder.rounded(config.found(ladder), config)
    return _given(ladder, config, ranks)


def _given(ladder: Ladder, config: RankConfig, ranks: Ranks) -> Ranks:
    for rank, most in zip(ranks, ladder.most, strict=True):
        if rank > most:
            raise DeclinedError(f"{shown(ranks)} exceeds {shown(ladder.most)}, the largest this layer can have")
    why = ladder.why_no_gain(ranks)
    if why and not config.force:
        raise DeclinedError(why)
    return ranks


def _fast_enough(ladder: Ladder, config: RankConfig, sight: Sight | None) -> Ranks:
    """Largest ranks that take at most 1 / speedup of the dense layer's time; bisection, as time grows with ranks."""
    if sight is None or sight.latency_ms is None:
        raise DeclinedError("speedup is measured at the size of its input: give convert data")
    assert config.speedup is not None
    dense = sight.dense_ms()
    if not math.isfinite(dense):
        raise DeclinedError("the engine cannot run it, so that there is no time to go by")
    steps = [ranks for ranks in ladder.steps(config) if not ladder.why_no_gain(ranks)]
    if not steps:
        raise DeclinedError(ladder.why_no_gain(ladder.steps(config)[0]))
    low, high, times = -1, len(steps) - 1, dict[int, float]()
    while low < high:
        middle = (low + high + 1) // 2
        times[middle] = sight.latency_ms(ladder.build(steps[middle]))
        if times[middle] * config.speedup <= dense:
            low = middle
        else:
            high = middle - 1
    if low < 0:
        fastest = f"{min(times.values()):.3g} ms at {shown(steps[min(times, key=times.__getitem__)])}"
        raise DeclinedError(
            f"no ranks are {config.speedup:g} times as fast as its {dense:.3g} ms; fastest that were tried: {fastest}"
        )
    return steps[low]


class Ranked(Factored):
    """A layer that is built from a dense one at ranks which :func:`choose` finds."""

    @classmethod
    def why_not(cls, dense: Any) -> str:
        """Why the method cannot serve a layer of this form, whatever the ranks; empty if it can."""
        return ""

    @classmethod
    def ladder(cls, dense: Any, config: Any, sight: Sight | None = None) -> Ladder:
        """Every rank there is for a layer.

        Raises
        ------
        ValueError
            If a weight is NaN or Inf.
        """
        raise NotImplementedError

    @classmethod
    def from_dense(cls, dense: Any, config: Any, sight: Sight | None = None) -> Self:
        """Factorise the weight of ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If the method cannot serve the layer, ranks do not fit, or the chain would be neither smaller nor faster.
        ValueError
            If a weight is NaN or Inf.
        """
        why = cls.why_not(dense)
        if why:
            raise DeclinedError(why)
        ladder = cls.ladder(dense, config, sight)
        layer = ladder.build(choose(ladder, config, sight))
        assert isinstance(layer, cls)
        return layer
