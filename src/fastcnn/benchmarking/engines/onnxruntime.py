"""ONNX Runtime on its CPU provider, all graph optimisations on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import ONNX


class OnnxRuntimeEngine(Engine):
    """Sequential execution with ``threads`` intra-op threads."""

    name: ClassVar[str] = "onnxruntime"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript")
    distribution: ClassVar[str] = "onnxruntime"

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Make a session; its threads spin between calls, as they do by default, and end with this process."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session: Any = ort.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def call(x: F32) -> Any:
            return session.run(None, {name: x})[0]

        return call
