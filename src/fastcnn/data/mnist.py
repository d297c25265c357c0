"""``mnist:DIR`` and ``fashion-mnist:DIR``: the four IDX files under their usual names, gzipped or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastcnn.data.dataset import DataError, Dataset
from fastcnn.data.idx import read_idx

_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def load_mnist(folder: Path, split: str, *, name: str, fashion: bool) -> Dataset:
    """Return uint8 (N, 28, 28, 1) and labels: 60,000 to train, 10,000 to test.

    Raises
    ------
    DataError
        If a file is missing or damaged, or pictures and labels do not fit each other.
    """
    parts = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}[split]
    images, labels = [], []
    for part in parts:
        pictures = _read(folder, f"{part}-images-idx3-ubyte", name)
        numbers = _read(folder, f"{part}-labels-idx1-ubyte", name)
        if pictures.ndim != 3 or numbers.ndim != 1 or len(pictures) != len(numbers):
            raise DataError(
                f"{name}: {part} has pictures of shape {pictures.shape} and labels of shape {numbers.shape}; "
                "allowed are (N, H, W) and (N,)"
            )
        images.append(pictures)
        labels.append(numbers.astype(np.int64))
    return Dataset(
        name=name,
        images=np.concatenate(images)[:, :, :, None],
        labels=np.concatenate(labels),
        classes=_FASHION if fashion else tuple("0123456789"),
    )


def _read(folder: Path, stem: str, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            try:
                array = np.asarray(read_idx(path))
            except (ValueError, OSError, EOFError) as error:
                raise DataError(f"{name}: {path} is damaged ({error}): get the file again") from error
            if array.dtype != np.uint8:
                raise DataError(f"{name}: {path} holds {array.dtype}, expected uint8")
            return array
    raise DataError(f"{name}: {folder} has neither {stem}.gz nor {stem}: give the folder of the four IDX files")
