"""Choose among candidates: by a saved hint, by rules of thumb, or by timing them inside the running chain.

Timing a layer alone in a warm loop picks wrong (its weights sit in cache, as they never do in a net), so every round
runs the whole net with one candidate per layer and reads the clock between the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.plan import tiles
from fastcnn.engine.plan.bands import Group
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.lowering import Lowered
from fastcnn.engine.plan.slots import Candidate, Draft

Progress = Callable[[int, int], None]


def has_choice(draft: Draft) -> bool:
    return len(draft.candidates) > 1


def heuristic_choice(lowered: Lowered) -> list[Candidate]:
    """Return the best guess of every step."""
    return [draft.candidates[0] for draft in lowered.drafts]


def exact_choice(lowered: Lowered) -> list[Candidate]:
    """Return the first candidate of every step that reorders no algebra."""
    return [next(c for c in draft.candidates if c.exact) for draft in lowered.drafts]


def hinted_choice(lowered: Lowered, hint: Mapping[str, str]) -> tuple[list[Candidate], list[str]]:
    """Follow a hint; returns the choice and the layers where it did not fit.

    A label that is not among the candidates (another cache size, another core count) still decides the algorithm and
    its tile, which is all that the numbers depend on.
    """
    chosen, misfits = [], []
    for draft in lowered.drafts:
        if not has_choice(draft):
            chosen.append(draft.candidates[0])
            continue
        label = hint.get(draft.name, "")
        same = [c for c in draft.candidates if c.label == label]
        alike = [c for c in draft.candidates if algorithm(c.label) == algorithm(label)]
        if not same and not alike:
            misfits.append(draft.name)
        chosen.append((same or alike or draft.candidates)[0])
    return chosen, misfits


def algorithm(label: str) -> str:
    """Return what decides about a candidate's numbers: the rest of its label is how it is shared out."""
    kind, _, rest = label.partition(":")
    return f"{kind}:{rest.split(':')[0]}" if kind.startswith(tiles.OPS) else kind


def output_buffers(lowered: Lowered) -> list[Array]:
    """Return arrays for the net's outputs, poisoned."""
    return [np.full(shape, np.nan, np.float32) for shape in lowered.outputs]


def run_once(built: Built, inputs: Sequence[Array]) -> list[Array]:
    outputs = output_buffers(built.lowered)
    built.net.run(list(inputs), outputs)
    return outputs


def profile(built: Built, inputs: Sequence[Array], repeats: int) -> Any:
    """Seconds of every step (rows) in every repeat (columns)."""
    times = built.net.profile(list(inputs), output_buffers(built.lowered), repeats)
    return np.asarray(times).reshape(built.net.steps, repeats)


_DISTURBED = 1.2
"""Runs of the net that take longer than this times the fastest one say more about the machine's other work."""


def typical(built: Built, inputs: Sequence[Array], repeats: int) -> Any:
    """Median seconds of every step, over the runs that nothing disturbed."""
    return _medians(profile(built, inputs, repeats))


def _medians(times: Any) -> Any:
    """Of every row, over the runs that nothing disturbed. A disturbance makes a step look longer, never shorter."""
    total = times.sum(axis=0)
    return np.median(times[:, total <= _DISTURBED * total.min()], axis=1)


@dataclass
class Tuned:
    """Result of a tuning run."""

    chosen: list[Candidate]
    seconds: list[dict[str, float]]  # per step: candidate label to its median time


def tune(
    built: Built, inputs: Sequence[Array], *, most: int, repeats: int = 5, progress: Progress | None = None
) -> Tuned:
    """Time up to ``most`` candidates of every step in the chain, and two exact ones in any case; keep the fastest.

    Twice as many of convolutions that FFT may serve as well as Winograd.

    Leaves ``built`` with the winners in place.
    """
    drafts = built.lowered.drafts
    seconds: list[dict[str, float]] = [{} for _ in drafts]
    start = list(built.chosen)
    order: list[list[Candidate]] = []
    for draft, first in zip(drafts, start, strict=True):
        ranked = [first, *(c for c in draft.candidates if c != first)]
        exact = [c for c in ranked if c.exact][:2]
        timed = ranked[: most if tiles.has_few_forms(draft) else 2 * most]
        order.append(timed + [c for c in exact if c not in timed])
    rounds = max(len(candidates) for candidates in order)
    for k in range(rounds):
        for i, candidates in enumerate(order):
            if k < len(candidates):
                built.replace(i, candidates[k])
        built.net.finish()
        profile(built, inputs, 1)
        times = typical(built, inputs, repeats)
        for i, candidate in enumerate(built.chosen):
            known = seconds[i].get(candidate.label, np.inf)
            seconds[i][candidate.label] = min(known, float(times[i]))
        if progress is not None:
            progress(k + 1, rounds)
    winners = []
    for i, draft in enumerate(drafts):
        timed = [c for c in draft.candidates if c.label in seconds[i]]
        winners.append(min(timed, key=lambda c: seconds[i][c.label]) if has_choice(draft) else draft.candidates[0])
    for i, winner in enumerate(winners):
        built.replace(i, winner)
    built.net.finish()
    return Tuned(winners, seconds)


FUSED_GAINS = 0.98
"""A group must take less than this share of the time its steps take one after the other."""


def tune_groups(built: Built, inputs: Sequence[Array], groups: Sequence[Group], *, rounds: int = 3) -> list[Group]:
    """Time every group against its steps one after the other, in turns; return those that are faster.

    Leaves ``built`` as it was, but for the place of its maps.
    """
    if not groups:
        return []
    alone: list[Array] = []
    together: list[Array] = []
    for _ in range(rounds):
        for fused, times in (([], alone), (groups, together)):
            built.fuse(fused, room_for=groups)
            profile(built, inputs, 1)
            times.append(profile(built, inputs, 5))
    steps = [_medians(np.concatenate(times, axis=1)) for times in (alone, together)]
    before, after = ([float(t[g.first : g.last + 1].sum()) for g in groups] for t in steps)
    return [g for g, t, f in zip(groups, before, after, strict=True) if f < t * FUSED_GAINS]


def by_layer(lowered: Lowered, seconds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the times under the names of the layers that had a choice."""
    return {d.name: times for d, times in zip(lowered.drafts, seconds, strict=True) if has_choice(d)}


def relative_error(result: Sequence[Array], exact: Sequence[Array]) -> float:
    """Design §5: per picture max|y - y_exact| / max|y_exact| over all outputs; the worst picture."""
    off = largest([y.astype(np.float64) - e for y, e in zip(result, exact, strict=True)])
    if not np.isfinite(off).all():
        return float("inf")
    return max(o / top if top > 0 else o for o, top in zip(off, largest(exact), strict=True))


def largest(outputs: Sequence[Array]) -> list[float]:
    """Return every picture's largest magnitude over all outputs; not a number where one of them is none.

    The first output says how many pictures there are; one that has another extent counts for each of them.
    """
    batch = outputs[0].shape[0] if outputs[0].ndim else 1
    top = np.zeros(batch)
    for y in outputs:
        rows = np.abs(y).reshape(batch if y.ndim and y.shape[0] == batch else 1, -1)
        top = np.maximum(top, rows.max(axis=1, initial=0.0))
    return [float(t) for t in top]
