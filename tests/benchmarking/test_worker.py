"""The worker process: job files, answers, failures, and the length of a timed block."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from fastcnn.benchmarking.files import INPUTS
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import EngineFailedError, run_worker
from fastcnn.benchmarking.worker import main, time_block


def _job(folder: Path, **changes: object) -> Job:
    fields: dict[str, object] = {
        "task": "time",
        "engine": "fastcnn",
        "variant": "default",
        "folder": str(folder),
        "threads": 1,
        "warmup_s": 0.0,
        "seconds": 0.0,
        "result": str(folder / "result.json"),
        **changes,
    }
    return Job(**fields)  # type: ignore[arg-type]


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = _job(tmp_path, seconds=2.5, outputs="y.npy")
    (tmp_path / "job.json").write_text(job.dumps(), encoding="utf-8")
    assert Job.read(tmp_path / "job.json") == job


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[]", "holds list"),
        ('{"task": "time"}', "expected exactly"),
        ("task=7", "task=7 is of a wrong kind"),
        ("task='fly'", "task='fly'"),
        ("threads='2'", "threads='2' is of a wrong kind"),
        ("threads=True", "threads=True is of a wrong kind"),
        ("seconds=None", "seconds=None is of a wrong kind"),
    ],
)
def test_bad_job_files(tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.json"
    if "=" in text:
        name, _, value = text.partition("=")
        path.write_text(_job(tmp_path).dumps(), encoding="utf-8")
        data = json.loads(path.read_text())
        data[name] = {"7": 7, "'fly'": "fly", "'2'": "2", "True": True, "None": None}[value]
        text = json.dumps(data)
    path.write_text(text)
    assert main([str(path)]) == 2
    assert words in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"engine": "tvm"}, "engine='tvm' is unknown"), ({"variant": "odd"}, "variant='odd' is unknown to fastcnn")],
)
def test_unknown_words_fail_with_their_reason(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    np.save(tmp_path / INPUTS, np.zeros((1, 1, 1, 2, 2), np.float32))
    with pytest.raises(EngineFailedError, match=words):
        run_worker(_job(tmp_path, **changes), timeout_s=120)
    assert not (tmp_path / "result.json").exists()


def test_an_old_answer_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    np.save(tmp_path / INPUTS, np.zeros((1, 1, 1, 2, 2), np.float32))
    (tmp_path / "result.json").write_text('{"median_ms": 1}')
    with pytest.raises(EngineFailedError, match="fastcnn: "):
        run_worker(_job(tmp_path), timeout_s=120)


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    np.save(tmp_path / INPUTS, np.zeros((1, 1, 1, 2, 2), np.float32))
    with pytest.raises(EngineFailedError, match="no answer within"):
        run_worker(_job(tmp_path), timeout_s=0.01)


def test_a_block_is_as_long_as_asked() -> None:
    calls = []
    start = time.perf_counter()
    times = time_block(lambda: calls.append(time.sleep(0.002)), warmup_s=0.05, seconds=0.1)
    wall = time.perf_counter() - start
    assert 0.15 <= wall < 2
    assert len(calls) > len(times) >= 3
    assert min(times) >= 0.002


def test_what_happens_between_calls_is_not_timed() -> None:
    order: list[str] = []

    def between() -> None:
        order.append("between")
        time.sleep(0.01)

    times = time_block(lambda: order.append("call"), warmup_s=0, seconds=0, between=between)
    assert order == ["call", "call", *["between", "call"] * 3]
    assert max(times) < 0.01


def test_a_slow_net_is_still_warmed_up_and_timed() -> None:
    calls = []
    assert len(time_block(lambda: calls.append(1), warmup_s=0, seconds=0)) >= 3
    assert len(calls) >= 5
