"""ONNX import: a ``.onnx`` file in, a checked Graph out. Needs the onnx package, and no torch."""

from fastcnn._extras import require

require("onnx", extra="onnx", purpose="reading an ONNX file")

from fastcnn.engine.onnx_import.errors import OnnxError, OnnxNotSupportedError  # noqa: E402
from fastcnn.engine.onnx_import.load import import_onnx  # noqa: E402

__all__ = ["OnnxError", "OnnxNotSupportedError", "import_onnx"]
