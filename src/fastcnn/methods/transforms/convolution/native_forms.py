"""Which native form carries out a call: plain correlations, forms that serve them, and the FFT's tile by arithmetic.

Stride and dilation are taken apart as in :mod:`geometry`, with one tile over the whole map; what remains is a plain
correlation, which native code cuts into its own tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from fastcnn import _native
from fastcnn.methods.transforms.convolution.geometry import Axis, Geometry
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, ConvSettings, winograd_step

PRODUCTS_PER_S, VECTORS_PER_S, BYTES_PER_S = 60e9, 1.2e9, 24e9
"""Of one core: multiply-adds, vector operations of transforms, bytes of spectra moved. Fitted to forward and backward
passes of 66 layers (kernels of 3 to 31 taps, 32 to 128 channels, maps of 14 to 56) in every tile worth a try, by CPU
time on one core of an AVX-512 Xeon that had other work as well: the tile chosen took 3 % more time than the fastest
in the geometric mean, within 12 % of it in all layers but one, where it was 24 %. Only ratios of the three choose; on
other machines they were not measured.
"""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A plain correlation and the form that carries it out; hashable, so that its native object is made once.

    Channels and filters are those of one group, ``form`` the op and its size: ("fft", points) or ("winograd", m).
    """

    form: tuple[str, int]
    images: int
    groups: int
    channels: int
    filters: int
    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    padding: tuple[int, int]

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        op, size = self.form
        count = self.images
        for out, kernel in zip(self.out, self.kernel, strict=True):
            if op == "winograd":
                count *= -(-out // (size if kernel > 1 else 1))
            else:
                count *= -(-out // (size - kernel + 1))
        return count

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.images, self.groups * self.channels, *self.size

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, F, Ho, Wo)."""
        return self.images, self.groups * self.filters, *self.out

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(F, C / g, kH, kW)."""
        return self.groups * self.filters, self.channels, *self.kernel


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A call as native code sees it.

    ``choices`` are the same correlation by each form that serves it, the best first; ``geometry`` leads to it, None
    where the call is a plain correlation already.
    """

    choices: tuple[Correlation, ...]
    geometry: Geometry | None


@lru_cache(maxsize=4096)
def lower(x_shape: tuple[int, ...], weight_shape: tuple[int, ...], settings: ConvSettings) -> Lowered:
    """Reduce a call to a plain correlation; without choices where there is no native form for it."""
    axes = []
    for i in (0, 1):
        if settings.stride[i] > 1 and settings.dilation[i] > 1:
            return Lowered(choices=(), geometry=None)
        axis = Axis(
            size=x_shape[2 + i], kernel=weight_shape[2 + i], stride=settings.stride[i], padding=settings.padding[i],
            dilation=settings.dilation[i], tile=weight_shape[2 + i],
        )  # fmt: skip
        if axis.out < 1:
            return Lowered(choices=(), geometry=None)
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
    forms = _winograd_forms if settings.algorithm == "winograd" else _fft_forms
    choices = tuple(replace(shape, form=form) for form in forms(shape, settings.size))
    return Lowered(choices=choices, geometry=None if plain else whole)


def _isa() -> str:
    return str(_native.host()["isa_active"])


def _winograd_forms(c: Correlation, size: int) -> list[tuple[str, int]]:
    taps = max(c.kernel)
    m = winograd_step(taps) if size == AUTO else size
    known = {(int(form[0]), tuple(form[1:])) for form in _native.winograd_forms(_isa())}
    return [("winograd", m)] if taps > 1 and (m, c.kernel) in known else []


def _fft_forms(c: Correlation, size: int) -> list[tuple[str, int]]:
    sizes = [int(one) for one in _native.fft_sizes(_isa())]
    if size == FULL:
        least = max(c.out[i] + c.kernel[i] - 1 for i in (0, 1))
        return [("fft", one) for one in sizes if one >= least][:1]
    fitting = [("fft", one) for one in sizes if one >= max(c.kernel) and size in (AUTO, one)]
    return sorted(fitting, key=lambda form: seconds(replace(c, form=form)))


def seconds(c: Correlation) -> float:
    """Time of the three passes by FFT, about: products, transforms, and spectra written and read."""
    tile = c.form[1]
    numbers = 3 * tile * tile // 2 - 2  # real products of a tile (native/kernels/fft)
    maps = c.tiles * (c.channels + c.filters)
    pairs = c.channels * c.filters
    products = 3 * c.tiles * numbers * pairs
    vectors = 3 * (maps + 2 * pairs) / 16 * (4 * math.log2(tile) + 6) * tile * tile
    moved = 4 * numbers * (3 * maps + 6 * pairs)
    return c.groups * (products / PRODUCTS_PER_S + vectors / VECTORS_PER_S + moved / BYTES_PER_S)
