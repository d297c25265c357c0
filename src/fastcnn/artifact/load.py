"""Reading a .fcnn file: every field is checked before a byte is used, and only ArtifactError comes out."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcnn.artifact import container, header
from fastcnn.artifact.decode import Bytes, decode_array
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import default_decoded_limit
from fastcnn.artifact.patterns import Array
from fastcnn.engine.graph import Graph, GraphError, graph_from_json


@dataclass(frozen=True)
class Artifact:
    """What a file holds: the graph, the plan it was saved with (unchecked: the planner judges it), its metadata."""

    graph: Graph
    plan_hint: dict[str, Any] | None
    meta: dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """An :class:`Artifact` with the file's own bookkeeping beside it."""

    artifact: Artifact
    header: header.Header
    format: int
    file_bytes: int


def load_graph(path: str | os.PathLike[str], *, max_decoded_bytes: int | None = None) -> Artifact:
    """Read a graph from a ``.fcnn`` file.

    Needs numpy only: no torch, no pickle, no code from the file.

    Parameters
    ----------
    path : path-like
    max_decoded_bytes : int, optional
        Most bytes all weights together may decode to. Default: 4096 times the file's size, at least 64 MiB, at most
        the machine's memory. One weight is never more than 4 GiB.

    Returns
    -------
    Artifact

    Raises
    ------
    ArtifactError
        For a file that cannot be read, is damaged, hostile or too new; the message names the field.
    """
    return read_contents(path, max_decoded_bytes).artifact


def read_contents(path: str | os.PathLike[str], max_decoded_bytes: int | None = None) -> Contents:
    """As :func:`load_graph`, keeping how each weight is coded."""
    try:
        return _read(Path(path), max_decoded_bytes)
    except MemoryError:
        raise ArtifactError(f"{path}: the machine has too little free memory for what the file claims") from None


def _read(path: Path, max_decoded_bytes: int | None) -> Contents:
    outer = container.read(path)
    limit = default_decoded_limit(outer.file_bytes) if max_decoded_bytes is None else max_decoded_bytes
    inner = header.parse(outer.header, int(outer.weights.size), limit)
    data = Bytes(outer.weights)
    weights = {record.key: _decode(record, data) for record in inner.weights}
    try:
        graph = graph_from_json(inner.graph, weights)
    except GraphError as error:
        raise ArtifactError(f"graph: {error}") from None
    unused = set(weights) - {key for node in graph.nodes for key in node.params.values()}
    if unused:
        raise ArtifactError(f"weights: no node names {sorted(unused)[0][:80]!r}")
    artifact = Artifact(graph=graph, plan_hint=inner.plan_hint, meta=inner.meta)
    return Contents(artifact=artifact, header=inner, format=outer.format, file_bytes=outer.file_bytes)


def _decode(record: header.WeightRecord, data: Bytes) -> Array:
    coded = data.take(record.coded_bytes, record.where)
    if zlib.crc32(coded.data) != record.crc32:
        raise ArtifactError(f"{record.where}: checksum (crc32) does not match: the file is damaged")
    own = Bytes(coded)
    array = decode_array(record.code, own, record.dtype, record.shape, record.where)
    if own.left:
        raise ArtifactError(f"{record.where}: {own.left} coded bytes are left over")
    return array
