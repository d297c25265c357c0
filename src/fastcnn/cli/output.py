"""Results to stdout, all else to stderr; with --json exactly one document on stdout."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastcnn._files import write_atomically as write_atomically

_WIDTH_WITHOUT_TERMINAL = 160

_results: TextIO | None = None


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Keep stdout for results: whatever else writes to it in between (a model's own print) goes to stderr."""
    global _results
    stream = sys.stdout
    _results = stream
    try:
        with contextlib.redirect_stdout(sys.stderr), _redirect_descriptor(stream):
            yield
    finally:
        _results = None


def emit(as_json: bool, data: Any, text: Any) -> None:
    """Print one result: ``data`` as a JSON document, or ``text`` (a string or something rich can draw)."""
    stream = _results or sys.stdout
    if as_json:
        stream.write(json.dumps(plain(data), indent=1, allow_nan=False) + "\n")
    else:
        terminal = stream.isatty()
        console = Console(file=stream, width=None if terminal else _WIDTH_WITHOUT_TERMINAL, highlight=False)
        if isinstance(text, str):
            console.print(text, markup=False, soft_wrap=True)
        else:
            console.print(text)
    stream.flush()


def log(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Any]:
    """Yield a function ``advance(count=1, note="")``; the bar is drawn on stderr, and only on a terminal."""
    with _bar() as progress:
        task = progress.add_task(title, total=total, note="")

        def advance(count: int = 1, note: str = "") -> None:
            progress.update(task, advance=count, note=note)

        yield advance


@contextlib.contextmanager
def tuning_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield a function ``(done, total)``, such as compiling calls after each round of tuning."""
    with _bar() as progress:
        task = progress.add_task("tuning", total=None, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _bar() -> Progress:
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def plain(value: Any) -> Any:
    """Turn dataclasses, arrays, paths and numpy numbers into what JSON holds; NaN and infinity become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    return dict_or_text(value)


def dict_or_text(value: Any) -> Any:
    """A mapping as a dict, anything else as its text."""
    return {str(k): plain(v) for k, v in value.items()} if hasattr(value, "items") else str(value)


@contextlib.contextmanager
def _redirect_descriptor(stream: TextIO) -> Iterator[None]:
    """Point file descriptor 1 at stderr too, for native code; ``stream`` keeps the real stdout."""
    global _results
    try:
        real = stream is sys.__stdout__ and stream.fileno() == 1
    except (OSError, ValueError, AttributeError):
        real = False
    if not real:
        yield
        return
    stream.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    _results = os.fdopen(os.dup(kept), "w", encoding=stream.encoding)
    try:
        yield
    finally:
        _results.close()
        _results = None
        os.dup2(kept, 1)
        os.close(kept)
