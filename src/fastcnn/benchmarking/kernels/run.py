"""Measure the rows of ``bench --kernels`` one by one; what is measured is kept, so that a stopped run goes on."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from fastcnn import _native
from fastcnn.benchmarking.benchmark import Progress, Settings, benchmark
from fastcnn.benchmarking.kernels.cases import CAP, LAYER_CASES, LAYERS, TRAINING, TRAINING_CASE, Case, chart_layers
from fastcnn.benchmarking.kernels.layer import Layer
from fastcnn.benchmarking.kernels.points import time_point
from fastcnn.benchmarking.kernels.records import AlgorithmTime, KernelsResult, LayerCell, Point
from fastcnn.benchmarking.kernels.training import time_training
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.results import NetResult
from fastcnn.reporting.host import commit


def run_kernels(
    *,
    rows: Sequence[str],
    only: str | None = None,
    threads: int,
    rounds: int = 3,
    seconds: float = 3.0,
    warmup_s: float = 1.0,
    kept: KernelsResult | None = None,
    again: bool = False,
    progress: Progress | None = None,
    save: Callable[[KernelsResult], None] | None = None,
) -> KernelsResult:
    """Measure the chosen rows, one layer at a time.

    Parameters
    ----------
    rows : sequence of str
        Words of :data:`fastcnn.benchmarking.kernels.ROWS`.
    only : str, optional
        Name of one layer.
    threads, rounds, seconds, warmup_s
        As in :func:`fastcnn.benchmark`. An algorithm of a chart gets a tenth of ``seconds``.
    kept : KernelsResult, optional
        From an earlier run on this machine. What agrees in settings, commit and version is not measured again.
    again : bool
        Measure what is chosen all the same.
    save : callable, optional
        Called after each measurement with all that is known.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    timing = Settings(threads=threads, rounds=rounds, seconds=seconds, warmup_s=warmup_s)
    say = progress or (lambda _line: None)
    active, isas, skipped = instruction_sets()
    result = KernelsResult(
        isa=active,
        cells=() if kept is None else kept.cells,
        points=() if kept is None else kept.points,
        skipped=skipped,
    )
    state = commit()

    def needed(known: LayerCell | Point | None, settings: dict[str, Any]) -> bool:
        if again or known is None or known.commit != state or dict(known.settings) != settings:
            return True
        say(f"{known.label}: kept from {known.date}")
        return False

    for case in [case for row, case in cases(rows) if only in (None, case.layer.name)]:
        row = TRAINING if case is TRAINING_CASE else LAYERS
        settings = _settings(case.layer, timing) | {"peers": list(case.peers), "max_error": case.max_error}
        if needed(result.cell(row, case.layer.name), settings):
            result = result.having(_cell(row, case, timing, settings, state, say))
            if save is not None:
                save(result)
    layers = [layer for layer in chart_layers(rows) if only in (None, layer.name)]
    for isa, reason in skipped.items():
        if layers:
            say(f"charts at {isa} are left out: {reason}")
    for layer in layers:
        for isa in isas:
            settings = _settings(layer, timing) | {"isa": isa}
            if needed(result.point(isa, layer.name), settings):
                result = result.having(_point(layer, isa, timing, settings, state, say))
                if save is not None:
                    save(result)
    return result


def cases(rows: Sequence[str]) -> list[tuple[str, Case]]:
    """Return (row, case) of everything in these rows that is timed against peers."""
    found = [(LAYERS, case) for case in LAYER_CASES if LAYERS in rows]
    return found + [(TRAINING, TRAINING_CASE)] * (TRAINING in rows)


def instruction_sets() -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Return the active instruction set, those the charts are drawn for, and why one of them is left out."""
    host = _native.host()
    active, available = str(host["isa_active"]), list(host["isa_available"])
    if active == CAP:
        return active, (active,), {}
    if CAP not in available:
        return active, (active,), {CAP: f"this machine cannot run {CAP}"}
    return active, (active, CAP), {}


def _settings(layer: Layer, timing: Settings) -> dict[str, Any]:
    from fastcnn import __version__

    return {
        "layer": layer.to_json(),
        "threads": timing.threads,
        "rounds": timing.rounds,
        "seconds": timing.seconds,
        "warmup_s": timing.warmup_s,
        "version": __version__,
    }


def _cell(
    row: str, case: Case, timing: Settings, settings: dict[str, Any], state: str | None, say: Progress
) -> LayerCell:
    found, failure = None, ""
    try:
        found = _training(case, timing, say) if row == TRAINING else _inference(case, timing, say)
    except EngineFailedError as error:  # hours of other cells must not go with it
        failure = str(error)
    return LayerCell(
        row=row, layer=case.layer, goals=case.goals, max_error=case.max_error, result=found, failure=failure,
        commit=state, date=_now(), settings=settings,
    )  # fmt: skip


def _inference(case: Case, timing: Settings, say: Progress) -> NetResult:
    with tempfile.TemporaryDirectory(prefix="fastcnn-layer-") as cache:
        result = benchmark(
            [(case.layer.name, case.layer.module())], case.layer.shape, against=case.peers, tolerance=case.max_error,
            threads=timing.threads, rounds=timing.rounds, seconds=timing.seconds, warmup_s=timing.warmup_s, cache=cache,
            progress=say,
        )  # fmt: skip
    for line in result.disturbed():
        say(line)
    return result.nets[0]


def _training(case: Case, timing: Settings, say: Progress) -> NetResult:
    return time_training(
        case.layer, threads=timing.threads, rounds=timing.rounds, seconds=timing.seconds, warmup_s=timing.warmup_s,
        say=lambda line: say(f"training: {line}"),
    )  # fmt: skip


def _point(
    layer: Layer, isa: str, timing: Settings, settings: dict[str, Any], state: str | None, say: Progress
) -> Point:
    found: tuple[AlgorithmTime, ...] = ()
    failure = ""
    try:
        found = time_point(
            layer, isa, threads=timing.threads, rounds=timing.rounds, seconds=timing.seconds,
            warmup_s=timing.warmup_s, say=say,
        )  # fmt: skip
    except EngineFailedError as error:
        failure = str(error)
    return Point(
        layer=layer, isa=isa, algorithms=found, failure=failure, commit=state, date=_now(), settings=settings
    )  # fmt: skip


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
