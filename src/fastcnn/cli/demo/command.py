"""The demo command: digits from training to a tiny file, then a pretrained net on photographs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.options import JsonOption, ThreadsOption, check_count
from fastcnn.cli.output import emit, log, plain

_PARTS = ("digits", "photographs", "all")


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="folder for the files; default: a new one")
    ] = None,
    part: Annotated[str, typer.Option("--part", metavar="PART", help="digits, photographs or all")] = "all",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train, compress, save and run a net on digits; then compile a pretrained net and run it on photographs.

    Takes under three minutes on two cores. Exit 1 if a label differs from torch's.
    """
    from fastcnn._extras import require

    if part not in _PARTS:
        raise CliError(f"--part {part!r} is not known: choose from {', '.join(_PARTS)}", hint="leave it out for both")
    check_count(threads, "--threads")
    for module, extra in (("torch", "compress"), ("accelerate", "compress"), ("sklearn", "demo"), ("skimage", "demo")):
        require(module, extra=extra, purpose="fastcnn demo")
    folder = _folder(out)
    start = time.perf_counter()
    found: dict[str, Any] = {"folder": str(folder)}
    texts: list[Any] = []
    missed: list[str] = []
    if part in ("digits", "all"):
        from fastcnn.cli.demo.digits import digits_demo

        log("part 1: digits")
        digits = digits_demo(folder, threads=threads)
        found["digits"] = digits.to_json()
        texts.append(digits.table())
        missed += digits.missed()
    if part in ("photographs", "all"):
        from fastcnn.cli.demo.photographs import photographs_demo

        log("part 2: photographs")
        photographs = photographs_demo(folder, threads=threads)
        found["photographs"] = photographs.to_json()
        texts += photographs.tables()
        missed += photographs.missed()
    found["seconds"] = time.perf_counter() - start
    if as_json:
        emit(True, plain(found), "")
    else:
        for text in texts:
            emit(False, {}, text)
        emit(False, {}, f"{found['seconds']:.0f} s; the files are in {folder}")
    if missed:
        raise GoalMissedError("; ".join(missed))


def _folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="fastcnn-demo-"))
    if out.exists() and not out.is_dir():
        raise CliError(f"--out {str(out)!r} is a file", hint="give a folder; it is made if it does not exist")
    out.mkdir(parents=True, exist_ok=True)
    return out
