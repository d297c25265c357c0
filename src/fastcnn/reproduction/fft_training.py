"""Training by FFT beside training by nn.Conv2d: ``python -m fastcnn.reproduction.fft_training --data DIR --out FILE``.

A net of LeNet's type with 5x5 kernels learns Fashion-MNIST for one epoch, in float32: by ``nn.Conv2d`` on one thread,
by ``FFTConv2d`` on one thread, and by ``nn.Conv2d`` on two threads, which sum in another order. From one seed all three
begin with the same parameters and see the same batches, so that only rounding tells them apart. Two gates:

- the losses of the first steps by FFT are those by ``nn.Conv2d``, within ``MAX_LOSS_DIFFERENCE``;
- the mean accuracy by FFT differs from that by ``nn.Conv2d`` by no more than the spread, which is the largest
  difference that one seed of ``nn.Conv2d`` shows between one thread and two.

The record is written after each training, so that an interrupted run goes on where it stopped; ``--again`` begins anew.

References
----------
Mathieu, Henaff and LeCun 2013, arXiv:1312.5851: all three passes of training by FFT.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn
from fastcnn.cli.output import log, plain, progress_bar, write_atomically
from fastcnn.compression.batches import TensorBatches
from fastcnn.data import load_data
from fastcnn.methods.transforms.fft_conv import FFTConfig, FFTConv2d
from fastcnn.reporting.host import commit, host_facts

BATCH, RATE, WARM_STEPS, MOMENTUM = 128, 0.005, 300, 0.9
"""Pictures in a batch; highest learning rate, and the steps in which a line leads up to it; momentum of SGD.

Training multiplies any rounding from step to step, the more the higher the rate. It is set by ``nn.Conv2d`` alone: at
0.01 the first losses of one thread and of two are up to 7e-4 apart, at 0.005 up to 4e-5, little against the gate.
"""
FIRST_STEPS, MAX_LOSS_DIFFERENCE = 100, 1e-3
"""Steps whose losses must agree, and how far apart they may be, relative to the loss by nn.Conv2d."""
MIN_ACCURACY = 75.0
"""Percent; a net below it has not learned, and its agreement says nothing."""
MEAN, STD = 0.2860, 0.3530
"""Of the training pictures, in 0..1."""

Way = Literal["conv2d", "fft", "conv2d, 2 threads"]
WAYS: tuple[Way, ...] = ("conv2d", "fft", "conv2d, 2 threads")
Runs = dict[tuple[int, str], dict[str, Any]]


def lenet_5x5() -> nn.Sequential:
    """32 and 64 kernels of 5x5, each with ReLU and max pooling, then 512-10; 1,663,370 parameters.

    Input (N, 1, 28, 28), output (N, 10).
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def by_fft(model: nn.Module) -> nn.Module:
    """A copy of the model with the same parameters, every convolution by FFT.

    Raises
    ------
    RuntimeError
        If a convolution would not run by FFT.
    """
    converted = fastcnn.convert(model, FFTConfig(force=True))
    for name, layer in converted.named_modules():
        if isinstance(layer, nn.Conv2d) and not (isinstance(layer, FFTConv2d) and layer.chosen == "forced"):
            raise RuntimeError(
                f"layer {name} is not convolved by FFT: {getattr(layer, 'chosen', type(layer).__name__)}"
            )
    return converted


