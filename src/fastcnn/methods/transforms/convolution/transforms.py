"""The two transforms: Fourier (complex) and Cook-Toom, that is Winograd (real).

Each turns the correlation of a tile d (t x t) with a kernel g into products per frequency:
``y = output(input(d) * kernel(g))``, and offers the adjoint of each of the three maps. With ``conj`` (nothing for
real numbers), X = input(d), K = kernel(g) and D = gradient(dL/dy), the adjoint of ``output``:

    y = output(sum_c X K)      dL/dd = input_adjoint(sum_f D conj K)      dL/dg = kernel_adjoint(sum_n conj D X)

For Fourier, kernel(g) is the *conjugate* spectrum of the zero-padded kernel (a product with it is a correlation) and
the scale 1 / t^2 of the inverse transform is left in the inverses; each of the three lines has exactly one of them.
An axis with one tap is left alone.

``leading`` says which two axes of a tensor hold the tile: the last two (Fourier) or the first two (Winograd, where
the transform is a product with a small matrix from the left).
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.geometry import Axis
from fastcnn.methods.transforms.winograd import winograd_matrices


class Transform(Protocol):
    """What the passes ask of a transform."""

    leading: bool
    """Whether the tile's axes come first in what it takes and gives, instead of last."""
    bins: tuple[int, int]
    """Frequencies along the two axes."""
    complex: bool
    """Whether a frequency is a complex number."""

    def input(self, tiles: Tensor) -> Tensor:
        """t x t values to frequencies."""

    def kernel(self, taps: Tensor) -> Tensor:
        """Taps to frequencies."""

    def output(self, spectra: Tensor) -> Tensor:
        """Frequencies to m x m outputs."""

    def gradient(self, tiles: Tensor) -> Tensor:
        """Adjoint of ``output``: m x m values to frequencies."""

    def input_adjoint(self, spectra: Tensor) -> Tensor:
        """Adjoint of ``input``."""

    def kernel_adjoint(self, spectra: Tensor) -> Tensor:
        """Adjoint of ``kernel``."""


class FourierTransform:
    """Real FFT of tiles; one axis is halved by Hermitian symmetry.

    References
    ----------
    Mathieu, Henaff and LeCun 2013, arXiv:1312.5851.
    """

    leading = False

    def __init__(self, rows: Axis, columns: Axis) -> None:
        self._axes = (rows, columns)
        dims = [dim for dim, axis in zip((-2, -1), self._axes, strict=True) if axis.taps > 1]
        self._dims = dims
        self._lengths = [self._axes[dim].tile for dim in dims]
        bins = [rows.tile, columns.tile]
        if dims:
            # torch halves the last of the axes it is given.
            bins[dims[-1]] = bins[dims[-1]] // 2 + 1
        self.bins = (bins[0], bins[1])
        self.complex = bool(dims)

    def _forward(self, values: Tensor) -> Tensor:
        """Transform, zeros appended up to t."""
        return torch.fft.rfftn(values, s=self._lengths, dim=self._dims) if self._dims else values

    def _inverse(self, spectra: Tensor, rows: int, columns: int) -> Tensor:
        """Invert, then keep the first values of each axis."""
        values = torch.fft.irfftn(spectra, s=self._lengths, dim=self._dims) if self._dims else spectra
        return values[..., :rows, :columns]

    def input(self, tiles: Tensor) -> Tensor:
        """(..., t, t) to (..., bins)."""
        return self._forward(tiles)

    def kernel(self, taps: Tensor) -> Tensor:
        """(..., taps, taps) to (..., bins), conjugate."""
        return self._forward(taps).conj().resolve_conj()

    def output(self, spectra: Tensor) -> Tensor:
        """(..., bins) to (..., m, m): of t outputs of the cyclic correlation, m have not wrapped around."""
        return self._inverse(spectra, self._axes[0].step, self._axes[1].step)

    def gradient(self, tiles: Tensor) -> Tensor:
        """(..., m, m) to (..., bins)."""
        return self._forward(tiles)

    def input_adjoint(self, spectra: Tensor) -> Tensor:
        """(..., bins) to (..., t, t)."""
        return self._inverse(spectra, self._axes[0].tile, self._axes[1].tile)

    def kernel_adjoint(self, spectra: Tensor) -> Tensor:
        """(..., bins) to (..., taps, taps): the first lags."""
        return self._inverse(spectra, self._axes[0].taps, self._axes[1].taps)


class WinogradTransform:
    """Cook-Toom matrices of F(m, r), one set per axis, so that kernels need not be square.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device of the matrices, which are rounded once from exact fractions.

    References
    ----------
    Lavin and Gray 2016, arXiv:1509.09308, section 4; the adjoints are the transposed matrices.
    """

    leading = True
    complex = False

    def __init__(self, rows: Axis, columns: Axis, like: Tensor) -> None:
        self.bins = (rows.tile, columns.tile)
        self._sets = [_matrices(axis, like) for axis in (rows, columns)]

    def _apply(self, which: int, values: Tensor, adjoint: bool = False) -> Tensor:
        """(p, q, ...) to (p', q', ...): a matrix from the left along each of the first two axes."""
        rest = values.shape[2:]
        for axis in (0, 1):
            matrices = self._sets[axis]
            if matrices is None:
                continue
            matrix = matrices[which].t() if adjoint else matrices[which]
            if axis == 0:
                values = torch.mm(matrix, values.flatten(1)).view(-1, *values.shape[1:])
            else:
                # One small matrix for every row of frequencies, without a copy.
                small = matrix.expand(values.shape[0], *matrix.shape)
                values = torch.bmm(small, values.flatten(2)).view(values.shape[0], -1, *rest)
        return values

    def input(self, tiles: Tensor) -> Tensor:
        """B^T d B."""
        return self._apply(2, tiles)

    def kernel(self, taps: Tensor) -> Tensor:
        """G g G^T."""
        return self._apply(1, taps)

    def output(self, spectra: Tensor) -> Tensor:
        """A^T M A."""
        return self._apply(0, spectra)

    def gradient(self, tiles: Tensor) -> Tensor:
        """A D A^T."""
        return self._apply(0, tiles, adjoint=True)

    def input_adjoint(self, spectra: Tensor) -> Tensor:
        """B M B^T."""
        return self._apply(2, spectra, adjoint=True)

    def kernel_adjoint(self, spectra: Tensor) -> Tensor:
        """G^T M G."""
        return self._apply(1, spectra, adjoint=True)


def _matrices(axis: Axis, like: Tensor) -> list[Tensor] | None:
    """(A^T, G, B^T) of F(m, r) in the dtype of ``like``; None where one tap leaves the axis alone."""
    if axis.taps == 1:
        return None
    return [torch.from_numpy(matrix).to(like.device, like.dtype) for matrix in _arrays(axis.step, axis.taps)]


@cache
def _arrays(m: int, r: int) -> tuple[npt.NDArray[np.floating], ...]:
    """Float64 matrices; the exact fractions behind them take milliseconds to prove."""
    return winograd_matrices(m, r).arrays()
