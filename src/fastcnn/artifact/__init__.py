"""The .fcnn file: a graph and its weights, entropy-coded, in one validated container.

``save_graph`` and ``load_graph`` move a :class:`fastcnn.engine.graph.Graph` to disk and back, bit for bit;
``inspect`` says what each weight costs; ``predict_bytes`` says what it must cost in theory. ``docs/artifact.md``
describes the format.
"""

from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.inspection import Inspection, WeightInfo, inspect
from fastcnn.artifact.load import Artifact, load_graph
from fastcnn.artifact.predict import TensorStats, predict_bytes, predict_file_bytes, tensor_stats
from fastcnn.artifact.save import FileReport, save_graph

__all__ = [
    "Artifact",
    "ArtifactError",
    "FileReport",
    "Inspection",
    "TensorStats",
    "WeightInfo",
    "inspect",
    "load_graph",
    "predict_bytes",
    "predict_file_bytes",
    "save_graph",
    "tensor_stats",
]
