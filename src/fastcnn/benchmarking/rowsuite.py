"""Measure a suite row by row and net by net; what is measured is kept, so that a stopped run goes on."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastcnn.benchmarking.benchmark import Progress, benchmark
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.results import EngineResult, NetResult
from fastcnn.benchmarking.rows import Row, skip_reason
from fastcnn.reporting.host import commit, host_facts

_OURS = "fastcnn"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One net in one row.

    Attributes
    ----------
    row, net : str
    goal : float or None
        Largest ratio that is good enough.
    max_error : float or None
        Largest error of ours; None: the best peer's.
    result : NetResult or None
        None where nothing could be timed.
    failure : str
        Why there is no result.
    commit, date : str
        Of this measurement.
    settings : mapping
        Everything that a kept measurement must share with a new one to stand for it.
    """

    row: str
    net: str
    goal: float | None
    max_error: float | None
    result: NetResult | None
    failure: str
    commit: str | None
    date: str
    settings: Mapping[str, Any]

    @property
    def best(self) -> EngineResult | None:
        """The peer that is hardest to beat."""
        peers = [] if self.result is None else [e for e in self.result.engines if e.ratio is not None]
        return max(peers, key=lambda engine: engine.ratio or 0.0, default=None)

    @property
    def ratio(self) -> float | None:
        """Median over the rounds of our time / the best peer's."""
        return None if self.best is None else self.best.ratio

    def missed(self) -> str:
        """What is not as good as it should be; empty if nothing."""
        said = [self.failure] if self.failure else []
        if self.result is not None:
            said += [f"{e.engine}: {e.failure}" for e in self.result.engines if e.failure]
        best = self.best
        if best is None or best.ratio is None or self.result is None:
            return "; ".join(said or ["no ratio"])
        if self.goal is not None and not best.ratio <= self.goal:
            said.append(f"{best.ratio:.3f} of {best.engine}'s time, the goal is {self.goal}")
        error = self.result.engine(_OURS).error
        limit = best.error if self.max_error is None else self.max_error
        if error is None or limit is None or not error <= limit:
            said.append(
                f"error {error} is above {limit}" if self.max_error else f"error {error}, the peer's is {limit}"
            )
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them."""
        missed = self.missed()
        return {
            "row": self.row,
            "net": self.net,
            "goal": self.goal,
            "max_error": self.max_error,
            "best": None if self.best is None else self.best.engine,
            "ratio": self.ratio,
            "met": not missed,
            "missed": missed,
            "failure": self.failure,
            "commit": self.commit,
            "date": self.date,
            "settings": dict(self.settings),
            "result": None if self.result is None else self.result.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """Read a cell back; KeyError or TypeError where it is none."""
        names = ("row", "net", "goal", "max_error", "failure", "commit", "date", "settings")
        result = None if data["result"] is None else NetResult.from_json(data["result"])
        return cls(**{name: data[name] for name in names}, result=result)


@dataclass(frozen=True, kw_only=True)
class RowsResult:
    """A suite as far as it is measured.

    Attributes
    ----------
    suite : str
    rows : tuple of Row
        All of the suite, in its order.
    nets : tuple of str
    cells : tuple of Cell
    skipped : mapping of str to str
        Rows that say nothing here, and why.
    host : mapping
    """

    suite: str
    rows: tuple[Row, ...]
    nets: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=host_facts)

    def cell(self, row: str, net: str) -> Cell | None:
        """Return one cell, or None if it is not measured."""
        return next((cell for cell in self.cells if (cell.row, cell.net) == (row, net)), None)

    def with_cell(self, cell: Cell) -> RowsResult:
        """Return a copy with that cell in the place of an earlier one."""
        others = tuple(c for c in self.cells if (c.row, c.net) != (cell.row, cell.net))
        return RowsResult(
            suite=self.suite, rows=self.rows, nets=self.nets, cells=(*others, cell), skipped=self.skipped,
            host=self.host,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        order = {name: i for i, name in enumerate([row.name for row in self.rows])}
        cells = sorted(self.cells, key=lambda c: (order[c.row], self.nets.index(c.net)))
        return {
            "suite": self.suite,
            "host": dict(self.host),
            "nets": list(self.nets),
            "rows": [
                {"name": row.name, "title": row.title, "goals": dict(row.goals), "peers": list(row.peers)}
                for row in self.rows
            ],
            "skipped": dict(self.skipped),
            "cells": [cell.to_json() for cell in cells],
        }

    def dumps(self) -> str:
        """The JSON document as text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False, default=str)

    @staticmethod
    def kept_cells(text: str, *, suite: str, cpu: str) -> tuple[Cell, ...]:
        """Read the cells of an earlier run's JSON.

        Raises
        ------
        ValueError
            If it is no JSON of this suite, or was measured on another CPU.
        """
        try:
            data = json.loads(text)
            cells = tuple(Cell.from_json(cell) for cell in data["cells"])
            known, host = data["suite"], data["host"]["cpu"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no JSON of a suite: {error!r}") from error
        if known != suite:
            raise ValueError(f"it holds suite {known!r}, not {suite!r}")
        if host != cpu:
            raise ValueError(f"it was measured on {host!r}, this machine is {cpu!r}")
        return cells


def run_rows(
    suite: str,
    all_rows: Sequence[Row],
    models: Mapping[str, Callable[[], Any]],
    *,
    chosen: Sequence[str],
    only: str | None = None,
    size: int = 224,
    threads: int,
    rounds: int = 3,
    seconds: float = 3.0,
    warmup_s: float = 1.0,
    kept: Sequence[Cell] = (),
    again: bool = False,
    progress: Progress | None = None,
    save: Callable[[RowsResult], None] | None = None,
) -> RowsResult:
    """Measure the chosen rows, one net at a time.

    Parameters
    ----------
    suite, all_rows
        The suite's name and all of its rows.
    models : mapping of str to callable
        Makes a net when it is its turn.
    chosen : sequence of str
        Names of the rows to measure.
    only : str, optional
        One net.
    size, threads, rounds, seconds, warmup_s
        Pixels of a side, and the settings of :func:`fastcnn.benchmark`. Rows may say otherwise on threads.
    kept : sequence of Cell
        From an earlier run. Those that agree in settings, commit and version are not measured again.
    again : bool
        Measure the chosen cells all the same.
    save : callable, optional
        Called after each cell with all that is known.
    """
    say = progress or (lambda _line: None)
    rows = [row for row in all_rows if row.name in chosen]
    names = {row.name for row in all_rows}
    result = RowsResult(
        suite=suite,
        rows=tuple(all_rows),
        nets=tuple(models),
        cells=tuple(cell for cell in kept if cell.row in names and cell.net in models),
        skipped={row.name: reason for row in all_rows if (reason := skip_reason(row))},
    )
    state = commit()
    for name, reason in result.skipped.items():
        if name in chosen:
            say(f"row {name} is left out: {reason}")
    for net, make in models.items():
        if only not in (None, net):
            continue
        # Exported files are shared by the rows of one net and go with it: five nets in five forms fill a disk.
        with tempfile.TemporaryDirectory(prefix="fastcnn-suite-") as cache:
            for row in rows:
                if row.name in result.skipped:
                    continue
                settings = _settings(row, size, threads, rounds, seconds, warmup_s)
                known = result.cell(row.name, net)
                if not again and known is not None and known.commit == state and dict(known.settings) == settings:
                    say(f"{row.name}, {net}: kept from {known.date}")
                    continue
                cell = _measure(row, net, make, settings, state, cache, say)
                result = result.with_cell(cell)
                if save is not None:
                    save(result)
    return result


def _settings(
    row: Row, size: int, threads: int, rounds: int, seconds: float, warmup_s: float
) -> dict[str, Any]:  # fmt: skip
    from fastcnn import __version__

    return {
        "shape": [row.batch, 3, size, size],
        "threads": row.threads or threads,
        "rounds": rounds,
        "seconds": seconds,
        "warmup_s": warmup_s,
        "tolerance": row.tolerance,
        "isa": row.isa,
        "peers": list(row.peers),
        "version": __version__,
    }


def _measure(
    row: Row, net: str, make: Callable[[], Any], settings: dict[str, Any], state: str | None, cache: str, say: Progress
) -> Cell:
    found, failure = None, ""
    try:
        result = benchmark(
            [(net, make())],
            settings["shape"],
            against=row.peers,
            threads=settings["threads"],
            rounds=settings["rounds"],
            seconds=settings["seconds"],
            warmup_s=settings["warmup_s"],
            tolerance=row.tolerance,
            isa=row.isa,
            cache=cache,
            progress=lambda line: say(f"{row.name}: {line}"),
        )
        found = result.nets[0]
        for line in result.disturbed():
            say(f"{row.name}: {line}")
    except EngineFailedError as error:  # hours of other cells must not go with it
        failure = str(error)
    return Cell(
        row=row.name,
        net=net,
        goal=row.goals.get(net),
        max_error=row.max_error,
        result=found,
        failure=failure,
        commit=state,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings=settings,
    )
