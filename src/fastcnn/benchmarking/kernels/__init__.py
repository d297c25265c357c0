"""Algorithms of convolution by kernel size: single layers against peers, a training step, and charts of our own."""

from fastcnn.benchmarking.kernels.cases import CHARTS, LAYER_CASES, ROWS, TRAINING_CASE, Case, Chart, Goal
from fastcnn.benchmarking.kernels.layer import Layer
from fastcnn.benchmarking.kernels.records import AlgorithmTime, KernelsResult, LayerCell, Point
from fastcnn.benchmarking.kernels.run import run_kernels

__all__ = [
    "CHARTS",
    "LAYER_CASES",
    "ROWS",
    "TRAINING_CASE",
    "AlgorithmTime",
    "Case",
    "Chart",
    "Goal",
    "KernelsResult",
    "Layer",
    "LayerCell",
    "Point",
    "run_kernels",
]
