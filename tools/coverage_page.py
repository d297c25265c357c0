"""Write docs/coverage.md from the record of the zoo: ``python tools/coverage_page.py FILE.json``.

The JSON is what ``python -m fastcnn.reproduction.zoo --out FILE`` writes. ``--check`` changes nothing and exits 1 if
the page differs. No figure enters the page any other way.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"

INTRODUCTION = """\
# Coverage

Third-party nets of [pytorchcv](https://pypi.org/project/pytorchcv/), compiled strictly: {native} of {tried} nets, from
{families} families, run natively with an error of at most {limit:g}. A net that runs in torch in part does not count.

Error is per picture max|y − y64| / max|y64| over an output, worst picture and output, y64 being the net in float64 on
the same pictures; torch's own error in float32 stands beside it. Weights are random; batch norm is settled first, so
that activations have unit size and the output depends on the picture. Tolerance `fp32`, plans by rules of thumb, one
thread, batch {batch}. Nets for detection and pose return heat maps. {cpu}, {isa}, torch {torch}, {commits}.

`python -m fastcnn.reproduction.zoo --out benchmarks/results/zoo.json` measures it again, one net per process, and goes
on where it stopped; `python tools/coverage_page.py benchmarks/results/zoo.json` writes this page.
"""


def _commit(commit: str) -> str:
    return commit[:10] + (" with uncommitted changes" if commit.endswith("-dirty") else "")


def page(document: dict[str, Any]) -> str:
    """Return the page's text.

    Raises
    ------
    ValueError
        If the document is no record of the zoo.
    """
    try:
        nets, host, settings = document["nets"], document["host"], document["settings"]
        native = [net for net in nets if net["status"] == "native"]
        others = [net for net in nets if net["status"] != "native"]
        isa = ", ".join(dict.fromkeys(net["isa"] for net in native))
        commits = dict.fromkeys(_commit(str(net.get("commit", document["commit"]))) for net in nets)
        limit = document["gates"]["max_error"]
        lines = [
            INTRODUCTION.format(
                native=len(native),
                tried=len(nets),
                families=len({net["family"] for net in native}),
                limit=limit,
                batch=settings["batch"],
                cpu=host["cpu"],
                isa=isa,
                torch=document["torch"],
                commits=f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}",
            ),
            "## Native",
            "",
            "| family | net | parameters | input | error | torch's | steps |",
            "|---|---|---:|---|---:|---:|---:|",
        ]
        lines += [
            f"| {net['family']} | {net['net']} | {net['parameters'] / 1e6:.1f} M | {_shape(net)} | {net['error']:.1e} "
            f"| {net['torch_error']:.1e} | {net['steps']} |"
            for net in native
        ]
        if others:
            lines += ["", "## Not native", "", "| family | net | why |", "|---|---|---|"]
            lines += [f"| {net['family']} | {net['net']} | {_reason(net, limit)} |" for net in others]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no record of the zoo: {error!r}") from error
    return "\n".join(lines) + "\n"


def _shape(net: dict[str, Any]) -> str:
    return " × ".join(map(str, net["shape"]))


def _reason(net: dict[str, Any], limit: float) -> str:
    if net["status"] == "inexact":
        both = f"error {net['error']:.1e} (torch {net['torch_error']:.1e})"
        return both + ("; so ill-conditioned that torch is no nearer" if net["torch_error"] > limit else "")
    text = " ".join(str(net["reason"]).split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return text if len(text) <= 300 else text[:297] + "…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("record", type=Path, help="JSON that python -m fastcnn.reproduction.zoo wrote")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page differs")
    given = parser.parse_args()
    try:
        text = page(json.loads(given.record.read_text(encoding="utf-8")))
        old = given.page.read_text(encoding="utf-8") if given.page.exists() else ""
        if given.check:
            return int(old != text)
        given.page.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
