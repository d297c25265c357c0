"""What went wrong, in two lines, and the exit code that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

DONE, GOAL_MISSED, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes. INTERNAL is a mistake of ours, not of the user."""


class CliError(ValueError):
    """Bad input on the command line.

    Parameters
    ----------
    message : str
        Names the argument, what came and what is allowed.
    hint : str
        How to mend it, as one line.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class GoalMissedError(Exception):
    """The command did its work, but a goal that the user stated was not reached."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception as the user sees it."""

    code: int
    message: str
    hint: str


def explain(error: BaseException, command: str) -> Failure:
    """Turn an exception into exit code, message and hint.

    Parameters
    ----------
    error : BaseException
    command : str
        The command that was running, for the hint.
    """
    if _is_interrupt(error):
        return Failure(code=INTERRUPTED, message="interrupted", hint="nothing was left half-written; run it again")
    if isinstance(error, GoalMissedError):
        return Failure(code=GOAL_MISSED, message=str(error), hint="loosen the goal, or change the settings behind it")
    see_help = f"fastcnn {command} --help".replace("  ", " ")
    if hasattr(error, "format_message"):
        # A usage error of the option parser, whichever class it has in this version of typer.
        return Failure(code=BAD_INPUT, message=_line(str(error.format_message())), hint=see_help)
    message = _line(str(error)) or type(error).__name__
    if isinstance(error, CliError):
        return Failure(code=BAD_INPUT, message=message, hint=error.hint)
    if isinstance(error, OSError):
        return Failure(code=BAD_INPUT, message=message, hint=_os_hint(error))
    if isinstance(error, ImportError):
        # A missing extra says in its own message how to install it.
        return Failure(code=BAD_INPUT, message=message, hint="fastcnn doctor  shows what is installed")
    if isinstance(error, (ValueError, TypeError)):
        return Failure(
            code=BAD_INPUT, message=message, hint=f"{see_help}; FASTCNN_TRACEBACK=1 shows where it came from"
        )
    if isinstance(error, MemoryError):
        return Failure(code=BAD_INPUT, message="out of memory", hint="choose a smaller batch or image size")
    return Failure(
        code=INTERNAL,
        message=f"unexpected {type(error).__name__}: {message}",
        hint="this is a mistake of fastcnn: report it with what FASTCNN_TRACEBACK=1 prints",
    )


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what it is, or was caused by: what falls into ``__set_name__`` comes out as a RuntimeError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _line(text: str) -> str:
    return " ".join(text.split())


def _os_hint(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "check the path; a file to write needs a folder that exists"
    if isinstance(error, PermissionError):
        return "choose a place that you may read, or write with --out"
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return "give a path of the other kind: a file where a folder was given, or the reverse"
    return "check the path, and that the disk has room"
