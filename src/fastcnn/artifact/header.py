"""The inner header: graph structure, how each weight is coded, plan hint, metadata.

::

    {"graph":   Graph.to_json(),
     "weights": [{"key": ..., "dtype": ..., "shape": [...], "bytes": coded size, "crc32": of those bytes, "code": ...}],
     "plan":    object or null,
     "meta":    object}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn.artifact import fields, strict_json
from fastcnn.artifact.decode import check_layout
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_KEY, MAX_WEIGHTS


@dataclass(frozen=True)
class WeightRecord:
    """One weight as the header describes it; ``code`` is still unchecked."""

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int
    coded_bytes: int
    crc32: int
    code: object
    where: str


@dataclass(frozen=True)
class Header:
    """The inner header after its own fields have been checked; ``graph`` is still unchecked."""

    graph: Any
    weights: tuple[WeightRecord, ...]
    plan_hint: dict[str, Any] | None
    meta: dict[str, Any]


def build(
    graph: Mapping[str, Any], weights: list[dict[str, Any]], plan_hint: object | None, meta: object | None
) -> bytes:
    """Return the header's JSON; ArtifactError if plan or meta are no JSON objects."""
    for name, value in (("plan_hint", plan_hint), ("meta", meta)):
        if value is not None and not isinstance(value, dict):
            raise ArtifactError(f"{name} must be a dict or None, got {type(value).__name__}")
        strict_json.dumps(value, name)
    return strict_json.dumps(
        {"graph": graph, "weights": weights, "plan": plan_hint, "meta": meta or {}}, "graph structure"
    )


def parse(data: bytes, weight_bytes: int, max_decoded_bytes: int) -> Header:
    """Check everything but the graph and the codes, whose turn comes when they are used.

    The coded sizes must add up to exactly ``weight_bytes``, the decoded sizes to at most ``max_decoded_bytes``.
    """
    top = fields.obj(strict_json.loads(data, "header"), {"graph", "weights", "plan", "meta"}, "header")
    records = tuple(
        _record(item, f"weights[{i}]") for i, item in enumerate(fields.array(top["weights"], MAX_WEIGHTS, "weights"))
    )
    if len({record.key for record in records}) != len(records):
        raise ArtifactError("weights: two entries have the same key")
    coded = sum(record.coded_bytes for record in records)
    if coded != weight_bytes:
        raise ArtifactError(f"weights claim {coded} coded bytes, the file holds {weight_bytes}")
    decoded = sum(record.nbytes for record in records)
    if decoded > max_decoded_bytes:
        raise ArtifactError(
            f"weights decode to {decoded} bytes, more than the limit of {max_decoded_bytes}; "
            "if the file is trusted, raise max_decoded_bytes"
        )
    plan, meta = top["plan"], top["meta"]
    if plan is not None and not isinstance(plan, dict):
        raise ArtifactError(f"plan must be an object or null, got {type(plan).__name__}")
    if not isinstance(meta, dict):
        raise ArtifactError(f"meta must be an object, got {type(meta).__name__}")
    return Header(graph=top["graph"], weights=records, plan_hint=plan, meta=meta)


def _record(item: object, what: str) -> WeightRecord:
    entry = fields.obj(item, {"key", "dtype", "shape", "bytes", "crc32", "code"}, what)
    key = fields.text(entry["key"], MAX_KEY, f"{what}.key")
    dtype, shape, nbytes = check_layout(entry["dtype"], entry["shape"], what)
    return WeightRecord(
        key=key,
        dtype=dtype,
        shape=shape,
        nbytes=nbytes,
        coded_bytes=fields.integer(entry["bytes"], 0, 1 << 62, f"{what}.bytes"),
        crc32=fields.integer(entry["crc32"], 0, 0xFFFFFFFF, f"{what}.crc32"),
        code=entry["code"],
        where=f"{what} ({key[:80]!r}).code",
    )
