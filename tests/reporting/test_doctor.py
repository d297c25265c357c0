"""doctor: what it reports, what it derives, and where each figure comes from."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from fastcnn.reporting import doctor
from fastcnn.reporting import host as host_module
from fastcnn.reporting.expectations import expectations, padded_saving, winograd_saving
from fastcnn.reporting.host import commit, host_facts, physical_cores


def test_winograd_savings_are_those_of_the_paper() -> None:
    assert winograd_saving(2) == Fraction(9, 4)
    assert winograd_saving(4) == 4
    assert winograd_saving(6) == Fraction(324, 64)
    assert padded_saving(4, 56) == 4
    # 14 = 2 tiles of 6 and one that sticks out by 4: count the multiplications one by one.
    tiles = sum(1 for _ in range(0, 14, 6)) ** 2
    assert padded_saving(6, 14) == Fraction(14 * 14 * 9, tiles * 64)
    assert padded_saving(4, 14) > padded_saving(6, 14) * Fraction(99, 100)


def test_expectations_follow_from_the_two_limits() -> None:
    rows = expectations(100.0, 50.0)
    direct = [row for row in rows if row.method == "direct"]
    assert direct[0].ms == pytest.approx(56 * 56 * 64 * 64 * 9 / 100e9 * 1e3)
    for row in rows:
        base = next(r for r in rows if r.layer == row.layer)
        assert row.ms * row.speedup == pytest.approx(base.ms)
    linear = {row.method: row for row in rows if row.layer.startswith("linear")}
    assert linear["fp32 weights"].ms == pytest.approx(25088 * 4096 * 4 / 50e9 * 1e3)
    assert linear["8-bit codes"].speedup == pytest.approx(4)
    slow_arithmetic = {row.method: row for row in expectations(10.0, 50.0) if row.layer.startswith("linear")}
    assert slow_arithmetic["4-bit codes"].speedup == pytest.approx(1)
    assert "arithmetic" in slow_arithmetic["4-bit codes"].reason
    with pytest.raises(ValueError, match="fma_gmacs=0"):
        expectations(0, 1)


def test_report_is_json_and_text() -> None:
    report = doctor()
    data = json.loads(json.dumps(report.to_json()))
    assert data["measured"] is None
    assert data["versions"]["numpy"]
    text = str(report)
    assert data["host"]["cpu"] in text
    assert "not measured: doctor --measure" in text


def test_measured_and_derived_are_told_apart() -> None:
    report = doctor(measure=True, threads=1)
    assert report.measured is not None
    # Between a thousandth and a thousand times of what a core of the last twenty years does.
    assert 0.1 < report.measured["fma_gmacs"] < 10_000
    assert 0.1 < report.measured["read_gbps"] < 10_000
    assert report.expected == tuple(expectations(report.measured["fma_gmacs"], report.measured["read_gbps"]))
    assert "derived from these two figures" in str(report)
    with pytest.raises(ValueError, match="threads=0"):
        doctor(threads=0)


def test_what_is_missing_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    gone = {"torch", "ncnn", "safetensors"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else real(name, *a))
    report = doctor()
    assert "torch" in report.missing["compress"]
    assert "ncnn" in report.missing["bench"]
    assert any("safetensors is missing" in problem for problem in report.problems)
    assert not report.healthy
    assert 'pip install "fastcnn[bench]"' in str(report)


def test_without_the_native_module_it_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from fastcnn.reporting import doctor as verb  # noqa: F401

    monkeypatch.setattr(sys.modules["fastcnn.reporting.doctor"], "native", lambda: None)
    monkeypatch.setattr(host_module, "native", lambda: None)
    report = doctor(measure=True)
    assert report.measured is None
    assert any("make build" in problem for problem in report.problems)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path / "c"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "plan").write_bytes(b"12345")
    cache = doctor().cache
    assert (cache["folder"], cache["files"], cache["bytes"]) == (str(tmp_path / "c"), 1, 5)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path / "file" / "c"))
    report = doctor()
    assert not report.cache["writable"]
    assert any("FASTCNN_CACHE" in problem for problem in report.problems)


def test_host_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCNN_ISA", "avx2")
    facts = host_facts()
    assert facts["isa_cap"] == "avx2"
    assert 1 <= facts["cores"] <= facts["usable_cpus"]
    assert physical_cores() == facts["cores"]
    assert facts["memory_bytes"] > 1 << 28


def test_commit_is_ours_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = commit()
    assert inside is None or len(inside.removesuffix("-dirty")) == 40
    monkeypatch.setattr(host_module, "__file__", str(tmp_path / "host.py"))
    assert commit() is None


def test_records_do_not_make_a_commit_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: tmp_path / name for name in ("src/host.py", "other.py", "benchmarks/results/zoo.json")}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1", encoding="utf-8")
    me = ["-c", "user.name=a test", "-c", "user.email=a@test"]
    for words in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(host_module, "__file__", str(files["src/host.py"]))
    clean = commit()
    assert clean is not None
    assert len(clean) == 40
    files["benchmarks/results/zoo.json"].write_text("2", encoding="utf-8")
    (tmp_path / "untracked").write_text("2", encoding="utf-8")
    assert commit() == clean
    files["other.py"].write_text("2", encoding="utf-8")
    assert commit() == f"{clean}-dirty"


def test_installed_survives_importers_that_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    assert host_module.installed("numpy")
    assert not host_module.installed("not_a_module_of_anyone")
    assert not host_module.installed("not_a_module_of_anyone.inside")

    def refuse(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", refuse)
    assert not host_module.installed("numpy")
