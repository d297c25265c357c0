"""``cifar10:DIR``: the binary version (data_batch_1.bin …) or two .npz files of packed JPEG pictures.

The python version is a pickle, and a pickle can run code: it is not opened.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require
from fastcnn.data.dataset import DataError, Dataset

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32
_SHAPE = (32, 32, 3)


def load_cifar10(folder: Path, split: str, *, name: str) -> Dataset:
    """Return uint8 (N, 32, 32, 3) and labels: 50,000 to train, 10,000 to test.

    Raises
    ------
    DataError
        If neither form is in the folder, or a file is damaged.
    MissingExtraError
        If the pictures are JPEG and Pillow is not installed.
    """
    parts = ("train", "test") if split == "all" else (split,)
    loaded = [_load_part(folder, part, name) for part in parts]
    return Dataset(
        name=name,
        images=np.concatenate([images for images, _ in loaded]),
        labels=np.concatenate([labels for _, labels in loaded]),
        classes=_CLASSES,
    )


def _load_part(folder: Path, part: str, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    packed = folder / f"cifar10_{part}_jpeg.npz"
    if packed.is_file():
        return _read_jpeg(packed, name)
    stems = [f"data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else ["test_batch.bin"]
    for place in (folder, folder / "cifar-10-batches-bin"):
        if all((place / stem).is_file() for stem in stems):
            read = [_read_binary(place / stem, name) for stem in stems]
            return np.concatenate([images for images, _ in read]), np.concatenate([labels for _, labels in read])
    pickled = any((place / "test_batch").is_file() for place in (folder, folder / "cifar-10-batches-py"))
    hint = (
        "the python version there is a pickle, which can run code: get the binary version (cifar-10-binary.tar.gz)"
        if pickled
        else "give the folder of the binary version (cifar-10-binary.tar.gz)"
    )
    raise DataError(f"{name}: {folder} has neither {packed.name} nor all of {', '.join(stems)}: {hint}")


def _read_binary(path: Path, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    raw = np.fromfile(path, dtype=np.uint8)
    if raw.size == 0 or raw.size % _RECORD:
        raise DataError(f"{name}: {path} has {raw.size} bytes, no multiple of {_RECORD}: get the file again")
    records = raw.reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(f"{name}: {path} has label {labels.max()}; CIFAR-10 has 0 to 9: get the file again")
    # On disk: label, then the red, green and blue planes.
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(), labels


def _read_jpeg(path: Path, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    pil: Any = require("PIL.Image", extra="demo", purpose="CIFAR-10 as JPEG")
    try:
        with np.load(path, allow_pickle=False) as archive:
            data, offsets, labels = archive["data"], archive["offsets"], archive["labels"]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: {path} is damaged ({error}): get the file again") from error
    count = len(labels)
    if data.dtype != np.uint8 or offsets.shape != (count + 1,) or offsets[0] != 0 or offsets[-1] != data.size:
        raise DataError(f"{name}: {path}: offsets {offsets.shape} do not fit {count} labels and {data.size} bytes")
    if (np.diff(offsets) <= 0).any():
        raise DataError(f"{name}: {path}: offsets do not rise")
    images = np.empty((count, *_SHAPE), dtype=np.uint8)
    for i in range(count):
        blob = data[int(offsets[i]) : int(offsets[i + 1])].tobytes()
        try:
            # The format is pinned: nothing but the JPEG decoder sees these bytes.
            picture = np.asarray(pil.open(io.BytesIO(blob), formats=("JPEG",)).convert("RGB"))
        except OSError as error:
            raise DataError(f"{name}: {path}: picture {i} is no JPEG ({error})") from error
        if picture.shape != _SHAPE:
            raise DataError(f"{name}: {path}: picture {i} has shape {picture.shape}, expected {_SHAPE}")
        images[i] = picture
    return images, labels.astype(np.int64)
