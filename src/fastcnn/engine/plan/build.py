"""Drafts to a native net: final addresses, chosen candidates, packed weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastcnn import _native
from fastcnn.engine.graph.graph import GraphError
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

    def replace(self, index: int, candidate: Candidate) -> None:
        """Put another candidate in place of a step; call ``net.finish()`` after the last one."""
        if candidate == self.chosen[index]:
            return
        draft = self.lowered.drafts[index]
        op, inputs, out, attrs, weights = step_arguments(draft, candidate)
        try:
            self.net.replace_step(index, op, inputs, out, attrs, weights)
        except ValueError as error:
            raise GraphError(f"layer {draft.name!r}: {error}") from error
        self.chosen[index] = candidate


def step_arguments(
    draft: Draft, candidate: Candidate
) -> tuple[str, list[object], dict[str, object], dict[str, object], dict[str, object]]:
    """Arguments of the native ``add_step``."""
    attrs: dict[str, object] = {**draft.attrs, **candidate.attrs, "zero_border": int(draft.zero_border)}
    return candidate.op, [s.to_native() for s in draft.inputs], draft.out.to_native(), attrs, dict(draft.weights)


def build(lowered: Lowered, chosen: list[Candidate], target: Target) -> Built:
    """Assign memory and make the native net.

    Raises
    ------
    GraphError
        Where native code cannot count that far or this process cannot hold the plan; nothing is allocated then.
    """
    roots = [s for s in lowered.storages if s.parent is None and s.space == "arena"]
    arena = plan_memory(roots)
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
    net.finish()
    return Built(net, lowered, list(chosen), arena, lower_bound(roots))
