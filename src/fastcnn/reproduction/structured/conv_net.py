"""Factorised convolutions, fine-tuned: ``python -m fastcnn.reproduction.structured.conv_net`` with --data --runs --out.

A plain net of six 3x3 convolutions (32-32-M-64-64-M-128-128-M-256-10) learns CIFAR-10, as
:mod:`fastcnn.reproduction.winograd_labels.train` has it, once for each seed. Then it is converted with calibration
pictures and fine-tuned, in several ways; beside each stands the dense net, fine-tuned equally long on the same pictures
in the same order, since fine-tuning alone makes any net better:

- ``tucker``: Tucker-2 at the ranks that this machine's engine runs ``SPEEDUP`` times as fast as the dense layer, layer
  by layer; chosen on the first net, when nothing else runs, and used for all;
- ``scheme-2``: k x 1 and 1 x k filters with 2.5 times fewer multiply-adds in the whole net;
- ``svd``: every layer, under one budget of 29 % of the parameters;
- ``cp``: one layer with 4 times fewer multiply-adds.

The last two are fine-tuned for the first seed alone. Each training is a process of its own with one thread, and leaves
its result in the folder ``--runs``; what is there is not trained again, and an interrupted training goes on from its
checkpoint.

References
----------
Kim et al. 2015, arXiv:1511.06530; Jaderberg, Vedaldi and Zisserman 2014, arXiv:1405.3866; Xue, Li and Gong 2013;
Lebedev et al. 2014, arXiv:1412.6553.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import fastcnn
from fastcnn.cli.output import log, plain, write_atomically
from fastcnn.compression.calibrate import layer_macs, replace_calibrated
from fastcnn.compression.report import attach
from fastcnn.methods.registry import method_of
from fastcnn.methods.replace import replace_layers
from fastcnn.methods.structured.cp import CPConfig
from fastcnn.methods.structured.separable import SeparableConfig
from fastcnn.methods.structured.svd import SVDConfig
from fastcnn.methods.structured.tucker import TuckerConfig, TuckerConv2d
from fastcnn.reporting.host import commit, host_facts
from fastcnn.reproduction.trials import (
    RESULT,
    Spread,
    StaleResultError,
    Trial,
    add_arguments,
    complaint,
    gather,
    interrupted_or,
    parameters,
    run_trials,
    sit_down,
    write_result,
)
from fastcnn.reproduction.winograd_labels import train as dense_training
from fastcnn.reproduction.winograd_labels.nets import INPUT_SHAPE, vgg_like
from fastcnn.reproduction.winograd_labels.pictures import Pictures, ShiftedBatches, load_pictures

MODULE = "fastcnn.reproduction.structured.conv_net"
EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 6, 128, 0.008, 0.9, 5e-4
"""Of fine-tuning, by SGD with Nesterov's momentum; the rate falls along a line to zero."""
SEEDS = (0, 1, 2)
CALIBRATION = 256
"""Pictures, from the training set."""
SPEEDUP = 1.15
"""Of a layer with Tucker-2 against the dense layer, both as the engine plans them at its default tolerance."""
BASE = "base"
"""Name of the trials that train the dense nets."""
RANKS = "tucker_ranks.json"
ONE_LAYER = "17"
"""The last convolution, 128 to 128 channels: the one that CP stands for."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a way must come to.

    Parameters
    ----------
    fewer : float
        How many times fewer multiply-adds, of the net or (``cp``) of its layer; or parameters (``svd``).
    drop : float
        Points of accuracy that may be lost against the dense net, fine-tuned equally long.
    relative : bool
        Whether ``drop`` is percent of the dense net's accuracy instead.
    """

    fewer: float
    drop: float
    relative: bool = False


GATES = {
    "tucker": Gate(fewer=1.25, drop=1.0),
    "scheme-2": Gate(fewer=2.5, drop=0.7),
    "svd": Gate(fewer=1 / 0.29, drop=1.0, relative=True),
    "cp": Gate(fewer=4.0, drop=1.0),
}
WAYS = ("dense", *GATES)
HEADLINE = ("dense", "tucker", "scheme-2")
"""Ways that every seed takes; the others take the first alone."""


