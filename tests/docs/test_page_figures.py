"""Figures of the pages that come from committed records, or that the code gives when it is asked again.

Whoever writes a measured figure into a page adds its test here; a figure without one does not stay.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastcnn.artifact import predict_file_bytes, save_graph
from fastcnn.artifact.encode import encode_array
from fastcnn.engine.graph import Graph
from fastcnn.methods.vq.kmeans import kmeans_1d
from fastcnn.reproduction.lowprecision import energy
from tests.artifact.nets import lenet_5, lenet_300_100, squeezenet
from tests.docs.pages import ROOT
from tests.engine.nets import WINOGRAD


def table_of(page: str, heading: str) -> list[list[str]]:
    """Cells of the table in a page whose first row begins with ``heading``, without that row."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = text.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows, (page, heading)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def words_of(page: str) -> str:
    """A page in one line, so that where its lines break does not matter."""
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def test_the_page_shows_the_record_of_deep_compression() -> None:
    page = "methods/deep-compression.md"
    rows = {row[0]: row[1:] for row in table_of(page, "net")}
    assert set(rows) == {"LeNet-300-100", "LeNet-5"}
    for net, shown_cells in rows.items():
        source = ROOT / "benchmarks" / "results" / f"deep_compression_{net.lower()}.json"
        record = json.loads(source.read_text(encoding="utf-8"))
        runs = record["runs"]
        assert shown_cells == [
            f"{runs[0]['dense_bytes']:,}",
            f"{sum(run['file_bytes'] for run in runs) / len(runs):,.0f}",
            f"{record['mean_ratio']:.1f}x",
            f"{record['mean_control_accuracy']:.2f} %",
            f"{record['mean_compressed_accuracy']:.2f} %",
            f"{record['mean_drop_points']:.2f}",
        ]
        assert all(run["file_bytes"] == pytest.approx(run["theory_bytes"], rel=0.04) for run in runs)
    assert "the files below are within 4 % of it" in words_of(page)


def compare_file(row: list[str], graph: Graph, folder: Path) -> None:
    """Hold a row of the artifact page against the file of this graph, saved as a compiled net saves it."""
    hint, meta = {"isa": "avx2", "threads": 2}, {"producer": "fastcnn"}
    written = save_graph(folder / "net.fcnn", graph, plan_hint=hint, meta=meta).file_bytes
    predicted = predict_file_bytes(graph, plan_hint=hint, meta=meta)
    dense = sum(array.nbytes for array in graph.weights.values())
    said = [float(cell.removesuffix(" %")) for cell in row[1:]]
    # A header a few bytes longer must not make the page wrong; half a percent would.
    assert said[:3] == pytest.approx([dense / 1000, written / 1000, dense / written], rel=5e-3)
    assert said[3] == pytest.approx(100 * (predicted / written - 1), abs=0.1)


def test_the_artifact_page_shows_the_files_of_the_lenets(tmp_path: Path) -> None:
    _, lenet_300, lenet = table_of("artifact.md", "net")
    assert lenet_300[0].startswith("LeNet-300-100")
    assert lenet[0].startswith("LeNet-5")
    compare_file(lenet_300, lenet_300_100(0), tmp_path)
    compare_file(lenet, lenet_5(0), tmp_path)


@pytest.mark.data
def test_the_artifact_page_shows_the_file_of_squeezenet(data_dir: Path, tmp_path: Path) -> None:
    row = table_of("artifact.md", "net")[0]
    assert row[0].startswith("SqueezeNet")
    graph = squeezenet(load_file(data_dir / "nets" / "imagenet_squeezenet1_0_dc.safetensors"))
    compare_file(row, graph, tmp_path)


@pytest.mark.data
def test_dense_nets_shrink_as_the_page_says(data_dir: Path) -> None:
    assert "A dense float32 net shrinks by about a sixth" in words_of("artifact.md")
    state = load_file(data_dir / "nets" / "cifar10_resnet20.safetensors")
    arrays = [array for array in state.values() if array.dtype == np.float32]
    coded = sum(chunk.size for array in arrays for chunk in encode_array(array)[1])
    assert 1 - coded / sum(array.nbytes for array in arrays) == pytest.approx(1 / 6, abs=0.01)


