"""The three passes by native kernels: float32 on the CPU, FFT tiles of 8 to 64 points and the Winograd forms there are.

Stride and dilation are taken apart first (:mod:`native_forms`), in torch; halves are computed in float32.
"""

from __future__ import annotations

import atexit
from collections.abc import Hashable
from functools import lru_cache

import torch
from torch import Tensor

from fastcnn import _native
from fastcnn.methods.transforms.convolution import scratch
from fastcnn.methods.transforms.convolution.counter import count
from fastcnn.methods.transforms.convolution.geometry import Geometry
from fastcnn.methods.transforms.convolution.native_footprint import NativeFootprint
from fastcnn.methods.transforms.convolution.native_forms import Correlation, lower
from fastcnn.methods.transforms.convolution.plain import empty, like, plain
from fastcnn.methods.transforms.convolution.settings import ConvSettings

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


IMAGES_PER_THREAD = 4
"""Images of a thread between two sums over images, in the backward pass. On one core of an AVX-512 Xeon 4 took 7 to
15 % less time than all of 16 or 32 images: their spectra stay in the caches.
"""


class NativePasses:
    """See :class:`passes.Passes`; made by :meth:`of`."""

    def __init__(
        self, correlation: Correlation, geometry: Geometry | None, x: Tensor, weight: Tensor, cap: int
    ) -> None:
        self._correlation = correlation
        self._geometry = geometry
        self._memory = cap
        self._threads = torch.get_num_threads()
        self._native = _native_object(correlation, self._threads)
        self._footprint = NativeFootprint.of(self._native, correlation, geometry, x, weight)

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, settings: ConvSettings) -> NativePasses | None:
        """Passes for a call, or None where native code does not serve it: dtype, device, form, too small a cap.

        Under a cap the best form that keeps it is taken.
        """
        if x.dtype not in DTYPES or x.device.type != "cpu" or weight.device.type != "cpu" or not x.numel():
            return None
        lowered = lower(tuple(x.shape), tuple(weight.shape), settings)
        for correlation in lowered.choices:
            passes = cls(correlation, lowered.geometry, x, weight, settings.memory)
            if passes._keeps_cap(kept=False):
                return passes
        return None

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        for_input: bool = False,
        for_weight: bool = False,
        kernel: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`passes.Passes.forward`; kept are the spectra of x for the weight and of the weight for x."""
        c, native = self._correlation, self._native
        keep = (for_input or for_weight) and self._keeps_cap(kept=True)
        own, kept_x, spectrum = self._take(
            self._footprint.forward_bytes(keep=keep),
            native.forward_scratch,
            c.images * native.input_floats if keep and for_weight else 0,
            native.filter_floats if kernel is None else 0,
        )
        if kernel is None:
            kernel = self._transform(weight, spectrum)
        y = empty(c.output_shape)
        inputs = self._lower_input(x)
        count("input", c.tiles * c.groups * c.channels)
        count("output", c.tiles * c.groups * c.filters)
        native.forward(
            inputs.numpy(),
            kernel.numpy(),
            y.numpy(),
            kept_x.numpy() if keep and for_weight else None,
            own.numpy(),
        )
        del inputs, own
        kept: tuple[Tensor, ...] = ()
        if keep:
            kept = (kept_x, kernel if for_input else empty((0,)))
            count("kept_bytes", sum(part.numel() * part.element_size() for part in kept))
        if self._geometry is not None:
            y = self._geometry.raise_output(y[:, :, None, None])
        return like(y, x), kept

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...], *, need_input: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See :meth:`passes.Passes.backward`."""
        c, native, size = self._correlation, self._native, self._footprint
        kept_x, kernel = (part if part.numel() else None for part in kept) if kept else (None, None)
        images = self._images_at_once(kept=kept_x is not None)
        own, spectrum = self._take(
            size.backward_bytes(images, kept=kept_x is not None),
            native.backward_scratch(images, kept_x is not None, need_input, need_weight),
            native.filter_floats if need_input and kernel is None else 0,
        )
        if need_input and kernel is None:
            kernel = self._transform(weight, spectrum)
        grads = self._lower_output(grad)
        inputs = self._lower_input(x) if need_weight and kept_x is None else None
        grad_x = empty(c.input_shape) if need_input else None
        grad_w = empty(c.weight_shape) if need_weight else None
        count("gradient", c.tiles * c.groups * c.filters)
        count("input_adjoint", c.tiles * c.groups * c.channels if need_input else 0)
        count("input", 0 if inputs is None else c.tiles * c.groups * c.channels)
        count("kernel_adjoint", c.groups * c.filters * c.channels if need_weight else 0)
        native.backward(
            grads.numpy(),
            None if inputs is None else inputs.numpy(),
            None if kept_x is None else kept_x.numpy(),
            None if kernel is None else kernel.numpy(),
            None if grad_x is None else grad_x.numpy(),
            None if grad_w is None else grad_w.numpy(),
            images,
            own.numpy(),
        )
        del grads, inputs, own
        if grad_x is not None:
            grad_x = like(grad_x if self._geometry is None else self._geometry.raise_input(grad_x), x)
        if grad_w is not None:
            plain_w = grad_w if self._geometry is None else self._geometry.raise_weight(grad_w)
            same = plain_w.dtype == weight.dtype and plain_w.is_contiguous()
            grad_w = plain_w if same else weight.new_empty(weight.shape).copy_(plain_w)
        return grad_x, grad_w

    @property
    def kernel_key(self) -> Hashable:
        """See :meth:`passes.Passes.kernel_key`."""
        c = self._correlation
        return "native", c.form, c.groups, c.weight_shape

    def kernel_spectrum(self, weight: Tensor) -> Tensor | None:
        """See :meth:`passes.Passes.kernel_spectrum`."""
        (spectrum,) = self._take(self._footprint.forward_bytes(keep=False), self._native.filter_floats)
        return self._transform(weight, spectrum)

    def _take(self, pass_bytes: int, *sizes: int) -> list[Tensor]:
        """Buffers of those sizes in floats; under a cap nothing stays idle beyond what the pass leaves of it."""
        idle = max(self._memory - pass_bytes, 0) if self._memory else None
        arrays = scratch.take([size for size in sizes if size], most_idle=idle)
        found = iter([torch.from_numpy(array)[:size] for array, size in zip(arrays, filter(None, sizes), strict=True)])
        return [next(found) if size else empty((0,)) for size in sizes]

    def _transform(self, weight: Tensor, spectrum: Tensor) -> Tensor:
        """Fill ``spectrum`` with the spectra of the filters."""
        c = self._correlation
        w = weight.detach() if self._geometry is None else self._geometry.lower_weight(weight.detach())
        count("kernel", c.groups * c.filters * c.channels)
        self._native.filters(plain(w).numpy(), spectrum.numpy())
        return spectrum

    def _lower_input(self, x: Tensor) -> Tensor:
        return plain(x if self._geometry is None else self._geometry.lower_input(x.detach()))

    def _lower_output(self, grad: Tensor) -> Tensor:
        return plain(grad if self._geometry is None else self._geometry.lower_output(grad.detach())[:, :, 0, 0])

    def _keeps_cap(self, *, kept: bool) -> bool:
        """Whether both passes keep the cap, with kept spectra or without, one image at a time if need be."""
        size = self._footprint
        return not self._memory or (
            max(size.forward_bytes(keep=kept), size.backward_bytes(1, kept=kept)) <= self._memory
        )

    def _images_at_once(self, *, kept: bool) -> int:
        images = min(self._correlation.images, IMAGES_PER_THREAD * self._threads)
        while self._memory and images > 1 and self._footprint.backward_bytes(images, kept=kept) > self._memory:
            images = -(-images // 2)
        return images


@lru_cache(maxsize=256)
def _native_object(c: Correlation, threads: int) -> _native.TilePasses:
    isa = str(_native.host()["isa_active"])
    return _native.TilePasses(
        isa, *c.form, c.images, c.groups, (c.channels, c.filters), c.size, c.out, c.kernel, c.padding, threads
    )


atexit.register(_native_object.cache_clear)  # before the interpreter takes the native module apart