def load_base(runs: Path, seed: int) -> nn.Sequential:
    """The trained dense net."""
    net = vgg_like()
    net.load_state_dict(load_file(Trial(name=BASE, seed=seed).folder(runs) / dense_training.WEIGHTS))
    return net.eval()


def calibration(pictures: Pictures) -> list[Tensor]:
    """Every n-th picture, as classes follow each other."""
    apart = len(pictures) // CALIBRATION
    return list(torch.split(pictures.inputs[::apart][:CALIBRATION], 64))


def convert(net: nn.Module, way: str, pictures: Pictures, ranks: Mapping[str, Sequence[int]]) -> nn.Module:
    """The net in that way, fitted to calibration pictures; a copy."""
    data = calibration(pictures)
    if way == "dense":
        return copy.deepcopy(net)
    if way == "tucker":
        return with_tucker(net, ranks, data)
    if way == "scheme-2":
        convs = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)][1:]
        return fastcnn.convert(
            net, SeparableConfig(budget=0.4, budget_of="multiply-adds", multiple_of=1), layers=convs, data=data
        )
    if way == "svd":
        return fastcnn.convert(net, SVDConfig(budget=0.29, multiple_of=1), data=data)
    return fastcnn.convert(net, CPConfig(keep=0.25, multiple_of=8), layers=ONE_LAYER, data=data)


def with_tucker(net: nn.Module, ranks: Mapping[str, Sequence[int]], data: Sequence[Tensor] | None = None) -> nn.Module:
    """Every layer at its ranks; those that they would not make smaller or faster stay as they are, and say so."""
    fresh = copy.deepcopy(net)
    choices = {name: TuckerConfig(ranks=(inner, outer)) for name, (inner, outer) in ranks.items()}
    method = method_of(TuckerConfig(rank=1))
    if data is None:
        attach(fresh, replace_layers(fresh, method, choices, list(choices)))
    else:
        attach(fresh, replace_calibrated(net, fresh, method, choices, list(choices), data))
    return fresh


def answers(model: nn.Module, pictures: Pictures) -> Tensor:
    """Class of the highest output for each picture, (N,), in eval mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in torch.split(pictures.inputs, 500)])


def same(first: Tensor, second: Tensor) -> float:
    """Percent of the pictures on which two nets give the same answer, or on which one is right."""
    return 100.0 * float((first == second).float().mean())


def macs(model: nn.Module) -> dict[str, int]:
    """Multiply-adds of each convolution and linear layer for one picture."""
    return layer_macs(model, torch.zeros(1, *INPUT_SHAPE))


def choose_ranks(net: nn.Module, pictures: Pictures, threads: int) -> dict[str, Any]:
    """Ranks of each layer by measured time on this machine, and why a layer has none; nothing else should run."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        small = fastcnn.convert(net, TuckerConfig(speedup=SPEEDUP), data=calibration(pictures))
    finally:
        torch.set_num_threads(before)
    chosen = {name: list(module.ranks) for name, module in small.named_modules() if isinstance(module, TuckerConv2d)}
    left = {line.layer: line.why for line in fastcnn.report(small).layers if line.status != "done"}
    return {
        "speedup": SPEEDUP,
        "ranks": chosen,
        "declined": left,
        "commit": commit(),
        "date": datetime.now().isoformat(timespec="seconds"),
        "threads": threads,
        "host": plain(host_facts()),
    }


