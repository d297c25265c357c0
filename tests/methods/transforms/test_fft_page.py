"""The tutorial on the Fourier transform: pictures are drawn from the code, figures follow from their formulas."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fastcnn.methods.transforms.fft import fft, next_fast_length

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "concepts"
TOOL = ROOT / "tools" / "fft_pictures.py"
TEXT = (FOLDER / "fft.md").read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())
PICTURES = ["fft-butterflies.svg", "fft-wrap-around.svg", "fft-overlap-save.svg"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fft_pictures", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labels(name: str, kind: str) -> list[str]:
    """Texts of a picture with this class, in the order of the file."""
    root = ET.parse(FOLDER / name).getroot()
    return [e.text or "" for e in root.iter(f"{SVG}text") if kind in (e.get("class") or "").split()]


def elements(name: str, kind: str) -> list[ET.Element]:
    return [e for e in ET.parse(FOLDER / name).getroot() if kind in (e.get("class") or "").split()]


def test_the_page_shows_every_picture_and_says_what_is_in_it(tool: ModuleType) -> None:
    shown = re.findall(r"!\[([^\]]+)\]\((\S+)\)", TEXT)
    assert [name for _, name in shown] == PICTURES
    assert all(len(words) > 40 for words, _ in shown)
    assert set(tool.PICTURES) == set(PICTURES)


def test_the_pictures_are_those_the_program_draws() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_picture_is_noticed(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fft_pictures.py"])
    assert tool.main() == 0
    monkeypatch.setattr(sys, "argv", ["fft_pictures.py", "--check"])
    assert tool.main() == 0
    path = tmp_path / PICTURES[0]
    path.write_text(path.read_text(encoding="utf-8").replace("X[7]", "X[8]"), encoding="utf-8")
    assert tool.main() == 1
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
        x, y, w, h = (float(element.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_the_butterflies_compute_the_transform() -> None:
    """Follow the drawn lines with the drawn factors: the picture is an algorithm, and it is right."""
    name = PICTURES[0]
    codes = labels(name, "code")
    order = [int(label[2:-1]) for label in codes if label.startswith("x[")]
    results = [int(label[2:-1]) for label in codes if label.startswith("X[")]
    lines = [[float(v) for v in re.findall(r"[\d.]+", e.get("d", ""))] for e in elements(name, "line")]
    lines += [[float(v) for v in re.findall(r"[\d.]+", e.get("d", ""))] for e in elements(name, "path")]
    small = [(e.text or "", float(e.get("x", 0)), float(e.get("y", 0))) for e in elements(name, "small")]
    columns, rows = sorted({x for line in lines for x in line[::2]}), sorted({y for line in lines for y in line[1::2]})
    assert len(columns) == 4
    assert len(rows) == 8
    x = np.random.default_rng(0).standard_normal(8) + 0j
    values = dict(zip(rows, x[order], strict=True))
    for left, right in pairwise(columns):
        near = {row: [t for t, tx, ty in small if left < tx < left + 20 and 0 < ty - row < 20] for row in rows}
        minus = {
            row
            for row in rows
            if any(t == "−" and right - 20 < tx < right and 0 < ty - row < 20 for t, tx, ty in small)
        }
        after = dict.fromkeys(rows, 0j)
        for x1, y1, _, y2 in lines:
            if x1 == left:
                factor = [np.exp(-2j * np.pi * "⁰¹²³⁴⁵⁶⁷".index(t[1]) / 8) for t in near[y1]] or [1]
                # A butterfly subtracts what comes from its lower input, at its lower output.
                after[y2] += values[y1] * factor[0] * (-1 if y2 in minus and near[y1] else 1)
        values = after
    got = np.array([values[row] for row in rows])
    assert np.abs(got - np.fft.fft(x)[results]).max() <= 1e-14 * np.abs(x).sum()


def test_wrap_around_is_drawn_where_it_happens(tool: ModuleType) -> None:
    assert tool.spoilt_outputs(12, 4) == [False] * 9 + [True] * 3
    assert tool.spoilt_outputs(9, 1) == [False] * 9
    boxes = [
        (e.get("class"), float(e.get("y", 0))) for e in ET.parse(FOLDER / PICTURES[1]).getroot().iter(f"{SVG}rect")
    ]
    bottom = max(y for _, y in boxes)
    assert [kind for kind, y in boxes if y == bottom] == ["good"] * 9 + ["bad"] * 3


def test_the_table_of_multiplications_follows_from_its_formulas() -> None:
    rows = TEXT.partition("| kernel | direct |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = {
        int(cells[0].partition("×")[0]): cells[1:]
        for cells in ([c.strip() for c in r.strip("|").split("|")] for r in rows)
    }
    assert list(shown) == [3, 5, 7, 11]
    for k, cells in shown.items():
        want: list[float | None] = [k * k]
        for t in (8, 16, 32):
            # Bins of a real tile: those that are their own mirror image are real, the others come in pairs.
            own = [(u, v) for u in range(t) for v in range(t) if (-u % t, -v % t) == (u, v)]
            want.append((len(own) + 4 * (t * t - len(own)) / 2) / (t - k + 1) ** 2 if t >= k else None)
        want += [(m + k - 1) ** 2 / m**2 if k < 11 else None for m in (2, 4, 6)]
        assert cells == ["—" if value is None else f"{value:.2f}" for value in want]


def test_figures_in_the_text() -> None:
    def spectra(t: int) -> float:
        return 64 * 64 * t * (t // 2 + 1) * 8 / 1e6

    assert (
        f"take {spectra(60):.0f} MB in complex64; the weights themselves take {64 * 64 * 9 * 4 / 1e3:.0f} kB" in WORDS
    )
    assert f"({spectra(8):.1f} MB for t = 8, {spectra(16):.1f} MB for t = 16)" in WORDS
    assert f"For n = 4096 that is {4096 // 2 * 12:,} in place of {4096**2 / 1e6:.1f} million" in WORDS
    assert "costs three transforms of 1024, about six times" in WORDS
    assert next_fast_length(2 * 509 - 1) == 1024
    assert "15 % at worst (13 becomes 15)" in WORDS  # every length up to 30,000: test_fft.py
    assert "a transform of 65,536 values agrees with NumPy's to about 10⁻¹⁵" in WORDS
    x = np.random.default_rng(0).standard_normal(1 << 16)
    want = np.fft.fft(x)
    assert np.abs(fft(x) - want).max() <= 2e-15 * np.abs(want).max()
