"""Graph-to-graph passes of the planner, and their order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.ops import ACTIVATIONS
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shapes import infer_shapes
from fastcnn.engine.plan.passes import (
    expand_binary,
    expand_codebook,
    expand_int8,
    expand_structured,
    fold_batchnorm,
    fold_signs,
    fuse_epilogue,
    simplify,
)

__all__ = [
    "Optimised",
    "expand_binary",
    "expand_codebook",
    "expand_int8",
    "expand_structured",
    "fold_batchnorm",
    "fold_signs",
    "fuse_epilogue",
    "optimise",
    "simplify",
]


@dataclass(frozen=True)
class Optimised:
    """An optimised graph and, line by line, what was done to get there."""

    graph: Graph
    notes: tuple[str, ...]


def optimise(
    graph: Graph,
    shapes: Mapping[str, Shape],
    *,
    activations: Collection[str] = ACTIVATIONS,
    expand: bool = True,
    multiply: bool = True,
    keep: Callable[[Node, Mapping[str, Array], Shape], bool] = expand_structured.nothing,
    keep_binary: expand_binary.Keep = expand_binary.nothing,
    keep_int8: Callable[[Node, Shape, Shape], bool] = expand_int8.nothing,
) -> Optimised:
    """Expand codebooks and structured layers, simplify, fold batch norms, fuse epilogues.

    The input graph is left alone; arrays that no pass changes are shared with it.

    Parameters
    ----------
    graph : Graph
    shapes : mapping of str to tuple of int
        From :func:`fastcnn.engine.graph.shapes.infer_shapes`; only the inputs' entries are read. The result serves
        other sizes as well; where it does not (a residual that has the layer's shape at this size only),
        ``infer_shapes`` on it raises GraphError: then optimise for that size.
    activations : collection of str
        Ops an epilogue may carry.
    expand : bool
        Whether codebook and structured layers become dense ones.
    keep : callable (node, parameters by role, input shape)
        Which structured layers stay as they are, because there is a kernel for them.
    keep_binary : callable (node, input shape, outputs)
        The same for binary layers.
    keep_int8 : callable (node, input shape, weight shape)
        The same for layers of 8 bits.
    multiply : bool
        Whether folded weights of 2-d convolutions are arrays at once; else each is a
        :class:`~fastcnn.engine.plan.passes.folded_weight.FoldedWeight`.

    Returns
    -------
    Optimised
    """
    inputs = {value.name: shapes[value.name] for value in graph.inputs}
    notes: list[str] = []
    if expand:
        graph = expand_codebook.run(graph, infer_shapes(graph, inputs), notes)
        graph = expand_structured.run(graph, infer_shapes(graph, inputs), notes, keep=keep)
        graph = fold_signs.run(graph, notes)
        graph = expand_binary.run(graph, infer_shapes(graph, inputs), notes, keep=keep_binary)
        graph = expand_int8.run(graph, infer_shapes(graph, inputs), notes, keep=keep_int8)
    graph = simplify.run(graph, infer_shapes(graph, inputs), notes)
    graph = fold_batchnorm.run(graph, infer_shapes(graph, inputs), notes, multiply=multiply)
    graph = fuse_epilogue.run(graph, infer_shapes(graph, inputs), notes, activations=activations)
    return Optimised(graph, tuple(notes))
