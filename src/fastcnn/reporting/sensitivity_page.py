"""The curves of ``sensitivity`` as one self-contained page, or one picture. Needs the extra ``report``."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._extras import require

if TYPE_CHECKING:
    from fastcnn.compression.sensitivity import Curve, Sensitivity

_TEMPLATE = Path(__file__).with_name("sensitivity_page.html.j2")
_LINE, _DENSE = "#2a78b5", "#b42318"
_COLUMNS, _PANEL_INCHES, _DPI = 4, (3.6, 2.8), 110


def sensitivity_html(found: Sensitivity, model: str) -> str:
    """Return the page: everything it needs is in it, no address is opened.

    Raises
    ------
    MissingExtraError
        Without jinja2 or plotly.
    """
    jinja2: Any = require("jinja2", extra="report", purpose="the HTML charts")
    offline: Any = require("plotly.offline", extra="report", purpose="the HTML charts")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page: str = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        found=found,
        model=model,
        curves=[(curve, _chart(curve, i) if curve.points else "") for i, curve in enumerate(found.curves)],
        plotly=offline.get_plotlyjs(),
    )
    return page


def sensitivity_png(found: Sensitivity) -> bytes:
    """Return a picture with a panel for every layer that has a curve.

    Raises
    ------
    ValueError
        If none has.
    MissingExtraError
        Without matplotlib.
    """
    figures: Any = require("matplotlib.figure", extra="report", purpose="the picture of the curves")
    curves = [curve for curve in found.curves if curve.points]
    if not curves:
        raise ValueError("there is nothing to draw: no layer has a curve")
    columns = min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows + 0.5)
    figure = figures.Figure(figsize=size, dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for index, panel in enumerate(panels.flat):
        if index >= len(curves):
            panel.set_visible(False)
            continue
        curve = curves[index]
        panel.plot([p.ms for p in curve.points], [100 * p.error for p in curve.points], "o-", color=_LINE, markersize=3)
        panel.axvline(curve.dense_ms, color=_DENSE, linewidth=1, label="dense")
        for point in (curve.points[0], curve.points[-1]):
            panel.annotate(_ranks(point.ranks), (point.ms, 100 * point.error), fontsize=7)
        panel.set_title(curve.layer, fontsize=9)
        panel.set_xlabel("ms", fontsize=8)
        panel.set_ylabel("error, %", fontsize=8)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
        panel.grid(color="#e5e5e5")
    figure.suptitle(
        f"{found.method}: error of each layer's outputs against its time; red: the dense layer", fontsize=10
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _chart(curve: Curve, index: int) -> str:
    graph: Any = require("plotly.graph_objects", extra="report", purpose="the HTML charts")
    figure = graph.Figure()
    figure.add_scatter(
        x=[point.ms for point in curve.points],
        y=[100 * point.error for point in curve.points],
        mode="lines+markers+text",
        text=[_ranks(point.ranks) for point in curve.points],
        textposition="top right",
        textfont={"size": 9},
        line={"color": _LINE},
        hovertext=[
            f"ranks {_ranks(point.ranks)}: {point.ms:.3f} ms, error {point.error:.2%}<br>{point.bytes:,} bytes, "
            f"{point.macs:,} multiply-adds per position"
            for point in curve.points
        ],
        hoverinfo="text",
    )
    figure.add_vline(x=curve.dense_ms, line_color=_DENSE, annotation_text="dense", annotation_position="top left")
    figure.update_layout(
        template="plotly_white",
        height=320,
        margin={"l": 10, "r": 10, "t": 20, "b": 40},
        showlegend=False,
        xaxis={"title": "ms", "rangemode": "tozero"},
        yaxis={"title": "error of the outputs, %", "rangemode": "tozero"},
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"chart-{index}")
    return text


def _ranks(ranks: tuple[int, ...]) -> str:
    return "×".join(map(str, ranks))
