"""Saving and loading whole graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import fastcnn.artifact.container as container
from fastcnn.artifact import ArtifactError, load_graph, save_graph
from fastcnn.engine.graph import Graph, GraphError, make_node
from tests.artifact.nets import lenet_5, lenet_300_100, same_bits, squeezenet


def assert_same_graph(a: Graph, b: Graph) -> None:
    assert a.to_json() == b.to_json()
    assert a.weights.keys() == b.weights.keys()
    for key in a.weights:
        assert same_bits(a.weights[key], b.weights[key]), key


@pytest.mark.parametrize("build", [lenet_300_100, lenet_5])
def test_round_trip_and_ratio(build: object, tmp_path: Path) -> None:
    graph = build(0)  # type: ignore[operator]
    plan, meta = {"isa": "avx2", "steps": [1, 2.5, None]}, {"producer": "test", "note": "ü “x”"}
    report = save_graph(tmp_path / "net.fcnn", graph, plan_hint=plan, meta=meta)
    artifact = load_graph(tmp_path / "net.fcnn")
    assert_same_graph(graph, artifact.graph)
    assert artifact.plan_hint == plan
    assert artifact.meta == meta
    assert report.file_bytes == (tmp_path / "net.fcnn").stat().st_size == report.header_bytes + report.weight_bytes
    assert report.dense_bytes == sum(w.nbytes for w in graph.weights.values())
    assert report.ratio > 38


@pytest.mark.data
def test_squeezenet_in_560_kilobytes(data_dir: Path, tmp_path: Path) -> None:
    """The pruned and clustered SqueezeNet: every weight bit-equal, the whole file at most 560,000 bytes."""
    graph = squeezenet(load_file(data_dir / "nets" / "imagenet_squeezenet1_0_dc.safetensors"))
    report = save_graph(tmp_path / "net.fcnn", graph, meta={"producer": "fastcnn", "tolerance": "fp32"})
    assert report.file_bytes <= 560_000
    assert_same_graph(graph, load_graph(tmp_path / "net.fcnn").graph)


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    graph = lenet_300_100(1)
    save_graph(tmp_path / "a.fcnn", graph)
    save_graph(tmp_path / "b.fcnn", graph.copy())
    assert (tmp_path / "a.fcnn").read_bytes() == (tmp_path / "b.fcnn").read_bytes()
    save_graph(tmp_path / "c.fcnn", load_graph(tmp_path / "a.fcnn").graph)
    assert (tmp_path / "a.fcnn").read_bytes() == (tmp_path / "c.fcnn").read_bytes()


def test_safetensors_opens_the_file(tmp_path: Path) -> None:
    save_graph(tmp_path / "net.fcnn", lenet_5(2))
    with safetensors.safe_open(tmp_path / "net.fcnn", "numpy") as file:
        assert sorted(file.keys()) == ["header", "weights"]
        assert all(file.get_tensor(key).dtype == np.uint8 for key in file.keys())  # noqa: SIM118
        assert list(file.metadata()) == ["fastcnn"]


def test_weights_no_node_names_are_left_out(tmp_path: Path) -> None:
    graph = lenet_300_100(0)
    graph.weights["orphan"] = np.zeros(1000, np.float32)
    save_graph(tmp_path / "net.fcnn", graph)
    assert "orphan" not in load_graph(tmp_path / "net.fcnn").graph.weights


def test_graph_rules_hold_before_anything_is_written(tmp_path: Path) -> None:
    graph = lenet_300_100(0)
    graph.weights["fc1.weight"] = np.full((300, 784), np.nan, np.float32)
    with pytest.raises(GraphError, match="NaN"):
        save_graph(tmp_path / "net.fcnn", graph)
    graph = lenet_300_100(0)
    graph.nodes.append(make_node("odd", "torch", ["fc3"], attrs={"target": "aten.odd", "key": "k"}))
    with pytest.raises(GraphError, match=r"'odd'.*runs in torch"):
        save_graph(tmp_path / "net.fcnn", graph)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"meta": {"x": float("nan")}}, "meta cannot be written as JSON"),
        ({"meta": {"x": object()}}, "meta cannot be written as JSON"),
        ({"meta": [1]}, "meta must be a dict or None, got list"),
        ({"plan_hint": "fast"}, "plan_hint must be a dict or None, got str"),
        ({"plan_hint": {"x": "\ud800"}}, "plan_hint cannot be written as JSON"),
        ({"plan_hint": {"x": eval("[" * 40 + "]" * 40)}}, "plan_hint is nested deeper"),
    ],
)
def test_bad_hints(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        save_graph(tmp_path / "net.fcnn", lenet_300_100(0), **arguments)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_unwritable_places(tmp_path: Path) -> None:
    graph = lenet_300_100(0)
    with pytest.raises(ArtifactError, match="does not exist"):
        save_graph(tmp_path / "absent" / "net.fcnn", graph)
    with pytest.raises(ArtifactError, match="is a folder"):
        save_graph(tmp_path, graph)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="does not exist"):
        save_graph(tmp_path / "file" / "net.fcnn", graph)
    with pytest.raises(ArtifactError, match="cannot write"):
        save_graph(tmp_path / "nul\0byte", graph)
    if os.path.isdir("/proc/self/fd"):  # nobody, not even root, can write there
        with pytest.raises(ArtifactError, match=r"cannot write .*choose a folder"):
            save_graph("/proc/self/net.fcnn", graph)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_interrupted_writing_leaves_the_old_file_alone(
    error: type[BaseException] | BaseException, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "net.fcnn"
    save_graph(target, lenet_300_100(0))
    before = target.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(container.os, step, fail)
    expected = ArtifactError if isinstance(error, OSError) else error
    with pytest.raises(expected) as caught:  # type: ignore[arg-type]
        save_graph(target, lenet_300_100(1))
    monkeypatch.undo()
    if expected is ArtifactError:
        assert "No space left on device" in str(caught.value)
    assert os.listdir(tmp_path) == ["net.fcnn"]
    assert target.read_bytes() == before


def test_unreadable_places(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.fcnn", tmp_path, "", "nul\0byte"):
        with pytest.raises(ArtifactError, match="cannot read"):
            load_graph(path)


def test_needs_no_torch(tmp_path: Path) -> None:
    save_graph(tmp_path / "net.fcnn", lenet_300_100(0))
    program = (
        "import sys; from fastcnn.artifact import inspect, load_graph;"
        f"load_graph({str(tmp_path / 'net.fcnn')!r}); print(inspect({str(tmp_path / 'net.fcnn')!r}));"
        "assert not {'torch', 'scipy', 'constriction'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
