"""What capture raises when a model goes beyond it."""

from __future__ import annotations


class NotSupportedError(ValueError):
    """The model does something the engine cannot hold: the message names the op, the layer and a way out."""
