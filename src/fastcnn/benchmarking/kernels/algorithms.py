"""Compile one layer with a given algorithm of ours, and time its step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn import _native
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.kernels.layer import NODE, Layer
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.plan.build import Built, build
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.lowering import lower
from fastcnn.engine.plan.passes import optimise
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.tiles import WINOGRAD_TILES, chunks_of, form_of, splits
from fastcnn.engine.plan.tune import algorithm, exact_choice, profile, run_once

F32 = npt.NDArray[np.float32]

MOST_SPECTRA_BYTES = 1 << 30
"""Transformed weights beyond this are not made: they would be read from memory for every block of tiles."""
_LEAST_REPEATS, _MOST_REPEATS = 3, 2000
_LAYOUT_REPEATS = 30
_DISTURBED = 1.2
"""Runs that take longer than this times the fastest one say more about the machine's other work."""
_TRIAL_SHARE = 0.15
"""Of a timed block's length, for choosing among the ways to share an algorithm out."""


@dataclass
class CompiledLayer:
    """A layer as a native net of its own, in which any candidate can take its place.

    Attributes
    ----------
    layer : Layer
    target : Target
    built : Built
        Holds the convolution's step and those that bring its maps into blocks of channels and back.
    index : int
        Of the convolution's step.
    layout_s : float
        Seconds of the other steps, 0 until :meth:`time_layout`.
    """

    layer: Layer
    target: Target
    built: Built
    index: int
    layout_s: float = 0.0

    @classmethod
    def make(cls, layer: Layer, target: Target) -> CompiledLayer:
        """Compile with the first exact kernel, at the tolerance ``fp32``."""
        graph = layer.graph()
        shapes = infer_shapes(graph, {"x": layer.shape})
        graph = optimise(graph, shapes, multiply=False).graph
        lowered = lower(graph, infer_shapes(graph, {"x": layer.shape}), target, exact=False)
        built = build(lowered, exact_choice(lowered), target)
        (index,) = (i for i, draft in enumerate(lowered.drafts) if draft.name == NODE)
        return cls(layer, target, built, index)

    def put(self, candidate: Candidate) -> None:
        """Let that candidate run the layer.

        Raises
        ------
        GraphError
            (a ValueError) If native code refuses it.
        """
        self.built.replace(self.index, candidate)
        self.built.net.finish()

    def run(self, x: F32) -> F32:
        """Output for an input, both (N, C, H, W)."""
        (y,) = run_once(self.built, [x])
        return np.asarray(y, np.float32)

    def time_layout(self, x: F32) -> None:
        """Measure what the other steps take, which is the same for every candidate."""
        profile(self.built, [x], 1)
        times = profile(self.built, [x], _LAYOUT_REPEATS)
        others = times.sum(axis=0) - times[self.index]
        self.layout_s = float(np.median(others))

    def seconds(self, x: F32, *, budget_s: float) -> float:
        """Median seconds of the layer's step over the calls of about ``budget_s`` that nothing disturbed.

        It is the time of all steps less that of the others. The clock between two steps alone would not do: it is read
        by one thread, and where that one has no share of the work, or was put aside, the step before it looks long and
        this one short. One unmeasured call comes first. The result is not positive where the machine is too busy.
        """
        first = float(profile(self.built, [x], 1).sum())
        repeats = int(np.clip(budget_s / max(first, 1e-7), _LEAST_REPEATS, _MOST_REPEATS))
        total = profile(self.built, [x], repeats).sum(axis=0)
        return float(np.median(total[total <= _DISTURBED * total.min()])) - self.layout_s

    def ways(self) -> dict[str, list[Candidate]]:
        """Every algorithm that can run the layer here, each with the ways to share it out between threads and blocks.

        The planner's candidates, and the tile forms that it leaves out because they save nothing here.
        """
        draft = self.built.lowered.drafts[self.index]
        found: dict[str, list[Candidate]] = {}
        for candidate in [*draft.candidates, *_forms(self.layer, self.target)]:
            name = algorithm(candidate.label)
            alike = found.setdefault("direct" if name == "depthwise" else name, [])
            if all((c.op, c.attrs) != (candidate.op, candidate.attrs) for c in alike):
                alike.append(candidate)
        return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def time_algorithms(
    compiled: CompiledLayer,
    x: F32,
    exact: npt.NDArray[np.float64],
    *,
    seconds: float,
    chosen: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Time every algorithm on one layer, each in its fastest way, and check what it computes.

    Parameters
    ----------
    compiled : CompiledLayer
    x : ndarray, shape (N, C, H, W)
    exact : ndarray of float64, shape (N, C, H, W)
        The layer's output for ``x``.
    seconds : float
        Length of an algorithm's timed block.
    chosen : mapping of str to str, optional
        Algorithm to the label of its way, as an earlier round found it; the fastest is looked for where there is none.

    Returns
    -------
    list of dict
        ``algorithm``, ``way``, ``ms``, ``error`` and ``failure``, JSON-able, direct first.
    """
    compiled.time_layout(x)
    found = []
    for name, ways in compiled.ways().items():
        record: dict[str, Any] = {"algorithm": name, "way": "", "ms": None, "error": None, "failure": ""}
        found.append(record)
        record["failure"] = _too_large(compiled.layer, ways[0])
        if record["failure"]:
            continue
        best = next((way for way in ways if way.label == (chosen or {}).get(name)), None)
        if best is None:
            best = _fastest(compiled, x, ways, budget_s=_TRIAL_SHARE * seconds)
        compiled.put(best)
        error = relative_error(compiled.run(x), exact)
        if not math.isfinite(error):
            record["failure"] = "outputs are not finite"
            continue
        taken = compiled.seconds(x, budget_s=seconds)
        if taken <= 0:
            record["failure"] = "not measurable: the machine was busy"
            continue
        record |= {"way": best.label, "error": error, "ms": 1e3 * taken}
    return found


def _fastest(compiled: CompiledLayer, x: F32, ways: list[Candidate], *, budget_s: float) -> Candidate:
    trials = []
    for way in ways:
        compiled.put(way)
        taken = compiled.seconds(x, budget_s=budget_s)
        trials.append(taken if taken > 0 else math.inf)
    return ways[int(np.argmin(trials))]


def _too_large(layer: Layer, way: Candidate) -> str:
    if way.op not in ("winograd", "fft"):
        return ""
    products = form_of(way.op, way.attrs, (layer.kernel, layer.kernel)).products
    size = 4 * products * layer.channels**2
    return f"transformed weights would take {size / 2**30:.1f} GiB" if size > MOST_SPECTRA_BYTES else ""


def _forms(layer: Layer, target: Target) -> Iterator[Candidate]:
    """Every Winograd and FFT form there are kernels for, shared out by tiles and by output channels.

    A group of tiles is either as large as half of L2, or so large that the weights are read seldom.
    """
    kernel = (layer.kernel, layer.kernel)
    if layer.channels < target.lanes or layer.kernel == 1:
        return
    if layer.depthwise:
        for size in (int(t) for t in _native.fft_sizes(target.isa) if t >= layer.kernel):
            yield Candidate(f"fft_depthwise:{size}", "fft_depthwise", {"tile": size}, exact=False)
        return
    forms = [("winograd", {"m": m}) for m in WINOGRAD_TILES.get(kernel, ())]
    forms += [("fft", {"tile": int(t)}) for t in _native.fft_sizes(target.isa) if t >= layer.kernel]
    for op, which in forms:
        form = form_of(op, which, kernel)
        tiles = form.tiles(layer.batch, (layer.size, layer.size))
        (size,) = which.values()
        for split in splits(op, target.threads):
            share = math.ceil(tiles / target.threads) if split in ("tiles", "own_rows") else tiles
            for chunk in chunks_of(target, form, split, layer.channels, share):
                attrs = {**which, "chunk": chunk, "split": split}
                yield Candidate(f"{op}:{size}:{split}:{chunk}", op, attrs, exact=False)


_ORDER = ("direct", "winograd", "fft", "amx")


def _order(name: str) -> tuple[int, str, int]:
    """Direct first, then by family and size."""
    kind, _, size = name.partition(":")
    return next((i for i, word in enumerate(_ORDER) if kind.startswith(word)), len(_ORDER)), kind, int(size or 0)
