"""Batches for training loops: re-iterable, with a length, in an order that follows torch's seed. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastcnn.data.dataset import DataError, Dataset
from fastcnn.data.transforms import Preprocess

if TYPE_CHECKING:
    from torch import nn

_KEEP_BYTES = 1 << 30
"""Prepared pictures up to this size stay in memory; larger sets are prepared batch by batch, each epoch anew."""


class Batches:
    """Shuffled (pictures, labels) tensors.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    preprocess : Preprocess
    batch_size : int
        At least 1.

    Raises
    ------
    DataError
        If the set has no labels, or batch_size is below 1.
    """

    def __init__(self, dataset: Dataset, preprocess: Preprocess, *, batch_size: int = 64) -> None:
        if dataset.labels is None:
            raise DataError(f"{dataset.name}: has no labels to train on: add an array y")
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size} is not allowed: choose at least 1")
        self.dataset, self.preprocess, self.batch_size = dataset, preprocess, batch_size
        first, _ = next(dataset.batches(preprocess, batch_size=1))
        self.shape: tuple[int, ...] = first.shape[1:]
        """Of one prepared picture, (C, H, W)."""
        self._pictures: torch.Tensor | None = None
        if first.nbytes * len(dataset) <= _KEEP_BYTES:
            prepared = [x for x, _ in dataset.batches(preprocess, batch_size=256)]
            self._pictures = torch.from_numpy(np.concatenate(prepared))
        self._labels = torch.from_numpy(dataset.labels)

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(self.dataset))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self._take(chosen), self._labels[chosen]

    def _take(self, chosen: torch.Tensor) -> torch.Tensor:
        if self._pictures is not None:
            return self._pictures[chosen]
        part = self.dataset.take(chosen.numpy())
        return torch.from_numpy(next(part.batches(self.preprocess, batch_size=len(part)))[0])


def accuracy_of(dataset: Dataset, preprocess: Preprocess, *, batch_size: int = 256) -> Callable[[nn.Module], float]:
    """Return ``evaluate(model)``: top-1 accuracy on the set, in percent."""
    if dataset.labels is None:
        raise DataError(f"{dataset.name}: has no labels to measure accuracy with: add an array y")

    def evaluate(model: nn.Module) -> float:
        right = 0
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            for x, y in dataset.batches(preprocess, batch_size=batch_size):
                scores = model(torch.from_numpy(x).to(device))
                right += int((scores.argmax(dim=1).cpu() == torch.from_numpy(np.asarray(y))).sum())
        return 100.0 * right / len(dataset)

    return evaluate
