"""Benchmark: ours and each peer in turn, block by block, every block in a fresh process."""

from __future__ import annotations

import datetime
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import MissingExtraError
from fastcnn.benchmarking.engines import ENGINES, KNOWN_PEERS, PEERS
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.export import compile_ours, content_key, export_model
from fastcnn.benchmarking.files import EXACT, FCNN, INPUTS
from fastcnn.benchmarking.job import Job, Task
from fastcnn.benchmarking.onnx_file import place_file, readers_among
from fastcnn.benchmarking.process import EngineFailedError, run_worker
from fastcnn.benchmarking.results import BenchResult, EngineResult, NetResult
from fastcnn.benchmarking.settle import input_dependence, random_pictures
from fastcnn.reporting.host import commit, default_threads, host_facts

_OURS = "fastcnn"
CHECKED_BATCHES = 3
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to time.

    Parameters
    ----------
    threads : int
        The same for every engine.
    rounds : int
        Blocks per engine.
    seconds, warmup_s : float
        Length of a block's timed part and of its warm-up.
    tolerance : str or float
        Ours only: see ``fastcnn.compile``.
    isa : str
        Ours only: cap of the instruction set; empty for none.
    seed : int
        Of the random input pictures.
    """

    threads: int
    rounds: int = 3
    seconds: float = 3.0
    warmup_s: float = 1.0
    tolerance: str | float = "fp32"
    isa: str = ""
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("threads", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: choose at least 1")
        for name, value in (("seconds", self.seconds), ("warmup_s", self.warmup_s)):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name}={value} is not allowed: choose a finite number of seconds, 0 or more")


def benchmark(
    models: Any,
    shape: Sequence[int] = (1, 3, 224, 224),
    *,
    against: Iterable[str] | None = None,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 3.0,
    warmup_s: float = 1.0,
    tolerance: str | float = "fp32",
    isa: str = "",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Time our compiled net and other engines on the same inputs at the same number of threads.

    Ours and each peer take turns; each block (warm-up, then ``seconds``) runs in a process of its own. Every engine's
    outputs are compared with the model's in float64 before its times count for anything.

    Parameters
    ----------
    models : nn.Module, path of a .onnx or .fcnn file, mapping of name to either, or iterable of (name, model)
        An iterable may make one model at a time.
    shape : sequence of int
        Input shape (N, C, H, W).
    against : iterable of str, optional
        Peers, of ``torch``, ``onnxruntime``, ``openvino``, ``ncnn``, ``mnn``. None: all of these that are installed;
        one named here must be. ``openvino-default``, at a precision of its own choice, takes part only if named. A
        .fcnn file has no peers: they need the torch model.
    threads : int, optional
        Default: the physical cores this process may use.
    rounds, seconds, warmup_s : number
        Blocks per engine, and their length in seconds.
    tolerance : str or float
        Of our net.
    isa : str
        Cap of our instruction set (``avx2``, ``scalar`` ...: see FASTCNN_ISA); the peers are not held back.
    cache : path, optional
        Keep exported and converted files there, under a key made of their content. Default: a folder that is removed.
    progress : callable, optional
        Called with a line of text before each step.

    Returns
    -------
    BenchResult

    Raises
    ------
    ValueError
        If a setting is out of range, a peer unknown, a shape not of positive numbers, or peers are asked of a file.
    MissingExtraError
        If a peer named in ``against`` is not installed.
    """
    settings = Settings(
        threads=default_threads() if threads is None else threads,
        rounds=rounds,
        seconds=seconds,
        warmup_s=warmup_s,
        tolerance=tolerance,
        isa=isa,
    )
    shape = checked_shape(shape)
    explicit = against is not None
    peers, skipped = choose_peers(against)
    say = progress or (lambda _line: None)
    nets = []
    for name, model in named_models(models):
        with tempfile.TemporaryDirectory(prefix="fastcnn-bench-") as temporary:
            nets.append(_time_net(name, model, shape, peers, explicit, settings, cache, Path(temporary), say))
    return BenchResult(
        nets=tuple(nets),
        settings={
            "shape": list(shape),
            "threads": settings.threads,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "warmup_s": settings.warmup_s,
            "tolerance": settings.tolerance,
            "isa": settings.isa,
            "against": list(peers),
        },
        host=host_facts(),
        commit=commit(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        skipped=skipped,
    )


def choose_peers(against: Iterable[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return (peers that take part, reason by name of those that cannot).

    Raises
    ------
    ValueError
        If a name is unknown.
    MissingExtraError
        If a peer named explicitly is not installed.
    """
    names = PEERS if against is None else tuple(dict.fromkeys(against))
    unknown = [name for name in names if name not in KNOWN_PEERS]
    if unknown:
        raise ValueError(f"against={unknown} is unknown: choose from {list(KNOWN_PEERS)}")
    missing = {
        name: f'{name} needs {", ".join(engine.missing())}: run  python3 -m pip install "fastcnn[{engine.extra}]"'
        for name in names
        if (engine := ENGINES[name]).missing()
    }
    if missing and against is not None:
        raise MissingExtraError("; ".join(missing.values()))
    return tuple(name for name in names if name not in missing), missing


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the input shape as integers; ValueError unless it is four positive numbers."""
    dims = tuple(int(n) for n in shape)
    if len(dims) != 4 or min(dims) < 1:
        raise ValueError(f"shape={dims} is not allowed: give four positive numbers (N, C, H, W)")
    return dims


def named_models(models: Any) -> Iterable[tuple[str, Any]]:
    """Return (name, model) pairs of whatever :func:`benchmark` takes; TypeError for anything else."""
    if isinstance(models, Mapping):
        return models.items()
    if isinstance(models, str | Path):
        return [(Path(models).stem, Path(models))]
    if hasattr(models, "state_dict"):
        return [(type(models).__name__, models)]
    if isinstance(models, Iterable):
        return models
    raise TypeError(
        f"models is a {type(models).__name__}: give an nn.Module, a .fcnn path or a mapping of names to them"
    )


def _time_net(
    name: str,
    model: Any,
    shape: tuple[int, ...],
    peers: tuple[str, ...],
    explicit: bool,
    settings: Settings,
    cache: str | Path | None,
    folder: Path,
    say: Progress,
) -> NetResult:
    is_file = isinstance(model, str | Path)
    is_onnx = is_file and Path(model).suffix.lower() == ".onnx"
    if is_onnx:
        model = Path(model)
        peers = readers_among(peers, explicit=explicit, path=model)
    elif is_file and explicit and peers:
        raise ValueError(f"{model} holds no torch model, so {', '.join(peers)} cannot run it: give the nn.Module")
    inputs = random_pictures(CHECKED_BATCHES, shape, seed=settings.seed)
    facts: dict[str, Any] = {}
    if is_file and not is_onnx:
        peers = ()
        (folder / FCNN).symlink_to(Path(model).resolve())
        np.save(folder / INPUTS, inputs)
    else:
        say(f"{name}: exporting, compiling")
        if is_onnx:
            place_file(model, inputs, folder)
        else:
            model.eval()
            if cache is not None:
                folder = Path(cache) / content_key(model, shape)
                folder.mkdir(parents=True, exist_ok=True)
            export_model(model, inputs, folder, engines=peers)
        # The instruction set of a process is fixed, so a capped plan is tuned in a process of its own.
        facts = compile_ours(
            model, inputs, folder, tolerance=settings.tolerance, threads=settings.threads, tune=not settings.isa
        )
        if settings.isa:
            model = None
            job = _job("tune", _OURS, "default", folder, settings, folder / "tune.json")
            facts |= run_worker(job, timeout_s=_timeout_s(settings))
    exact = np.load(folder / EXACT, allow_pickle=False) if (folder / EXACT).is_file() else None
    model = None
    results = _rounds(name, (_OURS, *peers), folder, exact, settings, say, batch=shape[0])
    return NetResult(
        net=name,
        shape=shape,
        engines=results,
        input_dependence=None if exact is None else input_dependence(exact),
        isa=facts.get("isa", ""),
        plan=facts.get("plan", ""),
    )


def _rounds(
    net: str,
    engines: tuple[str, ...],
    folder: Path,
    exact: npt.NDArray[np.float64] | None,
    settings: Settings,
    say: Progress,
    *,
    batch: int = 1,
) -> tuple[EngineResult, ...]:
    """Convert once, then run block after block in turn; an engine that fails drops out with its reason."""
    runs = {(engine, variant): _Run() for engine in engines for variant in ENGINES[engine].variants_at(batch)}

    def work(task: Task, engine: str, variant: str, outputs: Path | None = None) -> dict[str, Any]:
        result = folder / f"{engine}-{variant}-{task}.json"
        job = _job(task, engine, variant, folder, settings, result, outputs)
        return run_worker(job, timeout_s=_timeout_s(settings))

    for engine in engines:
        variants = ENGINES[engine].variants_at(batch)
        done = folder / f"{engine}-{ENGINES[engine].version()}.converted"
        if not ENGINES[engine].converts or done.is_file():
            continue
        say(f"{net}: converting for {engine}")
        try:
            work("convert", engine, variants[0])
            done.touch()
        except EngineFailedError as error:
            for variant in variants:
                runs[engine, variant].failure = str(error)
    for number in range(settings.rounds):
        for (engine, variant), run in runs.items():
            if run.failure:
                continue
            say(f"{net}: round {number + 1} of {settings.rounds}, {engine}")
            outputs = folder / f"{engine}-{variant}-outputs.npy" if number == 0 else None
            try:
                answer = work("time", engine, variant, outputs)
            except EngineFailedError as error:
                run.failure = str(error)
                continue
            run.block_ms.append(float(answer["median_ms"]))
            run.calls += int(answer["calls"])
            run.preempted_per_s = max(run.preempted_per_s, float(answer["preempted_per_s"]))
            run.version = str(answer["version"])
            if outputs is not None and exact is not None:
                run.check(np.load(outputs, allow_pickle=False), exact)
    return _results(runs, engines)


def _job(
    task: Task, engine: str, variant: str, folder: Path, settings: Settings, result: Path, outputs: Path | None = None
) -> Job:
    return Job(
        task=task,
        engine=engine,
        variant=variant,
        folder=str(folder),
        threads=settings.threads,
        warmup_s=settings.warmup_s,
        seconds=settings.seconds,
        result=str(result),
        isa=settings.isa if engine == _OURS else "",
        tolerance=str(settings.tolerance),
        outputs="" if outputs is None else str(outputs),
    )


def _timeout_s(settings: Settings) -> float:
    return 600 + 4 * (settings.seconds + settings.warmup_s)


class _Run:
    """What has been seen of one variant of one engine so far."""

    def __init__(self) -> None:
        self.block_ms: list[float] = []
        self.failure = ""
        self.version = ""
        self.error: float | None = None
        self.calls = 0
        self.preempted_per_s = 0.0

    def check(self, outputs: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> None:
        if outputs.size != exact.size:
            self.failure = f"outputs have shape {outputs.shape}, the model's {exact.shape}"
            return
        pictures = exact.shape[0] * exact.shape[1]
        # Engines may drop axes of length 1; the order of the numbers is the same.
        error = relative_error(outputs.reshape(pictures, -1), exact.reshape(pictures, -1))
        if math.isinf(error):
            self.failure = "outputs are not finite"
            return
        self.error = error


def _results(runs: dict[tuple[str, str], _Run], engines: tuple[str, ...]) -> tuple[EngineResult, ...]:
    ours = next(run for (engine, _), run in runs.items() if engine == _OURS)
    results = []
    for engine in engines:
        variants = [(variant, run) for (name, variant), run in runs.items() if name == engine]
        good = [(variant, run) for variant, run in variants if not run.failure and run.block_ms]
        if not good:
            variant, run = variants[0]
            results.append(EngineResult(engine=engine, variant=variant, version=run.version, failure=run.failure))
            continue
        variant, run = min(good, key=lambda pair: statistics.median(pair[1].block_ms))
        ratio = None
        if engine != _OURS and not ours.failure and len(ours.block_ms) == len(run.block_ms):
            ratio = statistics.median(a / b for a, b in zip(ours.block_ms, run.block_ms, strict=True))
        results.append(
            EngineResult(
                engine=engine,
                variant=variant,
                version=run.version,
                block_ms=tuple(run.block_ms),
                error=run.error,
                ratio=ratio,
                calls=run.calls,
                preempted_per_s=run.preempted_per_s,
            )
        )
    return tuple(results)
