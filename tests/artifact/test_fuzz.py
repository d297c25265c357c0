"""Short runs of the fuzzer's two stages; the long ones are ``make fuzz`` and the slow tests here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fuzz(*arguments: str) -> dict[str, object]:
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "fuzz_artifact.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    result: dict[str, object] = json.loads(run.stdout)
    return result


def test_only_artifact_errors() -> None:
    result = fuzz("--cases", "2000", "--seed", "1")
    assert result["cases"] == 2000
    assert result["failed"] == 0
    outcomes = result["outcomes"]
    assert isinstance(outcomes, dict)
    assert set(outcomes) == {"ArtifactError", "loaded"}
    assert outcomes["loaded"] > 50  # mutations that change nothing vital reach the end of the reader
    assert len(result["mutations"]) >= 10  # type: ignore[arg-type]


def test_load_and_call() -> None:
    """Hostile nets and hints through load, planning, packing and one call: refused in words, or right."""
    result = fuzz("--stage", "load", "--cases", "330", "--seed", "1")
    assert result["cases"] == 330
    assert result["failed"] == 0
    outcomes = result["outcomes"]
    assert isinstance(outcomes, dict)
    assert set(outcomes) <= {"refused by the reader", "refused by the planner", "planned", "called"}
    assert outcomes["called"] > 60  # most of the odd nets are nets all the same
    assert outcomes["refused by the reader"] > 30
    assert len(result["mutations"]) >= 9  # type: ignore[arg-type]


@pytest.mark.slow
def test_load_and_call_long() -> None:
    result = fuzz("--stage", "load", "--cases", "6000", "--seed", "2")
    assert result["failed"] == 0


PLANTED = {
    "reader": "def broken(*arguments):\n    raise KeyError('planted')\nload.graph_from_json = broken\n",
    "load": (
        "import fastcnn.engine.run.net as net\n"
        "def broken(*arguments):\n    raise KeyError('planted')\nnet.CompiledNet.__repr__ = broken\n"
    ),
}


@pytest.mark.parametrize("stage", sorted(PLANTED))
def test_the_fuzzer_notices_another_exception(stage: str, tmp_path: Path) -> None:
    """Break the code once and watch the fuzzer go red."""
    (tmp_path / "sitecustomize.py").write_text("import fastcnn.artifact.load as load\n" + PLANTED[stage])
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "fuzz_artifact.py"), "--stage", stage, "--cases", "60"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert result["failed"] > 0
    assert result["outcomes"]["KeyError"] == result["failed"]


def test_the_fuzzer_survives_the_death_of_a_case(tmp_path: Path) -> None:
    """A process killed by a case is that case's failure; all the others still run."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import fastcnn.artifact.load as load\n"
        "whole = load.graph_from_json\n"
        "def deadly(structure, weights):\n"
        "    if len(structure['outputs']) == 5:\n"
        "        os.abort()\n"
        "    return whole(structure, weights)\n"
        "load.graph_from_json = deadly\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "fuzz_artifact.py"), "--stage", "load", "--cases", "40", "--seed", "4"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert result["cases"] == 40
    assert 1 <= result["failed"] == result["outcomes"]["died"] < 20
    assert "died" in result["failures"][0]["error"]


@pytest.mark.slow
def test_line_coverage_of_the_reader() -> None:
    result = fuzz("--cases", "5000", "--coverage")
    coverage = result["coverage"]
    assert isinstance(coverage, dict)
    assert coverage["percent"] >= 90, coverage


@pytest.mark.slow
def test_native_decoders_under_sanitizers(tmp_path: Path) -> None:
    """native/codec/test.cpp: round trips and damaged streams with AddressSanitizer and UBSan."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler found")
    program = tmp_path / "codec_test"
    sources = sorted(str(path) for path in (ROOT / "native" / "codec").glob("*.cpp"))
    flags = ["-std=c++20", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([compiler, *flags, f"-I{ROOT / 'native'}", *sources, "-o", str(program)], check=True, timeout=600)
    run = subprocess.run([str(program), "2000"], capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.rstrip().endswith("ok")
