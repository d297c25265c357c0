"""``fastcnn export``: what it writes, prints, and refuses."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastcnn as fc
from fastcnn.cli.errors import BAD_INPUT, DONE
from fastcnn.cli.main import run_cli
from fastcnn.engine.program import include_dir, library_path
from tests.capi.cases import CASES, inputs_of
from tests.capi.library import Net
from tests.engine.nets import ISAS, compiled

SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export_nets.py").write_text(SOURCE)
    compiled(CASES["shuffle"](), ISAS[0]).save("net.fcnn")
    return tmp_path


def test_a_file_becomes_a_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["export", "net.fcnn", "--out", "net.fcp", "--threads", "1", "--json"]) == DONE
    data = json.loads(capsys.readouterr().out)
    assert data["bytes"] == (here / "net.fcp").stat().st_size
    assert data["threads"] == 1
    assert data["inputs"] == {"x0": [2, 8, 6, 6], "x1": [2, 8]}
    inputs = inputs_of(CASES["shuffle"]())
    expected = fc.load("net.fcnn", threads=1)(*inputs)
    for got, y in zip(Net(here / "net.fcp").run(*inputs), expected, strict=True):
        assert np.array_equal(got, y)


def test_other_shapes_and_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["export", "net.fcnn", "--out", "net.fcp", "--shape", "3,8,6,6", "--shape", "3,8"]) == DONE
    assert "x0 (3, 8, 6, 6), x1 (3, 8) -> " in capsys.readouterr().out
    assert Net(here / "net.fcp").inputs == {"x0": (3, 8, 6, 6), "x1": (3, 8)}


def test_a_torch_model_becomes_a_program(here: Path) -> None:
    arguments = ["export", "export_nets:net", "--out", "net.fcp", "--shape", "1,3,9,9", "--tolerance", "exact"]
    assert run_cli(arguments) == DONE
    program = Net(here / "net.fcp")
    assert list(program.outputs.values()) == [(1, 4, 7, 7)]
    assert program.info.tolerance == 2e-6


def test_c_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["export", "--c-flags"]) == DONE
    words = capsys.readouterr().out.split()
    assert words[:3] == [f"-I{include_dir()}", f"-L{library_path().parent}", "-lfastcnn"]
    assert run_cli(["export", "--c-flags", "--json"]) == DONE
    data = json.loads(capsys.readouterr().out)
    assert data == {"include_dir": str(include_dir()), "library": str(library_path()), "flags": " ".join(words)}


def test_c_flags_of_a_path_with_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "it's my folder"
    copied = root / "lib" / library_path().name
    copied.parent.mkdir(parents=True)
    copied.touch()
    monkeypatch.setattr("fastcnn.engine.program.library._root", lambda: root)
    assert run_cli(["export", "--c-flags"]) == DONE
    printed = capsys.readouterr().out
    wanted = [f"-I{root}/include", f"-L{root}/lib", "-lfastcnn", f"-Wl,-rpath,{root}/lib"]
    assert shlex.split(printed) == wanted
    shown = subprocess.run(["sh", "-c", f"printf '%s\\n' {printed}"], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing"),
        (["net.fcnn"], "--out is missing"),
        (["net.fcnn", "--out", "net.bin"], "must end in .fcp"),
        (["none.fcnn", "--out", "net.fcp"], "does not exist"),
        (["net.fcnn", "--out", "net.fcp", "--shape", "2,8"], "--shape is given 1 times, the net has 2 inputs"),
        (["net.fcnn", "--out", "net.fcp", "--shape", "2,8,6,6", "--shape", "2,9"], "expects 8 features"),
        (["net.fcnn", "--out", "net.fcp", "--plan", "best"], "--plan 'best' is not known"),
        (["net.fcnn", "--out", "net.fcp", "--weights", "w.pt"], "which holds its weights"),
        (["net.fcnn", "--out", "net.fcp", "--threads", "0"], "--threads 0"),
        (["net.fcnn", "--out", "net.fcp", "--tolerance", "2"], "--tolerance '2' is not known"),
        (["export_nets:net", "--out", "net.fcp", "--shape", "1,3", "--shape", "1,3"], "--shape is given twice"),
    ],
)
def test_bad_input(arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["export", *arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error
    assert not (here / "net.fcp").exists()


def test_no_torch_is_imported(here: Path) -> None:
    code = (
        "import sys; from fastcnn.cli.main import run_cli; "
        "code = run_cli(['export', 'net.fcnn', '--out', 'net.fcp']); sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
    assert (here / "net.fcp").exists()
