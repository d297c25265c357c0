"""One budget of parameters for a whole model, shared out among the ranks of its layers.

Each layer's ladder of ranks says what it loses of its output's energy (or of its weight's, without calibration inputs)
for the parameters that it gives up. The layers give up parameters in the order of least loss for each, until the model
is as small as it should be: on the lower convex hulls of these curves no other choice of ranks loses less in sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from fastcnn.methods.contract import Sight
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import Choice
from fastcnn.methods.structured.ranks import RankConfig, Ranked, Ranks

_MOST_POINTS = 96
"""Ranks of one layer that are looked at."""
_LEFT = "the budget is kept without it: other layers lose less for each parameter that they give up"


@dataclass(frozen=True)
class _Rung:
    """Ranks of a layer (None: as it is), the weights it then has, and the share of its energy that is lost."""

    ranks: Ranks | None
    weights: int
    lost: float


def share_out(
    model: nn.Module, method: Method, config: RankConfig, seen: Iterable[tuple[str, Sight | None]]
) -> Mapping[str, Choice]:
    """Choose what each layer is converted with, so that the model keeps ``config.budget`` of its parameters.

    Parameters
    ----------
    seen : iterable of (name, Sight or None)
        Layers, and what calibration inputs show of them; one at a time, as moments of all of them may be large.

    Raises
    ------
    ValueError
        If the layers cannot give up so much.
    """
    assert config.budget is not None
    whole = sum(p.numel() for p in model.parameters())
    too_many = whole - int(config.budget * whole)
    hulls = {name: _hull(_rungs(model, method, config, name, sight)) for name, sight in seen}
    at = dict.fromkeys(hulls, 0)
    steps = [
        (_slope(before, after), name, before.weights - after.weights)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    # A hull's own steps are in this order already: each loses more per parameter than the one before.
    for _, name, fewer in sorted(steps, key=lambda step: step[0]):
        if too_many <= 0:
            break
        at[name] += 1
        too_many -= fewer
    if too_many > 0:
        least = sum(hull[0].weights - hull[-1].weights for hull in hulls.values())
        raise ValueError(
            f"budget={config.budget:g} cannot be kept: at the smallest ranks of its layers the model still has "
            f"{(whole - least) / whole:.3f} of its {whole} parameters"
        )
    choices: dict[str, Choice] = {}
    for name, hull in hulls.items():
        ranks = hull[at[name]].ranks
        choices[name] = _LEFT if ranks is None else config.at(ranks)
    return choices


def _rungs(model: nn.Module, method: Method, config: RankConfig, name: str, sight: Sight | None) -> list[_Rung]:
    """The dense layer, then ranks with fewer weights than it has, from the largest down."""
    dense = model.get_submodule(name)
    cls = method.layers.get(type(dense))
    assert isinstance(dense, nn.Conv2d | nn.Linear)
    whole = dense.weight.numel()
    rungs = [_Rung(None, whole, 0.0)]
    if cls is None or not issubclass(cls, Ranked) or cls.why_not(dense) or not whole:
        return rungs
    ladder = cls.ladder(dense, config, sight)
    # Steps may be of one size: of those the last has the higher ranks.
    smaller = {ladder.weights(ranks): ranks for ranks in ladder.steps(config) if ladder.weights(ranks) < whole}
    sizes = sorted(smaller, reverse=True)
    apart = max(1.0, len(sizes) / _MOST_POINTS)
    chosen = [sizes[int(i * apart)] for i in range(min(_MOST_POINTS, len(sizes)))]
    return rungs + [_Rung(smaller[size], size, ladder.error(smaller[size]) ** 2) for size in chosen]


def _hull(rungs: list[_Rung]) -> list[_Rung]:
    """Those on the lower convex hull of loss over weights given up; the dense layer is first."""
    hull: list[_Rung] = []
    for rung in rungs:
        while len(hull) > 1 and _slope(hull[-1], rung) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(rung)
    return hull


def _slope(before: _Rung, after: _Rung) -> float:
    """What is lost for each weight given up."""
    return (after.lost - before.lost) / (before.weights - after.weights)
