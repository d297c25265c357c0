"""Small graphs for the engine's tests, and the check that runs one on one instruction set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph import Graph, GraphInput, Node
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.plan.bands import find_groups
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.tune import relative_error
from fastcnn.engine.run.net import CompiledNet
from tests.reference.interpreter import run_graph

ISAS: list[str] = list(_native.host()["isa_available"])

# Largest error relative to the largest output, per kind of kernel. Sums of a few thousand terms in float32 stay below
# 1e-6; the transforms of F(6) multiply coefficients up to 21/4 twice.
DIRECT = 2e-6
WINOGRAD = {4: 4e-6, 6: 4e-5, 8: 1e-4, 10: 4e-4}  # by tile size t = m + r - 1: acceptance of the specification
FFT = 4e-6  # likewise


class Maker:
    """Collects nodes and weights; every method returns the new value's name."""

    def __init__(self, seed: int, *shapes: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = tuple(GraphInput(name=f"x{i}", shape=s) for i, s in enumerate(shapes))
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def op(self, op: str, *inputs: str, params: dict[str, np.ndarray] | None = None, **attrs: Any) -> str:
        name = f"n{len(self.nodes)}_{op}"
        keys = {}
        for role, array in (params or {}).items():
            keys[role] = f"{name}.{role}"
            self.weights[keys[role]] = array
        self.nodes.append(Node(name=name, op=op, inputs=inputs, params=keys, attrs=attrs))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def conv(
        self, x: str, in_c: int, out_c: int, k: int | tuple[int, int] = 3, *, stride: Any = 1, padding: Any = None,
        dilation: Any = 1, groups: int = 1, bias: bool = True,
    ) -> str:  # fmt: skip
        kh, kw = (k, k) if isinstance(k, int) else k
        pair = lambda v: [v, v] if isinstance(v, int) else list(v)  # noqa: E731
        pad = [kh // 2, kw // 2, kh // 2, kw // 2] if padding is None else padding
        scale = np.float32(1 / np.sqrt(in_c // groups * kh * kw))
        params = {"weight": self.normal(out_c, in_c // groups, kh, kw) * scale}
        if bias:
            params["bias"] = self.normal(out_c)
        return self.op(
            "conv2d", x, params=params, stride=pair(stride), padding=list(pad), dilation=pair(dilation), groups=groups
        )

    def graph(self, *outputs: str) -> Graph:
        return Graph(inputs=self.inputs, nodes=self.nodes, outputs=outputs, weights=self.weights)


def compiled(graph: Graph, isa: str, threads: int = 1, *, exact: bool = False) -> CompiledNet:
    """Compile by rules of thumb."""
    return CompiledNet(graph, make_target(isa, threads), tolerance=5e-4, exact=exact, how="heuristic")


def native(net: CompiledNet) -> Any:
    """The one native segment of a net."""
    (shaped,) = net._plans.values()
    (planned,) = shaped.planned
    assert planned is not None
    return planned.built


def choose(net: CompiledNet, layer: str, candidate: Candidate) -> None:
    """Put a candidate into a compiled net."""
    built = native(net)
    index = next(i for i, d in enumerate(built.lowered.drafts) if d.name == layer)
    built.replace(index, candidate)
    built.net.finish()


def fuse(net: CompiledNet, rows: int) -> int:
    """Run every group the planner finds in bands of that many rows; returns how many there are."""
    built = native(net)
    found = find_groups(built.lowered, built.chosen, make_target(net.isa, net.threads))
    built.fuse([replace(g, rows=min(rows, built.lowered.drafts[g.last].out.nchw[2])) for g in found])
    return len(found)


def poison(net: CompiledNet) -> None:
    """Fill arenas and scratch with NaN: whatever is read before it is written shows."""
    native(net).net.poison()


def inputs_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]


def error_of(net: CompiledNet, inputs: list[np.ndarray], least: float = 0.0) -> float:
    """Error of a compiled net against the interpreter, memory poisoned first.

    It is relative to the largest output, or to ``least`` where that is larger: the few outputs of a tiny map can all
    be small by chance, while the rounding is that of their unit variance.
    """
    expected = run_graph(net.graph, {v.name: x for v, x in zip(net.graph.inputs, inputs, strict=True)})
    poison(net)
    got = net.run(inputs)
    for y, e in zip(got, expected, strict=True):
        assert y.shape == e.shape, (y.shape, e.shape)
        # A maximum over padding alone is minus infinity, and nothing else is infinite; NaN comes from poison.
        where = np.isfinite(e)
        assert np.array_equal(y[~where], e[~where]), "what should be infinite is not"
        assert np.isfinite(y[where]).all(), "NaN: something was read before it was written"
    got = [np.where(np.isfinite(e), y, 0) for y, e in zip(got, expected, strict=True)]
    expected = [np.where(np.isfinite(e), e, 0) for e in expected]
    top = max(float(np.abs(e).max(initial=0.0)) for e in expected)
    return relative_error(got, expected) * (top / least if top < least else 1.0)


def shapes_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    return infer_shapes(graph, {v.name: v.shape for v in graph.inputs})
