"""``fastcnn methods``: what the library can do to a net."""

from __future__ import annotations

from rich.table import Table

from fastcnn._extras import require
from fastcnn.cli.options import JsonOption
from fastcnn.cli.output import emit


def methods_command(as_json: JsonOption = False) -> None:
    """List the compression methods: name, kind, layers they take, native ops, and what each does."""
    require("torch", extra="compress", purpose="the list of methods")
    from fastcnn.methods.registry import list_methods

    methods = list_methods()
    table = Table(title=None)
    for column in ("method", "kind", "config", "takes", "native op", "what it does"):
        table.add_column(column)
    data = []
    for method in methods:
        row = {
            "name": method.name,
            "kind": method.kind,
            "config": method.config.__name__,
            "serves": list(method.serves),
            "kernels": list(method.kernels),
            "summary": method.summary,
        }
        data.append(row)
        table.add_row(
            method.name,
            method.kind,
            method.config.__name__,
            ", ".join(method.serves),
            ", ".join(method.kernels) or "dense",
            method.summary,
        )
    emit(as_json, {"methods": data}, table)
