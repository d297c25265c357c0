"""``fastcnn compile``: a torch model becomes a .fcnn file, exact and fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.model import is_file, torch_model
from fastcnn.cli.options import (
    OUT_HELP,
    JsonOption,
    ModelArgument,
    ThreadsOption,
    ToleranceOption,
    WeightsOption,
    check_count,
    check_output,
    file_facts,
    parse_shape,
    parse_tolerance,
)
from fastcnn.cli.output import emit, log, plain


def compile_command(
    model: ModelArgument,
    shape: Annotated[str, typer.Option("--shape", metavar="N,C,H,W", help="example input shape")] = "1,3,224,224",
    weights: WeightsOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.fcnn", help=OUT_HELP)] = None,
    tolerance: ToleranceOption = "fp32",
    threads: ThreadsOption = None,
    strict: Annotated[bool, typer.Option(help="refuse operations outside the engine's set")] = True,
    tune: Annotated[bool, typer.Option(help="time the candidates for each layer; off: choose by rule")] = True,
    max_error: Annotated[
        float | None, typer.Option("--max-error", help="goal: exit 1 if the net's error is above this")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a torch model for this machine, print the plan, and save it."""
    if is_file(model):
        raise CliError(
            f"MODEL {model!r} is already compiled", hint=f"fastcnn run {model} DATA, or give package.module:callable"
        )
    wanted = parse_shape(shape)
    allowed = parse_tolerance(tolerance)
    check_count(threads, "--threads")
    check_output(out, suffix=".fcnn")
    net = compile_model(
        torch_model(model, weights), wanted, tolerance=allowed, threads=threads, strict=strict, tune=tune
    )
    data: dict[str, Any] = {
        "model": model,
        "shape": list(wanted),
        "threads": int(net.threads),
        "isa": str(net.isa),
        "plan": plain(net.plan.to_json()),
        "error": plain(net.plan.error),
    }
    if out is not None:
        data["file"] = file_facts(net.save(out), out)
        log(f"wrote {out} ({data['file']['bytes']:,} bytes)")
    emit(as_json, data, str(net.plan))
    error = net.plan.error
    if max_error is not None and (error is None or not float(error) <= max_error):
        raise GoalMissedError(f"the net's error is {error}, the goal --max-error is {max_error}")


def compile_model(model: Any, shape: tuple[int, ...], **options: Any) -> Any:
    """Compile with a standard normal example input from a fixed seed."""
    import numpy as np

    from fastcnn.engine.api import compile as compile_net

    example = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return compile_net(model, example, **options)
