"""Arguments and options that several commands share, and how their words are read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from fastcnn.cli.errors import CliError
from fastcnn.data.transforms import PRESETS, Preprocess

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="package.module:callable, FILE.onnx or FILE.fcnn")]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, mnist:DIR, fashion-mnist:DIR, cifar10:DIR, svhn:DIR, folder:DIR (class per folder) or "
        "npz:FILE (x, y)",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", metavar="FILE", help="state dict: .safetensors, .pt or .pth (no pickled code)"),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="computing threads; default: one a physical core")
]
ToleranceOption = Annotated[
    str,
    typer.Option("--tolerance", metavar="WORD", help="exact, fp32, relaxed, or a number below 1: the largest error"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout, nothing else")]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        "--preprocess", metavar="NAME", help=f"{', '.join(PRESETS)}; default: imagenet for folder:, else unit"
    ),
]
OUT_HELP = "file to write; it appears whole or not at all"


def parse_shape(text: str, argument: str = "--shape") -> tuple[int, ...]:
    """Read ``1,3,224,224`` (or with x between) into a shape.

    Raises
    ------
    CliError
        If it is not two to five positive whole numbers.
    """
    parts = text.replace("x", ",").split(",")
    digits = all(part.strip().isascii() and part.strip().isdigit() for part in parts)
    shape = tuple(int(part) for part in parts) if digits else ()
    if not 2 <= len(shape) <= 5 or min(shape) < 1:
        raise CliError(
            f"{argument} {text!r} is no shape: allowed are two to five positive whole numbers, batch first",
            hint=f"for example  {argument} 1,3,224,224",
        )
    if math.prod(shape) > 2**31:
        raise CliError(
            f"{argument} {text!r} has {math.prod(shape)} values", hint="choose a smaller batch or image size"
        )
    return shape


def parse_tolerance(text: str) -> str | float:
    """Read a tolerance word or number.

    Raises
    ------
    CliError
        If it is neither a known word nor a positive number.
    """
    if text in ("exact", "fp32", "relaxed"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise CliError(
            f"--tolerance {text!r} is not known: allowed are exact, fp32, relaxed or a number between 0 and 1",
            hint="fp32 allows a net error of 1e-4, relaxed one of 1e-2",
        )
    return value


def parse_preprocess(text: str | None, data: str) -> Preprocess:
    """Return the named preprocessing, or the usual one for a DATA string.

    Raises
    ------
    CliError
        If there is no such name.
    """
    name = text if text is not None else ("imagenet" if data.startswith("folder:") else "unit")
    if name not in PRESETS:
        raise CliError(
            f"--preprocess {name!r} is not known: choose from {', '.join(PRESETS)}", hint="imagenet is usual"
        )
    return replace(PRESETS[name])


def parse_split(text: str | None) -> Literal["train", "test", "all"] | None:
    """Check the word after --split.

    Raises
    ------
    CliError
        If it is not train, test or all.
    """
    if text not in (None, "train", "test", "all"):
        raise CliError(
            f"--split {text!r} is not known: choose train, test or all", hint="leave it out for the test part"
        )
    return cast(Literal["train", "test", "all"] | None, text)


def check_count(value: int | None, argument: str, least: int = 1) -> None:
    """Raise CliError unless ``value`` is None or at least ``least``."""
    if value is not None and value < least:
        raise CliError(f"{argument} {value} is not allowed: at least {least}", hint=f"for example  {argument} {least}")


def check_output(path: Path | None, argument: str = "--out", suffix: str | None = None) -> None:
    """Refuse early what could not be written at the end.

    Raises
    ------
    CliError
        If the ending is wrong, the folder is missing or not writable, or the path is a folder.
    """
    import os

    if path is None:
        return
    if suffix is not None and path.suffix != suffix:
        raise CliError(f"{argument} {str(path)!r} must end in {suffix}", hint=f"{argument} {path.with_suffix(suffix)}")
    if path.is_dir():
        raise CliError(
            f"{argument} {str(path)!r} is a folder", hint=f"give a file in it: {path / ('net' + (suffix or '.json'))}"
        )
    if not path.parent.is_dir():
        raise CliError(
            f"{argument} {str(path)!r}: folder {path.parent} does not exist", hint="make it first, or choose another"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CliError(f"{argument} {str(path)!r}: folder {path.parent} is not writable", hint="choose another folder")


def file_facts(report: Any, path: Path) -> dict[str, Any]:
    """What saving said about the file, and its size."""
    from fastcnn.cli.output import plain

    data = plain(report)
    facts: dict[str, Any] = data if isinstance(data, dict) else {"report": data}
    return {"path": str(path), "bytes": path.stat().st_size, **facts}
