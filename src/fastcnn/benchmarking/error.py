"""The one definition of a net's error, used in every table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def relative_error(outputs: npt.NDArray[Any], exact: npt.NDArray[np.float64]) -> float:
    """Return max over pictures of ``max|y - y64| / max|y64|``, each maximum over one picture's outputs.

    Parameters
    ----------
    outputs : ndarray, shape (N, ...)
        What an engine gave.
    exact : ndarray of float64, shape (N, ...)
        The same net in float64 on the same pictures.

    Returns
    -------
    float
        Infinite if an output is not finite, or differs where the exact output is all zero.

    Raises
    ------
    ValueError
        If the shapes differ or there is no picture.
    """
    if outputs.shape != exact.shape:
        raise ValueError(f"outputs have shape {outputs.shape}, the float64 outputs {exact.shape}")
    if outputs.ndim < 1 or outputs.size == 0:
        raise ValueError(f"outputs of shape {outputs.shape} hold nothing to compare")
    y = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    y64 = np.asarray(exact, dtype=np.float64).reshape(len(outputs), -1)
    if not np.isfinite(y).all():
        return float("inf")
    difference, size = np.abs(y - y64).max(axis=1), np.abs(y64).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0, 0.0, difference / size)
    return float(ratio.max())
