"""Time our nets and other engines, each in fresh processes, in turn, with the error beside every figure."""

from fastcnn.benchmarking.benchmark import benchmark
from fastcnn.benchmarking.engines import PEERS
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.results import BenchResult, EngineResult, NetResult
from fastcnn.benchmarking.suite import SUITES, suite_models

__all__ = [
    "PEERS",
    "SUITES",
    "BenchResult",
    "EngineResult",
    "NetResult",
    "benchmark",
    "relative_error",
    "suite_models",
]
