"""What 8 bits cost, untrained: ``python -m fastcnn.reproduction.lowprecision.int8_accuracy`` with --nets --cifar10 etc.

Published nets are quantised after training by ``Int8Config`` and compared with themselves in float32. ResNet-20 and
ResNet-32 are calibrated on pictures of CIFAR-10's training set and tested on its whole test set; MobileNetV2 is
calibrated on the photographs of even number and tested on those of odd number, and the other way round, beside NNCF's
post-training quantisation of the same net on the same pictures. With 200 photographs a difference under 3 points means
nothing. All our nets run in the engine, from the file they were saved to.

References
----------
Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fastcnn
from fastcnn.benchmarking.command import guarded, missing_peers, write_record
from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.export import export_model
from fastcnn.benchmarking.files import CALIBRATION
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import run_worker
from fastcnn.cli.output import log, progress_bar
from fastcnn.methods.lowprecision import Int8Config
from fastcnn.reproduction.lowprecision.trainings import engine_labels, percent
from fastcnn.reproduction.structured.agreement import load_net, photographs
from fastcnn.reproduction.winograd_labels.nets import CifarResNet, load_weights
from fastcnn.reproduction.winograd_labels.pictures import evenly, load_pictures

MODULE = "fastcnn.reproduction.lowprecision.int8_accuracy"
MOST_LOST, MIN_AGREEMENT, MOST_BEHIND = 0.5, 95.0, 2.0
"""Points of accuracy on CIFAR-10; percent of the photographs that keep their label; points fewer than the rival."""
CALIBRATED = 512
"""Pictures of CIFAR-10, every so-manieth of the training set, which is sorted by class."""
RESNETS = (20, 32)
RIVAL = "openvino-int8"
TIMEOUT_S = 1200.0


def saved_labels(model: nn.Module, inputs: Tensor, folder: Path, threads: int) -> tuple[Tensor, int]:
    """Label of each picture by the engine, from a file that was saved; and the file's bytes."""
    path = folder / "net.fcnn"
    fastcnn.compile(model, inputs[:1], threads=threads, strict=True).save(path)
    return engine_labels(fastcnn.load(path, threads=threads), inputs), path.stat().st_size


def cifar(depth: int, weights: Path, folder: Path, *, threads: int) -> dict[str, Any]:
    """One ResNet on all test pictures, in float32 and in 8 bits."""
    net = CifarResNet(depth).eval()
    digest = load_weights(net, weights, f"ResNet-{depth}")
    unknown = load_pictures(folder, "test")
    calibration = evenly(load_pictures(folder, "train"), CALIBRATED)
    began = time.perf_counter()
    small = fastcnn.convert(net, Int8Config(), data=list(torch.split(calibration, 64)))
    seconds = time.perf_counter() - began
    truth = unknown.labels
    with tempfile.TemporaryDirectory(prefix="fastcnn-int8-") as where:
        before, before_bytes = saved_labels(net, unknown.inputs, Path(where), threads)
        after, after_bytes = saved_labels(small, unknown.inputs, Path(where), threads)
    lost = percent(before, truth) - percent(after, truth)
    return {
        "net": f"ResNet-{depth}",
        "pictures": len(truth),
        "data_sha256": unknown.sha256,
        "net_sha256": digest,
        "calibrated_on": len(calibration),
        "accuracy_before": percent(before, truth),
        "accuracy_after": percent(after, truth),
        "lost": lost,
        "max_lost": MOST_LOST,
        "agreement": percent(before, after),
        "file_bytes": [before_bytes, after_bytes],
        "convert_seconds": round(seconds, 1),
        "passed": bool(lost <= MOST_LOST + 1e-9),
    }


def rival_labels(net: nn.Module, calibration: Tensor, inputs: Tensor, folder: Path, threads: int) -> dict[str, Tensor]:
    """Labels by NNCF's quantised nets, for each of its presets.

    Raises
    ------
    EngineFailedError
        If the engine fails.
    """
    one = [batch[None].numpy() for batch in inputs]
    np.save(folder / CALIBRATION, np.stack([batch[None].numpy() for batch in calibration]))
    export_model(net, np.stack(one), folder, engines=(RIVAL,))
    found: dict[str, Tensor] = {}
    for variant in ENGINES[RIVAL].variants:
        outputs = folder / "outputs.npy"
        for task in ("convert", "time") if not found else ("time",):
            job = Job(
                task=task, engine=RIVAL, variant=variant, folder=str(folder), threads=threads, warmup_s=0.0,
                seconds=0.0, result=str(folder / "result.json"), outputs=str(outputs) if task == "time" else "",
            )  # fmt: skip
            run_worker(job, timeout_s=TIMEOUT_S)
        found[variant] = torch.from_numpy(np.load(outputs, allow_pickle=False)).reshape(len(inputs), -1).argmax(1)
    return found


