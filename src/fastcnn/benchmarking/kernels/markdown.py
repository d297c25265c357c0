"""Write the tables of docs/concepts/crossover.md: ``python -m fastcnn.benchmarking.kernels.markdown FILE.json PAGE``.

The JSON is what ``fastcnn bench --kernels --out FILE`` writes. Each table has its place in the page, between
``<!-- table:NAME -->`` and the next ``<!-- /table -->``. ``--check`` changes nothing and exits 1 if the page differs.
No measured figure enters the page any other way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastcnn.benchmarking.kernels.cases import CHARTS, DESKTOP, LAYERS, MOBILE, Chart, Goal
from fastcnn.benchmarking.kernels.curves import (
    BEST,
    crossover,
    exponent,
    growth_sentences,
    line_curves,
    line_points,
)
from fastcnn.benchmarking.kernels.records import KernelsResult, LayerCell, Point

END = "<!-- /table -->"
_COMMIT_DIGITS = 10
_PICTURE = "Time along kernel size, channels, map and batch: direct, and the best of our algorithms"
_ROWS_OF = {"layers": "inference", "training": "training step"}


def tables(result: KernelsResult) -> dict[str, str]:
    """Return the text of each table by its name.

    Raises
    ------
    ValueError
        If no layer or no point along the kernel sizes is measured.
    """
    if not result.cells or not any(line_points(result, CHARTS[0], 0, isa) for isa in result.isas):
        raise ValueError("a page needs the rows layers and by-kernel: measure them first")
    return {
        "peers": f"{_peers(result)}\n\n{_caption(result, result.cells)}",
        "by-kernel": "\n\n".join(
            [
                _by_kernel(result),
                *growth_sentences(result),
                _caption(result, result.points),
                f"![{_PICTURE}](crossover.png)",
            ]
        ),
        "along": _along(result),
    }


def _peers(result: KernelsResult) -> str:
    lines = [
        f"| layer | ours, ms | spread | ours / best of {', '.join(DESKTOP)} (goal) | "
        f"ours / best of {', '.join(MOBILE)} (goal) | error, ours / theirs | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    order = sorted(result.cells, key=lambda c: (c.row != LAYERS, c.layer.depthwise, c.layer.batch, c.layer.kernel))
    for cell in order:
        what = f"`{cell.layer.name}`, {_ROWS_OF[cell.row]}"
        ours, best = cell.ours, cell.best()
        if ours is None or best is None:
            lines.append(f"| {what} | | | | | | {_safe(cell.missed())} |")
            continue
        errors = " / ".join("?" if error is None else f"{error:.0e}" for error in (ours.error, best.error))
        lines.append(
            f"| {what} | {ours.median_ms:.2f} | {100 * (ours.spread or 0):.0f} % | {_ratio(cell, DESKTOP)} | "
            f"{_ratio(cell, MOBILE)} | {errors} | {_safe(cell.missed()) or 'met'} |"
        )
    return "\n".join(lines)


def _ratio(cell: LayerCell, peers: Sequence[str]) -> str:
    best = cell.best(peers)
    if best is None:
        return ""
    goal: Goal | None = next((goal for goal in cell.goals if set(goal.peers) & set(peers)), None)
    wanted = "" if goal is None else f" ({goal.ratio:g})"
    return f"{best.ratio:.3f}{wanted} {best.engine}"


def _by_kernel(result: KernelsResult) -> str:
    chart, isas = CHARTS[0], result.isas
    head = ["k", *(f"{isa}: {word}" for isa in isas for word in ("direct, ms", "best, ms", "which", "gain"))]
    lines = [_row(head), "|---:|" + "---:|---:|---|---:|" * len(isas)]
    columns = [dict(line_points(result, chart, 0, isa)) for isa in isas]
    for layer in chart.lines[0]:
        cells = [text for column in columns for text in _cells(column.get(layer.kernel))]
        if any(cells):
            lines.append(_row([str(layer.kernel), *cells]))
    return "\n".join(lines)


def _cells(point: Point | None) -> list[str]:
    if point is None or point.best is None or point.direct is None or point.gain is None:
        return [""] * 4
    return [f"{point.direct.ms:.3f}", f"{point.best.ms:.3f}", f"`{point.best.algorithm}`", f"{point.gain:.1f}"]


def _along(result: KernelsResult) -> str:
    lines = [
        "| along | kernel | instruction set | power of direct | power of the best | overtaken from | the best |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for chart in CHARTS:
        for line in chart.lines:
            for isa in result.isas:
                points = line_points(result, chart, line, isa)
                if len(points) > 1:
                    lines.append(_along_row(result, chart, line, isa, points))
    return "\n".join(lines)


def _along_row(result: KernelsResult, chart: Chart, line: int, isa: str, points: list[tuple[int, Point]]) -> str:
    curves = {curve.name: curve for curve in line_curves(result, chart, line, isa)}
    powers = [exponent(curves[name]) if name in curves else None for name in ("direct", BEST)]
    start = crossover(points)
    winners = [f"{x}: {point.best.algorithm}" for x, point in points if point.best is not None]
    return _row(
        [
            chart.label,
            f"{line}x{line}" if line else "",
            isa,
            *("" if power is None else f"{power:.2f}" for power in powers),
            "never" if start is None else str(start),
            ", ".join(winners),
        ]
    )


def _caption(result: KernelsResult, cells: Sequence[LayerCell] | Sequence[Point]) -> str:
    commits = dict.fromkeys(_short(cell.commit) for cell in cells)
    dates = sorted({cell.date[:10] for cell in cells})
    threads = ", ".join(dict.fromkeys(str(cell.settings["threads"]) for cell in cells))
    rounds = ", ".join(
        dict.fromkeys(f"{cell.settings['rounds']} rounds of {cell.settings['seconds']:g} s" for cell in cells)
    )
    versions = dict.fromkeys(
        f"{e.engine} {e.version}"
        for cell in cells
        if isinstance(cell, LayerCell) and cell.result is not None
        for e in cell.result.engines
        if e.version
    )
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    facts = [f"{result.host['cpu']} ({result.isa})", f"{threads} threads", rounds, *versions, when]
    return f"{'; '.join(facts)}; commit {', '.join(commits)}. `make bench-kernels` remakes it."


def _short(commit: str | None) -> str:
    name, dash, changed = (commit or "unknown").partition("-")
    return f"{name[:_COMMIT_DIGITS]}{dash}{changed}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def put(page: str, found: dict[str, str]) -> str:
    """Return the page with these tables in their places.

    Raises
    ------
    ValueError
        If the page has no place for one of them.
    """
    for name, text in found.items():
        before, start, rest = page.partition(f"<!-- table:{name} -->\n")
        _, end, after = rest.partition(END)
        if not start or not end:
            raise ValueError(f"the page has no place for table {name!r}: <!-- table:{name} --> and {END}")
        page = f"{before}{start}{text}\n{end}{after}"
    return page


def main(arguments: Sequence[str]) -> int:
    """Write the page, or compare it; 1 if it differs, 2 if a file is none."""
    parser = argparse.ArgumentParser(prog="fastcnn.benchmarking.kernels.markdown", description=__doc__)
    parser.add_argument("source", type=Path, metavar="FILE.json")
    parser.add_argument("page", type=Path, metavar="PAGE.md")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page differs")
    given = parser.parse_args(arguments)
    try:
        result = KernelsResult.loads(given.source.read_text(encoding="utf-8"))
        text = given.page.read_text(encoding="utf-8")
        page = put(text, tables(result))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        return 0 if page == text else 1
    given.page.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
