"""Write a table of the README from a benchmark's JSON: ``python tools/readme_table.py FILE.json``.

The JSON is what ``fastcnn bench --out FILE`` writes: nets x engines (`make bench`, benchmarks/results/foundation.json)
or, of a suite with rows, rows x nets (`make bench-exact`, benchmarks/results/exact.json). Each has its place in the
README, between ``<!-- table:NAME -->`` and the next ``<!-- /table -->``. ``--check`` changes nothing and exits 1 if the
table differs. No figure enters the README any other way.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
END = "<!-- /table -->"
OURS = "fastcnn"


def _short(commit: str) -> str:
    """Ten digits, and the mark of a tree with uncommitted changes."""
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def table(result: dict[str, Any]) -> str:
    """Markdown table of one benchmark and the caption that says how it was made.

    Raises
    ------
    ValueError
        If the document is no benchmark, or ours has no figure on some net.
    """
    try:
        nets, settings, host = result["nets"], result["settings"], result["host"]
        names = list(dict.fromkeys(engine["engine"] for net in nets for engine in net["engines"]))
        peers = [name for name in names if name != OURS]
        lines = [
            "| net | " + " | ".join([OURS, *peers]) + " |",
            "|---|" + "---:|" * (1 + len(peers)),
        ]
        for net in nets:
            engines = {engine["engine"]: engine for engine in net["engines"]}
            if engines[OURS]["median_ms"] is None:
                raise ValueError(f"{net['net']}: fastcnn has no figure ({engines[OURS]['failure']})")
            cells = [_cell(engines.get(name)) for name in [OURS, *peers]]
            lines.append(f"| {net['net']} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", _caption(nets, settings, host, result)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no JSON of fastcnn bench --out: {error!r}") from error


def _cell(engine: dict[str, Any] | None) -> str:
    if engine is None:
        return ""
    if engine["median_ms"] is None:
        return "failed"
    ratio = "" if engine["ratio"] is None else f" ({engine['ratio']:.2f})"
    error = "not known" if engine["error"] is None else f"{engine['error']:.0e}"
    return f"{engine['median_ms']:.1f} ms{ratio}<br>{error}"


TOLERANCES = {
    "fp32": "fp32 (ours may use Winograd, 16-bit weights and, with AMX, three products of bf16 for one of fp32 while "
    "the error stays below 1e-4)"
}


def _caption(nets: list[Any], settings: dict[str, Any], host: dict[str, Any], result: dict[str, Any]) -> str:
    engines = [engine for net in nets for engine in net["engines"]]
    versions = dict.fromkeys(f"{e['engine']} {e['version']}" for e in engines if e["version"] and e["engine"] != OURS)
    spread = max((e["spread"] for e in engines if e["spread"] is not None), default=0.0)
    isa = dict.fromkeys(net["isa"] for net in nets if net["isa"])
    return (
        f"Milliseconds of one call (median of {settings['rounds']} blocks of {settings['seconds']:g} s; largest spread "
        f"{spread:.0%}); in brackets fastcnn's time over theirs: below 1 we are faster. Second line: the error, per "
        "picture max|y − y64| / max|y64|, worst picture. "
        f"Input {'×'.join(map(str, settings['shape']))}, {settings['threads']} threads, tolerance "
        f"{TOLERANCES.get(settings['tolerance'], settings['tolerance'])}, random weights; {host['cpu']} "
        f"({', '.join(isa)}); {', '.join(versions)}; "
        f"{str(result['date'])[:10]}, commit {_short(str(result['commit']))}. `make bench` remakes it."
    )


def rows_table(result: dict[str, Any]) -> str:
    """Markdown table of a suite with rows: our time over the best peer's, which peer, errors and spread.

    Raises
    ------
    ValueError
        If the document is no such suite, or nothing is measured.
    """
    try:
        nets, rows, cells = result["nets"], result["rows"], result["cells"]
        if not cells:
            raise ValueError("nothing is measured")
        known = {(cell["row"], cell["net"]): cell for cell in cells}
        lines = ["| our time / the best peer's | " + " | ".join(nets) + " |", "|---|" + "---:|" * len(nets)]
        for row in rows:
            if row["name"] in result["skipped"]:
                continue
            shown = [_row_cell(known.get((row["name"], net))) for net in nets]
            if any(shown):
                lines.append(f"| {row['title']} | " + " | ".join(shown) + " |")
        return "\n".join([*lines, "", _rows_caption(cells, result)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no JSON of fastcnn bench --out: {error!r}") from error


def _row_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    if cell["ratio"] is None:
        return "failed"
    engines = {engine["engine"]: engine for engine in cell["result"]["engines"]}
    ours, best = engines[OURS], engines[cell["best"]]
    goal = "" if cell["goal"] is None else f" ≤ {cell['goal']:g}" if cell["met"] else f" (goal {cell['goal']:g})"
    errors = " / ".join("not known" if e["error"] is None else f"{e['error']:.0e}" for e in (ours, best))
    times = (
        f"{ours['median_ms']:.1f} / {best['median_ms']:.1f} ms, ±{ours['spread'] / 2:.0%} / ±{best['spread'] / 2:.0%}"
    )
    return f"**{cell['ratio']:.2f}**{goal} {cell['best']}<br>{times}<br>{errors}"


def _rows_caption(cells: list[Any], result: dict[str, Any]) -> str:
    engines = [engine for cell in cells if cell["result"] for engine in cell["result"]["engines"]]
    versions = dict.fromkeys(f"{e['engine']} {e['version']}" for e in engines if e["version"] and e["engine"] != OURS)
    isa = dict.fromkeys(cell["result"]["isa"] for cell in cells if cell["result"] and cell["result"]["isa"])
    settings = [cell["settings"] for cell in cells]
    rounds = _range(s["rounds"] for s in settings)
    seconds = _range(s["seconds"] for s in settings)
    threads = max(s["threads"] for s in settings)
    size = "×".join(str(n) for n in settings[0]["shape"][2:])
    dates = sorted({str(cell["date"])[:10] for cell in cells})
    commits = dict.fromkeys(_short(str(cell["commit"])) for cell in cells)
    titles = {row["name"]: row["title"] for row in result["rows"]}
    products = " Ours may use three or six products of bf16 for one of fp32." if "avx512_amx" in isa else ""
    left_out = "".join(f" Not measured here: {titles[name]} ({why})." for name, why in result["skipped"].items())
    return (
        "First figure: median over the rounds of our time / the best peer's, and which peer it is; below 1 we are "
        "faster. Then milliseconds of ours / theirs with half the spread between blocks, and both errors: per picture "
        f"max|y − y64| / max|y64|, worst picture. {threads} threads where not said otherwise, {size} pixels, random "
        f"weights, {rounds} rounds of {seconds} s, each block in a fresh process.{products}{left_out} "
        f"{result['host']['cpu']} "
        f"({', '.join(isa)}); {', '.join(versions)}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, commit "
        f"{', '.join(commits)}. `make bench-exact` remakes it."
    )


def _range(values: Iterable[float]) -> str:
    known = sorted(values)
    low, high = known[0], known[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def replace_table(readme: str, name: str, text: str) -> str:
    """Return the README with the text in that table's place; ValueError if its markers do not stand there once."""
    begin = f"<!-- table:{name} -->"
    start = readme.find(begin)
    end = readme.find(END, start)
    if readme.count(begin) != 1 or end < 0 or "<!-- table:" in readme[start + len(begin) : end]:
        raise ValueError(f"README.md must hold {begin} and the {END} after it once each")
    return f"{readme[:start]}{begin}\n{text}\n{readme[end:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("result", type=Path, help="JSON that fastcnn bench --out wrote")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the table differs")
    given = parser.parse_args()
    try:
        old = given.readme.read_text(encoding="utf-8")
        document = json.loads(given.result.read_text(encoding="utf-8"))
        if isinstance(document, dict) and "suite" in document:
            new = replace_table(old, str(document["suite"]), rows_table(document))
        else:
            new = replace_table(old, "foundation", table(document))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        return int(old != new)
    given.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
