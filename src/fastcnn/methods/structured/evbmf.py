"""Rank of a noisy matrix by empirical variational Bayes: the global analytic solution, noise variance included.

References
----------
Nakajima, Sugiyama, Babacan and Tomioka 2013, "Global Analytic Solution of Fully-observed Variational Bayesian Matrix
Factorization", JMLR 14, 1-37; used for Tucker ranks by Kim et al. 2015, arXiv:1511.06530.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

Array = npt.NDArray[np.float64]

_TAU = 2.5129
"""Zero of the function that bounds the singular values which the prior prunes, over sqrt(alpha)."""


def evbmf_rank(singular: Array, shape: tuple[int, int]) -> int:
    """Return how many singular values of a matrix stand out from noise.

    Parameters
    ----------
    singular : ndarray, shape (min(shape),)
        Singular values in descending order.
    shape : tuple of int
        Of the matrix.

    Returns
    -------
    int
        0 if the matrix looks like noise throughout.
    """
    short, long = min(shape), max(shape)
    if singular.shape != (short,):
        raise ValueError(f"singular must have shape ({short},) for a matrix of shape {shape}, got {singular.shape}")
    squares = np.asarray(singular, np.float64) ** 2
    total = float(squares.sum())
    if total == 0.0:
        return 0
    alpha = short / long
    tau = _TAU * math.sqrt(alpha)
    least = (1 + tau) * (1 + alpha / tau)  # of gamma^2 / (M sigma^2), to be kept
    # The noise lies between the mean square of what is surely noise and that of everything.
    surely = min(math.ceil(short / (1 + alpha)) - 1, short)
    rest = squares[surely:]
    low = max(float(squares[min(surely, short - 1)]) / (long * least), float(rest.mean()) / long if rest.size else 0.0)
    high = total / (short * long)
    if low >= high:
        variance = high
    else:
        variance = _least_free_energy(squares, long, alpha, least, low, high)
    return int(np.count_nonzero(squares > long * variance * least)) if variance > 0 else int((squares > 0).sum())


def _least_free_energy(squares: Array, long: int, alpha: float, least: float, low: float, high: float) -> float:
    """Noise variance of least free energy: a search over a grid in the logarithm, then Brent's within its best cell."""
    alive = squares[squares > 0]  # exact zeros say nothing about the noise, and have no logarithm

    def energy(log_variance: float) -> float:
        x = alive / (long * math.exp(log_variance))
        kept = x[x > least]
        tau = 0.5 * (kept - 1 - alpha + np.sqrt(np.maximum((kept - 1 - alpha) ** 2 - 4 * alpha, 0)))
        return float(np.sum(x - np.log(x)) + np.sum(np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau))

    low = max(low, high * 1e-12)
    grid = np.linspace(math.log(low), math.log(high), 64)
    values = [energy(float(at)) for at in grid]
    best = int(np.argmin(values))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    at = float(found.x) if float(found.fun) < values[best] else float(grid[best])
    return math.exp(at)
