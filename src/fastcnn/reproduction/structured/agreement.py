"""MobileNetV2 made smaller, untrained: ``python -m fastcnn.reproduction.structured.agreement`` with --data --net --out.

A published net classifies photographs before and after ``fastcnn.convert`` with data-aware factorisation and one budget
of parameters for the whole net. Calibrated on the photographs of even number it is tested on those of odd number, and
the other way round, so that every photograph is judged by a net that was not fitted to it. The gate: in all, the share
of the photographs that keep their label. With 200 photographs a difference under 3 points means nothing.

References
----------
Xue, Li and Gong 2013 (SVD of every layer, one budget); Zhang, Zou, He and Sun 2015, arXiv:1505.06798 (fitted to
outputs, layer by layer); Kim et al. 2015, arXiv:1511.06530 (Tucker-2).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import fastcnn
from fastcnn.benchmarking.command import guarded, write_record
from fastcnn.cli.output import log, progress_bar
from fastcnn.data import PRESETS, DataError
from fastcnn.methods.contract import MethodConfig
from fastcnn.methods.structured.svd import SVDConfig
from fastcnn.reproduction.structured.mobilenet_v2 import MobileNetV2
from fastcnn.reproduction.trials import parameters

MODULE = "fastcnn.reproduction.structured.agreement"
BUDGET, MIN_AGREEMENT = 0.8, 95.0
"""Share of the parameters that is left; percent of the photographs that keep their label."""
BATCH = 25
WAYS: dict[str, MethodConfig] = {"svd": SVDConfig(budget=BUDGET, multiple_of=1)}
"""MobileNetV2 has no convolution that Tucker-2 serves but the first, with three channels: its others are 1x1, where
Tucker-2 with one full rank is SVD, or depthwise."""


def photographs(path: Path) -> tuple[Tensor, Tensor, str]:
    """Pictures (N, 3, 224, 224) as the net takes them, labels (N,), and the hash of the file.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no ``labels.csv`` that lists its pictures.
    """
    from PIL import Image

    try:
        raw = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode("utf-8"))))
            images = [Image.open(io.BytesIO(archive.read(row["file"]))).convert("RGB") for row in rows]
        labels = [int(row["class_index"]) for row in rows]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path} is no archive of photographs with a labels.csv: {error}") from error
    inputs = np.stack([PRESETS["imagenet"](np.asarray(image)) for image in images])
    return torch.from_numpy(inputs), torch.tensor(labels), hashlib.sha256(raw).hexdigest()


def load_net(path: Path) -> MobileNetV2:
    """The published net, in eval mode.

    Raises
    ------
    ValueError
        If the file does not hold its weights.
    """
    net = MobileNetV2()
    try:
        net.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} does not hold MobileNetV2's weights: {str(error).splitlines()[0]}") from error
    return net.eval()


def labels_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Class of the highest output for each picture."""
    with torch.no_grad():
        return torch.cat([model(batch).argmax(1) for batch in torch.split(inputs, BATCH)])


def measure(model: nn.Module, config: MethodConfig, inputs: Tensor, truth: Tensor) -> dict[str, Any]:
    """Both folds of one method, and the two together."""
    before = labels_of(model, inputs)
    folds: list[dict[str, Any]] = []
    for fold, name in enumerate(("even", "odd")):
        began = time.perf_counter()
        small = fastcnn.convert(model, config, data=list(torch.split(inputs[fold::2], BATCH)))
        seconds = time.perf_counter() - began
        after, rest = labels_of(small, inputs), slice(1 - fold, None, 2)
        folds.append(
            {
                "calibrated_on": name,
                "photographs": len(truth[rest]),
                "same_labels": int((after[rest] == before[rest]).sum()),
                "agreement": percent(after[rest] == before[rest]),
                "agreement_of_calibrated": percent(after[fold::2] == before[fold::2]),
                "accuracy_before": percent(before[rest] == truth[rest]),
                "accuracy_after": percent(after[rest] == truth[rest]),
                "params": parameters(small),
                "params_share": parameters(small) / parameters(model),
                "convert_seconds": round(seconds, 1),
                "layers": [
                    {"layer": line.layer, "before": line.params_before, "after": line.params_after, "how": line.why}
                    for line in fastcnn.report(small).layers
                    if line.status == "done"
                ],
            }
        )
    whole = sum(fold["photographs"] for fold in folds)
    agreement = 100.0 * sum(fold["same_labels"] for fold in folds) / whole
    smaller = max(fold["params_share"] for fold in folds) <= BUDGET
    return {
        "config": repr(config),
        "agreement": agreement,
        "folds": folds,
        "passed": bool(agreement >= MIN_AGREEMENT and smaller),
    }


def percent(hits: Tensor) -> float:
    """Share of True."""
    return 100.0 * float(hits.float().mean())


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="zip of photographs with a labels.csv")
    parser.add_argument("--net", type=Path, required=True, help="safetensors file of MobileNetV2's weights")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.threads < 1:
        log(f"error: --threads: {options.threads} is below 1")
        return 2
    return guarded(partial(_run, options), bad_input=(OSError, ValueError))


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    inputs, truth, digest = photographs(options.data)
    net = load_net(options.net)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with progress_bar("agreement", len(WAYS)) as advance:
        for name, config in WAYS.items():
            found[name] = measure(net, config, inputs, truth)
            advance(note=name)
            log(f"{name}: {found[name]['agreement']:.1f} % of the labels kept out of fold")
    passed = all(way["passed"] for way in found.values())
    record = {
        "torch": torch.__version__,
        "threads": options.threads,
        "data_sha256": digest,
        "net_sha256": hashlib.sha256(options.net.read_bytes()).hexdigest(),
        "gates": {"max_params_share": BUDGET, "min_agreement": MIN_AGREEMENT},
        "passed": passed,
        "found": found,
    }
    write_record(options.out, record)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
