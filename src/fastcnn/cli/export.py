"""``fastcnn export``: a net becomes a program for the C library, or an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from fastcnn.cli.compile import DEFAULT_SHAPE, compile_model
from fastcnn.cli.errors import CliError
from fastcnn.cli.model import is_file, is_onnx, model_file, onnx_file, torch_model
from fastcnn.cli.options import (
    OUT_HELP,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    check_count,
    check_output,
    parse_shape,
    parse_tolerance,
)
from fastcnn.cli.output import emit, plain


def export_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="FILE.fcnn, FILE.onnx or package.module:callable")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.fcp|FILE.onnx", help=OUT_HELP)] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="N,C,H,W", help="input shape, once for each input; default: the file's own"),
    ] = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    tolerance: Annotated[
        str | None, typer.Option("--tolerance", metavar="WORD", help="as for compile; default: the file's own, or fp32")
    ] = None,
    plan: Annotated[
        str, typer.Option("--plan", metavar="WORD", help="of a .fcnn file: saved, tune or heuristic")
    ] = "saved",
    c_flags: Annotated[
        bool, typer.Option("--c-flags", help="print the flags a C compiler needs, and do nothing else")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a program (.fcp) that fastcnn.h runs without Python, for one set of shapes and one CPU; or ONNX."""
    if c_flags:
        _print_flags(as_json)
        return
    if model is None or out is None:
        missing = "MODEL" if model is None else "--out"
        raise CliError(f"{missing} is missing", hint="fastcnn export net.fcnn --out net.fcp")
    check_count(threads, "--threads")
    check_output(out, suffix=".onnx" if out.suffix == ".onnx" else ".fcp")
    shapes = [parse_shape(text) for text in shape or []]
    net = _open(model, weights, shapes, threads, tolerance, plan)
    if shapes and len(shapes) != len(net.graph.inputs):
        raise CliError(
            f"--shape is given {len(shapes)} times, the net has {len(net.graph.inputs)} inputs",
            hint=" ".join(f"--shape {','.join(map(str, v.shape))}" for v in net.graph.inputs),
        )
    if out.suffix == ".onnx":
        net.to_onnx(out, *shapes)
        size = out.stat().st_size
        emit(as_json, {"path": str(out), "bytes": size}, f"{out}: {size:,} bytes")
        return
    report = net.export(out, *shapes)
    emit(as_json, plain(report), str(report))


def _open(
    model: str,
    weights: str | None,
    shapes: list[tuple[int, ...]],
    threads: int | None,
    tolerance: str | None,
    plan: str,
) -> Any:
    allowed = None if tolerance is None else parse_tolerance(tolerance)
    if not is_file(model):
        if len(shapes) > 1:
            raise CliError("--shape is given twice for a model", hint="compile it in Python and call net.export")
        net: Any = onnx_file(model, weights) if is_onnx(model) else torch_model(model, weights)
        example = shapes[0] if shapes else None if is_onnx(model) else parse_shape(DEFAULT_SHAPE)
        return compile_model(net, example, threads=threads, tolerance=allowed or "fp32", strict=True)
    if weights is not None:
        raise CliError(f"--weights {weights!r} with a .fcnn file, which holds its weights", hint="leave --weights out")
    if plan not in ("saved", "tune", "heuristic"):
        raise CliError(f"--plan {plan!r} is not known: choose saved, tune or heuristic", hint="saved is the default")
    from fastcnn.engine.api import load

    word = cast(Literal["saved", "tune", "heuristic"], plan)
    return load(model_file(model), threads=threads, plan=word, tolerance=cast(Any, allowed))


def _print_flags(as_json: bool) -> None:
    from fastcnn.engine.program import c_flags, include_dir, library_path

    try:
        data = {"include_dir": str(include_dir()), "library": str(library_path()), "flags": c_flags()}
    except FileNotFoundError as error:
        raise CliError(str(error), hint="pip install --force-reinstall fastcnn") from error
    emit(as_json, data, data["flags"])
