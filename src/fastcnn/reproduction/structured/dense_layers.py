"""Structured layers for 1024x1024: ``python -m fastcnn.reproduction.structured.dense_layers`` with --data --runs --out.

Two nets learn Fashion-MNIST (or MNIST), each with one linear layer of 1024x1024 that a structured one stands for, from
the first step on: ``mlp`` 784-1024-[1024]-10 and ``conv``, two 5x5 convolutions with 64x4x4 = 1024 features before
[1024]-10. A third, ``denil``, is 784-500-500-10 with both hidden layers predicted from a quarter of their weights. All
trainings of one net have the same epochs, batches, optimizer and rates.

Gates, over the mean of all seeds: how many times smaller the layer is, and how many points the accuracy may fall
against the net with ``nn.Linear``. Beside each stands a dense net of equal size, the same net with a narrower hidden
layer and no more parameters in all, and whether the structured net beats it by more than one standard deviation.

Each training is a process of its own with one thread, and leaves its result in the folder ``--runs``; what is there is
not trained again, and an interrupted training goes on from its checkpoint.

References
----------
Novikov et al. 2015, arXiv:1509.06569; Cheng et al. 2015, arXiv:1502.03436; Ding et al. 2017, arXiv:1708.08917; Yang et
al. 2014, arXiv:1412.7149; Moczulski et al. 2015, arXiv:1511.05946; Denil et al. 2013, arXiv:1306.0543.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import fastcnn
from fastcnn.cli.output import log, write_atomically
from fastcnn.compression.batches import TensorBatches
from fastcnn.compression.checkpoint import seed_all
from fastcnn.data import load_data
from fastcnn.methods.structured.acdc import ACDCLinear
from fastcnn.methods.structured.circulant import BlockCirculantLinear, CirculantLinear
from fastcnn.methods.structured.fastfood import FastfoodLinear
from fastcnn.methods.structured.predicted import PredictedConfig
from fastcnn.methods.structured.tensor_train import TTLinear
from fastcnn.reproduction.fft_training import accuracy
from fastcnn.reproduction.trials import (
    Spread,
    Trial,
    add_arguments,
    complaint,
    gather,
    interrupted_or,
    parameters,
    run_trials,
    sit_down,
    versus,
    write_result,
)

MODULE = "fastcnn.reproduction.structured.dense_layers"
SIZE = 1024
EPOCHS, BATCH = 6, 128
SEEDS = (0, 1, 2)
RATES = {"mlp": 1e-3, "conv": 2e-3, "denil": 1e-3}
SCHEDULE: Literal["cosine"] = "cosine"
"""Of Adam; the rate falls to zero along half a wave."""
SHORT_RUN, PICTURES = 1, 2000
"""Epochs of dense training that the covariance of predicted layers is taken from, and how many pictures it sees."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How many times fewer weights the layers must have, and how many points of accuracy that may cost."""

    smaller: float
    drop: float


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "tensor-train": lambda seed: TTLinear(SIZE, SIZE, rank=8, factors=5),
    "circulant": lambda seed: CirculantLinear(SIZE, SIZE, seed=seed),
    "block-circulant": lambda seed: BlockCirculantLinear(SIZE, SIZE, block_size=16),
    "fastfood": lambda seed: FastfoodLinear(SIZE, SIZE, seed=seed),
    "acdc": lambda seed: ACDCLinear(SIZE, SIZE, layers=4, seed=seed),
}
"""What stands for the layer of 1024x1024, made from a seed."""
GATES = {
    "tensor-train": Gate(smaller=100, drop=1.0),
    "circulant": Gate(smaller=500, drop=1.5),
    "block-circulant": Gate(smaller=16, drop=0.5),
    "fastfood": Gate(smaller=100, drop=1.5),
    "acdc": Gate(smaller=28, drop=1.0),
    "predicted": Gate(smaller=2.5, drop=1.0),  # three of four weights, less what one layer's predictor holds
}
HIDDEN = {"mlp": ("3",), "conv": ("7",), "denil": ("1", "3")}
"""Names of the layers in question, by net."""


