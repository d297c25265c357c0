"""Rounding in float32, spikes and NaN: what the algorithms change in the numbers, and how far it reaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.transforms.fft_conv import FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConv2d

# Largest |y - y64| / largest |y64| in float32, forward and both gradients. F(m, r) by the length of the tile.
FFT_ERROR = 4e-6
WINOGRAD_ERROR = {4: 4e-6, 6: 4e-5, 8: 1e-4}


def errors(layer: nn.Conv2d, x: Tensor) -> list[float]:
    """Errors of output, gradient of input and gradient of weight against float64."""
    weight = layer.weight.detach().double().requires_grad_()
    exact_x = x.double().requires_grad_()
    exact = F.conv2d(exact_x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
    grad = torch.randn(exact.shape)
    wanted = (exact, *torch.autograd.grad(exact, (exact_x, weight), grad.double()))
    x = x.detach().requires_grad_()
    y = layer(x)
    found = (y, *torch.autograd.grad(y, (x, layer.weight), grad))
    return [
        float((mine.double() - theirs).detach().abs().max() / theirs.detach().abs().max())
        for mine, theirs in zip(found, wanted, strict=True)
    ]


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("tile", ["auto", "full", 8, 16, 32, 64])
@pytest.mark.parametrize("kernel", [3, 5, 8])
@pytest.mark.parametrize("channels", [16, 128])
def test_fft_float32_error(tile: Any, kernel: int, channels: int) -> None:
    torch.manual_seed(kernel + channels)
    layer = FFTConv2d(channels, 16, kernel, padding=kernel // 2, bias=False, tile=tile)
    assert max(errors(layer, torch.randn(2, channels, 21, 18))) <= FFT_ERROR


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize(
    ("m", "kernel"), [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (5, 2), (None, 3), (None, 5)]
)
@pytest.mark.parametrize("channels", [16, 128, 512])
def test_winograd_float32_error_is_that_of_its_tile(m: int | None, kernel: int, channels: int) -> None:
    torch.manual_seed(kernel + channels)
    layer = WinogradConv2d(channels, 16, kernel, padding=kernel // 2, bias=False, m=m)
    tile = (m or {3: 4, 5: 4}[kernel]) + kernel - 1
    # Activations after a ReLU, whose sums do not cancel, and centred ones, whose sums do.
    for x in (torch.rand(2, channels, 15, 14), torch.randn(2, channels, 15, 14)):
        assert max(errors(layer, x)) <= WINOGRAD_ERROR[tile]


@pytest.mark.usefixtures("served_by")
def test_winograd_error_grows_with_the_tile() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 24, 24)
    found = []
    for m in (2, 4, 6, 8):
        layer = WinogradConv2d(64, 16, 3, bias=False, m=m)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)))
        found.append(errors(layer, x)[0])
    assert found == sorted(found)
    assert found[0] <= 2 * errors(nn.Conv2d(64, 16, 3, bias=False), x)[0] + 1e-7


def test_f23_is_exact_on_integers() -> None:
    torch.manual_seed(0)
    layer = WinogradConv2d(4, 3, 3, bias=False, m=2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-99, 100, layer.weight.shape))
    x = torch.randint(-99, 100, (2, 4, 9, 8)).double()
    assert torch.equal(layer(x), layer.to_dense()(x))


@pytest.mark.usefixtures("served_by")
def test_a_spike_drowns_small_outputs_of_a_whole_map_but_of_one_tile_only() -> None:
    """Errors are relative to the largest value in the transform; direct convolution knows no such thing."""
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 8, 3, bias=False)
    x = 1e-3 * torch.randn(1, 8, 66, 66)
    x[0, :, 2, 2] = 1e4
    exact = dense.double()(x.double())
    dense.float()
    far = (slice(None), slice(None), slice(32, None), slice(32, None))

    def error_far(layer: nn.Conv2d) -> float:
        with torch.no_grad():
            layer.weight.copy_(dense.weight)
            wanted = exact[far]
            return float((layer(x)[far].double() - wanted).abs().max() / wanted.abs().max())

    assert error_far(nn.Conv2d(8, 8, 3, bias=False)) <= 1e-5
    assert error_far(FFTConv2d(8, 8, 3, bias=False, tile="full")) >= 1e-2
    for tile in (8, 16, 32):
        assert error_far(FFTConv2d(8, 8, 3, bias=False, tile=tile)) <= 1e-5  # type: ignore[arg-type]
    assert error_far(WinogradConv2d(8, 8, 3, bias=False)) <= 1e-4


def spoiled(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Height x width mask of outputs that are NaN in any channel of the first image."""
    with torch.no_grad():
        mask: Tensor = layer(x).isnan().any(1)[0]
    return mask


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_pixel_spoils_its_tile_or_its_map(value: float) -> None:
    """Direct convolution spoils 3 x 3 outputs, tiles of 8 with m = 6 those of each tile that reads the pixel."""
    torch.manual_seed(0)
    x = torch.randn(2, 2, 26, 26)
    x[0, 1, 9, 15] = value
    tiles = FFTConv2d(2, 3, 3, tile=8)
    wanted = torch.zeros(24, 24, dtype=torch.bool)
    # Row 9 lies in the tile of outputs 6..11 alone (it reads rows 6..13), column 15 in that of 12..17.
    wanted[6:12, 12:18] = True
    assert torch.equal(spoiled(tiles, x), wanted)
    full = FFTConv2d(2, 3, 3, tile="full")
    assert spoiled(full, x).all()
    with torch.no_grad():
        assert full(x)[1].isfinite().all()
        assert tiles(x)[1].isfinite().all()
    direct = nn.Conv2d(2, 3, 3)(x).detach()
    assert int((~direct[0].isfinite()).any(0).sum()) == 9
    assert torch.equal(spoiled(WinogradConv2d(2, 3, 3, m=6), x), wanted)
