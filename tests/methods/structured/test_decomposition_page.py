"""The tutorial on tensor decomposition: pictures are drawn from the layers, figures follow from their formulas."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import fastcnn.methods.structured.tensor_train as tensor_train
from fastcnn.methods.contract import ConvSpec, LinearSpec, MethodConfig
from fastcnn.methods.structured.calibration import GroupMoments, whitened_svd
from fastcnn.methods.structured.cp import CPConfig, CPConv2d
from fastcnn.methods.structured.evbmf import evbmf_rank
from fastcnn.methods.structured.factored import Stage
from fastcnn.methods.structured.separable import SeparableConfig, SeparableConv2d
from fastcnn.methods.structured.svd import SVDConfig, SVDConv2d
from fastcnn.methods.structured.tensor_train import TTConfig, TTConv2d, TTLinear
from fastcnn.methods.structured.tt_decomposition import tt_svd
from fastcnn.methods.structured.tucker import TuckerConfig, TuckerConv2d, tucker2
from tests.docs.pages import blocks

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "concepts"
PAGE = FOLDER / "decomposition.md"
TOOL = ROOT / "tools" / "decomposition_pictures.py"
TEXT = PAGE.read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())
PICTURES = [f"decomposition-{name}.svg" for name in ("rank", "weight", "chains", "train")]
SVG = "{http://www.w3.org/2000/svg}"

C = F = 128
K = 3
SPEC = ConvSpec(in_channels=C, out_channels=F, kernel_size=(K, K), bias=False)
SHAPE: dict[str, Any] = {"in_channels": C, "out_channels": F, "kernel_size": K, "bias": False}

FORMS: dict[str, tuple[type[nn.Module], Callable[..., MethodConfig], Callable[..., dict[str, Any]]]] = {
    "SVD": (SVDConv2d, lambda r: SVDConfig(rank=r), lambda r: {"rank": r}),
    "separable, scheme 2": (SeparableConv2d, lambda r: SeparableConfig(rank=r), lambda r: {"rank": r}),
    "separable, scheme 1": (
        SeparableConv2d,
        lambda r: SeparableConfig(rank=r, scheme=1),
        lambda r: {"rank": r, "scheme": 1},
    ),
    "Tucker-2": (TuckerConv2d, lambda *r: TuckerConfig(ranks=r), lambda *r: {"ranks": r}),
    "CP": (CPConv2d, lambda r: CPConfig(rank=r), lambda r: {"rank": r}),
    "Tensor-Train": (TTConv2d, lambda r: TTConfig(rank=r), lambda r: {"rank": r}),
}
"""Layer, config and constructor's ranks, from the ranks in the table."""

FORMULAS: dict[str, Callable[..., int]] = {
    "SVD": lambda r: r * (C * K**2 + F),
    "separable, scheme 2": lambda r: r * K * (C + F),
    "separable, scheme 1": lambda m: 2 * K * C * m + F * C * m,
    "Tucker-2": lambda inner, outer: C * inner + K**2 * inner * outer + F * outer,
    "CP": lambda r: r * (C + 2 * K + F),
}
"""Numbers of the forms, by the specification."""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("decomposition_pictures", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def states() -> list[dict[str, Any]]:
    """The names that the page's blocks leave behind, after each of them."""
    names: dict[str, Any] = {}
    found = []
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), names)
            found.append(dict(names))
    return found


def table(heading: str) -> list[list[str]]:
    """Cells of the table whose first row begins with ``heading``, without that row."""
    rows = TEXT.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def ranks_of(row: list[str]) -> list[int]:
    return [int(rank) for rank in re.findall(r"\d+", row[1])]


def chain_of(name: str, ranks: list[int]) -> tuple[Stage, ...]:
    layer, _, arguments = FORMS[name]
    chain: tuple[Stage, ...] = layer(**SHAPE, **arguments(*ranks)).chain
    return chain


CHAINS = {row[0]: chain_of(row[0], ranks_of(row)) for row in table("form") if row[0] in FORMULAS}
"""Stages of the table's forms that are chains of convolutions."""


def elements(name: str, tag: str, kind: str) -> list[ET.Element]:
    """Elements of a picture with this tag and class, in the order of the file."""
    root = ET.parse(FOLDER / name).getroot()
    return [e for e in root.iter(f"{SVG}{tag}") if kind in (e.get("class") or "").split()]


