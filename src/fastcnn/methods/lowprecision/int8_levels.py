"""Numbers of int8: levels of inputs between two ends, ends of what calibration sees, whole numbers of weights.

References
----------
Jacob et al. 2018, arXiv:1712.05877, section 2; a step for each output: Krishnamoorthi 2018, arXiv:1806.08342.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcnn.methods.contract import check_finite

BINS = 2048


@dataclass(frozen=True)
class Levels:
    """round(x * factor) + zero, 0 to 255, stand for (q - zero) / factor."""

    factor: float
    zero: int


def levels_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and zero of the levels from low to high, which include 0; of a range without extent those of +-1e-6.

    Parameters
    ----------
    low, high : Tensor, shape (), float64

    Returns
    -------
    factor, zero : Tensor, shape (), float64
        The factor is a number of float32, the zero a whole one from 0 to 255.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    narrow = high - low < 1e-12
    low, high = torch.where(narrow, -1e-6, low), torch.where(narrow, 1e-6, high)
    step = (high - low) / 255
    return (1 / step).float().double(), (-low / step).round().clamp(0, 255)


def levels_between(low: float, high: float) -> Levels:
    """:func:`levels_of` numbers."""
    factor, zero = levels_of(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64))
    return Levels(factor=float(factor), zero=int(zero))


class Histogram:
    """Counts of values in bins that widen by whole factors of two as larger ones come."""

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Count the values of a tensor.

        Raises
        ------
        ValueError
            If one is NaN or Inf.
        """
        x = x.detach().flatten().float()
        if x.numel() == 0:
            return
        most = float(x.abs().max())
        if not math.isfinite(most):
            raise ValueError("calibration inputs lead to NaN or Inf inside the net")
        if self.reach == 0.0:
            self.reach = most or 1e-12
        while most > self.reach:
            # Two bins become one, about the middle.
            pairs = self.counts.reshape(2, BINS // 4, 2).sum(2).flatten()
            self.counts = torch.zeros(BINS, dtype=torch.float64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
            self.reach *= 2
        self.counts += torch.histc(x, BINS, -self.reach, self.reach).double().cpu()

    def ends(self, percent: float) -> tuple[float, float]:
        """Least and largest value once so many percent are kept; edges of bins."""
        total = float(self.counts.sum())
        if total == 0:
            return 0.0, 0.0
        cut = total * (100.0 - percent) / 200.0
        upto = self.counts.cumsum(0)
        first = int(torch.searchsorted(upto, cut, right=True))
        last = int(torch.searchsorted(upto, total - cut, right=False))
        width = 2 * self.reach / BINS
        return -self.reach + first * width, -self.reach + (min(last, BINS - 1) + 1) * width


def weight_steps(weight: Tensor) -> Tensor:
    """Step of each output's whole numbers, (O,) in float64: max |W| / 127; 1 where all are 0."""
    steps = weight.detach().double().flatten(1).abs().amax(1) / 127
    return torch.where(steps > 0, steps, 1.0)


def whole_weight(weight: Tensor, steps: Tensor) -> Tensor:
    """Whole numbers -127 to 127 of a weight, in float64."""
    return (weight.detach().double() / over_outputs(steps, weight)).round().clamp(-127, 127)


def output_scale(steps: Tensor, factor: Tensor | float) -> Tensor:
    """What a whole number of each output's sums stands for, (O,) in float32."""
    return (steps.float().double() / factor).float()


def over_outputs(numbers: Tensor, weight: Tensor) -> Tensor:
    """A number of each output, in a shape that spreads it over the weight."""
    return numbers.reshape(-1, *[1] * (weight.dim() - 1))


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers -127 to 127 (int8) and the step of each output, max |W| / 127; 1 where all are 0.

    Raises
    ------
    ValueError
        If a weight is NaN or Inf.
    """
    check_finite(weight, "weight")
    steps = weight_steps(weight)
    return whole_weight(weight, steps).to(torch.int8), steps.float()
