"""Graphs as ONNX files, for engines that are not ours; 8-bit layers as quantise-dequantise pairs."""

from fastcnn.engine.onnx_export.write import export_onnx as export_onnx
from fastcnn.engine.onnx_export.write import to_model as to_model
