"""ncnn, converted from TorchScript by pnnx (the way its authors recommend), in float32."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import TORCHSCRIPT

_PARAM, _BIN = "model.ncnn.param", "model.ncnn.bin"


class NcnnEngine(Engine):
    """fp16 and bf16 storage, packing and arithmetic off; light mode on, as by default."""

    name: ClassVar[str] = "ncnn"
    modules: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx")
    distribution: ClassVar[str] = "ncnn"
    converts: ClassVar[bool] = True

    def convert(self, folder: Path, example: F32) -> None:
        """Run the pnnx program that its wheel brings.

        Raises
        ------
        RuntimeError
            If pnnx fails; its last lines are in the message.
        """
        # Found without importing: the wheel's own module imports torch.
        spec = importlib.util.find_spec("pnnx")
        if spec is None or spec.origin is None:
            raise RuntimeError("pnnx is not installed")
        shape = ",".join(str(n) for n in (1, *example.shape[1:]))
        done = subprocess.run(
            [str(Path(spec.origin).parent / "pnnx"), TORCHSCRIPT, f"inputshape=[{shape}]", "fp16=0"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not (folder / _BIN).is_file():
            tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-4:])
            raise RuntimeError(f"pnnx ended with {done.returncode}: {tail}")
        for left_over in folder.glob("model.pnnx*"):
            left_over.unlink()

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Load the net. ncnn has no batch axis: a batch is run picture by picture, as its users must."""
        import ncnn

        net: Any = ncnn.Net()
        options = net.opt
        options.num_threads = threads
        options.lightmode = True
        for name in dir(options):
            if name.startswith("use_") and ("fp16" in name or "bf16" in name):
                setattr(options, name, False)
        if net.load_param(str(folder / _PARAM)) or net.load_model(str(folder / _BIN)):
            raise RuntimeError(f"ncnn cannot load {folder / _PARAM}")
        source, sink = net.input_names()[0], net.output_names()[0]

        def run_one(picture: F32) -> Any:
            with net.create_extractor() as extractor:
                extractor.input(source, ncnn.Mat(picture))
                status, out = extractor.extract(sink)
                if status:
                    raise RuntimeError(f"ncnn failed with status {status}")
                return np.array(out)

        def call(x: F32) -> Any:
            return np.stack([run_one(picture) for picture in x])

        return call