def train(trial: Trial, data: Path, runs: Path) -> None:
    """Train or fine-tune one net, from its checkpoint if there is one, and write its result."""
    torch.set_num_threads(1)
    sit_down(trial, runs)
    known, unknown = load_pictures(data, "train"), load_pictures(data, "test")
    if trial.name == BASE:
        _train_base(trial, known, unknown, runs)
        return
    net = load_base(runs, trial.seed)
    ranks = json.loads((runs / RANKS).read_text(encoding="utf-8"))["ranks"]
    small = convert(net, trial.name, known, ranks)
    before, untrained = answers(net, unknown), answers(small, unknown)
    found = {
        "test_sha256": unknown.sha256,
        "accuracy_before": same(before, unknown.labels),
        "accuracy_untrained": same(untrained, unknown.labels),
        "same_answers_untrained": same(before, untrained),
        "params": parameters(small),
        "macs": macs(small),
        "dense_params": parameters(net),
        "dense_macs": macs(net),
        "layers": [asdict(line) for line in fastcnn.report(small).layers] if trial.name != "dense" else [],
    }
    batches = ShiftedBatches(known, batch_size=BATCH)
    small = small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    history = fastcnn.finetune(
        small,
        batches,
        epochs=EPOCHS,
        optimizer=partial(torch.optim.SGD, momentum=MOMENTUM, nesterov=True),
        lr=RATE,
        weight_decay=DECAY,
        schedule="linear",
        evaluate=lambda model: dense_training.top1(model, unknown),
        checkpoint_dir=trial.folder(runs),
        checkpoint_every=dense_training.CHECKPOINT_EVERY,
        seed=trial.seed,
    )
    settings = settings_of()
    if trial.name == "tucker":
        found["ranks"] = ranks
    found |= {"accuracy": history.metric, "same_answers": same(before, answers(small, unknown))}
    write_result(trial, runs, found, history=history, settings=settings, data=known.sha256)


def settings_of() -> dict[str, Any]:
    """What a fine-tuning depends on besides its name and seed."""
    return {
        "epochs": EPOCHS,
        "batch": BATCH,
        "optimizer": "SGD, Nesterov",
        "rate": RATE,
        "schedule": "linear",
        "momentum": MOMENTUM,
        "weight_decay": DECAY,
        "calibration": CALIBRATION,
    }


def _train_base(trial: Trial, known: Pictures, unknown: Pictures, runs: Path) -> None:
    """Train the dense net, unless its record is there."""
    folder = trial.folder(runs)
    path = folder / dense_training.RECORD
    if not path.exists():
        dense_training.train(folder, known, unknown, seed=trial.seed, epochs=dense_training.EPOCHS)
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["seed"] != trial.seed or record["data_sha256"] != {"train": known.sha256, "test": unknown.sha256}:
        raise ValueError(f"{path} is of another seed or of other pictures")
    write_atomically(folder / RESULT, json.dumps({"name": trial.name, **record}, indent=1) + "\n")


def trials_of(seeds: Sequence[int]) -> list[Trial]:
    """What is to be trained."""
    return [Trial(name=way, seed=seed) for seed in seeds for way in WAYS if way in HEADLINE or seed == seeds[0]]


