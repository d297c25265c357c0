"""The three passes in the transform domain, written in torch ops, on any device.

With X, K, D the spectra of input tiles, kernels and gradient tiles (``transforms``), per frequency and group:

    y = output(X K^T)        grad_x = input_adjoint(D conj K)        grad_w = kernel_adjoint(D^H X)

Three reuses make it pay: K is made once per mini-batch, X and D serve two products each, and the sums over channels,
filters, or images and tiles happen before *one* inverse transform per result.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor

from fastcnn.methods.transforms.convolution import scratch
from fastcnn.methods.transforms.convolution.chunks import Chunk, Footprint
from fastcnn.methods.transforms.convolution.counter import count
from fastcnn.methods.transforms.convolution.geometry import Geometry
from fastcnn.methods.transforms.convolution.settings import ConvSettings
from fastcnn.methods.transforms.convolution.spectra import SpectralDomain


class TorchPasses:
    """See :class:`passes.Passes`. Halves are computed in float32; a memory cap splits images and filters."""

    def __init__(self, geometry: Geometry, settings: ConvSettings, weight: Tensor) -> None:
        self._geometry = geometry
        self._algorithm = settings.algorithm
        self._memory = settings.memory
        self._domain = SpectralDomain(geometry, settings.algorithm, weight)
        self._footprint = Footprint.of(geometry, is_complex=self._domain.complex, item=self._domain.dtype.itemsize)

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        for_input: bool = False,
        for_weight: bool = False,
        kernel: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`passes.Passes.forward`; kept are X for the weight, K for the input, empty where not needed."""
        self._empty_pool(x)
        g, domain, size = self._geometry, self._domain, self._footprint
        y = empty_like_format(g.out_shape, x)
        if not y.numel():
            return y, ()
        chunk = size.forward(self._memory)
        if for_input or for_weight:
            size.backward(self._memory)  # a cap too small for it is reported now
        whole = chunk == Chunk(images=size.images, filters=size.filters)
        keep = (for_input or for_weight) and whole and size.kept_backward(self._memory) > 0
        kept: tuple[Tensor, ...] = ()
        target = torch.unflatten(y, 1, (g.groups, -1))
        with torch.autocast(x.device.type, enabled=False):
            for filters in _ranges(size.filters, chunk.filters):
                spectrum = domain.kernel(weight, filters) if kernel is None else kernel[:, filters]
                for images in _ranges(size.images, chunk.images):
                    rows = domain.input(x[images])
                    products = torch.bmm(rows, spectrum.mT)
                    if keep:
                        nothing = rows.new_empty(0)
                        kept = (rows if for_weight else nothing, spectrum if for_input else nothing)
                        count("kept_bytes", sum(part.numel() * part.element_size() for part in kept))
                    del rows
                    target[images, :, filters] = domain.output(products)
                    del products
        return y, kept

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        kept: tuple[Tensor, ...],
        *,
        need_input: bool,
        need_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """See :meth:`passes.Passes.backward`."""
        self._empty_pool(x)
        if not grad.numel():
            return torch.zeros_like(x) if need_input else None, torch.zeros_like(weight) if need_weight else None
        grad_x = empty_like_format(tuple(x.shape), x) if need_input else None
        grad_w = weight.new_empty(weight.shape) if need_weight else None
        with torch.autocast(grad.device.type, enabled=False):
            if kept:
                rows, kernel = (part if part.numel() else None for part in kept)
                if need_input and kernel is None:
                    kernel = self._domain.kernel(weight)
                images = self._footprint.kept_backward(self._memory)
                self._together(grad, x, rows, kernel, images, grad_x, grad_w)
                return grad_x, grad_w
            chunk = self._footprint.backward(self._memory)
            if chunk.filters == self._footprint.filters:
                kernel = self._domain.kernel(weight) if need_input else None
                self._together(grad, x, None, kernel, chunk.images, grad_x, grad_w)
            else:
                if grad_x is not None:
                    self._input_apart(grad, weight, chunk, grad_x)
                if grad_w is not None:
                    self._weight_apart(grad, x, chunk, grad_w)
        return grad_x, grad_w

    @property
    def kernel_key(self) -> Hashable:
        """See :meth:`passes.Passes.kernel_key`."""
        g = self._geometry
        return self._algorithm, g.groups, *((axis.tile, axis.stride) for axis in (g.rows, g.columns))

    def kernel_spectrum(self, weight: Tensor) -> Tensor | None:
        """K, shape (bins g, F / g, C / g); None where the memory cap leaves no room for all of it."""
        size = self._footprint
        if self._memory and size.forward_bytes(1, size.filters) > self._memory:
            return None
        with torch.autocast(weight.device.type, enabled=False):
            return self._domain.kernel(weight)

    def _empty_pool(self, x: Tensor) -> None:
        """What native passes left in their pool would come on top of a cap."""
        if self._memory and x.device.type == "cpu":
            scratch.release()

    def _together(
        self,
        grad: Tensor,
        x: Tensor,
        rows: Tensor | None,
        kernel: Tensor | None,
        images_at_once: int,
        grad_x: Tensor | None,
        grad_w: Tensor | None,
    ) -> None:
        """Both gradients with all filters at once: one D for the two."""
        domain, tiles = self._domain, self._geometry.tiles
        sums: Tensor | None = None
        for images in _ranges(self._footprint.images, images_at_once):
            conjugate = domain.gradient(grad[images]).conj().resolve_conj()
            if grad_w is not None:
                part = domain.input(x[images]) if rows is None else rows[:, images.start * tiles : images.stop * tiles]
                sums = _add_product(sums, conjugate.mT, part)
                del part
            if grad_x is not None:
                assert kernel is not None
                # D conj K, by whichever conjugate is the smaller.
                if conjugate.shape[1] < kernel.shape[1]:
                    products = torch.bmm(conjugate, kernel).conj_physical_()
                else:
                    products = torch.bmm(conjugate.conj(), kernel.conj())
                del conjugate
                grad_x[images] = domain.input_adjoint(products)
                del products
        if grad_w is not None:
            assert sums is not None
            torch.unflatten(grad_w, 0, (self._geometry.groups, -1)).copy_(domain.kernel_adjoint(sums))

    def _input_apart(self, grad: Tensor, weight: Tensor, chunk: Chunk, grad_x: Tensor) -> None:
        """Gradient of x, filters in turn: their products are summed before the inverse."""
        for images in _ranges(self._footprint.images, chunk.images):
            sums: Tensor | None = None
            for filters in _ranges(self._footprint.filters, chunk.filters):
                kernel = self._domain.kernel(weight, filters)
                sums = _add_product(sums, self._domain.gradient(grad[images], filters), kernel.conj())
                del kernel
            assert sums is not None
            grad_x[images] = self._domain.input_adjoint(sums)

    def _weight_apart(self, grad: Tensor, x: Tensor, chunk: Chunk, grad_w: Tensor) -> None:
        """Gradient of the weight, filters in turn: images are summed before the inverse."""
        target = torch.unflatten(grad_w, 0, (self._geometry.groups, -1))
        for filters in _ranges(self._footprint.filters, chunk.filters):
            sums: Tensor | None = None
            for images in _ranges(self._footprint.images, chunk.images):
                rows = self._domain.input(x[images])
                sums = _add_product(sums, self._domain.gradient(grad[images], filters).mH, rows)
                del rows
            assert sums is not None
            target[:, filters] = self._domain.kernel_adjoint(sums)


def _add_product(sums: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Left times right, added to ``sums`` in place where there is one."""
    return torch.bmm(left, right) if sums is None else sums.baddbmm_(left, right)


def _ranges(total: int, at_once: int) -> Iterator[slice]:
    for start in range(0, total, at_once):
        yield slice(start, min(start + at_once, total))


def empty_like_format(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Empty tensor of the dtype and device of ``like``, channels last if ``like`` is."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return torch.empty(
        shape,
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
