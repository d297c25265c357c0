"""What ``fastcnn bench --kernels`` refuses: one error line, exit code 2, nothing measured and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastcnn.benchmarking.kernels import run
from fastcnn.cli.errors import BAD_INPUT, INTERNAL
from fastcnn.cli.main import run_cli
from fastcnn.reporting import host
from tests.benchmarking.kernel_results import result


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every measurement is a failure of the test."""

    def measured(*given: Any, **more: Any) -> Any:
        raise AssertionError("something was measured")

    for name in ("_inference", "_training", "time_point"):
        monkeypatch.setattr(run, name, measured)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "other.json").write_text(result().dumps())


BAD = [
    (("--rows", "none"), "--rows 'none' is not known; allowed: layers, training, by-kernel, depthwise, "),
    (("--rows", ","), "--rows ',' is not known"),
    (("--rows", "layers,by-size"), "--rows 'layers,by-size' is not known"),
    (("--only", "k4-c64-m56-b1"), "--only 'k4-c64-m56-b1' is not in layers, training"),
    (("--rows", "training", "--only", "k5-c64-m56-b1"), "is not in training; allowed: k7-c64-m56-b16"),
    (("--rows", "layers", "--png", "k.png"), "--png draws charts, and --rows layers measures none"),
    (("--html", "k.htm"), "--html 'k.htm' must end in .html"),
    (("--png", "k.jpg"), "--png 'k.jpg' must end in .png"),
    (("--out", "folder"), "must end in .json"),
    (("--out", "missing/k.json"), "does not exist"),
    (("--out", "bad.json"), "--out 'bad.json' cannot be continued: this is no JSON of bench --kernels"),
    (("--out", "other.json"), "it was measured on 'A Processor', this machine is"),
    (("--rounds", "0"), "--rounds 0"),
    (("--threads", "0"), "--threads 0"),
    (("--seconds", "nan"), "seconds=nan is not allowed"),
    (("--suite", "exact"), "so --suite cannot be used with it"),
    (("net:Net",), "so MODEL cannot be used with it"),
    (("--against", "torch", "--batch", "8"), "so --against and --batch cannot be used with it"),
    (("--shape", "1,3,8,8"), "so --shape cannot"),
    (("--size", "32"), "so --size cannot"),
    (("--tolerance", "exact"), "so --tolerance cannot"),
    (("--goal", "torch=0.5"), "so --goal cannot"),
    (("--profile",), "so --profile cannot"),
    (("--require-limits",), "so --require-limits cannot"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_cannot_be_is_refused(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert run_cli(["bench", "--kernels", *words]) == BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "hint:" in err
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_the_picture_needs_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bench", "--suite", "foundation", "--png", "k.png"]) == BAD_INPUT
    assert "--png goes with --kernels" in capsys.readouterr().err


def test_a_missing_library_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastcnn._extras import MissingExtraError
    from fastcnn.cli import bench_kernels

    def absent(module: str, *, extra: str, purpose: str) -> None:
        raise MissingExtraError(f"{purpose} needs {module}: fastcnn[{extra}]")

    monkeypatch.setattr(bench_kernels, "require", absent)
    assert run_cli(["bench", "--kernels", "--png", "k.png"]) == BAD_INPUT
    assert "the charts (--png) needs matplotlib: fastcnn[report]" in capsys.readouterr().err


def test_a_file_of_this_machine_is_continued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = host.host_facts()
    monkeypatch.setattr(host, "host_facts", lambda: {**facts, "cpu": "A Processor"})
    assert run_cli(["bench", "--kernels", "--out", "other.json"]) == INTERNAL
    assert "something was measured" in capsys.readouterr().err
