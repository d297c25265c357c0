"""One profiled block, inside a worker process: the machine's limits, then the steps of the running chain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn import _native
from fastcnn.benchmarking.profile.work import step_work
from fastcnn.benchmarking.worker import time_block

_LEAST_REPEATS = 5
_MOST_REPEATS = 10_000
_L3_MULTIPLE = 8
_BUFFER_MIB = (256, 1024)


def buffer_mib(l3_bytes: int) -> int:
    """Size of the buffer that is read to measure the bandwidth: far beyond L3, so that memory is measured.

    A virtual machine may report the whole package's L3, so there is an upper end too.
    """
    least, most = _BUFFER_MIB
    return min(most, max(least, _L3_MULTIPLE * l3_bytes >> 20))


def profile_block(
    file: Path, inputs: npt.NDArray[np.float32], *, threads: int, warmup_s: float, seconds: float
) -> dict[str, Any]:
    """Measure one net and the limits it is held against, in this process.

    Parameters
    ----------
    file : Path
        A .fcnn file; its plan is followed.
    inputs : ndarray, shape (N, C, H, W)
    threads : int
    warmup_s, seconds : float
        Length of the warm-up and of the timed chain, in seconds.

    Returns
    -------
    dict
        ``limits``, ``steps``, ``call_ms``, ``repeats`` and the plan's facts, JSON-able.
    """
    from fastcnn.engine.api import load
    from fastcnn.engine.plan.tune import profile

    # Clock rate and neighbours change: the limits are taken on both sides of the chain, and the higher ones count.
    size = buffer_mib(int(_native.host()["l3_bytes"]))
    before = _measured_limits(threads, size)
    net: Any = load(file, threads=threads, plan="saved")
    # A file holds no torch step, so there is one native segment.
    (planned,) = net._shape_plan((inputs.shape,)).planned
    built, plan = planned.built, planned.plan
    calls = time_block(lambda: net.run([inputs]), warmup_s=warmup_s, seconds=seconds / 4)
    repeats = int(np.clip(0.75 * seconds / max(float(np.median(calls)), 1e-7), _LEAST_REPEATS, _MOST_REPEATS))
    start = time.perf_counter()
    times = profile(built, [inputs], repeats) * 1e3
    profiled_s = time.perf_counter() - start
    after = _measured_limits(threads, size)
    lanes = int(_native.lanes(built.net.isa))
    steps = []
    for i, (draft, candidate, described) in enumerate(zip(built.lowered.drafts, built.chosen, plan.steps, strict=True)):
        work = step_work(draft, candidate, lanes=lanes, weight_bytes=built.net.step_weight_bytes(i))
        steps.append(
            {
                "layer": described.layer,
                "source": described.source,
                "family": work.family,
                "kernel": described.kernel,
                "why": described.why,
                "error": described.error,
                **_spread(times[i]),
                "macs": work.macs,
                "multiplications": work.multiplications,
                "counted": work.counted,
                "weight_bytes": work.weight_bytes,
                "input_bytes": work.input_bytes,
                "output_bytes": work.output_bytes,
                "out_map": list(work.out_map),
            }
        )
    return {
        "limits": {
            "isa": str(built.net.isa),
            "threads": threads,
            **{key: max(before[key], after[key]) for key in before},
            "buffer_mib": size,
        },
        "steps": steps,
        "call_ms": float(np.median(calls)) * 1e3,
        "repeats": repeats,
        "profiled_s": profiled_s,
        "plan_error": plan.error,
        "tolerance": plan.tolerance,
    }


def _measured_limits(threads: int, buffer_size: int) -> dict[str, float]:
    limits = {
        "fma_gmacs": float(_native.measure_fma_gmacs(threads)),
        "read_gbps": float(_native.measure_read_gbps(threads, buffer_size)),
    }
    if _native.bf16_pays(str(_native.host()["isa_active"])):
        limits["bf16_gmacs"] = float(_native.measure_bf16_gmacs(threads))
    if _native.amx(str(_native.host()["isa_active"])) == "native":
        limits["amx_gmacs"] = float(_native.measure_amx_gmacs(threads))
    return limits


def _spread(times: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    low, middle, high = np.percentile(times, [10, 50, 90])
    return {"ms": float(middle), "spread": float((high - low) / middle) if middle > 0 else 0.0}
