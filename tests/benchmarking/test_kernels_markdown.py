"""The page about crossovers shows the record, counts right, and its writer refuses what it cannot use."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from fastcnn import _native
from fastcnn.benchmarking.kernels import AlgorithmTime, KernelsResult, Layer
from fastcnn.benchmarking.kernels.curves import BEST, growth
from fastcnn.benchmarking.kernels.markdown import main, put, tables
from fastcnn.engine.plan.tiles import WINOGRAD_TILES, form_of
from tests.benchmarking.kernel_results import by_kernel, cell, engine, point, result

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "concepts" / "crossover.md"
RECORD = ROOT / "benchmarks" / "results" / "kernels.json"
PLACES = re.compile(r"<!-- table:([\w-]+) -->\n(.*?)\n<!-- /table -->", re.DOTALL)


def test_the_page_shows_the_record() -> None:
    """With a record in the repository the page must show that one; without, no figures at all."""
    places = dict(PLACES.findall(PAGE.read_text(encoding="utf-8")))
    assert set(places) == {"peers", "by-kernel", "along"}
    if RECORD.exists():
        assert main([str(RECORD), str(PAGE), "--check"]) == 0, "run  make bench-kernels"
    else:
        assert set(places.values()) == {"Not measured yet: `make bench-kernels` writes this table."}


def test_the_record_is_whole_and_meets_its_goals() -> None:
    """What is committed is a complete run; without one there is nothing to hold."""
    if not RECORD.exists():
        assert not (PAGE.parent / "crossover.png").exists(), "a picture without its record"
        return
    assert (PAGE.parent / "crossover.png").read_bytes().startswith(b"\x89PNG")
    found = KernelsResult.loads(RECORD.read_text(encoding="utf-8"))
    assert len(found.cells) == 12
    assert len(found.points) == 61 * len(found.isas)
    assert [f"{c.label}: {c.missed()}" for c in (*found.cells, *found.points) if c.missed()] == []
    # FFT rises far more slowly than the square of the kernel.
    for isa in found.isas:
        assert all(
            best <= direct / 1.5
            for best, direct in zip(growth(found, isa, BEST), growth(found, isa, "direct"), strict=True)
        )
        assert growth(found, isa, BEST)[1] <= 7


def counted(kernel: int) -> list[str]:
    """A row of the table of multiplications, as the page writes it."""
    pair, out = (kernel, kernel), (56, 56)

    def each(op: str, **which: int) -> float:
        return kernel**2 / form_of(op, which, pair).saving(pair, out)

    sizes = [int(size) for size in _native.fft_sizes("avx2") if size >= kernel]
    winograd = [f"{each('winograd', m=m):.2f}" if m in WINOGRAD_TILES.get(pair, ()) else "—" for m in (2, 4, 6)]
    fft = [f"{each('fft', tile=t):.2f}" if t in sizes else "—" for t in (8, 16, 32, 64)]
    best = min(sizes, key=lambda t: each("fft", tile=t))
    return [str(kernel), str(kernel**2), *winograd, *fft, f"{best}: {each('fft', tile=best):.2f}"]


def test_the_page_counts_right() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = text.partition("| k | direct |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert shown == [counted(k) for k in (3, 5, 7, 11, 15, 31)]
    # Three numbers of each complex one are kept, for a product of three multiplications.
    spectra = 4 * form_of("fft", {"tile": 60}, (3, 3)).products * 64 * 64
    assert f"take {spectra / 1e6:.0f} MB, which no L2 holds" in " ".join(text.split())


def test_tables_hold_figures_goals_and_provenance() -> None:
    goals = cell().goals
    ours = engine("fastcnn", error=2e-6)
    cells = (
        replace(cell(ours, engine("torch", 0.2), engine("openvino", 0.31), engine("mnn", 0.5)), settings=SETTINGS),
        replace(cell(failure="a | b", row="training", goals=goals), settings=SETTINGS),
    )
    points = [replace(p, settings=SETTINGS, commit="0123456789abcdef-dirty") for p in by_kernel()]
    found = tables(result(*points, cells=cells))
    assert (
        "| `k5-c64-m56-b1`, inference | 2.00 | 10 % | 0.310 (0.3) openvino | 0.500 mnn | 2e-06 / 1e-06 |"
        in found["peers"]
    )
    assert "0.310 of openvino's time, the goal is 0.3" in found["peers"]
    assert "| `k5-c64-m56-b1`, training step | | | | | | a \\| b |" in found["peers"]
    assert "A Processor (avx512); 2 threads; 3 rounds of 1.5 s; fastcnn 1; torch 1" in found["peers"]
    assert "commit c0ffee." in found["peers"]
    assert "commit 0123456789-dirty." in found["by-kernel"]
    assert found["by-kernel"].endswith("(crossover.png)")
    # 0.01 k^2 against 0.5, each with a second round a tenth slower.
    assert f"| 31 | {_middle(31):.3f} | 0.525 | `fft:32` | 19.2 |" in found["by-kernel"]
    assert f"| 7 | {_middle(7):.3f} | {_middle(7):.3f} | `direct` | 1.0 |" in found["by-kernel"]
    assert "| kernel size k |  | avx512 | 2.00 |" in found["along"]
    assert "| 9 | 3: direct, 5: direct, 7: direct, 9: fft:32" in found["along"]


def _middle(kernel: int) -> float:
    """Direct's time in ``by_kernel``."""
    ms = 0.01 * kernel * kernel
    return statistics.median([ms, 1.1 * ms])