def summary(results: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """The gates, and whether they hold; ``passed`` only with every training of ``SEEDS`` there."""
    by_way = {way: [result for result in results if result["name"] == way] for way in WAYS}
    rows = []
    for way, gate in GATES.items():
        mine = by_way[way]
        dense = [run for run in by_way["dense"] if run["seed"] in {other["seed"] for other in mine}]
        if not mine or not dense:
            continue
        whole = len(mine) == len(dense) == sum(trial.name == way for trial in trials_of(seeds))
        ours, theirs = (Spread.of(run["accuracy"] for run in runs) for runs in (mine, dense))
        drop = theirs.mean - ours.mean
        drop = 100 * drop / theirs.mean if gate.relative else drop
        fewer = min(_fewer(way, run) for run in mine)
        rows.append(
            {
                "way": way,
                "fewer": fewer,
                "min_fewer": gate.fewer,
                "accuracy": asdict(ours),
                "untrained": asdict(Spread.of(run["accuracy_untrained"] for run in mine)),
                "dense_accuracy": asdict(theirs),
                "same_answers": asdict(Spread.of(run["same_answers"] for run in mine)),
                "dense_same_answers": asdict(Spread.of(run["same_answers"] for run in dense)),
                "drop": drop,
                "drop_is": "percent" if gate.relative else "points",
                "max_drop": gate.drop,
                "passed": bool(fewer >= gate.fewer - 1e-9 and drop <= gate.drop + 1e-9 and whole),
            }
        )
    whole = set(SEEDS) <= set(seeds) and len(rows) == len(GATES)
    return {"passed": whole and all(row["passed"] for row in rows), "gates": rows}


def _fewer(way: str, run: Mapping[str, Any]) -> float:
    """How many times fewer parameters or multiply-adds."""
    if way == "svd":
        return float(run["dense_params"] / run["params"])
    if way == "cp":
        ours = sum(count for name, count in run["macs"].items() if name.split(".")[0] == ONE_LAYER)
        return float(run["dense_macs"][ONE_LAYER] / ours)
    return float(sum(run["dense_macs"].values()) / sum(run["macs"].values()))


def table(found: Mapping[str, Any]) -> str:
    """The gates in lines for people."""
    lines = [f"{'way':10} {'fewer':>7} {'untrained':>10} {'accuracy':>9} {'dense':>7} {'drop':>6} {'allowed':>8}  gate"]
    lines += [
        f"{row['way']:10} {row['fewer']:6.2f}x {row['untrained']['mean']:10.2f} {row['accuracy']['mean']:9.2f} "
        f"{row['dense_accuracy']['mean']:7.2f} {row['drop']:6.2f} {row['max_drop']:8.1f}  "
        f"{'met' if row['passed'] else 'MISSED'}"
        for row in found["gates"]
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates that were asked for hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--threads", type=int, default=2, help="of the engine, where ranks are chosen")
    add_arguments(parser, SEEDS)
    options = parser.parse_args(arguments)
    if options.trial is not None:
        return interrupted_or(partial(_train, options), options.runs)
    if wrong := complaint(options):
        log(f"error: {wrong}")
        return 2
    if options.threads < 1:
        log("error: --threads must be at least 1")
        return 2
    try:
        known = load_pictures(options.data, "train")
        options.runs.mkdir(parents=True, exist_ok=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        log(f"error: {error}")
        return 2
    return interrupted_or(partial(_run, options, known), options.runs)


def _train(options: argparse.Namespace) -> int:
    train(Trial(name=options.trial, seed=options.seed), options.data, options.runs)
    return 0


def _run(options: argparse.Namespace, known: Pictures) -> int:
    bases = [Trial(name=BASE, seed=seed) for seed in options.seeds]
    trials = trials_of(options.seeds)
    run: Callable[..., None] = partial(
        run_trials,
        MODULE,
        ["--data", str(options.data), "--runs", str(options.runs)],
        runs=options.runs,
        jobs=options.jobs,
    )
    run(trials=bases, title="dense nets")
    ranks = options.runs / RANKS
    if not ranks.exists():
        chosen = choose_ranks(load_base(options.runs, options.seeds[0]), known, options.threads)
        write_atomically(ranks, json.dumps(chosen, indent=1) + "\n")
    try:
        run(trials=trials, title="fine-tuning", settings=lambda trial: settings_of())
    finally:
        results = gather(trials, options.runs)
        chosen = json.loads(ranks.read_text(encoding="utf-8"))["ranks"]
        for result in results:
            if result.get("ranks", chosen) != chosen:
                raise StaleResultError(f"seed {result['seed']} of {result['name']} has other ranks than {ranks}")
        found = summary(results, options.seeds)
        document = {
            **found,
            "ranks": json.loads(ranks.read_text(encoding="utf-8")),
            "dense_nets": [base.result(options.runs) for base in bases],
            "runs": results,
        }
        write_atomically(options.out, json.dumps(document, indent=1) + "\n")
    print(table(found))
    return 0 if found["gates"] and all(row["passed"] for row in found["gates"]) else 1


if __name__ == "__main__":
    sys.exit(main())
