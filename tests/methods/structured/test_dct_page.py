"""The tutorial on the cosine transform: pictures are computed, figures follow from the code."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch

from fastcnn import _native
from fastcnn.engine.plan import spectral
from fastcnn.engine.plan.lowering.structured import has_kernel
from fastcnn.methods.contract import LinearSpec
from fastcnn.methods.structured import dct as module
from fastcnn.methods.structured.acdc import STD, ACDCConfig, ACDCLinear
from fastcnn.methods.structured.dct import LONGEST_MATRIX, dct_macs, table_bytes
from tests.docs.pages import ROOT, blocks, links
from tests.engine.nets import DIRECT, ISAS, Maker, compiled, error_of, inputs_for, native
from tests.engine.structured_nets import acdc

FOLDER = ROOT / "docs" / "concepts"
PAGE = FOLDER / "dct.md"
TOOL = ROOT / "tools" / "dct_pictures.py"
TEXT = PAGE.read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split())
PICTURES = [f"dct-{name}.svg" for name in ("mirror", "energy", "reorder")]
SVG = "{http://www.w3.org/2000/svg}"
ROLES = ("alpha", "beta", "gamma", "delta", "epsilon")

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dct_pictures", TOOL)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that the page's blocks leave behind."""
    found: dict[str, Any] = {}
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), found)
    return found


def elements(name: str, tag: str, kind: str) -> list[ET.Element]:
    """Elements of a picture with this tag and class, in the order of the file."""
    root = ET.parse(FOLDER / name).getroot()
    return [e for e in root.iter(f"{SVG}{tag}") if kind in (e.get("class") or "").split()]


def numbers(element: ET.Element, *keys: str) -> list[float]:
    return [float(element.get(key, "nan")) for key in keys]


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
    monkeypatch.setattr(sys, "argv", ["dct_pictures.py"])
    assert tool.main() == 0
    monkeypatch.setattr(sys, "argv", ["dct_pictures.py", "--check"])
    assert tool.main() == 0
    path = tmp_path / PICTURES[2]
    path.write_text(path.read_text(encoding="utf-8").replace(">x5<", ">x4<"), encoding="utf-8")
    assert tool.main() == 1
    assert f"{PICTURES[2]}: not what this program draws; run python tools/{TOOL.name}" in capsys.readouterr().err
    path.unlink()
    assert tool.main() == 1


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_and_know_dark_pages(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text) < 10_000
    assert "prefers-color-scheme: dark" in text
    root = ET.fromstring(text)
    assert root.findtext(f"{SVG}title")
    width, height = numbers(root, "width", "height")
    for element in root.iter(f"{SVG}rect"):
        x, y, w, h = numbers(element, "x", "y", "width", "height")
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    for element in root.iter(f"{SVG}circle"):
        x, y, r = numbers(element, "cx", "cy", "r")
        assert r <= x <= width - r
        assert r <= y <= height - r
    spans: dict[float, list[tuple[float, float]]] = {}
    for element in root.iter(f"{SVG}text"):
        # Widths of letters as browsers draw them: 7.3 px in 14 px and in fixed pitch, 6.3 px in 12 px.
        kinds = (element.get("class") or "").split()
        reach = (6.3 if "small" in kinds and "code" not in kinds else 7.3) * len(element.text or "")
        x, y = numbers(element, "x", "y")
        left = x - (reach if "end" in kinds else reach / 2 if "middle" in kinds else 0)
        assert 0 <= left <= left + reach <= width, element.text
        assert 12 <= y <= height - 4
        spans.setdefault(y, []).append((left, left + reach))
    for line in spans.values():
        line.sort()
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(line))