def mlp(hidden: nn.Module, width: int = SIZE) -> nn.Sequential:
    """784-1024-[hidden]-10, with ReLU; input (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, hidden_inputs(hidden)), nn.ReLU(), hidden, nn.ReLU(), nn.Linear(width, 10)
    )


def conv_net(hidden: nn.Module, width: int = SIZE) -> nn.Sequential:
    """32 and 64 kernels of 5x5 without padding, each with ReLU and 2x2 max pooling, then 1024-[hidden]-10."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        hidden,
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def hidden_inputs(hidden: nn.Module) -> int:
    """Width of the layer before it."""
    found = hidden.in_features
    assert isinstance(found, int)
    return found


def narrow(net: str, limit: int) -> nn.Sequential:
    """The widest dense net of that kind with no more than ``limit`` parameters: all hidden layers of one width."""

    def of(width: int) -> nn.Sequential:
        if net == "denil":
            return denil(width)
        return mlp(nn.Linear(width, width), width) if net == "mlp" else conv_net(nn.Linear(SIZE, width), width)

    width = bisect_right(range(1, SIZE + 1), limit, key=lambda width: parameters(of(width)))
    if not width:
        raise ValueError(f"no {net} has so few as {limit} parameters")
    return of(width)


def build(net: str, way: str, seed: int) -> nn.Sequential:
    """The net in which ``way`` stands for the layer: ``dense``, or ``dense like NAME`` for one of equal size.

    ``predicted`` begins as the dense net.
    """
    if net == "denil":
        return denil() if way in ("dense", "predicted") else narrow(net, denil_numbers())
    make = mlp if net == "mlp" else conv_net
    if way.startswith("dense like "):
        return narrow(net, parameters(build(net, way.removeprefix("dense like "), seed)))
    return make(nn.Linear(SIZE, SIZE) if way == "dense" else LAYERS[way](seed))


