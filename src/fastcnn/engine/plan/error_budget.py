"""Hold a net to its error budget: fast kernels give way to more exact ones, those first that cost least time for what
their error weighs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fastcnn.engine.graph.graph import Array, GraphError
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.slots import Candidate

OwnError = Callable[[int, Candidate], float]

_AIM = 0.9
"""Of the budget, for the error that is reckoned: a net's errors do not add up quite like squares."""


def keep_budget(
    built: Built, inputs: Sequence[Array], reference: Sequence[Array], budget: float, own_error: OwnError,
    seconds: Sequence[Mapping[str, float]] | None, limit: int | None = None,
) -> tuple[float | None, list[str]]:  # fmt: skip
    """Give steps their next more exact candidates until the net keeps its error budget; return its error, and notes.

    The squares of the layers' own errors are taken to add up to that of the net, times a factor that every
    measurement tells anew: so many steps change at a time as this says are needed. With ``seconds``, the step goes
    first that loses least time for the square that it takes away; without, the one with the largest error. With a
    ``limit``, packed weights stay within it.

    The error is None where the exact kernels' own output is not finite on these inputs: nothing can be compared.

    Raises
    ------
    GraphError
        If the limit leaves too few candidates.
    """
    notes: list[str] = []
    stuck: set[int] = set()
    while True:
        error = tuning.relative_error(tuning.run_once(built, inputs), reference)
        risky = [i for i, c in enumerate(built.chosen) if not c.exact and i not in stuck]
        if error <= budget or not risky:
            if error > budget and stuck and all(np.isfinite(y).all() for y in reference):
                names = ", ".join(built.lowered.drafts[i].name for i in sorted(stuck))
                raise GraphError(
                    f"the kernels that weight_memory={limit} leaves for {names} give the net an error of {error:.1e}, "
                    f"the planner allows {budget:.1e}: allow more memory, or a larger tolerance"
                )
            return (error if np.isfinite(error) else None), notes
        squares = {i: own_error(i, built.chosen[i]) ** 2 for i in risky}
        left = sum(square for square in squares.values() if math.isfinite(square))
        allowed = left * (_AIM * budget / error) ** 2
        changed = False
        for i in sorted(risky, key=lambda i: _price(built, i, own_error, seconds)):
            if changed and math.isfinite(squares[i]) and left <= allowed:
                break
            changed = True
            note = _step_down(built, i, own_error, seconds, limit)
            if note is None:
                stuck.add(i)
                continue
            notes.append(note)
            if math.isfinite(squares[i]):
                left -= squares[i] - (0.0 if built.chosen[i].exact else own_error(i, built.chosen[i]) ** 2)
        built.net.finish()


def _price(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None
) -> tuple[float, float]:
    """Time for each unit of squared error; then the largest error first, which is all there is without times."""
    now = built.chosen[index]
    own = own_error(index, now)
    if not math.isfinite(own):
        return -math.inf, -math.inf
    finer = _finer(built, index, own_error, seconds)[0]
    times = seconds[index] if seconds is not None else {}
    if now.label not in times or finer.label not in times:
        return (0.0 if seconds is None else math.inf), -own
    gain = own**2 - (0.0 if finer.exact else own_error(index, finer) ** 2)
    return max(0.0, times[finer.label] - times[now.label]) / gain if gain > 0 else math.inf, -own


def _step_down(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None, limit: int | None
) -> str | None:
    """Put the fastest more exact candidate that keeps the limit in place of a step's; None where there is none."""
    dropped = built.chosen[index]
    for finer in _finer(built, index, own_error, seconds):
        built.replace(index, finer)
        if limit is None or built.net.weight_bytes <= limit:
            return (
                f"{built.lowered.drafts[index].name}: {dropped.label} exceeded the error budget, {finer.label} instead"
            )
    built.replace(index, dropped)
    return None


def _finer(
    built: Built, index: int, own_error: OwnError, seconds: Sequence[Mapping[str, float]] | None
) -> list[Candidate]:
    """Return the candidates that are clearly more exact, fastest first; best guess first where none was timed.

    Where nothing can be compared (no error of its own on the sample, or none that is finite), the exact ones.
    """
    known = own_error(index, built.chosen[index])
    candidates = built.lowered.drafts[index].candidates
    allowed = [c for c in candidates if c.exact or own_error(index, c) < known * 0.7 < math.inf]
    times = seconds[index] if seconds is not None else {}
    return sorted(allowed, key=lambda c: times.get(c.label, math.inf))