def agreement(net: nn.Module, inputs: Tensor, truth: Tensor, *, threads: int) -> dict[str, Any]:
    """Both folds of MobileNetV2, ours and the rival's, and the two together."""
    folds: list[dict[str, Any]] = []
    with progress_bar("MobileNetV2", 2) as advance:
        for fold, name in enumerate(("even", "odd")):
            calibration, test = inputs[fold::2], inputs[1 - fold :: 2]
            small = fastcnn.convert(net, Int8Config(), data=list(torch.split(calibration, 25)))
            with tempfile.TemporaryDirectory(prefix="fastcnn-int8-") as where:
                before, _ = saved_labels(net, test, Path(where), threads)
                labels = {"fastcnn": saved_labels(small, test, Path(where), threads)[0]}
            with tempfile.TemporaryDirectory(prefix="fastcnn-int8-") as where:
                rivals = rival_labels(net, calibration, test, Path(where), threads)
            labels |= {f"{RIVAL} {variant}": found for variant, found in rivals.items()}
            right = truth[1 - fold :: 2]
            folds.append(
                {
                    "calibrated_on": name,
                    "photographs": len(right),
                    "same_labels": {label: int((found == before).sum()) for label, found in labels.items()},
                    "accuracy_before": percent(before, right),
                    "accuracy": {label: percent(found, right) for label, found in labels.items()},
                }
            )
            advance(note=name)
    whole = sum(fold["photographs"] for fold in folds)
    kept = {label: 100.0 * sum(fold["same_labels"][label] for fold in folds) / whole for label in labels}
    best = max(share for label, share in kept.items() if label != "fastcnn")
    return {
        "net": "MobileNetV2",
        "agreement": kept,
        "min_agreement": MIN_AGREEMENT,
        "behind_rival": best - kept["fastcnn"],
        "max_behind": MOST_BEHIND,
        "folds": folds,
        "passed": bool(kept["fastcnn"] >= MIN_AGREEMENT and best - kept["fastcnn"] <= MOST_BEHIND),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The nets in lines for people."""
    lines = []
    for row in found:
        verdict = "met" if row["passed"] else "MISSED"
        if "lost" in row:
            lines.append(
                f"{row['net']:12} {row['accuracy_before']:.2f} % in float32, {row['accuracy_after']:.2f} % in 8 bits: "
                f"{row['lost']:+.2f} points lost (at most {row['max_lost']}), {row['agreement']:.2f} % of the labels "
                f"kept, {row['file_bytes'][0]:,} to {row['file_bytes'][1]:,} bytes: {verdict}"
            )
        else:
            kept = ", ".join(f"{label} {share:.1f} %" for label, share in row["agreement"].items())
            lines.append(
                f"{row['net']:12} labels kept out of fold: {kept} (at least {row['min_agreement']}): {verdict}"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--nets", type=Path, required=True, help="folder of the published nets' safetensors files")
    parser.add_argument("--cifar10", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--photographs", type=Path, required=True, help="zip of photographs with a labels.csv")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.threads < 1:
        log(f"error: --threads: {options.threads} is below 1")
        return 2
    if wrong := missing_peers([RIVAL]):
        log(f"error: {wrong}")
        return 2
    return guarded(partial(_run, options), bad_input=(OSError, ValueError))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    mobile = options.nets / "imagenet_mobilenet_v2.safetensors"
    inputs, truth, digest = photographs(options.photographs)
    net = load_net(mobile)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = [
        cifar(depth, options.nets / f"cifar10_resnet{depth}.safetensors", options.cifar10, threads=options.threads)
        for depth in RESNETS
    ]
    found.append(agreement(net, inputs, truth, threads=options.threads))
    passed = all(row["passed"] for row in found)
    record = {
        "torch": torch.__version__,
        "rival": f"{RIVAL} {ENGINES[RIVAL].version()}",
        "photographs_sha256": digest,
        "mobilenet_sha256": hashlib.sha256(mobile.read_bytes()).hexdigest(),
        "passed": passed,
        "found": found,
    }
    write_record(options.out, record)
    print(table(found))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
