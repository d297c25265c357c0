"""Nets of few bits, trained: ``python -m fastcnn.reproduction.lowprecision.trainings`` with --mnist --cifar10 --runs.

Nets for MNIST and CIFAR-10 are trained from scratch by the methods of low precision, beside float nets that are trained
as long: :mod:`fastcnn.reproduction.lowprecision.ways` has all of them. Each trained net is then packed, saved to a file
and loaded by the engine, which must give the label that the net in training gives, on every test picture.

``--cifar10 svhn:DIR`` puts SVHN's digits, of the same size, in the place of CIFAR-10; they are not mirrored. The gates
were set for CIFAR-10.

Pictures are shifted by some pixels in training, those of CIFAR-10 mirrored besides.

Each training is a process of its own with one thread, and leaves its result in the folder ``--runs``; what is there is
not trained again, and an interrupted training goes on from its checkpoint.

References
----------
Kim and Smaragdis 2016, arXiv:1601.06071; Courbariaux et al. 2015, arXiv:1511.00363; Courbariaux et al. 2016,
arXiv:1602.02830; Rastegari et al. 2016, arXiv:1603.05279; Zhou et al. 2016, arXiv:1606.06160.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import fastcnn
from fastcnn.cli.output import log, write_atomically
from fastcnn.compression.batches import TensorBatches
from fastcnn.compression.checkpoint import seed_all
from fastcnn.compression.finetune import History
from fastcnn.engine.run.net import CompiledNet
from fastcnn.methods.lowprecision.latent import parameter_groups
from fastcnn.reproduction.lowprecision.ways import WAYS, Stage, Way, bipolar, steps_of_first_stage
from fastcnn.reproduction.structured.dense_layers import pictures as mnist_pictures
from fastcnn.reproduction.trials import (
    Spread,
    Trial,
    add_arguments,
    complaint,
    gather,
    interrupted_or,
    parameters,
    restore,
    run_trials,
    sit_down,
    versus,
    write_result,
)
from fastcnn.reproduction.winograd_labels.pictures import SHIFT, Pictures, ShiftedBatches, is_svhn, load_pictures
from fastcnn.reproduction.winograd_labels.train import CHECKPOINT_EVERY, OneCycleSGD

MODULE = "fastcnn.reproduction.lowprecision.trainings"
BATCH, DECAY = 128, 5e-4
"""Pictures in a batch; weight decay where the optimizer is SGD, of weights that are not clipped."""
PRECISION: Literal["float32", "bf16"] = "bf16"
"""Of products in training, of all nets alike; they are tested in float32."""
DIGIT_SHIFT, BACKGROUND = 1, -1.0
"""Pixels by which a digit of MNIST may be shifted in training, each way, and what comes in at the edge."""
SEEDS = (0, 1, 2)
FILE, WEIGHTS = "net.fcnn", "net.safetensors"
"""Of a trained net, and of one that no method has packed."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Least accuracy in percent, or most points lost against another way; no number: a figure to be reported.

    Parameters
    ----------
    least, drop : float, optional
    against : str, optional
        The way that ``drop`` counts from.
    needed : bool
        Whether the record passes only if this holds; else it is a target.
    """

    least: float | None = None
    drop: float | None = None
    against: str | None = None
    needed: bool = True


GATES = {
    "mlp/bitwise": Gate(least=98.3),
    "mlp/bnn": Gate(least=98.6),
    "vgg/binaryconnect": Gate(drop=2.0, against="vgg/float"),
    "vgg/bwn": Gate(drop=2.0, against="vgg/float"),
    "vgg/dorefa-8-8-8": Gate(drop=0.5, against="vgg/float"),
    "vgg/bnn": Gate(drop=8.0, against="vgg/float", needed=False),
}
ORDERS = (
    ("vgg/xnor-norm-first", "vgg/xnor-conv-first"),
    ("vgg/dorefa-8-8-8", "vgg/dorefa-1-4-32"),
    ("vgg/dorefa-1-4-32", "vgg/dorefa-1-2-6"),
    ("vgg/dorefa-1-2-6", "vgg/dorefa-1-1-32"),
)
"""Pairs of which papers have the first ahead."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Training batches, and test pictures with their labels; hashes of both."""

    batches: TensorBatches | ShiftedBatches
    inputs: Tensor
    labels: Tensor
    sha256: str
    test_sha256: str


