"""Good input: compile, run, inspect, compress, bench, methods, with their JSON and their goals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn.cli.errors import BAD_INPUT, DONE, GOAL_MISSED
from fastcnn.cli.main import run_cli

SOURCE = """
import torch
from torch import nn

def net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )
"""
RECIPE = """
version: 1
name: quick
stages:
  - prune: {sparsity: 0.5, rounds: 1, epochs: 1}
  - share: {clusters: 16, conv_clusters: 16}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "command_nets.py").write_text(SOURCE)
    (tmp_path / "quick.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "command_nets", raising=False)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """``cli(code, ...)`` runs a command with --json and returns the document."""

    def call(code: int, *arguments: str) -> Any:
        assert run_cli([*arguments, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


COMPILE = ("compile", "command_nets:net", "--shape", "1,1,8,8", "--threads", "1")


def test_compile_run_inspect(here: Path, cli: Any) -> None:
    from fastcnn.data import Preprocess, load_data

    found = cli(DONE, *COMPILE, "--out", "net.fcnn")
    assert found["threads"] == 1
    assert found["isa"]
    assert found["plan"]
    assert found["file"]["bytes"] == (here / "net.fcnn").stat().st_size
    ran = cli(DONE, "run", "net.fcnn", "digits", "--limit", "50", "--batch", "7", "--threads", "1", "--out", "r.json")
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    model: nn.Module = namespace["net"]().eval()
    data = load_data("digits").limit(50)
    with torch.inference_mode():
        batches = [model(torch.from_numpy(x)) for x, _ in data.batches(Preprocess(), batch_size=7)]
    wanted = torch.cat(batches).argmax(1).numpy()
    assert ran["labels"] == wanted.tolist()
    assert ran["top1_percent"] == pytest.approx(100 * float((wanted == data.labels).mean()))
    assert ran["top5_percent"] >= ran["top1_percent"]
    assert ran["ms_per_picture"] > 0
    assert json.loads((here / "r.json").read_text()) == ran
    direct = cli(DONE, "run", "command_nets:net", "digits", "--limit", "50", "--threads", "1")
    assert direct["labels"] == ran["labels"]
    inspected = cli(DONE, "inspect", "net.fcnn")
    assert "0.weight" in json.dumps(inspected)


def test_text_output_is_for_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*COMPILE, "--out", "net.fcnn"]) == DONE
    out, err = capsys.readouterr()
    assert out.startswith("layer")
    assert "error against float64" in out
    assert "wrote net.fcnn" in err
    assert run_cli(["run", "net.fcnn", "digits", "--limit", "20"]) == DONE
    out, err = capsys.readouterr()
    assert out.startswith("20 pictures")
    assert "top-1" in out
    assert err == ""


def test_goals_give_exit_code_one(here: Path, cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cli(DONE, *COMPILE, "--out", "net.fcnn", "--max-error", "1e-4")
    assert "plan" in cli(GOAL_MISSED, *COMPILE, "--max-error", "1e-30")
    cli(DONE, "run", "net.fcnn", "digits", "--limit", "20", "--min-accuracy", "0")
    assert run_cli(["run", "net.fcnn", "digits", "--limit", "20", "--min-accuracy", "101"]) == GOAL_MISSED
    assert "the goal is 101" in capsys.readouterr().err


def test_a_run_of_two_shapes_of_batch(here: Path, cli: Any) -> None:
    np.savez(here / "d.npz", x=np.zeros((5, 8, 8), np.uint8))
    found = cli(DONE, "run", "command_nets:net", "npz:d.npz", "--batch", "4", "--threads", "1")
    assert len(set(found["labels"])) == 1
    assert found["top1_percent"] is None


def test_run_wants_a_classifier(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "command_nets.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(1, 3, 3)\n")
    sys.modules.pop("command_nets", None)
    assert run_cli(["run", "command_nets:net", "digits", "--limit", "2"]) == BAD_INPUT
    assert "an output of shape (1, 3, 6, 6)" in capsys.readouterr().err


def test_compress(here: Path, cli: Any) -> None:
    arguments = ("compress", "command_nets:net", "--recipe", "quick.yaml", "--data", "digits", "--out", "small.fcnn")
    found = cli(DONE, *arguments, "--threads", "1")
    assert found["recipe"] == "quick"
    assert [stage["stage"] for stage in found["stages"]] == ["prune", "share"]
    size = (here / "small.fcnn").stat().st_size
    assert found["file"]["bytes"] == size
    assert found["ratio"] == pytest.approx(found["dense_bytes"] / size)
    parameters = 8 * 9 + 8 + 16 + 16 * 8 * 9 + 16 + 2560 + 10
    assert found["dense_bytes"] == 4 * parameters
    ran = cli(DONE, "run", "small.fcnn", "digits", "--threads", "1")
    assert ran["top1_percent"] == pytest.approx(found["accuracy_after"], abs=0.5)
    cli(GOAL_MISSED, *arguments, "--threads", "1", "--min-ratio", "1e6")


def test_bench_against_a_peer(here: Path, cli: Any) -> None:
    base = ("bench", "command_nets:net", "--shape", "1,1,8,8", "--threads", "1", "--rounds", "1", "--seconds", "0.05")
    found = cli(GOAL_MISSED, *base, "--against", "onnxruntime", "--goal", "onnxruntime=1e-9", "--out", "b.json")
    engines = {engine["engine"]: engine for engine in found["nets"][0]["engines"]}
    assert set(engines) == {"fastcnn", "onnxruntime"}
    assert engines["onnxruntime"]["ratio"] > 0
    assert engines["fastcnn"]["error"] <= 1e-4
    assert json.loads((here / "b.json").read_text())["nets"] == found["nets"]
    cli(DONE, *COMPILE, "--out", "net.fcnn")
    alone = cli(DONE, "bench", "net.fcnn", *base[2:])
    assert alone["nets"][0]["engines"][0]["median_ms"] > 0


def test_goals_are_read(here: Path) -> None:
    from fastcnn.cli.bench import parse_goal

    goal = parse_goal("resnet18:onnxruntime=0.9")
    assert (goal.net, goal.engine, goal.ratio) == ("resnet18", "onnxruntime", 0.9)
    assert parse_goal("torch=2").net is None


def test_a_goal_for_one_net_leaves_the_others_alone() -> None:
    from fastcnn.benchmarking import BenchResult, EngineResult, NetResult
    from fastcnn.cli.bench import parse_goal

    def net(name: str, ratio: float | None) -> NetResult:
        ours = EngineResult(engine="fastcnn", block_ms=(1.0,), error=1e-6, calls=1)
        peer = EngineResult(engine="onnxruntime", block_ms=(2.0,), error=1e-6, ratio=ratio, calls=1)
        return NetResult(net=name, shape=(1, 3, 224, 224), engines=(ours, peer))

    nets = (net("vgg16", 0.9), net("resnet50", 1.05), net("alexnet", None))
    result = BenchResult(nets=nets, settings={}, host={}, commit="", date="")
    assert parse_goal("vgg16:onnxruntime=0.9").missed(result) == []
    assert parse_goal("vgg16:onnxruntime=0.89").missed(result) == [
        "vgg16: 0.900 of onnxruntime's time, the goal is 0.89"
    ]
    assert parse_goal("resnet50:onnxruntime=1.1").missed(result) == []
    assert parse_goal("alexnet:onnxruntime=9").missed(result) == ["alexnet: no ratio against onnxruntime"]
    assert parse_goal("vgg16:mnn=9").missed(result) == ["vgg16: no ratio against mnn"]
    assert len(parse_goal("onnxruntime=0.95").missed(result)) == 2


def test_make_bench_has_the_goals_of_the_foundation() -> None:
    """Each net of the suite has one, against an engine that the target times, at the threads they are stated for."""
    from fastcnn.benchmarking import SUITES
    from fastcnn.cli.bench import parse_goal

    lines = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    goals = [parse_goal(text) for text in lines.partition("FOUNDATION_GOALS := ")[2].partition("\n")[0].split()]
    assert {goal.net: goal.ratio for goal in goals} == {
        "vgg16": 0.9, "resnet18": 0.9, "resnet50": 1.1, "mobilenetv2": 1.4, "alexnet": 0.9,
    }  # fmt: skip
    assert {goal.net for goal in goals} == set(SUITES["foundation"])
    assert {goal.engine for goal in goals} == {"onnxruntime"}
    recipe = lines.partition("\nbench: ")[2].partition("\n\n")[0]
    assert "--suite foundation" in recipe
    assert "--threads 2" in recipe
    assert "onnxruntime" in recipe.partition("--against ")[2].partition(" ")[0]
    assert "$(addprefix --goal ,$(FOUNDATION_GOALS))" in recipe


def test_methods(cli: Any) -> None:
    names = {method["name"] for method in cli(DONE, "methods")["methods"]}
    assert {"magnitude", "kmeans"} <= names


def test_doctor(cli: Any) -> None:
    assert cli(DONE, "doctor")["healthy"]
