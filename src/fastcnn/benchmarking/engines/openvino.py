"""OpenVINO on the CPU: held to float32; at its own default precision, bf16 where the CPU has it; and at 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import CALIBRATION, INPUTS, ONNX


class OpenVinoEngine(Engine):
    """Latency hint, one stream, ``threads`` inference threads, inference precision f32."""

    settings: ClassVar[dict[str, str]] = {"INFERENCE_PRECISION_HINT": "f32"}

    name: ClassVar[str] = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino", "onnx", "onnxscript")
    distribution: ClassVar[str] = "openvino"

    def file(self, variant: str) -> str:
        """What is read of the folder."""
        return ONNX

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Read and compile the file."""
        import openvino as ov

        core: Any = ov.Core()
        compiled: Any = core.compile_model(
            core.read_model(str(folder / self.file(variant))),
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


class OpenVinoInt8Engine(OpenVinoEngine):
    """8 bits by NNCF's post-training quantisation, in both of its presets. It takes part only where it is named.

    ``performance`` has symmetric ranges of activations, ``mixed`` asymmetric ones; all else is left as it is by
    default, but calibration takes every picture there is.
    """

    name: ClassVar[str] = "openvino-int8"
    modules: ClassVar[tuple[str, ...]] = ("openvino", "nncf", "onnx", "onnxscript")
    variants: ClassVar[tuple[str, ...]] = ("performance", "mixed")
    converts: ClassVar[bool] = True

    def file(self, variant: str) -> str:
        """Each preset has a file of its own."""
        return f"model.{variant}.xml"

    def convert(self, folder: Path, example: F32) -> None:
        """Quantise the ONNX file, calibrated on the folder's calibration batches, or its inputs."""
        import nncf
        import openvino as ov

        known = folder / CALIBRATION
        batches = np.load(known if known.is_file() else folder / INPUTS, allow_pickle=False)
        for variant in self.variants:
            quantised: Any = nncf.quantize(
                ov.Core().read_model(str(folder / ONNX)),
                nncf.Dataset(list(batches)),
                preset=nncf.QuantizationPreset(variant),
                subset_size=len(batches),
            )
            ov.save_model(quantised, str(folder / self.file(variant)))
