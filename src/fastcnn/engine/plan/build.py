"""Drafts to a native net: final addresses, chosen candidates, packed weights, groups of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan.bands import Group, place
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.limits import check_draft, check_memory
from fastcnn.engine.plan.lowering import Lowered
from fastcnn.engine.plan.memory import lower_bound, plan_memory
from fastcnn.engine.plan.slots import Candidate, Draft


@dataclass
class Built:
    """A native net and the drafts it was made from; ``chosen[i]`` is the candidate of step i."""

    net: _native.Net
    lowered: Lowered
    chosen: list[Candidate]
    arena_floats: int
    arena_bound_floats: int
    groups: list[Group] = field(default_factory=list)

    def replace(self, index: int, candidate: Candidate) -> None:
        """Put another candidate in place of a step; call ``net.finish()`` after the last one."""
        if candidate == self.chosen[index]:
            return
        self._put(index, candidate)
        self.chosen[index] = candidate

    def choose(self, candidates: Sequence[Candidate]) -> None:
        """Put these candidates in place of all steps."""
        for index, candidate in enumerate(candidates):
            self.replace(index, candidate)
        self.net.finish()

    def fuse(self, groups: Sequence[Group], *, room_for: Sequence[Group] = ()) -> None:
        """Run these groups in bands, and no others; they must not overlap.

        The maps inside of them take no arena. Those inside of ``room_for`` keep theirs, so that these groups can be
        put together and taken apart again with a few steps made anew; every other change of the groups moves most maps.
        """
        before = [_addresses(draft) for draft in self.lowered.drafts]
        self.arena_floats, self.arena_bound_floats = _arrange(self.lowered, groups, room_for)
        self.net.set_arena(self.arena_floats)
        for index, draft in enumerate(self.lowered.drafts):
            if _addresses(draft) != before[index]:
                self._put(index, self.chosen[index])
        self.net.set_groups([[g.first, g.last, g.rows] for g in groups])
        self.net.finish()
        self.groups = list(groups)

    def _put(self, index: int, candidate: Candidate) -> None:
        draft = self.lowered.drafts[index]
        op, inputs, out, attrs, weights = step_arguments(draft, candidate)
        try:
            self.net.replace_step(index, op, inputs, out, attrs, weights)
        except ValueError as error:
            raise GraphError(f"layer {draft.name!r}: {error}") from error


def step_arguments(
    draft: Draft, candidate: Candidate
) -> tuple[str, list[object], dict[str, object], dict[str, object], dict[str, object]]:
    """Arguments of the native ``add_step``."""
    weights: dict[str, object] = {role: np.asarray(array) for role, array in draft.weights.items()}
    attrs: dict[str, object] = {**draft.attrs, **candidate.attrs, "zero_border": int(draft.zero_border)}
    return candidate.op, [s.to_native() for s in draft.inputs], draft.out.to_native(), attrs, weights


def _addresses(draft: Draft) -> list[dict[str, Any]]:
    return [slot.to_native() for slot in (*draft.inputs, draft.out)]


def _arrange(lowered: Lowered, groups: Sequence[Group], room_for: Sequence[Group] = ()) -> tuple[int, int]:
    """Assign memory; return the arena's floats and the least that any arena could have."""
    kept = {lowered.drafts[i].out.storage for g in room_for for i in range(g.first, g.last)}
    place(lowered, groups)
    roots = [s for s in lowered.storages if s.parent is None and (s.space == "arena" or s in kept)]
    together = sorted({g.span for g in (*groups, *room_for)})
    offsets = plan_memory(roots, together)
    for storage in kept:
        if storage.space == "band":
            storage.offset = 0
    return offsets, lower_bound(roots, together)


def build(lowered: Lowered, chosen: list[Candidate], target: Target) -> Built:
    """Assign memory and make the native net.

    Raises
    ------
    GraphError
        Where native code cannot count that far or this process cannot hold the plan; nothing is allocated then.
    """
    arena, least = _arrange(lowered, [])
    activations = 4 * (arena + sum(math.prod(dims) for dims in lowered.outputs))
    check_memory(activations, "activations of this size")
    weights = sum(check_draft(d, c, target.lanes) for d, c in zip(lowered.drafts, chosen, strict=True))
    check_memory(activations + weights, "this net with its packed weights")
    net = _native.Net(target.isa, target.threads)
    net.set_arena(arena)
    for draft, candidate in zip(lowered.drafts, chosen, strict=True):
        try:
            net.add_step(*step_arguments(draft, candidate))
        except ValueError as error:
            raise GraphError(f"layer {draft.name!r}: {error}") from error
    _native.return_free_pages()  # packing and reading have left some, and the arena is about to take its own
    net.finish()
    return Built(net, lowered, list(chosen), arena, least)
