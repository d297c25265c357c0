"""Write the README's table from a benchmark's JSON: ``python tools/readme_table.py FILE.json``.

The JSON is what ``fastcnn bench --out FILE`` writes; `make bench` keeps it in benchmarks/results/foundation.json.
``--check`` changes nothing and exits 1 if the table differs. No figure enters the README any other way.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- table:foundation -->", "<!-- /table -->"
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
        f"{settings['tolerance']}, random weights; {host['cpu']} ({', '.join(isa)}); {', '.join(versions)}; "
        f"{str(result['date'])[:10]}, commit {_short(str(result['commit']))}. `make bench` remakes it."
    )


def replace_table(readme: str, text: str) -> str:
    """Return the README with the text between the markers; ValueError if they do not stand there once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"README.md must hold {BEGIN} and {END} once each, in this order")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}\n{END}", readme, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("result", type=Path, help="JSON that fastcnn bench --out wrote")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the table differs")
    given = parser.parse_args()
    try:
        old = given.readme.read_text(encoding="utf-8")
        new = replace_table(old, table(json.loads(given.result.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        return int(old != new)
    given.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
