"""``fastcnn compile``: a torch model or an ONNX file becomes a .fcnn file, exact and fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.model import is_file, is_onnx, onnx_file, torch_model
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
from fastcnn.cli.output import emit, log, plain, tuning_bar

DEFAULT_SHAPE = "1,3,224,224"


def compile_command(
    model: ModelArgument,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", metavar="N,C,H,W", help="example input shape; default: 1,3,224,224, or what an ONNX file states"
        ),
    ] = None,
    weights: WeightsOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.fcnn", help=OUT_HELP)] = None,
    tolerance: ToleranceOption = "fp32",
    threads: ThreadsOption = None,
    strict: Annotated[bool, typer.Option(help="refuse operations outside the engine's set")] = True,
    tune: Annotated[bool, typer.Option(help="time the candidates for each layer; off: choose by rule")] = True,
    weight_memory: Annotated[
        int | None, typer.Option("--weight-memory", metavar="MB", help="most 1e6 bytes that packed weights may take")
    ] = None,
    max_error: Annotated[
        float | None, typer.Option("--max-error", help="goal: exit 1 if the net's error is above this")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a torch model or an ONNX file for this machine, print the plan, and save it."""
    if is_file(model):
        raise CliError(
            f"MODEL {model!r} is already compiled", hint=f"fastcnn run {model} DATA, or give package.module:callable"
        )
    wanted = None if shape is None and is_onnx(model) else parse_shape(shape or DEFAULT_SHAPE)
    allowed = parse_tolerance(tolerance)
    check_count(threads, "--threads")
    check_count(weight_memory, "--weight-memory")
    check_output(out, suffix=".fcnn")
    module: Any = onnx_file(model, weights) if is_onnx(model) else torch_model(model, weights)
    net = compile_model(
        module, wanted, tolerance=allowed, threads=threads, strict=strict, tune=tune,
        weight_memory=None if weight_memory is None else weight_memory * 10**6,
    )  # fmt: skip
    wanted = wanted or net.graph.inputs[0].shape
    error, torch_error = measure_errors(net, module, wanted)
    data: dict[str, Any] = {
        "model": model,
        "shape": list(wanted),
        "threads": int(net.threads),
        "isa": str(net.isa),
        "plan": plain(net.plan.to_json()),
        "error": error,
        "torch_error": torch_error,
    }
    if out is not None:
        data["file"] = file_facts(net.save(out), out)
        log(f"wrote {out} ({data['file']['bytes']:,} bytes)")
    shown = "not known: the net has several inputs or outputs" if error is None else f"{error:.1e}"
    if torch_error is not None:
        shown += f", torch's own {torch_error:.1e}"
    emit(as_json, data, f"{net.plan}\nerror against float64 on random input: {shown}")
    if max_error is not None and (error is None or not error <= max_error):
        raise GoalMissedError(f"the net's error is {error}, the goal --max-error is {max_error}")


def compile_model(model: Any, shape: tuple[int, ...] | None, **options: Any) -> Any:
    """Compile an nn.Module or the path of an ONNX file, for inputs of ``shape`` (None: what the file states)."""
    from fastcnn.engine.api import compile as compile_net

    with tuning_bar() as progress:
        return compile_net(model, None if shape is None else _example(shape), progress=progress, **options)


def measure_errors(net: Any, model: Any, shape: tuple[int, ...]) -> tuple[float | None, float | None]:
    """Return our error and torch's own against the model in float64; None where there is none to be had.

    A net of several inputs or outputs has no error here; an ONNX file has none of torch's.
    """
    if isinstance(model, Path):
        return _measure_file(net, model, shape), None
    import torch

    from fastcnn.benchmarking.error import relative_error
    from fastcnn.benchmarking.export import exact_outputs

    x = _example(shape)
    with torch.inference_mode():
        y = model(torch.from_numpy(x))
    if not isinstance(y, torch.Tensor):
        return None, None
    exact = exact_outputs(model, x[None])[0]
    return relative_error(np.asarray(net(x)), exact), relative_error(y.numpy(), exact)


def _measure_file(net: Any, path: Path, shape: tuple[int, ...]) -> float | None:
    """Error against the file in float64, by onnx's own reference evaluator."""
    from fastcnn.benchmarking.error import relative_error
    from fastcnn.benchmarking.onnx_file import exact_outputs_of_file

    if len(net.graph.inputs) != 1 or len(net.graph.outputs) != 1:
        return None
    x = _example(shape)
    return relative_error(np.asarray(net(x)), exact_outputs_of_file(path, x[None])[0])


def _example(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Smooth random pictures, or plain random numbers where the input is no picture."""
    if len(shape) == 4:
        from fastcnn.benchmarking.settle import random_pictures

        picture: npt.NDArray[np.float32] = random_pictures(1, shape, seed=0)[0]
        return picture
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