def load(way: Way, mnist: str, cifar10: str) -> Data:
    """The pictures that a way is trained and tested on."""
    if way.data == "cifar10":
        known, unknown = load_pictures(cifar10, "train"), load_pictures(cifar10, "test")
        batches = ShiftedBatches(known, batch_size=BATCH, mirror=not is_svhn(cifar10))
        return Data(
            batches=batches,
            inputs=unknown.inputs,
            labels=unknown.labels,
            sha256=known.sha256,
            test_sha256=unknown.sha256,
        )
    x, y, digest = mnist_pictures(mnist, "train")
    test_x, test_y, test_digest = mnist_pictures(mnist, "test")
    if way.bipolar:
        x, test_x = bipolar(x), bipolar(test_x)
    known = Pictures(inputs=x, labels=y, sha256=digest)
    return Data(
        batches=ShiftedBatches(known, batch_size=BATCH, mirror=False, shift=DIGIT_SHIFT, around=BACKGROUND),
        inputs=test_x,
        labels=test_y,
        sha256=digest,
        test_sha256=test_digest,
    )


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """Class of the highest output for each picture, (N,), in eval mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in torch.split(inputs, 500)])


def engine_labels(net: CompiledNet, inputs: Tensor) -> Tensor:
    """The same by the engine, one picture at a time."""
    return torch.tensor([int(np.asarray(net(picture[None].contiguous().numpy())).argmax()) for picture in inputs])


def percent(first: Tensor, second: Tensor) -> float:
    """How many are equal."""
    return 100.0 * float((first == second).float().mean())


def train(trial: Trial, mnist: str, cifar10: str, runs: Path) -> None:
    """Train one net, from its checkpoint if there is one, pack it, run it in the engine, and write its result."""
    torch.set_num_threads(1)
    sit_down(trial, runs)
    way = WAYS[trial.name]
    data = load(way, mnist, cifar10)
    seed_all(trial.seed)
    model = way.build()
    if way.config is not None:
        config = way.config(steps_of_first_stage(way, len(data.batches)))
        model = fastcnn.prepare(model, config)
    if way.data == "cifar10":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    history = History()
    for number, stage in enumerate(way.stages):
        one = fastcnn.finetune(
            model,
            data.batches,
            epochs=stage.epochs,
            optimizer=partial(_optimizer, model, stage, stage.epochs * len(data.batches)),
            lr=stage.rate,
            schedule="cosine" if stage.optimizer == "adam" else "constant",
            loss=way.loss,
            precision=PRECISION,
            evaluate=lambda net: percent(answers(net, data.inputs), data.labels),
            checkpoint_dir=trial.folder(runs) / f"stage{number}",
            checkpoint_every=CHECKPOINT_EVERY,
            seed=trial.seed,
        )
        history.epochs += one.epochs
    found: dict[str, Any] = {"test_sha256": data.test_sha256, "accuracy": history.metric, "params": parameters(model)}
    found |= packed(model, data.inputs, trial.folder(runs), is_method=way.config is not None)
    write_result(trial, runs, found, history=history, settings=settings_of(trial, cifar10), data=data.sha256)


def packed(model: nn.Module, inputs: Tensor, folder: Path, *, is_method: bool) -> dict[str, Any]:
    """What the net is without its training: its layers, its file, and how often the file's net says what it says."""
    trained = answers(model, inputs)
    small = fastcnn.convert(model) if is_method else model
    if not is_method:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    report = [asdict(line) for line in fastcnn.report(small).layers] if is_method else []
    net = fastcnn.compile(small.eval(), inputs[:1], threads=1, strict=True)
    net.save(folder / FILE)
    loaded = fastcnn.load(folder / FILE, threads=1)
    return {
        "layers": report,
        "file_bytes": (folder / FILE).stat().st_size,
        "same_as_trained": percent(engine_labels(loaded, inputs), trained),
    }


