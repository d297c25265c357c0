"""Writing a graph to a .fcnn file."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.artifact import container, header
from fastcnn.artifact.encode import encode_array
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_HEADER
from fastcnn.artifact.patterns import Array
from fastcnn.engine.graph import Graph, graph_from_json


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What :func:`save_graph` wrote.

    ``dense_bytes`` is what the weights take in memory as the graph holds them (codes as codes), ``weight_bytes`` what
    they take in the file, ``header_bytes`` all the rest of the file.
    """

    path: Path
    file_bytes: int
    header_bytes: int
    weight_bytes: int
    dense_bytes: int

    @property
    def ratio(self) -> float:
        """Bytes of the graph's weights per byte of file."""
        return self.dense_bytes / self.file_bytes


def save_graph(
    path: str | os.PathLike[str],
    graph: Graph,
    *,
    plan_hint: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> FileReport:
    """Write a graph as one ``.fcnn`` file, every weight coded without loss in its smallest form.

    The same graph always gives the same bytes. The file is written aside and put in place at the end, so a failure
    leaves nothing behind.

    Parameters
    ----------
    path : path-like
        The folder must exist.
    graph : Graph
        Without torch steps. Weights that no node names are left out.
    plan_hint : dict, optional
        JSON-able; handed back by :func:`load_graph` for the planner to judge.
    meta : dict, optional
        JSON-able; producer, tolerance and the like.

    Returns
    -------
    FileReport

    Raises
    ------
    ArtifactError
        If the file cannot be written or plan_hint or meta is not JSON-able.
    GraphError
        If the graph is malformed or has a torch step.
    """
    target = Path(path)
    if target.is_dir():
        raise ArtifactError(f"{target} is a folder: give the name of a file")
    if not target.parent.is_dir():
        raise ArtifactError(f"cannot write {target}: folder {target.parent} does not exist")
    structure = graph.to_json()
    used = {key for node in graph.nodes for key in node.params.values()}
    weights = {key: array for key, array in graph.weights.items() if key in used}
    graph_from_json(structure, weights)  # what load_graph would refuse must not be written

    entries: list[dict[str, Any]] = []
    chunks: list[Array] = []
    for key, array in weights.items():
        code, parts = encode_array(array)
        entries.append(_entry(key, array, code, parts))
        chunks += parts
    text = header.build(structure, entries, plan_hint, meta)
    if len(text) > MAX_HEADER:
        raise ArtifactError(f"the header takes {len(text)} bytes; at most {MAX_HEADER} can be stored")
    size = container.write(target, text, chunks)
    coded = sum(entry["bytes"] for entry in entries)
    return FileReport(
        path=target,
        file_bytes=size,
        header_bytes=size - coded,
        weight_bytes=coded,
        dense_bytes=sum(int(array.nbytes) for array in weights.values()),
    )


def _entry(key: str, array: Array, code: dict[str, Any], parts: list[Array]) -> dict[str, Any]:
    crc = 0
    for part in parts:
        crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return {
        "key": key,
        "dtype": array.dtype.name,
        "shape": [int(n) for n in array.shape],
        "bytes": sum(int(part.size) for part in parts),
        "crc32": crc,
        "code": code,
    }
