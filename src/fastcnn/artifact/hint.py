"""The plan hint of a file: made when a net is saved, checked field by field before load follows it.

::

    {"isa": word, "threads": 1..256, "tolerance": 0 < t < 1, "exact": bool,
     "shapes": one list of extents per graph input, the example's,
     "choices": {layer: candidate}, "bands": a list of {"layer": the first, "steps": 2..8, "rows": 1 or more},
     "error": number or null, "graph_crc32": checksum of graph and weights}

Every field may be absent, and fields of later versions are passed over. ``error`` is a claim of whoever wrote the file;
:meth:`PlanHint.claims` says whether it can be about this very net.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastcnn.artifact import fields
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_KEY
from fastcnn.engine.graph.graph import Graph
from fastcnn.engine.graph.schema import MAX_NODES, MAX_SIZE, Shape
from fastcnn.engine.plan.plan import Bands
from fastcnn.engine.plan.slots import LABEL

MAX_THREADS = 256
MAX_STEPS = 8
"""Of those that run together."""
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, kw_only=True)
class PlanHint:
    """A checked hint; None where the file says nothing."""

    isa: str | None = None
    threads: int | None = None
    tolerance: float | None = None
    exact: bool = False
    shapes: tuple[Shape, ...] | None = None
    choices: Mapping[str, str] | None = None
    bands: tuple[Bands, ...] | None = None
    error: float | None = None
    graph_crc32: int | None = None

    def claims(self, graph: Graph, limit: float) -> float | None:
        """Return the error the file claims, or None if it cannot be this net's: measure it then.

        It can be if it is within ``limit``, and if shapes, structure and every weight are those the hint was made for.
        """
        if self.error is None or self.error > limit or self.graph_crc32 is None:
            return None
        if self.shapes != tuple(v.shape for v in graph.inputs) or self.graph_crc32 != graph_crc32(graph):
            return None
        return self.error


def make_hint(
    graph: Graph,
    *,
    isa: str,
    threads: int,
    tolerance: float,
    exact: bool,
    shapes: Sequence[Shape],
    choices: Mapping[str, str],
    bands: Sequence[Bands] = (),
    error: float | None,
) -> dict[str, Any]:
    """Return the hint of a planned net; an error that is no finite number is left out."""
    return {
        "isa": isa,
        "threads": threads,
        "tolerance": tolerance,
        "exact": exact,
        "shapes": [list(shape) for shape in shapes],
        "choices": dict(choices),
        "bands": [asdict(b) for b in bands],
        "error": error if error is not None and math.isfinite(error) else None,
        "graph_crc32": graph_crc32(graph),
    }


def parse_hint(hint: Mapping[str, Any] | None, graph: Graph) -> PlanHint:
    """Check every field of a file's hint against the graph of the file.

    Raises
    ------
    ArtifactError
        Naming the field (``plan.threads`` ...), what it holds and what is allowed.
    """
    given = hint or {}
    checks: dict[str, Callable[[object], Any]] = {
        "isa": lambda v: _matching(v, _WORD, "plan.isa"),
        "threads": lambda v: fields.integer(v, 1, MAX_THREADS, "plan.threads"),
        "tolerance": _tolerance,
        "exact": _exact,
        "shapes": lambda v: _shapes(v, graph),
        "choices": lambda v: _choices(v, graph),
        "bands": lambda v: _bands(v, graph),
        "error": _error,
        "graph_crc32": lambda v: fields.integer(v, 0, 0xFFFFFFFF, "plan.graph_crc32"),
    }
    return PlanHint(**{key: check(given[key]) for key, check in checks.items() if key in given})


def graph_crc32(graph: Graph) -> int:
    """Checksum of structure and weights: what a measured error depends on, apart from the plan."""
    crc = zlib.crc32(json.dumps(graph.to_json(), sort_keys=True).encode())
    for key in dict.fromkeys(key for node in graph.nodes for key in node.params.values()):
        array = np.ascontiguousarray(graph.weights[key])
        crc = zlib.crc32(f"{array.dtype.name}{array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def _matching(value: object, pattern: re.Pattern[str], what: str) -> str:
    word = fields.text(value, 512, what)
    if not pattern.fullmatch(word):
        raise ArtifactError(f"{what} must match {pattern.pattern}, got {reprlib.repr(word)}")
    return word


def _number(value: object, what: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ArtifactError(f"{what} must be a number, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ArtifactError(f"{what} must be in 0..1, got {reprlib.repr(value)}")
    return float(value)


def _tolerance(value: object) -> float:
    tolerance = _number(value, "plan.tolerance")
    if not 0 < tolerance < 1:
        raise ArtifactError(f"plan.tolerance must lie between 0 and 1, got {tolerance}")
    return tolerance


def _exact(value: object) -> bool:
    if not isinstance(value, bool):
        raise ArtifactError(f"plan.exact must be true or false, got {type(value).__name__}")
    return value


def _error(value: object) -> float | None:
    return None if value is None else _number(value, "plan.error")


def _shapes(value: object, graph: Graph) -> tuple[Shape, ...]:
    rows = fields.array(value, len(graph.inputs), "plan.shapes")
    if len(rows) != len(graph.inputs):
        raise ArtifactError(f"plan.shapes has {len(rows)} entries, the graph {len(graph.inputs)} inputs")
    shapes = []
    for i, (row, given) in enumerate(zip(rows, graph.inputs, strict=True)):
        what = f"plan.shapes[{i}]"
        extents = fields.array(row, len(given.shape), what)
        if len(extents) != len(given.shape):
            raise ArtifactError(f"{what} has {len(extents)} extents, input {given.name!r} has {len(given.shape)}")
        shapes.append(tuple(fields.integer(n, 1, MAX_SIZE, what) for n in extents))
    return tuple(shapes)


def _stands_for(layer: str, names: set[str]) -> bool:
    """Whether a plan may speak of a layer: a node, or one of those that plans make of a node, NODE.PART."""
    end = len(layer)
    while end > 0:
        if layer[:end] in names:
            return True
        end = layer.rfind(".", 0, end)
    return False


def _choices(value: object, graph: Graph) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ArtifactError(f"plan.choices must be an object, got {type(value).__name__}")
    if len(value) > MAX_NODES:
        raise ArtifactError(f"plan.choices has {len(value)} entries, at most {MAX_NODES} are allowed")
    layers = {node.name for node in graph.nodes}
    for layer, label in value.items():
        fields.text(layer, MAX_KEY, "a layer of plan.choices")
        if not _stands_for(layer, layers):
            raise ArtifactError(f"plan.choices: {reprlib.repr(layer)} is no layer of this graph")
        _matching(label, LABEL, f"plan.choices[{reprlib.repr(layer)}]")
    return dict(value)


def _bands(value: object, graph: Graph) -> tuple[Bands, ...]:
    layers = {node.name for node in graph.nodes}
    found = []
    for i, given in enumerate(fields.array(value, len(graph.nodes), "plan.bands")):
        what = f"plan.bands[{i}]"
        item = fields.obj(given, {"layer", "steps", "rows"}, what)
        layer = item["layer"]
        if not isinstance(layer, str) or len(layer) > MAX_KEY or not _stands_for(layer, layers):
            raise ArtifactError(f"{what}: {reprlib.repr(layer)} is no layer of this graph")
        steps = fields.integer(item["steps"], 2, MAX_STEPS, f"{what}.steps")
        found.append(Bands(layer=layer, steps=steps, rows=fields.integer(item["rows"], 1, MAX_SIZE, f"{what}.rows")))
    return tuple(found)
