"""PyTorch eager, from an exported program: both memory formats, of which the faster counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fastcnn.benchmarking.engines.base import F32, Engine, Runner
from fastcnn.benchmarking.files import TORCH_EXPORT


class TorchEngine(Engine):
    """The operations of the user's model one after the other, in inference mode."""

    name: ClassVar[str] = "torch"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    distribution: ClassVar[str] = "torch"
    extra: ClassVar[str] = "compress"
    variants: ClassVar[tuple[str, ...]] = ("channels_last", "contiguous")

    def open(self, folder: Path, example: F32, *, threads: int, variant: str) -> Runner:
        """Load the exported program, set the threads and the memory format."""
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
        program: Any = torch.export.load(folder / TORCH_EXPORT)
        module = program.module()
        if example.ndim == 4:
            module = module.to(memory_format=layout)
            # ``view`` refuses channels-last data where ``reshape`` copies a little: what its users would write instead.
            for node in module.graph.nodes:
                if node.target is torch.ops.aten.view.default:
                    node.target = torch.ops.aten.reshape.default
            module.recompile()

        def call(x: F32) -> Any:
            with torch.inference_mode():
                tensor = torch.from_numpy(x)
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=layout)
                return module(tensor).numpy()

        return call
