"""Labels under Winograd: ``python -m fastcnn.reproduction.winograd_labels`` with ``--data --resnet20 --vgg --out``.

Two trained nets classify CIFAR-10's test pictures, in float32, four ways: by direct convolution and by F(4,3) in every
layer it serves, each in torch and in the engine. Against ``nn.Conv2d``, every other way must give the same label to
``MIN_SAME`` percent of the pictures and change the accuracy by no more than ``MAX_CHANGE`` points.

The record is written after each net, so that an interrupted run goes on where it stopped, and nets can be measured one
at a time (``--nets``); ``--again`` measures anew what is already in it. Every net has the commit it was measured at.

References
----------
Lavin and Gray 2016, arXiv:1509.09308: nets keep their accuracy in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcnn.cli.output import log, plain, progress_bar, write_atomically
from fastcnn.reporting.host import commit, host_facts
from fastcnn.reproduction.winograd_labels.measure import (
    WAYS,
    Step,
    Way,
    exact_logits,
    judge,
    logits_by,
    spread,
    winograd_layers,
)
from fastcnn.reproduction.winograd_labels.nets import ResNet20, load_weights, vgg_like
from fastcnn.reproduction.winograd_labels.pictures import Pictures, load_pictures
from fastcnn.reproduction.winograd_labels.train import RECORD, WEIGHTS

MIN_SAME, MAX_CHANGE = 99.9, 0.05
"""Percent of the pictures; points of accuracy."""
NETS: dict[str, Callable[[], nn.Module]] = {"resnet20": ResNet20, "vgg_like": vgg_like}


def load_net(name: str, path: Path) -> tuple[nn.Module, str]:
    """Build a net and load its weights; also the SHA-256 of the file, and the errors of ``load_weights``."""
    model = NETS[name]()
    digest = load_weights(model, path, name)
    return model.eval(), digest


def training_record(folder: Path, weights_sha256: str) -> dict[str, Any]:
    """How the plain net was trained, from the folder of its training.

    Raises
    ------
    ValueError
        If the record is missing, damaged, or of other weights.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no {RECORD}: train the net with python -m fastcnn.reproduction.winograd_labels.train"
        )
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["weights_sha256"] != weights_sha256:
        raise ValueError(f"{path} is the record of other weights than those in {WEIGHTS}: train the net anew")
    return record


def measure_net(net: nn.Module, pictures: Pictures, step: Step = lambda count: None) -> dict[str, Any]:
    """Run a net in all ways and judge them; ``layers`` are those in F(4,3), by way."""
    began = time.perf_counter()
    logits, layers = {}, {}
    for way in WAYS:
        logits[way], layers[way] = logits_by(way, net, pictures, step)
    exact = exact_logits(net, pictures, step)
    return {
        "params": sum(p.numel() for p in net.parameters()),
        "convolutions": sum(isinstance(layer, nn.Conv2d) for layer in net.modules()),
        "served": winograd_layers(net),
        "layers": {way: layers[way] for way in WAYS if layers[way]},
        "pictures": len(pictures),
        "error_pictures": len(exact),
        "ways": judge(logits, exact, pictures),
        "seconds": round(time.perf_counter() - began, 1),
    }


def holds(ways: Mapping[Way, Mapping[str, float]]) -> bool:
    """Whether every way but ``torch_direct`` keeps labels and accuracy."""
    return set(ways) == set(WAYS) and all(
        found["same_labels"] >= MIN_SAME and abs(found["accuracy_change"]) <= MAX_CHANGE + 1e-9
        for found in ways.values()
    )


def summary(nets: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """The whole document; it passes when both nets are there and keep labels and accuracy."""
    return {
        **made,
        "gates": {"min_same_labels": MIN_SAME, "max_accuracy_change": MAX_CHANGE},
        "passed": set(nets) == set(NETS) and all(holds(net["ways"]) for net in nets.values()),
        "nets": {name: nets[name] for name in NETS if name in nets},
    }


def _known(path: Path, made: Mapping[str, Any], hashes: Mapping[str, str], again: bool) -> dict[str, Any]:
    """Nets of a record that was made in the same way, and from the same weights where those are at hand.

    A record made in another way is refused, or with ``again`` forgotten.
    """
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    for name in ("torch", "data_sha256", "threads"):
        if document[name] != made[name]:
            if again:
                return {}
            raise ValueError(f"it was made at {name} {document[name]}, now it is {made[name]}: --again makes it anew")
    return {
        name: net
        for name, net in document["nets"].items()
        if name in NETS and net["weights_sha256"] == hashes.get(name, net["weights_sha256"])
    }


def _line(name: str, ways: Mapping[str, Mapping[str, float]]) -> str:
    parts = [
        f"{way} {found['accuracy']:.2f} % ({found['other_labels']} other labels, error {found['error']:.1e})"
        for way, found in ways.items()
    ]
    return f"{name}: {', '.join(parts)}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.winograd_labels", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--resnet20", type=Path, help="published weights, safetensors")
    parser.add_argument("--vgg", type=Path, help="folder in which the plain net was trained")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, and to go on with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what the file already holds")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        log(f"error: --threads: {options.threads} is below 1")
        return 2
    loaded: dict[str, tuple[nn.Module, str]] = {}
    training: dict[str, Any] = {}
    option = ""
    try:
        for name in NETS:
            if name not in options.nets:
                continue
            option, path = ("--resnet20", options.resnet20) if name == "resnet20" else ("--vgg", options.vgg)
            if path is None:
                raise ValueError(f"it is missing: give it, or leave {name} out of --nets")
            loaded[name] = load_net(name, path if name == "resnet20" else path / WEIGHTS)
            if name == "vgg_like":
                training = training_record(path, loaded[name][1])
        option = "--data"
        pictures = load_pictures(options.data, "test")
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: {option}: {error}")
        return 2
    measured_at = commit()
    made = {
        "torch": torch.__version__,
        "threads": options.threads,
        "data_sha256": pictures.sha256,
        "host": plain(host_facts()),
    }
    hashes = {name: digest for name, (_, digest) in loaded.items()}
    try:
        nets = _known(options.out, made, hashes, options.again)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: --out: {options.out} cannot be used: {error}")
        return 2
    if str(measured_at).endswith("-dirty"):
        log("warning: there are uncommitted changes: the record will say so; commit them first to make a clean one")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    wanted = [name for name in loaded if options.again or name not in nets]
    calls = len(wanted) * (len(WAYS) * len(pictures) + len(pictures.labels[spread(pictures)]))
    try:
        with progress_bar("labels under Winograd", calls) as advance:
            for name in wanted:
                model, digest = loaded[name]
                found = measure_net(model, pictures, lambda count: advance(count))
                now = datetime.now().isoformat(timespec="seconds")
                nets[name] = {"commit": measured_at, "date": now, "weights_sha256": digest, **found}
                if name == "vgg_like":
                    nets[name]["training"] = training
                write_atomically(options.out, json.dumps(summary(nets, made), indent=1) + "\n")
                log(_line(name, found["ways"]))
    except KeyboardInterrupt:
        log(f"interrupted: {options.out} holds {len(nets)} nets; run again to go on")
        return 130
    finally:
        torch.set_num_threads(before)
    done = summary(nets, made)
    write_atomically(options.out, json.dumps(done, indent=1) + "\n")
    print(json.dumps({key: value for key, value in done.items() if key not in ("nets", "host")}, indent=1))
    return 0 if done["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
