"""Planning: passes over the graph, layout and memory, choice of kernels; the end product is an immutable Plan."""

from fastcnn.engine.plan.make import Planned, make_plan
from fastcnn.engine.plan.plan import Plan, PlanStep

__all__ = ["Plan", "PlanStep", "Planned", "make_plan"]
