"""Time our nets and other engines, each in fresh processes, in turn, with the error beside every figure."""

from fastcnn.benchmarking.benchmark import benchmark
from fastcnn.benchmarking.engines import KNOWN_PEERS, PEERS
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.results import BenchResult, EngineResult, NetResult
from fastcnn.benchmarking.rows import ROW_SUITES, Row
from fastcnn.benchmarking.rowsuite import Cell, RowsResult, run_rows
from fastcnn.benchmarking.suite import SUITES, suite_models

__all__ = [
    "KNOWN_PEERS",
    "PEERS",
    "ROW_SUITES",
    "SUITES",
    "BenchResult",
    "Cell",
    "EngineResult",
    "NetResult",
    "Row",
    "RowsResult",
    "benchmark",
    "relative_error",
    "run_rows",
    "suite_models",
]
