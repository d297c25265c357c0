"""Damaged and hostile files: ArtifactError naming the field, and nothing else."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.artifact import ArtifactError, inspect, load_graph, save_graph
from fastcnn.engine.graph import Graph, GraphInput, make_node


def net() -> Graph:
    rng = np.random.default_rng(0)
    weight = np.zeros((20, 400), np.float32)
    weight[:, ::16] = rng.choice(np.linspace(-1, 1, 40), (20, 25))  # even gaps: the sparse form wins
    weights = {
        "fc.weight": weight,
        "fc.bias": rng.normal(size=20).astype(np.float32),
        "codes": np.where(rng.random((10, 20)) < 0.6, 0, rng.integers(1, 9, (10, 20))).astype(np.uint8),
        "book": np.r_[0, np.sort(rng.normal(size=8))].astype(np.float32),
    }
    nodes = [
        make_node("fc", "linear", ["x"], params={"weight": "fc.weight", "bias": "fc.bias"}),
        make_node("act", "clamp", ["fc"], attrs={"min": 0, "max": 6}),
        make_node("out", "codebook_linear", ["act"], params={"codes": "codes", "codebook": "book"}),
    ]
    return Graph(inputs=(GraphInput(name="x", shape=(1, 400)),), nodes=nodes, outputs=("out",), weights=weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("hostile") / "net.fcnn"
    save_graph(path, net(), plan_hint={"isa": "avx2"}, meta={"producer": "test"})
    return path.read_bytes()


def take_apart(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Outer header, inner header, coded weights."""
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    split = 8 + length + outer["header"]["shape"][0]
    return outer, json.loads(zlib.decompress(data[8 + length : split])), data[split:]


def put_together(
    inner: dict[str, Any] | bytes,
    weights: bytes,
    *,
    stamp: dict[str, Any] | str | None = None,
    outer: dict[str, Any] | None = None,
    packed: bytes | None = None,
) -> bytes:
    """A file whose lengths and checksums are true except for the overrides."""
    text = inner if isinstance(inner, bytes) else json.dumps(inner).encode()
    packed = zlib.compress(text) if packed is None else packed
    if not isinstance(stamp, str):
        stamp = json.dumps({"format": 1, "bytes": len(text), "crc32": zlib.crc32(packed), **(stamp or {})})
    n, m = len(packed), len(weights)
    full = {
        "__metadata__": {"fastcnn": stamp},
        "header": {"dtype": "U8", "shape": [n], "data_offsets": [0, n]},
        "weights": {"dtype": "U8", "shape": [m], "data_offsets": [n, n + m]},
        **(outer or {}),
    }
    head = json.dumps(full).encode()
    return struct.pack("<Q", len(head)) + head + packed + weights


def refuse(data: bytes, folder: Path, match: str) -> None:
    path = folder / "case.fcnn"
    path.write_bytes(data)
    for read in (load_graph, inspect):
        with pytest.raises(ArtifactError, match=match):
            read(path)


def test_repair_is_true(whole: bytes, tmp_path: Path) -> None:
    """The helpers make loadable files, so the refusals below are due to the lies alone."""
    _, inner, weights = take_apart(whole)
    (tmp_path / "case.fcnn").write_bytes(put_together(inner, weights))
    assert load_graph(tmp_path / "case.fcnn").graph.to_json() == net().to_json()


def test_cut_at_every_byte(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "case.fcnn"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError):
            load_graph(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ArtifactError, match="its header claims"):
        load_graph(path)


