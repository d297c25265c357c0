"""``fastcnn compress``: carry a recipe out on a trained model and save the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fastcnn.cli.compile import compile_model
from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.model import is_file, torch_model
from fastcnn.cli.options import (
    OUT_HELP,
    JsonOption,
    ModelArgument,
    PreprocessOption,
    ThreadsOption,
    ToleranceOption,
    WeightsOption,
    check_count,
    check_output,
    file_facts,
    parse_preprocess,
    parse_tolerance,
)
from fastcnn.cli.output import emit, log, plain


def compress_command(
    model: ModelArgument,
    recipe: Annotated[str, typer.Option("--recipe", metavar="FILE", help="YAML file, or the name of a shipped recipe")],
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="as for run; its train part trains, test measures")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.fcnn", help=OUT_HELP)],
    weights: WeightsOption = None,
    preprocess: PreprocessOption = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="training batch")] = 64,
    tolerance: ToleranceOption = "fp32",
    threads: ThreadsOption = None,
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", metavar="DIR", help="keep checkpoints there, and go on from them")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", metavar="POINTS", help="goal: exit 1 if accuracy falls by more")
    ] = None,
    min_ratio: Annotated[
        float | None, typer.Option("--min-ratio", metavar="X", help="goal: exit 1 if the file is not X times smaller")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compress a trained model by a recipe, fine-tune it, and save the small file."""
    from fastcnn._extras import require

    if is_file(model):
        raise CliError(f"MODEL {model!r} is a file without its torch model", hint="give package.module:callable")
    check_count(batch, "--batch")
    check_count(threads, "--threads")
    check_output(out, suffix=".fcnn")
    allowed = parse_tolerance(tolerance)
    settings = parse_preprocess(preprocess, data)
    require("torch", extra="compress", purpose="fastcnn compress")
    from fastcnn.compression.recipe import Recipe
    from fastcnn.compression.run_recipe import run_recipe
    from fastcnn.data import load_data
    from fastcnn.data.loader import Batches, accuracy_of

    plan = Recipe.load(recipe)
    net = torch_model(model, weights)
    loader = Batches(load_data(data, split="train"), settings, batch_size=batch)
    evaluate = accuracy_of(load_data(data, split="test"), settings)
    log(f"recipe {plan.name}: {', '.join(stage.key for stage in plan.stages)}; {len(loader)} batches an epoch")
    result = run_recipe(net, plan, loader, evaluate, checkpoint_dir=checkpoints)
    shape = (1, *loader.shape)
    compiled = compile_model(result.model.eval(), shape, tolerance=allowed, threads=threads, strict=True)
    file = file_facts(compiled.save(out), out)
    found = summary(net, result, file)
    emit(
        as_json,
        {"model": model, "recipe": plan.name, "data": data, **found, "layers": plain(result.report)},
        _text(found, result),
    )
    missed = []
    if max_drop is not None and not found["drop_points"] <= max_drop:
        missed.append(f"accuracy fell by {found['drop_points']:.2f} points, the goal is at most {max_drop}")
    if min_ratio is not None and not found["ratio"] >= min_ratio:
        missed.append(f"the file is {found['ratio']:.1f} times smaller, the goal is {min_ratio}")
    if missed:
        raise GoalMissedError("; ".join(missed))


def summary(dense: Any, result: Any, file: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and bytes before and after. Bytes before: every parameter of the dense model as fp32."""
    dense_bytes = int(sum(np.prod(p.shape, dtype=np.int64) for p in dense.parameters())) * 4
    return {
        "accuracy_before": result.metric_before,
        "accuracy_after": result.metric,
        "drop_points": result.metric_before - result.metric,
        "dense_bytes": dense_bytes,
        "file": file,
        "ratio": dense_bytes / file["bytes"],
        "stages": [
            {"stage": stage.stage, "accuracy": stage.metric, "seconds": stage.seconds} for stage in result.stages
        ],
    }


def _text(found: dict[str, Any], result: Any) -> str:
    stages = "\n".join(f"  {s['stage']:10s} {s['accuracy']:6.2f} %  {s['seconds']:6.1f} s" for s in found["stages"])
    return (
        f"{result.report}\n\nafter each stage\n{stages}\n\n"
        f"accuracy  {found['accuracy_before']:.2f} % before, {found['accuracy_after']:.2f} % after\n"
        f"bytes     {found['dense_bytes']:,} before (fp32), {found['file']['bytes']:,} after: "
        f"{found['ratio']:.1f} times smaller\n"
        f"wrote     {found['file']['path']}"
    )
