"""Figures in the pages come from somewhere: the README's table, Winograd's matrices."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fastcnn import _native
from fastcnn.benchmarking import BenchResult, Cell, EngineResult, NetResult, Row, RowsResult
from fastcnn.methods.transforms.winograd import Matrix, WinogradMatrices, winograd_matrices
from tests.docs.pages import ROOT, blocks

TOOL = ROOT / "tools" / "readme_table.py"
RESULT = ROOT / "benchmarks" / "results" / "foundation.json"
RESULTS = {"foundation": (RESULT, "make bench"), "exact": (RESULT.with_name("exact.json"), "make bench-exact")}


def run_tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def result() -> dict[str, Any]:
    """A benchmark as `fastcnn bench --out` writes it."""
    ours = EngineResult(engine="fastcnn", version="0.1.0", block_ms=(20.0, 21.0, 22.0), error=3.2e-6, calls=400)
    torch = EngineResult(
        engine="torch", version="2.13", block_ms=(40.0, 42.0, 44.0), error=1e-6, ratio=0.5, calls=200
    )  # fmt: skip
    broken = EngineResult(engine="ncnn", failure="no such operator")
    nets = (
        NetResult(net="vgg16", shape=(1, 3, 224, 224), engines=(ours, torch, broken), isa="avx2"),
        NetResult(net="alexnet", shape=(1, 3, 224, 224), engines=(ours, torch), isa="avx2"),
    )
    settings = {"shape": [1, 3, 224, 224], "threads": 2, "rounds": 3, "seconds": 3.0, "tolerance": "fp32"}
    bench = BenchResult(
        nets=nets, settings=settings, host={"cpu": "A CPU"}, commit="0123456789abcdef", date="2026-01-02T03:04:05"
    )
    made: dict[str, Any] = json.loads(bench.dumps())
    return made


@pytest.mark.parametrize("name", RESULTS)
def test_the_readme_shows_the_measured_table(name: str) -> None:
    """With a result in the repository the README must show that one; without, no figures at all."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    between = readme.partition(f"<!-- table:{name} -->")[2].partition("<!-- /table -->")[0]
    measured, command = RESULTS[name]
    if measured.exists():
        assert run_tool(measured, "--check").returncode == 0, f"run  python tools/readme_table.py {measured}"
    else:
        assert between.strip() == "" or (f"`{command}`" in between and " ms" not in between)


