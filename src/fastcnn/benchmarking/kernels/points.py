"""A point of the charts: our algorithms on one layer at one instruction set, in rounds of fresh processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require
from fastcnn.benchmarking.files import EXACT, INPUTS
from fastcnn.benchmarking.kernels.layer import Layer
from fastcnn.benchmarking.kernels.process import run_task_apart
from fastcnn.benchmarking.kernels.records import AlgorithmTime
from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.results import BUSY_PER_S
from fastcnn.benchmarking.settle import random_pictures

POINT_SHARE = 0.1
"""A block of one algorithm is that share of a block of an engine: a point has ten algorithms or so."""


def time_point(
    layer: Layer,
    isa: str,
    *,
    threads: int,
    rounds: int,
    seconds: float,
    warmup_s: float,
    say: Callable[[str], None],
) -> tuple[AlgorithmTime, ...]:
    """Time every algorithm on one layer.

    Each round is a fresh process, capped to ``isa``, in which the algorithms run one after the other. The first one
    finds the fastest way to share each of them out; the others keep to it.

    Raises
    ------
    EngineFailedError
        (a RuntimeError) If the process fails, or runs another instruction set.
    """
    answers: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory(prefix="fastcnn-point-") as name:
        folder = Path(name)
        (x,) = random_pictures(1, layer.shape, seed=7)
        np.save(folder / INPUTS, x)
        np.save(folder / EXACT, _exact(layer, x))
        for number in range(rounds):
            say(f"{isa}, {layer.name}: round {number + 1} of {rounds}")
            chosen = {a["algorithm"]: a["way"] for a in answers[0]} if answers else {}
            task = Task(
                kind="algorithms", layer=layer.to_json(), folder=name, threads=threads, chosen=chosen,
                warmup_s=POINT_SHARE * warmup_s, seconds=POINT_SHARE * seconds, result=str(folder / "answer.json"),
            )  # fmt: skip
            answer = run_task_apart(task, isa=isa)
            if answer["isa"] != isa:
                raise EngineFailedError(f"the process ran {answer['isa']}, not {isa}")
            if answer["preempted_per_s"] > BUSY_PER_S:
                say(busy(layer, isa, answer["preempted_per_s"]))
            answers.append(answer["algorithms"])
    return join(answers)


def busy(layer: Layer, who: str, preempted_per_s: float) -> str:
    """A sentence on a process that had to share its cores: its times are not to be trusted."""
    return f"{layer.name}: {who} was interrupted {preempted_per_s:.0f} times a second: the machine was busy"


def join(rounds: Sequence[Sequence[dict[str, Any]]]) -> tuple[AlgorithmTime, ...]:
    """Put the rounds together; an algorithm that failed in one of them has no figures.

    Raises
    ------
    ValueError
        If the rounds did not try the same algorithms.
    """
    names = [[record["algorithm"] for record in records] for records in rounds]
    if any(tried != names[0] for tried in names):
        raise ValueError(f"the rounds tried different algorithms: {names}")
    found = []
    for records in zip(*rounds, strict=True):
        failure = next((record["failure"] for record in records if record["failure"]), "")
        if failure:
            found.append(AlgorithmTime(algorithm=records[0]["algorithm"], failure=failure))
            continue
        found.append(
            AlgorithmTime(
                algorithm=records[0]["algorithm"],
                block_ms=tuple(float(record["ms"]) for record in records),
                way=records[-1]["way"],
                error=max(float(record["error"]) for record in records),
            )
        )
    return tuple(found)


def _exact(layer: Layer, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The layer's output in float64."""
    torch: Any = require("torch", extra="compress", purpose="checking a layer's outputs")
    with torch.inference_mode():
        y: npt.NDArray[np.float64] = layer.module().double()(torch.from_numpy(x).double()).numpy()
    return y
