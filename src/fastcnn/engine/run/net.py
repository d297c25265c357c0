"""CompiledNet: a graph, a plan per input shape, and the call that runs it."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.make import How, Planned, make_plan
from fastcnn.engine.plan.passes import fold_signs
from fastcnn.engine.plan.plan import Bands, Plan, PlanStep
from fastcnn.engine.plan.tune import Progress
from fastcnn.engine.run.segments import Segment, cut

if TYPE_CHECKING:
    from fastcnn.artifact import FileReport
    from fastcnn.engine.program import ProgramReport

logger = logging.getLogger("fastcnn")

MAX_PLANS = 8
"""Input shapes whose plans a net keeps; the one unused for longest goes first."""


class _ShapePlan:
    """Everything planned for one set of input shapes."""

    def __init__(self, segments: list[Segment], planned: list[Planned | None], plan: Plan) -> None:
        self.segments = segments
        self.planned = planned
        self.plan = plan


class CompiledNet:
    """A compiled net: call it with numpy arrays or torch tensors, get the same kind back.

    Made by :func:`fastcnn.compile` and :func:`fastcnn.load`. Thread-safe: every call has its own workspace. Other
    batch and image sizes than the example's are planned when they first come.

    Attributes
    ----------
    plan : Plan
        For the example shape: what runs, why, its error and its cost.
    graph : Graph
        The captured model.
    isa, threads, tolerance
        What it was compiled for.
    """

    def __init__(
        self,
        graph: Graph,
        target: Target,
        *,
        tolerance: float,
        exact: bool,
        how: How,
        hint: Mapping[str, str] | None = None,
        bands: Sequence[Bands] | None = None,
        known_error: float | None = None,
        calibration: Sequence[Array] | None = None,
        progress: Progress | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.graph = graph
        self.tolerance = tolerance
        self.meta = dict(meta or {})
        self._target = target
        self._exact = exact
        self._plans: OrderedDict[tuple[Shape, ...], _ShapePlan] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[tuple[Shape, ...], threading.Event] = {}
        self._planning = threading.Lock()
        _nets.add(self)
        example = tuple(v.shape for v in graph.inputs)
        self._plans[example] = self._make(example, how, hint, bands, known_error, calibration, progress)
        self._example = example
        self.plan: Plan = self._plans[example].plan

    @property
    def isa(self) -> str:
        return self._target.isa

    @property
    def threads(self) -> int:
        return self._target.threads

    @property
    def exact(self) -> bool:
        """Whether only kernels that reorder no algebra are used."""
        return self._exact

    def plan_for(self, *shapes: Sequence[int]) -> Plan:
        """Return the plan for these input shapes (made now if need be)."""
        return self._shape_plan(tuple(tuple(int(n) for n in shape) for shape in shapes)).plan

    def __call__(self, *inputs: Any) -> Any:
        """Run the net.

        Parameters
        ----------
        *inputs : ndarray or Tensor
            One per graph input, float32, batch first: an image net takes ``(N, C, H, W)``.

        Returns
        -------
        ndarray or Tensor, or a tuple of them
            In the kind of the inputs; float32.

        Raises
        ------
        TypeError
            For another dtype or kind.
        ValueError
            For another number of inputs, rank, channels, or an empty batch.
        """
        torch = _torch_of(inputs)
        arrays = [self._checked(i, value, torch) for i, value in enumerate(inputs)]
        if len(arrays) != len(self.graph.inputs):
            raise ValueError(
                f"this net takes {len(self.graph.inputs)} input{'s' if len(self.graph.inputs) != 1 else ''} "
                f"({', '.join(v.name for v in self.graph.inputs)}), got {len(arrays)}"
            )
        # The plan comes first: a shape that cannot be planned is refused before its array is copied.
        shaped = self._shape_plan(tuple(a.shape for a in arrays))
        outputs = self._run(shaped, [np.ascontiguousarray(a) for a in arrays])
        if torch is not None:
            outputs = [torch.from_numpy(y) for y in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run on checked C-contiguous float32 arrays; a list of new arrays."""
        return self._run(self._shape_plan(tuple(a.shape for a in arrays)), arrays)

    def _run(self, shaped: _ShapePlan, arrays: Sequence[Array]) -> list[Array]:
        values: dict[str, Array] = {v.name: a for v, a in zip(self.graph.inputs, arrays, strict=True)}
        for segment, planned in zip(shaped.segments, shaped.planned, strict=True):
            given = [values[name] for name in segment.inputs]
            if planned is None:
                assert segment.node is not None
                call = self.graph.torch_calls[segment.node.attrs["key"]]
                values[segment.node.name] = np.ascontiguousarray(call(*given), np.float32)
                continue
            made = [np.empty(shape, np.float32) for shape in planned.built.lowered.outputs]
            planned.built.net.run(given, made)
            values.update(zip(segment.outputs, made, strict=True))
        return [values[name] for name in self.graph.outputs]

    def save(self, path: str | Path, **meta: Any) -> FileReport:
        """Write the net as a ``.fcnn`` file with this plan as its hint.

        The graph is the captured one, except that between two binary layers a threshold for each output takes the
        place of scale, bias and batch norm, as it does in every plan.

        Raises
        ------
        GraphError
            (a ValueError) If a step runs in torch: names it.
        OSError
            If the file cannot be written; nothing half-written is left.
        """
        from fastcnn.artifact import save_graph
        from fastcnn.artifact.hint import make_hint

        self.graph.to_json()  # a torch step is an error before anything is opened
        graph = _stored(self.graph)
        hint = make_hint(
            graph, isa=self.isa, threads=self.threads, tolerance=self.tolerance, exact=self._exact,
            shapes=self._example, choices=self.plan.choices(), bands=self.plan.bands,
            error=self.plan.error,
        )  # fmt: skip
        return save_graph(path, graph, plan_hint=hint, meta={**self.meta, **meta})

    def to_onnx(self, path: str | Path, *shapes: Sequence[int]) -> None:
        """Write the net as ONNX, for engines that are not ours: the function alone, without a plan.

        Layers of 8 bits are float ones between quantise-dequantise pairs, which int8 engines fuse; codebooks,
        structured layers and signs are dense weights. The batch may be of any size, other extents are the example's.

        Parameters
        ----------
        path : str or Path
            Usually ``.onnx``.
        *shapes : sequence of int, optional
            One per input; the example's if none is given.

        Raises
        ------
        GraphError
            (a ValueError) For an op that has no form in ONNX; it names the node.
        MissingExtraError
            Without the onnx package.
        OSError
            If the file cannot be written; nothing half-written is left.
        """
        from fastcnn.engine.onnx_export import export_onnx

        export_onnx(self.graph, [tuple(map(int, shape)) for shape in shapes] or self._example, path)

    def export(self, path: str | Path, *shapes: Sequence[int]) -> ProgramReport:
        """Write a program for the C library (``fastcnn.h``): this net for one set of input shapes.

        Parameters
        ----------
        path : str or Path
            Usually ``.fcp``. It runs on machines with this net's instruction set; its thread count is a default.
        *shapes : sequence of int, optional
            One per input; the example's if none is given.

        Raises
        ------
        GraphError
            (a ValueError) If a step runs in torch, or the shapes do not fit.
        ArtifactError
            (a ValueError) If the file cannot be written; nothing half-written is left.
        """
        from fastcnn.engine.program import write_program

        self.graph.to_json()  # names a torch step
        wanted = tuple(tuple(int(n) for n in shape) for shape in shapes) or self._example
        (planned,) = self._shape_plan(wanted).planned
        assert planned is not None
        return write_program(path, self.graph, planned)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{v.name} {v.shape}" for v in self.graph.inputs)
        return f"CompiledNet({inputs}; {len(self.plan.steps)} steps, {self.isa}, {self.threads} threads)"

    def _checked(self, index: int, value: Any, torch: Any) -> Array:
        name = self.graph.inputs[index].name if index < len(self.graph.inputs) else f"input {index}"
        if torch is not None and isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if not isinstance(value, np.ndarray):
            raise TypeError(f"input {name!r} is a {type(value).__name__}: give a numpy array or a torch tensor")
        if value.dtype != np.float32:
            raise TypeError(f"input {name!r} has dtype {value.dtype}: cast it to float32 first (x.astype('float32'))")
        if value.ndim != len(self.graph.inputs[index].shape if index < len(self.graph.inputs) else value.shape):
            expected = self.graph.inputs[index].shape
            raise ValueError(
                f"input {name!r} has shape {value.shape}: this net takes rank {len(expected)} like {expected}"
            )
        if value.size == 0:
            raise ValueError(f"input {name!r} has shape {value.shape}: an empty batch or image cannot be run")
        return value

    def _shape_plan(self, shapes: tuple[Shape, ...]) -> _ShapePlan:
        while True:
            with self._lock:
                found = self._plans.get(shapes)
                if found is not None:
                    self._plans.move_to_end(shapes)
                    return found
                others = self._making.get(shapes)
                if others is None:
                    done = self._making[shapes] = threading.Event()
            if others is None:
                return self._make_shape(shapes, done)
            others.wait()

    def _make_shape(self, shapes: tuple[Shape, ...], done: threading.Event) -> _ShapePlan:
        """Plan a new shape while calls with known ones go on, and keep the plan.

        One shape at a time: each has packed weights of its own, of which only ``MAX_PLANS`` sets are to be there.
        """
        try:
            with self._planning:
                # The same net at another size: what won at the example's size is the best guess, where it fits.
                made = self._make(shapes, "nearby", self.plan.choices(), None, None, None, None)
            with self._lock:
                self._plans[shapes] = made
                while len(self._plans) > MAX_PLANS:
                    oldest = next(key for key in self._plans if key != self._example)
                    del self._plans[oldest]
            return made
        finally:
            with self._lock:
                self._making.pop(shapes, None)
            done.set()

    def _make(
        self,
        input_shapes: tuple[Shape, ...],
        how: How,
        hint: Mapping[str, str] | None,
        bands: Sequence[Bands] | None,
        known_error: float | None,
        calibration: Sequence[Array] | None,
        progress: Progress | None,
    ) -> _ShapePlan:
        names = [v.name for v in self.graph.inputs]
        shapes = infer_shapes(self.graph, dict(zip(names, input_shapes, strict=True)))
        segments = cut(self.graph, shapes)
        planned: list[Planned | None] = []
        for segment in segments:
            if segment.graph is None:
                planned.append(None)
                continue
            own = [shapes[name] for name in segment.inputs]
            whole = len(segments) == 1
            planned.append(
                make_plan(
                    segment.graph, own, self._target, tolerance=self.tolerance, exact=self._exact, how=how, hint=hint,
                    bands=bands, known_error=known_error if whole else None,
                    calibration=calibration if whole else None, progress=progress,
                )
            )  # fmt: skip
        return _ShapePlan(segments, planned, _join(segments, planned, self._target, self.tolerance, input_shapes))


