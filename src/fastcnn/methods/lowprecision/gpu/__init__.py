"""Layers of few bits on NVIDIA GPUs, by kernels in Triton; triton is imported when one first runs."""

from fastcnn.methods.lowprecision.gpu.rule import Choice as Choice
from fastcnn.methods.lowprecision.gpu.rule import watch as watch
