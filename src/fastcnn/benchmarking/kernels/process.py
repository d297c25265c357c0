"""Run a task of this package in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import run_apart

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
    return run_apart(
        "fastcnn.benchmarking.kernels.worker", task.dumps(), Path(task.result), what=f"{task.engine}, {task.kind}",
        threads=task.threads, isa=isa, timeout_s=TIMEOUT_S + 10 * (task.seconds + task.warmup_s),
    )  # fmt: skip