def test_the_mirror_is_a_mirror_and_the_dots_are_the_matrix(names: dict[str, Any]) -> None:
    name, n = PICTURES[0], 8
    signal = [numbers(e, "x", "width", "height") for e in elements(name, "rect", "good")]
    copies = [numbers(e, "x", "width", "height") for e in elements(name, "rect", "cell")]
    heights = [h for _, _, h in signal[:n]]
    assert heights == [h for _, _, h in signal[n:]] == [h for _, _, h in copies[:n]]
    assert heights[::-1] == [h for _, _, h in copies[n:]]
    assert heights[-1] > heights[0]
    cells = [x + w / 2 for x, w, _ in (signal[:n] + copies[:n])]
    step = cells[1] - cells[0]
    assert np.diff(cells) == pytest.approx(step)
    left = cells[0] - step / 2
    dots = [numbers(e, "cx", "cy") for e in elements(name, "circle", "dot")]
    for k in (1, 2, 3):
        mine = dots[n * (k - 1) : n * k]
        assert [(x - left) / step for x, _ in mine] == pytest.approx([j + 0.5 for j in range(n)])
        # Upwards from the axis, which is where their mean is, all columns in one scale.
        heights = np.mean([y for _, y in mine]) - np.array([y for _, y in mine])
        assert np.abs(heights / 52 - names["cosines"](n)[:, k]).max() < 1e-3


def missed(energies: Array, kept: int) -> float:
    return float(1 - energies[:kept].sum() / energies.sum())


