"""What weights need in theory, in bits, from what they hold; no encoder is run.

Notation: n weights, z of them non-zero, b bits per value.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def position_bits(n: int, z: int) -> float:
    """Information content of which z of n weights are non-zero, ``n * H2(z / n)`` bits."""
    if z in (0, n):
        return 0.0
    density = z / n
    return -n * (density * math.log2(density) + (1 - density) * math.log2(1 - density))


def entropy_bits(codes: npt.NDArray[np.integer]) -> float:
    """Zero-order entropy of an integer array times its length, in bits.

    By the chain rule this is positions plus values: ``n H2(d) + z H(codes | non-zero)``.
    """
    if codes.size == 0:
        return 0.0
    counts = np.bincount(codes.ravel())
    counts = counts[counts > 0].astype(np.float64)
    return float(-(counts * np.log2(counts / codes.size)).sum())


def sparse_bits(n: int, z: int, value_bits: int = 32) -> float:
    """Smaller of dense storage and positions at their bound plus z values."""
    return min(float(n * value_bits), position_bits(n, z) + z * value_bits)


def relative_index_bits(flat: npt.NDArray[np.bool_], index_bits: int, value_bits: int) -> int:
    """Bits of Deep Compression's relative index with fillers, exactly.

    Every non-zero stores its gap (zeros before it) in ``index_bits``; a gap G costs ``G >> index_bits``
    filler entries, each a full entry with a zero value.

    References
    ----------
    Han, Mao and Dally 2016, arXiv:1510.00149, section 2.
    """
    places = np.flatnonzero(flat)
    gaps = np.diff(places, prepend=-1) - 1
    fillers = int((gaps >> index_bits).sum())
    return (index_bits + value_bits) * (len(places) + fillers)