def place(element: ET.Element) -> tuple[float, float, float, float]:
    """x, y, width and height of a rectangle."""
    x, y, width, height = (float(element.get(key, "nan")) for key in ("x", "y", "width", "height"))
    return x, y, width, height


def texts(name: str) -> list[str]:
    return [e.text or "" for e in ET.parse(FOLDER / name).getroot().iter(f"{SVG}text")]


def test_the_page_shows_every_picture_and_says_what_is_in_it(tool: ModuleType) -> None:
    shown = re.findall(r"!\[([^\]]+)\]\((\S+)\)", TEXT)
    assert [name for _, name in shown] == PICTURES
    assert all(len(words) > 40 for words, _ in shown)
    assert set(tool.PICTURES) == set(PICTURES)


def test_the_pictures_are_those_the_program_draws() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_picture_is_noticed(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["decomposition_pictures.py"])
    assert tool.main() == 0
    monkeypatch.setattr(sys, "argv", ["decomposition_pictures.py", "--check"])
    assert tool.main() == 0
    path = tmp_path / PICTURES[0]
    path.write_text(path.read_text(encoding="utf-8").replace("30,720", "30,721"), encoding="utf-8")
    assert tool.main() == 1
    assert f"{PICTURES[0]}: not what this program draws; run python tools/{TOOL.name}" in capsys.readouterr().err
    path.unlink()
    assert tool.main() == 1


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_and_know_dark_pages(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text) < 10_000
    assert "prefers-color-scheme: dark" in text
    root = ET.fromstring(text)
    assert root.findtext(f"{SVG}title")
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in root.iter(f"{SVG}rect"):
        x, y, w, h = place(element)
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    for element in root.iter(f"{SVG}text"):
        # Widths of letters as browsers draw them: 7.3 px in 14 px and in fixed pitch, 6.3 px in 12 px.
        kinds = (element.get("class") or "").split()
        reach = (6.3 if "small" in kinds and "code" not in kinds else 7.3) * len(element.text or "")
        left = float(element.get("x", "nan")) - (reach if "end" in kinds else reach / 2 if "middle" in kinds else 0)
        assert 0 <= left <= left + reach <= width, element.text


def test_the_factors_are_drawn_to_scale() -> None:
    name = PICTURES[0]
    (whole,) = map(place, elements(name, "rect", "cell"))
    tall, wide = map(place, elements(name, "rect", "good"))
    assert (tall[3], wide[2]) == (whole[3], whole[2])
    assert tall[2] == wide[3]
    per = whole[2] / 512
    assert (whole[3], tall[2]) == (256 * per, 40 * per)
    assert {"m n = 131,072 numbers", "r (m + n) = 30,720 numbers"} <= set(texts(name))
    assert (256 * 512, 40 * (256 + 512)) == (131_072, 30_720)
    assert "W of 256 by 512 equals U of 256 by 40 times V of 40 by 512" in WORDS


