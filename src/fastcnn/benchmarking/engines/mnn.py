"""MNN, converted from ONNX by the converter in its wheel, at precision high (float32)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import ONNX

_MODEL = "model.mnn"


class MnnEngine(Engine):
    """CPU backend, ``threads`` threads, session interface."""

    name: ClassVar[str] = "mnn"
    modules: ClassVar[tuple[str, ...]] = ("MNN", "_tools", "onnx", "onnxscript")
    distribution: ClassVar[str] = "MNN"
    converts: ClassVar[bool] = True

    def convert(self, folder: Path, example: F32) -> None:
        """Call the native converter.

        ``MNN.tools`` is never imported: importing it runs ``pip install`` for a logging library and sends usage data.
        The extension module ``_tools`` beside it does the same conversion and nothing else.

        Raises
        ------
        RuntimeError
            If no file comes out.
        """
        converter: Any = importlib.import_module("_tools")
        target = folder / _MODEL
        source = str(folder / ONNX)
        converter.mnnconvert(
            ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(target), "--bizCode", "fastcnn"]
        )
        if not target.is_file():
            raise RuntimeError(f"MNN's converter wrote no file for {source}")

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Make a session for inputs shaped like ``example``."""
        import MNN

        net: Any = MNN.Interpreter(str(folder / _MODEL))
        session = net.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
        entry = net.getSessionInput(session)
        shape = tuple(example.shape)
        if tuple(entry.getShape()) != shape:
            net.resizeTensor(entry, shape)
            net.resizeSession(session)
        out = net.getSessionOutput(session)
        out_shape = tuple(out.getShape())
        caffe, kind = MNN.Tensor_DimensionType_Caffe, MNN.Halide_Type_Float
        host = MNN.Tensor(out_shape, kind, np.zeros(out_shape, np.float32), caffe)

        def call(x: F32) -> Any:
            entry.copyFrom(MNN.Tensor(shape, kind, x, caffe))
            net.runSession(session)
            out.copyToHostTensor(host)
            return np.array(host.getNumpyData(), copy=True).reshape(out_shape)

        return call
