"""Nodes of layers of 8 bits, for the engine's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.nets import Maker


def conv(
    make: Maker, x: str, channels: int, filters: int, kernel: tuple[int, int] = (3, 3), *, stride: Any = (1, 1),
    padding: Any = None, dilation: Any = (1, 1), groups: int = 1, factor: float = 4.0, zero: int = 100,
    extreme: bool = False, **params: np.ndarray,
) -> str:  # fmt: skip
    kh, kw = kernel
    shape = (filters, channels // groups, kh, kw)
    weight = make.rng.integers(-127, 128, shape).astype(np.int8)
    if extreme:
        weight[:] = np.where(np.arange(filters) % 2, 127, -127)[:, None, None, None]
    arrays = {"scale": scales(make, filters), **params}
    return make.op(
        "int8_conv2d", x, params={"weight": weight, **arrays}, stride=list(stride),
        padding=list(padding or (kh // 2, kw // 2, kh // 2, kw // 2)), dilation=list(dilation), groups=groups,
        factor=factor, zero=zero,
    )  # fmt: skip


def linear(make: Maker, x: str, inputs: int, outputs: int, *, factor: float = 4.0, zero: int = 100) -> str:
    weight = make.rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    params = {"weight": weight, "scale": scales(make, outputs), "bias": make.normal(outputs)}
    return make.op("int8_linear", x, params=params, factor=factor, zero=zero)


def scales(make: Maker, count: int) -> np.ndarray:
    """Small enough that sums come to some few units."""
    return (np.exp(make.normal(count)) / 4096).astype(np.float32)


def levels(make: Maker, x: str, *, factor: float = 4.0, zero: int = 100) -> str:
    return make.op("quantize", x, factor=factor, step=1 / factor, zero=zero, low=0, high=255)