_nets: weakref.WeakSet[CompiledNet] = weakref.WeakSet()


def _unlock_after_fork() -> None:
    """Give every net locks of its own in a child: threads that held the old ones, or made a plan, are not there."""
    for net in _nets:
        net._lock = threading.Lock()
        net._planning = threading.Lock()
        net._making = {}


os.register_at_fork(after_in_child=_unlock_after_fork)


def _stored(graph: Graph) -> Graph:
    """The graph that a file holds: with thresholds between binary layers where its weights then take fewer bytes."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        folded = fold_signs.run(graph)
    return folded if _weight_bytes(folded) < _weight_bytes(graph) else graph


def _weight_bytes(graph: Graph) -> int:
    used = {key for node in graph.nodes for key in node.params.values()}
    return sum(int(graph.weights[key].nbytes) for key in used)


def _join(
    segments: list[Segment], planned: list[Planned | None], target: Target, tolerance: float, shapes: tuple[Shape, ...]
) -> Plan:
    """One plan for all segments."""
    plans = [p.plan for p in planned if p is not None]
    if len(segments) == 1 and len(plans) == 1:
        return plans[0]
    steps: list[PlanStep] = []
    for segment, item in zip(segments, planned, strict=True):
        if item is not None:
            steps += item.plan.steps
        elif segment.node is not None:
            node = segment.node
            why = f"{node.attrs['target']} is outside the engine's op set"
            steps.append(PlanStep(layer=node.name, source=node.source, kernel="torch", why=why))
    errors = [p.error for p in plans if p.error is not None]
    return Plan(
        isa=target.isa,
        threads=target.threads,
        tolerance=tolerance,
        shapes=shapes,
        steps=tuple(steps),
        arena_bytes=sum(p.arena_bytes for p in plans),
        arena_lower_bound=sum(p.arena_lower_bound for p in plans),
        scratch_bytes=sum(p.scratch_bytes for p in plans),
        weight_bytes=sum(p.weight_bytes for p in plans),
        error=max(errors) if errors else None,
        how=plans[0].how if plans else "torch",
        notes=tuple(note for p in plans for note in p.notes),
        bands=tuple(b for p in plans for b in p.bands),
    )


def _torch_of(inputs: Sequence[Any]) -> Any:
    """The torch module if any input is a tensor; torch is never imported for it."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and any(isinstance(value, torch.Tensor) for value in inputs):
        return torch
    return None
