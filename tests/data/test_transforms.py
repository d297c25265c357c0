"""Resize, crop, scale: against plain loops and against the numbers published for the presets."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fastcnn.data import PRESETS, Preprocess, centre_crop, resize, resize_short_side


def _picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_resize_of_a_constant_is_that_constant() -> None:
    image = np.full((31, 17, 3), 93, np.uint8)
    for resample in ("bilinear", "bicubic"):
        assert (resize(image, (12, 40), resample=resample) == 93).all()


def test_bilinear_upscaling_matches_a_plain_loop() -> None:
    image = _picture(5, 7, 1)
    out = resize(image, (10, 14))
    for y in range(10):
        for x in range(14):
            v, u = (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5
            total = 0.0
            for dy in (0, 1):
                for dx in (0, 1):
                    row, column = int(np.floor(v)) + dy, int(np.floor(u)) + dx
                    weight = (1 - abs(v - row)) * (1 - abs(u - column))
                    total += weight * float(image[min(max(row, 0), 4), min(max(column, 0), 6), 0])
            assert abs(total - float(out[y, x, 0])) <= 1.0, (y, x)


@pytest.mark.parametrize(
    ("shape", "wanted"), [((300, 451), (256, 384)), ((451, 300), (384, 256)), ((256, 256), (256, 256))]
)
def test_short_side(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert resize_short_side(_picture(*shape), 256).shape[:2] == wanted


def test_centre_crop_takes_the_middle() -> None:
    image = _picture(10, 9)
    np.testing.assert_array_equal(centre_crop(image, (4, 3)), image[3:7, 3:6])
    with pytest.raises(ValueError, match=r"10x9 cannot be cropped to 11x3"):
        centre_crop(image, (11, 3))


def test_preprocess_normalises_each_channel() -> None:
    image = _picture(6, 5)
    out = PRESETS["cifar10"](image)
    assert out.shape == (3, 6, 5)
    assert out.dtype == np.float32
    for c, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        np.testing.assert_allclose(out[c], (image[:, :, c] / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_presets_give_their_sizes() -> None:
    image = _picture(300, 280)
    sizes = {name: preset(image).shape for name, preset in PRESETS.items()}
    assert sizes["imagenet"] == sizes["efficientnet-lite0"] == (3, 224, 224)
    assert sizes["caffe"] == (3, 227, 227)
    assert sizes["unit"] == sizes["raw"] == (3, 300, 280)
    white = np.full((300, 300, 3), 255, np.uint8)
    assert PRESETS["efficientnet-lite0"](white).max() == pytest.approx(1.0)
    assert PRESETS["caffe"](white)[:, 0, 0] == pytest.approx([132, 138, 151])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: resize(_picture(4, 4), (0, 3)), "size=(0, 3)"),
        (lambda: resize(_picture(4, 4), (2, 2), resample="nearest"), "resample='nearest'"),  # type: ignore[arg-type]
        (lambda: resize(_picture(4, 4).astype(np.float32), (2, 2)), "float32"),
        (lambda: resize(np.zeros((4, 4), np.uint8), (2, 2)), "(4, 4)"),
        (lambda: Preprocess(crop=0), "crop=0"),
        (lambda: Preprocess(short_side=10, crop=11), "crop=11"),
        (lambda: Preprocess(std=(0.0,)), "std=(0.0,)"),
        (lambda: Preprocess(std=(float("nan"),)), "std=(nan,)"),
        (lambda: Preprocess(mean=(1.0, 2.0))(_picture(4, 4)), "mean has 2 values"),
    ],
)
def test_bad_input(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()  # type: ignore[operator]
