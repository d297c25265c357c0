"""``fastcnn inspect``: what is in a .fcnn file, layer by layer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastcnn.cli.model import model_file
from fastcnn.cli.options import JsonOption
from fastcnn.cli.output import emit, plain


def inspect_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a .fcnn file")],
    as_json: JsonOption = False,
) -> None:
    """Show the layers of a .fcnn file: how each weight is coded, bits a weight, bytes in theory and in the file."""
    from fastcnn.artifact import inspect

    path = model_file(file)
    report: Any = inspect(path)
    emit(as_json, plain(report.to_json() if hasattr(report, "to_json") else report), str(report))
