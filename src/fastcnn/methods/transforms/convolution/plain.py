"""Tensors as native code reads and writes them: on the CPU, float32, contiguous, without autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.torch_passes import empty_like_format


def is_plain(value: Tensor) -> bool:
    """Whether native code can read it where it lies."""
    return value.dtype == torch.float32 and value.is_contiguous() and not value.is_neg()


def plain(value: Tensor) -> Tensor:
    """The values themselves, or one copy of them."""
    value = value.detach()
    return value if is_plain(value) else empty(tuple(value.shape)).copy_(value)


def empty(shape: tuple[int, ...]) -> Tensor:
    """Uninitialised, whatever torch's default dtype and device are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def like(value: Tensor, model: Tensor) -> Tensor:
    """Dtype and memory format of ``model``; the values themselves where they have both."""
    if value.dtype == model.dtype and value.is_contiguous() and model.is_contiguous():
        return value
    return empty_like_format(tuple(value.shape), model).copy_(value)
