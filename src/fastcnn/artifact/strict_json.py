"""JSON for untrusted bytes: bounded depth, no duplicate keys, no NaN, no infinity, no lone surrogates."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_DEPTH

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def dumps(value: object, what: str) -> bytes:
    """Compact UTF-8 JSON of ``value``; ArtifactError naming ``what`` if it is not JSON-able or not finite."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} cannot be written as JSON: {error}") from None
    loads(text, what)  # what this reader would refuse must not be written
    return text


def loads(data: bytes, what: str) -> Any:
    """Parse ``data``; ArtifactError naming ``what`` for anything that is not strict JSON."""
    if _SURROGATE.search(data):
        raise ArtifactError(f"{what}: surrogate escapes are not allowed")
    _check_depth(data, what)
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
        )
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ArtifactError(f"{what} is not strict JSON: {error}") from None


def _check_depth(data: bytes, what: str) -> None:
    """Refuse deep nesting before the recursive parser sees it."""
    plain = np.frombuffer(data.replace(b"\\\\", b"__").replace(b'\\"', b"__"), dtype=np.uint8)
    outside = (np.cumsum(plain == ord('"'), dtype=np.int32) & 1) == 0
    steps = ((plain == ord("[")) | (plain == ord("{"))).astype(np.int8)
    steps -= (plain == ord("]")) | (plain == ord("}"))
    depth = np.cumsum(steps * outside, dtype=np.int32)
    if depth.size and int(depth.max()) > MAX_DEPTH:
        raise ArtifactError(f"{what} is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names the same key twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
