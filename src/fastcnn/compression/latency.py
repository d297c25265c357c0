"""What a layer takes on this machine: compiled alone by the engine, tuned, without changes of layout at its ends."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np
import torch
from torch import nn

_SECONDS = 0.15
"""Of timing for one layer, at least 5 calls."""


def layer_ms(layer: nn.Module, shape: tuple[int, ...], *, threads: int | None = None) -> float:
    """Milliseconds of a layer at an input shape, by the engine, at the default tolerance.

    Parameters
    ----------
    layer : nn.Module
        Left alone.
    shape : tuple of int
    threads : int, optional
        As in ``fastcnn.compile``.

    Returns
    -------
    float
        Infinity if the engine cannot run the layer whole.
    """
    from fastcnn.engine.api import compile
    from fastcnn.engine.capture.errors import NotSupportedError

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    training = {module: module.training for module in layer.modules()}
    try:
        net = compile(layer.eval(), x, threads=threads, strict=True)
    except NotSupportedError:
        return math.inf
    finally:
        for module, mode in training.items():
            module.training = mode
    array = x.numpy()
    whole = _median_ms(net, array)
    steps = net.plan.steps
    known = [(step.kernel.startswith("relayout"), step.ms or 0.0) for step in steps]
    total = sum(ms for _, ms in known)
    if not total:
        return whole
    # What the steps take in the chain is known from tuning; how the whole call divides among them, too.
    return whole * sum(ms for layout, ms in known if not layout) / total


def _median_ms(net: object, array: np.ndarray) -> float:
    assert callable(net)
    for _ in range(2):
        net(array)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        net(array)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
