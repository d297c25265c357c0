"""A transformed weight, kept as long as the weight it came from is the same."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor


class KernelCache:
    """One transformed weight, for inference: eval mode with gradients off.

    It is used again only for the very tensor it was made from, with the same ``_version`` (which every in-place
    change raises), storage, dtype and device, and for the same tiles. A change through ``weight.data`` in place
    escapes torch's version counter; ``train()`` drops what is kept. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what is kept."""
        # One tuple, replaced as a whole: another thread sees either the old one or the new one.
        self._entry: tuple[weakref.ref[Tensor], Hashable, Any] | None = None

    def get(self, weight: Tensor, tiles: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gave for this weight, calling it where nothing fitting is kept."""
        if weight.is_inference() or type(weight) not in (Tensor, torch.nn.Parameter):
            # No version counter, or a tensor that only stands for one.
            return make()
        key = (weight._version, weight.data_ptr(), weight.dtype, weight.device, tiles)
        entry = self._entry
        if entry is not None and entry[0]() is weight and entry[1] == key:
            return entry[2]
        value = make()
        self._entry = (weakref.ref(weight), key, value)
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelCache:
        return KernelCache()

    def __reduce__(self) -> tuple[type[KernelCache], tuple[()]]:
        return KernelCache, ()
