"""The typed graph every room speaks: no torch, no kernels, numpy arrays for weights."""

from fastcnn.engine.graph.graph import Graph, GraphError, GraphInput, Node

__all__ = ["Graph", "GraphError", "GraphInput", "Node"]
