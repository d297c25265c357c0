"""Dataset: pictures, labels and class names, checked once when they are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.data.transforms import Preprocess

Images = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class DataError(ValueError):
    """A data source that is missing, damaged or not what it says; the message says how to mend it."""


@dataclass(frozen=True, kw_only=True)
class LazyImages:
    """Pictures of different sizes, decoded when asked for.

    Parameters
    ----------
    count : int
        How many there are.
    decode : callable
        Takes an index, returns a uint8 array (H, W, C).
    """

    count: int
    decode: Callable[[int], npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        return self.decode(index)

    def take(self, indices: npt.NDArray[np.int64]) -> LazyImages:
        """Return the pictures at ``indices``, still undecoded."""
        chosen = [int(i) for i in indices]
        return LazyImages(count=len(chosen), decode=lambda i: self[chosen[i]])


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Pictures with labels.

    Parameters
    ----------
    name : str
        Where they came from, as the user wrote it.
    images : ndarray or LazyImages
        uint8 (N, H, W, C); or float32 (N, C, H, W), which is fed to a net as it is.
    labels : ndarray of int64, shape (N,), or None
        Class numbers from 0. None: no labels are known.
    classes : tuple of str
        Names by class number; may be empty.

    Raises
    ------
    DataError
        If counts differ, a label is negative, a class has no name, or an array has a wrong kind or rank.
    """

    name: str
    images: Images | LazyImages
    labels: npt.NDArray[np.int64] | None
    classes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        images = self.images
        if isinstance(images, np.ndarray):
            if images.ndim != 4:
                raise DataError(
                    f"{self.name}: pictures have shape {images.shape}; allowed: (N, H, W, C) or (N, C, H, W)"
                )
            if images.dtype not in (np.uint8, np.float32):
                raise DataError(f"{self.name}: pictures have dtype {images.dtype}; allowed is uint8 or float32")
        if len(images) == 0:
            raise DataError(f"{self.name}: holds no picture")
        if self.labels is None:
            return
        if self.labels.shape != (len(images),):
            raise DataError(f"{self.name}: {len(images)} pictures but labels of shape {self.labels.shape}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0:
            raise DataError(f"{self.name}: label {low} is negative; labels count from 0")
        if self.classes and high >= len(self.classes):
            raise DataError(f"{self.name}: label {high}, but there are only {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes: the names given, else the highest label plus one."""
        if self.classes:
            return len(self.classes)
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def take(self, indices: npt.ArrayLike) -> Dataset:
        """Return the pictures at ``indices`` (in that order) as a dataset of its own."""
        chosen = np.asarray(indices, dtype=np.int64)
        images: Any = self.images.take(chosen) if isinstance(self.images, LazyImages) else self.images[chosen]
        return replace(self, images=images, labels=None if self.labels is None else self.labels[chosen])

    def limit(self, count: int) -> Dataset:
        """Return ``count`` pictures spread evenly over the set (sets sorted by class stay balanced)."""
        if count < 1:
            raise DataError(f"limit={count} is not allowed: choose at least 1")
        if count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def batches(
        self, preprocess: Preprocess, *, batch_size: int, shuffle_seed: int | None = None
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]]:
        """Yield (float32 (B, C, H, W), labels) until the set is through; the last batch may be short.

        Parameters
        ----------
        preprocess : Preprocess
            Applied to uint8 pictures; float32 pictures pass as they are.
        batch_size : int
            At least 1.
        shuffle_seed : int, optional
            Order from this seed; None keeps the order of the set.

        Raises
        ------
        DataError
            If pictures of one batch have different sizes after preprocessing.
        """
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size} is not allowed: choose at least 1")
        order = np.arange(len(self))
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        for start in range(0, len(self), batch_size):
            chosen = order[start : start + batch_size]
            yield self._prepare(chosen, preprocess), None if self.labels is None else self.labels[chosen]

    def _prepare(self, chosen: npt.NDArray[np.int64], preprocess: Preprocess) -> npt.NDArray[np.float32]:
        images = self.images
        if isinstance(images, np.ndarray) and images.dtype == np.float32:
            return np.ascontiguousarray(images[chosen], dtype=np.float32)
        pictures = [preprocess(np.asarray(images[int(i)], dtype=np.uint8)) for i in chosen]
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise DataError(
                f"{self.name}: pictures of one batch have different shapes {sorted(shapes)}: "
                "give a resize and a crop (preset imagenet does), or batch size 1"
            )
        return np.stack(pictures)
