"""One budget of parameters or multiply-adds for a whole model, shared out among the ranks of its layers.

Each layer's ladder of ranks says what it loses of its output's energy (or of its weight's, without calibration inputs)
and what it then takes of the budget. The ranks that lose least in sum and take no more than the budget are found by
dynamic programming, layer by layer: of the choices so far only those are kept that no other choice beats in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from fastcnn.methods.contract import Sight
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import Choice, obstacle, tied_weights
from fastcnn.methods.structured.factored import Stage
from fastcnn.methods.structured.ranks import Ladder, RankConfig, Ranked, Ranks

_MOST_CHOICES = 4096
"""Choices for the layers so far that are kept, spread evenly over what they take of the budget."""
_LEFT = "the budget is kept without it: other layers lose less for what they give up"
Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class BudgetError(ValueError):
    """The layers cannot give up as much as the budget asks for."""


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
    *,
    calibrated: bool = False,
) -> Mapping[str, Choice]:
    """Choose what each layer is converted with, so that the model keeps ``config.budget`` of what it has.

    Parameters
    ----------
    seen : iterable of (name, Sight or None)
        Layers, and what calibration inputs show of them; one at a time, as moments of all of them may be large.
    macs : mapping of str to int, optional
        Multiply-adds of every layer of the model for one input, if the budget is one of those; needs sights.
    calibrated : bool
        Whether there are calibration inputs: then a layer without a sight is one that they do not reach.

    Raises
    ------
    BudgetError
        If the layers cannot give up so much; the message says what each could.
    """
    assert config.budget is not None
    whole = sum(p.numel() for p in model.parameters()) if macs is None else sum(macs.values())
    tied = tied_weights(model)
    ladders: dict[str, list[_Rung]] = {}
    choices: dict[str, Choice] = {}
    for name, sight in seen:
        dense = model.get_submodule(name)
        assert isinstance(dense, nn.Conv2d | nn.Linear)
        why = obstacle(dense, name, tied)
        if not why and calibrated and sight is None:
            why = "the calibration inputs do not reach it"
        found = why or _rungs(dense, method, config, sight, None if macs is None else macs[name])
        choices[name] = found if isinstance(found, str) else _LEFT
        if not isinstance(found, str):
            ladders[name] = found
    rest = whole - sum(rungs[0].size for rungs in ladders.values())
    room = int(config.budget * whole) - rest
    least = sum(min(rung.size for rung in rungs) for rungs in ladders.values())
    if least > room:
        left = [f"{name}: {choice}" for name, choice in choices.items() if name not in ladders]
        raise BudgetError(
            f"budget={config.budget:g} cannot be kept: at the smallest ranks of its layers the model still has "
            f"{(rest + least) / whole:.3f} of its {whole} {config.budget_of}"
            + (f" ({'; '.join(left)})" if left else "")
        )
    for (name, rungs), index in zip(ladders.items(), _least_loss(list(ladders.values()), room), strict=True):
        ranks = rungs[index].ranks
        if ranks is not None:
            choices[name] = config.at(ranks)
    return choices


def _rungs(
    dense: nn.Conv2d | nn.Linear, method: Method, config: RankConfig, sight: Sight | None, macs: int | None
) -> list[_Rung] | str:
    """The dense layer, then ranks that take less than it does, from the largest down; or why there are none."""
    cls = method.layers[type(dense)]
    assert issubclass(cls, Ranked)
    why: str = cls.why_not(dense)
    if why:
        return why
    ladder: Ladder = cls.ladder(dense, config, sight)
    size = ladder.weights if macs is None else _multiply_adds(dense, ladder, sight, macs)
    whole = dense.weight.numel() if macs is None else macs
    # Steps may be of one size: of those the last has the higher ranks.
    smaller = {size(ranks): ranks for ranks in ladder.steps(config) if size(ranks) < whole}
    if not smaller:
        return f"no rank makes it {'smaller' if macs is None else 'faster'}"
    sizes = sorted(smaller, reverse=True)
    apart = max(1.0, len(sizes) / ladder.most_points)
    chosen = [sizes[int(i * apart)] for i in range(min(ladder.most_points, len(sizes)))]
    return [_Rung(None, whole, 0.0), *(_Rung(smaller[each], each, ladder.error(smaller[each]) ** 2) for each in chosen)]


def _multiply_adds(
    dense: nn.Conv2d | nn.Linear, ladder: Ladder, sight: Sight | None, macs: int
) -> Callable[[Ranks], int]:
    """What a chain makes for one input of the model, all calls of the layer together."""
    positions = macs // dense.weight.numel()
    if isinstance(dense, nn.Linear):
        return lambda ranks: ladder.weights(ranks) * positions
    assert sight is not None
    left, right, top, bottom = dense._reversed_padding_repeated_twice
    height, width = sight.input_shape[2:]
    padded = [height + top + bottom, width + left + right]
    # Padding that a chain's own convolutions cannot add comes before the first stage.
    before = [height, width] if dense.padding_mode == "zeros" and left == right and top == bottom else padded
    after = [(padded[i] - dense.dilation[i] * (dense.kernel_size[i] - 1) - 1) // dense.stride[i] + 1 for i in range(2)]
    calls = positions // math.prod(after)

    def of(ranks: Ranks) -> int:
        total, size = 0, list(before)
        for stage in ladder.stages(ranks):
            for i in range(2):
                size[i] = after[i] if _walks(stage, i) else size[i]
            total += stage.weights * math.prod(size)
        return total * calls

    return of


def _walks(stage: Stage, axis: int) -> bool:
    """Whether this stage of a chain is the one that changes the size of the map along an axis."""
    return stage.kernel_size[axis] > 1 or stage.stride[axis] > 1


def _least_loss(ladders: list[list[_Rung]], room: int) -> list[int]:
    """Index of a rung for every layer: the least loss in sum among those whose sizes come to ``room`` at most."""
    rest = np.cumsum([0, *(min(rung.size for rung in rungs) for rungs in reversed(ladders))])[::-1]
    sizes, lost = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[Places, int]] = []
    for rungs, still in zip(ladders, rest[1:], strict=True):
        all_sizes = (sizes[:, None] + np.array([rung.size for rung in rungs])).ravel()
        all_lost = (lost[:, None] + np.array([rung.lost for rung in rungs])).ravel()
        kept = _undominated(all_sizes, all_lost, room - int(still))
        sizes, lost = all_sizes[kept], all_lost[kept]
        steps.append((kept, len(rungs)))
    at, picked = len(sizes) - 1, []  # the largest loses least
    for kept, count in reversed(steps):
        at, rung = divmod(int(kept[at]), count)
        picked.append(rung)
    return picked[::-1]


def _undominated(sizes: Places, lost: Numbers, room: int) -> Places:
    """Places of choices that fit and lose less than every smaller one, by size; a spread of them if there are many."""
    order = np.lexsort((lost, sizes))
    order = order[sizes[order] <= room]
    before = np.concatenate(([np.inf], np.minimum.accumulate(lost[order])[:-1]))
    kept: Places = order[lost[order] < before]
    if len(kept) <= _MOST_CHOICES:
        return kept
    ends = sizes[kept[[0, -1]]]
    # Of each part of the sizes the first is kept, so that nothing smaller is given up, and the very last.
    part = (sizes[kept] - ends[0]) * (_MOST_CHOICES - 1) // max(1, int(ends[1] - ends[0]))
    first = np.concatenate(([True], part[1:] != part[:-1]))
    first[-1] = True
    return kept[first]
