"""``fastcnn bench --kernels``: convolution algorithms by kernel size, and the goals of the large kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fastcnn._extras import require
from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.output import emit, log, plain, write_atomically

_COMMIT_DIGITS = 10


def kernels_command(
    *,
    rows: str | None,
    only: str | None,
    threads: int | None,
    rounds: int,
    seconds: float,
    out: Path | None,
    html: Path | None,
    png: Path | None,
    again: bool,
    as_json: bool,
) -> None:
    """Measure the chosen rows and draw the charts; GoalMissedError if a chosen layer is not as good as it should be."""
    from fastcnn.benchmarking.kernels import KernelsResult, run_kernels
    from fastcnn.benchmarking.kernels.cases import chart_layers
    from fastcnn.reporting.host import default_threads

    chosen = _chosen_rows(rows)
    _check_only(only, chosen)
    if png is not None and not chart_layers(chosen):
        raise CliError(
            f"--png draws charts, and --rows {rows} measures none", hint="add by-kernel, or leave out --rows"
        )
    # Before hours of measuring.
    for wanted, modules, what in ((html, ("jinja2", "plotly"), "--html"), (png, ("matplotlib",), "--png")):
        for module in modules if wanted is not None else ():
            require(module, extra="report", purpose=f"the charts ({what})")
    if out is None:
        log("without --out nothing is kept: a stopped run starts from the beginning")
    kept = None if out is None or not out.exists() else _kept(out)

    def save(so_far: KernelsResult) -> None:
        if out is not None:
            write_atomically(out, so_far.dumps() + "\n")

    result = run_kernels(
        rows=chosen,
        only=only,
        threads=default_threads() if threads is None else threads,
        rounds=rounds,
        seconds=seconds,
        kept=kept,
        again=again,
        progress=log,
        save=save,
    )
    save(result)  # also where nothing was left to measure: what is skipped may have changed
    _draw(result, html, png)
    emit(as_json, plain(result.to_json()), Group(*_parts(result)))
    missed = _missed(result, chosen, only)
    if missed:
        raise GoalMissedError("; ".join(missed))


def _chosen_rows(rows: str | None) -> list[str]:
    from fastcnn.benchmarking.kernels import ROWS

    if rows is None:
        return list(ROWS)
    asked = [name.strip() for name in rows.split(",") if name.strip()]
    if not asked or any(name not in ROWS for name in asked):
        raise CliError(f"--rows {rows!r} is not known; allowed: {', '.join(ROWS)}", hint="leave it out for all rows")
    return asked


def _check_only(only: str | None, rows: list[str]) -> None:
    from fastcnn.benchmarking.kernels.cases import chart_layers
    from fastcnn.benchmarking.kernels.run import cases

    names = list(dict.fromkeys([case.layer.name for _, case in cases(rows)] + [x.name for x in chart_layers(rows)]))
    if only is not None and only not in names:
        raise CliError(
            f"--only {only!r} is not in {', '.join(rows)}; allowed: {', '.join(names)}",
            hint="leave it out for all layers",
        )


def _kept(out: Path) -> Any:
    from fastcnn.benchmarking.kernels import KernelsResult
    from fastcnn.reporting.host import host_facts

    hint, cpu = "choose another file", host_facts()["cpu"]
    try:
        kept = KernelsResult.loads(out.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CliError(f"--out {str(out)!r} cannot be continued: {error}", hint=hint) from error
    if kept.host.get("cpu") != cpu:
        raise CliError(
            f"--out {str(out)!r} cannot be continued: it was measured on {kept.host.get('cpu')!r}, this machine is "
            f"{cpu!r}",
            hint=hint,
        )
    return kept


def _draw(result: Any, html: Path | None, png: Path | None) -> None:
    from fastcnn.reporting.kernels_page import kernels_html, kernels_png

    if html is not None:
        write_atomically(html, kernels_html(result))
        log(f"wrote {html}")
    if png is not None:
        write_atomically(png, kernels_png(result))
        log(f"wrote {png}")


def _missed(result: Any, rows: list[str], only: str | None) -> list[str]:
    from fastcnn.benchmarking.kernels.cases import chart_layers

    charted = {layer.name for layer in chart_layers(rows)}
    found = [cell for cell in result.cells if cell.row in rows]
    found += [point for point in result.points if point.layer.name in charted]
    return [
        f"{item.label}: {text}" for item in found if only in (None, item.layer.name) and (text := item.missed())
    ]  # fmt: skip


def _parts(result: Any) -> list[Any]:
    from fastcnn.benchmarking.kernels.curves import summary

    parts: list[Any] = []
    if result.cells:
        parts.append(_cells_table(result))
    if result.points:
        parts += [_points_table(result), Text("\n".join(summary(result)))]
    parts += [Text(f"{isa} is left out: {reason}") for isa, reason in result.skipped.items()]
    return parts or [Text("nothing is measured")]


def _cells_table(result: Any) -> Table:
    table = Table(
        title=f"single layers on {result.host['cpu']}: our time / the best peer's (goal)",
        caption="below 1: ours is faster; median of the rounds' ratios; spread: slowest less fastest block of ours; "
        "error: max|y-y64| / max|y64|, worst picture, ours / theirs",
    )
    for column in ("row", "layer"):
        table.add_column(column)
    table.add_column("ours/peer (goal)", overflow="fold")
    for column in ("ms", "theirs", "spread", "errors"):
        table.add_column(column, justify="right")
    table.add_column("commit")
    table.add_column("")
    for cell in result.cells:
        commit, missed = _short(cell.commit), cell.missed()
        ours, best = cell.ours, cell.best()
        if ours is None or best is None:
            table.add_row(cell.row, cell.layer.name, f"failed: {missed}", "", "", "", "", commit, "MISSED")
            continue
        errors = " / ".join("?" if error is None else f"{error:.0e}" for error in (ours.error, best.error))
        table.add_row(
            cell.row, cell.layer.name, "\n".join(_ratio(cell, goal) for goal in cell.goals), f"{ours.median_ms:.2f}",
            f"{best.median_ms:.2f}", f"{ours.spread:.0%}", errors, commit, "MISSED" if missed else "met",
        )  # fmt: skip
    return table


def _short(commit: str | None) -> str:
    name, dash, changed = (commit or "").partition("-")
    return f"{name[:_COMMIT_DIGITS]}{dash}{changed}"


def _ratio(cell: Any, goal: Any) -> str:
    best = cell.best(goal.peers)
    return f"none ({goal.ratio:g})" if best is None else f"{best.ratio:.3f} ({goal.ratio:g}) {best.engine}"


def _points_table(result: Any) -> Table:
    table = Table(
        title=f"our own algorithms on {result.host['cpu']}: the layer's step alone",
        caption="gain: direct's time / the best one's, median of the rounds; best: the fastest whose error is at most "
        "1e-4",
    )
    for column in ("isa", "layer"):
        table.add_column(column)
    table.add_column("direct ms", justify="right")
    table.add_column("best")
    for column in ("ms", "spread", "gain", "error"):
        table.add_column(column, justify="right")
    table.add_column("commit")
    for point in result.points:
        commit = _short(point.commit)
        if point.missed():
            table.add_row(point.isa, point.layer.name, "", f"failed: {point.missed()}", "", "", "", "", commit)
            continue
        best = point.best
        table.add_row(
            point.isa, point.layer.name, f"{point.direct.ms:.3f}", best.algorithm, f"{best.ms:.3f}",
            f"{best.spread:.0%}", f"{point.gain:.2f}", f"{best.error:.0e}", commit,
        )  # fmt: skip
    return table
