"""``folder:DIR``: a sub-folder per class; or a .zip with pictures and a labels.csv (columns file, class_index)."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn._extras import require
from fastcnn.data.dataset import DataError, Dataset, LazyImages
from fastcnn.data.split import every_fifth

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")


def load_folder(path: Path, split: str, *, name: str) -> Dataset:
    """Return pictures (decoded when asked for, always RGB) and labels; classes in alphabetical order.

    With sub-folders ``train`` and ``test`` (or ``val``), these are the parts.

    Raises
    ------
    DataError
        If there is no picture, or the zip has no labels.csv that fits it.
    MissingExtraError
        If Pillow is not installed.
    """
    pil: Any = require("PIL.Image", extra="demo", purpose="reading picture files")
    if path.is_file():
        return every_fifth(_load_zip(path, pil, name), split)
    test = next((path / part for part in ("test", "val") if (path / part).is_dir()), None)
    if (path / "train").is_dir() and test is not None:
        if split == "all":
            raise DataError(f"{name}: has the parts train and {test.name}: choose split 'train' or 'test', not 'all'")
        return _load_classes(test if split == "test" else path / "train", pil, name)
    return every_fifth(_load_classes(path, pil, name), split)


def _load_classes(folder: Path, pil: Any, name: str) -> Dataset:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for number, label in enumerate(classes):
        found = sorted(f for f in (folder / label).rglob("*") if f.suffix.lower() in _SUFFIXES)
        files += found
        labels += [number] * len(found)
    if not files:
        raise DataError(f"{name}: no picture ({', '.join(_SUFFIXES)}) in a sub-folder of {folder}: want CLASS/a.jpg")

    def decode(index: int) -> npt.NDArray[np.uint8]:
        return _decode(files[index].read_bytes(), str(files[index]), pil, name)

    return Dataset(
        name=name,
        images=LazyImages(count=len(files), decode=decode),
        labels=np.asarray(labels, dtype=np.int64),
        classes=tuple(classes),
    )


def _load_zip(path: Path, pil: Any, name: str) -> Dataset:
    """Read a zip whose labels.csv gives file and class_index for each picture."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "labels.csv" not in names:
                raise DataError(f"{name}: {path} has no labels.csv (columns file, class_index)")
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode("utf-8"))))
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: {path} is not a readable zip ({error}): give a folder or a .zip") from error
    files: list[str] = []
    labels: list[int] = []
    words: dict[int, str] = {}
    for line, row in enumerate(rows, start=2):
        file, index = row.get("file"), row.get("class_index")
        if file is None or index is None or not index.isdigit():
            raise DataError(f"{name}: {path}: labels.csv line {line} needs a file and a class_index, got {row}")
        stored = next((entry for entry in (file, f"images/{file}") if entry in names), None)
        if stored is None:
            raise DataError(f"{name}: {path}: labels.csv line {line} names {file!r}, which is not in the zip")
        files.append(stored)
        labels.append(int(index))
        words[int(index)] = row.get("name") or index
    if not files:
        raise DataError(f"{name}: {path}: labels.csv names no picture")

    def decode(index: int) -> npt.NDArray[np.uint8]:
        with zipfile.ZipFile(path) as archive:
            return _decode(archive.read(files[index]), files[index], pil, name)

    return Dataset(
        name=name,
        images=LazyImages(count=len(files), decode=decode),
        labels=np.asarray(labels, dtype=np.int64),
        classes=tuple(words.get(i, str(i)) for i in range(max(labels) + 1)),
    )


def _decode(blob: bytes, file: str, pil: Any, name: str) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(pil.open(io.BytesIO(blob), formats=_FORMATS).convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, pil.DecompressionBombError) as error:
        raise DataError(f"{name}: {file} is no readable picture ({error}): remove or replace it") from error