def test_every_flipped_byte_is_noticed(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "case.fcnn"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(ArtifactError):
            load_graph(path)


OUTER: list[tuple[dict[str, Any], str]] = [
    ({"header": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}, "header.dtype must be one of U8"),
    ({"header": {"dtype": "U8", "shape": [4, 1], "data_offsets": [0, 4]}}, "header.shape has 2 items"),
    ({"header": {"dtype": "U8", "shape": [], "data_offsets": [0, 4]}}, "one extent"),
    ({"header": {"dtype": "U8", "shape": [-4], "data_offsets": [0, -4]}}, "header.shape must be in 0"),
    ({"header": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, "header.shape must be an integer"),
    ({"header": {"dtype": "U8", "shape": [4], "data_offsets": [1, 5]}}, r"data_offsets must be \[0, 4\]"),
    ({"header": {"dtype": "U8", "shape": [4], "data_offsets": [0, 5]}}, r"data_offsets must be \[0, 4\]"),
    ({"header": {"dtype": "U8", "shape": [2**70], "data_offsets": [0, 5]}}, "header.shape must be in 0"),
    ({"weights": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, "weights.data_offsets must be"),
    ({"weights": None}, "weights must be an object, got NoneType"),
    ({"extra": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, "must have the fields"),
    ({"__metadata__": {}}, "no .fcnn file"),
    ({"__metadata__": []}, "no .fcnn file"),
    ({"__metadata__": {"fastcnn": 1}}, "stamp must be a string"),
    ({"__metadata__": {"fastcnn": "x" * 2000}}, "2000 characters"),
]


@pytest.mark.parametrize(("override", "match"), OUTER)
def test_container_lies(override: dict[str, Any], match: str, whole: bytes, tmp_path: Path) -> None:
    _, inner, weights = take_apart(whole)
    refuse(put_together(inner, weights, outer=override), tmp_path, match)


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**20 + 1, 2**40, 2**63, 2**64 - 1])
def test_container_length(length: int, whole: bytes, tmp_path: Path) -> None:
    refuse(struct.pack("<Q", length) + whole[8:], tmp_path, f"container header length {length} must be in")


STAMPS: list[tuple[dict[str, Any] | str, str]] = [
    ({"format": 2}, "file has format 2, this fastcnn reads up to 1: upgrade"),
    ({"format": 0}, "stamp.format must be in 1"),
    ({"format": "1"}, "stamp.format must be an integer"),
    ({"crc32": 5}, "header checksum"),
    ({"crc32": -5}, "stamp.crc32 must be in"),
    ({"bytes": 17}, "must inflate to exactly"),
    ({"bytes": 2**24 + 1}, "stamp.bytes must be in"),
    ({"bytes": 2**24}, "must inflate to exactly"),
    ({"more": 1}, "stamp must have the fields"),
    ("[1]", "names no format"),
    ("{", "stamp is not strict JSON"),
    ('{"format":1,"format":1}', "same key twice"),
]


@pytest.mark.parametrize(("stamp", "match"), STAMPS)
def test_stamp_lies(stamp: dict[str, Any] | str, match: str, whole: bytes, tmp_path: Path) -> None:
    _, inner, weights = take_apart(whole)
    refuse(put_together(inner, weights, stamp=stamp), tmp_path, match)


def test_inflation_is_bounded(whole: bytes, tmp_path: Path) -> None:
    _, inner, weights = take_apart(whole)
    bomb = zlib.compress(b" " * (200 << 20), 9)
    refuse(put_together(inner, weights, packed=bomb), tmp_path, "must inflate to exactly")
    refuse(put_together(inner, weights, packed=bomb, stamp={"bytes": 200 << 20}), tmp_path, "stamp.bytes must be in")
    text = json.dumps(inner).encode()
    refuse(put_together(text, weights, packed=zlib.compress(text)[:-3]), tmp_path, "must inflate")
    refuse(put_together(text, weights, packed=zlib.compress(text) + b"x"), tmp_path, "must inflate")
    refuse(put_together(text, weights, packed=b"no deflate"), tmp_path, "does not inflate")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"[" * 100_000, "nested deeper than 32"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (b'"' + b"[" * 100 + b'"', "header must be an object"),
        (b'"\\\\"' + b"[" * 100, "nested deeper than 32"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not strict JSON"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\xff"}', "not strict JSON"),
        ('{"a": 1}'.encode("utf-16"), "not strict JSON"),
        (b"[]", "header must be an object, got list"),
        (b"{}", "must have the fields"),
    ],
)
def test_header_text(text: bytes, match: str, whole: bytes, tmp_path: Path) -> None:
    refuse(put_together(text, take_apart(whole)[2]), tmp_path, match)


