"""ResNet-18 of binary convolutions, each with a shortcut of real numbers: the net that speeds are quoted for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fastcnn
from fastcnn.methods.lowprecision import BNNConfig, Int8Config
from fastcnn.methods.lowprecision.blocks import BinaryBlock

WIDTHS = (64, 128, 256, 512)
CONVOLUTIONS = 4
"""Of each width, one to a shortcut."""
BINARY = "blocks.*.conv"


class BinaryResNet18(nn.Module):
    """ResNet-18 with a shortcut round every 3 x 3 convolution, to be prepared by ``BNNConfig`` with ``layers=BINARY``.

    The first convolution, the 1 x 1 ones of three shortcuts and the last layer are for 8 bits. Input (N, 3, H, W).

    References
    ----------
    Liu et al. 2018 (Bi-Real net), arXiv:1808.00278.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.MaxPool2d(3, 2, 1)
        )
        blocks: list[nn.Module] = []
        before = WIDTHS[0]
        for width in WIDTHS:
            for _ in range(CONVOLUTIONS):
                stride = 1 if width == before else 2
                blocks.append(BinaryBlock(before, width, stride=stride, order="conv-first", shortcut=True))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        y: Tensor = self.last(self.pool(self.blocks(self.stem(x))).flatten(1))
        return y


def settled(shape: tuple[int, ...], *, seed: int = 0) -> nn.Module:
    """The net ready to be trained with binary convolutions, batch norms settled on random pictures; in eval mode."""
    from fastcnn.benchmarking.settle import settle

    torch.manual_seed(seed)
    model: Any = fastcnn.prepare(BinaryResNet18(), BNNConfig(), layers=BINARY)
    return settle(model, shape, seed=seed)


def packed(model: nn.Module, pictures: list[Tensor]) -> nn.Module:
    """The net of a training session as it is run: signs in bits, all other layers of 8 bits."""
    small: nn.Module = fastcnn.convert(fastcnn.convert(model), Int8Config(), data=pictures)
    return small
