"""Files written by earlier versions keep loading, bit for bit.

``tests/golden/format1.fcnn`` was written by ``tools/fuzz_seeds.py`` and is never written again once that format is
released; a change that cannot read it needs a new format number and a reader for the old one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fastcnn.artifact import inspect, load_graph, save_graph
from tests.artifact.nets import same_bits

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("name", ["format1"])
def test_golden(name: str, tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    weights = load_file(GOLDEN / f"{name}.safetensors")
    artifact = load_graph(GOLDEN / f"{name}.fcnn")
    assert artifact.graph.to_json() == expected["graph"]
    assert artifact.plan_hint == expected["plan_hint"]
    assert artifact.meta == expected["meta"]
    assert artifact.graph.weights.keys() == weights.keys()
    for key, array in weights.items():
        assert same_bits(artifact.graph.weights[key], array), key
    save_graph(tmp_path / "again.fcnn", artifact.graph)
    assert load_graph(tmp_path / "again.fcnn").graph.to_json() == expected["graph"]


def test_golden_file_uses_every_form() -> None:
    codings = " ".join(w.coding for w in inspect(GOLDEN / "format1.fcnn").weights)
    for word in ("raw", "planes", "codebook", "packed", "huffman", "rans", "sparse"):
        assert word in codings
