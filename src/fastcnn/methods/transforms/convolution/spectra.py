"""Into the transform domain and out of it, in the layout of the products.

Spectra are batches of matrices, one per frequency and group: input and gradient tiles (bins g, rows, channels) with a
row per tile of an image, kernels (bins g, C / g, F / g). C counts the channels after the polyphase split.
"""

from __future__ import annotations

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
        """(F, C / g, kH, kW), some filters of each group -> (bins g, C / g, f)."""
        g = self._geometry
        chosen = torch.unflatten(weight, 0, (g.groups, -1))[:, filters].to(self.dtype)
        w = torch.unflatten(g.lower_weight(chosen.flatten(0, 1)), 0, chosen.shape[:2])
        count("kernel", w.shape[0] * w.shape[1] * w.shape[2])
        if self._transform.leading:
            spectra = self._transform.kernel(w.permute(3, 4, 0, 2, 1).contiguous())
        else:
            spectra = self._transform.kernel(w).permute(3, 4, 0, 2, 1).contiguous()
        return spectra.flatten(0, 2)

    def kernel_adjoint(self, sums: Tensor) -> Tensor:
        """(bins g, C / g, f) -> (g, f, C / g, kH, kW), one inverse per kernel."""
        g = self._geometry
        back = sums.view(*self._transform.bins, g.groups, *sums.shape[1:])
        count("kernel_adjoint", g.groups * sums.shape[1] * sums.shape[2])
        if self._transform.leading:
            w = self._transform.kernel_adjoint(back).permute(2, 4, 3, 0, 1)
        else:
            w = self._transform.kernel_adjoint(back.permute(2, 4, 3, 0, 1))
        return torch.unflatten(g.raise_weight(w.flatten(0, 1)), 0, w.shape[:2])

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
        grouped = torch.unflatten(tiles, 1, (self._geometry.groups, -1))
        if self._transform.leading:
            spectra = transform(grouped.permute(5, 6, 1, 0, 3, 4, 2).contiguous())
        else:
            spectra = transform(grouped).permute(5, 6, 1, 0, 3, 4, 2).contiguous()
        return spectra.flatten(3, 5).flatten(0, 2)

    def _tiles(self, rows: Tensor, *, gradient: bool) -> Tensor:
        """(bins g, rows, C / g) -> (i, C, count, count, ., .)."""
        g = self._geometry
        inverse = self._transform.input_adjoint if gradient else self._transform.output
        back = rows.view(*self._transform.bins, g.groups, -1, g.rows.count, g.columns.count, rows.shape[2])
        count("input_adjoint" if gradient else "output", rows.shape[1] * rows.shape[2] * g.groups)
        if self._transform.leading:
            tiles = inverse(back).permute(3, 2, 6, 4, 5, 0, 1)
        else:
            tiles = inverse(back.permute(3, 2, 6, 4, 5, 0, 1))
        return tiles.flatten(1, 2)
