"""Where words go: results on stdout, the rest on stderr, files whole or not at all."""

from __future__ import annotations

import io
import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fastcnn.cli.output import emit, plain, progress_bar, results_only, write_atomically


def test_prints_in_between_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with results_only():
        print("noise")
        emit(True, {"a": 1}, "text")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert err == "noise\n"


def test_plain_covers_what_results_hold() -> None:
    @dataclass
    class Record:
        path: Path
        values: np.ndarray

    value = {"r": Record(Path("a/b"), np.arange(2)), "n": np.float32(0.5), "bad": float("nan"), 3: {1}, "b": b"\x01"}
    assert plain(value) == {"r": {"path": "a/b", "values": [0, 1]}, "n": 0.5, "bad": "nan", "3": [1], "b": "01"}
    json.dumps(plain(value), allow_nan=False)


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("working", 3) as advance:
        for _ in range(3):
            advance(1, "note")
    assert stream.getvalue().strip() == ""


def test_writing_is_atomic(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    write_atomically(target, "one")
    write_atomically(target, "two")
    assert target.read_text() == "two"
    assert stat.S_IMODE(target.stat().st_mode) & 0o444 == 0o444 & ~_umask()
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "half \udcff")
    assert target.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def _umask() -> int:
    import os

    current = os.umask(0)
    os.umask(current)
    return current
