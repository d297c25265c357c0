"""``fastcnn doctor``: what this machine is, what is missing, what speed to expect."""

from __future__ import annotations

from typing import Annotated

import typer

from fastcnn.cli.errors import GOAL_MISSED
from fastcnn.cli.options import JsonOption, ThreadsOption, check_count
from fastcnn.cli.output import emit


def doctor_command(
    measure: Annotated[
        bool, typer.Option("--measure", help="also measure arithmetic and memory speed (a few seconds)")
    ] = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what this machine is, what is missing and what speed to expect. Exit 1 if nets cannot run here."""
    from fastcnn.reporting.doctor import doctor

    check_count(threads, "--threads")
    report = doctor(measure=measure, threads=threads)
    emit(as_json, report.to_json(), str(report))
    return 0 if report.healthy else GOAL_MISSED
