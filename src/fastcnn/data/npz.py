"""``npz:FILE``: arrays x and y (and, if there, x_test and y_test), opened without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.data.dataset import DataError, Dataset
from fastcnn.data.split import every_fifth


def load_npz(path: Path, split: str, *, name: str) -> Dataset:
    """Read x (pictures) and y (class numbers; may be left out).

    x is uint8 (N, H, W), (N, H, W, 1 or 3), or float32 (N, C, H, W), which goes into a net as it is. Float values must
    be finite. With x_test and y_test in the file, they are the test part.

    Raises
    ------
    DataError
        If the file is no npz, holds objects (pickle), misses x, or an array has a wrong shape or kind.
    """
    arrays = _read(path, name)
    if "x" not in arrays:
        raise DataError(f"{name}: has no array 'x', only {sorted(arrays)}: save with numpy.savez(FILE, x=…, y=…)")
    whole = _dataset(arrays["x"], arrays.get("y"), name)
    if "x_test" not in arrays:
        return every_fifth(whole, split)
    test = _dataset(arrays["x_test"], arrays.get("y_test"), name)
    if split == "all":
        raise DataError(f"{name}: has a test part of its own: choose split 'train' or 'test', not 'all'")
    return test if split == "test" else whole


def _read(path: Path, name: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{name}: is a single .npy array: save with numpy.savez(FILE, x=…, y=…)")
            return {key: archive[key] for key in archive.files if key in ("x", "y", "x_test", "y_test")}
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{name}: cannot be read as .npz without pickle ({error}): "
            "save plain arrays with numpy.savez(FILE, x=…, y=…)"
        ) from error


def _dataset(x: npt.NDArray[Any], y: npt.NDArray[Any] | None, name: str) -> Dataset:
    if x.dtype == np.uint8:
        images: npt.NDArray[Any] = x[:, :, :, None] if x.ndim == 3 else x
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise DataError(f"{name}: x has shape {x.shape}; uint8 pictures are (N, H, W) or (N, H, W, 1 or 3)")
    elif x.dtype in (np.float32, np.float64):
        if x.ndim != 4:
            raise DataError(f"{name}: x has shape {x.shape}; float pictures are (N, C, H, W)")
        if not np.isfinite(x).all():
            raise DataError(f"{name}: x holds NaN or infinite values: clean it first")
        images = x.astype(np.float32)
    else:
        raise DataError(f"{name}: x has dtype {x.dtype}; allowed is uint8 or float32")
    if y is None:
        return Dataset(name=name, images=images, labels=None)
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise DataError(f"{name}: y has dtype {y.dtype} and shape {y.shape}; allowed is an integer array (N,)")
    return Dataset(name=name, images=images, labels=y.astype(np.int64))
