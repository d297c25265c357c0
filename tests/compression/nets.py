"""Small nets and data for the tests of this room."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from fastcnn.compression.batches import TensorBatches


def small_cnn(seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, dropout, linear; input (N, 1, 8, 8), 4 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 6, 3, padding=1),
            norm=nn.BatchNorm2d(6),
            act=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.2),
            hidden=nn.Linear(96, 24),
            act2=nn.ReLU(),
            last=nn.Linear(24, 4),
        )
    )


def quadrants(count: int = 128, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures whose class is the quadrant that is brighter; learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 8, 8, generator=generator)
    targets = torch.arange(count) % 4
    for picture, label in zip(inputs, targets.tolist(), strict=True):
        picture[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1.5
    return inputs, targets


def batches(batch_size: int = 16) -> TensorBatches:
    """Shuffled batches of :func:`quadrants`."""
    return TensorBatches(*quadrants(), batch_size=batch_size)


def accuracy(model: nn.Module) -> float:
    """Percent right on fresh pictures."""
    inputs, targets = quadrants(256, seed=1)
    return 100.0 * float((model(inputs).argmax(1) == targets).double().mean())
