"""``svhn:DIR``: street view house numbers, the cropped digits, as ``train_32x32.mat`` and ``test_32x32.mat``.

The files are MATLAB's, version 5: ``X`` (32, 32, 3, N) of bytes and ``y`` (N, 1) with labels 1 to 10, of which 10 is
the digit 0. ``extra_32x32.mat``, with which the literature often trains as well, is left alone.

References
----------
Netzer, Wang, Coates, Bissacco, Wu and Ng 2011, Reading digits in natural images with unsupervised feature learning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastcnn.data.dataset import DataError, Dataset
from fastcnn.data.matlab import read_matlab

_SIZE = (32, 32, 3)
_TEN = 10
"""Label of the digit 0."""


def load_svhn(folder: Path, split: str, *, name: str) -> Dataset:
    """Return uint8 (N, 32, 32, 3) and labels 0 to 9; as published 73,257 to train, 26,032 to test.

    Raises
    ------
    DataError
        If a file is missing or damaged, or pictures and labels do not fit each other.
    """
    parts = ("train", "test") if split == "all" else (split,)
    loaded = [_read(folder / f"{part}_32x32.mat", name) for part in parts]
    return Dataset(
        name=name,
        images=np.concatenate([images for images, _ in loaded]),
        labels=np.concatenate([labels for _, labels in loaded]),
        classes=tuple("0123456789"),
    )


def _read(path: Path, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    if not path.is_file():
        raise DataError(f"{name}: {path.parent} has no {path.name}: give the folder of SVHN's cropped digits")
    try:
        held = read_matlab(path, ("X", "y"))
    except (ValueError, OSError) as error:
        raise DataError(f"{name}: {path} is damaged or no MATLAB 5 file ({error}): get the file again") from error
    if missing := [key for key in ("X", "y") if key not in held]:
        raise DataError(f"{name}: {path} has no array {missing[0]!r}: give the cropped digits (train_32x32.mat ...)")
    pictures, labels = held["X"], held["y"]
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[:3] != _SIZE:
        raise DataError(
            f"{name}: {path} has pictures of shape {pictures.shape} and {pictures.dtype}; allowed is (32, 32, 3, N) of "
            "uint8"
        )
    if labels.shape != (pictures.shape[3], 1):
        raise DataError(
            f"{name}: {path} has labels of shape {labels.shape} for {pictures.shape[3]} pictures; allowed is (N, 1)"
        )
    if labels.size and not set(np.unique(labels).tolist()) <= set(range(1, _TEN + 1)):
        raise DataError(f"{name}: {path} has labels {labels.min()} to {labels.max()}; SVHN has 1 to 10")
    numbers = labels[:, 0].astype(np.int64)
    return np.ascontiguousarray(pictures.transpose(3, 0, 1, 2)), numbers % _TEN
