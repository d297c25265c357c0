"""One budget of parameters or multiply-adds for a whole model, shared out among the ranks of its layers.

Each layer's ladder of ranks says what it loses of its output's energy (or of its weight's, without calibration inputs)
for what it gives up. The layers give up parameters, or multiply-adds, in the order of least loss for each, until the
model is as small as it should be: on the lower convex hulls of these curves no other choice of ranks loses less in sum.
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
_LEFT = "the budget is kept without it: other layers lose less for what they give up"


@dataclass(frozen=True)
class _Rung:
    """Ranks of a layer (None: as it is), what it then takes of the budget, and the share of its energy that is lost."""

    ranks: Ranks | None
    size: int
    lost: float


def share_out(
    model: nn.Module,
    method: Method,
    config: RankConfig,
    seen: Iterable[tuple[str, Sight | None]],
    macs: Mapping[str, int] | None = None,
) -> Mapping[str, Choice]:
    """Choose what each layer is converted with, so that the model keeps ``config.budget`` of what it has.

    Parameters
    ----------
    seen : iterable of (name, Sight or None)
        Layers, and what calibration inputs show of them; one at a time, as moments of all of them may be large.
    macs : mapping of str to int, optional
        Multiply-adds of every layer of the model for one input, if the budget is one of those.

    Raises
    ------
    ValueError
        If the layers cannot give up so much.
    """
    assert config.budget is not None
    whole = sum(p.numel() for p in model.parameters()) if macs is None else sum(macs.values())
    too_many = whole - int(config.budget * whole)
    hulls = {
        name: _hull(_rungs(model, method, config, name, sight, None if macs is None else macs.get(name, 0)))
        for name, sight in seen
    }
    at = dict.fromkeys(hulls, 0)
    steps = [
        (_slope(before, after), name, before.size - after.size)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    # A hull's own steps are in this order already: each loses more for what it gives up than the one before.
    for _, name, fewer in sorted(steps, key=lambda step: step[0]):
        if too_many <= 0:
            break
        at[name] += 1
        too_many -= fewer
    if too_many > 0:
        least = sum(hull[0].size - hull[-1].size for hull in hulls.values())
        raise ValueError(
            f"budget={config.budget:g} cannot be kept: at the smallest ranks of its layers the model still has "
            f"{(whole - least) / whole:.3f} of its {whole} {config.budget_of}"
        )
    choices: dict[str, Choice] = {}
    for name, hull in hulls.items():
        ranks = hull[at[name]].ranks
        choices[name] = _LEFT if ranks is None else config.at(ranks)
    return choices


def _rungs(
    model: nn.Module, method: Method, config: RankConfig, name: str, sight: Sight | None, macs: int | None
) -> list[_Rung]:
    """The dense layer, then ranks that take less than it does, from the largest down."""
    dense = model.get_submodule(name)
    cls = method.layers.get(type(dense))
    assert isinstance(dense, nn.Conv2d | nn.Linear)
    whole = dense.weight.numel()
    rungs = [_Rung(None, whole if macs is None else macs, 0.0)]
    if cls is None or not issubclass(cls, Ranked) or cls.why_not(dense) or not rungs[0].size:
        return rungs
    ladder = cls.ladder(dense, config, sight)

    def size(ranks: Ranks) -> int:
        taken: int = ladder.weights(ranks) if macs is None else ladder.macs(ranks) * (macs // whole)
        return taken

    # Steps may be of one size: of those the last has the higher ranks.
    smaller = {size(ranks): ranks for ranks in ladder.steps(config) if size(ranks) < rungs[0].size}
    sizes = sorted(smaller, reverse=True)
    apart = max(1.0, len(sizes) / _MOST_POINTS)
    chosen = [sizes[int(i * apart)] for i in range(min(_MOST_POINTS, len(sizes)))]
    return rungs + [_Rung(smaller[each], each, ladder.error(smaller[each]) ** 2) for each in chosen]


def _hull(rungs: list[_Rung]) -> list[_Rung]:
    """Those on the lower convex hull of loss over what is given up; the dense layer is first."""
    hull: list[_Rung] = []
    for rung in rungs:
        while len(hull) > 1 and _slope(hull[-1], rung) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(rung)
    return hull


def _slope(before: _Rung, after: _Rung) -> float:
    """What is lost for each unit given up."""
    return (after.lost - before.lost) / (before.size - after.size)
