"""A profile as one self-contained page: a chart and a table for every net. Needs the extra ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._extras import require

if TYPE_CHECKING:
    from fastcnn.benchmarking.profile import NetProfile, ProfileResult

_TEMPLATE = Path(__file__).with_name("profile_page.html.j2")
_COLOURS = {
    "winograd": "#2a78b5", "direct": "#3a9b5c", "1x1": "#76b852", "grouped": "#b5a642", "depthwise": "#c77c34",
    "linear": "#8a56ac", "transposed": "#4aa3a2",
}  # fmt: skip
_OTHER = "#8d8d8d"
_ROW_PIXELS = 18


def profile_html(result: ProfileResult) -> str:
    """Return the page: everything it needs is in it, no address is opened.

    Raises
    ------
    MissingExtraError
        Without jinja2 or plotly.
    """
    jinja2: Any = require("jinja2", extra="report", purpose="the HTML chart")
    offline: Any = require("plotly.offline", extra="report", purpose="the HTML chart")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page: str = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        nets=[(net, _chart(net, index)) for index, net in enumerate(result.nets)],
        plotly=offline.get_plotlyjs(),
    )
    return page


def _chart(net: NetProfile, index: int) -> str:
    """One bar a step, in the order they run; a mark where the binding limit would end it."""
    graph: Any = require("plotly.graph_objects", extra="report", purpose="the HTML chart")
    figure = graph.Figure()
    names = [f"{i} {step.layer}" for i, step in enumerate(net.steps)]
    for family in dict.fromkeys(step.family for step in net.steps):
        chosen = [(name, step) for name, step in zip(names, net.steps, strict=True) if step.family == family]
        figure.add_bar(
            name=family,
            orientation="h",
            y=[name for name, _ in chosen],
            x=[step.ms for _, step in chosen],
            marker_color=_COLOURS.get(family, _OTHER),
            hovertext=[
                f"{step.kernel}<br>{step.ms:.3f} ms, {step.share:.0%} of the limit set by {step.bound}"
                for _, step in chosen
            ],
            hoverinfo="text",
        )
    figure.add_scatter(
        name="limit",
        mode="markers",
        y=names,
        x=[step.limit_ms for step in net.steps],
        marker={"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": "#222222"}},
        hovertext=[f"{step.bound}: {step.limit_ms:.3f} ms" for step in net.steps],
        hoverinfo="text",
    )
    figure.update_layout(
        template="plotly_white",
        height=140 + _ROW_PIXELS * len(names),
        margin={"l": 10, "r": 10, "t": 30, "b": 40},
        xaxis_title="ms",
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "automargin": True, "dtick": 1},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        barmode="overlay",
    )
    chart: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"chart-{index}")
    return chart
