"""Keep packed weights within a limit: layers go back from large spectra to kernels that need less, cheapest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.limits import packed_bytes
from fastcnn.engine.plan.slots import Candidate


def keep_weight_memory(
    built: Built,
    limit: int,
    lanes: int,
    own_error: Callable[[int, Candidate], float],
    seconds: Sequence[Mapping[str, float]] | None,
) -> list[str]:
    """Replace candidates until the packed weights of ``built`` fit; return a note for each.

    A step only moves to a candidate that is as exact, or more. With times, the one that loses the least time for each
    byte goes first; without, the one that saves most bytes.

    Raises
    ------
    GraphError
        If the smallest weights are still too large.
    """
    notes: list[str] = []
    left: set[tuple[int, str]] = set()  # sizes are estimates: what was left once is not taken again
    while built.net.weight_bytes > limit:
        steps = range(len(built.chosen))
        moves = [move for i in steps for move in _moves(built, i, lanes, own_error, seconds)]
        moves = [move for move in moves if (move[1], move[2].label) not in left]
        if not moves:
            raise GraphError(
                f"packed weights need {built.net.weight_bytes:,} bytes with the smallest kernels found, weight_memory "
                f"allows {limit:,}: allow more"
            )
        _, index, smaller = min(moves, key=lambda move: move[0])
        name, dropped = built.lowered.drafts[index].name, built.chosen[index]
        left.add((index, dropped.label))
        built.replace(index, smaller)
        built.net.finish()
        notes.append(f"{name}: {dropped.label} takes too much memory, {smaller.label} instead")
    return notes


def _moves(
    built: Built, index: int, lanes: int, own_error: Callable[[int, Candidate], float],
    seconds: Sequence[Mapping[str, float]] | None,
) -> list[tuple[float, int, Candidate]]:  # fmt: skip
    """Smaller candidates of one step as (price, step, candidate)."""
    draft, now = built.lowered.drafts[index], built.chosen[index]
    size = built.net.step_weight_bytes(index)
    found = []
    for candidate in draft.candidates:
        saved = size - packed_bytes(draft, candidate, lanes)
        if candidate == now or saved <= size // 20:
            continue
        if not candidate.exact and (now.exact or own_error(index, candidate) > own_error(index, now)):
            continue
        if seconds is None:
            price = -float(saved)
        else:
            known = seconds[index].get(now.label, 0.0)
            price = (seconds[index].get(candidate.label, math.inf) - known) / saved
        found.append((price, index, candidate))
    return found