def pairs(energies: Array) -> Array:
    """By numbers kept, half of a pair of bins for each of its two numbers."""
    n = len(energies)
    return np.array([energies[0], *((energies[(k + 1) // 2] + energies[n - (k + 1) // 2]) / 2 for k in range(1, n))])


@pytest.fixture(scope="module")
def energies() -> dict[str, Array]:
    n = 16
    signal, rho = np.arange(n), 0.95
    covariance = rho ** np.abs(np.subtract.outer(signal, signal))
    # Column by column, as a picture is transformed.
    cosine = scipy.fft.dct(scipy.fft.dct(covariance, axis=0, norm="ortho"), axis=1, norm="ortho")
    wave = np.fft.fft(np.fft.ifft(covariance, axis=0, norm="ortho"), axis=1, norm="ortho")
    return {
        "ramp, cosine": scipy.fft.dct(signal, norm="ortho") ** 2,
        "ramp, Fourier": pairs(np.abs(np.fft.fft(signal)) ** 2),
        "process, cosine": np.diag(cosine),
        "process, Fourier": pairs(np.diag(wave).real),
        "process, best": np.linalg.eigvalsh(covariance)[::-1],
    }


def test_the_shares_of_energy_in_the_text(energies: dict[str, Array]) -> None:
    share = {name: 100 * missed(values, 3 if name.startswith("ramp") else 5) for name, values in energies.items()}
    assert (
        f"Keep the first 3 of 16 numbers (a complex one counts as two, and its mirror image is free). The Fourier "
        f"transform then misses {share['ramp, Fourier']:.1f} % of the energy, the cosine transform "
        f"{share['ramp, cosine']:.2f} %."
    ) in WORDS
    assert (
        f"For ρ = 0.95, with 5 of 16 numbers, Fourier misses {share['process, Fourier']:.2f} %, cosine "
        f"{share['process, cosine']:.2f} %, and the eigenvectors {share['process, best']:.2f} % as well."
    ) in WORDS


def test_the_process_has_the_correlations_that_the_page_says() -> None:
    """x = L noise with x[0] of the variance that the later ones have gives rho^|i - j|."""
    n, rho = 6, 0.95
    noise = np.full(n, 1 - rho**2)
    noise[0] = 1.0
    mix = np.array([[rho ** (i - j) if i >= j else 0.0 for j in range(n)] for i in range(n)])
    places = np.arange(n)
    assert np.allclose(mix * noise @ mix.T, rho ** np.abs(np.subtract.outer(places, places)), rtol=0, atol=1e-14)


def test_the_lines_of_the_energies_are_those_shares(energies: dict[str, Array]) -> None:
    name = PICTURES[1]
    lines = [numbers(e, "x", "y") + [float((e.text or "").split()[0])] for e in elements(name, "text", "end")]
    levels = [sorted((y - 4, share) for x, y, share in lines if (x < 300) == first) for first in (True, False)]
    dots = {kind: [numbers(e, "cx", "cy") for e in elements(name, "circle", kind)] for kind in ("good", "bad", "line")}
    legend = max(y for _, y in dots["line"])
    for panel, process in ((0, "ramp"), (1, "process")):
        (top, most), (bottom, least) = levels[panel][0], levels[panel][-1]
        assert most == 100
        for kind, way in (("good", "cosine"), ("bad", "Fourier"), ("line", "best")):
            drawn = [(x, y) for x, y in dots[kind] if y < legend - 1 and (x < 400) == (panel == 0)]
            if way == "best" and process == "ramp":
                assert drawn == []
                continue
            kept = range(1, 10, 2) if way == "Fourier" else range(1, 10)
            assert len(drawn) == len(kept)
            shares = [100 * missed(energies[f"{process}, {way}"], k) for k in kept]
            per_decade = (bottom - top) / math.log10(most / least)
            wanted = [top + per_decade * math.log10(most / share) for share in shares]
            assert [y for _, y in drawn] == pytest.approx(wanted, abs=0.06)


def test_the_reorder_is_the_engines() -> None:
    n = 8
    labels = [int((e.text or "")[1:]) for e in elements(PICTURES[2], "text", "code")]
    mirrored, v, x = labels[: 2 * n], labels[2 * n : 3 * n], labels[3 * n :]
    assert mirrored == [*range(n), *reversed(range(n))]
    assert v == mirrored[::2]
    assert x == list(range(n))
    step = spectral.acdc(np.ones(n), np.ones(n), None, None, n, n)
    assert v == step.gather.tolist()
    assert " ".join(f"x{j}" for j in v) in WORDS
    halves = [len(elements(PICTURES[2], "rect", kind)) for kind in ("good", "bad")]
    assert halves == [12, 12]  # four values each in all three rows


def test_the_functions_of_the_page_do_what_the_library_does(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_MATRIX", 0)
    for n in (1, 2, 3, 10, 33):
        x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        for ours, theirs in ((names["fast_dct"], module.dct), (names["fast_idct"], module.idct)):
            assert np.allclose(ours(x.numpy()), theirs(x).numpy(), rtol=0, atol=1e-13)
        assert np.allclose(names["cosines"](n), module._matrix(n, torch.float64, torch.device("cpu")).numpy())


def test_a_picture_is_transformed_along_rows_then_columns(names: dict[str, Any]) -> None:
    assert "Cᵀ X C" in WORDS
    picture, matrix = np.random.default_rng(0).standard_normal((8, 8)), names["cosines"](8)
    assert np.allclose(matrix.T @ picture @ matrix, scipy.fft.dctn(picture, norm="ortho"), rtol=0, atol=1e-13)


def lee(x: Array, counts: list[int]) -> Array:
    """Cosine sums without factors, by sums and differences of mirrored values; counts products and additions."""
    n = len(x)
    if n == 1:
        return x
    mirrored = x[::-1][: n // 2]
    divisors = 2 * np.cos(np.pi * (2 * np.arange(n // 2) + 1) / (2 * n))
    even, odd = lee(x[: n // 2] + mirrored, counts), lee((x[: n // 2] - mirrored) / divisors, counts)
    y = np.empty(n)
    y[::2], y[1::2] = even, odd + np.append(odd[1:], 0)
    counts[0] += n // 2
    counts[1] += n + n // 2 - 1
    return y


@pytest.mark.parametrize("n", [2, 8, 64, 512, 4096])
def test_what_a_fast_algorithm_takes(n: int) -> None:
    """Lee 1984, IEEE Trans. ASSP-32."""
    x, counts = np.random.default_rng(n).standard_normal(n), [0, 0]
    assert np.allclose(2 * lee(x, counts), scipy.fft.dct(x), rtol=0, atol=1e-9)
    passes = n.bit_length() - 1
    assert counts == [n * passes // 2, 3 * n * passes // 2 - n + 1]
    assert dct_macs(n) == n * passes == n * math.log2(n)
    assert sum(counts) <= 2 * dct_macs(n)


def test_figures_of_cost() -> None:
    assert (
        f"so `dct_macs` counts: {dct_macs(64):,} in place of {64**2:,} for n = 64, and {dct_macs(4096):,} in place of "
        f"{4096**2:,} for n = 4096."
    ) in WORDS
    n = LONGEST_MATRIX
    assert f"changes over above n = {n}, where the matrix takes {table_bytes(n):,} bytes" in WORDS
    assert table_bytes(n) == 4 * n * n > table_bytes(n + 1)
    config = ACDCConfig(layers=12)
    cost = ACDCLinear.cost(config, LinearSpec(in_features=1024, out_features=1024, bias=False))
    assert f"12 layers for 1024×1024 take {cost.params:,} numbers without bias in place of {1024**2:,}" in WORDS
    one = ACDCLinear.cost(ACDCConfig(), LinearSpec(in_features=64, out_features=64, bias=True))
    assert (one.params, one.macs) == (3 * 64, 2 * 64 + 2 * 64 * math.log2(64))
    assert "3n numbers, 2n + 2n log₂ n multiply-adds" in WORDS


def test_the_rank_of_a_cascade() -> None:
    """K (2 n - 2) + 1 for another size and another generator, until all of n^2 are reached."""
    n, rng = 6, np.random.default_rng(7)
    c = scipy.fft.dct(np.eye(n), norm="ortho")
    for layers in (1, 2, 3, 4):
        a, d = rng.standard_normal((2, layers, n))
        whole = [np.diag(a[k]) @ c @ np.diag(d[k]) @ c.T for k in range(layers)]
        rows = []
        for k in range(layers):
            before = np.linalg.multi_dot([np.eye(n), np.eye(n), *whole[:k]])
            after = np.linalg.multi_dot([*whole[k + 1 :], np.eye(n), np.eye(n)])
            for unit in np.eye(n):
                rows.append(before @ np.diag(unit) @ c @ np.diag(d[k]) @ c.T @ after)
                rows.append(before @ np.diag(a[k]) @ c @ np.diag(unit) @ c.T @ after)
        rank = np.linalg.matrix_rank(np.stack(rows).reshape(len(rows), -1), rtol=1e-10)
        assert rank == min(layers * (2 * n - 2) + 1, n * n)
    assert "the rank is K (2n − 2) + 1, until it reaches n²" in WORDS
    assert "For n = 8, five layers move in all 64 directions." in WORDS


def test_what_a_cascade_does_to_the_size_of_a_signal(names: dict[str, Any]) -> None:
    def power(value: float) -> str:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{digits}·10⁻{str(-int(exponent)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"

    around_zero, around_one = (STD**2) ** 12, (1 + STD**2) ** 12
    words = f"For σ = {STD} and 12 layers it is {power(around_zero)} with μ = 0, and {around_one:.2f} with μ = 1."
    assert words in WORDS
    # Of one layer, over many draws of the diagonals: the mean square grows by (mean^2 + std^2)^2.
    rng = np.random.default_rng(0)
    x = rng.standard_normal(16)
    for mean, std in ((0.0, 0.5), (1.0, 0.3)):
        a, d = mean + std * rng.standard_normal((2, 40_000, 16))
        y = scipy.fft.idct(scipy.fft.dct(x * a, norm="ortho") * d, norm="ortho")
        assert (y**2).sum(1).mean() / (x**2).sum() == pytest.approx((mean**2 + std**2) ** 2, rel=0.03)
    # Multiplied by a number, the matrix around zero keeps the ratios of its singular values.
    small, large = (names["cascade"](0, std)[1] for std in (0.25, 0.5))
    assert min(small, large) > 1000


def complex_factors(step: spectral.Spectral, points: int) -> dict[str, Array]:
    return {role: values[:points] + 1j * values[points:] for role, values in step.factors.items() if role in ROLES}


@pytest.mark.parametrize("n", [8, 64, 250])
def test_the_mix_of_the_page_is_the_engines(n: int) -> None:
    """Five terms for each point between two complex transforms of n / 2 points."""
    rng, points = np.random.default_rng(n), n // 2
    a, d, beta, x = rng.standard_normal((4, n))
    step = spectral.acdc(a, d, beta, None, n, n)
    row = step.factors["scale"] * x[step.gather]
    z = np.fft.fft(row[::2] + 1j * row[1::2])
    opposite = z[-np.arange(points)]
    terms = {"alpha": z, "beta": z[-np.arange(points)].conj(), "gamma": z.conj(), "delta": opposite, "epsilon": 1}
    mixed = sum(factor * terms[role] for role, factor in complex_factors(step, points).items())
    back = points * np.fft.ifft(mixed)
    y = np.stack((back.real, back.imag), axis=1).ravel()[step.place]
    want = scipy.fft.idct(scipy.fft.dct(x * a, norm="ortho") * d + beta, norm="ortho")
    assert np.abs(y - want).max() <= 1e-5 * np.abs(want).max()
    line = "Z′[k] = α[k] Z[k] + β[k] conj(Z[M − k]) + γ[k] conj(Z[k]) + δ[k] Z[M − k] + ε[k]"
    assert line in TEXT
    circulant = spectral.circulant(a[None], d[None], points)
    assert set(complex_factors(circulant, points)) == {"alpha", "beta"}
    assert set(complex_factors(spectral.acdc(a, d, None, None, n, n), points)) == set(ROLES) - {"epsilon"}


def test_reading_takes_in_the_permutation() -> None:
    n = 16
    permutation = np.random.default_rng(0).permutation(n)
    plain, permuted = (spectral.acdc(np.ones(n), np.ones(n), None, p, n, n) for p in (None, permutation))
    assert permuted.gather.tolist() == permutation[plain.gather].tolist()
    assert permuted.place.tolist() == plain.place.tolist()
    assert plain.gather[plain.place].tolist() == list(range(n))


@pytest.mark.parametrize("isa", ISAS)
def test_which_layers_take_the_step(isa: str) -> None:
    assert "an even n with a half that its FFT takes, such as 1024, and a layer of some size" in WORDS
    assert 512 in _native.spectral_points(isa)
    for n, rows, wanted in ((1024, 1024, True), (1023, 1023, False), (1024, 1, False)):
        make = Maker(n, (2, n))
        graph = make.graph(acdc(make, "x0", n, rows, 3, bias=True, relu=True))
        (node,) = graph.nodes
        arrays = {role: graph.weights[key] for role, key in node.params.items()}
        assert has_kernel(node, arrays, (2, n), isa=isa) == wanted
        if not wanted:
            continue
        net = compiled(graph, isa)
        kernels = [native(net).net.kernel(i) for i in range(native(net).net.steps)]
        assert len([kernel for kernel in kernels if kernel.startswith("spectral_f32_")]) == 3  # one for each layer
        assert error_of(net, inputs_for(graph), least=1.0) <= 2 * DIRECT


def test_the_page_names_what_there_is() -> None:
    assert "`fastcnn.methods.structured.dct` and `acdc`" in WORDS
    assert {"../methods/acdc.md", "../methods/circulant.md", "fft.md#real-values-at-half-the-price"} <= set(links(PAGE))
    assert "../concepts/dct.md" in links(ROOT / "docs" / "methods" / "acdc.md")
    assert ACDCLinear.kernel == "acdc_linear"
    for reference in ("Ahmed, Natarajan and Rao 1974", "Makhoul 1980", "arXiv:1511.05946"):
        assert reference in TEXT.partition("## Further reading")[2]