def set_at(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change to the inner header: the last argument goes where the others lead."""
    *steps, last, value = path

    def change(inner: dict[str, Any]) -> None:
        holder: Any = inner
        for step in steps:
            holder = holder[step]
        holder[last] = value

    return change


W = ("weights", 0)  # fc.weight: codebook 41, sparse index
FIELDS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (set_at("weights", 1, "key", "fc.weight"), "same key"),
    (set_at(*W, "key", 3), r"weights\[0\].key must be a string"),
    (set_at(*W, "key", "k" * 513), "513 characters"),
    (set_at(*W, "key", "other"), "fc.weight"),
    (set_at(*W, "dtype", "complex64"), r"weights\[0\].dtype must be one of"),
    (set_at(*W, "dtype", "float16"), "planes must have 2 entries"),
    (set_at(*W, "shape", [20, 399]), "fc.weight"),
    (set_at(*W, "shape", [20, -100]), r"weights\[0\].shape must be in"),
    (set_at(*W, "shape", [1] * 9), "9 items"),
    (set_at(*W, "shape", [2**20, 2**20]), "takes more than 4294967296 bytes"),
    (set_at(*W, "shape", [0, 2**32, 2**32]), "takes more than 4294967296 bytes"),
    (set_at(*W, "shape", [30000, 30000]), "more than the limit"),
    (set_at(*W, "bytes", 10), "coded bytes, the file holds"),
    (set_at(*W, "bytes", -1), r"weights\[0\].bytes must be in"),
    (set_at(*W, "crc32", 1), "checksum"),
    (set_at(*W, "code", []), "code must be an object, got list"),
    (set_at(*W, "code", {}), "code.as must be a string"),
    (set_at(*W, "code", {"as": "zip"}), "code.as must be one of raw"),
    (set_at(*W, "code", {"as": "raw"}), "needs 32000 bytes"),
    (set_at(*W, "code", {"as": "raw", "x": 1}), "must have the fields"),
    (set_at(*W, "code", "size", 0), "code.size must be in 1"),
    (set_at(*W, "code", "size", 8001), "code.size must be in 1..8000"),
    (set_at(*W, "code", "book", {"as": "codebook"}), "book.as must be raw or planes, got 'codebook'"),
    (set_at(*W, "code", "book", "order", "random"), "book.order must be one of"),
    (set_at(*W, "code", "book", "planes", []), "book.planes must have 4 entries"),
    (set_at(*W, "code", "book", "planes", 0, {"as": "packed", "bits": 7}), "bits must be 8 for 256 symbols"),
    (set_at(*W, "code", "index", "as", "magic"), "index.as must be one of packed"),
    (set_at(*W, "code", "index", "fill", 41), "index.fill must be in"),
    (set_at(*W, "code", "index", "gap_bits", 13), "index.gap_bits must be in 1..12"),
    (set_at(*W, "code", "index", "pairs", 8001), "index.pairs must be in 0..8000"),
    (set_at(*W, "code", "index", "pairs", 7), "index.gaps"),
    (set_at(*W, "code", "index", "gaps", "bytes", 2**40), "gaps.bytes must be in"),
    (set_at(*W, "code", "index", "gaps", {"as": "sparse"}), "gaps.as must be one of packed, huffman, rans"),
    (set_at(*W, "code", {"as": "symbols", "alphabet": 3, "symbols": {"as": "packed", "bits": 2}}), "only uint8"),
    (set_at("weights", 2, "code", "alphabet", 257), "alphabet must be in 1..256"),
    (set_at("weights", {}), "weights must be a list"),
    (set_at("plan", 3), "plan must be an object or null"),
    (set_at("meta", None), "meta must be an object"),
    (set_at("graph", None), "graph: graph must be an object"),
    (set_at("graph", "nodes", 0, "op", "exec"), "op 'exec' is not known"),
    (set_at("graph", "nodes", 0, "op", "torch"), "graph: node 'fc'"),
    (set_at("graph", "nodes", 0, "inputs", ["nothing"]), "graph: .*'nothing'"),
    (set_at("graph", "nodes", 0, "params", {"weight": "fc.bias"}), "graph: .*rank"),
    (set_at("graph", "nodes", 0, "params", "weight", "absent"), "graph: .*'absent'"),
    (set_at("graph", "nodes", 1, "attrs", "max", "six"), "graph: .*max"),
    (set_at("graph", "nodes", 0, "params", {"weight": "fc.weight"}), "no node names 'fc.bias'"),
    (set_at("graph", "outputs", []), "graph: .*outputs"),
    (set_at("graph", "inputs", 0, "shape", [1, 2**40]), "graph: input 'x'"),
]


@pytest.mark.parametrize(("change", "match"), FIELDS)
def test_a_lie_in_each_field(
    change: Callable[[dict[str, Any]], None], match: str, whole: bytes, tmp_path: Path
) -> None:
    _, inner, weights = take_apart(whole)
    change(inner)
    refuse(put_together(inner, weights), tmp_path, match)


def test_codes_outside_the_codebook(tmp_path: Path) -> None:
    graph = net()
    save_graph(tmp_path / "ok.fcnn", graph)
    _, inner, weights = take_apart((tmp_path / "ok.fcnn").read_bytes())
    entry = next(e for e in inner["weights"] if e["key"] == "codes")
    start = sum(e["bytes"] for e in inner["weights"][: inner["weights"].index(entry)])
    raw = bytes([200] * 200)
    weights = weights[:start] + raw + weights[start + entry["bytes"] :]
    entry |= {"code": {"as": "raw"}, "bytes": 200, "crc32": zlib.crc32(raw)}
    refuse(put_together(inner, weights), tmp_path, "codes reach 200")


def claim(count: int, code: dict[str, Any], data: bytes = b"") -> bytes:
    """A file with one constant of ``count`` float32 values."""
    node = make_node("c", "constant", [], params={"value": "w"})
    inputs = (GraphInput(name="x", shape=(1,)),)
    graph = Graph(inputs=inputs, nodes=[node], outputs=("c",), weights={"w": np.ones(1, np.float32)}).to_json()
    entry = {"key": "w", "dtype": "float32", "shape": [count], "bytes": len(data), "crc32": zlib.crc32(data)}
    return put_together({"graph": graph, "weights": [{**entry, "code": code}], "plan": None, "meta": {}}, data)


def test_a_small_file_may_not_claim_much_memory(tmp_path: Path) -> None:
    ones = struct.pack("<f", 1.0)
    code = {"as": "codebook", "size": 1, "book": {"as": "raw"}, "index": {"as": "packed", "bits": 0}}
    refuse(claim(1 << 28, code, ones), tmp_path, "weights decode to 1073741824 bytes, more than the limit of 67108864")
    path = tmp_path / "modest.fcnn"
    path.write_bytes(claim(1 << 20, code, ones))
    assert np.array_equal(load_graph(path).graph.weights["w"], np.ones(1 << 20, np.float32))
    with pytest.raises(ArtifactError, match=r"more than the limit of 1000; .*raise max_decoded_bytes"):
        load_graph(path, max_decoded_bytes=1000)


def test_memory_error_becomes_artifact_error(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    (tmp_path / "case.fcnn").write_bytes(whole)
    monkeypatch.setattr("fastcnn.artifact.load.decode_array", exhausted)
    with pytest.raises(ArtifactError, match="too little free memory"):
        load_graph(tmp_path / "case.fcnn")


def test_foreign_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "case.fcnn")
    with pytest.raises(ArtifactError, match="a safetensors file, but no"):
        load_graph(tmp_path / "case.fcnn")
