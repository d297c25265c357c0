"""Start a worker of this package with its threads and instruction set fixed, and bring its answer back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import EngineFailedError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
TIMEOUT_S = 900


def run_task_apart(task: Task, *, isa: str = "") -> dict[str, Any]:
    """Run a task in a fresh process and return its answer.

    Parameters
    ----------
    task : Task
    isa : str
        FASTCNN_ISA of the process; empty for none.

    Raises
    ------
    EngineFailedError
        If the process fails, dies of a signal, takes too long or writes no answer.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(task.threads))}
    if isa:
        environment["FASTCNN_ISA"] = isa
    source = str(Path(__file__).resolve().parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH", ""))))
    result, told = Path(task.result), Path(task.result).with_suffix(".task")
    result.unlink(missing_ok=True)
    told.write_text(task.dumps(), encoding="utf-8")
    # -P: a file in the current folder must not shadow a library.
    command = [sys.executable, "-P", "-m", "fastcnn.benchmarking.kernels.worker", str(told)]
    what = f"{task.engine}, {task.kind}"
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S + 10 * (task.seconds + task.warmup_s), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineFailedError(f"{what}: no answer within {error.timeout:.0f} s") from error
    if done.returncode != 0 or not result.is_file():
        lines = done.stdout.decode("utf-8", errors="replace").strip().splitlines() or ["no output"]
        stated = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = stated[-1] if stated else lines[-1]
        signal = f"died of signal {-done.returncode}: " if done.returncode < 0 else ""
        raise EngineFailedError(f"{what}: {signal}{last}")
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return answer
