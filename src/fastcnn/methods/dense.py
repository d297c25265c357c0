"""Dense layers taken apart and put together again: what layers that stand for them share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """Two numbers of two, or of one that stands for both."""
    return values[0], values[-1]


def conv_arguments(layer: Any) -> dict[str, Any]:
    """Arguments of ``nn.Conv2d`` for another layer of this form; ``layer`` has them as attributes."""
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": pair(layer.kernel_size),
        "stride": pair(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else pair(layer.padding),
        "dilation": pair(layer.dilation),
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }


def linear_arguments(layer: Any) -> dict[str, Any]:
    """Arguments of ``nn.Linear`` for another layer of this form."""
    return {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias is not None,
    }


def rebuild_dense(layer: Any, weight: Tensor) -> nn.Conv2d | nn.Linear:
    """Return the dense layer with the arguments, bias and mode of ``layer`` and this weight.

    The weight may be in a wider dtype; the layer has that of ``layer``'s own parameters.
    """
    own = next(layer.parameters())
    factory: dict[str, Any] = {"device": own.device, "dtype": own.dtype}
    dense: nn.Conv2d | nn.Linear
    if hasattr(layer, "kernel_size"):
        dense = nn.Conv2d(**conv_arguments(layer), **factory)
    else:
        dense = nn.Linear(**linear_arguments(layer), **factory)
    with torch.no_grad():
        dense.weight.copy_(weight)
        dense.weight.requires_grad_(own.requires_grad)
        if layer.bias is not None and dense.bias is not None:
            dense.bias.copy_(layer.bias)
            dense.bias.requires_grad_(layer.bias.requires_grad)
    return dense.train(layer.training)
