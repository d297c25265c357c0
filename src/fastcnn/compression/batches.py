"""Batches of tensors held in memory: a re-iterable whose order depends on torch's seed alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastcnn.methods.contract import check_count


class TensorBatches:
    """Inputs and targets in batches; a new order on every pass if shuffled, drawn from torch's generator.

    Much cheaper than a DataLoader for data that fits in memory, and exactly resumable by ``fastcnn.finetune``.

    Parameters
    ----------
    inputs, targets : Tensor
        Equal length along axis 0.
    batch_size : int
        The last batch may be short.
    shuffle : bool

    Raises
    ------
    ValueError
        If the tensors are empty or differ in length.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, *, batch_size: int, shuffle: bool = True) -> None:
        check_count("batch_size", batch_size, 1)
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"inputs and targets must have one equal length above 0, got {len(inputs)}, {len(targets)}"
            )
        self.inputs, self.targets, self.batch_size, self.shuffle = inputs, targets, batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.inputs)) if self.shuffle else None
        for start in range(0, len(self.inputs), self.batch_size):
            pick: Tensor | slice = slice(start, start + self.batch_size)
            if order is not None:
                pick = order[pick]
            yield self.inputs[pick], self.targets[pick]
