"""Whether a graph treats every entry of the batch by itself.

Then it means the same at any batch: each picture is what the file says of one. Exporters write a stated batch into the
targets of reshapes, so without this a file exported with a batch of 1 would serve no other.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastcnn.engine.graph.graph import Graph, Node
from fastcnn.engine.graph.ops import ACTIVATIONS
from fastcnn.engine.graph.schema import Shape

_ALWAYS = ACTIVATIONS | {
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "batch_norm",
    "local_response_norm",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "prelu",
    "add_scalar",
    "mul_scalar",
    "resize",
    "edge_pad2d",
    "group_norm",
    "layer_norm",
    "sqrt",
    "abs",
}
"""Ops that keep axis 0 apart whatever their attributes."""
_BINARY = ("add", "sub", "mul", "div")


def is_batchwise(graph: Graph, shapes: Mapping[str, Shape]) -> bool:
    """Return True only where every node provably keeps axis 0, entry by entry; an op not known here gives False.

    Parameters
    ----------
    graph : Graph
    shapes : mapping of str to tuple of int
        Of every value, at the batch the graph was made for.
    """
    constants = {node.name for node in graph.nodes if node.op == "constant"}
    if any(name in constants for name in graph.outputs):
        return False
    return all(node.op == "constant" or _keeps_batch(node, shapes, constants) for node in graph.nodes)


def _keeps_batch(node: Node, shapes: Mapping[str, Shape], constants: set[str]) -> bool:
    x, a = node.inputs[0], node.attrs
    if node.op in _BINARY:
        return _broadcasts(node, shapes, constants)
    if any(name in constants for name in node.inputs):
        return False
    if node.op in ("softmax", "log_softmax", "concat", "slice", "index_select"):
        return bool(a["dim"] > 0)
    if node.op in ("mean", "sum", "amax"):
        return 0 not in a["dims"]
    if node.op == "linear":
        return len(shapes[x]) > 1
    if node.op == "matmul":
        return all(len(shapes[name]) > 2 for name in node.inputs)
    if node.op == "pad":
        return not any(a["pads"][0])
    if node.op == "permute":
        return bool(a["dims"][0] == 0)
    if node.op == "reshape":
        return bool(a["shape"]) and a["shape"][0] == 0
    if node.op == "flatten":
        return bool(a["start_dim"] > 0)
    return node.op in _ALWAYS


def _broadcasts(node: Node, shapes: Mapping[str, Shape], constants: set[str]) -> bool:
    """Two values of the batch are of one rank; a constant has no batch of its own."""
    batched = [shapes[name] for name in node.inputs if name not in constants]
    fixed = [shapes[name] for name in node.inputs if name in constants]
    if not batched or any(len(shape) != len(batched[0]) or shape[0] != batched[0][0] for shape in batched):
        return False
    rank = len(batched[0])
    return all(len(shape) < rank or (len(shape) == rank and shape[0] == 1) for shape in fixed)
