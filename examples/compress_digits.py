"""Train a small CNN on scikit-learn's digits, prune it, share its weights, and save a small file.

A short recipe of the same kind as the shipped `deep-compression`. Run:  python examples/compress_digits.py [FILE.fcnn]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import fastcnn as fc
from fastcnn.data import Preprocess, load_data
from fastcnn.data.loader import Batches, accuracy_of

RECIPE = """
version: 1
name: digits
stages:
  - prune: {sparsity: 0.8, skip: [], schedule: cubic, rounds: 4, epochs: 4, lr: 0.002}
  - retrain: {epochs: 6, lr: 0.003, lr_schedule: cosine}
  - share: {clusters: 16}
  - tune: {epochs: 1, lr: 0.0002}
"""


def main(file: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    train = Batches(load_data("digits", split="train"), Preprocess(), batch_size=64)
    accuracy = accuracy_of(load_data("digits", split="test"), Preprocess())
    fc.finetune(model, train, epochs=8, lr=3e-3, schedule="cosine", description="training")

    recipe = file.with_suffix(".yaml")
    recipe.write_text(RECIPE, encoding="utf-8")
    result = fc.run_recipe(model, recipe, train, accuracy)
    print(result.report)
    for stage in result.stages:
        print(f"after {stage.stage:8s} {stage.metric:.2f} %")

    net = fc.compile(result.model.eval(), torch.zeros(1, *train.shape), strict=True)
    net.save(file)
    print(fc.inspect(file))
    dense = 4 * sum(p.numel() for p in model.parameters())
    size = file.stat().st_size
    print(f"accuracy {result.metric_before:.2f} % before, {result.metric:.2f} % after")
    print(f"bytes {dense:,} before, {size:,} after: {dense / size:.1f} times smaller")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits.fcnn"))
