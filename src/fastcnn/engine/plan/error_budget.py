"""Hold a net to its error budget: fast kernels give way to more exact ones, those first that cost least time for what
their error weighs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.probes import Probes
from fastcnn.engine.plan.slots import Candidate

OwnError = Callable[[int, Candidate], float]

_MOST_ASKED = 64
"""Steps that are tried one by one: each costs inferences and packing its weights twice."""
_AIM = 0.9
"""Of the budget, for the error that is reckoned: a net's errors do not add up quite like squares."""


def keep_budget(
    built: Built, probes: Probes, budget: float, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None,
    limit: int | None = None,
) -> tuple[float | None, list[str]]:  # fmt: skip
    """Give steps their next more exact candidates until the net keeps its error budget; return its error, and notes.

    With ``seconds``, the step goes first that loses least time for the square that it takes away; without, the one with
    the largest error. The squares of the layers' own errors are taken to add up to that of the net, times a factor that
    every measurement tells anew: so many steps change at a time as this says are needed. Nets add up otherwise, and
    their first layers' errors may weigh most: halving finds how many suffice, and with ``seconds`` every step that has
    given up much is asked whether it had to. With a ``limit``, packed weights stay within it.

    The error is None where the exact kernels' own output is not finite on the probes: nothing can be compared.

    Raises
    ------
    GraphError
        If the limit leaves too few candidates.
    """
    downs: list[_Down] = []
    stuck: set[int] = set()
    batch = 0  # steps that went down since the last measurement
    while True:
        error = probes.error(built)
        risky = [i for i, c in enumerate(built.chosen) if not c.exact and i not in stuck]
        if error <= budget and downs and limit is None:
            measure = partial(probes.error, built, budget)
            error = _fewest(built, downs, batch, measure, budget, error)
            if seconds is not None:
                error = _give_back(built, downs, seconds, measure, budget, error)
        if error <= budget or not risky:
            if error > budget and stuck and probes.finite:
                names = ", ".join(built.lowered.drafts[i].name for i in sorted(stuck))
                raise GraphError(
                    f"the kernels that weight_memory={limit} leaves for {names} give the net an error of {error:.1e}, "
                    f"the planner allows {budget:.1e}: allow more memory, or a larger tolerance"
                )
            return (error if math.isfinite(error) else None), [down.note(built) for down in downs]
        squares = {i: own_error(i, built.chosen[i]) ** 2 for i in risky}
        left = sum(square for square in squares.values() if math.isfinite(square))
        allowed = left * (_AIM * budget / error) ** 2
        before, tried = len(downs), False
        for i in sorted(risky, key=lambda i: _price(built, i, own_error, seconds)):
            if tried and math.isfinite(squares[i]) and left <= allowed:
                break
            tried = True
            down = _step_down(built, i, own_error, seconds, limit)
            if down is None:
                stuck.add(i)
                continue
            downs.append(down)
            if math.isfinite(squares[i]):
                left -= squares[i] - (0.0 if built.chosen[i].exact else own_error(i, built.chosen[i]) ** 2)
        batch = len(downs) - before


@dataclass(frozen=True)
class _Down:
    """A step that took a more exact candidate."""

    index: int
    dropped: Candidate
    finer: Candidate

    def note(self, built: Built) -> str:
        name = built.lowered.drafts[self.index].name
        return f"{name}: {self.dropped.label} exceeded the error budget, {self.finer.label} instead"


def _fewest(
    built: Built, downs: list[_Down], batch: int, measure: Callable[[], float], budget: float, error: float
) -> float:
    """Undo as many of the last ``batch`` as the budget allows, the last first; return the error that is left."""
    first = len(downs) - batch
    few, enough = 0, batch  # too few of the batch, and enough of it
    done = batch
    while enough - few > 1:
        middle = (few + enough) // 2
        _go_to(built, downs[first:], done, middle)
        done, found = middle, measure()
        if found <= budget:
            enough, error = middle, found
        else:
            few = middle
    _go_to(built, downs[first:], done, enough)
    built.net.finish()
    del downs[first + enough :]
    return error


def _give_back(
    built: Built, downs: list[_Down], seconds: Sequence[Mapping[str, float]], measure: Callable[[], float],
    budget: float, error: float,
) -> float:  # fmt: skip
    """Undo what the budget does not need, those first that gain most time; return the error that is left."""

    def gain(down: _Down) -> float:
        times = seconds[down.index]
        return times.get(down.finer.label, 0.0) - times.get(down.dropped.label, math.inf)

    last = {down.index: down for down in downs}  # a step may have gone down more than once
    for down in sorted(last.values(), key=gain, reverse=True)[:_MOST_ASKED]:
        if gain(down) <= 0:
            break
        built.replace(down.index, down.dropped)
        found = measure()
        if found <= budget:
            error = found
            downs.remove(down)
        else:
            built.replace(down.index, down.finer)
    built.net.finish()
    return error


def _go_to(built: Built, batch: Sequence[_Down], done: int, wanted: int) -> None:
    """Of a batch of which the first ``done`` are in place, have the first ``wanted``."""
    for down in batch[wanted:done]:
        built.replace(down.index, down.dropped)
    for down in batch[done:wanted]:
        built.replace(down.index, down.finer)


def _price(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None
) -> tuple[float, float]:
    """Time for each unit of squared error; then the largest error first, which is all there is without times."""
    now = built.chosen[index]
    own = own_error(index, now)
    if not math.isfinite(own):
        return -math.inf, -math.inf
    times = seconds[index] if seconds is not None else {}
    if now.label not in times:
        return 0.0, -own
    finer = next(_finer(built, index, own_error, seconds))
    if finer.label not in times:
        return math.inf, -own
    gain = own**2 - (0.0 if finer.exact else own_error(index, finer) ** 2)
    return max(0.0, times[finer.label] - times[now.label]) / gain if gain > 0 else math.inf, -own


def _step_down(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None, limit: int | None
) -> _Down | None:
    """Put the fastest more exact candidate that keeps the limit in place of a step's; None where there is none."""
    dropped = built.chosen[index]
    for finer in _finer(built, index, own_error, seconds):
        built.replace(index, finer)
        if limit is None or built.net.weight_bytes <= limit:
            return _Down(index, dropped, finer)
    built.replace(index, dropped)
    return None


def _finer(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None
) -> Iterator[Candidate]:
    """Yield the candidates that are clearly more exact, fastest first; best guess first where none was timed.

    Where nothing can be compared (no error of its own on the sample, or none that is finite), the exact ones. An error
    is measured when it is asked for, and mostly the first candidate will do.
    """
    known = own_error(index, built.chosen[index])
    times = seconds[index] if seconds is not None else {}
    candidates = built.lowered.drafts[index].candidates
    for c in sorted(candidates, key=lambda c: times.get(c.label, math.inf)):
        if c.exact or own_error(index, c) < known * 0.7 < math.inf:
            yield c
