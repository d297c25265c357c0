"""make_plan: from a graph and input shapes to a native net and the plan that describes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph, GraphError
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.bands import Group, described, divisible, find_groups, likely, saved
from fastcnn.engine.plan.build import Built, build
from fastcnn.engine.plan.cache import TunedBefore, load_tuned, plan_key, store_tuned
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.error_budget import OwnError, keep_budget
from fastcnn.engine.plan.layer_error import LayerErrors
from fastcnn.engine.plan.limits import check_values
from fastcnn.engine.plan.lowering import Lowered, lower
from fastcnn.engine.plan.lowering.binary import has_bits_kernel
from fastcnn.engine.plan.lowering.int8 import has_int8_kernel
from fastcnn.engine.plan.lowering.structured import has_kernel
from fastcnn.engine.plan.passes import optimise
from fastcnn.engine.plan.plan import Bands, Plan, PlanStep
from fastcnn.engine.plan.probes import Probes, made_up, normal_inputs
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.weight_memory import keep_weight_memory

logger = logging.getLogger("fastcnn")

How = Literal["heuristic", "tune", "hint", "nearby"]

RELAXED_FROM = 1e-3
"""Tolerances below this are out of reach of bf16, which rounds to one part in 512."""

SAFETY, SAFETY_RELAXED = 0.5, 0.7
"""Share of the tolerance that the probes may use: other inputs can be worse. Winograd's errors follow the extremes of a
picture, and double from one to the next; those of bf16 are relative to each number, and average out."""

MOST_TIMED = 14
MOST_TIMED_RELAXED = 24
"""Candidates of a layer that tuning times: with AMX, or bf16 and 16-bit spectra, there are many."""

MOST_MACS = 4 * 10**12
"""Multiply-adds that are still spent on measuring an error once on made-up inputs: minutes on a small machine."""


@dataclass
class Planned:
    """A plan and the native net that carries it out."""

    plan: Plan
    built: Built


def make_plan(
    graph: Graph,
    input_shapes: Sequence[Shape],
    target: Target,
    *,
    tolerance: float,
    exact: bool,
    how: How = "heuristic",
    hint: Mapping[str, str] | None = None,
    bands: Sequence[Bands] | None = None,
    known_error: float | None = None,
    calibration: Sequence[Array] | None = None,
    progress: tuning.Progress | None = None,
) -> Planned:
    """Plan one net for one set of input shapes.

    Parameters
    ----------
    graph : Graph
        As captured or read from a file; left alone.
    tolerance : float
        Largest allowed net error against the exact kernels.
    exact : bool
        Offer exact kernels only.
    how : {"heuristic", "tune", "hint", "nearby"}
        ``tune`` times the candidates (or finds an earlier result in the disk cache); ``hint`` follows ``hint``;
        ``nearby`` does so where it fits, as the choices of this net at another shape.
    bands : sequence of Bands, optional
        With ``hint``: the steps that run together, where they can. No output depends on them. Rules of thumb say it if
        nothing is given.
    known_error : float, optional
        The error stated with the hint, for this very net and plan. It is then not measured again, unless the hint does
        not fit or one layer alone is worse than the tolerance.
    calibration : sequence of ndarray, optional
        Inputs to time and to measure the error with, beside more of their kind (plan/probes.py); standard normal ones
        are made where there are none.

    Returns
    -------
    Planned

    Raises
    ------
    GraphError
        (a ValueError) Where the shapes do not fit the net, an op has no native kernel, or the machine cannot hold it.
    """
    try:
        # What overflows here is judged by whether it is finite, where it matters.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            return _planned(
                graph, input_shapes, target, tolerance, exact, how, hint, bands, known_error, list(calibration or ()),
                progress,
            )  # fmt: skip
    except MemoryError:
        raise GraphError(
            f"too little free memory for inputs of shape {', '.join(map(str, input_shapes))}: give smaller or fewer "
            f"pictures"
        ) from None


def _planned(
    graph: Graph, input_shapes: Sequence[Shape], target: Target, tolerance: float, exact: bool, how: How,
    hint: Mapping[str, str] | None, bands: Sequence[Bands] | None, known_error: float | None, inputs: list[Array],
    progress: tuning.Progress | None,
) -> Planned:  # fmt: skip
    shapes = infer_shapes(graph, {v.name: s for v, s in zip(graph.inputs, input_shapes, strict=True)})
    check_values(graph, shapes)
    optimised = optimise(
        graph,
        shapes,
        multiply=False,
        keep=partial(has_kernel, isa=target.isa),
        keep_binary=has_bits_kernel,
        keep_int8=has_int8_kernel,
    )
    graph, notes = optimised.graph, list(optimised.notes)
    shapes = infer_shapes(graph, {v.name: s for v, s in zip(graph.inputs, input_shapes, strict=True)})
    lowered = lower(graph, shapes, target, exact=exact, relaxed=tolerance >= RELAXED_FROM)

    chosen, origin = tuning.heuristic_choice(lowered), "heuristic"
    key, cached, misfits = None, None, list[str]()
    if how in ("hint", "nearby") and hint is not None:
        chosen, misfits = tuning.hinted_choice(lowered, hint)
        origin = "saved" if how == "hint" else "as at the example's shape"
        if misfits and how == "hint":
            logger.info("the plan hint does not fit %s at this shape: heuristic choice there", ", ".join(misfits))
    elif how == "tune":
        key = plan_key(graph, shapes, target, 0.0 if exact else tolerance)
        cached = load_tuned(key)
        if cached is not None:
            chosen, misfits = tuning.hinted_choice(lowered, cached.choices)
            origin = "tuned earlier"
            if misfits:
                cached, chosen, misfits = None, tuning.heuristic_choice(lowered), []
        if cached is None:
            origin = "tuned"

    if misfits:
        known_error = None
    own_error = _OwnErrors(lowered, target)
    if known_error is not None and own_error.any_above(tolerance, chosen):
        known_error = None
    reorders = any(not c.exact for d in lowered.drafts for c in d.candidates)
    unmeasured = reorders and known_error is None and not inputs and how != "tune"
    huge = sum(d.macs for d in lowered.drafts) * (1 + made_up(input_shapes[0][0])) > MOST_MACS
    if unmeasured and huge:
        chosen, reorders = tuning.exact_choice(lowered), False
        notes.append("too much arithmetic to measure an error while planning: exact kernels")
    measured = reorders and known_error is None
    budget = tolerance * safety(tolerance)
    built = build(lowered, tuning.exact_choice(lowered) if measured else chosen, target)
    # Only now, when the plan is known to fit, may inputs take memory.
    inputs = inputs or (normal_inputs(input_shapes) if measured or how == "tune" else [])
    probes: Probes | None = None
    if measured:
        probes = Probes(built, inputs)
        built.choose(chosen)

    seconds: list[dict[str, float]] | None = None
    if origin == "tuned earlier" and cached is not None:
        seconds = [cached.seconds.get(draft.name, {}) for draft in lowered.drafts]
    if origin == "tuned":
        # What the error budget falls back on must have a time too.
        most = MOST_TIMED_RELAXED if tolerance >= RELAXED_FROM else MOST_TIMED
        tuned = tuning.tune(built, inputs, most=most, progress=progress)
        seconds = tuned.seconds
    choices = _choices(built)  # before the budget, which depends on weights, as the key of the cache does not
    error = known_error if reorders else None
    as_saved = error is not None
    if probes is not None:
        error, dropped = keep_budget(built, probes, budget, own_error, seconds)
        notes += dropped
    if target.weight_bytes is not None and built.net.weight_bytes > target.weight_bytes:
        if as_saved:  # that was said of other kernels
            error, as_saved = None, False
            if huge:
                built.choose(tuning.exact_choice(lowered))
                notes.append("too much arithmetic to measure an error while planning: exact kernels")
            else:
                inputs = inputs or normal_inputs(input_shapes)
                built.choose(tuning.exact_choice(lowered))
                probes = Probes(built, inputs)
                built.choose(chosen)
        notes += keep_weight_memory(built, target.weight_bytes, target.lanes, own_error, seconds)
        if probes is not None:
            # They are as exact as the ones before, each for itself: that is no promise for the net.
            error, dropped = keep_budget(built, probes, budget, own_error, seconds, limit=target.weight_bytes)
            notes += dropped
    del probes
    own_error.free_samples()
    groups = find_groups(lowered, built.chosen, target)
    # What was timed with other kernels says nothing: budget and limit depend on more than the key of the cache.
    timed = how == "tune" and (cached is None or cached.band_choices != _choices(built))
    if timed:
        groups = tuning.tune_groups(built, inputs, divisible(lowered, groups, target))
        if key is not None and seconds is not None and cached is None:
            times, together = tuning.by_layer(lowered, seconds), described(lowered, groups)
            store_tuned(key, TunedBefore(choices, times, together, _choices(built)))
    elif cached is not None:
        groups = saved(lowered, groups, cached.bands)
    elif how == "hint" and bands is not None:
        groups = saved(lowered, groups, bands)
    else:
        groups = likely(lowered, groups, target)
    if groups or timed:
        built.fuse(groups)
    built.net.trim()
    step_ms = None
    if how == "tune":
        step_ms = tuning.typical(built, inputs, 5) * 1e3
    reasons = [
        _ASKED if now != before else "heuristic" if draft.name in misfits else origin
        for draft, now, before in zip(lowered.drafts, built.chosen, chosen, strict=True)
    ]
    plan = _describe(built, target, tolerance, input_shapes, origin, reasons, notes, error, own_error, step_ms, seconds)
    plan = plan.with_(error_as_saved=as_saved)
    return Planned(plan, built)


class _OwnErrors:
    """Error of a step alone under a candidate, measured at most once for every algorithm."""

    def __init__(self, lowered: Lowered, target: Target) -> None:
        self._lowered, self._target = lowered, target
        self._known: dict[tuple[int, str], float] = {}
        self._layers: dict[int, LayerErrors] = {}

    def __call__(self, index: int, candidate: Candidate) -> float:
        key = (index, tuning.algorithm(candidate.label))
        if key not in self._known:
            if index not in self._layers:
                self._layers[index] = LayerErrors(self._lowered.drafts[index], self._target)
            self._known[key] = self._layers[index].of(candidate)
        return self._known[key]

    def any_above(self, limit: float, chosen: Sequence[Candidate]) -> bool:
        """Say whether one layer alone is worse than the limit."""
        for index, candidate in enumerate(chosen):
            if not candidate.exact and self(index, candidate) > limit:
                return True
            self.free_samples()
        return False

    def free_samples(self) -> None:
        """Give back what the layers were measured with: megabytes, a few milliseconds each to make again."""
        self._layers.clear()


def safety(tolerance: float) -> float:
    """Return the share of a tolerance that the probes may use."""
    return SAFETY_RELAXED if tolerance >= RELAXED_FROM else SAFETY


def _if_finite(error: float) -> float | None:
    return error if np.isfinite(error) else None


def _choices(built: Built) -> dict[str, str]:
    return {
        draft.name: candidate.label
        for draft, candidate in zip(built.lowered.drafts, built.chosen, strict=True)
        if tuning.has_choice(draft)
    }


_ASKED = "the error budget or weight_memory asked for it"


def _why(
    lowered: Lowered, index: int, candidate: Candidate, seconds: list[dict[str, float]] | None, reason: str,
    groups: Sequence[Group],
) -> str:  # fmt: skip
    draft = lowered.drafts[index]
    parts = [draft.note] if draft.note else []
    for group in groups:
        if group.first <= index <= group.last:
            names = [lowered.drafts[i].name for i in range(group.first, group.last + 1) if i != index]
            parts.append(f"rows in bands of {group.rows} with {' and '.join(names)}")
    if candidate.why:
        parts.append(candidate.why)
    if not tuning.has_choice(draft):
        return "; ".join(parts)
    if seconds is None:
        parts.append(reason)
    elif candidate.label not in seconds[index]:
        parts.append(f"not timed: {_ASKED}")
    else:
        others = [(t, label) for label, t in seconds[index].items() if label != candidate.label]
        if others:
            second, label = min(others)
            ratio = second / seconds[index][candidate.label]
            if ratio >= 1:
                parts.append(f"fastest of {len(seconds[index])}; next {label} {ratio:.2f}x")
            else:
                parts.append(f"{_ASKED}; fastest {label} {ratio:.2f}x")
    return "; ".join(parts)


def _describe(
    built: Built, target: Target, tolerance: float, input_shapes: Sequence[Shape], origin: str, reasons: list[str],
    notes: list[str], error: float | None, own_error: OwnError, step_ms: Array | None,
    seconds: list[dict[str, float]] | None,
) -> Plan:  # fmt: skip
    net, steps = built.net, []
    for i, (draft, candidate) in enumerate(zip(built.lowered.drafts, built.chosen, strict=True)):
        steps.append(
            PlanStep(
                layer=draft.name,
                source=draft.source,
                kernel=net.kernel(i),
                why=_why(built.lowered, i, candidate, seconds, reasons[i], built.groups),
                error=None if candidate.exact else own_error(i, candidate),
                ms=None if step_ms is None else float(step_ms[i]),
                macs=draft.macs,
                weight_bytes=net.step_weight_bytes(i),
                choice=candidate.label if tuning.has_choice(draft) else "",
            )
        )
    return Plan(
        isa=target.isa,
        threads=target.threads,
        tolerance=tolerance,
        shapes=tuple(tuple(s) for s in input_shapes),
        steps=tuple(steps),
        arena_bytes=4 * built.arena_floats,
        arena_lower_bound=4 * built.arena_bound_floats,
        scratch_bytes=net.scratch_bytes,
        weight_bytes=net.weight_bytes,
        error=error,
        how=origin,
        notes=tuple(notes),
        bands=described(built.lowered, built.groups),
    )
