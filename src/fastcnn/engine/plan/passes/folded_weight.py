"""A weight with a scale folded into it, multiplied out when an array is asked for."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import Shape


class FoldedWeight:
    """``weight * scale`` in float64, rounded to float32 once; ``scale`` has one number for each of axis 0.

    It stands in a graph's table of weights for the array it is (``numpy.asarray`` makes it) until a kernel packs that.
    A net keeps the weights it was captured with and those its kernels packed: the folded ones would be a third copy.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, weight: Array, scale: npt.NDArray[np.float64]) -> None:
        self._weight, self._scale = weight, scale

    @property
    def shape(self) -> Shape:
        return self._weight.shape

    @property
    def ndim(self) -> int:
        return self._weight.ndim

    @property
    def size(self) -> int:
        return self._weight.size

    @property
    def nbytes(self) -> int:
        return 4 * self.size

    def is_finite(self) -> bool:
        """Whether the array is: its largest numbers say it."""
        top = np.abs(self._weight).max(axis=tuple(range(1, self.ndim)), initial=0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite((top * self._scale).astype(np.float32)).all())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        result = _short_lived(self.shape)
        scale = self._scale.reshape(-1, *[1] * (self.ndim - 1))
        np.multiply(self._weight, scale, out=result, dtype=np.float64, casting="same_kind")
        return result if dtype is None else result.astype(dtype, copy=False)


_FROM_SYSTEM = 1 << 20


def _short_lived(shape: Shape) -> Array:
    """Return memory for an array; if large, straight from the system: the heap would keep it when the array is gone."""
    count = 4 * math.prod(shape)
    if count < _FROM_SYSTEM:
        return np.empty(shape, np.float32)
    try:
        memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for a weight of {count} bytes") from error
    return np.frombuffer(memory, np.float32).reshape(shape)
