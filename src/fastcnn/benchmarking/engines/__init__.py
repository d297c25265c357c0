"""The engines a benchmark can run: ours, and one file for each peer."""

from fastcnn.benchmarking.engines.base import Engine, Runner
from fastcnn.benchmarking.engines.mnn import MnnEngine
from fastcnn.benchmarking.engines.ncnn import NcnnEngine
from fastcnn.benchmarking.engines.onnxruntime import OnnxRuntimeEngine
from fastcnn.benchmarking.engines.openvino import OpenVinoDefaultEngine, OpenVinoEngine, OpenVinoInt8Engine
from fastcnn.benchmarking.engines.ours import OurEngine
from fastcnn.benchmarking.engines.torch import TorchEngine

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine
    for engine in (
        OurEngine, TorchEngine, OnnxRuntimeEngine, OpenVinoEngine, NcnnEngine, MnnEngine, OpenVinoDefaultEngine,
        OpenVinoInt8Engine,
    )
}  # fmt: skip
KNOWN_PEERS = tuple(name for name in ENGINES if name != OurEngine.name)
PEERS = tuple(name for name in KNOWN_PEERS if name not in (OpenVinoDefaultEngine.name, OpenVinoInt8Engine.name))
"""Those that compute in float32, and take part where nobody names any."""

__all__ = ["ENGINES", "KNOWN_PEERS", "PEERS", "Engine", "Runner"]
