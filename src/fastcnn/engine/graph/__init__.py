"""The typed graph every room speaks: no torch, no kernels, numpy arrays for weights."""

from fastcnn.engine.graph.graph import Graph, GraphError, GraphInput, Node
from fastcnn.engine.graph.ops import OPS, check_graph, make_node
from fastcnn.engine.graph.serial import graph_from_json
from fastcnn.engine.graph.shapes import infer_shapes, macs

__all__ = [
    "OPS",
    "Graph",
    "GraphError",
    "GraphInput",
    "Node",
    "check_graph",
    "graph_from_json",
    "infer_shapes",
    "macs",
    "make_node",
]