SETTINGS = {"threads": 2, "rounds": 3, "seconds": 1.5}


def test_a_line_without_a_crossover_says_never() -> None:
    slow = [point(Layer(kernel=k), {"direct": 0.1, "fft:32": 1.0}) for k in (3, 5)]
    slow = [replace(p, settings=SETTINGS) for p in slow]
    found = tables(result(*slow, cells=(replace(cell(engine("fastcnn"), engine("torch", 0.2)), settings=SETTINGS),)))
    assert "| never | 3: direct, 5: direct |" in found["along"]


def test_failed_algorithms_are_no_best() -> None:
    failed = AlgorithmTime(algorithm="fft:64", failure="outputs are not finite")
    points = [replace(p, settings=SETTINGS, algorithms=(*p.algorithms, failed)) for p in by_kernel()]
    found = tables(result(*points, cells=(replace(cell(engine("fastcnn"), engine("torch", 0.2)), settings=SETTINGS),)))
    assert "fft:64" not in found["by-kernel"]


def test_the_writer_changes_its_places_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, page = tmp_path / "k.json", tmp_path / "page.md"
    cells = (replace(cell(engine("fastcnn"), engine("torch", 0.2)), settings=SETTINGS),)
    source.write_text(result(*[replace(p, settings=SETTINGS) for p in by_kernel()], cells=cells).dumps())
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    words = [str(source), str(page)]
    assert main([*words, "--check"]) == 1
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert main(words) == 0
    assert main([*words, "--check"]) == 0
    assert PLACES.sub("", page.read_text(encoding="utf-8")) == PLACES.sub("", PAGE.read_text(encoding="utf-8"))
    page.write_text("no places")
    assert main(words) == 2
    assert "no place for table 'peers'" in capsys.readouterr().err
    source.write_text("{}")
    assert main(words) == 2
    assert "no JSON of bench --kernels" in capsys.readouterr().err


def test_a_record_without_layers_or_kernels_makes_no_page() -> None:
    with pytest.raises(ValueError, match="needs the rows layers and by-kernel"):
        tables(result(*by_kernel()))
    with pytest.raises(ValueError, match="needs the rows layers and by-kernel"):
        tables(result(cells=(cell(failure="x"),)))
    with pytest.raises(ValueError, match="no place for table 'a'"):
        put("<!-- table:a -->\nnever closed", {"a": "b"})
