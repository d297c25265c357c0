"""Accuracy against time and bytes of one net in many forms: ``python -m fastcnn.reproduction.lowprecision.forms``.

With --runs (a folder that the trainings were written to), --cifar10, --out and --png. The plain net for CIFAR-10 is
taken as it was trained in float32, in DoReFa's forms and in binary ones; the float one is quantised to 8 bits after
training besides. Every form runs in the engine from its file, one picture at a time; all take turns, every block in a
fresh process. Accuracies are those of one seed.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import fastcnn
from fastcnn._extras import require
from fastcnn.benchmarking.command import add_timing, complaint, guarded, timing_of, write_record
from fastcnn.benchmarking.files import FCNN, INPUTS
from fastcnn.benchmarking.turns import Entry, time_in_turns
from fastcnn.cli.output import log, progress_bar, write_atomically
from fastcnn.methods.lowprecision import Int8Config
from fastcnn.reproduction.lowprecision.trainings import FILE, WEIGHTS, engine_labels, percent
from fastcnn.reproduction.lowprecision.ways import WAYS
from fastcnn.reproduction.trials import RESULT, Trial
from fastcnn.reproduction.winograd_labels.pictures import evenly, load_pictures

MODULE = "fastcnn.reproduction.lowprecision.forms"
FLOAT, INT8 = "vgg/float", "vgg/int8"
CALIBRATED = 512


def trained(runs: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Results of the plain net's forms that were trained with a seed, by way.

    Raises
    ------
    FileNotFoundError
        If the float net is not among them.
    """
    found = {}
    for name in WAYS:
        path = Trial(name=name, seed=seed).folder(runs) / RESULT
        if name.startswith("vgg/") and path.is_file():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    if FLOAT not in found:
        raise FileNotFoundError(f"{runs} holds no result of {FLOAT} with seed {seed}: run the trainings first")
    return found


def quantised(runs: Path, seed: int, cifar10: str) -> tuple[Any, float]:
    """The float net in 8 bits, and its accuracy on the test pictures.

    Raises
    ------
    ValueError
        If the weights are of another net.
    """
    model = WAYS[FLOAT].build()
    path = Trial(name=FLOAT, seed=seed).folder(runs) / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of {FLOAT}: {str(error).splitlines()[0]}") from error
    unknown = load_pictures(cifar10, "test")
    calibration = evenly(load_pictures(cifar10, "train"), CALIBRATED)
    small: Any = fastcnn.convert(model.eval(), Int8Config(), data=list(torch.split(calibration, 64)))
    net = fastcnn.compile(small, unknown.inputs[:1], threads=1, strict=True)
    return small, percent(engine_labels(net, unknown.inputs), unknown.labels)


def measure(runs: Path, seed: int, cifar10: str, *, threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Every form's accuracy, bytes, and milliseconds of each round.

    Raises
    ------
    FileNotFoundError, ValueError, DataError
        If a training or the pictures are missing.
    EngineFailedError
        If a block fails.
    """
    results = trained(runs, seed)
    small, accuracy_int8 = quantised(runs, seed, cifar10)
    inputs = np.random.default_rng(0).standard_normal((1, 1, 3, 32, 32)).astype(np.float32)
    rows: list[dict[str, Any]] = []
    entries: list[Entry] = []
    with tempfile.TemporaryDirectory(prefix="fastcnn-forms-") as where:
        root = Path(where)
        for name in (*results, INT8):
            folder = root / name.replace("/", "-")
            folder.mkdir()
            np.save(folder / INPUTS, inputs)
            if name == INT8:
                net: Any = fastcnn.compile(small, inputs[0], threads=threads, strict=True)
            else:
                source = Trial(name=name, seed=seed).folder(runs) / FILE
                net = fastcnn.load(source, threads=threads, plan="tune")
            net.save(folder / FCNN)
            entries.append(Entry(label=name, engine="fastcnn", variant="default", folder=folder))
            accuracy, why = accuracy_int8, "8 bits after training"
            if name != INT8:
                accuracy, why = results[name]["accuracy"], WAYS[name].why
            rows.append({"form": name, "why": why, "accuracy": accuracy, "bytes": (folder / FCNN).stat().st_size})
        with progress_bar("forms", rounds * len(entries)) as advance:
            times = time_in_turns(
                entries, threads=threads, rounds=rounds, seconds=seconds, evicted={"warm": 0}, advance=advance
            )["warm"]
    return [{**row, "ms": times[row["form"]]} for row in rows]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The forms in lines for people, the most accurate first."""
    lines = [f"{'form':22} {'accuracy':>8} {'ms':>7} {'bytes':>10}"]
    for row in sorted(rows, key=lambda each: -each["accuracy"]):
        ms = statistics.median(row["ms"])
        lines.append(f"{row['form']:22} {row['accuracy']:8.2f} {ms:7.4f} {row['bytes']:10,}  {row['why']}")
    return "\n".join(lines)


def picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of two panels: accuracy against milliseconds, and against bytes.

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    """
    figures: Any = require("matplotlib.figure", extra="report", purpose="the picture of the forms")
    figure = figures.Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    across = ([statistics.median(row["ms"]) for row in rows], [row["bytes"] / 1e3 for row in rows])
    for panel, places, label in zip(panels, across, ("ms of one picture", "file, 1000 bytes"), strict=True):
        for index, (row, place) in enumerate(zip(rows, places, strict=True)):
            panel.plot(place, row["accuracy"], "o", color=f"C{index}", label=row["form"].removeprefix("vgg/"))
        panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.grid(color="#e5e5e5", which="both")
    panels[0].set_ylabel("accuracy on CIFAR-10, %")
    panels[1].legend(fontsize=8)
    figure.suptitle("one net in its forms of few bits", fontsize=11)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0, or 1 if a block fails, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--cifar10", required=True, help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--png", type=Path, help="picture to write")
    parser.add_argument("--seed", type=int, default=0)
    add_timing(parser, rounds=5, seconds=0.5)
    options = parser.parse_args(arguments)
    if wrong := complaint(options):
        log(f"error: {wrong}")
        return 2
    return guarded(partial(_run, options), bad_input=(OSError, ValueError))


def _run(options: argparse.Namespace) -> int:
    rows = measure(options.runs, options.seed, options.cifar10, **timing_of(options))
    for path in filter(None, (options.out, options.png)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.png is not None:
        write_atomically(options.png, picture(rows))
    write_record(options.out, {"settings": {**timing_of(options), "seed": options.seed}, "rows": rows})
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
