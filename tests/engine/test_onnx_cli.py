"""The command line and the public verbs with a .onnx file as MODEL, with and without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

import fastcnn
from fastcnn.benchmarking.onnx_file import exact_outputs_of_file
from fastcnn.cli.errors import BAD_INPUT, DONE, GOAL_MISSED
from fastcnn.cli.main import run_cli
from fastcnn.engine.onnx_import import import_onnx
from tests.models.onnx_build import model, run_onnxruntime, single, write
from tests.reference.interpreter import run_graph


def digits_net(batch: int | str = "N") -> ModelProto:
    """Ten scores for an image of 8 x 8; its reshape holds a stated batch as exporters write it."""
    rng = np.random.default_rng(9)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], name="act"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "t"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "m", "c"], ["y"], name="head", transB=1),
    ]
    target = np.array([0 if isinstance(batch, str) else batch, 128])
    constants = {"w": weight(8, 1, 3, 3), "b": weight(8), "m": weight(10, 128), "c": weight(10), "t": target}
    return model(nodes, {"x": (batch, 1, 8, 8)}, constants=constants)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(digits_net(), tmp_path, "net.onnx")
    write(digits_net(1), tmp_path, "one.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """``cli(code, ...)`` runs a command with --json and returns the document."""

    def call(code: int, *arguments: str) -> Any:
        assert run_cli([*arguments, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("name", ["net", "one"])
def test_compile_inspect_run(name: str, here: Path, cli: Any) -> None:
    found = cli(DONE, "compile", f"{name}.onnx", "--out", "net.fcnn", "--threads", "1", "--no-tune")
    assert found["shape"] == [1, 1, 8, 8]
    assert 0 < found["error"] < 1e-6
    assert found["torch_error"] is None
    assert [entry["key"] for entry in cli(DONE, "inspect", "net.fcnn")["weights"]][:2] == ["w", "b"]
    x = np.random.default_rng(1).standard_normal((5, 1, 8, 8)).astype(np.float32)
    expected = np.concatenate([run_onnxruntime(digits_net(1), {"x": picture[None]})[0] for picture in x])
    assert np.abs(fastcnn.load("net.fcnn")(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    ran = cli(DONE, "run", f"{name}.onnx", "digits", "--limit", "20", "--batch", "6", "--threads", "1")
    assert ran["labels"] == cli(DONE, "run", "net.fcnn", "digits", "--limit", "20", "--threads", "1")["labels"]


def test_the_goal_of_compile(here: Path, cli: Any) -> None:
    cli(GOAL_MISSED, "compile", "net.onnx", "--threads", "1", "--no-tune", "--max-error", "1e-12")


def test_bench(here: Path, cli: Any) -> None:
    base = ("--shape", "2,1,8,8", "--threads", "1", "--rounds", "1", "--seconds", "0.05")
    (net,) = cli(DONE, "bench", "net.onnx", *base, "--against", "onnxruntime", "--goal", "net:onnxruntime=1e9")["nets"]
    ours, theirs = net["engines"]
    assert (ours["engine"], theirs["engine"]) == ("fastcnn", "onnxruntime")
    assert 0 < ours["error"] < 1e-6
    assert 0 < theirs["error"] < 1e-6
    (alone,) = cli(DONE, "bench", "one.onnx", *base, "--against", "none")["nets"]
    assert 0 < alone["engines"][0]["error"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "no.onnx"), "MODEL 'no.onnx' does not exist"),
        (("compile", "folder.onnx"), "MODEL 'folder.onnx' is a folder"),
        (("compile", "net.onnx", "--weights", "w.pt"), "--weights 'w.pt' with a .onnx file, which holds its weights"),
        (("compile", "net.onnx", "--shape", "1,3,8,8"), "shape (1, 3, 8, 8), but the file states 1 on axis 1"),
        (("compile", "conv3d.onnx"), "Conv3d and other 3-d operations are not supported"),
        (("compile", "bad.onnx"), "is not an ONNX file, or a damaged one"),
        (("bench", "net.onnx", "--against", "torch"), "is an ONNX file, which torch cannot read: choose from"),
        (("bench", "no.onnx"), "MODEL 'no.onnx' does not exist"),
        (("inspect", "net.onnx"), "MODEL 'net.onnx' is not a .fcnn file"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "folder.onnx").mkdir()
    (here / "bad.onnx").write_text("no protobuf")
    write(single("Conv", (1, 2, 4, 4, 4), np.ones((3, 2, 2, 2, 2), np.float32)), here, "conv3d.onnx")
    assert run_cli(list(arguments)) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error


def test_no_torch_is_needed(here: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
import fastcnn
net = fastcnn.compile("net.onnx", np.zeros((3, 1, 8, 8), np.float32), threads=1, tune=False)
assert net(np.ones((2, 1, 8, 8), np.float32)).shape == (2, 10)
net.save("net.fcnn")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=here, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_float64_outputs_of_a_file(here: Path) -> None:
    """The evaluator agrees with the interpreter to float64's last places, at a stated batch too."""
    x = np.random.default_rng(2).standard_normal((2, 3, 1, 8, 8)).astype(np.float32)
    for name in ("net.onnx", "one.onnx"):
        exact = exact_outputs_of_file(here / name, x)
        graph = import_onnx(here / name)
        expected = np.stack([run_graph(graph, {"x": batch})[0] for batch in x])
        assert exact.shape == expected.shape == (2, 3, 10)
        assert np.abs(exact - expected).max() <= 1e-12 * np.abs(expected).max()


def test_the_guide_names_every_operation() -> None:
    from fastcnn.engine.onnx_import.registry import HANDLERS

    text = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "onnx.md").read_text(encoding="utf-8")
    table = text.partition("| | operations |")[2].partition("\n\n")[0]
    assert set(HANDLERS) == set(re.findall(r"`(\w+)`", table))
