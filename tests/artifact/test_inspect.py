"""What inspect says of a file."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.artifact import ArtifactError, inspect, save_graph
from fastcnn.engine.graph import Graph, GraphInput, make_node
from tests.artifact.nets import lenet_5


def test_numbers(tmp_path: Path) -> None:
    graph = lenet_5(0)
    report = save_graph(tmp_path / "net.fcnn", graph, plan_hint={"isa": "avx2"}, meta={"producer": "test"})
    found = inspect(tmp_path / "net.fcnn")
    assert (found.format, found.nodes, found.plan_hint, found.meta) == (1, 8, True, {"producer": "test"})
    assert found.file_bytes == report.file_bytes
    assert [w.key for w in found.weights] == list(graph.weights)
    for info in found.weights:
        array = graph.weights[info.key]
        assert info.shape == array.shape
        assert info.dtype == "float32"
        assert info.nonzeros == np.count_nonzero(array)
        assert info.distinct == np.unique(array).size
        assert info.dense_bytes == array.nbytes
        assert info.bits_per_weight == pytest.approx(8 * info.file_bytes / array.size)
        assert abs(info.file_bytes - info.theory_bytes) <= 0.02 * info.theory_bytes + 24
    by_key = {w.key: w for w in found.weights}
    assert by_key["fc1.weight"].method == "pruned + shared"
    assert by_key["fc1.bias"].method == "dense"
    assert by_key["fc1.weight"].coding.startswith("codebook")
    assert (by_key["fc1.weight"].node, by_key["fc1.weight"].op, by_key["fc1.weight"].role) == (
        "fc1",
        "linear",
        "weight",
    )
    totals = found.totals
    assert totals["file_bytes"] == totals["header_bytes"] + totals["weight_bytes"]
    assert totals["weight_bytes"] == report.weight_bytes
    assert totals["ratio"] == pytest.approx(sum(w.nbytes for w in graph.weights.values()) / report.file_bytes)


def test_json_document(tmp_path: Path) -> None:
    save_graph(tmp_path / "net.fcnn", lenet_5(0))
    document = json.loads(json.dumps(inspect(tmp_path / "net.fcnn").to_json(), allow_nan=False))
    assert document["totals"]["weights"] == len(document["weights"]) == 8
    assert document["weights"][0]["shape"] == [20, 1, 5, 5]


@pytest.mark.parametrize("rich", [True, False])
def test_table(rich: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(tmp_path / "net.fcnn", lenet_5(0))
    found = inspect(tmp_path / "net.fcnn")
    real = builtins.__import__

    def without_rich(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    if not rich:
        monkeypatch.setattr(builtins, "__import__", without_rich)
    text = str(found)
    assert "net.fcnn: format 1, 8 nodes, 431,080 weight elements" in text
    lines = text.splitlines()
    assert len(lines) == 10
    assert all(len(line) == len(line.encode()) for line in lines)
    row = next(line for line in lines if line.startswith("fc1.weight"))
    assert "500x800" in row
    assert "pruned + shared" in row


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    key = "[red]\x1b[2Jw\nx"
    node = make_node("c", "constant", [], params={"value": key})
    graph = Graph(
        inputs=(GraphInput(name="x", shape=(1, 2)),),
        nodes=[node],
        outputs=("c",),
        weights={key: np.ones(3, np.float32)},
    )
    save_graph(tmp_path / "net.fcnn", graph)
    text = str(inspect(tmp_path / "net.fcnn"))
    assert "[red]?[2Jw?x" in text
    assert "\x1b" not in text


def test_memory_error_becomes_artifact_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    save_graph(tmp_path / "net.fcnn", lenet_5(0))
    monkeypatch.setattr("fastcnn.artifact.inspection.tensor_stats", exhausted)
    with pytest.raises(ArtifactError, match="too little free memory"):
        inspect(tmp_path / "net.fcnn")
