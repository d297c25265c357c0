"""What F(m, r) loses in float32: measured on random tiles, and figures computed from its matrices alone.

For inputs and taps that are independent, of mean zero and of one size, the products ``(G g)_j (B^T d)_j`` are larger
than the outputs they sum to, and their rounding errors stay when they cancel. How much larger, in the mean square, is
the *growth* of a form; the root mean square error of one axis is about ``growth * 2^-24`` of the outputs, that of
images about ``growth_rows * growth_columns * 2^-24``. Direct correlation has growth 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.winograd.matrices import WinogradMatrices
from fastcnn.methods.transforms.winograd.points import check_count

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class FormError:
    """Errors of float32 arithmetic against float64, all relative to the outputs of the same kind.

    Parameters
    ----------
    max_1d, max_2d : float
        ``max|y - y64| / max|y64|`` over all tiles, of lines and of images.
    rms_1d, rms_2d : float
        The same of root mean squares: the steadier figure for comparing two forms.
    """

    max_1d: float
    rms_1d: float
    max_2d: float
    rms_2d: float


@dataclass(frozen=True, kw_only=True)
class FormBounds:
    """What the matrices say about the error, nothing measured.

    Parameters
    ----------
    growth : float
        ``sqrt(mean_i sum_j A^T[i,j]^2 |G_j|^2 |B^T_j|^2 / r)``, with the Euclidean norms of rows j; the same for every
        scaling of the rows.
    norm_product : float
        ``|A^T|_1 |G|_F |B^T|_F`` of the balanced matrices. The error of a tile's outputs, in the 1-norm, is at most
        this times ``|g|_2 |d|_2`` times the unit roundoff times the number of roundings on a path (to first order).
    condition : float
        Condition number, in the 2-norm, of evaluation at the points (Vandermonde, with a last row for infinity), whose
        inverse interpolates.
    nonzeros : int
        Entries of A^T and B^T that are not zero: instructions of one pass of the tile transforms, where a coefficient
        of one costs an addition and any other a multiply-add.
    """

    growth: float
    norm_product: float
    condition: float
    nonzeros: int


def measure_form(matrices: WinogradMatrices, *, trials: int = 2000, seed: int = 0) -> FormError:
    """Run random tiles through the form in float32 and compare them with plain correlation in float64.

    Tiles and taps are uniform in [-1, 1]. Kernels are transformed in float64 and rounded once, as the engine does.
    Forms of the same m and r meet the same numbers under the same seed, whatever their points.

    Parameters
    ----------
    matrices : WinogradMatrices
        Used along both axes of images.
    trials : int
        Tiles, each with a kernel of its own; at least 1.
    seed : int
        At least 0.

    Raises
    ------
    TypeError, ValueError
        If ``trials`` or ``seed`` is no integer or too small.
    """
    check_count("trials", trials)
    check_count("seed", seed, 0)
    rng = np.random.default_rng(seed)
    m, r = matrices.m, matrices.r
    tile = m + r - 1
    images = rng.uniform(-1, 1, (trials, tile, tile)).astype(np.float32)
    kernels = rng.uniform(-1, 1, (trials, r, r)).astype(np.float32)
    a_t, _, b_t = matrices.arrays(np.float32)
    g = matrices.arrays(np.float64)[1]

    lines, taps = images[:, :1], kernels[:, :1]
    products = (taps @ g.T).astype(np.float32) * (lines @ b_t.T)
    max_1d, rms_1d = _errors(products @ a_t.T, _correlate(lines, taps))

    spectra = (g @ kernels @ g.T).astype(np.float32)
    outputs = a_t @ (spectra * (b_t @ images @ b_t.T)) @ a_t.T
    max_2d, rms_2d = _errors(outputs, _correlate(images, kernels))
    return FormError(max_1d=max_1d, rms_1d=rms_1d, max_2d=max_2d, rms_2d=rms_2d)


def bound_form(matrices: WinogradMatrices) -> FormBounds:
    """Compute what the matrices say of a form.

    References
    ----------
    Barabasz et al. 2018, arXiv:1803.10986, for norm product and condition. The growth is our own: their bounds are
    of the worst case, and rank sets of points less well.
    """
    a_t, g, b_t = matrices.arrays()
    terms = (a_t**2) @ ((g**2).sum(1) * (b_t**2).sum(1))
    balanced = 2.0 ** np.round(np.log2(np.abs(b_t).max(1) / np.abs(g).max(1)) / 2)
    g, b_t = g * balanced[:, None], b_t / balanced[:, None]
    count = len(matrices.points)
    evaluation = np.zeros((count + 1, count + 1))
    evaluation[:count] = np.vander(np.array([float(p) for p in matrices.points]), count + 1, increasing=True)
    evaluation[count, count] = 1.0
    return FormBounds(
        growth=float(np.sqrt(terms.mean() / matrices.r)),
        norm_product=float(np.abs(a_t).sum(0).max() * np.linalg.norm(g) * np.linalg.norm(b_t)),
        condition=float(np.linalg.cond(evaluation)),
        nonzeros=int(np.count_nonzero(a_t) + np.count_nonzero(b_t)),
    )


def _correlate(tiles: Array, kernels: Array) -> Array:
    """Plain correlation in float64 of tiles (N, H, W) with kernels (N, R, S), each with its own."""
    height, width = (t - k + 1 for t, k in zip(tiles.shape[1:], kernels.shape[1:], strict=True))
    total = np.zeros((len(tiles), height, width))
    for i in range(kernels.shape[1]):
        for j in range(kernels.shape[2]):
            part = tiles[:, i : i + height, j : j + width].astype(np.float64)
            total += part * kernels[:, i, j, None, None].astype(np.float64)
    return total


def _errors(outputs: Array, exact: Array) -> tuple[float, float]:
    """Largest and root mean square error, each relative to the exact outputs' own."""
    difference = outputs.astype(np.float64) - exact
    return (
        float(np.abs(difference).max() / np.abs(exact).max()),
        float(np.sqrt((difference**2).mean() / (exact**2).mean())),
    )
