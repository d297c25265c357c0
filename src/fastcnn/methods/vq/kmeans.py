"""k-means on the line: Lloyd to convergence on sorted values, or the exact optimum by dynamic programming.

Values are reduced to distinct ones with counts; clusters are then intervals, so one Lloyd step is a
binary search per boundary and a difference of prefix sums (all float64). Deterministic; ties go to the
lower centroid; an empty cluster is refilled by splitting the interval of largest error, so the loss never rises.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Init = Literal["linear", "quantile", "random"]

_DP_CELLS = 1 << 28
"""Limit of clusters x distinct values for the dynamic programme: 1 GiB of back pointers."""


class _Line:
    """Distinct values with counts, and the prefix sums that give any interval's mean and error."""

    def __init__(self, values: F64) -> None:
        self.distinct, counts = np.unique(values, return_counts=True)
        # Centring keeps the prefix sums of squares free of cancellation.
        self.centre = float(values.mean())
        x = self.distinct - self.centre
        w = counts.astype(np.float64)
        self.weight: F64 = np.concatenate(([0.0], np.cumsum(w)))
        self.first: F64 = np.concatenate(([0.0], np.cumsum(w * x)))
        self.second: F64 = np.concatenate(([0.0], np.cumsum(w * x * x)))

    def __len__(self) -> int:
        return len(self.distinct)

    def means(self, bounds: I64) -> F64:
        """Means of the (non-empty) intervals between consecutive bounds, strictly ascending.

        Kept within their interval: values much closer to each other than to the centre would else share one mean.
        """
        raw = np.diff(self.first[bounds]) / np.diff(self.weight[bounds]) + self.centre
        return np.clip(raw, self.distinct[bounds[:-1]], self.distinct[bounds[1:] - 1])

    def errors(self, low: I64, high: I64) -> F64:
        """Sum of squared distances to the mean over distinct[low:high], element-wise; 0 for empty intervals."""
        w = self.weight[high] - self.weight[low]
        s = self.first[high] - self.first[low]
        q = self.second[high] - self.second[low]
        return np.maximum(q - s * s / np.where(w > 0, w, 1.0), 0.0)


