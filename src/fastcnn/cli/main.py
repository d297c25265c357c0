"""The ``fastcnn`` program: commands, error lines and exit codes.

Exit 0 done, 1 a stated goal was missed, 2 bad input, 3 a mistake of ours, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer

from fastcnn.cli import bench, compile, compress, demo, doctor, export, inspect, methods, run, sensitivity
from fastcnn.cli.errors import BAD_INPUT, DONE, INTERRUPTED, explain
from fastcnn.cli.output import emit, log, results_only

app = typer.Typer(
    name="fastcnn",
    help="Make trained convolutional nets fast and small, and say what it costs.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("compile")(compile.compile_command)
app.command("compress")(compress.compress_command)
app.command("run")(run.run_command)
app.command("bench")(bench.bench_command)
app.command("sensitivity")(sensitivity.sensitivity_command)
app.command("export")(export.export_command)
app.command("inspect")(inspect.inspect_command)
app.command("methods")(methods.methods_command)
app.command("doctor")(doctor.doctor_command)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        import importlib.metadata

        emit(False, {}, f"fastcnn {importlib.metadata.version('fastcnn')}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        emit(False, {}, context.get_help())
        raise typer.Exit(BAD_INPUT)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; never raises for what a user can cause.

    With ``FASTCNN_TRACEBACK=1`` the exception itself comes out.
    """
    words = list(arguments)
    first = next((word for word in words if not word.startswith("-")), "")
    command = first if first in {known.name for known in app.registered_commands} else ""
    as_json = "--json" in words
    with results_only():
        if any(word in ("--help", "-h") for word in words):
            return _help(words)
        try:
            code = app(words, prog_name="fastcnn", standalone_mode=False)
            if code != INTERRUPTED:
                return code if isinstance(code, int) else DONE
            # typer turns Ctrl-C into this code without a word.
            error: BaseException = KeyboardInterrupt()
        except typer.Abort:
            error = KeyboardInterrupt()
        except (Exception, KeyboardInterrupt) as caught:
            if os.environ.get("FASTCNN_TRACEBACK") == "1" and not hasattr(caught, "format_message"):
                raise
            error = caught
        failure = explain(error, command)
        message = failure.message + _given(failure.message, words)
        log(f"error: {message}")
        log(f"hint: {failure.hint}")
        if as_json and failure.code != 1:
            # With a goal missed, the result itself is already out.
            emit(True, {"error": {"message": message, "hint": failure.hint, "code": failure.code}}, "")
        return failure.code


def _given(message: str, words: list[str]) -> str:
    """The value behind the option that the parser refused: it names the option only."""
    found = re.match(r"Invalid value for '(--?[\w-]+)'", message)
    if found is None:
        return ""
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == found[1] and (equals or i + 1 < len(words)):
            return f" (got {value if equals else words[i + 1]!r})"
    return ""


def _help(words: list[str]) -> int:
    """Help is a result: it goes to the real stdout, which the option parser would not know."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = app(words, prog_name="fastcnn", standalone_mode=False)
    emit(False, {}, text.getvalue().rstrip())
    return code if isinstance(code, int) else DONE


def main() -> None:
    """Entry point of the ``fastcnn`` script and of ``python -m fastcnn``."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _interrupt_again
    # The library's own lines, such as a saved plan that does not fit this machine.
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("fastcnn").setLevel(logging.INFO)
    # A reader that goes away (fastcnn … | head) is no error.
    try:
        code = run_cli(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = DONE
    sys.exit(code)


def _interrupt_again(unraisable: Any) -> None:
    """Repeat an interrupt that fell into a callback whose exceptions Python drops, once that callback is over."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(unraisable)


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Let SIGTERM clean up like Ctrl-C."""
    raise KeyboardInterrupt
