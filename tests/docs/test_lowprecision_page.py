"""The page of few bits is that of the records in the repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "lowprecision_page.py"
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("lowprecision_*.json"))


def test_the_page_is_that_of_the_records() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--check"], check=False)
    assert done.returncode == 0, "run  python tools/lowprecision_page.py"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_are_of_committed_code(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    runs = [record] if "commit" in record else record["runs"]
    assert all(len(run["commit"]) == 40 for run in runs)
    assert all(run["host"]["cpu"] for run in runs)
