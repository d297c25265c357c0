"""A training step of one layer: output, gradient of the input and gradient of the weight, ours and torch's in turn."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.files import INPUTS
from fastcnn.benchmarking.kernels.layer import Layer
from fastcnn.benchmarking.kernels.points import busy
from fastcnn.benchmarking.kernels.process import run_task_apart
from fastcnn.benchmarking.kernels.worker import Task
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.results import BUSY_PER_S, EngineResult, NetResult
from fastcnn.benchmarking.worker import time_block

if TYPE_CHECKING:
    from torch import Tensor, nn

_TURNS = (("fastcnn", "contiguous"), ("torch", "contiguous"), ("torch", "channels_last"))
_PARTS = ("output", "grad_input", "grad_weight")


def time_training(
    layer: Layer, *, threads: int, rounds: int, seconds: float, warmup_s: float, say: Callable[[str], None]
) -> NetResult:
    """Time steps of :class:`fastcnn.methods.transforms.fft_conv.FFTConv2d`, tiles chosen by itself, and of torch.

    Every block is a process of its own, one after the other. Torch counts in the memory format in which it is faster.
    The error is that of the worst of the three results against float64.

    Raises
    ------
    EngineFailedError
        (a RuntimeError) If ours cannot be timed.
    """
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((2, *layer.shape), dtype=np.float32)  # input, gradient of the output
    blocks: dict[tuple[str, str], list[float]] = {turn: [] for turn in _TURNS}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    errors: dict[tuple[str, str], float] = {}
    failures: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory(prefix="fastcnn-training-") as name:
        folder = Path(name)
        np.save(folder / INPUTS, inputs)
        exact = _exact(layer, inputs)
        for number in range(rounds):
            for turn in _TURNS:
                if turn in failures:
                    continue
                engine, variant = turn
                say(f"{layer.name}: round {number + 1} of {rounds}, {engine} ({variant})")
                outputs = str(folder / "outputs.npz") if number == 0 else ""
                task = Task(
                    kind="training", layer=layer.to_json(), folder=name, threads=threads, warmup_s=warmup_s,
                    seconds=seconds, result=str(folder / "answer.json"), engine=engine, variant=variant,
                    outputs=outputs,
                )  # fmt: skip
                try:
                    answer = run_task_apart(task)
                except EngineFailedError as error:
                    if engine == "fastcnn":
                        raise
                    failures[turn] = str(error)
                    continue
                blocks[turn].append(float(answer["median_ms"]))
                known = facts.get(turn, {"calls": 0, "preempted_per_s": 0.0})
                facts[turn] = {
                    "version": answer["version"],
                    "calls": known["calls"] + answer["calls"],
                    "preempted_per_s": max(known["preempted_per_s"], answer["preempted_per_s"]),
                }
                if outputs:
                    with np.load(outputs, allow_pickle=False) as found:
                        errors[turn] = worst_error({part: found[part] for part in _PARTS}, exact)
    results = _results(blocks, facts, errors, failures)
    for result in results:
        if result.preempted_per_s > BUSY_PER_S:
            say(busy(layer, result.engine, result.preempted_per_s))
    return NetResult(net=layer.name, shape=layer.shape, engines=results)


def _results(
    blocks: dict[tuple[str, str], list[float]],
    facts: dict[tuple[str, str], dict[str, Any]],
    errors: dict[tuple[str, str], float],
    failures: dict[tuple[str, str], str],
) -> tuple[EngineResult, ...]:
    results, (ours, *_) = [], _TURNS
    for engine in dict.fromkeys(engine for engine, _ in _TURNS):
        turns = [turn for turn in _TURNS if turn[0] == engine]
        good = [turn for turn in turns if turn not in failures and blocks[turn]]
        if not good:
            results.append(EngineResult(engine=engine, failure=failures[turns[0]]))
            continue
        best = min(good, key=lambda turn: statistics.median(blocks[turn]))
        ratio = None
        if best != ours:
            ratio = statistics.median(a / b for a, b in zip(blocks[ours], blocks[best], strict=True))
        results.append(
            EngineResult(
                engine=engine, variant=best[1], version=facts[best]["version"], block_ms=tuple(blocks[best]),
                error=errors[best], ratio=ratio, calls=facts[best]["calls"],
                preempted_per_s=facts[best]["preempted_per_s"],
            )
        )  # fmt: skip
    return tuple(results)


def worst_error(found: dict[str, npt.NDArray[Any]], exact: dict[str, npt.NDArray[np.float64]]) -> float:
    """Return the largest error among the results: per picture for output and grad_input, as a whole for grad_weight.

    Raises
    ------
    EngineFailedError
        (a RuntimeError) If a result is not finite.
    """
    worst = max(
        relative_error(found["output"], exact["output"]),
        relative_error(found["grad_input"], exact["grad_input"]),
        relative_error(found["grad_weight"][None], exact["grad_weight"][None]),
    )
    if not np.isfinite(worst):
        raise EngineFailedError("a result of the training step is not finite")
    return worst


def training_block(
    layer: Layer,
    folder: Path,
    *,
    engine: str,
    variant: str,
    threads: int,
    warmup_s: float,
    seconds: float,
    outputs: str,
) -> dict[str, Any]:
    """Time training steps of one engine, inside a worker process.

    Raises
    ------
    ValueError
        If the engine or the memory format is unknown.
    """
    import torch

    import fastcnn

    if (engine, variant) not in _TURNS:
        raise ValueError(f"{engine} ({variant}) takes no part in training: choose from {list(_TURNS)}")
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    module = _ours(layer) if engine == "fastcnn" else layer.module()
    module = module.train().to(memory_format=layout)  # type: ignore[call-overload]
    x, gradient = (
        torch.from_numpy(array).contiguous(memory_format=layout)
        for array in np.load(folder / INPUTS, allow_pickle=False)
    )
    x.requires_grad_(True)
    results = step(module, x, gradient)
    if outputs:
        output, grad_input, grad_weight = (t.detach().numpy() for t in results)
        np.savez(outputs, output=output, grad_input=grad_input, grad_weight=grad_weight)
    del results
    times = time_block(lambda: step(module, x, gradient), warmup_s=warmup_s, seconds=seconds)
    return {
        "version": fastcnn.__version__ if engine == "fastcnn" else torch.__version__,
        "calls": len(times),
        "median_ms": 1e3 * float(np.median(times)),
    }


def step(module: nn.Conv2d, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, gradient of the input and gradient of the weight, for this gradient of the output."""
    import torch

    y = module(x)
    grad_x, grad_weight = torch.autograd.grad(y, (x, module.weight), gradient)
    return y, grad_x, grad_weight


def _ours(layer: Layer) -> nn.Conv2d:
    from fastcnn.methods.transforms.fft_conv import FFTConfig, FFTConv2d

    return FFTConv2d.from_dense(layer.module(), FFTConfig(force=True))


def _exact(layer: Layer, inputs: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
    import torch

    x, gradient = (torch.from_numpy(array).double() for array in inputs)
    results = step(layer.module().double(), x.requires_grad_(True), gradient)
    return {part: t.detach().numpy() for part, t in zip(_PARTS, results, strict=True)}
