"""MNN, converted from ONNX by the converter in its wheel, at precision high (float32)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import ONNX, ONNX_ONE

_MODELS = {"default": (ONNX, "model.mnn"), "pictures": (ONNX_ONE, "model.1.mnn")}


class MnnEngine(Engine):
    """CPU backend, ``threads`` threads, session interface; a batch both as one call and picture by picture."""

    name: ClassVar[str] = "mnn"
    modules: ClassVar[tuple[str, ...]] = ("MNN", "_tools", "onnx", "onnxscript")
    distribution: ClassVar[str] = "MNN"
    converts: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("default", "pictures")

    @classmethod
    def variants_at(cls, batch: int) -> tuple[str, ...]:
        """One picture is a batch of one."""
        return cls.variants if batch > 1 else cls.variants[:1]

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
        for variant in self.variants_at(len(example)):
            source, target = (folder / name for name in _MODELS[variant])
            words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target)]
            converter.mnnconvert([*words, "--bizCode", "fastcnn"])
            if not target.is_file():
                raise RuntimeError(f"MNN's converter wrote no file for {source}")

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Make a session for inputs shaped like ``example``, or for one picture of them."""
        import MNN

        net: Any = MNN.Interpreter(str(folder / _MODELS[variant][1]))
        session = net.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
        entry = net.getSessionInput(session)
        shape = tuple(example.shape) if variant == "default" else (1, *example.shape[1:])
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

        def call_each(x: F32) -> Any:
            return np.concatenate([call(picture[None]) for picture in x])

        return call if variant == "default" else call_each
