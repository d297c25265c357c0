"""Random nets whose outputs depend on their inputs.

A freshly made net mostly answers with its bias: the same output for every picture, which hides errors. Kaiming
weights and batch-norm statistics from a few passes give activations of unit size and outputs that differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn


def random_pictures(count: int, shape: tuple[int, ...], *, seed: int) -> npt.NDArray[np.float32]:
    """Return (count, *shape) float32 pictures, smooth shapes under a little noise.

    White noise would not do: after a few poolings all of it looks alike.

    Parameters
    ----------
    count : int
    shape : tuple of int
        One batch (N, C, H, W).
    seed : int
    """
    rng = np.random.default_rng(seed)
    batch, channels, height, width = shape
    coarse = rng.standard_normal((count, batch, channels, 5, 5), dtype=np.float32)
    rows, columns = _interpolation(5, height), _interpolation(5, width)
    smooth = np.einsum("hi,kncij,wj->knchw", rows, coarse, columns, optimize=True)
    noise = rng.standard_normal((count, batch, channels, height, width), dtype=np.float32)
    return np.ascontiguousarray(smooth + np.float32(0.25) * noise, dtype=np.float32)


def settle(model: nn.Module, shape: tuple[int, ...], *, seed: int = 0, passes: int = 4) -> nn.Module:
    """Give ``model`` Kaiming weights and settled batch-norm statistics, in place; return it in eval mode.

    Parameters
    ----------
    model : nn.Module
    shape : tuple of int
        Input shape (N, C, H, W).
    seed : int
    passes : int
        Training-mode passes over random pictures whose statistics are averaged.

    References
    ----------
    He et al. 2015, arXiv:1502.01852 (initialisation).
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    norms: list[tuple[nn.modules.batchnorm._BatchNorm, float | None]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.01, generator=generator)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            norms.append((module, module.momentum))
            module.momentum = None
    model.eval()
    # Only batch norm goes into training mode: dropout would make the outcome depend on its draws.
    for norm, _ in norms:
        norm.train()
    pictures = random_pictures(passes, (max(2, shape[0]), *shape[1:]), seed=seed + 1)
    with torch.no_grad():
        for batch in pictures if norms else ():
            model(torch.from_numpy(batch))
    for norm, momentum in norms:
        norm.momentum = momentum
    return model.eval()


def input_dependence(outputs: npt.NDArray[np.float64]) -> float:
    """Largest difference between two pictures' outputs over the largest output: 0 if the input does not matter."""
    flat = outputs.reshape(outputs.shape[0] * outputs.shape[1], -1)
    if len(flat) < 2:
        return float("nan")
    size = float(np.abs(flat).max())
    return float((flat.max(axis=0) - flat.min(axis=0)).max() / size) if size else 0.0


def _interpolation(coarse: int, fine: int) -> npt.NDArray[np.float32]:
    """Matrix (fine, coarse) of linear interpolation."""
    position = np.linspace(0, coarse - 1, fine)
    low = np.minimum(position.astype(int), coarse - 2)
    matrix = np.zeros((fine, coarse), dtype=np.float32)
    matrix[np.arange(fine), low] = 1 - (position - low)
    matrix[np.arange(fine), low + 1] = position - low
    return matrix
