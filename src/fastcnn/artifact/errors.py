"""The one error of the file room."""

from __future__ import annotations


class ArtifactError(ValueError):
    """A file that cannot be read or written: the message names the field, what it holds and what is allowed."""
