"""Operations outside the engine's set, run by torch on numpy arrays."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import Shape


class TorchStep:
    """A few torch operations between graph values; callable on numpy arrays.

    Parameters
    ----------
    nodes : sequence of fx.Node
        In execution order; the last one makes the result.
    leaves : sequence of fx.Node
        What the positional arguments of a call stand for.
    constants : mapping of fx.Node to Tensor
        Values that depend on no input. Cast to the argument's floating type on use, so that a float64 oracle runs
        through in float64.
    """

    def __init__(
        self, nodes: Sequence[fx.Node], leaves: Sequence[fx.Node], constants: Mapping[fx.Node, torch.Tensor]
    ) -> None:
        self._nodes = list(nodes)
        self._leaves = list(leaves)
        self._constants = dict(constants)
        self._shapes: dict[tuple[Shape, ...], Shape] = {}

    @property
    def signature(self) -> str:
        """What the step does, constants' values apart: equal for equal steps."""
        return "; ".join(node.format_node() or node.name for node in self._nodes)

    def __call__(self, *arrays: Array) -> Array:
        """Run on arrays of one floating type; returns a C-contiguous array."""
        return np.ascontiguousarray(self._run(arrays).numpy())

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the result for the given shapes: the step is run once on ones, then remembered."""
        if shapes not in self._shapes:
            self._shapes[shapes] = tuple(self._run([np.ones(shape, np.float32) for shape in shapes]).shape)
        return self._shapes[shapes]

    def _run(self, arrays: Sequence[Array]) -> torch.Tensor:
        with torch.no_grad():
            # A copy: the step may keep views of its argument, and torch warns about read-only arrays.
            env: dict[fx.Node, Any] = {
                leaf: torch.from_numpy(np.array(array, copy=True, order="C"))
                for leaf, array in zip(self._leaves, arrays, strict=True)
            }
            dtype = next((value.dtype for value in env.values()), torch.float32)
            for node, tensor in self._constants.items():
                env[node] = tensor.to(dtype) if tensor.is_floating_point() else tensor
            for node in self._nodes:
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: env[n])
                target: Any = operator.getitem if node.target is operator.getitem else node.target
                env[node] = target(*args, **kwargs)
            result = env[self._nodes[-1]]
            assert isinstance(result, torch.Tensor)
            return result.detach()