def test_the_marked_rows_of_the_unfoldings_are_the_marked_taps() -> None:
    name, filters, channels = PICTURES[1], 4, 5
    marked = {kind: [place(e) for e in elements(name, "rect", kind)] for kind in ("good", "bad")}
    split = max(x for x, _, w, _ in marked["good"] if w < 10)
    taps = {kind: {(x, y) for x, y, _, _ in found if x <= split} for kind, found in marked.items()}
    rows = {kind: [found for found in all_ if found[0] > split] for kind, all_ in marked.items()}
    xs, ys = (sorted({place[axis] for place in taps["good"]}) for axis in (0, 1))
    assert taps["good"] == {(x, y) for x in xs for y in ys}  # one filter: every channel's three by three taps
    assert (len(xs), len(ys)) == (channels * K, K)
    lines = sorted({y for _, y in taps["bad"]})
    assert len(lines) == filters
    assert lines[1] == ys[0]  # the second filter's first line
    columns = sorted({x for x, _ in taps["bad"]})
    assert taps["bad"] == {(x, y) for x in columns for y in lines}
    channel = xs.index(columns[0]) // K
    assert columns == xs[channel * K : channel * K + K]
    grids = [e.get("d", "") for e in elements(name, "path", "line")][filters * channels :]
    assert len(grids) == 2
    for drawn, kind, wanted, count, across in (
        (grids[0], "good", 1, filters, channels * K * K),
        (grids[1], "bad", channel * K, channels * K, filters * K),
    ):
        ((x, y, width, height),) = rows[kind]
        starts = [(float(a), float(b), float(c)) for a, b, c in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", drawn)]
        assert [b for _, b, _ in starts].index(y) == wanted
        assert len(starts) == count + 1
        assert {(a, c) for a, _, c in starts} == {(x, width)}
        assert width == across * height


def test_the_chains_are_those_of_the_layers() -> None:
    name = PICTURES[2]
    wanted = {
        "dense": [Stage(in_channels=C, out_channels=F, kernel_size=(K, K))],
        "SVD": CHAINS["SVD"],
        "separable": CHAINS["separable, scheme 2"],
        "Tucker-2": CHAINS["Tucker-2"],
        "CP": CHAINS["CP"],
    }
    bars = [place(e) for e in elements(name, "rect", "cell")]
    lines = sorted({round(y + height / 2, 3) for _, y, _, height in bars})
    assert len(lines) == len(wanted)
    words = texts(name)
    assert [word for word in words if word in wanted] == list(wanted)
    fixed = [e.text or "" for e in elements(name, "text", "code")]
    for middle, (form, stages) in zip(lines, wanted.items(), strict=True):
        heights = [height for _, y, _, height in bars if round(y + height / 2, 3) == middle]
        sizes = [stages[0].in_channels, *(stage.out_channels for stage in stages)]
        assert heights == pytest.approx([size * bars[0][3] / C for size in sizes])
        for stage in stages:
            assert fixed[:2] == [f"{stage.kernel_size[0]}×{stage.kernel_size[1]}", f"{stage.weights:,}"]
            fixed = fixed[2:]
        assert words[words.index(form) + 1] == f"{sum(stage.weights for stage in stages):,}"
    assert fixed == []
    kinds = [e.get("class") for e in ET.parse(FOLDER / name).getroot().iter(f"{SVG}path")]
    deep = [stage.groups > 1 for stages in wanted.values() for stage in stages]
    assert kinds == ["bad" if grouped else "good" for grouped in deep]
    assert sum(deep) == 2


def test_the_train_is_that_of_the_layer() -> None:
    name = PICTURES[3]
    layer = TTConv2d(**SHAPE, rank=8)
    assert layer.spatial is not None
    extents = [[int(part) for part in (e.text or "").split("·")] for e in elements(name, "text", "code")]
    drawn = [math.prod(extent) for extent in extents]
    assert drawn == [core.numel() for core in layer.cores] + [layer.spatial.numel()]
    assert f"{sum(drawn):,} numbers in place of {SPEC.weights:,}." in texts(name)
    limits = [int(found) for word in texts(name) for found in re.findall(r"[ij][₁₂₃] < (\d+)", word)]
    assert math.prod(limits[::2]) == F
    assert math.prod(limits[1::2]) == C
    joined = [int(word.rpartition(" ")[2]) for word in texts(name) if re.match(r"r[₁₂] = ", word)]
    assert [*joined, int(texts(name)[texts(name).index("8 filters")].split()[0])] == [8, 8, 8]
    assert list(layer.shape.ranks) == [8, 8, 8]
    assert "joined by ranks of 8" in WORDS
    assert "128 = " + "·".join(map(str, layer.shape.out_factors)) in WORDS


def test_the_table_of_costs() -> None:
    rows = table("form")
    assert [row[0] for row in rows] == ["dense", *FORMS]
    assert f"One layer, {C} → {F} channels, {K}×{K}, stride 1, no bias; multiply-adds per position" in WORDS
    assert "| times fewer | multiplications, taps by F(4,3) |" in WORDS
    assert f"Scheme 1 gives each input channel {ranks_of(rows[3])[0]} columns and rows of its own." in WORDS
    for name, _, numbers, macs, fewer, winograd in rows:
        found = [int(cell.replace(",", "")) for cell in (numbers, macs, winograd)]
        row = next(row for row in rows if row[0] == name)
        if name == "dense":
            assert found == [SPEC.weights, SPEC.dense_macs, SPEC.dense_macs // 4]
        else:
            layer, config, _ = FORMS[name]
            cost = layer.cost(config(*ranks_of(row)), SPEC)  # type: ignore[attr-defined]  # of every layer here
            assert found[:2] == [cost.params, cost.macs]
        if name in FORMULAS:
            assert found[:2] == [FORMULAS[name](*ranks_of(row))] * 2
        assert fewer == f"{SPEC.dense_macs / found[1]:.1f}"
        if name in CHAINS:
            # F(4,3) computes four outputs from six products along an axis, not from twelve.
            saving = {(3, 3): 4, (3, 1): 2, (1, 3): 2, (1, 1): 1}
            stages = CHAINS[name]
            assert found[2] == sum(s.weights // (saving[s.kernel_size] if s.groups == 1 else 1) for s in stages)
        if name == "Tensor-Train":
            assert found[2] == found[1]
    assert (4 * 3 / (4 + 3 - 1), (4 * 3 / (4 + 3 - 1)) ** 2) == (2, 4)
    assert "a dense 3×3 with a quarter of the multiplications, a dense 3×1 or 1×3 with half" in WORDS


def test_a_train_by_loops() -> None:
    """Numbers and multiply-adds of the table's train, counted from its cores: the sweep from the last to the first."""
    layer = TTConv2d(**SHAPE, rank=8)
    assert layer.spatial is not None
    cores = [tuple(core.shape) for core in layer.cores]
    filters, taps = layer.spatial.shape[0], K * K
    numbers, macs = filters * taps, C * filters * taps
    sizes = [n for _, _, n, _ in cores]
    outputs = 1
    for before, m, n, after in reversed(cores):
        sizes.pop()
        numbers += before * m * n * after
        macs += outputs * m * n * before * after * math.prod(sizes)
        outputs *= m
    row = next(row for row in table("form") if row[0] == "Tensor-Train")
    assert row[2:4] == [f"{numbers:,}", f"{macs:,}"]


def test_break_even_ranks() -> None:
    taps = K * K
    wanted = {
        "(F, C kh kw)": (F, C * taps),
        "(C kh, F kw)": (C * K, F * K),
        "(C, F kh kw)": (C, F * taps),
    }
    assert {row[0]: row[2] for row in table("unfolding")} == {
        name: f"{m * n / (m + n):.1f}" for name, (m, n) in wanted.items()
    }
    assert f"| break-even rank, {C} → {F} channels, {K}×{K} |" in WORDS
    assert "For 256×512 that is every rank up to 170." in WORDS
    assert 170 * (256 + 512) < 256 * 512 < 171 * (256 + 512)


def test_figures_in_the_text() -> None:
    large = TTConv2d.cost(TTConfig(rank=16), SPEC).macs
    assert f"at rank 16 it takes {large:,} multiply-adds, more than the dense layer" in WORDS
    assert large > SPEC.dense_macs
    linear = LinearSpec(in_features=1024, out_features=1024, bias=False)
    config = TTConfig(rank=8, factors=5)
    assert {tuple(core.shape[1:3]) for core in TTLinear(1024, 1024, rank=8, factors=5).cores} == {(4, 4)}
    cost = TTLinear.cost(config, linear)
    words = (
        f"a 1024×1024 linear layer in five cores of 4×4 at rank 8 holds {linear.weights / cost.params:.0f} times fewer "
        f"numbers ({cost.params:,}), but takes only {linear.weights / cost.macs:.1f} times fewer multiply-adds"
    )
    assert words in WORDS
    winograd = {row[0]: int(row[5].replace(",", "")) for row in table("form")}
    dense = winograd["dense"]
    names = ("SVD", "Tucker-2", "separable, scheme 2", "CP")
    svd, tucker, separable, cp = (f"{dense / winograd[name]:.1f}" for name in names)
    assert f"The dense layer then needs {dense:,}, and the chains gain less" in WORDS
    words = f"SVD needs {svd} times fewer, Tucker-2 {tucker}, separable {separable}, CP {cp}, and Tensor-Train more."
    assert words in WORDS
    assert winograd["Tensor-Train"] > dense


def test_figures_of_depthwise_stages() -> None:
    reduce, column, row, expand = CHAINS["CP"]
    each = [stage.weights // stage.out_channels for stage in (column, expand)]
    words = (
        f"a column of three taps does {each[0]} multiply-adds for each number it writes, a 1×1 from {C} channels "
        f"{each[1]}, the dense layer {SPEC.weights // F:,}."
    )
    assert words in WORDS
    share = (column.weights + row.weights) / sum(stage.weights for stage in CHAINS["CP"])
    assert f"they are {100 * share:.1f} % of the multiply-adds and half of the numbers written" in WORDS
    written = {name: sum(stage.out_channels for stage in stages) for name, stages in CHAINS.items()}
    assert 2 * (column.out_channels + row.out_channels) == written["CP"]
    assert reduce.groups == expand.groups == 1
    words = f"the dense layer {F} numbers per position, Tucker-2 {written['Tucker-2']}, CP {written['CP']}."
    assert words in WORDS


def test_the_edge_of_noise_and_the_threshold() -> None:
    tau = 2.5129  # of the specification, for a square matrix
    assert f"the edge is at σ² = 4 M s², and a singular value must reach {(1 + tau) * (1 + 1 / tau):.2f} M s²" in WORDS
    rows = 400
    noise = torch.randn(rows, rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    singular = torch.linalg.svdvals(noise)
    assert 3.8 < float(singular[0]) ** 2 / rows < 4.2
    assert evbmf_rank(singular.numpy(), (rows, rows)) == 0
    for square, rank in ((4.7, 0), (5.1, 1)):
        # The largest singular value is moved to either side of the threshold.
        singular[0] = (square * rows) ** 0.5
        assert evbmf_rank(singular.numpy(), (rows, rows)) == rank


def test_the_code_of_the_page_does_what_the_library_does(states: list[dict[str, Any]]) -> None:
    low, taps, tucker, train, aware = (states[k] for k in (1, 2, 3, 6, 7))
    assert (low["first"].shape, low["second"].shape) == ((40, 512), (256, 40))

    weight = taps["W"]
    filters, channels, kh, kw = weight.shape
    dense = nn.Conv2d(channels, filters, (kh, kw), bias=False, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(weight)
    svd = SVDConv2d.from_dense(dense, SVDConfig(rank=filters, force=True))
    separable = SeparableConv2d.from_dense(dense, SeparableConfig(rank=channels * kh, force=True))
    chains = ((svd, ["kernels"]), (separable, ["columns", "rows"]))
    for layer, names in chains:
        assert [taps[name].shape for name in names] == [stage.weight.shape for stage in layer.stages][: len(names)]

    found = tucker2(weight, (6, 8))
    library = tucker["distance"](tucker["product"](found.core, found.output, found.input.T), weight)
    assert tucker["hooi"] == pytest.approx(library, rel=1e-3)
    modes = [torch.linalg.svdvals(m) for m in (weight.flatten(1), weight.transpose(0, 1).flatten(1))]
    assert tucker["hosvd"] ** 2 <= float(modes[0][8:].square().sum() + modes[1][6:].square().sum())

    tensor = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = train["tt_svd"](tensor, 3), tt_svd(tensor, rank=3)
    whole = [torch.einsum("aib,bjc,ckd,dle->ijkl", *cores) for cores in (ours, theirs)]
    assert torch.allclose(*whole, atol=1e-12)
    assert [core.shape for core in ours] == [core.shape for core in theirs]
    assert f"{sum(core.numel() for core in train['cores'])} numbers stand for {train['K'].numel():,}" in WORDS

    weight, seen = aware["W"], aware["seen"]
    second = seen.T @ seen / len(seen)
    moments = GroupMoments(seen.mean(0), second, weight @ seen.mean(0), weight @ second, centred=False)
    right, left = whitened_svd(weight, moments, 0.0).cut(16)
    assert torch.allclose(left @ right, aware["aware"], atol=1e-8)


def test_the_page_names_what_there_is() -> None:
    """Settings and methods in the prose exist."""
    assert TuckerConfig(evbmf=0.7).evbmf == 0.7
    for config in (SVDConfig, SeparableConfig, TuckerConfig, CPConfig):
        assert config(speedup=1.5).speedup == 1.5
        assert config.calibrates
    assert not TTConfig.calibrates
    assert tensor_train.TTConfig.method in TEXT
