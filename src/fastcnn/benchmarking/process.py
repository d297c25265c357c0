"""Start one worker process with its threads and instruction set fixed, and bring its answer back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastcnn.benchmarking.job import Job

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class EngineFailedError(RuntimeError):
    """A worker ended without an answer; the message names engine and reason."""


def run_worker(job: Job, *, timeout_s: float) -> dict[str, Any]:
    """Run a job in a fresh process and return its answer.

    Raises
    ------
    EngineFailedError
        If the process fails, dies of a signal, takes longer than ``timeout_s`` or writes no answer.
    """
    return run_apart(
        "fastcnn.benchmarking.worker", job.dumps(), Path(job.result), what=job.engine, threads=job.threads,
        isa=job.isa, timeout_s=timeout_s,
    )  # fmt: skip


def run_apart(
    module: str, order: str, result: Path, *, what: str, threads: int, isa: str, timeout_s: float
) -> dict[str, Any]:
    """Run ``python -m module FILE`` in a fresh process and return the JSON that it writes to ``result``.

    Parameters
    ----------
    module : str
    order : str
        Contents of FILE.
    result : Path
    what : str
        Begins the message of an error.
    threads : int
    isa : str
        FASTCNN_ISA of the process; empty for none.
    timeout_s : float

    Raises
    ------
    EngineFailedError
        If the process fails, dies of a signal, takes too long or writes no answer.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    if isa:
        environment["FASTCNN_ISA"] = isa
    source = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH", ""))))
    result.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="fastcnn-job-") as folder:
        path = Path(folder) / "job.json"
        path.write_text(order, encoding="utf-8")
        try:
            # -P: a file in the current folder must not shadow a library.
            done = subprocess.run(
                [sys.executable, "-P", "-m", module, str(path)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineFailedError(f"{what}: no answer within {timeout_s:.0f} s") from error
    text = done.stdout.decode("utf-8", errors="replace")
    if done.returncode != 0 or not result.is_file():
        raise EngineFailedError(f"{what}: {_reason(done.returncode, text)}")
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return answer


def _reason(code: int, text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    stated = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = stated[-1] if stated else (lines[-1] if lines else "no output")
    return f"died of signal {-code} ({last})" if code < 0 else f"{last}"
