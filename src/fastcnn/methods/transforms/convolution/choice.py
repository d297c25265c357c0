"""Which tile: the geometry of a call, from what the settings ask for or, under ``AUTO``, by arithmetic."""

from __future__ import annotations

from functools import lru_cache

from fastcnn.methods.transforms.convolution.chunks import Footprint
from fastcnn.methods.transforms.convolution.geometry import Axis, Geometry
from fastcnn.methods.transforms.convolution.lengths import TILES, fast_length
from fastcnn.methods.transforms.convolution.settings import (
    AUTO,
    FULL,
    ConvSettings,
    taps_of,
    why_unsupported,
    winograd_step,
)

POINT_OPERATIONS = 500.0
"""What transforming one value costs, in operations of a matrix product. Measured on an AVX-512 Xeon, one thread: 3 to
4 ns with the change of layout, against 140 Gflop/s of complex products. Transforms wait for memory, whatever log t."""


@lru_cache(maxsize=4096)
def geometry_of(
    x_shape: tuple[int, int, int, int], weight_shape: tuple[int, int, int, int], settings: ConvSettings
) -> Geometry | None:
    """Reduce a convolution to tiles.

    Parameters
    ----------
    x_shape : (N, C, H, W)
    weight_shape : (F, C / g, kH, kW)

    Returns
    -------
    Geometry, or None where ``AUTO`` leaves the convolution to the direct algorithm (stride and dilation both above
    1 on one axis).

    Raises
    ------
    ValueError
        If an explicit size cannot carry it out.
    """
    why = why_unsupported(
        settings.algorithm,
        settings.size,
        kernel_size=(weight_shape[2], weight_shape[3]),
        stride=settings.stride,
        dilation=settings.dilation,
        precision="float64",
    )
    if why:
        if settings.size == AUTO:
            return None
        raise ValueError(why)
    if settings.algorithm == "winograd" or settings.size != AUTO:
        return _geometry(x_shape, weight_shape, settings, settings.size)
    taps = max(taps_of(k, s) for k, s in zip(weight_shape[2:], settings.stride, strict=True))
    made = [_geometry(x_shape, weight_shape, settings, size) for size in (*TILES, FULL) if size == FULL or size >= taps]
    fitting = [g for g in made if not settings.memory or Footprint.of(g, is_complex=True).least <= settings.memory]
    return min(fitting or made, key=_work)


def _geometry(
    x_shape: tuple[int, int, int, int], weight_shape: tuple[int, int, int, int], settings: ConvSettings, size: int
) -> Geometry:
    axes = []
    for i in (0, 1):
        kernel, stride, dilation = weight_shape[2 + i], settings.stride[i], settings.dilation[i]
        plain = Axis(
            size=x_shape[2 + i],
            kernel=kernel,
            stride=stride,
            padding=settings.padding[i],
            dilation=dilation,
            tile=kernel,
        )
        taps = plain.taps
        if taps == 1:
            tile = 1
        elif settings.algorithm == "winograd":
            tile = (winograd_step(taps) if size == AUTO else size) + taps - 1
        else:
            tile = fast_length(plain.needed + taps - 1) if size == FULL else size
        axes.append(
            Axis(size=plain.size, kernel=kernel, stride=stride, padding=plain.padding, dilation=dilation, tile=tile)
        )
    return Geometry(
        batch=x_shape[0],
        channels=x_shape[1],
        filters=weight_shape[0],
        groups=settings.groups,
        rows=axes[0],
        columns=axes[1],
    )


def real_products(rows: Axis, columns: Axis) -> int:
    """Real multiplications per tile, filter and channel of an FFT: four per complex bin, one per real bin.

    A real transform of t x t values has (t^2 - q) / 2 complex bins and q real ones, q = 4 where both lengths are
    even; hence 2 t^2 - 4.
    """
    real = 1
    for axis in (rows, columns):
        real *= 2 if axis.tile % 2 == 0 else 1
    return 2 * rows.tile * columns.tile - real


def _work(g: Geometry) -> float:
    """Cost of a forward pass in operations of a matrix product; edge tiles are counted in full."""
    points = g.rows.tile * g.columns.tile
    tiles = g.batch * g.tiles
    channels = g.channels * g.fold
    products = 2.0 * real_products(g.rows, g.columns) * tiles * g.filters * channels / g.groups
    transforms = tiles * (channels + g.filters) + g.filters * channels / g.groups
    return products + POINT_OPERATIONS * points * transforms
