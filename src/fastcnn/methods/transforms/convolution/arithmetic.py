"""What a layer costs, by the formulas: real multiplications in the transform domain, and bytes of spectra.

Per output and (channel, filter) pair an FFT of t x t tiles takes (2 t^2 - 4) / m^2 real multiplications in torch's ops,
four for a complex product, and (1.5 t^2 - 2) / m^2 in native code, three for one; Winograd t^2 / m^2, m = t - k + 1.
After a polyphase split with stride s, whose kernels have ceil(k / s) taps, s^2 times as many. :func:`cost_of` and
:func:`products_per_output` (``cost`` and ``theory`` of a layer) count torch's, :func:`why_not_worth` the native ones.
The additions of the transforms are not multiplications of the products and are not counted.
"""

from __future__ import annotations

from math import ceil

from fastcnn.methods.contract import ConvSpec, Cost
from fastcnn.methods.transforms.convolution.choice import geometry_of, real_products
from fastcnn.methods.transforms.convolution.chunks import Footprint
from fastcnn.methods.transforms.convolution.geometry import Axis
from fastcnn.methods.transforms.convolution.settings import (
    AUTO,
    FULL,
    Algorithm,
    ConvSettings,
    taps_of,
    why_unsupported,
    winograd_step,
)


def products_per_output(
    algorithm: Algorithm, size: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> float:
    """Real multiplications per output and (channel, filter) pair on a map without edges; direct takes kH kW.

    Under ``AUTO`` the tile of an FFT depends on the map; 32 stands for kernels of 9 taps and more, 16 below.
    """
    fold = stride[0] * stride[1]
    taps = [taps_of(k, s) for k, s in zip(kernel_size, stride, strict=True)]
    if algorithm == "fft" and size == FULL:
        return fold * (2.0 if max(taps) > 1 else 1.0)
    axes = []
    for count in taps:
        if count == 1:
            tile = 1
        elif algorithm == "winograd":
            tile = (winograd_step(count) if size == AUTO else size) + count - 1
        else:
            tile = _fft_tile(size, count)
        axes.append(Axis(size=tile, kernel=count, tile=tile))
    rows, columns = axes
    products = real_products(rows, columns) if algorithm == "fft" else rows.tile * columns.tile
    return fold * products / (rows.step * columns.step)


def native_products_per_output(size: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> float:
    """Real multiplications of :func:`products_per_output` by native FFT, whose tiles are square for every kernel."""
    fold = stride[0] * stride[1]
    if size == FULL:
        return fold * 1.5
    rows, columns = (taps_of(k, s) for k, s in zip(kernel_size, stride, strict=True))
    tile = _fft_tile(size, max(rows, columns))
    return fold * (1.5 * tile * tile - 2) / ((tile - rows + 1) * (tile - columns + 1))


def _fft_tile(size: int, taps: int) -> int:
    return size if size != AUTO else (16 if taps < 9 else 32 if taps < 17 else 4 * taps)


def cost_of(settings: ConvSettings, spec: ConvSpec) -> Cost:
    """Cost of a stride-1 layer in float32: exact for ``spec.output_size``, edge tiles in full.

    With the default output size, multiplications are per output position far from the edges.
    """
    bias = spec.out_channels if spec.bias else 0
    per_group = spec.in_channels // spec.groups
    height, width = (out + k - 1 for out, k in zip(spec.output_size, spec.kernel_size, strict=True))
    geometry = geometry_of(
        (1, spec.in_channels, height, width), (spec.out_channels, per_group, *spec.kernel_size), settings
    )
    if geometry is None:
        # The direct algorithm takes over.
        return Cost(
            macs=spec.dense_macs, params=spec.weights + bias, param_bytes=4 * (spec.weights + bias), workspace_bytes=0
        )
    is_complex = settings.algorithm == "fft" and max(spec.kernel_size) > 1
    size = Footprint.of(geometry, is_complex=is_complex)
    if spec.output_size == (1, 1):
        rate = products_per_output(settings.algorithm, settings.size, spec.kernel_size)
        macs = ceil(rate * spec.out_channels * per_group)
    else:
        rows, columns = geometry.rows, geometry.columns
        products = real_products(rows, columns) if settings.algorithm == "fft" else rows.tile * columns.tile
        macs = products * geometry.tiles * spec.out_channels * per_group
    return Cost(
        macs=macs,
        params=spec.weights + bias,
        param_bytes=4 * (spec.weights + bias),
        workspace_bytes=size.kept_bytes() + size.filters * size.response,
    )


def why_not_worth(
    algorithm: Algorithm,
    size: int,
    *,
    channels: int,
    filters: int,
    groups: int,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> str:
    """Say why a layer of this form cannot gain time, by rule; empty where it may."""
    forced = "; force=True converts it all the same"
    if kernel_size == (1, 1):
        return f"a 1x1 kernel has nothing to transform{forced}"
    if groups > 1 and groups == channels:
        return f"it is depthwise: no sum over channels pays for the transforms{forced}"
    if min(channels, filters) // groups < 32:
        return (
            f"{channels // groups} channels and {filters // groups} filters per group are too few to pay for the "
            f"transforms (32 of each at least){forced}"
        )
    why = why_unsupported(
        algorithm, size, kernel_size=kernel_size, stride=stride, dilation=dilation, precision="float64"
    )
    if why:
        return why
    if algorithm == "winograd" and dilation != (1, 1):
        return f"dilation={dilation} splits the map into pieces too small for Winograd tiles{forced}"
    if algorithm == "fft":
        ours = native_products_per_output(size, kernel_size, stride)
    else:
        ours = products_per_output(algorithm, size, kernel_size, stride)
    direct = kernel_size[0] * kernel_size[1]
    if ours >= direct:
        return f"{ours:.2f} multiplications per output and channel pair save nothing against {direct}{forced}"
    return ""
