"""Which input axes may change: the model is traced again at other sizes and the graphs are compared.

Tracing bakes in every Python number the model computes from its input (``F.avg_pool2d(x, x.size(3))``, crops, views).
Where two traces at different sizes give the same graph, the graph holds for other sizes too; where they differ, or the
model refuses the other size, the axis is marked fixed and the engine says so instead of computing something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.graph.graph import Graph

Args = tuple[torch.Tensor, ...]
Kwargs = dict[str, torch.Tensor]
Export = Callable[[Args, Kwargs], ExportedProgram]


def mark_fixed_axes(
    lowering: Lowering, graph: Graph, args: Args, kwargs: Kwargs, export: Export
) -> tuple[Lowering, Graph]:
    """Return the graph with ``GraphInput.fixed`` filled in.

    Three attempts: all axes but the channels doubled; the same, with average pools over the whole image written as
    means (which makes nets that compute the pool's size serve every size); the batch alone. Tracing works on shapes
    only, so a doubled image costs no more than the first.
    """
    bigger = _retrace(args, kwargs, export, spatial=True)
    if bigger is not None:
        if _same(graph, _lower(bigger)):
            return lowering, _with_fixed(graph, batch=False, spatial=False)
        first, second = _mean_form(lowering), _lower(bigger, whole_pool_as_mean=True)
        if first is not None and _same(first[1], second):
            return first[0], _with_fixed(first[1], batch=False, spatial=False)
    batch = bigger if not _has_spatial(graph) else _retrace(args, kwargs, export, spatial=False)
    batch_fixed = batch is None or not _same(graph, _lower(batch))
    return lowering, _with_fixed(graph, batch=batch_fixed, spatial=True)


def _has_spatial(graph: Graph) -> bool:
    return any(len(value.shape) > 2 for value in graph.inputs)


def _retrace(args: Args, kwargs: Kwargs, export: Export, *, spatial: bool) -> ExportedProgram | None:
    """Trace with a larger batch and, if ``spatial``, doubled axes 2 and up; None where the model refuses."""

    def grown(tensor: torch.Tensor) -> torch.Tensor:
        extents = [n + 1 if i == 0 else 2 * n if spatial and i > 1 else n for i, n in enumerate(tensor.shape)]
        # Never read: tracing looks at shapes only. Not expanded from one element: the model may write into it.
        return torch.empty(extents, dtype=tensor.dtype, device=tensor.device)

    try:
        return export(tuple(map(grown, args)), {key: grown(value) for key, value in kwargs.items()})
    except Exception:  # any refusal means the same: this size does not work
        return None


def _lower(program: ExportedProgram, *, whole_pool_as_mean: bool = False) -> Graph | None:
    try:
        return Lowering(program, whole_pool_as_mean=whole_pool_as_mean).run()
    except (ValueError, TypeError):
        return None


def _mean_form(lowering: Lowering) -> tuple[Lowering, Graph] | None:
    again = Lowering(lowering.program, whole_pool_as_mean=True)
    return again, again.run()


def _same(a: Graph, b: Graph | None) -> bool:
    """Whether two graphs do the same, apart from the inputs' example shapes."""
    if b is None or a.nodes != b.nodes or a.outputs != b.outputs or a.weights.keys() != b.weights.keys():
        return False
    if any(not np.array_equal(a.weights[key], b.weights[key]) for key in a.weights):
        return False
    steps: list[tuple[Any, Any]] = [(a.torch_calls[key], b.torch_calls[key]) for key in a.torch_calls]
    return all(one.signature == two.signature for one, two in steps)


def _with_fixed(graph: Graph, *, batch: bool, spatial: bool) -> Graph:
    inputs = tuple(
        replace(
            value,
            fixed=tuple(i for i in range(len(value.shape)) if (i == 0 and batch) or (i > 1 and spatial)),
        )
        for value in graph.inputs
    )
    return replace(graph, inputs=inputs)
