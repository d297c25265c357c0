"""The program as its own process: a clean stdout, Ctrl-C, and life without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastcnn.artifact import save_graph
from fastcnn.cli.main import run_cli
from fastcnn.engine.graph import Graph, GraphInput, Node

Run = Callable[..., "subprocess.CompletedProcess[str]"]

NO_TORCH = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def program(tmp_path: Path) -> Run:
    """``program("doctor", "--json")`` runs it in ``tmp_path``; ``torch=False`` takes torch away."""

    def run(*arguments: str, torch: bool = True) -> subprocess.CompletedProcess[str]:
        code = "from fastcnn.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code if torch else NO_TORCH + code, *arguments],
            cwd=tmp_path,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def _environment() -> dict[str, str]:
    path = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small classifier of 8x8 pictures, saved without torch."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((10, 256)).astype(np.float32),
    }
    conv = {"stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    graph = Graph(
        inputs=(GraphInput(name="x", shape=(1, 1, 8, 8)),),
        nodes=[
            Node(name="conv", op="conv2d", inputs=("x",), params={"weight": "w"}, attrs=conv),
            Node(name="act", op="relu", inputs=("conv",)),
            Node(name="flat", op="flatten", inputs=("act",), attrs={"start_dim": 1, "end_dim": 3}),
            Node(name="fc", op="linear", inputs=("flat",), params={"weight": "v"}),
        ],
        outputs=("fc",),
        weights=weights,
    )
    path = tmp_path / "net.fcnn"
    save_graph(path, graph)
    return path


def test_without_torch_a_net_runs_and_is_inspected(program: Run, saved: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=pictures, y=np.zeros(5, np.int64))
    inspected = program("inspect", "net.fcnn", "--json", torch=False)
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)
    done = program("run", "net.fcnn", "npz:d.npz", "--json", torch=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["labels"] == _labels(saved, pictures)
    assert found["top1_percent"] == pytest.approx(100 * found["labels"].count(0) / 5)


def _labels(saved: Path, pictures: np.ndarray) -> list[int]:
    """The same net in plain float64 loops."""
    from fastcnn.artifact import load_graph

    weights = load_graph(saved).graph.weights
    w, v = (weights[key].astype(np.float64) for key in ("w", "v"))
    labels = []
    for picture in pictures:
        padded = np.pad(picture / 255.0, 1)
        maps = np.zeros((4, 8, 8))
        for c in range(4):
            for i in range(8):
                for j in range(8):
                    maps[c, i, j] = max(0.0, float((padded[i : i + 3, j : j + 3] * w[c, 0]).sum()))
        labels.append(int((v @ maps.ravel()).argmax()))
    return labels


def test_without_torch_the_rest_works_or_names_the_extra(program: Run) -> None:
    doctor = program("doctor", "--json", torch=False)
    assert doctor.returncode == 0, doctor.stderr
    assert json.loads(doctor.stdout)["healthy"]
    for arguments in (("methods",), ("compile", "a:b"), ("demo",)):
        done = program(*arguments, torch=False)
        assert done.returncode == 2
        assert 'pip install "fastcnn[' in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_but_json_on_stdout(program: Run, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("import os\nos.write(1, b'native noise')\nprint('python noise')\nNet = 3\n")
    done = program("compile", "noisy:Net", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"].startswith("MODEL 'noisy:Net' is a int")
    assert "native noise" in done.stderr
    assert "python noise" in done.stderr


def test_help_and_version(program: Run, capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("demo", "compile", "compress", "run", "bench", "export", "inspect", "methods", "doctor")
    top = program("--help")
    assert top.returncode == 0
    assert all(command in top.stdout for command in commands)
    for command in commands:
        assert run_cli([command, "--help"]) == 0
        assert "--json" in capsys.readouterr().out
    assert program("--version").stdout.startswith("fastcnn ")
    assert program().returncode == 2


def test_a_reader_that_leaves_is_no_error(program: Run) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from fastcnn.cli.main import main; main()"
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-c", code, "doctor"],
            env=_environment(),
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr.lower()


NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "mine.py").write_text(NET)
    arguments = ["compress", "mine:net", "--recipe", "deep-compression", "--data", "digits", "--out", "small.fcnn"]
    # A job of a non-interactive shell inherits an ignored SIGINT; a user at a terminal never does.
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = restore + "from fastcnn.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, *arguments],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if line.startswith("recipe deep-compression"):
                break
        time.sleep(0.5)
        assert process.poll() is None, "it ended before it could be interrupted"
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
        assert process.stdout.read() == ""
    assert "error: interrupted" in rest
    assert "Traceback" not in rest
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == ["mine.py"]