def test_the_tool_writes_the_table(result: dict[str, Any], tmp_path: Path) -> None:
    readme, source = tmp_path / "README.md", tmp_path / "result.json"
    readme.write_text("above\n<!-- table:foundation -->\nold\n<!-- /table -->\nbelow\n", encoding="utf-8")
    source.write_text(json.dumps(result), encoding="utf-8")
    assert run_tool(source, "--readme", readme, "--check").returncode == 1
    assert run_tool(source, "--readme", readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("above\n<!-- table:foundation -->\n| net | fastcnn | torch | ncnn |\n|---|---:|---:|---:|\n")
    assert "| vgg16 | 21.0 ms<br>3e-06 | 42.0 ms (0.50)<br>1e-06 | failed |\n" in text
    assert "| alexnet | 21.0 ms<br>3e-06 | 42.0 ms (0.50)<br>1e-06 |  |\n" in text
    for fact in ("A CPU (avx2)", "2 threads", "torch 2.13", "2026-01-02", "0123456789", "largest spread 10%"):
        assert fact in text
    assert text.endswith("\n<!-- /table -->\nbelow\n")
    assert run_tool(source, "--readme", readme, "--check").returncode == 0


@pytest.fixture
def rows_result() -> dict[str, Any]:
    """Two rows, one of them left out, of a suite as `fastcnn bench --suite exact --out` writes it."""

    def cell(net: str, ratio: float, goal: float) -> Cell:
        ours = EngineResult(engine="fastcnn", block_ms=(20.0, 21.0, 22.0), error=3.2e-6)
        peers = [
            EngineResult(engine="ncnn", version="1.0", block_ms=(40.0, 40.0, 44.0), error=1e-6, ratio=ratio),
            EngineResult(engine="torch", version="2.13", block_ms=(80.0,), error=1e-6, ratio=ratio / 2),
        ]
        found = NetResult(net=net, shape=(1, 3, 224, 224), engines=(ours, *peers), isa="avx2")
        settings = {"shape": [1, 3, 224, 224], "threads": 2, "rounds": 3, "seconds": 3.0}
        return Cell(
            row="batch1", net=net, goal=goal, max_error=1e-4, result=found, failure="", commit="0123456789abcdef",
            date="2026-01-02T03:04:05", settings=settings,
        )  # fmt: skip

    rows = (
        Row(name="batch1", title="batch 1", peers=("ncnn",), goals={}),
        Row(name="avx2", title="held to AVX2", peers=("ncnn",), goals={}),
    )
    made = RowsResult(
        suite="exact", rows=rows, nets=("vgg16", "alexnet", "resnet18"), host={"cpu": "A CPU"},
        cells=(cell("vgg16", 0.52, 0.6), cell("alexnet", 0.71, 0.7)), skipped={"avx2": "it has no more"},
    )  # fmt: skip
    document: dict[str, Any] = json.loads(made.dumps())
    return document


def test_the_tool_writes_the_rows_of_a_suite(rows_result: dict[str, Any], tmp_path: Path) -> None:
    readme, source = tmp_path / "README.md", tmp_path / "result.json"
    other = "<!-- table:foundation -->\nkept\n<!-- /table -->\n"
    readme.write_text(f"{other}<!-- table:exact -->\nold\n<!-- /table -->\nbelow\n", encoding="utf-8")
    source.write_text(json.dumps(rows_result), encoding="utf-8")
    assert run_tool(source, "--readme", readme).returncode == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(
        f"{other}<!-- table:exact -->\n| our time / the best peer's | vgg16 | alexnet | resnet18 |\n"
    )
    assert "| batch 1 | **0.52** ≤ 0.6 ncnn<br>21.0 / 40.0 ms, ±5% / ±5%<br>3e-06 / 1e-06 | **0.71** (goal 0.7)" in text
    assert "| held to AVX2 |" not in text
    for fact in (
        "Not measured here: held to AVX2 (it has no more).",
        "A CPU (avx2)",
        "2 threads",
        "ncnn 1.0",
        "3 rounds",
    ):
        assert fact in text
    assert text.endswith("\n<!-- /table -->\nbelow\n")
    assert run_tool(source, "--readme", readme, "--check").returncode == 0
    source.write_text(json.dumps({**rows_result, "cells": []}), encoding="utf-8")
    assert "nothing is measured" in run_tool(source, "--readme", readme).stderr


def test_the_tool_refuses_what_is_no_benchmark(result: dict[str, Any], tmp_path: Path) -> None:
    readme, source = tmp_path / "README.md", tmp_path / "result.json"
    text = "<!-- table:foundation -->\n<!-- /table -->\n"
    readme.write_text(text, encoding="utf-8")
    failed = copy.deepcopy(result)
    failed["nets"][0]["engines"][0] |= {"median_ms": None, "failure": "it died"}
    for document, said in (("{", "error"), ('{"nets": 3}', "fastcnn bench --out"), (json.dumps(failed), "it died")):
        source.write_text(document, encoding="utf-8")
        done = run_tool(source, "--readme", readme)
        assert done.returncode == 2
        assert said in done.stderr
        assert readme.read_text(encoding="utf-8") == text
    source.write_text(json.dumps(result), encoding="utf-8")
    readme.write_text("no markers", encoding="utf-8")
    assert "once each" in run_tool(source, "--readme", readme).stderr


def shown(label: str, matrix: Matrix) -> str:
    """A matrix as the page shows it."""
    rows = [[str(value) for value in row] for row in matrix]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["[ " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " ]" for row in rows]
    return f"{label} = " + f"\n{' ' * 6}".join(lines)


SHOWN = {
    (2, 3): "A^T G B^T", (4, 3): "A^T G B^T", (6, 3): "A^T G B^T", (2, 5): "A^T G", (4, 5): "A^T G", (2, 7): "A^T G",
    (4, 7): "A^T B^T",
}  # fmt: skip
"""Matrices on the page: B^T is that of the form of 3 taps with the same tile; G of tiles of 10 has long fractions."""


def native_form(m: int, r: int) -> WinogradMatrices:
    """Exact matrices over the native kernels' points, of which the kernels' own are the roundings."""
    flats = _native.winograd_matrices(m, r)
    tile = m + r - 1
    points = [Fraction(value).limit_denominator(16) for value in flats[0][tile : 2 * tile - 1]]
    exact = winograd_matrices(m, r, points, scale=False)
    for flat, matrix in zip(flats, (exact.a_t, exact.g, exact.b_t), strict=True):
        assert flat == [float(value) for row in matrix for value in row]
    return exact


@pytest.mark.parametrize(("m", "r"), SHOWN)
def test_the_page_shows_the_kernels_matrices(m: int, r: int) -> None:
    exact = native_form(m, r)
    matrices = {"A^T": exact.a_t, "G": exact.g, "B^T": exact.b_t}
    wanted = "\n\n".join(shown(name.ljust(3), matrices[name]) for name in SHOWN[m, r].split()) + "\n"
    page = ROOT / "docs" / "concepts" / "winograd.md"
    assert wanted in [block.text for block in blocks(page)]
    named = ", ".join(map(str, exact.points))
    same = "" if "B^T" in SHOWN[m, r] else f"; B^T is that of F({m + r - 3},3)"
    assert f"### F({m},{r})\n\nPoints {named} and infinity{same}." in page.read_text(encoding="utf-8")
    assert not same or exact.b_t == native_form(m + r - 3, 3).b_t