def denil_numbers() -> int:
    """What the net with predicted layers holds: a quarter of their weights, all biases, the last layer, and the matrix
    (weights, kept ones) that predicts from a covariance; one of distances is made from a few numbers."""
    dense = denil()
    second = dense.get_submodule(HIDDEN["denil"][1])
    assert isinstance(second, nn.Linear)
    predictor = second.in_features * (second.in_features // 4)
    return parameters(dense) - 3 * weights_of(dense, HIDDEN["denil"]) // 4 + predictor


def denil(width: int = 500) -> nn.Sequential:
    """784-500-500-10 with ReLU."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def predicted(model: nn.Module, inputs: Tensor, seed: int) -> nn.Module:
    """The net with 75 % of the weights of both hidden layers predicted.

    The first from the distance of pixels, the second from the covariance of what it is given.
    """
    first = PredictedConfig(keep=0.25, grid=(28, 28), seed=seed)
    model = fastcnn.convert(model, first, layers="1")
    second = PredictedConfig(keep=0.25, kernel="covariance", seed=seed)
    return fastcnn.convert(model, second, layers="3", data=inputs[:PICTURES])


def names(nets: Sequence[str]) -> list[str]:
    """All trials of these nets."""
    found = []
    for net in nets:
        ways = ["predicted"] if net == "denil" else list(LAYERS)
        found += [f"{net}/{way}" for way in ("dense", *ways, *(f"dense like {way}" for way in ways))]
    return found


def pictures(data: str, split: Literal["train", "test"]) -> tuple[Tensor, Tensor, str]:
    """Normalised pictures (N, 1, 28, 28), labels (N,), and the hash of both.

    Raises
    ------
    DataError
        If the folder is missing, or its files are missing or damaged.
    """
    loaded = load_data(data, split=split)
    images, labels = np.ascontiguousarray(loaded.images), np.ascontiguousarray(loaded.labels)
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.astype(np.uint8).tobytes())
    scaled = torch.from_numpy(images[:, :, :, 0]).unsqueeze(1).float() / 255
    return (scaled - 0.5) / 0.5, torch.from_numpy(labels), digest.hexdigest()


def train(trial: Trial, data: str, runs: Path, *, epochs: int) -> None:
    """Train one net, from its checkpoint if there is one, and write its result."""
    torch.set_num_threads(1)
    sit_down(trial, runs)
    inputs, labels, digest = pictures(data, "train")
    test_inputs, test_labels, test_digest = pictures(data, "test")
    net, way = trial.name.split("/")
    fit = partial(
        fastcnn.finetune,
        loader=TensorBatches(inputs, labels, batch_size=BATCH),
        optimizer="adam",
        lr=RATES[net],
        evaluate=partial(accuracy, inputs=test_inputs, targets=test_labels),
        checkpoint_every=500,
        seed=trial.seed,
    )
    folder = trial.folder(runs)
    seed_all(trial.seed)
    model: nn.Module = build(net, way, trial.seed)
    settings = settings_of(trial, data, epochs)
    dense_weights = weights_of(model, HIDDEN["denil"]) if way == "predicted" else SIZE * SIZE
    found: dict[str, Any] = {"test_sha256": test_digest}
    if way == "predicted":
        short = fit(model, epochs=SHORT_RUN, checkpoint_dir=folder / "short_run")
        found["short_run"] = [asdict(epoch) for epoch in short.epochs]
        epochs -= SHORT_RUN
        model = predicted(model, inputs, trial.seed)
    history = fit(model, epochs=epochs, schedule=SCHEDULE, checkpoint_dir=folder)
    found |= {"accuracy": history.metric, "params": parameters(model)}
    found["layers"] = [repr(model.get_submodule(layer)) for layer in HIDDEN[net]]
    if way in GATES:
        found |= {
            "layer_weights": (numbers_of if way == "predicted" else weights_of)(model, HIDDEN[net]),
            "dense_weights": dense_weights,
        }
    write_result(trial, runs, found, history=history, settings=settings, data=digest)


def settings_of(trial: Trial, data: str, epochs: int) -> dict[str, Any]:
    """What a training depends on besides its name and seed."""
    rate = RATES[trial.name.split("/")[0]]
    return {
        "epochs": epochs,
        "batch": BATCH,
        "optimizer": "adam",
        "rate": rate,
        "schedule": SCHEDULE,
        "data": data.split(":")[0],
    }


def numbers_of(model: nn.Module, layers: Sequence[str]) -> int:
    """Numbers that these layers hold, trained or fixed by data, biases aside."""
    held = 0
    for name in layers:
        layer = model.get_submodule(name)
        bias = getattr(layer, "bias", None)
        held += layer.theory().params - (0 if bias is None else bias.numel())  # type: ignore[operator]
    return held


def weights_of(model: nn.Module, layers: Sequence[str]) -> int:
    """Numbers that are trained in these layers, biases of outputs aside."""
    return sum(
        p.numel() for layer in layers for name, p in model.get_submodule(layer).named_parameters() if name != "bias"
    )


def summary(results: Sequence[Mapping[str, Any]], nets: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The gates, and whether they hold; ``passed`` only with every training of every net there, for ``SEEDS``."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_name.setdefault(result["name"], []).append(result)
    rows = []
    for name in names(nets):
        net, way = name.split("/")
        gate = GATES.get(way)
        mine, dense = by_name.get(name, []), by_name.get(f"{net}/dense", [])
        if gate is None or not mine or not dense:
            continue
        ours, theirs = (Spread.of(run["accuracy"] for run in runs) for runs in (mine, dense))
        smaller = mine[0]["dense_weights"] / mine[0]["layer_weights"]
        row: dict[str, Any] = {
            "net": net,
            "way": way,
            "smaller": smaller,
            "min_smaller": gate.smaller,
            "accuracy": asdict(ours),
            "dense_accuracy": asdict(theirs),
            "drop": theirs.mean - ours.mean,
            "max_drop": gate.drop,
            "params": mine[0]["params"],
            "dense_params": dense[0]["params"],
            "seeds": len(mine),
        }
        alike = by_name.get(f"{net}/dense like {way}", [])
        if alike:
            equal = Spread.of(run["accuracy"] for run in alike)
            row["equal_size"] = {
                "params": alike[0]["params"],
                "accuracy": asdict(equal),
                **versus(ours, equal),
            }
        row["passed"] = bool(
            smaller >= gate.smaller and row["drop"] <= gate.drop + 1e-9 and len(mine) == len(dense) == len(seeds)
        )
        rows.append(row)
    needed = {(name, seed) for name in names(list(HIDDEN)) for seed in SEEDS}
    whole = needed <= {(result["name"], result["seed"]) for result in results}
    whole &= all(result["settings"]["epochs"] == EPOCHS for result in results)
    return {"passed": whole and all(row["passed"] for row in rows), "gates": rows}


def table(found: Mapping[str, Any]) -> str:
    """The gates in lines for people."""
    lines = [
        f"{'net':6} {'layer':16} {'smaller':>8} {'accuracy':>14} {'drop':>6} {'allowed':>8} {'equal size':>16}  gate"
    ]
    for row in found["gates"]:
        equal = row.get("equal_size")
        beside = "" if equal is None else f"{shown(equal['accuracy'])} {equal['ahead']}"
        lines.append(
            f"{row['net']:6} {row['way']:16} {row['smaller']:7.0f}x {shown(row['accuracy']):>14} {row['drop']:6.2f} "
            f"{row['max_drop']:8.1f} {beside:>22}  {'met' if row['passed'] else 'MISSED'}"
        )
    return "\n".join(lines)


def shown(spread: Mapping[str, Any]) -> str:
    """Mean and deviation."""
    return f"{spread['mean']:.2f}" + ("" if spread["sd"] is None else f" +- {spread['sd']:.2f}")


def _train(options: argparse.Namespace) -> int:
    train(Trial(name=options.trial, seed=options.seed), options.data, options.runs, epochs=options.epochs)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates that were asked for hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--data", required=True, help="fashion-mnist:DIR or mnist:DIR")
    parser.add_argument("--nets", nargs="+", choices=list(HIDDEN), default=list(HIDDEN))
    parser.add_argument("--only", metavar="GLOB", default="*", help="trainings to run, such as 'mlp/*circulant'")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of every training; the gates are for the default")
    add_arguments(parser, SEEDS)
    options = parser.parse_args(arguments)
    if options.trial is not None:
        return interrupted_or(
            partial(_train, options),
            options.runs,
        )
    if wrong := complaint(options):
        log(f"error: {wrong}")
        return 2
    if options.epochs <= SHORT_RUN:
        log(f"error: --epochs must be at least {SHORT_RUN + 1}")
        return 2
    all_trials = [Trial(name=name, seed=seed) for seed in options.seeds for name in names(options.nets)]
    chosen = [trial for trial in all_trials if fnmatchcase(trial.name, options.only)]
    if not chosen:
        log(f"error: --only {options.only}: nothing is called so; there are {', '.join(names(options.nets))}")
        return 2
    try:
        load_data(options.data, split="test")
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        log(f"error: {error}")
        return 2

    def run() -> int:
        common = ["--data", options.data, "--runs", str(options.runs), "--epochs", str(options.epochs)]
        try:
            run_trials(
                MODULE,
                common,
                chosen,
                options.runs,
                jobs=options.jobs,
                title="dense layers",
                settings=partial(settings_of, data=options.data, epochs=options.epochs),
            )
        finally:
            results = gather(all_trials, options.runs, group=lambda trial: trial.name.split("/")[0])
            found = summary(results, options.nets, options.seeds)
            write_atomically(options.out, json.dumps({**found, "runs": results}, indent=1) + "\n")
        print(table(found))
        return 0 if found["gates"] and all(row["passed"] for row in found["gates"]) else 1

    return interrupted_or(run, options.runs)


if __name__ == "__main__":
    sys.exit(main())
