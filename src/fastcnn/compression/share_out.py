"""One budget of parameters or multiply-adds for a whole model, shared out among the ranks of its layers.

Each layer's ladder of ranks says what it loses of its output's energy (or of its weight's, without calibration inputs)
and what it then takes of the budget. The ranks that lose least in sum and take no more than the budget are found by
dynamic programming, layer by layer: of the choices so far only those are kept that no other choice beats in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fastcnn.compression.calibrate import layer_macs
from fastcnn.methods.contract import Sight
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import Choice, obstacle, tied_weights
from fastcnn.methods.structured.factored import Stage, chain_macs_at, stage_of, walked
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
    inputs: Mapping[str, Sequence[tuple[int, ...]]] | None = None,
    *,
    calibrated: bool = False,
) -> Mapping[str, Choice]:
    """Choose what each layer is converted with, so that the model keeps ``config.budget`` of what it has.

    Parameters
    ----------
    seen : iterable of (name, Sight or None)
        Layers, and what calibration inputs show of them; one at a time, as moments of all of them may be large.
    inputs : mapping of str to list of shapes, optional
        Of every convolution and linear layer, call by call, for one input: if the budget is one of multiply-adds.
    calibrated : bool
        Whether there are calibration inputs: then a layer without a sight is one that they do not reach.

    Raises
    ------
    BudgetError
        If the layers cannot give up so much; the message says what each could.
    """
    assert config.budget is not None
    whole = size_of(model, inputs)
    tied = tied_weights(model)
    layers: dict[str, _Layer] = {}
    choices: dict[str, Choice] = {}
    for name, sight in seen:
        dense = model.get_submodule(name)
        assert isinstance(dense, nn.Conv2d | nn.Linear)
        why = obstacle(dense, name, tied)
        if not why and calibrated and sight is None:
            why = "the calibration inputs do not reach it"
        found = why or _layer(dense, method, config, sight, None if inputs is None else inputs[name])
        choices[name] = found if isinstance(found, str) else _LEFT
        if not isinstance(found, str):
            layers[name] = found
    ladders = [layer.rungs for layer in layers.values()]
    rest = whole - sum(rungs[0].size for rungs in ladders)
    room = int(config.budget * whole) - rest
    least = sum(min(rung.size for rung in rungs) for rungs in ladders)
    if least > room:
        left = [f"{name}: {choice}" for name, choice in choices.items() if name not in layers]
        raise BudgetError(
            f"budget={config.budget:g} cannot be kept: at the smallest ranks of its layers the model still has "
            f"{(rest + least) / whole:.3f} of its {whole} {config.budget_of}"
            + (f" ({'; '.join(left)})" if left else "")
        )
    picked = dict(zip(layers, _least_loss(ladders, room), strict=True))
    slack = room - sum(layer.rungs[picked[name]].size for name, layer in layers.items())
    # What is left goes to those that lose most.
    for name in sorted(layers, key=lambda name: -layers[name].rungs[picked[name]].lost):
        before, after = layers[name].rungs[picked[name]], layers[name].larger(picked[name], slack)
        slack -= after.size - before.size
        if after.ranks is not None:
            choices[name] = config.at(after.ranks)
    return choices


def size_of(model: nn.Module, inputs: Mapping[str, Sequence[tuple[int, ...]]] | None) -> int:
    """Parameters of a model, or the multiply-adds of its convolutions and linear layers on inputs of these shapes."""
    if inputs is None:
        return sum(p.numel() for p in model.parameters())
    total = 0
    for name, shapes in inputs.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        total += sum(chain_macs_at([stage_of(layer)], walked(layer, shape)) for shape in shapes)
    return total


def check_kept(model: nn.Module, config: RankConfig, whole: int, batch: Tensor | None) -> None:
    """BudgetError if a converted model has more than the budget of what was ``whole``.

    Parameters
    ----------
    batch : Tensor, optional
        For a budget of multiply-adds.
    """
    assert config.budget is not None
    of_macs = config.budget_of == "multiply-adds"
    assert batch is not None or not of_macs
    left = sum(layer_macs(model, batch).values()) if of_macs and batch is not None else size_of(model, None)
    if left > config.budget * whole:
        raise BudgetError(
            f"budget={config.budget:g} was not kept: the model has {left / whole:.3f} of its {whole} "
            f"{config.budget_of}; this is a fault of fastcnn, please report it"
        )


@dataclass(frozen=True)
class _Layer:
    """A layer's dense form and some of its ranks, from the largest down; and every size that its ranks can have."""

    rungs: list[_Rung]
    ranks: Mapping[int, Ranks]

    def larger(self, index: int, slack: int) -> _Rung:
        """The largest form that takes no more than ``slack`` besides; the dense one only if it is the rung itself."""
        rung = self.rungs[index]
        if rung.ranks is None:
            return rung
        size = max(size for size in self.ranks if size <= rung.size + slack)
        return _Rung(self.ranks[size], size, rung.lost)


def _layer(
    dense: nn.Conv2d | nn.Linear,
    method: Method,
    config: RankConfig,
    sight: Sight | None,
    inputs: Sequence[tuple[int, ...]] | None,
) -> _Layer | str:
    """What a layer can give up; or why nothing."""
    cls = method.layers[type(dense)]
    assert issubclass(cls, Ranked)
    why: str = cls.why_not(dense)
    if why:
        return why
    ladder: Ladder = cls.ladder(dense, config, sight)

    def size(stages: Sequence[Stage]) -> int:
        if inputs is None:
            return sum(stage.weights for stage in stages)
        return sum(chain_macs_at(stages, walked(dense, shape)) for shape in inputs)

    whole = size([stage_of(dense)])
    # Steps may be of one size: of those the last has the higher ranks.
    sizes = {ranks: size(ladder.stages(ranks)) for ranks in ladder.steps(config)}
    smaller = {size: ranks for ranks, size in sizes.items() if size < whole}
    if not smaller:
        return f"no rank makes it {'smaller' if inputs is None else 'faster'}"
    steps = sorted(smaller, reverse=True)
    count = min(ladder.most_points, len(steps))
    chosen = sorted({round(i * (len(steps) - 1) / max(1, count - 1)) for i in range(count)})
    rungs = [_Rung(smaller[steps[i]], steps[i], ladder.error(smaller[steps[i]]) ** 2) for i in chosen]
    return _Layer([_Rung(None, whole, 0.0), *rungs], smaller)


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
