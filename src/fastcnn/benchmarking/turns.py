"""Models and engines timed in turn, every block in a fresh process: what small benchmarks of one question share."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.export import compile_ours, export_model
from fastcnn.benchmarking.files import EXACT
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import run_worker

if TYPE_CHECKING:
    from torch import nn

TIMEOUT_S = 600.0
_WARMUP_S = 0.3
Times = dict[str, list[float]]
"""Milliseconds by label, one for each round."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that is timed: an engine with a model in a folder."""

    label: str
    engine: str
    variant: str
    folder: Path


def own_entry(
    label: str,
    model: nn.Module,
    inputs: npt.NDArray[np.float32],
    folder: Path,
    *,
    tolerance: str,
    threads: int,
    peers: Sequence[str] = (),
) -> Entry:
    """Compile a model for our engine, and export it for peers, into a new folder.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    inputs : ndarray, shape (K, N, ...)
        Batches; the first is timed, all are compared with float64.
    """
    folder.mkdir()
    export_model(model, inputs, folder, engines=peers)
    compile_ours(model, inputs, folder, tolerance=tolerance, threads=threads)
    return Entry(label=label, engine="fastcnn", variant="default", folder=folder)


def error_of(entry: Entry, *, threads: int) -> float:
    """Largest error of the entry's outputs against the model in float64.

    Raises
    ------
    EngineFailedError
        If the engine fails.
    """
    outputs = entry.folder / "outputs.npy"
    run_worker(_job(entry, threads=threads, seconds=0.0, outputs=str(outputs)), timeout_s=TIMEOUT_S)
    got, exact = np.load(outputs, allow_pickle=False), np.load(entry.folder / EXACT, allow_pickle=False)
    pictures = exact.shape[0] * exact.shape[1]
    return relative_error(got.reshape(pictures, -1), exact.reshape(pictures, -1))


def time_in_turns(
    entries: Sequence[Entry],
    *,
    threads: int,
    rounds: int,
    seconds: float,
    evicted: Mapping[str, int],
    advance: Callable[..., None],
) -> dict[str, Times]:
    """Time all entries once in every round, in each state; every round in an order of its own.

    Parameters
    ----------
    evicted : mapping of str to int
        States by name, and the bytes of other memory that are read between calls in each.
    advance : callable
        Told of every block.

    Raises
    ------
    EngineFailedError
        If an engine fails.
    """
    times: dict[str, Times] = {state: {entry.label: [] for entry in entries} for state in evicted}
    order = random.Random(0)
    for _ in range(rounds):
        for state, size in evicted.items():
            for entry in order.sample(entries, len(entries)):
                job = _job(entry, threads=threads, seconds=seconds, evict_bytes=size)
                times[state][entry.label].append(run_worker(job, timeout_s=TIMEOUT_S)["median_ms"])
                advance(note=f"{state}, {entry.label}")
    return times


def ratios(times: Mapping[str, Sequence[float]], ours: str, others: Sequence[str]) -> list[float]:
    """Ours over the fastest of the others, round by round."""
    return [own / min(times[label][i] for label in others) for i, own in enumerate(times[ours])]


def spread(values: Sequence[float]) -> str:
    """The middle half of the rounds, in words."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return f"{low:.3g} to {high:.3g}"


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of each label's rounds."""
    return {label: statistics.median(values) for label, values in times.items()}


def _job(entry: Entry, *, threads: int, seconds: float, **more: Any) -> Job:
    return Job(
        task="time",
        engine=entry.engine,
        variant=entry.variant,
        folder=str(entry.folder),
        threads=threads,
        warmup_s=_WARMUP_S,
        seconds=seconds,
        result=str(entry.folder / "result.json"),
        **more,
    )
