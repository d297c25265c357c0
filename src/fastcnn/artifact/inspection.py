"""What a file holds, weight by weight: form, bits, bytes in theory and in the file."""

from __future__ import annotations

import dataclasses
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.load import read_contents
from fastcnn.artifact.patterns import Array
from fastcnn.artifact.predict import predict_bytes, tensor_stats
from fastcnn.engine.graph import Graph, Node, binary, int8


@dataclass(frozen=True, kw_only=True)
class WeightInfo:
    """One weight of a file.

    ``method`` says what its values show: ``dense``, ``pruned`` (at least a tenth zeros), ``shared`` (few distinct
    values), both, ``codes``, ``thresholds``, or ``signs`` (``3 planes of signs``). ``shape`` is the array's. ``count``,
    ``nonzeros`` and ``distinct`` are of its elements, but of planes of signs of the weights they stand for, eight in a
    byte. ``dense_bytes`` is what those take as float32, 0 for what a dense layer does not have (codebooks, the scales
    of layers of few bits, thresholds); ``theory_bytes`` comes from :func:`fastcnn.artifact.predict_bytes`,
    ``file_bytes`` is what the file spends.
    """

    key: str
    node: str
    op: str
    role: str
    method: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nonzeros: int
    distinct: int | None
    coding: str
    dense_bytes: int
    theory_bytes: int
    file_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file per weight; 0 for an empty array."""
        return 8 * self.file_bytes / self.count if self.count else 0.0


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The whole file; ``print`` it for a table, ``to_json`` for machines."""

    path: Path
    format: int
    file_bytes: int
    header_bytes: int
    weights: tuple[WeightInfo, ...]
    nodes: int
    plan_hint: bool
    meta: dict[str, Any]

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over the weights, and the whole file's ratio to float32."""
        dense = sum(w.dense_bytes for w in self.weights)
        count = sum(w.count for w in self.weights)
        coded = sum(w.file_bytes for w in self.weights)
        return {
            "weights": len(self.weights),
            "count": count,
            "nonzeros": sum(w.nonzeros for w in self.weights),
            "dense_bytes": dense,
            "theory_bytes": sum(w.theory_bytes for w in self.weights),
            "weight_bytes": coded,
            "header_bytes": self.header_bytes,
            "file_bytes": self.file_bytes,
            "bits_per_weight": 8 * coded / count if count else 0.0,
            "ratio": dense / self.file_bytes,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able objects."""
        return {
            "path": str(self.path),
            "format": self.format,
            "nodes": self.nodes,
            "plan_hint": self.plan_hint,
            "meta": self.meta,
            "totals": self.totals,
            "weights": [
                {**dataclasses.asdict(w), "shape": list(w.shape), "bits_per_weight": w.bits_per_weight}
                for w in self.weights
            ],
        }

    def __str__(self) -> str:
        heads = ("weight", "op", "method", "shape", "nonzeros", "values", "coding", "bits", "theory B", "file B")
        rows = [_row(w) for w in self.weights]
        totals = self.totals
        caption = (
            f"{self.path.name}: format {self.format}, {self.nodes} nodes, {totals['count']:,} weight elements, "
            f"{totals['file_bytes']:,} bytes (header {totals['header_bytes']:,}, weights {totals['weight_bytes']:,}, "
            f"theory {totals['theory_bytes']:,}), {totals['ratio']:.2f} times smaller than float32"
        )
        try:
            return f"{_rich_table(heads, rows)}{caption}"
        except ImportError:
            return "\n".join([_plain_table(heads, rows), caption])


def inspect(path: str | os.PathLike[str], *, max_decoded_bytes: int | None = None) -> Inspection:
    """Say what a ``.fcnn`` file holds; reads and checks all of it.

    Parameters
    ----------
    path : path-like
    max_decoded_bytes : int, optional
        As in :func:`fastcnn.artifact.load_graph`.

    Returns
    -------
    Inspection

    Raises
    ------
    ArtifactError
        As :func:`fastcnn.artifact.load_graph`.
    """
    try:
        return _inspect(Path(path), max_decoded_bytes)
    except MemoryError:
        raise ArtifactError(f"{path}: the machine has too little free memory to measure the weights") from None


def _inspect(path: Path, max_decoded_bytes: int | None) -> Inspection:
    contents = read_contents(path, max_decoded_bytes)
    graph = contents.artifact.graph
    users = _users(graph)
    weights = []
    for record in contents.header.weights:
        array = graph.weights[record.key]
        stats = tensor_stats(array)
        node, role = users[record.key]
        count, nonzeros, distinct = stats.count, stats.nonzeros, stats.distinct
        method = _method(role, count, nonzeros, distinct)
        if node.op in binary.BINARY and role == "bits":
            count, nonzeros, distinct = _count_signs(node, array)
            planes = len(node.attrs["planes"])
            method = "signs" if planes == 1 else f"{planes} planes of signs"
        weights.append(
            WeightInfo(
                key=record.key,
                node=node.source or node.name,
                op=node.op,
                role=role,
                method=method,
                dtype=record.dtype.name,
                shape=record.shape,
                count=count,
                nonzeros=nonzeros,
                distinct=distinct,
                coding=describe(record.code),
                dense_bytes=0 if _has_no_dense_form(node, role) else 4 * count,
                theory_bytes=predict_bytes(stats),
                file_bytes=record.coded_bytes,
            )
        )
    coded = sum(w.file_bytes for w in weights)
    return Inspection(
        path=path,
        format=contents.format,
        file_bytes=contents.file_bytes,
        header_bytes=contents.file_bytes - coded,
        weights=tuple(weights),
        nodes=len(graph.nodes),
        plan_hint=contents.artifact.plan_hint is not None,
        meta=contents.artifact.meta,
    )


def describe(code: Any) -> str:
    """Short words for a checked description: ``codebook 256 (planes) + sparse k=4 (rans, rans)``."""
    form = code["as"]
    if form == "codebook":
        return f"codebook {code['size']} ({code['book']['as']}) + {describe(code['index'])}"
    if form == "planes":
        return "planes (" + ", ".join(describe(plane) for plane in code["planes"]) + ")"
    if form == "symbols":
        return describe(code["symbols"])
    if form == "sparse":
        return f"sparse k={code['gap_bits']} ({describe(code['gaps'])}, {describe(code['values'])})"
    if form == "packed":
        return f"packed {code['bits']}"
    return str(form)


def _users(graph: Graph) -> dict[str, tuple[Node, str]]:
    """First node of every weight, and the weight's role there."""
    users: dict[str, tuple[Node, str]] = {}
    for node in graph.nodes:
        for role, key in node.params.items():
            users.setdefault(key, (node, role))
    return users


def _has_no_dense_form(node: Node, role: str) -> bool:
    few_bits = node.op in binary.BINARY or node.op in int8.INT8
    return role == "codebook" or (few_bits and role in ("scale", "thresholds"))


_AT_ONCE = 1 << 20
"""Weights that are unpacked together."""


def _count_signs(node: Node, bits: Array) -> tuple[int, int, int]:
    """Weights, weights that are not 0, and distinct values, of planes of signs."""
    planes, length = len(node.attrs["planes"]), binary.fan_in(node)
    rows = bits.reshape(planes, -1, bits.shape[1])
    outputs, step = rows.shape[1], max(1, _AT_ONCE // length)
    nonzeros, values = 0, set[float]()
    for first in range(0, outputs, step):
        part = rows[:, first : first + step]
        weight = binary.unpack(node, part.reshape(-1, part.shape[2]))
        nonzeros += int(np.count_nonzero(weight))
        values.update(np.unique(weight).tolist())
    return outputs * length, nonzeros, len(values)


def _method(role: str, count: int, nonzeros: int, distinct: int | None) -> str:
    if role in ("codes", "codebook", "thresholds"):
        return role
    words = []
    if 10 * nonzeros <= 9 * count:
        words.append("pruned")
    if distinct is not None and 4 * distinct <= count and distinct <= 1024:
        words.append("shared")
    return " + ".join(words) or "dense"


def _row(w: WeightInfo) -> tuple[str, ...]:
    return (
        w.key,
        w.op,
        w.method,
        "x".join(map(str, w.shape)) or "scalar",
        f"{w.nonzeros:,} ({w.nonzeros / max(w.count, 1):.1%})",
        "many" if w.distinct is None else str(w.distinct),
        w.coding,
        f"{w.bits_per_weight:.2f}",
        f"{w.theory_bytes:,}",
        f"{w.file_bytes:,}",
    )


_WORDS = (0, 1, 2, 6)
"""Columns of words; the others hold sizes and numbers and stand right-aligned."""


def _rich_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i in _WORDS else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))  # Text: names from a file are not markup
    out = io.StringIO()
    width = sum(max(len(_printable(row[i])) for row in [heads, *rows]) + 2 for i in range(len(heads)))
    Console(file=out, width=width, color_system=None, highlight=False).print(table)
    return out.getvalue()


def _plain_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [tuple(_printable(cell) for cell in row) for row in [heads, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(n) if i in _WORDS else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _printable(text: str) -> str:
    """Text without control characters: names come from a file."""
    return "".join(c if c.isprintable() else "?" for c in text[:80])
