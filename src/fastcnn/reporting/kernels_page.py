"""The charts of ``bench --kernels``: one self-contained page, and one picture. Needs the extra ``report``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._extras import require
from fastcnn.benchmarking.kernels.cases import CHARTS, Chart
from fastcnn.benchmarking.kernels.curves import BEST, Curve, line_curves, summary

if TYPE_CHECKING:
    from fastcnn.benchmarking.kernels import KernelsResult

_TEMPLATE = Path(__file__).with_name("kernels_page.html.j2")
_PLAIN = {"direct": "#222222", BEST: "#b42318"}
_FAMILIES = {
    "winograd": ("#2a78b5", "#5b9bd0", "#8fbce2"),
    "fft": (
        "#c77c34", "#8a56ac", "#3a9b5c", "#4aa3a2", "#b5a642", "#76b852", "#a0522d", "#6a5acd", "#2e8b57", "#d2691e",
        "#708090", "#9932cc", "#20b2aa", "#cd853f",
    ),
    "amx": ("#e377c2", "#ad4e92"),
}  # fmt: skip
_OTHER = "#8d8d8d"
_SQUARE = "proportional to k squared"
_DASHES = ("solid", "dash", "dot")
_ROW_INCHES, _WIDTH_INCHES = 4.0, 15.0
_DPI = 110


def kernels_html(result: KernelsResult) -> str:
    """Return the page: everything it needs is in it, no address is opened.

    Every chart has a curve for each algorithm, that of direct and that of the best one drawn thick.

    Raises
    ------
    MissingExtraError
        Without jinja2 or plotly.
    """
    jinja2: Any = require("jinja2", extra="report", purpose="the HTML charts")
    offline: Any = require("plotly.offline", extra="report", purpose="the HTML charts")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page: str = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        result=result, charts=_charts(result), summary=summary(result), plotly=offline.get_plotlyjs()
    )
    return page


def kernels_png(result: KernelsResult) -> bytes:
    """Return a picture: direct and the best algorithm along every measured axis, a line style for each instruction set.

    Raises
    ------
    ValueError
        If no point is measured.
    MissingExtraError
        Without matplotlib.
    """
    figures: Any = require("matplotlib.figure", extra="report", purpose="the picture of the charts")
    charts = [
        chart for chart in CHARTS if any(line_curves(result, chart, i, s) for i in chart.lines for s in result.isas)
    ]
    if not charts:
        raise ValueError("there is nothing to draw: no point of a chart is measured")
    columns = max(len(chart.lines) for chart in charts)
    figure = figures.Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * len(charts)), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(len(charts), columns)
    for row, chart in enumerate(charts):
        wide = len(chart.lines) == 1
        for column, line in enumerate(chart.lines):
            panel = figure.add_subplot(grid[row, :] if wide else grid[row, column])
            _draw_panel(panel, result, chart, line)
    figure.suptitle(f"One convolution, ms: direct and the best algorithm. {result.host['cpu']}")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_panel(panel: Any, result: KernelsResult, chart: Chart, line: int) -> None:
    for isa, dash in zip(result.isas, ("-", "--", ":"), strict=False):
        for curve in line_curves(result, chart, line, isa):
            if curve.name in _PLAIN:
                panel.plot(
                    curve.x, curve.ms, dash, color=_PLAIN[curve.name], marker="o", markersize=3,
                    label=f"{curve.name}, {isa}",
                )  # fmt: skip
        guide = _square(line_curves(result, chart, line, isa), chart)
        if guide and isa == result.isa:
            panel.plot(*guide, color=_OTHER, linewidth=1, label=_SQUARE)
    panel.set_title(_title(chart, line), fontsize=10)
    panel.set_xlabel(chart.label)
    panel.set_ylabel("ms")
    panel.set_yscale("log")
    panel.set_xscale("log", base=2)
    layers = chart.lines[line]
    ticks = [getattr(layer, chart.axis) for layer in layers]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.grid(which="both", color="#e5e5e5")
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8)


def _square(drawn: list[Curve], chart: Chart) -> tuple[list[int], list[float]] | None:
    """Return x and ms of a curve that rises with the square of the kernel size from direct's first point."""
    direct = next((curve for curve in drawn if curve.name == "direct"), None)
    if chart.axis != "kernel" or direct is None or len(direct.x) < 2:
        return None
    return list(direct.x), [direct.ms[0] * (x / direct.x[0]) ** 2 for x in direct.x]


def _title(chart: Chart, line: int) -> str:
    return f"{line}x{line} kernels, {chart.title}" if line else chart.title


def _charts(result: KernelsResult) -> list[tuple[str, str]]:
    found = []
    for chart in CHARTS:
        for line in chart.lines:
            for isa in result.isas:
                drawn = line_curves(result, chart, line, isa)
                if drawn:
                    identity = f"chart-{chart.name}-{line}-{isa}"
                    found.append((f"{_title(chart, line)}; {isa}", _chart(drawn, chart, identity)))
    return found


def _chart(drawn: list[Curve], chart: Chart, identity: str) -> str:
    graph: Any = require("plotly.graph_objects", extra="report", purpose="the HTML charts")
    figure = graph.Figure()
    taken: dict[str, int] = {}
    for curve in drawn:
        plain = curve.name in _PLAIN
        figure.add_scatter(
            name=curve.name,
            x=list(curve.x),
            y=list(curve.ms),
            mode="lines+markers",
            line={
                "color": _colour(curve.name, taken),
                "width": 4 if plain else 1.3,
                "dash": _DASHES[curve.name == BEST or "_i16" in curve.name],
            },
            hovertext=[
                f"{curve.name} at {x}: {ms:.3f} ms, spread {time.spread:.0%}<br>{time.way}, error {time.error:.0e}"
                for x, ms, time in zip(curve.x, curve.ms, curve.times, strict=True)
            ],
            hoverinfo="text",
        )
    guide = _square(drawn, chart)
    if guide:
        line = {"color": _OTHER, "width": 1}
        figure.add_scatter(name=_SQUARE, x=guide[0], y=guide[1], mode="lines", line=line, hoverinfo="name")
    figure.update_layout(
        template="plotly_white",
        height=460,
        margin={"l": 10, "r": 10, "t": 20, "b": 40},
        xaxis={
            "title": chart.label,
            "type": "log",
            "tickvals": sorted({x for curve in drawn for x in curve.x}),
        },
        yaxis={"title": "ms", "type": "log"},
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=identity)
    return text


def _colour(name: str, taken: dict[str, int]) -> str:
    if name in _PLAIN:
        return _PLAIN[name]
    family = next((family for family in _FAMILIES if name.startswith(family)), "")
    shades = _FAMILIES.get(family, (_OTHER,))
    place = taken[family] = taken.get(family, -1) + 1
    return shades[place % len(shades)]
