"""Deep Compression on MNIST: file size against accuracy, beside a dense net trained exactly as long.

Run it as ``python -m fastcnn.reproduction.deep_compression --net lenet-300-100 --seeds 0 1 2 --data DIR --out FILE``.

For each seed a dense net is trained; from it the compressed net goes through the recipe below, and the
control goes on through the same epochs, rates and batches without pruning or sharing. Accuracy is that of
the file's weights: the compressed net is saved, and its bytes are those of the file on disk.

References
----------
Han, Mao and Dally 2016, arXiv:1510.00149: LeNet-300-100 40x, LeNet-5 39x on MNIST without loss.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.artifact import predict_file_bytes, save_graph
from fastcnn.compression.batches import TensorBatches
from fastcnn.compression.finetune import History, finetune
from fastcnn.compression.recipe import PruneStage, Recipe, RetrainStage, ShareStage, Training, TuneStage
from fastcnn.compression.run_recipe import run_recipe
from fastcnn.data.mnist import load_mnist
from fastcnn.engine.capture import capture
from fastcnn.reproduction.lenet import NETS

BATCH = 256
MEAN, STD = 0.1307, 0.3081
MIN_RATIO, MAX_DROP = 30.0, 0.3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Dense training, then the recipe."""

    dense: Training
    recipe: Recipe


def _plan(name: str, overrides: dict[str, float], share: ShareStage, epochs: tuple[int, int, int, int]) -> Plan:
    """Plan of a net; ``epochs`` of dense training, pruning, retraining and tuning."""
    dense, prune, retrain, tune = epochs
    return Plan(
        dense=Training(epochs=dense, lr=1e-3, lr_schedule="cosine"),
        recipe=Recipe(
            name=f"deep-compression-{name}",
            stages=(
                PruneStage(overrides=overrides, skip=(), rounds=6, epochs=prune, lr=1e-3),
                RetrainStage(epochs=retrain, lr=1e-3, lr_schedule="cosine"),
                share,
                TuneStage(epochs=tune, lr=1e-4, lr_schedule="cosine"),
            ),
        ),
    )


# Sparsity per layer: the widest layer bears the most, the first convolution and the last layer the least.
PLANS = {
    "lenet-300-100": _plan(
        "lenet-300-100",
        {"1": 0.94, "3": 0.9, "5": 0.65},
        ShareStage(clusters=15, algorithm="optimal"),
        (10, 6, 10, 2),
    ),
    "lenet-5": _plan(
        "lenet-5",
        {"0": 0.2, "2": 0.82, "5": 0.93, "7": 0.75},
        ShareStage(clusters=15, conv_clusters=31, algorithm="optimal"),
        (2, 1, 3, 1),
    ),
}


def tensors(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Normalised pictures (N, 1, 28, 28) and labels of MNIST."""
    data = load_mnist(folder, split, name=f"mnist:{folder}", fashion=False)
    assert not callable(data.images)
    images = torch.from_numpy(data.images[:, :, :, 0]).unsqueeze(1).float()  # type: ignore[index]  # an array here
    return (images / 255 - MEAN) / STD, torch.from_numpy(data.labels)


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Top-1 accuracy in percent."""
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in _slices(inputs, targets))
    return 100.0 * hits / len(targets)


def _slices(inputs: Tensor, targets: Tensor) -> TensorBatches:
    return TensorBatches(inputs, targets, batch_size=1000, shuffle=False)


def _train(
    model: nn.Module, loader: TensorBatches, how: Training, seed: int, evaluate: Callable[[nn.Module], float]
) -> History:
    return finetune(
        model,
        loader,
        epochs=how.epochs,
        optimizer=how.optimizer,
        lr=how.lr,
        weight_decay=how.weight_decay,
        schedule=how.lr_schedule,
        evaluate=evaluate,
        description="dense",
        seed=seed,
    )


