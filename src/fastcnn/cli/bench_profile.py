"""``fastcnn bench --profile``: per layer times, shares of the machine's limits, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fastcnn._extras import require
from fastcnn.cli.errors import GoalMissedError
from fastcnn.cli.output import emit, log, plain, write_atomically


def profile_command(
    models: Iterable[tuple[str, Any]],
    shape: tuple[int, ...],
    *,
    threads: int | None,
    rounds: int,
    seconds: float,
    tolerance: str | float,
    out: Path | None,
    html: Path | None,
    require_limits: bool,
    as_json: bool,
) -> None:
    """Profile, show, write what was asked for; GoalMissedError under ``require_limits`` if a goal is missed."""
    from fastcnn.benchmarking.profile import profile

    if html is not None:  # before minutes of measuring
        for module in ("jinja2", "plotly"):
            require(module, extra="report", purpose="the HTML chart (--html)")
    result = profile(models, shape, threads=threads, rounds=rounds, seconds=seconds, tolerance=tolerance, progress=log)
    if out is not None:
        write_atomically(out, result.dumps() + "\n")
    if html is not None:
        from fastcnn.reporting.profile_page import profile_html

        write_atomically(html, profile_html(result))
        log(f"wrote {html}")
    emit(as_json, plain(result.to_json()), Group(*(part for net in result.nets for part in _parts(net))))
    missed = result.missed()
    if require_limits and missed:
        raise GoalMissedError("; ".join(missed))


def _parts(net: Any) -> list[Any]:
    limits = net.limits
    error = "" if net.error is None else f", error {net.error:.1e}"
    bf16 = "" if limits.bf16_gmacs is None else f" ({limits.bf16_gmacs:.1f} G in bf16)"
    bf16 += "" if limits.amx_gmacs is None else f" ({limits.amx_gmacs:.1f} G in bf16 by AMX)"
    steps = Table(
        title=f"{net.net}, input {'x'.join(map(str, net.shape))}, {limits.threads} threads, {limits.isa}: "
        f"{net.call_ms:.2f} ms a call{error}",
        caption=f"same run, all threads: {limits.fma_gmacs:.1f} G fp32 multiply-adds/s{bf16}, "
        f"{limits.read_gbps:.1f} GB/s read from {limits.buffer_mib} MiB; of limit: the binding limit's time / ms; "
        "above 100 %: from a cache",
    )
    for column in ("layer", "kernel"):
        steps.add_column(column, overflow="fold")
    for column in ("ms", "spread", "of peak", "of bandwidth", "of limit"):
        steps.add_column(column, justify="right")
    steps.add_column("limit")
    steps.add_column("error", justify="right")
    steps.add_column("why", overflow="fold")
    for step in net.steps:
        about = "" if step.counted else "~"
        steps.add_row(
            step.layer,
            step.kernel,
            f"{step.ms:.3f}",
            f"{step.spread:.0%}",
            f"{about}{step.compute_share:.0%}" if step.multiplications else "",
            f"{step.byte_share:.0%}",
            f"{step.share:.0%}",
            "mult." if step.bound == "multiplications" else "bytes",
            "" if step.error is None else f"{step.error:.1e}",
            step.why,
        )
    families = Table(title=f"steps {net.steps_ms:.2f} ms, at their limits {net.limit_ms:.2f} ms")
    families.add_column("family")
    for column in ("steps", "ms", "limit ms", "of limit"):
        families.add_column(column, justify="right")
    for row in net.families():
        families.add_row(
            row["family"], str(row["steps"]), f"{row['ms']:.3f}", f"{row['limit_ms']:.3f}", f"{row['share']:.0%}"
        )
    marks = {True: "met    ", False: "MISSED ", None: "       "}
    lines = [f"{marks[verdict.met]} {verdict.goal}: {verdict.text()}" for verdict in net.verdicts()]
    doubts = [f"DOUBT   {doubt}" for doubt in net.doubts()]
    return [steps, families, Text("\n".join([f"{net.net}:", *lines, *doubts, ""]))]
