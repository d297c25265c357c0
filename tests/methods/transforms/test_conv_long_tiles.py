"""Tiles of 9 and 10 in float32, which layers take only with an m that asks for them: how much they lose."""

from __future__ import annotations

import pytest

pytest.importorskip("fastcnn._native", reason="fastcnn._native is not built: make build")

import torch

from fastcnn.methods.transforms.winograd_conv import WinogradConv2d
from tests.docs.pages import ROOT
from tests.engine.nets import WINOGRAD
from tests.methods.transforms.test_conv_numerics import errors

IMAGES = 1e-3
"""Largest |y - y64| / largest |y64| on images, of the output and both gradients; 5e-4 was the most found."""


def largest_error(m: int, kernel: tuple[int, int], channels: int) -> float:
    torch.manual_seed(sum(kernel) + channels)
    padding = (kernel[0] // 2, kernel[1] // 2)
    layer = WinogradConv2d(channels, 16, kernel, padding=padding, bias=False, m=m)
    # Activations after a ReLU, whose sums do not cancel, and centred ones, whose sums do.
    inputs = torch.rand(2, channels, 23, 22), torch.randn(2, channels, 23, 22)
    return max(max(errors(layer, x)) for x in inputs)


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize(
    ("m", "kernel"),
    [(9, (2, 2)), (8, (2, 2)), (8, (3, 3)), (7, (3, 3)), (6, (5, 5)), (4, (6, 7)), (4, (7, 7)), (3, (7, 7))],
)
@pytest.mark.parametrize("channels", [16, 128])
def test_on_images(m: int, kernel: tuple[int, int], channels: int) -> None:
    assert m + max(kernel) - 1 in (9, 10)
    assert WINOGRAD[4] < largest_error(m, kernel, channels) <= IMAGES


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize(("m", "kernel"), [(8, (1, 3)), (6, (5, 1)), (4, (1, 7)), (4, (7, 1))])
@pytest.mark.parametrize("channels", [16, 128])
def test_along_one_axis(m: int, kernel: tuple[int, int], channels: int) -> None:
    assert largest_error(m, kernel, channels) <= WINOGRAD[10]


def test_longer_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"F\(5, 7\) has a tile of 11, and in float32 at most 10 is accurate enough"):
        WinogradConv2d(2, 2, 7, m=5)


@pytest.mark.parametrize("page", ["concepts", "methods"])
def test_the_pages_name_the_bound(page: str) -> None:
    words = " ".join((ROOT / "docs" / page / "winograd.md").read_text(encoding="utf-8").split())
    assert f"stay within {IMAGES:.0e}".replace("e-0", "e-") in words
