"""One process, one job: ``python -m fastcnn.benchmarking.worker JOB.json``.

Engines that share a process disturb each other (idle threads spin), and a process that waits for its turn loses its
huge pages; so every timed block gets a fresh process, which opens the engine, warms up, times and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.engines.ours import OurEngine
from fastcnn.benchmarking.files import FCNN, INPUTS
from fastcnn.benchmarking.job import Job

_MIN_WARMUP_CALLS = 2
_MIN_TIMED_CALLS = 3


def run_job(job: Job) -> dict[str, Any]:
    """Do what the job says and return the answer that goes into its result file.

    Raises
    ------
    ValueError
        If the engine or its variant is unknown.
    """
    if job.engine not in ENGINES:
        raise ValueError(f"engine={job.engine!r} is unknown: choose from {sorted(ENGINES)}")
    engine = ENGINES[job.engine]()
    if job.variant not in engine.variants:
        raise ValueError(f"variant={job.variant!r} is unknown to {job.engine}: choose from {engine.variants}")
    folder = Path(job.folder)
    inputs = np.load(folder / INPUTS, allow_pickle=False)
    if job.task == "convert":
        engine.convert(folder, inputs[0])
        return {"engine": job.engine, "version": engine.version()}
    if job.task == "tune":
        return _tune(folder, threads=job.threads, tolerance=job.tolerance)
    if job.task == "profile" and not isinstance(engine, OurEngine):
        raise ValueError(
            f"engine={job.engine!r} cannot be profiled: its steps are not known; choose {OurEngine.name!r}"
        )
    start = time.perf_counter()
    call = engine.open(folder, inputs[0], threads=job.threads, variant=job.variant)
    opened = time.perf_counter() - start
    if job.outputs:
        np.save(job.outputs, np.stack([np.array(call(x), dtype=np.float32, copy=True) for x in inputs]))
    if job.task == "profile":
        from fastcnn.benchmarking.profile.block import profile_block

        del call  # two nets would share the caches
        profiled: dict[str, Any] = profile_block(
            folder / FCNN, inputs[0], threads=job.threads, warmup_s=job.warmup_s, seconds=job.seconds
        )
        return profiled
    x = inputs[0]
    before, start = _preemptions(), time.perf_counter()
    with _evicting(job.evict_bytes, job.threads) as between:
        times = time_block(lambda: call(x), warmup_s=job.warmup_s, seconds=job.seconds, between=between)
    preempted = (_preemptions() - before) / (time.perf_counter() - start)
    return {
        "engine": job.engine,
        "variant": job.variant,
        "version": engine.version(),
        "threads": job.threads,
        "open_s": opened,
        "calls": len(times),
        "median_ms": float(np.median(times)) * 1e3,
        "min_ms": float(np.min(times)) * 1e3,
        "p90_ms": float(np.percentile(times, 90)) * 1e3,
        "preempted_per_s": preempted,
        "torch_loaded": "torch" in sys.modules,
    }


def _preemptions() -> int:
    """How often the system has taken a core from a thread of this process that still wanted it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _tune(folder: Path, *, threads: int, tolerance: str) -> dict[str, Any]:
    """Give our file a plan tuned in this process, for its instruction set."""
    from fastcnn.engine.api import load

    word: Any = tolerance
    with contextlib.suppress(ValueError):  # else it is a word
        word = float(tolerance)
    net: Any = load(folder / FCNN, threads=threads, plan="tune", tolerance=word)
    net.save(folder / FCNN)
    return {"isa": str(net.isa), "plan": str(net.plan)}


@contextlib.contextmanager
def _evicting(size: int, threads: int) -> Iterator[Callable[[], object] | None]:
    """Yield what makes so many cores read ``size`` bytes that are nothing to the engine; None if there are none."""
    if not size:
        yield None
        return
    others = [np.ones(max(1, size // 8 // threads)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        yield lambda: list(pool.map(np.sum, others))


def time_block(
    call: Any, *, warmup_s: float, seconds: float, between: Callable[[], object] | None = None
) -> list[float]:
    """Call for ``warmup_s`` seconds unmeasured, then for ``seconds``; return the seconds of each measured call.

    At least two warm-up calls and three measured ones, however long they take. ``between`` is called before each
    measured call, and its time is part of ``seconds`` but of no call.
    """
    clock = time.perf_counter
    end, calls = clock() + warmup_s, 0
    while calls < _MIN_WARMUP_CALLS or clock() < end:
        call()
        calls += 1
    times: list[float] = []
    end = clock() + seconds
    while len(times) < _MIN_TIMED_CALLS or clock() < end:
        if between is not None:
            between()
        start = clock()
        call()
        times.append(clock() - start)
    return times


def main(arguments: list[str]) -> int:
    """Run the job file named by the one argument; 2 if it is bad, 1 if the engine fails."""
    if len(arguments) != 1:
        print("usage: python -m fastcnn.benchmarking.worker JOB.json", file=sys.stderr)
        return 2
    try:
        job = Job.read(Path(arguments[0]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        answer = run_job(job)
    except Exception as error:
        # The parent shows the last line; the traceback above it helps whoever debugs an engine.
        if os.environ.get("FASTCNN_TRACEBACK") == "1":
            raise
        text = " ".join(str(error).split())
        print(f"error: {type(error).__name__}: {text}", file=sys.stderr)
        return 1
    finished = Path(job.result)
    partial = finished.with_suffix(".partial")
    partial.write_text(json.dumps(answer), encoding="utf-8")
    partial.replace(finished)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
