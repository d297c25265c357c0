"""Graph nodes become native steps: one handler per op, grouped as the kernels are."""

from fastcnn.engine.plan.lowering import (
    binary,
    convolution,
    elementwise,
    int8,
    pooling,
    shape,
    structured,
)  # handlers register
from fastcnn.engine.plan.lowering.lowerer import Lowered, Lowerer, lower

__all__ = [
    "Lowered",
    "Lowerer",
    "binary",
    "convolution",
    "elementwise",
    "int8",
    "lower",
    "pooling",
    "shape",
    "structured",
]