def kmeans_1d(
    values: npt.ArrayLike,
    clusters: int,
    *,
    algorithm: Literal["lloyd", "optimal"] = "lloyd",
    init: Init = "linear",
    seed: int = 0,
    max_iterations: int = 1000,
) -> tuple[F64, I64]:
    """Cluster numbers on the line.

    Parameters
    ----------
    values : array of finite numbers, any shape, not empty
    clusters : int
        Wanted number; capped at the number of distinct values, where coding is lossless.
    algorithm : {"lloyd", "optimal"}
        Lloyd's iteration to convergence, or the global optimum (time O(k n log n) in distinct values n).
    init : {"linear", "quantile", "random"}
        Where Lloyd starts. "linear", ``min + j (max - min) / (k - 1)``, keeps the rare large weights.
    seed : int
        For ``init="random"`` only.

    Returns
    -------
    codebook : float64, shape (k,), ascending
    codes : int64, shape of ``values``
        ``codebook[codes]`` is the nearest centroid, the lower one on a tie.

    Raises
    ------
    ValueError
        For an empty or non-finite input, ``clusters`` below 1, or a problem too large for "optimal".

    References
    ----------
    Han, Mao and Dally 2016, arXiv:1510.00149, section 3 (linear initialisation); Wang and Song 2011
    (Ckmeans.1d.dp). Differs: the programme is solved by divide and conquer.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("values is empty: k-means needs at least one number")
    if not np.isfinite(array).all():
        raise ValueError("values holds NaN or Inf: k-means needs finite numbers")
    if clusters < 1:
        raise ValueError(f"clusters={clusters} is out of range: it must be at least 1")
    line = _Line(array.ravel())
    k = min(clusters, len(line))
    if k == len(line):
        codebook = line.distinct.copy()
    elif algorithm == "optimal":
        codebook = line.means(_optimal_bounds(line, k))
    else:
        codebook = _lloyd(line, _start(line, k, init, seed), max_iterations)
    return codebook, assign(array, codebook)


def assign(values: F64, codebook: F64) -> I64:
    """Index of the nearest entry of an ascending codebook, the lower one on a tie."""
    middles = (codebook[1:] + codebook[:-1]) / 2
    return np.searchsorted(middles, values, side="left").astype(np.int64)


def _start(line: _Line, k: int, init: Init, seed: int) -> F64:
    if init == "linear":
        if k == 1:
            return np.array([line.centre])
        return np.linspace(float(line.distinct[0]), float(line.distinct[-1]), k)
    if init == "quantile":
        targets = (np.arange(k) + 0.5) / k * line.weight[-1]
        picks = np.searchsorted(line.weight[1:], targets, side="left")
        return np.asarray(line.distinct[np.minimum(picks, len(line) - 1)], dtype=np.float64)
    picks = np.random.default_rng(seed).choice(len(line), size=k, replace=False)
    return np.sort(line.distinct[picks]).astype(np.float64)


def _lloyd(line: _Line, centroids: F64, max_iterations: int) -> F64:
    k = len(centroids)
    bounds = np.empty(0, dtype=np.int64)
    for _ in range(max_iterations):
        middles = (centroids[1:] + centroids[:-1]) / 2
        # side="right": a value on the middle belongs to the lower cluster.
        inner = np.searchsorted(line.distinct, middles, side="right")
        fresh = _refill(line, np.concatenate(([0], inner, [len(line)])).astype(np.int64), k)
        if np.array_equal(fresh, bounds):
            break
        bounds = fresh
        centroids = line.means(bounds)
    return centroids


def _refill(line: _Line, bounds: I64, k: int) -> I64:
    """Drop empty intervals and split those of largest error at their mean until there are k again."""
    bounds = np.unique(bounds)
    while len(bounds) - 1 < k:
        errors = line.errors(bounds[:-1], bounds[1:])
        errors[np.diff(bounds) < 2] = -1.0
        worst = int(np.argmax(errors))
        low, high = int(bounds[worst]), int(bounds[worst + 1])
        mean = (line.first[high] - line.first[low]) / (line.weight[high] - line.weight[low]) + line.centre
        cut = low + int(np.searchsorted(line.distinct[low:high], mean, side="right"))
        bounds = np.insert(bounds, worst + 1, min(max(cut, low + 1), high - 1))
    return bounds


def _optimal_bounds(line: _Line, k: int) -> I64:
    """Bounds of the k intervals of least total error.

    ``D[j][i] = min_s D[j-1][s] + error(s, i)``; the best s does not fall as i grows, so each row is
    filled by halving: the middle of every open range first, all ranges of one level at once.
    """
    n = len(line)
    if k * n > _DP_CELLS:
        raise ValueError(
            f"algorithm='optimal' with {k} clusters and {n} distinct values needs too much memory "
            f"(limit {_DP_CELLS} cells): use algorithm='lloyd'"
        )
    ends = np.arange(n + 1, dtype=np.int64)
    best = line.errors(np.zeros(n + 1, dtype=np.int64), ends)
    best[0] = np.inf
    splits = np.zeros((k, n + 1), dtype=np.int32)
    for j in range(1, k):
        row = np.full(n + 1, np.inf)
        # Ranges [low, high] of ends still open, with the range [from_, to] their split must lie in.
        low, high = np.array([j + 1]), np.array([n])
        from_, to = np.array([j]), np.array([n - 1])
        while len(low):
            middle = (low + high) // 2
            last = np.minimum(to, middle - 1)
            sizes = last - from_ + 1
            starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
            candidates = np.arange(int(sizes.sum())) - np.repeat(starts - from_, sizes)
            cost = best[candidates] + line.errors(candidates, np.repeat(middle, sizes))
            least = np.minimum.reduceat(cost, starts)
            hits = np.flatnonzero(cost == np.repeat(least, sizes))
            chosen = candidates[hits[np.searchsorted(hits, starts)]]
            row[middle] = least
            splits[j, middle] = chosen
            low, high, from_, to = (
                np.concatenate((low, middle + 1)),
                np.concatenate((middle - 1, high)),
                np.concatenate((from_, chosen)),
                np.concatenate((chosen, to)),
            )
            open_ = low <= high
            low, high, from_, to = low[open_], high[open_], from_[open_], to[open_]
        best = row
    bounds = np.empty(k + 1, dtype=np.int64)
    bounds[k] = n
    for j in range(k - 1, 0, -1):
        bounds[j] = splits[j, bounds[j + 1]]
    bounds[0] = 0
    return bounds
