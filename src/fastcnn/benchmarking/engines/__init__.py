"""The engines a benchmark can run: ours, and one file for each peer."""

from fastcnn.benchmarking.engines.base import Engine, Runner
from fastcnn.benchmarking.engines.mnn import MnnEngine
from fastcnn.benchmarking.engines.ncnn import NcnnEngine
from fastcnn.benchmarking.engines.onnxruntime import OnnxRuntimeEngine
from fastcnn.benchmarking.engines.openvino import OpenVinoEngine
from fastcnn.benchmarking.engines.ours import OurEngine
from fastcnn.benchmarking.engines.torch import TorchEngine

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (OurEngine, TorchEngine, OnnxRuntimeEngine, OpenVinoEngine, NcnnEngine, MnnEngine)
}
PEERS = tuple(name for name in ENGINES if name != OurEngine.name)

__all__ = ["ENGINES", "PEERS", "Engine", "Runner"]
