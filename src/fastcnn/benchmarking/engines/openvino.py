"""OpenVINO on the CPU: held to float32, and at its own default precision, which is bf16 where the CPU has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import ONNX


class OpenVinoEngine(Engine):
    """Latency hint, one stream, ``threads`` inference threads, inference precision f32."""

    settings: ClassVar[dict[str, str]] = {"INFERENCE_PRECISION_HINT": "f32"}

    name: ClassVar[str] = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino", "onnx", "onnxscript")
    distribution: ClassVar[str] = "openvino"

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Read and compile the ONNX file."""
        import openvino as ov

        core: Any = ov.Core()
        compiled: Any = core.compile_model(
            core.read_model(str(folder / ONNX)),
            "CPU",
            {
                **self.settings,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
            },
        )
        request = compiled.create_infer_request()
        output = compiled.output(0)

        def call(x: F32) -> Any:
            # A view of the request's own buffer, valid until the next call: the worker copies what it keeps.
            return request.infer([x], share_inputs=True, share_outputs=True)[output]

        return call


class OpenVinoDefaultEngine(OpenVinoEngine):
    """The same with the precision left to OpenVINO. It takes part only where it is named."""

    name: ClassVar[str] = "openvino-default"
    settings: ClassVar[dict[str, str]] = {}
