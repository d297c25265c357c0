"""Into the transform domain and out of it, in the layout of the products.

Spectra are batches of matrices, one per frequency and group: input and gradient tiles (bins g, rows, channels) with a
row per tile of an image, kernels (bins g, F / g, C / g). C counts the channels after the polyphase split.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution.counter import count
from fastcnn.methods.transforms.convolution.geometry import Geometry
from fastcnn.methods.transforms.convolution.settings import Algorithm
from fastcnn.methods.transforms.convolution.transforms import FourierTransform, Transform, WinogradTransform

ALL = slice(None)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a tensor of this dtype is transformed in: halves in float32, others as they are."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class SpectralDomain:
    """Transforms of one geometry; every call counts in :mod:`counter`.

    Parameters
    ----------
    geometry : Geometry
    algorithm : {"fft", "winograd"}
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, geometry: Geometry, algorithm: Algorithm, like: Tensor) -> None:
        self._geometry = g = geometry
        self.dtype = compute_dtype(like.dtype)
        self._transform: Transform
        if algorithm == "fft":
            self._transform = FourierTransform(g.rows, g.columns)
        else:
            self._transform = WinogradTransform(g.rows, g.columns, like.new_empty((), dtype=self.dtype))
        self.complex = self._transform.complex

    def kernel(self, weight: Tensor, filters: slice = ALL) -> Tensor:
        """(F, C / g, kH, kW), some filters of each group -> (bins g, f, C / g)."""
        g = self._geometry
        chosen = torch.unflatten(weight, 0, (g.groups, -1))[:, filters].to(self.dtype)
        w = g.lower_weight(chosen.flatten(0, 1))
        count("kernel", w.shape[0] * w.shape[1])
        if self._transform.leading:
            spectra = self._transform.kernel(_front(w))
        else:
            spectra = _front(self._transform.kernel(w))
        return spectra.reshape(-1, chosen.shape[1], w.shape[1])

    def kernel_adjoint(self, sums: Tensor) -> Tensor:
        """(bins g, f, C / g) -> (g, f, C / g, kH, kW), one inverse per kernel."""
        g = self._geometry
        groups, filters, channels = g.groups, sums.shape[1], sums.shape[2]
        count("kernel_adjoint", groups * filters * channels)
        back = sums.view(*self._transform.bins, groups * filters, channels)
        if self._transform.leading:
            w = _back(self._transform.kernel_adjoint(back))
        else:
            w = self._transform.kernel_adjoint(_back(back))
        return torch.unflatten(g.raise_weight(w), 0, (groups, filters))

    def input(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (bins g, rows, C / g)."""
        tiles = self._geometry.cut(self._geometry.lower_input(x.to(self.dtype)))
        count("input", tiles.shape[:4].numel())
        return self._rows(tiles, gradient=False)

    def gradient(self, grad: Tensor, filters: slice = ALL) -> Tensor:
        """(n, F, Ho, Wo), some filters of each group -> (bins g, rows, f)."""
        chosen = torch.unflatten(grad, 1, (self._geometry.groups, -1))[:, :, filters].flatten(1, 2)
        tiles = self._geometry.lower_output(chosen.to(self.dtype))
        count("gradient", tiles.shape[:4].numel())
        return self._rows(tiles, gradient=True)

    def output(self, products: Tensor) -> Tensor:
        """(bins g, rows, f) -> (n, g, f, Ho, Wo)."""
        y = self._geometry.raise_output(self._tiles(products, gradient=False))
        return torch.unflatten(y, 1, (self._geometry.groups, -1))

    def input_adjoint(self, sums: Tensor) -> Tensor:
        """(bins g, rows, C / g) -> (n, C, H, W); tiles are added where they overlap."""
        return self._geometry.raise_input(self._geometry.paste(self._tiles(sums, gradient=True)))

    def _rows(self, tiles: Tensor, *, gradient: bool) -> Tensor:
        """(i, C, count, count, ., .) -> (bins g, rows, C / g)."""
        transform = self._transform.gradient if gradient else self._transform.input
        leading, groups, channels = self._transform.leading, self._geometry.groups, tiles.shape[1]
        spectra = tiles if leading else transform(tiles)
        if groups == 1 and tiles.shape[2:4].numel() == 1:
            spectra = _front(spectra)
        else:
            spectra = torch.unflatten(spectra, 1, (groups, -1)).permute(5, 6, 1, 0, 3, 4, 2).contiguous()
        spectra = transform(spectra) if leading else spectra
        return spectra.reshape(math.prod(self._transform.bins) * groups, -1, channels // groups)

    def _tiles(self, rows: Tensor, *, gradient: bool) -> Tensor:
        """(bins g, rows, C / g) -> (i, C, count, count, ., .)."""
        g, leading = self._geometry, self._transform.leading
        inverse = self._transform.input_adjoint if gradient else self._transform.output
        count("input_adjoint" if gradient else "output", rows.shape[1] * rows.shape[2] * g.groups)
        tiles = rows.view(*self._transform.bins, g.groups, -1, g.rows.count, g.columns.count, rows.shape[2])
        tiles = inverse(tiles) if leading else tiles
        if g.groups == 1 and g.rows.count * g.columns.count == 1:
            tiles = _back(tiles[:, :, 0, :, 0, 0])[:, :, None, None]
        else:
            tiles = tiles.permute(3, 2, 6, 4, 5, 0, 1).flatten(1, 2)
        return tiles if leading else inverse(tiles)


def _front(values: Tensor) -> Tensor:
    """(..., p, q) -> (p, q, ...); as a transposed matrix, which is copied in blocks, unlike a permuted tensor."""
    *rest, p, q = values.shape
    return values.reshape(-1, p * q).t().contiguous().view(p, q, *rest)


def _back(values: Tensor) -> Tensor:
    """Inverse of :func:`_front`."""
    p, q, *rest = values.shape
    return values.reshape(p * q, -1).t().contiguous().view(*rest, p, q)
