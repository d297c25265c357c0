"""Graph nodes become native steps: one handler per op, grouped as the kernels are."""

from fastcnn.engine.plan.lowering import convolution, elementwise, pooling, shape  # handlers register themselves
from fastcnn.engine.plan.lowering.lowerer import Lowered, Lowerer, lower

__all__ = ["Lowered", "Lowerer", "convolution", "elementwise", "lower", "pooling", "shape"]
