"""What the import raises."""

from __future__ import annotations


class OnnxError(ValueError):
    """An ONNX file that cannot be read: damaged, hostile, contradictory, or asked for with shapes that do not fit it.

    The message names the file and the node, tensor or field.
    """


class OnnxNotSupportedError(OnnxError):
    """A sound ONNX file that does something the engine cannot hold: names node, operation, domain and the set."""


class Unsupported(Exception):
    """A variant of an op that the graph cannot hold; the text says why. The walk adds file and node."""


class Damaged(Exception):
    """A node or tensor that breaks ONNX's own rules; the text says which. The walk adds file and node."""