def test_the_page_shows_the_error_of_kmeans() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, 512 * 512)
    percent = []
    for clusters in (16, 32, 255):
        codebook, codes = kmeans_1d(weights, clusters)
        percent.append(100 * float(np.linalg.norm(codebook[codes] - weights) / np.linalg.norm(weights)))
    wanted = "On a Gaussian layer of 512x512: {:.1f} % with 16 values, {:.1f} % with 32, {:.1f} % with 255."
    assert wanted.format(*percent) in words_of("methods/kmeans.md")


def test_the_page_shows_the_bits_of_positions() -> None:
    bits = [-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p for p in (0.10, 0.05)]
    wanted = "{:.1f} bits for each non-zero at 10 % density, {:.1f} at 5 %".format(*bits)
    assert wanted in words_of("methods/magnitude.md")


@pytest.mark.parametrize("m", [2, 4, 6])
def test_the_pages_show_what_winograd_saves_and_loses(m: int) -> None:
    tile = m + 2
    row = next(row for row in table_of("concepts/winograd.md", "| tile") if row[0] == f"F({m},3)")
    assert row[1] == f"{tile}x{tile} for {m}x{m} outputs"
    assert float(row[2].removesuffix("x")) == pytest.approx(9 * m * m / tile**2, abs=0.005)
    assert float(row[3].split("x")[0]) == pytest.approx(tile**2 / 9, abs=0.05)
    exponent = f"{WINOGRAD[tile]:.0e}".replace("e-0", "e-")
    for page in ("concepts/winograd.md", "methods/winograd.md"):
        assert f"{exponent} for F({m},3)" in words_of(page), page


def test_the_contracts_name_doors_as_they_are() -> None:
    """Every argument that the table of doors names exists, and every one without a default is named."""
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8").partition("## Rooms and doors")[2]
    doors = re.findall(r"^\| `([\w.]+)\.(\w+)\(([^)]+)\)`", text, re.MULTILINE)
    assert {name for _, name, _ in doors} >= {"capture", "make_plan", "save_graph", "load_graph"}
    for module, function, said in doors:
        named = [part.strip().partition("=")[0] for part in said.split(",") if part.strip() != "*"]
        parameters = inspect.signature(getattr(importlib.import_module(f"fastcnn.{module}"), function)).parameters
        assert set(named) <= set(parameters), function
        assert {n for n, p in parameters.items() if p.default is p.empty} <= set(named), function
        positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        assert named[: len(positional)] == positional, function


def rows_of_energy(net: str) -> list[list[str]]:
    """Cells of a net's table, computed again."""
    title, build = energy.NETS[net]
    lines = energy.table(title, build()).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_shows_the_modelled_energy_of_the_papers_net() -> None:
    assert table_of("concepts/energy.md", energy.NETS["paper"][0]) == rows_of_energy("paper")


@pytest.mark.zoo
@pytest.mark.slow
def test_the_page_shows_the_modelled_energy_of_resnet_18() -> None:
    assert table_of("concepts/energy.md", energy.NETS["resnet18"][0]) == rows_of_energy("resnet18")


def test_the_page_shows_the_prices_of_the_model() -> None:
    page = "concepts/energy.md"
    operations = {row[0]: (float(row[1]), float(row[2])) for row in table_of(page, "operation")}
    assert operations == {kind: (energy.MULTIPLY[kind], energy.ADD[kind]) for kind in energy.ADD}
    memories = [row[1] for row in table_of(page, "memory")]
    assert memories == [f"{price:.0f}" for _, price in energy.CACHES] + ["{:.0f} to {:.0f}".format(*energy.DRAM)]
    said = f"That makes {energy.word_pj():.1f} pJ, where 64 multiply-adds of float32 are {64 * (3.7 + 0.9):.1f}"
    assert said in words_of(page)


def test_the_artifact_page_has_the_sizes_of_layers_of_signs() -> None:
    said = [round(32 * k / (64 * -(-k // 64) + 32), 1) for k in (27, 576, 2304)]
    assert "layers of K = 27, 576 and 2304 are {}, {} and {} times smaller".format(*said) in words_of("artifact.md")
