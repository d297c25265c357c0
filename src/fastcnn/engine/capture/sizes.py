"""Which input axes may change: the model is traced again at other sizes and the graphs are compared.

Tracing bakes in every Python number the model computes from its input (``F.avg_pool2d(x, x.size(3))``, crops, views).
Where two traces at different sizes give the same graph, the graph holds for other sizes too; where they differ, or the
model refuses the other size, the axis is marked fixed and the engine says so instead of computing something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.quiet import quiet_torch
from fastcnn.engine.capture.size_reads import SizeReads
from fastcnn.engine.graph.graph import Graph

Args = tuple[torch.Tensor, ...]
Kwargs = dict[str, torch.Tensor]
Export = Callable[[Args, Kwargs], ExportedProgram]


def mark_fixed_axes(
    lowering: Lowering, graph: Graph, args: Args, kwargs: Kwargs, export: Export, reads: SizeReads
) -> tuple[Lowering, Graph]:
    """Return the graph with ``GraphInput.fixed`` filled in.

    A model that never reads a size, and whose graph holds no number that lowering took from one, is open without
    further tracing; one that reads the batch's size only is traced once more, with a larger batch.

    Otherwise, attempts, until one settles it: the image doubled (in every axis after the channels); the same, with
    average pools over the whole image written as means, which makes nets that compute the pool's size serve every size;
    the image a little larger, for nets whose head takes one map size only; the batch alone. The batch grows in each.
    What holds for the image as a whole must also hold for one with three times the width and twice the height, if the
    model takes that: a ratio of two sizes is no constant. Tracing works on shapes, so a larger image costs no more.
    """
    numbers_taken = any(
        (node.op == "slice" and node.attrs["dim"] != 1)
        or (node.op == "constant" and max(graph.weights[node.params["value"]].shape[-2:], default=1) > 1)
        for node in graph.nodes
    )
    if not numbers_taken and not reads.spatial and not reads.batch:
        return lowering, graph
    if not any(len(value.shape) > 2 for value in graph.inputs) or (not numbers_taken and not reads.spatial):
        batch = _trace(args, kwargs, export, lambda n, _: n)
        return lowering, _with_fixed(graph, batch=batch is None or not _same(graph, batch[1]), spatial=False)
    for grow in (lambda n, _: 2 * n, lambda n, _: n + 3):
        larger = _trace(args, kwargs, export, grow)
        if larger is None:
            continue
        if _same(graph, larger[1]) and not _undecided(graph, lowering, larger[0]):
            oblong = _trace(args, kwargs, export, lambda n, axis: axis * n)
            return lowering, _with_fixed(graph, batch=False, spatial=oblong is not None and not _same(graph, oblong[1]))
        first = _lower(lowering.program, whole_pool_as_mean=True)
        second = _lower(larger[0].program, whole_pool_as_mean=True)
        if first and second and _same(first[1], second[1]) and not _undecided(first[1], first[0], second[0]):
            return first[0], _with_fixed(first[1], batch=False, spatial=False)
        break
    batch = _trace(args, kwargs, export, lambda n, _: n)
    return lowering, _with_fixed(graph, batch=batch is None or not _same(graph, batch[1]), spatial=True)


def _trace(
    args: Args, kwargs: Kwargs, export: Export, grow: Callable[[int, int], int]
) -> tuple[Lowering, Graph] | None:
    """Trace with a larger batch and grown axes 2 and up; None where the model refuses."""

    def grown(tensor: torch.Tensor) -> torch.Tensor:
        extents = [n + 1 if i == 0 else grow(n, i) if i > 1 else n for i, n in enumerate(tensor.shape)]
        # Never read: tracing looks at shapes only. Not expanded from one element: the model may write into it.
        return torch.empty(extents, dtype=tensor.dtype, device=tensor.device)

    with quiet_torch():  # a refusal is an answer here, torch would log it as an error
        try:
            program = export(tuple(map(grown, args)), {key: grown(value) for key, value in kwargs.items()})
        except Exception:  # any refusal means the same: this size does not work
            return None
    return _lower(program)


def _lower(program: ExportedProgram, *, whole_pool_as_mean: bool = False) -> tuple[Lowering, Graph] | None:
    lowering = Lowering(program, whole_pool_as_mean=whole_pool_as_mean)
    try:
        return lowering, lowering.run()
    except (ValueError, TypeError):
        return None


def _undecided(graph: Graph, one: Lowering, two: Lowering) -> bool:
    """Whether a number that may come from the image's size stands where the two traces have the same size.

    There, equal graphs prove nothing: a pool of 7 on a map that is 7 wide in both traces may be a pool over the map.
    """
    for node in graph.nodes:
        if not node.inputs:
            continue
        x = node.inputs[0]
        if one.shapes[x][2:] != two.shapes[x][2:]:
            continue
        whole = "kernel_size" in node.attrs and tuple(node.attrs["kernel_size"]) == one.shapes[x][2:]
        cut = node.op == "slice" and node.attrs["dim"] > 1
        if (whole and math.prod(one.shapes[x][2:]) > 1) or cut or (node.op == "resize" and node.attrs["size"]):
            return True
    return False


def _same(a: Graph, b: Graph) -> bool:
    """Whether two graphs do the same, apart from the inputs' example shapes."""
    if a.nodes != b.nodes or a.outputs != b.outputs or a.weights.keys() != b.weights.keys():
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
