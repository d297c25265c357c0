"""CIFAR-10 as the two nets take it, or SVHN in its place, and batches of it flipped and shifted at random."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.data import DataError, load_data
from fastcnn.methods.contract import check_count

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
"""Of red, green and blue in 0..1: those the published ResNet-20 was trained with."""
SHIFT = 4
"""Pixels by which a picture may be shifted, each way; what comes in is the mean colour."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Normalised pictures (N, 3, H, W), channels last, their labels (N,) and the hash of the pixels and labels."""

    inputs: Tensor
    labels: Tensor
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)


def is_svhn(place: Path | str) -> bool:
    """Whether a place is a DATA string for SVHN rather than a folder of CIFAR-10."""
    return str(place).startswith("svhn:")


def load_pictures(place: Path | str, split: Literal["train", "test"]) -> Pictures:
    """Read one part of CIFAR-10.

    Parameters
    ----------
    place : Path or str
        Its folder; or ``svhn:DIR`` for SVHN's digits, which are of the same size and normalised alike.
    split : {"train", "test"}

    Raises
    ------
    DataError
        If the folder is missing, its files are damaged, or the pictures have no labels.
    """
    data = load_data(str(place) if is_svhn(place) else f"cifar10:{place}", split=split)
    if not isinstance(data.images, np.ndarray) or data.labels is None:
        raise DataError(f"{data.name}: expected pictures in memory with labels")
    digest = hashlib.sha256(np.ascontiguousarray(data.images).tobytes())
    digest.update(data.labels.astype(np.uint8).tobytes())
    scaled = torch.from_numpy(data.images).float().div_(255).sub_(MEAN).div_(STD)
    return Pictures(inputs=scaled.permute(0, 3, 1, 2), labels=torch.from_numpy(data.labels), sha256=digest.hexdigest())


def evenly(pictures: Pictures, count: int) -> Tensor:
    """So many pictures (count, 3, H, W) from all over the set, which may be sorted by class."""
    return pictures.inputs[:: max(1, len(pictures) // count)][:count]


class ShiftedBatches:
    """Batches in a new order on every pass, each picture shifted by some pixels and mirrored half the time.

    Order, shifts and mirrors come from torch's generator alone, so that ``fastcnn.finetune`` can resume exactly.

    Parameters
    ----------
    pictures : Pictures
    batch_size : int
        The last batch may be short.
    mirror : bool
        Whether pictures are mirrored at all: digits must not be.
    shift : int
        Pixels at most, each way.
    around : float
        What comes in at the edge.
    """

    def __init__(
        self, pictures: Pictures, *, batch_size: int, mirror: bool = True, shift: int = SHIFT, around: float = 0.0
    ) -> None:
        check_count("batch_size", batch_size, 1)
        check_count("shift", shift, 0)
        self.mirror, self.shift = mirror, shift
        self.labels, self.batch_size = pictures.labels, batch_size
        self._height, self._width = pictures.inputs.shape[2:]
        padded = F.pad(pictures.inputs, (shift,) * 4, value=around)
        self._rows_first = padded.permute(0, 2, 3, 1).contiguous()

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, 3, H, W), channels last, and labels (B,)."""
        order = torch.randperm(len(self.labels))
        for start in range(0, len(order), self.batch_size):
            pick = order[start : start + self.batch_size]
            top, left = torch.randint(0, 2 * self.shift + 1, (2, len(pick), 1))
            mirrored = (torch.rand(len(pick), 1) < 0.5) & self.mirror
            across = torch.arange(self._width)
            rows = top + torch.arange(self._height)
            columns = left + torch.where(mirrored, across.flip(0), across)
            batch = self._rows_first[pick[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield batch.permute(0, 3, 1, 2), self.labels[pick]
