"""The page of structured layers' figures is that of the records in the repository."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastcnn.methods.registry import list_methods
from fastcnn.reproduction.structured import conv_net, dense_layers

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


@pytest.mark.parametrize("name", ["dense_layers", "conv_net"])
def test_gates_are_what_the_trainings_came_to(name: str) -> None:
    """The record's gates, worked out again from its trainings, all of them met."""
    path = ROOT / "benchmarks" / "results" / f"structured_{name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    if name == "dense_layers":
        found = dense_layers.summary(record["runs"], list(dense_layers.HIDDEN), dense_layers.SEEDS)
    else:
        found = conv_net.summary(record["runs"], conv_net.SEEDS)
        assert all(run["ranks"] == record["ranks"]["ranks"] for run in record["runs"] if run["name"] == "tucker")
    assert json.loads(json.dumps(found)) == {key: record[key] for key in ("passed", "gates")}
    assert record["passed"]


def test_every_way_is_a_method() -> None:
    """What the records of trainings call a way is the word of a method, as the command line has it."""
    names = {method.name for method in list_methods()}
    path = ROOT / "benchmarks" / "results" / "structured_dense_layers.json"
    if not path.exists():
        pytest.skip("the record is not there yet")
    assert {gate["way"] for gate in json.loads(path.read_text(encoding="utf-8"))["gates"]} <= names


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structured_page", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spread(mean: float, sd: float | None = None) -> dict[str, Any]:
    return {"values": [mean] * (1 if sd is None else 3), "mean": mean, "sd": sd}


def test_trainings_are_shown_beside_their_goals(tool: ModuleType) -> None:
    """One row for each gate, met or missed; of layers with a dense net of equal size also who is ahead."""
    gate = {"smaller": 128.0, "accuracy": spread(90.0, 0.125), "drop": 0.5, "max_drop": 1.0, "seeds": 3}
    equal = {"accuracy": spread(80.0, 0.5), "ahead": "first"}
    record = {
        "gates": [
            {"net": "conv", "way": "circulant", "passed": True, "equal_size": equal, **gate},
            {"net": "mlp", "way": "acdc", "passed": False, **gate},
        ],
        "runs": [{"settings": {"epochs": 7}}],
    }
    text = tool.dense_layers(record)
    assert "| conv | circulant | 128x | 90.00 ± 0.12 | 0.50 | 1 | met | 80.00 ± 0.50 | structured |" in text
    assert "| mlp | acdc | 128x | 90.00 ± 0.12 | 0.50 | 1 | **missed** |  |  |" in text
    assert "after\n7 epochs, mean and standard deviation over 3 seeds" in text


def test_fine_tuned_nets_are_shown_beside_the_dense_one(tool: ModuleType) -> None:
    gate = {
        "untrained": spread(84.0),
        "accuracy": spread(85.5),
        "dense_accuracy": spread(86.0),
        "same_answers": spread(95.0),
        "dense_same_answers": spread(96.0),
        "max_drop": 1.0,
    }
    record = {
        "gates": [
            {"way": "svd", "fewer": 3.5, "drop": 0.58, "drop_is": "percent", "passed": True, **gate},
            {"way": "scheme-2", "fewer": 2.5, "drop": 0.5, "drop_is": "points", "passed": False, **gate}
            | {"accuracy": spread(85.5, 0.2)},
        ],
        "runs": [
            {"name": name, "seed": seed, "accuracy": 86.0 - lost * (seed + 1), "settings": {"epochs": 6}}
            for name, lost in (("dense", 0.0), ("tucker", 0.5))
            for seed in (0, 1)
        ],
        "ranks": {"speedup": 1.1},
    }
    text = tool.conv_net(record)
    assert "| svd | 3.50x | parameters | 84.00 | 85.50 | 86.00 | 95.0 (96.0) | 0.58 % | 1 | met |" in text
    assert "| scheme-2 | 2.50x | multiply-adds | 84.00 | 85.50 ± 0.20 | 86.00 |" in text
    assert "3 seeds where a spread is given" in " ".join(text.split())
    assert "runs 1.1 times as fast" in text
    assert "Tucker-2 loses 0.50 and 1.00 points" in text


def test_sections_stand_in_one_order_and_only_with_their_records(tool: ModuleType) -> None:
    assert tool.page({}).strip() == tool.INTRODUCTION.strip()
    records = tool.read()
    text = tool.page(records)
    heads = [text.index(f"structured_{name}.json") for name in tool.SECTIONS if name in records]
    assert heads == sorted(heads)
