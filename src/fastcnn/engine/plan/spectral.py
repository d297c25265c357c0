"""Circulant and ACDC layers as the runtime's spectral step: a transform, a mix of its points, the transform back.

A real row of 2 M numbers is transformed as M complex ones, z[j] = v[2 j] + i v[2 j + 1]. With w = exp(-i pi / M) and
m[k] = conj(Z[M - k]), the transform of v is V[k] = a z[k] + b m[k] and V[k + M] = b z[k] + a m[k], where
a = (1 - i w^k) / 2 and b = (1 + i w^k) / 2 (even and odd numbers apart, Cooley and Tukey 1965). What a layer does to a
spectrum is Y[k] = s[k] V[k] + t[k] conj(V[k]) + e[k]:

- circulant: s is the transform of its vector;
- ACDC: the cosine transform of x is the real part of exp(-i pi k / 2 N) V[k] for v = x[0], x[2], ... x[3], x[1]
  (Makhoul 1980), and minus the imaginary part is its value at N - k. A diagonal on both is
  s = (d[k] + d[N - k]) / 2, t = (d[k] - d[N - k]) / 2 exp(i pi k / N).

Z'[k] of the result is Y[k] conj(a) + Y[k + M] conj(b), so that everything between both transforms is one sum of four
products for each point, with factors that are known beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastcnn.engine.graph.graph import Array

Complex = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Spectral:
    """Arguments of the step: places read and written, scales and factors of every block.

    Parameters
    ----------
    gather : ndarray of int, shape (2 M,)
        Input that each number of the row comes from; 0 with a scale of 0 where there is none.
    place : ndarray of int, shape (outputs of a block,)
        Number of the row that each output is.
    factors : dict of str to ndarray, shape (blocks * 2 M,)
        ``scale``; ``alpha`` to ``epsilon`` as M real and M imaginary parts for each block.
    """

    gather: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    factors: dict[str, Array]


def circulant(vectors: Array, signs: Array, points: int) -> Spectral:
    """Of matrices C(v) D, v and D (q, d): exact at 2 points = d, else by a longer transform of 2 d - 1 or more."""
    pairs, length = vectors.shape
    row = 2 * points
    kernel = np.zeros((pairs, row))
    kernel[:, :length] = vectors
    if row != length:
        # Lags -1 ... 1 - d, from the end of the row backwards.
        kernel[:, row - (length - 1) :] = vectors[:, 1:]
    gather = np.zeros(row, np.int64)
    gather[:length] = np.arange(length)
    scale = np.zeros((pairs, row))
    scale[:, :length] = signs
    spectra = np.fft.fft(kernel)
    return Spectral(gather, np.arange(length), {"scale": _flat(scale), **_mix(spectra)})


def acdc(a: Array, d: Array, beta: Array | None, permutation: Array | None, inputs: int, outputs: int) -> Spectral:
    """Of one layer, a, d and beta (N,), fed by x[permutation]."""
    length = a.shape[0]
    order = np.concatenate((np.arange(0, length, 2), np.arange(1, length, 2)[::-1]))  # of v, in x
    source = order if permutation is None else np.asarray(permutation)[order]
    there = source < inputs
    place = np.empty(length, np.int64)
    place[order] = np.arange(length)
    k = np.arange(length)
    mirror = (length - k) % length
    turn = np.exp(1j * np.pi * k / (2 * length))
    d = d.astype(np.float64)
    s = (d + d[mirror]) / 2
    t = (d - d[mirror]) / 2 * turn**2
    s[0], t[0] = d[0], 0.0
    shift = None
    if beta is not None:
        b = beta.astype(np.float64)
        shift = turn * (b - 1j * b[mirror]) / math.sqrt(2 / length)
        shift[0] = b[0] / math.sqrt(1 / length)
    factors = _mix(s[None].astype(np.complex128), t[None], None if shift is None else shift[None])
    scale = np.where(there, a[order], 0.0)
    return Spectral(np.where(there, source, 0), place[:outputs], {"scale": _flat(scale), **factors})


def _mix(s: Complex, t: Complex | None = None, e: Complex | None = None) -> dict[str, Array]:
    """Factors of every point, the transforms' 1 / M among them."""
    points = s.shape[1] // 2
    turn = 1j * np.exp(-1j * np.pi * np.arange(points) / points)
    a, b = (1 - turn) / 2, (1 + turn) / 2
    left, right = a.conj() / points, b.conj() / points
    s0, s1 = s[:, :points], s[:, points:]
    found = {"alpha": left * s0 * a + right * s1 * b, "beta": left * s0 * b + right * s1 * a}
    if t is not None:
        t0, t1 = t[:, :points], t[:, points:]
        found["gamma"] = left * t0 * a.conj() + right * t1 * b.conj()
        found["delta"] = left * t0 * b.conj() + right * t1 * a.conj()
    if e is not None:
        found["epsilon"] = left * e[:, :points] + right * e[:, points:]
    return {role: _flat(np.concatenate((value.real, value.imag), axis=1)) for role, value in found.items()}


def _flat(values: npt.NDArray[np.float64]) -> Array:
    return np.ascontiguousarray(values.reshape(-1), np.float32)