def _optimizer(
    model: nn.Module, stage: Stage, steps: int, params: Sequence[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    if stage.optimizer == "adam":
        return torch.optim.Adam(parameter_groups(model, lr), lr=lr)
    return OneCycleSGD(parameter_groups(model, lr, DECAY), lr=lr, weight_decay=DECAY, total_steps=steps)


def settings_of(trial: Trial, cifar10: str = "") -> dict[str, Any]:
    """What a training depends on besides its name and seed; ``cifar10`` is the folder, or what stands for it."""
    way = WAYS[trial.name]
    return {
        "stages": [asdict(stage) for stage in way.stages],
        "batch": BATCH,
        "precision": PRECISION,
        "weight_decay": [0.0 if stage.optimizer == "adam" else DECAY for stage in way.stages],
        "config": None if way.config is None else way.config(0).to_json(),
        "bipolar": way.bipolar,
        "loss": way.loss.__name__,
        "shift": DIGIT_SHIFT if way.data == "mnist" else SHIFT,
        "data": "svhn" if way.data == "cifar10" and is_svhn(cifar10) else way.data,
    }


def summary(results: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """The gates and the orders, and whether they hold; ``passed`` only with every training of ``SEEDS`` there."""
    runs = {name: [result for result in results if result["name"] == name] for name in WAYS}
    found = {name: Spread.of(run["accuracy"] for run in mine) for name, mine in runs.items() if mine}
    rows = []
    for name, spread in found.items():
        gate = GATES.get(name, Gate(needed=False))
        beside = found.get(gate.against) if gate.against else None
        drop = None if beside is None else beside.mean - spread.mean
        kept = gate.least is None or spread.mean >= gate.least - 1e-9
        kept &= gate.drop is None or (drop is not None and drop <= gate.drop + 1e-9)
        exact = min(run["same_as_trained"] for run in runs[name])
        rows.append(
            {
                "way": name,
                "why": WAYS[name].why,
                "accuracy": asdict(spread),
                "least": gate.least,
                "drop": drop,
                "max_drop": gate.drop,
                "against": gate.against,
                "needed": gate.needed,
                "file_bytes": runs[name][0]["file_bytes"],
                "same_as_trained": exact,
                "seeds": len(runs[name]),
                "passed": bool(kept and exact == 100.0 and len(runs[name]) == len(seeds)),
            }
        )
    orders = [{"first": a, "second": b, **versus(found[a], found[b])} for a, b in ORDERS if a in found and b in found]
    whole = set(SEEDS) <= set(seeds) and len(rows) == len(WAYS) and all(row["seeds"] == len(seeds) for row in rows)
    return {
        "passed": whole and all(row["passed"] for row in rows if row["needed"]),
        "gates": rows,
        "orders": orders,
        "minutes": sum(run["seconds"] for run in results) / 60,
    }


def table(found: Mapping[str, Any]) -> str:
    """The gates and orders in lines for people."""
    lines = [f"{'way':20} {'accuracy':>14} {'drop':>6} {'goal':>8} {'file':>10} {'same':>7}"]
    for row in found["gates"]:
        spread = row["accuracy"]
        shown = f"{spread['mean']:.2f}" + ("" if spread["sd"] is None else f" +- {spread['sd']:.2f}")
        drop = "" if row["drop"] is None else f"{row['drop']:.2f}"
        goal = f">= {row['least']}" if row["least"] is not None else ""
        goal = f"<= {row['max_drop']}" if row["max_drop"] is not None else goal
        word = "" if not goal else "met" if row["passed"] else "MISSED" if row["needed"] else "short of its target"
        size, same = row["file_bytes"], row["same_as_trained"]
        lines.append(f"{row['way']:20} {shown:>14} {drop:>6} {goal:>8} {size:>10} {same:7.2f} {word}")
    for order in found["orders"]:
        verdict = {"first": "as in the paper", "second": "the other way round"}.get(order["ahead"], "not decided")
        deviation = "" if order["sd"] is None else f" +- {order['sd']:.2f}"
        lines.append(f"{order['first']} - {order['second']}: {order['difference']:+.2f}{deviation}: {verdict}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates that were asked for hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--mnist", required=True, help="mnist:DIR, or fashion-mnist:DIR for a harder one")
    parser.add_argument("--cifar10", required=True, help="folder of CIFAR-10, or svhn:DIR for SVHN in its place")
    parser.add_argument("--only", metavar="GLOB", default="*", help="trainings to run, such as 'vgg/*'")
    parser.add_argument("--known", type=Path, help="JSON file of an earlier run: what it holds is not trained again")
    add_arguments(parser, SEEDS)
    options = parser.parse_args(arguments)
    if options.trial is not None:
        return interrupted_or(partial(_train, options), options.runs)
    if wrong := complaint(options):
        log(f"error: {wrong}")
        return 2
    trials = [Trial(name=name, seed=seed) for seed in options.seeds for name in WAYS]
    chosen = [trial for trial in trials if fnmatchcase(trial.name, options.only)]
    if not chosen:
        log(f"error: --only {options.only}: nothing is called so; there are {', '.join(WAYS)}")
        return 2
    try:
        mnist_pictures(options.mnist, "test")
        load_pictures(options.cifar10, "test")
        if options.known is not None:
            restore(options.known, trials, options.runs)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        log(f"error: {error}")
        return 2
    return interrupted_or(partial(_run, options, trials, chosen), options.runs)


def _train(options: argparse.Namespace) -> int:
    train(Trial(name=options.trial, seed=options.seed), options.mnist, options.cifar10, options.runs)
    return 0


def _run(options: argparse.Namespace, trials: Sequence[Trial], chosen: Sequence[Trial]) -> int:
    common = ["--mnist", options.mnist, "--cifar10", options.cifar10, "--runs", str(options.runs)]
    try:
        run_trials(
            MODULE,
            common,
            chosen,
            options.runs,
            jobs=options.jobs,
            title="few bits",
            settings=partial(settings_of, cifar10=options.cifar10),
        )
    finally:
        results = gather(trials, options.runs, group=lambda trial: trial.name)
        found = summary(results, options.seeds)
        write_atomically(options.out, json.dumps({**found, "runs": results}, indent=1) + "\n")
    print(table(found))
    return 0 if found["gates"] and all(row["passed"] for row in found["gates"] if row["needed"]) else 1


if __name__ == "__main__":
    sys.exit(main())
