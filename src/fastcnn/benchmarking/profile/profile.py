"""profile: compile, save, and measure every step in fresh processes beside the machine's limits."""

from __future__ import annotations

import datetime
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.benchmarking.benchmark import CHECKED_BATCHES, Progress, Settings, checked_shape, named_models
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.export import compile_ours, export_model
from fastcnn.benchmarking.files import EXACT, FCNN, INPUTS
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.onnx_file import place_file
from fastcnn.benchmarking.process import run_worker
from fastcnn.benchmarking.profile.records import Limits, NetProfile, ProfileResult, StepProfile
from fastcnn.benchmarking.settle import random_pictures
from fastcnn.reporting.host import commit, default_threads, host_facts


def profile(
    models: Any,
    shape: Sequence[int] = (1, 3, 224, 224),
    *,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 3.0,
    warmup_s: float = 1.0,
    tolerance: str | float = "fp32",
    progress: Progress | None = None,
) -> ProfileResult:
    """Measure every step of our compiled net, and what the machine could do at most in the same run.

    Each round is a fresh process that measures the fp32 peak and the read bandwidth with all threads at once, then runs
    the net and reads the clock between its steps.

    Parameters
    ----------
    models : nn.Module, path of a .fcnn file, mapping of name to either, or iterable of (name, model)
    shape : sequence of int
        Input shape (N, C, H, W).
    threads : int, optional
        Default: the physical cores this process may use.
    rounds, seconds, warmup_s : number
        Processes per net; length of the measured chain and of its warm-up, in seconds.
    tolerance : str or float
        See ``fastcnn.compile``.
    progress : callable, optional
        Called with a line of text before each step.

    Returns
    -------
    ProfileResult

    Raises
    ------
    ValueError
        If a setting is out of range or a shape not of four positive numbers.
    EngineFailedError
        (a RuntimeError) If a worker fails; the message says why.
    """
    settings = Settings(
        threads=default_threads() if threads is None else threads,
        rounds=rounds,
        seconds=seconds,
        warmup_s=warmup_s,
        tolerance=tolerance,
    )
    dims = checked_shape(shape)
    say = progress or (lambda _line: None)
    nets = []
    for name, model in named_models(models):
        with tempfile.TemporaryDirectory(prefix="fastcnn-profile-") as folder:
            nets.append(_profile_net(name, model, dims, settings, Path(folder), say))
    return ProfileResult(
        nets=tuple(nets),
        settings={
            "shape": list(dims),
            "threads": settings.threads,
            "rounds": rounds,
            "seconds": seconds,
            "warmup_s": warmup_s,
            "tolerance": tolerance,
        },
        host=host_facts(),
        commit=commit(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _profile_net(
    name: str, model: Any, shape: tuple[int, ...], settings: Settings, folder: Path, say: Progress
) -> NetProfile:
    inputs = random_pictures(CHECKED_BATCHES, shape, seed=settings.seed)
    why: list[str] = []
    is_file = isinstance(model, str | Path)
    is_onnx = is_file and Path(model).suffix.lower() == ".onnx"
    if is_file and not is_onnx:
        (folder / FCNN).symlink_to(Path(model).resolve())
        np.save(folder / INPUTS, inputs)
    else:
        say(f"{name}: compiling")
        if is_onnx:
            model = Path(model)
            place_file(model, inputs, folder)
        else:
            model.eval()
            export_model(model, inputs, folder, engines=())
        why = compile_ours(model, inputs, folder, tolerance=settings.tolerance, threads=settings.threads)["why"]
    del model
    blocks, outputs = [], folder / "outputs.npy"
    for number in range(settings.rounds):
        say(f"{name}: round {number + 1} of {settings.rounds}")
        job = Job(
            task="profile",
            engine="fastcnn",
            variant="default",
            folder=str(folder),
            threads=settings.threads,
            warmup_s=settings.warmup_s,
            seconds=settings.seconds,
            result=str(folder / "profile.json"),
            outputs=str(outputs) if number == 0 else "",
        )
        blocks.append(run_worker(job, timeout_s=600 + 4 * (settings.seconds + settings.warmup_s)))
    error = None
    if (folder / EXACT).is_file():
        exact = np.load(folder / EXACT, allow_pickle=False)
        pictures = exact.shape[0] * exact.shape[1]
        y = np.load(outputs, allow_pickle=False)
        error = relative_error(y.reshape(pictures, -1), exact.reshape(pictures, -1))
    return combine(name, shape, blocks, error=error, why=why)


def combine(
    net: str, shape: tuple[int, ...], blocks: Sequence[dict[str, Any]], *, error: float | None, why: Sequence[str] = ()
) -> NetProfile:
    """Join the rounds: medians of their figures; shares are taken within each round, against its own limits.

    Parameters
    ----------
    blocks : sequence of dict
        Answers of :func:`fastcnn.benchmarking.profile.block.profile_block`, one a round.
    why : sequence of str
        What decided each step when the plan was tuned; the file itself no longer knows.

    Raises
    ------
    ValueError
        If the rounds did not run the same steps.
    """
    first = blocks[0]
    kernels = [[step["kernel"] for step in block["steps"]] for block in blocks]
    if any(names != kernels[0] for names in kernels):
        raise ValueError(f"{net}: the rounds ran different plans")
    reasons = list(why) if len(why) == len(first["steps"]) else [step["why"] for step in first["steps"]]
    steps = []
    for index, known in enumerate(first["steps"]):
        rows = [(block["limits"], block["steps"][index]) for block in blocks]
        moved = known["weight_bytes"] + known["input_bytes"] + known["output_bytes"]
        steps.append(
            StepProfile(
                **{key: known[key] for key in _FACTS},
                why=reasons[index],
                out_map=(int(known["out_map"][0]), int(known["out_map"][1])),
                ms=statistics.median(row["ms"] for _, row in rows),
                spread=statistics.median(row["spread"] for _, row in rows),
                compute_share=statistics.median(
                    _share(known["multiplications"], _peak(limits, row["kernel"]), row["ms"]) for limits, row in rows
                ),
                useful_share=statistics.median(
                    _share(known["macs"], _peak(limits, row["kernel"]), row["ms"]) for limits, row in rows
                ),
                byte_share=statistics.median(_share(moved, limits["read_gbps"], row["ms"]) for limits, row in rows),
            )
        )
    limits = first["limits"]
    return NetProfile(
        net=net,
        shape=shape,
        limits=Limits(
            isa=limits["isa"],
            threads=limits["threads"],
            fma_gmacs=statistics.median(block["limits"]["fma_gmacs"] for block in blocks),
            bf16_gmacs=_median_if_known([block["limits"].get("bf16_gmacs") for block in blocks]),
            amx_gmacs=_median_if_known([block["limits"].get("amx_gmacs") for block in blocks]),
            read_gbps=statistics.median(block["limits"]["read_gbps"] for block in blocks),
            buffer_mib=limits["buffer_mib"],
        ),
        steps=tuple(steps),
        call_ms=statistics.median(block["call_ms"] for block in blocks),
        error=error,
        plan_error=first["plan_error"],
        tolerance=first["tolerance"],
        repeats=sum(block["repeats"] for block in blocks),
    )


_FACTS = (
    "layer", "source", "family", "kernel", "error", "macs", "multiplications", "counted", "weight_bytes", "input_bytes",
    "output_bytes",
)  # fmt: skip


def _peak(limits: dict[str, Any], kernel: str) -> float:
    """Peak of the arithmetic that a kernel computes in: fp32 also for bf16 where the CPU has nothing for it.

    A multiply-add of bf16x3 is three products of bf16, one of bf16x6 six.
    """
    if kernel.startswith("amx_"):
        _, _, products = kernel.split("_")[1].partition("x")
        return float(limits["amx_gmacs"]) / int(products or 1)
    half = limits.get("bf16_gmacs") if "_bf16_" in kernel else None
    return float(limits["fma_gmacs"] if half is None else half)


def _median_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _share(count: float, giga_per_second: float, ms: float) -> float:
    """``count`` in ``ms`` milliseconds as a share of a limit in 1e9 a second."""
    return count / (giga_per_second * 1e6 * ms) if ms > 0 else 0.0
