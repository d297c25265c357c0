"""What a layer takes on this machine: compiled alone by the engine, tuned, without changes of layout at its ends."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def layer_ms(layer: nn.Module, shape: tuple[int, ...], *, threads: int | None = None) -> float:
    """Milliseconds of a layer at an input shape, by the engine, at the default tolerance.

    The sum of what its steps take in the tuned net, each by the thread that works longest, over the runs that nothing
    disturbed: other work on the machine shows little in it.

    Parameters
    ----------
    layer : nn.Module
        Left alone; a copy of one on a GPU is timed on the CPU.
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

    if any(parameter.device.type != "cpu" for parameter in layer.parameters()):
        layer = copy.deepcopy(layer).cpu()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    training = {module: module.training for module in layer.modules()}
    try:
        net = compile(layer.eval(), x, threads=threads, strict=True)
    except NotSupportedError:
        return math.inf
    finally:
        for module, mode in training.items():
            module.training = mode
    return sum(step.ms or 0.0 for step in net.plan.steps if not step.kernel.startswith("relayout"))
