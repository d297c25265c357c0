"""The three passes by native kernels: float32 on the CPU, FFT tiles of 8 to 64 points and the Winograd forms there are.

Stride and dilation are taken apart as in :mod:`geometry`, with one tile over the whole map; what remains is a plain
correlation, which native code cuts into its own tiles. Halves are computed in float32.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from fastcnn import _native
from fastcnn.methods.transforms.convolution import scratch
from fastcnn.methods.transforms.convolution.counter import count
from fastcnn.methods.transforms.convolution.geometry import Axis, Geometry
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, ConvSettings, winograd_step
from fastcnn.methods.transforms.convolution.torch_passes import empty_like_format

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

PRODUCTS_PER_S, VECTORS_PER_S, BYTES_PER_S = 60e9, 1.2e9, 12e9
"""Of one core, about, on which the choice of an FFT's tile rests: multiply-adds, vector operations, spectra."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A plain correlation and the form that carries it out; hashable, so that its native object is made once."""

    form: tuple[str, int]
    images: int
    groups: int
    channels: int
    filters: int
    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    padding: tuple[int, int]


class NativePasses:
    """See :class:`passes.Passes`."""

    def __init__(self, correlation: Correlation, lowered: Geometry | None, out: tuple[int, int, int, int]) -> None:
        self._correlation = correlation
        self._lowered = lowered
        self._out = out
        self._native = _native_object(correlation, torch.get_num_threads())
        self._memory = 0

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, settings: ConvSettings) -> NativePasses | None:
        """Passes for a call, or None where native code does not serve it (dtype, device, form, or too small a cap)."""
        if x.dtype not in DTYPES or x.device.type != "cpu" or weight.device.type != "cpu" or not x.numel():
            return None
        found = _correlation(tuple(x.shape), tuple(weight.shape), settings)
        if found is None:
            return None
        passes = cls(*found)
        passes._memory = settings.memory
        if settings.memory and max(passes._forward_bytes(keep=False), passes._backward_bytes(1)) > settings.memory:
            return None
        return passes

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
        spectrum = self._spectrum(weight) if kernel is None else kernel
        keep = (for_input or for_weight) and self._may_keep()
        kept_x = _floats(c.images * native.input_floats) if keep and for_weight else None
        y = torch.empty((c.images, c.groups * c.filters, *c.out))
        own = scratch.take(native.forward_scratch)
        count("input", self._tiles * c.groups * c.channels)
        count("output", self._tiles * c.groups * c.filters)
        native.forward(
            self._lower(x).numpy(),
            spectrum.numpy(),
            y.numpy(),
            None if kept_x is None else kept_x.numpy(),
            own,
        )
        kept: tuple[Tensor, ...] = ()
        if keep:
            nothing = torch.empty(0)
            kept = (nothing if kept_x is None else kept_x, spectrum if for_input else nothing)
            count("kept_bytes", sum(part.numel() * part.element_size() for part in kept))
        return self._raise_output(y, x), kept

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...], *, need_input: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See :meth:`passes.Passes.backward`."""
        c, native = self._correlation, self._native
        kept_x, spectrum = (part if part.numel() else None for part in kept) if kept else (None, None)
        if need_input and spectrum is None:
            spectrum = self._spectrum(weight)
        images = self._images_at_once(kept_x is not None)
        inputs = self._lower(x)
        grad_x = torch.empty(inputs.shape) if need_input else None
        grad_w = torch.empty((c.groups * c.filters, c.channels, *c.kernel)) if need_weight else None
        own = scratch.take(native.backward_scratch(images, kept_x is not None, need_input, need_weight))
        count("gradient", self._tiles * c.groups * c.filters)
        count("input_adjoint", self._tiles * c.groups * c.channels if need_input else 0)
        count("input", 0 if kept_x is not None or not need_weight else self._tiles * c.groups * c.channels)
        count("kernel_adjoint", c.groups * c.filters * c.channels if need_weight else 0)
        native.backward(
            self._lower_output(grad).numpy(),
            inputs.numpy(),
            None if kept_x is None else kept_x.numpy(),
            None if spectrum is None else spectrum.numpy(),
            None if grad_x is None else grad_x.numpy(),
            None if grad_w is None else grad_w.numpy(),
            images,
            own,
        )
        return (
            None if grad_x is None else self._raise_input(grad_x, x),
            None if grad_w is None else self._raise_weight(grad_w).to(weight.dtype),
        )

    @property
    def kernel_key(self) -> Hashable:
        """See :meth:`passes.Passes.kernel_key`."""
        c = self._correlation
        return "native", c.form, c.groups, c.kernel

    def kernel_spectrum(self, weight: Tensor) -> Tensor | None:
        """See :meth:`passes.Passes.kernel_spectrum`."""
        return self._spectrum(weight)

    @property
    def _tiles(self) -> int:
        c = self._correlation
        return c.images * math.prod(_tiles_along(c.form, c.out[i], c.kernel[i]) for i in (0, 1))

    def _spectrum(self, weight: Tensor) -> Tensor:
        c = self._correlation
        w = weight.detach().float()
        if self._lowered is not None:
            w = self._lowered.lower_weight(w)
        spectrum = _floats(self._native.filter_floats)
        count("kernel", c.groups * c.filters * c.channels)
        self._native.filters(w.contiguous().numpy(), spectrum.numpy())
        return spectrum

    def _forward_bytes(self, *, keep: bool) -> int:
        kept = self._correlation.images * self._native.input_floats if keep else 0
        return 4 * int(kept + self._native.filter_floats + self._native.forward_scratch)

    def _backward_bytes(self, images: int, *, kept: bool = False) -> int:
        held = self._correlation.images * self._native.input_floats if kept else 0
        return 4 * int(held + self._native.filter_floats + self._native.backward_scratch(images, kept, True, True))

    def _may_keep(self) -> bool:
        return (
            not self._memory or max(self._forward_bytes(keep=True), self._backward_bytes(1, kept=True)) <= self._memory
        )

    def _images_at_once(self, kept: bool) -> int:
        images = self._correlation.images
        while self._memory and images > 1 and self._backward_bytes(images, kept=kept) > self._memory:
            images = -(-images // 2)
        return images

    def _lower(self, x: Tensor) -> Tensor:
        plain = x.detach().float()
        return (plain if self._lowered is None else self._lowered.lower_input(plain)).contiguous()

    def _raise_input(self, grad: Tensor, like: Tensor) -> Tensor:
        return _as(grad if self._lowered is None else self._lowered.raise_input(grad), like)

    def _raise_weight(self, grad: Tensor) -> Tensor:
        return grad if self._lowered is None else self._lowered.raise_weight(grad)

    def _lower_output(self, grad: Tensor) -> Tensor:
        plain = grad.detach().float()
        return (plain if self._lowered is None else self._lowered.lower_output(plain)[:, :, 0, 0]).contiguous()

    def _raise_output(self, y: Tensor, like: Tensor) -> Tensor:
        return _as(y if self._lowered is None else self._lowered.raise_output(y[:, :, None, None]), like)


def _as(value: Tensor, like: Tensor) -> Tensor:
    """Dtype and memory format of ``like``."""
    if value.dtype == like.dtype and value.is_contiguous() and like.is_contiguous():
        return value
    return empty_like_format(tuple(value.shape), like).copy_(value)


def _floats(number: int) -> Tensor:
    return torch.from_numpy(scratch.take(int(number)))[: int(number)]


@lru_cache(maxsize=256)
def _native_object(c: Correlation, threads: int) -> _native.TilePasses:
    isa = str(_native.host()["isa_active"])
    return _native.TilePasses(
        isa, *c.form, c.images, c.groups, (c.channels, c.filters), c.size, c.out, c.kernel, c.padding, threads
    )


atexit.register(_native_object.cache_clear)  # before the interpreter takes the native module apart


@lru_cache(maxsize=4096)
def _correlation(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], settings: ConvSettings
) -> tuple[Correlation, Geometry | None, tuple[int, int, int, int]] | None:
    """Reduce a call; None where there is no native form for it."""
    axes = []
    for i in (0, 1):
        if settings.stride[i] > 1 and settings.dilation[i] > 1:
            return None
        axis = Axis(
            size=x_shape[2 + i], kernel=weight_shape[2 + i], stride=settings.stride[i], padding=settings.padding[i],
            dilation=settings.dilation[i], tile=weight_shape[2 + i],
        )  # fmt: skip
        if axis.out < 1:
            return None
        axes.append(replace(axis, tile=axis.needed + axis.taps - 1))
    whole = Geometry(
        batch=x_shape[0], channels=x_shape[1], filters=weight_shape[0], groups=settings.groups, rows=axes[0],
        columns=axes[1],
    )  # fmt: skip
    plain = whole.fold == whole.phases == 1
    shape = Correlation(
        form=("", 0),
        images=whole.batch * whole.phases,
        groups=whole.groups,
        channels=whole.channels * whole.fold // whole.groups,
        filters=whole.filters // whole.groups,
        size=(x_shape[2], x_shape[3]) if plain else (axes[0].span, axes[1].span),
        out=(axes[0].needed, axes[1].needed),
        kernel=(axes[0].taps, axes[1].taps),
        padding=settings.padding if plain else (0, 0),
    )
    form = _winograd_form(shape, settings.size) if settings.algorithm == "winograd" else _fft_form(shape, settings.size)
    return None if form is None else (replace(shape, form=form), None if plain else whole, whole.out_shape)


def _winograd_form(c: Correlation, size: int) -> tuple[str, int] | None:
    taps = max(c.kernel)
    m = winograd_step(taps) if size == AUTO else size
    known = {(int(form[0]), tuple(form[1:])) for form in _native.winograd_forms(str(_native.host()["isa_active"]))}
    return ("winograd", m) if taps > 1 and (m, c.kernel) in known else None


def _fft_form(c: Correlation, size: int) -> tuple[str, int] | None:
    sizes = [int(one) for one in _native.fft_sizes(str(_native.host()["isa_active"]))]
    if size == FULL:
        least = max(c.out[i] + c.kernel[i] - 1 for i in (0, 1))
        return next((("fft", one) for one in sizes if one >= least), None)
    fitting = [one for one in sizes if one >= max(c.kernel) and size in (AUTO, one)]
    return ("fft", min(fitting, key=lambda one: _seconds(c, one))) if fitting else None


def _tiles_along(form: tuple[str, int], out: int, kernel: int) -> int:
    op, size = form
    if op == "winograd":
        return -(-out // (size if kernel > 1 else 1))
    return -(-out // (size - kernel + 1))


def _seconds(c: Correlation, tile: int) -> float:
    """Time of the three passes by FFT, about: products, transforms, and spectra written and read."""
    tiles = c.images * math.prod(_tiles_along(("fft", tile), c.out[i], c.kernel[i]) for i in (0, 1))
    numbers = 3 * tile * tile // 2 - 2  # real products of a tile (native/kernels/fft)
    maps = tiles * (c.channels + c.filters)
    pairs = c.channels * c.filters
    products = 3 * tiles * numbers * pairs
    vectors = 3 * (maps + 2 * pairs) / 16 * (4 * math.log2(tile) + 6) * tile * tile
    moved = 4 * numbers * (3 * maps + 6 * pairs)
    return c.groups * (products / PRODUCTS_PER_S + vectors / VECTORS_PER_S + moved / BYTES_PER_S)
