"""Reading one field of an untrusted JSON object: type and range first, then the value."""

from __future__ import annotations

import reprlib
from typing import Any

from fastcnn.artifact.errors import ArtifactError


def obj(value: object, keys: set[str], what: str) -> dict[str, Any]:
    """Return ``value`` if it is an object with exactly these keys."""
    if not isinstance(value, dict):
        raise ArtifactError(f"{what} must be an object, got {type(value).__name__}")
    if set(value) != keys:
        raise ArtifactError(f"{what} must have the fields {sorted(keys)}, got {reprlib.repr(sorted(value))}")
    return value


def integer(value: object, low: int, high: int, what: str) -> int:
    """Return ``value`` if it is an int in low..high."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArtifactError(f"{what} must be an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise ArtifactError(f"{what} must be in {low}..{high}, got {reprlib.repr(value)}")
    return value


def text(value: object, longest: int, what: str) -> str:
    """Return ``value`` if it is a string of at most ``longest`` characters."""
    if not isinstance(value, str):
        raise ArtifactError(f"{what} must be a string, got {type(value).__name__}")
    if len(value) > longest:
        raise ArtifactError(f"{what} has {len(value)} characters, at most {longest} are allowed")
    return value


def array(value: object, longest: int, what: str) -> list[Any]:
    """Return ``value`` if it is a list of at most ``longest`` items."""
    if not isinstance(value, list):
        raise ArtifactError(f"{what} must be a list, got {type(value).__name__}")
    if len(value) > longest:
        raise ArtifactError(f"{what} has {len(value)} items, at most {longest} are allowed")
    return value


def word(value: object, allowed: tuple[str, ...], what: str) -> str:
    """Return ``value`` if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ArtifactError(f"{what} must be one of {', '.join(allowed)}, got {reprlib.repr(value)}")
    return value
