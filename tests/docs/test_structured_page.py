"""The page of structured layers' figures is that of the records in the repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastcnn.methods.registry import list_methods

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "structured_page.py"
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("structured_*.json"))


def test_the_page_is_that_of_the_records() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--check"], check=False)
    assert done.returncode == 0, "run  python tools/structured_page.py"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_are_of_committed_code(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    runs = [record] if "commit" in record else record["runs"]
    commits = [run["commit"] for run in runs]
    assert all(len(commit) == 40 for commit in commits), commits
    assert all(run["host"]["cpu"] for run in runs)


def test_every_way_is_a_method() -> None:
    """What the records of trainings call a way is the word of a method, as the command line has it."""
    names = {method.name for method in list_methods()}
    path = ROOT / "benchmarks" / "results" / "structured_dense_layers.json"
    if not path.exists():
        pytest.skip("the record is not there yet")
    assert {gate["way"] for gate in json.loads(path.read_text(encoding="utf-8"))["gates"]} <= names
