"""Train the plain net: ``python -m fastcnn.reproduction.winograd_labels.train --data DIR --folder DIR``.

Writes ``vgg_like.safetensors`` and its record ``vgg_like.json``. Ctrl-C leaves a checkpoint in the folder, from which
the same command goes on; a folder that holds the finished net is left alone.

References
----------
Smith and Topin 2017, arXiv:1708.07120, for the course of the learning rate. Differs: momentum is constant.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fastcnn.cli.output import log, plain, write_atomically
from fastcnn.compression.checkpoint import seed_all
from fastcnn.compression.finetune import finetune
from fastcnn.reporting.host import commit, host_facts
from fastcnn.reproduction.winograd_labels.nets import vgg_like
from fastcnn.reproduction.winograd_labels.pictures import Pictures, ShiftedBatches, load_pictures

EPOCHS, BATCH, PEAK, WARM, DECAY, MOMENTUM = 12, 128, 0.1, 0.25, 5e-4, 0.9
"""Passes, pictures in a batch, highest learning rate, fraction of the steps that lead up to it, weight decay."""
CHECKPOINT_EVERY = 100
"""Steps."""
WEIGHTS, RECORD = "vgg_like.safetensors", "vgg_like.json"


def one_cycle(done: float) -> float:
    """Learning rate over its peak when the fraction ``done`` of the steps is done: a line up, then a line to zero."""
    return done / WARM if done < WARM else (1 - done) / (1 - WARM)


class OneCycleSGD(torch.optim.SGD):
    """SGD with Nesterov's momentum whose learning rate goes up and down once in ``total_steps``.

    The steps done are kept with the parameter groups, hence in ``state_dict``.
    """

    def __init__(self, params: Any, *, lr: float, weight_decay: float, total_steps: int) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM, nesterov=True)
        for group in self.param_groups:
            group.update(peak=lr, steps_done=0, total_steps=total_steps)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Any) -> float: ...
    def step(self, closure: Any = None) -> float | None:
        """One step at the rate that is due, in the middle of the step's share of the course."""
        for group in self.param_groups:
            group["lr"] = group["peak"] * one_cycle((group["steps_done"] + 0.5) / group["total_steps"])
            group["steps_done"] += 1
        loss: float | None = super().step(closure)
        return loss


def top1(model: nn.Module, pictures: Pictures) -> float:
    """Accuracy in percent."""
    with torch.no_grad():
        batches = zip(torch.split(pictures.inputs, 500), torch.split(pictures.labels, 500), strict=True)
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    return 100.0 * hits / len(pictures)


def train(folder: Path, train_set: Pictures, test_set: Pictures, *, seed: int, epochs: int) -> dict[str, Any]:
    """Train from ``seed``, or from the folder's checkpoint; write the weights and return their record.

    Raises
    ------
    ValueError
        If the folder's checkpoint is of another run, or the loss became NaN or infinite.
    KeyboardInterrupt
        On Ctrl-C, when the checkpoint is written.
    """
    made = {"commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    settings = {
        "seed": seed,
        "epochs": epochs,
        "batch": BATCH,
        "peak": PEAK,
        "warm": WARM,
        "weight_decay": DECAY,
        "momentum": MOMENTUM,
        "data_sha256": {"train": train_set.sha256, "test": test_set.sha256},
    }
    sittings = _sittings(folder, settings, made)
    seed_all(seed)
    net = vgg_like().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    batches = ShiftedBatches(train_set, batch_size=BATCH)

    def optimizer(params: list[Tensor], *, lr: float, weight_decay: float) -> OneCycleSGD:
        return OneCycleSGD(params, lr=lr, weight_decay=weight_decay, total_steps=epochs * len(batches))

    history = finetune(
        net,
        batches,
        epochs=epochs,
        optimizer=optimizer,
        lr=PEAK,
        weight_decay=DECAY,
        evaluate=lambda model: top1(model, test_set),
        checkpoint_dir=folder,
        checkpoint_every=CHECKPOINT_EVERY,
        description="VGG-like net",
        seed=seed,
    )
    for entry in history.epochs:
        log(f"epoch {entry.epoch}: loss {entry.loss:.4f}, test accuracy {entry.metric:.2f} %, {entry.seconds:.0f} s")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, folder / WEIGHTS)
    record = {
        "net": "32-32-M-64-64-M-128-128-M-256-10 with batch norm",
        "params": sum(p.numel() for p in net.parameters()),
        **settings,
        "accuracy": history.metric,
        "seconds": round(sum(entry.seconds for entry in history.epochs), 1),
        "curve": [asdict(entry) for entry in history.epochs],
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "sittings": sittings,
        "host": plain(host_facts()),
    }
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _sittings(folder: Path, settings: dict[str, Any], made: dict[str, Any]) -> list[dict[str, Any]]:
    """Write down that a run with these settings sits down to work here; return all its sittings."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    sittings = []
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["settings"] != settings:
            names = [name for name in settings if known["settings"].get(name) != settings[name]]
            raise ValueError(f"{folder} holds a run with other {', '.join(names)}: give its values, or another folder")
        sittings = known["sittings"]
    if made not in sittings:
        sittings.append(made)
    write_atomically(path, json.dumps({"settings": settings, "sittings": sittings}, indent=1) + "\n")
    return sittings


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when the net is trained, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.winograd_labels.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--folder", type=Path, required=True, help="folder to write to, and to go on in")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; the result is exactly that of these threads")
    options = parser.parse_args(arguments)
    for name, least in (("epochs", 1), ("seed", 0), ("threads", 1)):
        if (value := getattr(options, name)) < least:
            log(f"error: --{name}: {value} is below {least}")
            return 2
    if (options.folder / RECORD).exists():
        log(f"{options.folder / RECORD} is there: the net is trained")
        return 0
    torch.set_num_threads(options.threads)
    try:
        sets = load_pictures(options.data, "train"), load_pictures(options.data, "test")
    except (OSError, ValueError) as error:
        log(f"error: --data: {error}")
        return 2
    try:
        record = train(options.folder, *sets, seed=options.seed, epochs=options.epochs)
    except KeyboardInterrupt:
        log(f"interrupted: {options.folder} holds a checkpoint; run again to go on")
        return 130
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: --folder: {error}")
        return 2
    print(json.dumps({key: value for key, value in record.items() if key not in ("curve", "host")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
