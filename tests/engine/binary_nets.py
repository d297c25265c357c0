"""Nodes of binary layers, for the engine's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.engine.graph import binary as ops
from tests.engine.nets import Maker


def signs(make: Maker, *shape: int) -> np.ndarray:
    return np.where(make.rng.random(shape) < 0.5, -1, 1).astype(np.float32)


def conv(
    make: Maker, x: str, channels: int, filters: int, kernel: tuple[int, int] = (3, 3), *, stride: Any = (1, 1),
    padding: Any = None, dilation: Any = (1, 1), groups: int = 1, planes: tuple[int, ...] = (1,), pad_value: int = 1,
    binarize: bool = True,
    **params: np.ndarray,
) -> str:  # fmt: skip
    kh, kw = kernel
    bits = ops.pack(signs(make, len(planes) * filters, channels // groups, kh, kw))
    return make.op(
        "binary_conv2d", x, params={"bits": bits, **params}, in_channels=channels, kernel_size=[kh, kw],
        stride=list(stride), padding=list(padding or (kh // 2, kw // 2, kh // 2, kw // 2)), dilation=list(dilation),
        groups=groups, planes=list(planes), binarize=binarize, pad_value=pad_value,
    )  # fmt: skip


def linear(make: Maker, x: str, inputs: int, outputs: int, **params: np.ndarray) -> str:
    bits = ops.pack(signs(make, outputs, inputs))
    return make.op("binary_linear", x, params={"bits": bits, **params}, in_features=inputs, planes=[1], binarize=True)


def batch_norm(make: Maker, x: str, channels: int, *, scale: np.ndarray | None = None) -> str:
    params = {
        "weight": make.normal(channels) if scale is None else scale,
        "bias": make.normal(channels),
        "running_mean": 4 * make.normal(channels),
        "running_var": np.exp(make.normal(channels)),
    }
    return make.op("batch_norm", x, params=params, eps=1e-5)
