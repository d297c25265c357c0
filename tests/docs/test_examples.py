"""The examples run, and what they print is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"
BLOCK_TORCH = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def run(folder: Path, *words: str, success: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "FASTCNN_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode == 0) == success, done.stderr[-3000:]
    return done.stdout if success else done.stderr


def test_compile(folder: Path) -> None:
    printed = run(folder, str(EXAMPLES / "compile_a_net.py"))
    error = re.search(r"fastcnn\s+error against float64: (\S+)", printed)
    assert error is not None
    assert float(error[1]) <= 1e-4
    assert "plan (tuned)" in printed
    assert re.search(r"fastcnn\s+[\d.]+ ms, \d+ threads", printed)


def test_compress_then_run_without_torch(folder: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: make test installs it")
    printed = run(folder, str(EXAMPLES / "compress_digits.py"), "digits.fcnn")
    accuracy = re.search(r"accuracy ([\d.]+) % before, ([\d.]+) % after", printed)
    assert accuracy is not None
    before, after = map(float, accuracy.groups())
    assert before >= 90
    assert after >= before - 5
    size = re.search(r"bytes ([\d,]+) before, ([\d,]+) after", printed)
    assert size is not None
    dense, small = (int(number.replace(",", "")) for number in size.groups())
    assert small == (folder / "digits.fcnn").stat().st_size
    assert dense >= 10 * small

    printed = run(folder, "-c", BLOCK_TORCH, str(EXAMPLES / "run_without_torch.py"), "digits.fcnn")
    assert "8 x (1, 8, 8) -> (8, 10)" in printed
    assert "torch loaded: False" in printed


def test_a_foreign_file_is_explained(folder: Path) -> None:
    (folder / "foreign.fcnn").write_bytes(b"no net at all, but long enough to be read as one")
    said = run(folder, str(EXAMPLES / "run_without_torch.py"), "foreign.fcnn", success=False)
    assert said.startswith("foreign.fcnn: ")
    assert "Traceback" not in said


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "compile_a_net.py",
        "compress_digits.py",
        "run_without_torch.py",
    }