def run_seed(
    net: str, seed: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], out: Path
) -> dict[str, Any]:
    """Run one seed; return its record. Writes the compressed net to ``out`` as a .fcnn file."""
    plan = PLANS[net]
    began = time.perf_counter()
    torch.manual_seed(seed)
    dense = NETS[net]()
    loader = TensorBatches(*train, batch_size=BATCH)

    def evaluate(model: nn.Module) -> float:
        return accuracy(model, *test)

    first = _train(dense, loader, plan.dense, seed, evaluate)
    params = sum(p.numel() for p in dense.parameters())
    recipe = Recipe(name=plan.recipe.name, stages=plan.recipe.stages, layers=plan.recipe.layers, seed=seed)
    result = run_recipe(dense, recipe, loader, evaluate)
    small = result.model.eval()
    graph = capture(small, (test[0][:1],))
    written = save_graph(out, graph)
    predicted = predict_file_bytes(graph)

    control_curve = list(first.epochs)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, Training):
            control_curve += _train(dense, loader, stage, seed * 1009 + index, evaluate).epochs
    dense.eval()
    totals = result.report.totals()
    return {
        "seed": seed,
        "dense_accuracy": first.metric,
        "control_accuracy": evaluate(dense),
        "control_epochs": len(control_curve),
        "compressed_accuracy": evaluate(small),
        "dense_bytes": 4 * params,
        "file_bytes": written.file_bytes,
        "predicted_bytes": predicted,
        "theory_bytes": totals["bytes_after"],
        "nonzeros": totals["params_after"],
        "ratio": 4 * params / written.file_bytes,
        "stages": [{"stage": s.stage, "accuracy": s.metric, "seconds": round(s.seconds, 1)} for s in result.stages],
        "dense_curve": [asdict(entry) for entry in control_curve],
        "seconds": round(time.perf_counter() - began, 1),
        "recipe": recipe.to_yaml(),
    }


def _commit() -> str | None:
    """Commit of the source tree this file lies in, with a mark if it was changed; None outside a repository."""
    where = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", "."], cwd=where, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def summary(net: str, records: list[dict[str, Any]], data_hash: str) -> dict[str, Any]:
    """Mean over seeds, and whether the gates hold."""

    def mean(key: str) -> float:
        return float(sum(record[key] for record in records)) / len(records)

    drop = mean("control_accuracy") - mean("compressed_accuracy")
    return {
        "net": net,
        "commit": _commit(),
        "torch": torch.__version__,
        "data_sha256": data_hash,
        "mean_ratio": mean("ratio"),
        "mean_control_accuracy": mean("control_accuracy"),
        "mean_compressed_accuracy": mean("compressed_accuracy"),
        "mean_drop_points": drop,
        "gates": {"min_ratio": MIN_RATIO, "max_drop_points": MAX_DROP, "seeds": len(records)},
        "passed": mean("ratio") >= MIN_RATIO and drop <= MAX_DROP,
        "runs": records,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.deep_compression", description=__doc__)
    parser.add_argument("--net", choices=sorted(PLANS), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four MNIST files")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--save", type=Path, help="folder to keep the .fcnn files in")
    options = parser.parse_args(arguments)
    try:
        train, test = tensors(options.data, "train"), tensors(options.data, "test")
    except (OSError, ValueError) as error:
        print(f"error: --data: {error}", file=sys.stderr)
        return 2
    digest = hashlib.sha256()
    for tensor in (*train, *test):
        digest.update(tensor.numpy().tobytes())
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.save or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            records.append(run_seed(options.net, seed, train, test, folder / f"{options.net}-{seed}.fcnn"))
            done = summary(options.net, records, digest.hexdigest())
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
            last = records[-1]
            print(
                f"seed {seed}: {last['ratio']:.1f}x, accuracy {last['compressed_accuracy']:.2f} % "
                f"against {last['control_accuracy']:.2f} %, {last['seconds']:.0f} s",
                file=sys.stderr,
            )
    print(json.dumps({key: value for key, value in done.items() if key != "runs"}, indent=1))
    return 0 if done["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
