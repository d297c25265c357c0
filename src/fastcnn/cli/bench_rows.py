"""``fastcnn bench --suite exact``: every row and net of a suite, kept as it goes, with its goals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.output import emit, log, plain, write_atomically


def rows_command(
    suite: str,
    *,
    rows: str | None,
    only: str | None,
    size: int,
    threads: int | None,
    rounds: int,
    seconds: float,
    out: Path | None,
    again: bool,
    as_json: bool,
) -> None:
    """Measure the chosen rows; GoalMissedError if a chosen cell is not as good as it should be."""
    from fastcnn.benchmarking import ROW_SUITES, RowsResult, run_rows
    from fastcnn.benchmarking.suite import SUITES
    from fastcnn.reporting.host import default_threads, host_facts

    all_rows = ROW_SUITES[suite]
    chosen = _chosen(rows, [row.name for row in all_rows])
    if only is not None and only not in SUITES[suite]:
        raise CliError(
            f"--only {only!r} is not in the suite; allowed: {', '.join(SUITES[suite])}",
            hint="leave it out for all nets",
        )
    if out is None:
        log("without --out nothing is kept: a stopped run starts from the beginning")
    kept: Any = ()
    if out is not None and out.exists():
        try:
            kept = RowsResult.kept_cells(out.read_text(encoding="utf-8"), suite=suite, cpu=host_facts()["cpu"])
        except ValueError as error:
            raise CliError(f"--out {str(out)!r} cannot be continued: {error}", hint="choose another file") from error

    def save(so_far: Any) -> None:
        if out is not None:
            write_atomically(out, so_far.dumps() + "\n")

    result = run_rows(
        suite,
        all_rows,
        {net: partial(_net, suite, net, size) for net in SUITES[suite]},
        chosen=chosen,
        only=only,
        size=size,
        threads=default_threads() if threads is None else threads,
        rounds=rounds,
        seconds=seconds,
        kept=kept,
        again=again,
        progress=log,
        save=save,
    )
    save(result)  # also where nothing was left to measure: what is skipped may have changed
    emit(as_json, plain(result.to_json()), _table(result))
    missed = [
        f"{cell.row}, {cell.net}: {text}"
        for cell in result.cells
        if cell.row in chosen and only in (None, cell.net) and (text := cell.missed())
    ]
    if missed:
        raise GoalMissedError("; ".join(missed))


def _net(suite: str, net: str, size: int) -> Any:
    from fastcnn.benchmarking import suite_models

    # Settled at batch 1 whatever the row's batch: the same weights in every row.
    return next(model for _, model in suite_models(suite, (1, 3, size, size), only=net))


def _chosen(rows: str | None, names: list[str]) -> list[str]:
    if rows is None:
        return names
    asked = [name.strip() for name in rows.split(",") if name.strip()]
    unknown = [name for name in asked if name not in names]
    if unknown or not asked:
        raise CliError(f"--rows {rows!r} is not known; allowed: {', '.join(names)}", hint="leave it out for all rows")
    return asked


def _table(result: Any) -> Table:
    table = Table(
        title=f"suite {result.suite} on {result.host['cpu']}: our time / the best peer's (goal), errors ours / theirs",
        caption="below 1: ours is faster; median of the ratios; spread: slowest less fastest block of ours",
    )
    table.add_column("row", overflow="fold")
    for net in result.nets:
        table.add_column(net)
    for row in result.rows:
        if row.name in result.skipped:
            table.add_row(row.name, result.skipped[row.name], *[""] * (len(result.nets) - 1))
            continue
        table.add_row(row.name, *(_cell(result.cell(row.name, net)) for net in result.nets))
    return table


def _cell(cell: Any) -> str:
    if cell is None:
        return "not measured"
    if cell.best is None:
        return f"failed: {cell.missed()}"
    ours = cell.result.engine("fastcnn")
    mark = "MISSED" if cell.missed() else "met"
    errors = " / ".join("?" if error is None else f"{error:.0e}" for error in (ours.error, cell.best.error))
    goal = "" if cell.goal is None else f" ({cell.goal:g})"
    return f"{cell.ratio:.2f}{goal} {cell.best.engine}\n{errors}, spread {ours.spread:.0%}\n{mark}"
