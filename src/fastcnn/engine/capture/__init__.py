"""Capture: a torch model in, a Graph out. The only room of the engine that imports torch."""

from fastcnn._extras import require

require("torch", extra="compress", purpose="capturing a torch model")

from fastcnn.engine.capture.capture import capture  # noqa: E402
from fastcnn.engine.capture.errors import NotSupportedError  # noqa: E402

__all__ = ["NotSupportedError", "capture"]
