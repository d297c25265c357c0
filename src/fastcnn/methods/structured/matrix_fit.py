"""Fit the parameters of a fast linear map to a matrix, by Adam: what maps without a closed-form projection share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastcnn.methods.contract import DeclinedError

RATE = 0.05
"""Adam's first step, for parameters of the order of 1; it falls to nothing along half a cosine."""
HEADROOM = 6.0
"""The fit starts this many times smaller than its target.

Most of a random start points the wrong way and has to go. From a start as large as the target, products of diagonals
first shrink into the flat region around zero, where they hardly learn; from a small one, those that help grow instead.
Of 1, 3, 6 and 12, with rates of 0.02, 0.05 and 0.1, this pair fitted random and smooth matrices best or nearly so.
"""
NUMBERS = 1 << 22
"""Images of unit vectors are taken this many numbers at a time."""


def unit_of(weight: Tensor, start: float, steps: int) -> float:
    """Return the number to divide W by before the fit, so that its steps suit weights of any size.

    Parameters
    ----------
    weight : Tensor
        W.
    start : float
        ``||C||_F`` where the fit starts, or what is expected there.
    steps : int
        Of the fit. Without any, W is made as large as the start, otherwise :data:`HEADROOM` times as large.

    Raises
    ------
    DeclinedError
        If W is zero.
    """
    norm = float(weight.detach().double().norm())
    if norm == 0:
        raise DeclinedError("every weight is zero: nothing to fit")
    return norm / (start * (HEADROOM if steps else 1.0))


def fit_matrix(
    parameters: Sequence[Tensor], apply: Callable[[Tensor], Tensor], weight: Tensor, steps: int, width: int
) -> None:
    """Lower ``||W - C||_F`` over the parameters, in place, and leave the best that was seen.

    Deterministic: no random numbers are drawn. Never worse than where it starts.

    Parameters
    ----------
    parameters : sequence of Tensor
        Leaves that require gradients, of the order of 1.
    apply : callable
        Rows x (R, I) to rows x C^T (R, O), differentiable in the parameters.
    weight : Tensor, shape (O, I)
        W.
    steps : int
        Of Adam.
    width : int
        Numbers that ``apply`` holds for a row; caps how many rows are taken at once.
    """
    rows = max(1, NUMBERS // width)
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    best, kept = math.inf, [parameter.detach().clone() for parameter in parameters]
    with torch.enable_grad():
        for step in range(steps + 1):
            optimizer.zero_grad()
            error = _accumulate(apply, weight, rows)
            if error < best:
                best, kept = error, [parameter.detach().clone() for parameter in parameters]
            if step < steps:
                optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
                optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)


def _accumulate(apply: Callable[[Tensor], Tensor], weight: Tensor, rows: int) -> float:
    """Return ``||W - C||_F^2`` and add its gradient to the parameters', some unit vectors at a time."""
    total = 0.0
    columns = weight.shape[1]
    for start in range(0, columns, rows):
        count = min(rows, columns - start)
        units = weight.new_zeros(count, columns)
        units.diagonal(offset=start).fill_(1)
        error = (apply(units) - weight[:, start : start + count].t()).square().sum()
        error.backward()  # type: ignore[no-untyped-call]  # torch's own
        total += float(error.detach())
    return total
