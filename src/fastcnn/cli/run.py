"""``fastcnn run``: a net over a data set. With a .fcnn file, no torch is needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from fastcnn.cli.compile import compile_model
from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.model import is_file, is_onnx, model_file, onnx_file, torch_model
from fastcnn.cli.options import (
    OUT_HELP,
    DataArgument,
    JsonOption,
    ModelArgument,
    PreprocessOption,
    ThreadsOption,
    WeightsOption,
    check_count,
    check_output,
    parse_preprocess,
    parse_split,
)
from fastcnn.cli.output import emit, progress_bar
from fastcnn.data import Dataset, Preprocess, load_data


def run_command(
    model: ModelArgument,
    data: DataArgument,
    weights: WeightsOption = None,
    preprocess: PreprocessOption = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="pictures at a time")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="use N pictures, spread evenly")] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="PART", help="train, test or all")] = None,
    threads: ThreadsOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help=f"also write the result there; {OUT_HELP}")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", metavar="PERCENT", help="goal: exit 1 if top-1 is below this")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a net over a data set: labels, accuracy and milliseconds a picture."""
    from fastcnn.cli.output import plain, write_atomically

    check_count(batch, "--batch")
    check_count(limit, "--limit")
    check_count(threads, "--threads")
    check_output(out, suffix=".json")
    settings = parse_preprocess(preprocess, data)
    part = parse_split(split)
    path = model_file(model) if is_file(model) else None
    dataset = load_data(data, split=part)
    if limit is not None:
        dataset = dataset.limit(limit)
    if min_accuracy is not None and dataset.labels is None:
        raise CliError(f"--min-accuracy {min_accuracy} needs labels, but {data} has none", hint="add an array y")
    net = _open(model, path, weights, dataset, settings, batch, threads)
    result = evaluate(net, dataset, settings, batch_size=batch)
    found = {"model": model, "data": data, "threads": int(net.threads), "isa": str(net.isa), **result}
    if out is not None:
        import json

        write_atomically(out, json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    emit(as_json, found, _text(found, dataset))
    if min_accuracy is not None and not result["top1_percent"] >= min_accuracy:
        raise GoalMissedError(f"top-1 accuracy is {result['top1_percent']:.2f} %, the goal is {min_accuracy} %")


def _open(
    model: str,
    path: Path | None,
    weights: str | None,
    dataset: Dataset,
    settings: Preprocess,
    batch: int,
    threads: int | None,
) -> Any:
    if path is not None:
        if weights is not None:
            raise CliError(
                f"--weights {weights!r} with a .fcnn file, which holds its weights", hint="leave --weights out"
            )
        from fastcnn.engine.api import load

        return load(path, threads=threads)
    example, _ = next(dataset.batches(settings, batch_size=batch))
    net: Any = onnx_file(model, weights) if is_onnx(model) else torch_model(model, weights)
    return compile_model(net, example.shape, threads=threads)


def evaluate(net: Any, dataset: Dataset, settings: Preprocess, *, batch_size: int) -> dict[str, Any]:
    """Run every picture and count.

    Returns
    -------
    dict
        ``pictures``, ``labels`` (predicted), ``top1_percent`` and ``top5_percent`` (None without labels),
        ``ms_per_picture`` (median over the batches, preprocessing not counted).

    Raises
    ------
    CliError
        If the outputs are not (N, classes).
    """
    predicted: list[npt.NDArray[np.int64]] = []
    in_five: list[npt.NDArray[np.bool_]] = []
    times: list[float] = []
    with progress_bar("running", len(dataset)) as advance:
        for x, y in dataset.batches(settings, batch_size=batch_size):
            start = time.perf_counter()
            scores = net(x)
            times.append((time.perf_counter() - start) / len(x))
            if isinstance(scores, tuple) or scores.ndim != 2 or len(scores) != len(x):
                given = f"{len(scores)} outputs" if isinstance(scores, tuple) else f"an output of shape {scores.shape}"
                raise CliError(
                    f"MODEL gives {given} for {len(x)} pictures; run needs one of shape (N, classes)",
                    hint="load it in Python instead:  fastcnn.load(FILE)(x)",
                )
            best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
            predicted.append(best[:, 0].astype(np.int64))
            if y is not None:
                in_five.append((best == y[:, None]).any(axis=1))
            advance(len(x))
    labels = np.concatenate(predicted)
    known = dataset.labels
    return {
        "pictures": len(dataset),
        "labels": labels.tolist(),
        "top1_percent": None if known is None else float((labels == known).mean() * 100),
        "top5_percent": None if known is None else float(np.concatenate(in_five).mean() * 100),
        # The first batch also makes the plan for its shape.
        "ms_per_picture": float(np.median(times[1:] or times)) * 1e3,
    }


def _text(found: dict[str, Any], dataset: Dataset) -> str:
    lines = [
        f"{found['pictures']} pictures, {found['ms_per_picture']:.3f} ms each, "
        f"{found['threads']} threads, {found['isa']}"
    ]
    if found["top1_percent"] is not None:
        lines.append(f"top-1 {found['top1_percent']:.2f} %, top-5 {found['top5_percent']:.2f} %")
    names = dataset.classes
    words = [names[i] if i < len(names) else str(i) for i in found["labels"][:10]]
    lines.append(f"labels: {', '.join(words)}{' …' if len(found['labels']) > 10 else ''}")
    return "\n".join(lines)
