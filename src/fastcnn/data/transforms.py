"""From a uint8 picture to what a net eats: resize, crop, scale, normalise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require

Resample = Literal["bilinear", "bicubic"]
U8 = npt.NDArray[np.uint8]


def resize(image: U8, size: tuple[int, int], *, resample: Resample = "bilinear") -> U8:
    """Scale a picture with Pillow's antialiasing filter.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, C), C 1 or 3
    size : (height, width) in pixels, each at least 1
    resample : {"bilinear", "bicubic"}

    Returns
    -------
    ndarray of uint8, shape (height, width, C)

    Raises
    ------
    ValueError
        If the picture is not uint8 (H, W, 1 or 3), the size is below 1 or the filter unknown.
    """
    _check(image)
    if min(size) < 1:
        raise ValueError(f"size={size} is not allowed: height and width must be at least 1")
    if resample not in ("bilinear", "bicubic"):
        raise ValueError(f"resample={resample!r} is not allowed: choose 'bilinear' or 'bicubic'")
    if image.shape[:2] == size:
        return image
    pil: Any = require("PIL.Image", extra="demo", purpose="resizing pictures")
    method = pil.Resampling.BILINEAR if resample == "bilinear" else pil.Resampling.BICUBIC
    grey = image.shape[2] == 1
    picture = pil.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    out = np.asarray(picture.resize((size[1], size[0]), method), dtype=np.uint8)
    return out[:, :, None] if grey else out


def resize_short_side(image: U8, short_side: int, *, resample: Resample = "bilinear") -> U8:
    """Scale a picture so that its shorter side has ``short_side`` pixels; the ratio stays.

    The long side is rounded down, as torchvision does.
    """
    _check(image)
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, (short_side, max(1, width * short_side // height)), resample=resample)
    return resize(image, (max(1, height * short_side // width), short_side), resample=resample)


def centre_crop(image: U8, size: tuple[int, int]) -> U8:
    """Cut ``size`` (height, width) out of the middle.

    Raises
    ------
    ValueError
        If the picture is smaller than that.
    """
    _check(image)
    height, width = image.shape[:2]
    if height < size[0] or width < size[1]:
        raise ValueError(f"a picture of {height}x{width} cannot be cropped to {size[0]}x{size[1]}: resize it first")
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return image[top : top + size[0], left : left + size[1]]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """``(picture * scale - mean) / std`` after an optional resize and crop.

    Parameters
    ----------
    short_side : int, optional
        Scale the shorter side to this many pixels.
    crop : int, optional
        Then cut a square of this side out of the middle.
    scale : float
        Factor on the 0..255 values.
    mean, std : tuple of float
        One value for all channels, or one each (after ``scale``).
    resample : {"bilinear", "bicubic"}

    Raises
    ------
    ValueError
        If a size is below 1, the crop is larger than the resize, or a deviation is not positive.
    """

    short_side: int | None = None
    crop: int | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        for name, value in (("short_side", self.short_side), ("crop", self.crop)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not allowed: choose at least 1, or leave it out")
        if self.crop is not None and self.short_side is not None and self.crop > self.short_side:
            raise ValueError(f"crop={self.crop} is larger than short_side={self.short_side}")
        if any(not value > 0 for value in self.std):
            raise ValueError(f"std={self.std} is not allowed: every deviation must be above 0")

    def __call__(self, image: U8) -> npt.NDArray[np.float32]:
        """Turn one picture (H, W, C) uint8 into float32 (C, H, W)."""
        _check(image)
        if self.short_side is not None:
            image = resize_short_side(image, self.short_side, resample=self.resample)
        if self.crop is not None:
            image = centre_crop(image, (self.crop, self.crop))
        channels = image.shape[2]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name} has {len(values)} values; a picture of {channels} channels takes 1 or {channels}"
                )
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        scaled = (image.astype(np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PRESETS: dict[str, Preprocess] = {
    "unit": Preprocess(),
    "raw": Preprocess(scale=1.0),
    "cifar10": Preprocess(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    "imagenet": Preprocess(short_side=256, crop=224, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    "efficientnet-lite0": Preprocess(
        short_side=256, crop=224, scale=1.0, mean=(127.0,), std=(128.0,), resample="bicubic"
    ),
    # Caffe's habit: RGB means in 0..255, no division.
    "caffe": Preprocess(short_side=256, crop=227, scale=1.0, mean=(123.0, 117.0, 104.0)),
}
"""Named preprocessings; ``cifar10`` is what most published CIFAR nets were trained with (ImageNet's statistics)."""


def _check(image: U8) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ValueError(f"a picture must be a uint8 array, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a picture must have shape (H, W, 1) or (H, W, 3), got {image.shape}")
