"""One process, one task of ``bench --kernels``: ``python -m fastcnn.benchmarking.kernels.worker TASK.json``.

A training step of one engine, or our own algorithms on one layer. The process ends with its block, as everywhere in
this package (:mod:`fastcnn.benchmarking.worker`).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastcnn.benchmarking.files import EXACT, INPUTS
from fastcnn.benchmarking.kernels.layer import Layer


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the process is told.

    Parameters
    ----------
    kind : {"training", "algorithms"}
    layer : dict
        Fields of the :class:`Layer`.
    folder : str
        Holds the input, and the exact outputs for ``algorithms``.
    threads : int
    warmup_s, seconds : float
    result : str
        The answer (JSON) goes there, last of all.
    engine, variant : str
        For ``training``.
    outputs : str
        For ``training``: where to save what a step computes (.npz), if not empty.
    chosen : dict
        For ``algorithms``: algorithm to the label of the way it is shared out, as found by an earlier round.
    """

    kind: Literal["training", "algorithms"]
    layer: dict[str, Any]
    folder: str
    threads: int
    warmup_s: float
    seconds: float
    result: str
    engine: str = "fastcnn"
    variant: str = "default"
    outputs: str = ""
    chosen: dict[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def run_task(task: Task) -> dict[str, Any]:
    """Do it and return the answer.

    Raises
    ------
    ValueError
        If the kind, or an engine of training, is unknown.
    """
    layer, folder = Layer(**task.layer), Path(task.folder)
    if task.kind == "training":
        from fastcnn.benchmarking.kernels.training import training_block

        return training_block(
            layer, folder, engine=task.engine, variant=task.variant, threads=task.threads, warmup_s=task.warmup_s,
            seconds=task.seconds, outputs=task.outputs,
        )  # fmt: skip
    if task.kind == "algorithms":
        return _algorithms(layer, folder, task)
    raise ValueError(f"kind={task.kind!r} is unknown: choose 'training' or 'algorithms'")


def _algorithms(layer: Layer, folder: Path, task: Task) -> dict[str, Any]:
    from fastcnn import _native
    from fastcnn.benchmarking.kernels.algorithms import CompiledLayer, time_algorithms
    from fastcnn.engine.plan.candidates import make_target

    isa = str(_native.host()["isa_active"])
    x = np.load(folder / INPUTS, allow_pickle=False)
    exact = np.load(folder / EXACT, allow_pickle=False)
    compiled = CompiledLayer.make(layer, make_target(isa, task.threads))
    # A core that was idle takes a while to come up to speed.
    end = time.perf_counter() + task.warmup_s
    while time.perf_counter() < end:
        compiled.run(x)
    found = time_algorithms(compiled, x, exact, seconds=task.seconds, chosen=task.chosen)
    return {"isa": isa, "algorithms": found}


def main(arguments: list[str]) -> int:
    """Run the task file named by the one argument; 2 if it is bad, 1 if the task fails."""
    if len(arguments) != 1:
        print("usage: python -m fastcnn.benchmarking.kernels.worker TASK.json", file=sys.stderr)
        return 2
    try:
        task = Task(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        print(f"error: task file {arguments[0]} cannot be read: {error}", file=sys.stderr)
        return 2
    try:
        start = time.perf_counter()
        answer = run_task(task)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        # How often a second the system took a core from a thread of this process that still wanted it.
        answer["preempted_per_s"] = taken / (time.perf_counter() - start)
    except Exception as error:
        # The parent shows the last line; the traceback above it helps whoever debugs a kernel.
        if os.environ.get("FASTCNN_TRACEBACK") == "1":
            raise
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finished = Path(task.result)
    partial = finished.with_suffix(".partial")
    partial.write_text(json.dumps(answer), encoding="utf-8")
    partial.replace(finished)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
