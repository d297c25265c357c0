"""One step of the benchmark of binary convolutions, in a process of its own: one JSON file in, one out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

REPEATS, ROUNDS = 200, 3
"""Runs of a net in one profile, and profiles, of which the first warms up."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Prepare a cell, or time one call: of some steps of our net, in their place in it, or of a peer's layer.

    Parameters
    ----------
    job : dict
        ``task`` ("prepare" or "time"), ``folder``, ``threads``. To prepare: ``channels``, ``size``. To time: ``engine``
        and, of a peer, ``variant`` and ``seconds``, or of ours ``steps``, the names of their layers; ``onednn`` is the
        most that oneDNN may use, empty for all.

    Returns
    -------
    dict
        Jobs by label; or ``ms``, and of our steps ``limit``, 1e9 products of one bit per second.
    """
    if job["task"] == "prepare":
        from fastcnn.benchmarking.binary import Cell, prepare

        return prepare(Cell(channels=job["channels"], size=job["size"]), Path(job["folder"]), job["threads"])
    if job["onednn"]:
        os.environ["ONEDNN_MAX_CPU_ISA"] = job["onednn"]
    folder = Path(job["folder"])
    x = np.load(folder / "inputs.npy", allow_pickle=False)[0]
    if job["engine"] != "fastcnn":
        from fastcnn.benchmarking.engines import ENGINES
        from fastcnn.benchmarking.worker import time_block

        call = ENGINES[job["engine"]]().open(folder, x, threads=job["threads"], variant=job["variant"])
        times = time_block(lambda: call(x), warmup_s=0.2, seconds=job["seconds"])
        return {"ms": float(np.median(times)) * 1e3}
    return _own(folder, x, job["steps"], job["threads"])


def _own(folder: Path, x: Any, steps: list[str], threads: int) -> dict[str, float]:
    from fastcnn import _native
    from fastcnn.benchmarking.files import FCNN
    from fastcnn.engine.api import load
    from fastcnn.engine.plan.tune import profile

    limits = [float(_native.measure_bit_gmacs(threads))]
    net: Any = load(folder / FCNN, threads=threads, plan="saved")
    (planned,) = net._shape_plan((x.shape,)).planned
    places = [i for i, step in enumerate(planned.plan.steps) if step.layer in steps]
    if len(places) != len(steps):
        raise RuntimeError(f"of the steps {', '.join(steps)} the plan has {len(places)}")
    for _ in range(ROUNDS):
        times = profile(planned.built, [x], REPEATS)[places].sum(0)
    limits.append(float(_native.measure_bit_gmacs(threads)))
    return {"ms": float(np.median(times)) * 1e3, "limit": max(limits)}


def main() -> int:
    """``python -m fastcnn.benchmarking.binary_block JOB.json``."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        answer = run(job)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Path(job["result"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
