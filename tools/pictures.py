"""Plain SVG with the colours of light and dark pages, for the programs that draw the pictures of the documentation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "concepts"

STYLE = """\
<style>
text { font: 14px system-ui, sans-serif; fill: #24292f }
.small { font-size: 12px }
.code { font-family: ui-monospace, monospace }
.middle { text-anchor: middle }
.end { text-anchor: end }
.line { stroke: #8c959f; fill: none }
.cell { stroke: #8c959f; fill: #8c959f; fill-opacity: .08 }
.ghost { stroke: #8c959f; fill: none; stroke-dasharray: 3 3 }
.good { stroke: #0969da; fill: #0969da; fill-opacity: .2 }
.bad { stroke: #bc4c00; fill: #bc4c00; fill-opacity: .25 }
.path { stroke: #0969da; fill: none; stroke-width: 2.5 }
.dot { fill: #24292f }
@media (prefers-color-scheme: dark) {
text, .dot { fill: #e6edf3 }
.good { stroke: #58a6ff; fill: #58a6ff }
.bad { stroke: #f0883e; fill: #f0883e }
.path { stroke: #58a6ff }
}
</style>"""


def text(x: float, y: float, words: object, kind: str = "") -> str:
    """Words at a point; kind is a list of classes of the style."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{words}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> str:
    """A straight line."""
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" class="{kind}"/>'


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """A whole file."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    return "\n".join([head + 'role="img">', f"<title>{title}</title>", STYLE, *parts, "</svg>", ""])


def write_or_check(pictures: Mapping[str, Callable[[], str]], folder: Path, tool: str, about: str | None) -> int:
    """Write the pictures, or compare them, as the command line says; 1 if one differs.

    Parameters
    ----------
    pictures : mapping of str to callable
        File name to what draws it.
    folder : Path
    tool : str
        File name of the program, for its message.
    about : str, optional
        Of the program, for ``--help``.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a picture differs")
    check = parser.parse_args().check
    differing = []
    for name, draw in pictures.items():
        path, drawn = folder / name, draw()
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != drawn):
            differing.append(name)
        elif not check:
            path.write_text(drawn, encoding="utf-8")
    if differing:
        print(f"{', '.join(differing)}: not what this program draws; run python tools/{tool}", file=sys.stderr)
    return int(bool(differing))
