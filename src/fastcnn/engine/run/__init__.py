"""Carrying plans out."""

from fastcnn.engine.run.net import CompiledNet

__all__ = ["CompiledNet"]
