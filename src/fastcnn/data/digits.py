"""scikit-learn's 1,797 handwritten digits, 8x8 pixels: small enough to train on while you watch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn._extras import require
from fastcnn.data.dataset import Dataset
from fastcnn.data.split import every_fifth


def load_digits(split: str) -> Dataset:
    """Return the digits as uint8 (N, 8, 8, 1); every fifth picture is test (360), the rest train (1,437).

    The source has 17 grey levels (0..16); they are spread over 0..255.
    """
    datasets: Any = require("sklearn.datasets", extra="demo", purpose="DATA digits")
    bunch = datasets.load_digits()
    levels = np.asarray(bunch.images, dtype=np.float64)
    images = np.rint(levels * (255 / 16)).astype(np.uint8)[:, :, :, None]
    labels = np.asarray(bunch.target, dtype=np.int64)
    whole = Dataset(name="digits", images=images, labels=labels, classes=tuple("0123456789"))
    return every_fifth(whole, split)