def tensors(folder: Path, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Normalised pictures (N, 1, 28, 28) and labels (N,) of Fashion-MNIST.

    Raises
    ------
    DataError
        If the folder is missing, or its files are missing or damaged.
    """
    data = load_data(f"fashion-mnist:{folder}", split=split)
    images = torch.from_numpy(np.asarray(data.images)[:, :, :, 0]).unsqueeze(1).float()
    return (images / 255 - MEAN) / STD, torch.from_numpy(np.asarray(data.labels))


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Top-1 accuracy in percent, in eval mode."""
    model.eval()
    batches = TensorBatches(inputs, targets, batch_size=500, shuffle=False)
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    return 100.0 * hits / len(targets)


def train_once(
    way: Way,
    seed: int,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    step: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Train one epoch from a seed; ``step`` is called after every step.

    Returns
    -------
    dict
        way, seed, threads; ``losses``, one per step; ``accuracy`` on the test pictures in percent; ``seconds`` of the
        epoch, with whatever else the machine did meanwhile.

    Raises
    ------
    ValueError
        If a loss is NaN or infinite.
    """
    before = torch.get_num_threads()
    threads = 2 if way == "conv2d, 2 threads" else 1
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(seed)
        model: nn.Module = lenet_5x5()
        if way == "fft":
            model = by_fft(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        torch.manual_seed(seed)  # the batches' order depends on nothing that happened since
        losses: list[float] = []
        began = time.perf_counter()
        batches = TensorBatches(*train, batch_size=BATCH)
        for inputs, targets in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(len(losses), len(batches))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            losses.append(float(f"{loss.detach():.9g}"))  # all of a float32's digits
            if not np.isfinite(losses[-1]):
                raise ValueError(f"{way}, seed {seed}: the loss became {losses[-1]} in step {len(losses) - 1}")
            step()
        seconds = time.perf_counter() - began
        return {
            "way": way,
            "seed": seed,
            "threads": threads,
            "accuracy": accuracy(model, *test),
            "seconds": round(seconds, 1),
            "losses": losses,
        }
    finally:
        torch.set_num_threads(before)


def learning_rate(step: int, steps: int) -> float:
    """Of step number ``step`` (from 0) of ``steps``: up to ``RATE`` in ``WARM_STEPS``, then down to almost zero."""
    return RATE * min((step + 1) / WARM_STEPS, (steps - step) / max(1, steps - WARM_STEPS + 1))


def loss_difference(losses: list[float], others: list[float]) -> float:
    """Largest |others - losses| / losses of the first ``FIRST_STEPS`` steps."""
    pairs = list(zip(losses, others, strict=True))[:FIRST_STEPS]
    return max(abs(other - loss) / loss for loss, other in pairs)


def summary(runs: Runs, seeds: list[int], made: Mapping[str, Any]) -> dict[str, Any]:
    """The whole document; it passes when every training is there and both gates hold."""
    whole = all((seed, way) in runs for seed in seeds for way in WAYS)
    found: dict[str, Any] = {"loss_difference": None, "accuracy": None, "accuracy_difference": None, "spread": None}
    passed = False
    if whole:
        by_way = {way: [runs[seed, way] for seed in seeds] for way in WAYS}
        conv, threads = by_way["conv2d"], by_way["conv2d, 2 threads"]
        apart = {
            way: max(loss_difference(a["losses"], b["losses"]) for a, b in zip(conv, by_way[way], strict=True))
            for way in WAYS[1:]
        }
        means = {way: sum(run["accuracy"] for run in by_way[way]) / len(seeds) for way in WAYS}
        spread = max(abs(a["accuracy"] - b["accuracy"]) for a, b in zip(conv, threads, strict=True))
        difference = means["fft"] - means["conv2d"]
        found = {
            "loss_difference": apart,
            "accuracy": means,
            "accuracy_difference": difference,
            "spread": spread,
        }
        learned = min(run["accuracy"] for way in WAYS for run in by_way[way]) >= MIN_ACCURACY
        # Accuracies are whole pictures; their sums in percent round.
        passed = apart["fft"] <= MAX_LOSS_DIFFERENCE and abs(difference) <= spread + 1e-9 and learned
    return {
        **made,
        "settings": {
            "batch": BATCH,
            "rate": RATE,
            "warm_steps": WARM_STEPS,
            "momentum": MOMENTUM,
            "epochs": 1,
            "dtype": "float32",
        },
        "gates": {
            "first_steps": FIRST_STEPS,
            "max_loss_difference": MAX_LOSS_DIFFERENCE,
            "max_accuracy_difference": "spread",
            "min_accuracy": MIN_ACCURACY,
            "seeds": seeds,
        },
        "found": found,
        "passed": passed,
        "runs": [runs[seed, way] for seed in seeds for way in WAYS if (seed, way) in runs],
    }


def _known(path: Path, made: Mapping[str, Any]) -> Runs:
    """Runs of a record that was made in the same way."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    for name in ("commit", "torch", "data_sha256"):
        if document[name] != made[name]:
            raise ValueError(f"it was made at {name} {document[name]}, now it is {made[name]}: --again makes it anew")
    return {(run["seed"], run["way"]): run for run in document["runs"]}


def _line(run: Mapping[str, Any]) -> str:
    return (
        f"{run['way']}, seed {run['seed']}: loss {run['losses'][-1]:.4f}, "
        f"accuracy {run['accuracy']:.2f} %, {run['seconds']:.0f} s"
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.fft_training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, and to go on with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="train what the file already holds")
    options = parser.parse_args(arguments)
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        log(f"error: --seeds: {' '.join(map(str, options.seeds))} must be different numbers from 0 up")
        return 2
    try:
        train, test = tensors(options.data, "train"), tensors(options.data, "test")
    except (OSError, ValueError) as error:
        log(f"error: --data: {error}")
        return 2
    digest = hashlib.sha256()
    for tensor in (*train, *test):
        digest.update(tensor.numpy().tobytes())
    made = {
        "commit": commit(),
        "date": datetime.now().isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "data_sha256": digest.hexdigest(),
        "host": plain(host_facts()),
    }
    try:
        runs = {} if options.again else _known(options.out, made)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: --out: {options.out} cannot be used: {error}")
        return 2
    if str(made["commit"]).endswith("-dirty"):
        log("warning: there are uncommitted changes: the record will say so; commit them first to make a clean one")

    wanted = [(seed, way) for seed in options.seeds for way in WAYS if (seed, way) not in runs]
    steps = -(-len(train[1]) // BATCH)
    try:
        with progress_bar("FFT training", steps * len(wanted)) as advance:
            for seed, way in wanted:
                note = f"{way}, seed {seed}"
                run = train_once(way, seed, train, test, partial(advance, note=note))
                runs[seed, way] = run
                write_atomically(options.out, json.dumps(summary(runs, options.seeds, made), indent=1) + "\n")
                log(_line(run))
    except KeyboardInterrupt:
        log(f"interrupted: {options.out} holds {len(runs)} trainings; run again to go on")
        return 130
    except ValueError as error:
        log(f"error: {error}")
        return 1
    done = summary(runs, options.seeds, made)
    write_atomically(options.out, json.dumps(done, indent=1) + "\n")
    print(json.dumps({key: value for key, value in done.items() if key not in ("runs", "host")}, indent=1))
    return 0 if done["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
