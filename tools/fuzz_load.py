"""One case of the load-and-call stage: ``fastcnn.load``, the plan as text, and calls of the net.

Allowed: ArtifactError from load; a call at the example's shape must succeed; other shapes and other inputs may be
refused with ValueError or TypeError. What is not allowed comes out as the exception it is, or as :class:`Wrong`.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn
from fastcnn.artifact import ArtifactError, load_graph
from fastcnn.engine.graph import Graph, GraphError, infer_shapes, macs

WORK = 3 * 10**8
"""Multiply-adds, or values touched, that a case may cost: about a tenth of a second. Larger nets are planned only."""
CALL_BYTES = 64 << 20


class Wrong(Exception):
    """The net ran and its output is not what it should be."""


def work(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> int:
    """Rough cost of one inference: channels count as whole vectors, windows as if they lay inside the map."""
    total = 0
    multiplications = macs(graph, shapes)
    for node in graph.nodes:
        out = math.prod(shapes[node.name])
        cost = out + sum(math.prod(shapes[name]) for name in node.inputs)
        if node.op.startswith(("conv", "codebook_conv")):
            weight = graph.weights[node.params.get("weight") or node.params["codes"]].shape
            groups = node.attrs["groups"]
            dense = math.prod(weight) * groups * 16 * 16  # narrow groups run dense, channels in whole vectors
            cost += max(multiplications[node.name], 1) * groups * 16 + dense
            cost += math.prod(node.attrs["stride"]) * 1000 if node.op == "conv_transpose2d" else 0
        elif node.op == "local_response_norm":
            cost += out * min(node.attrs["size"], shapes[node.name][1])
        elif "pool" in node.op or node.op == "mean":
            spatial = shapes[node.inputs[0]][2:]
            window = node.attrs.get("kernel_size", spatial)
            cost += out * math.prod(min(k, n) for k, n in zip(window, spatial, strict=False)) * 16
        total += cost + multiplications[node.name]
    return total


def inputs_of(rng: random.Random, graph: Graph) -> list[np.ndarray]:
    """Inputs at the example's shape: mostly normal, sometimes hostile."""
    values = np.random.default_rng(rng.randrange(2**32))
    arrays = [values.standard_normal(v.shape, np.float32) for v in graph.inputs]
    if rng.randrange(8) == 0:
        for array in arrays:
            array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, 3e38, 1e-45, 0.0])
    return arrays


def load_case(rng: random.Random, path: Path) -> str:
    """Run the case; returns its outcome in a few words."""
    small, fits = True, True
    try:
        graph = load_graph(path).graph
        shapes = infer_shapes(graph, {v.name: v.shape for v in graph.inputs})
        small = work(graph, shapes) <= WORK
    except GraphError:
        fits = False
    except ArtifactError:
        expect_refusal(path)
        return "refused by the reader"
    options: dict[str, Any] = rng.choice([{}, {}, {}, {"threads": 1}, {"threads": 2}, {"plan": "heuristic"}])
    if rng.randrange(16) == 0:
        options = {"plan": "tune", "threads": 2}
    if rng.randrange(8) == 0:
        options = {**options, "tolerance": rng.choice(["exact", "fp32", 1e-12, 0.5])}
    if not small:
        options = {"plan": "heuristic", "tolerance": "exact"}  # nothing is run while planning
    if not fits:
        expect_refusal(path)
        return "refused by the planner"
    try:
        net = fastcnn.load(path, **options)
    except ArtifactError:
        return "refused by the planner"
    text = str(net.plan)
    if not text or not math.isfinite(net.plan.error or 0.0):
        raise Wrong(f"plan says error {net.plan.error}")
    repr(net)
    needed = net.plan.arena_bytes + net.plan.scratch_bytes + 4 * sum(math.prod(shapes[n]) for n in graph.outputs)
    if not small or needed > CALL_BYTES:
        return "planned"
    arrays = inputs_of(rng, net.graph)
    call(net, arrays, shapes)
    for bad in odd_inputs(rng, arrays):
        try:
            net(*bad)
        except (ValueError, TypeError) as error:
            if not str(error):
                raise Wrong("an error without a message") from error
    return "called"


def expect_refusal(path: Path) -> None:
    """The reader or the shapes refuse this file, so load must."""
    try:
        fastcnn.load(path)
    except ArtifactError:
        return
    raise Wrong("load accepts what the reader or the shape rules refuse")


def call(net: Any, arrays: list[np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Call twice, with junk in the workspace before the second: shapes are right and no stale memory is read."""
    results = []
    for _ in range(2):
        y = net(*arrays)
        outputs = y if isinstance(y, tuple) else (y,)
        for name, output in zip(net.graph.outputs, outputs, strict=True):
            if output.shape != shapes[name] or output.dtype != np.float32:
                raise Wrong(f"output {name!r} is {output.dtype}{output.shape}, expected float32{shapes[name]}")
        results.append(outputs)
        for shaped in net._plans.values():
            for planned in shaped.planned:
                planned.built.net.poison()
    for name, first, second in zip(net.graph.outputs, *results, strict=True):
        if not np.array_equal(first, second, equal_nan=True):
            raise Wrong(f"output {name!r} depends on what was in memory before")


def odd_inputs(rng: random.Random, arrays: list[np.ndarray]) -> list[list[Any]]:
    """Inputs the net may refuse: another batch or size, huge ones that take no memory, wrong kinds."""
    first, rest = arrays[0], arrays[1:]
    shape = first.shape
    zero = np.zeros((), np.float32)
    axis = rng.randrange(len(shape))
    other = [n if i != axis else rng.choice([1, 2, 3, n + 1, max(1, n - 1)]) for i, n in enumerate(shape)]
    huge = [n if i != axis else rng.choice([2**31 - 1, 2**31, 2**33, 2**40]) for i, n in enumerate(shape)]
    found: list[list[Any]] = [[np.broadcast_to(zero, huge), *rest], [np.zeros(other, np.float32), *rest]]
    found += [[np.broadcast_to(zero, [2**24 if i == 0 else n for i, n in enumerate(shape)]), *rest]]
    found += [[first.astype(np.float64), *rest], [first[None], *rest], [*arrays, first], arrays[1:], [None, *rest]]
    found += [[first[:0], *rest], [first.tolist(), *rest], [np.asfortranarray(first), *rest], [first[..., ::-1], *rest]]
    return rng.sample(found, 3)
