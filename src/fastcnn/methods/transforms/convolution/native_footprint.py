"""The memory cap of native passes: bounds, in bytes, of what a pass holds beside input, output, weight and gradients.

Buffers of the pool stay resident for a whole pass: spectra of the filters, those of the input that are kept, and
scratch. Beside them come and go copies: native code reads plain, contiguous float32 alone, so x, weight and gradient
are copied where they are something else, and stride and dilation hold two copies while values change places. A
gradient's layout is not known before it comes, so its copy is always counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fastcnn import _native
from fastcnn.methods.transforms.convolution.geometry import Geometry
from fastcnn.methods.transforms.convolution.native_forms import Correlation
from fastcnn.methods.transforms.convolution.plain import is_plain


@dataclass(frozen=True, kw_only=True)
class NativeFootprint:
    """Sizes in bytes of the plain tensors of a call, and how many copies of each live at once."""

    native: _native.TilePasses
    images: int
    x: int
    y: int
    weight: int
    lowered: bool
    copies_x: bool
    copies_weight: bool

    @classmethod
    def of(
        cls, native: _native.TilePasses, c: Correlation, geometry: Geometry | None, x: Tensor, weight: Tensor
    ) -> NativeFootprint:
        """Read the sizes off a correlation, and off the call's tensors whether they are copied."""
        return cls(
            native=native,
            images=c.images,
            x=4 * math.prod(c.input_shape),
            y=4 * math.prod(c.output_shape),
            weight=4 * math.prod(c.weight_shape),
            lowered=geometry is not None,
            copies_x=geometry is not None or not is_plain(x),
            copies_weight=(geometry is not None and geometry.fold > 1) or not is_plain(weight),
        )

    def forward_bytes(self, *, keep: bool) -> int:
        """Bound of the forward pass; ``keep``: with the spectra of x, for the backward pass."""
        kept = self.images * self.native.input_floats if keep else 0
        pool = 4 * int(kept + self.native.filter_floats + self.native.forward_scratch)
        x_copy, y_copy = (self.x, self.y) if self.copies_x else (0, 0)
        moved = self._moved(y_copy)
        return pool + max(self._filters(), self._arriving(x_copy), x_copy + y_copy, y_copy + moved)

    def backward_bytes(self, images: int, *, kept: bool) -> int:
        """Bound of the backward pass with so many images at a time, beside kept spectra of x or without them."""
        held = self.images * self.native.input_floats if kept else 0
        scratch = self.native.backward_scratch(images, kept, True, True)
        pool = 4 * int(held + self.native.filter_floats + scratch)
        x_copy = self.x if self.copies_x else 0
        weight_copy = self.weight if self.copies_weight else 0
        gradients = x_copy + weight_copy
        return pool + max(
            self._filters(),
            self._arriving(self.y),
            self.y + self._arriving(x_copy),
            self.y + x_copy + gradients,
            gradients + 2 * self._moved(x_copy),
            weight_copy + self._moved(weight_copy),
        )

    def _arriving(self, copy: int) -> int:
        """A copy in the making: padded, and then with its values in their places."""
        return (2 if self.lowered else 1) * copy

    def _moved(self, copy: int) -> int:
        """A result on its way back through the same places."""
        return copy if self.lowered else 0

    def _filters(self) -> int:
        """Copies of the weight, and native code's own workspace: a part of the forward pass's, by thread."""
        return (2 * self.weight if self.copies_weight else 0) + 4 * int(self.native.forward_scratch)
