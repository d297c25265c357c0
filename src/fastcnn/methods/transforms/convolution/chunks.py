"""The memory cap: how many images and filters a pass may hold in the transform domain at once.

Notation, in bytes: X the spectra of one image, Y of one image under one filter of each group, K of one filter of each
group; n images and f filters (of each group) at a time. A transform holds its padded input, its tiles and its spectra
in two layouts, so making X takes 4 X, making K 3 K, and inverting Y 5 Y; the bounds below add up what lives then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from fastcnn.methods.transforms.convolution.geometry import Geometry

_MAKE, _MAKE_KERNEL, _INVERT = 4, 3, 5


def _bins(g: Geometry, is_complex: bool) -> int:
    """Real numbers per tile in the transform domain."""
    rows, columns = g.rows.tile, g.columns.tile
    if not is_complex:
        return rows * columns
    if columns > 1:
        return 2 * rows * (columns // 2 + 1)
    return 2 * (rows // 2 + 1) if rows > 1 else 1


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Images and filters (of each group) taken at once."""

    images: int
    filters: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Sizes in the transform domain, in bytes, as in the module's notation."""

    image: int
    response: int
    filter: int
    images: int
    filters: int

    @classmethod
    def of(cls, geometry: Geometry, *, is_complex: bool, item: int = 4) -> Self:
        """Read the sizes off a geometry; ``item`` is the size of a real number."""
        g = geometry
        bins = item * _bins(g, is_complex)
        channels = g.channels * g.fold
        return cls(
            image=bins * g.tiles * channels,
            response=bins * g.tiles * g.groups,
            filter=bins * channels,
            images=g.batch,
            filters=g.filters // g.groups,
        )

    def forward_bytes(self, n: int, f: int) -> int:
        """Bound of the forward pass."""
        x, y, k = n * self.image, n * f * self.response, f * self.filter
        return max(_MAKE_KERNEL * k, k + _MAKE * x, k + x + _INVERT * y)

    def kept_bytes(self) -> int:
        """Spectra of all images and filters, as the forward pass hands them on."""
        return self.images * self.image + self.filters * self.filter

    def backward_bytes(self, n: int, f: int) -> int:
        """Bound of the backward pass, spectra made anew; with all filters at once both gradients share D."""
        x, d, k = n * self.image, n * f * self.response, f * self.filter
        if f == self.filters:
            return 2 * k + max(_MAKE_KERNEL * k, _MAKE * x, x + _MAKE * d, k + 2 * d + _INVERT * x)
        gradient_x = x + max(_MAKE_KERNEL * k, 2 * k + _MAKE * d, (_INVERT - 1) * x)
        gradient_w = k + max(_MAKE * x, x + _MAKE * d, (_INVERT - 1) * k)
        return max(gradient_x, gradient_w)

    def kept_backward_bytes(self, n: int) -> int:
        """Bound of the backward pass beside kept spectra, all filters at once."""
        x, d, k = n * self.image, n * self.filters * self.response, self.filters * self.filter
        return self.kept_bytes() + k + max(_MAKE_KERNEL * k, _MAKE * d, k + 2 * d + _INVERT * x)

    @property
    def least(self) -> int:
        """Smallest cap that both passes can keep: one image and one filter of each group at a time."""
        return max(self.forward_bytes(1, 1), self.backward_bytes(1, 1))

    def forward(self, memory: int) -> Chunk:
        """Largest chunk of the forward pass within ``memory`` bytes (0: no cap)."""
        return self._fit(memory, self.forward_bytes)

    def backward(self, memory: int) -> Chunk:
        """Largest chunk of the backward pass that makes its spectra anew."""
        return self._fit(memory, self.backward_bytes)

    def kept_backward(self, memory: int) -> int:
        """Images at a time in the backward pass beside kept spectra; 0 if they must not be kept."""
        if not memory:
            return self.images
        n = self.images
        while n and self.kept_backward_bytes(n) > memory:
            n = n // 2
        return n

    def _fit(self, memory: int, need: Callable[[int, int], int]) -> Chunk:
        if not memory:
            return Chunk(images=self.images, filters=self.filters)
        f = self.filters
        while True:
            n = self.images
            while n > 1 and need(n, f) > memory:
                n = -(-n // 2)
            if need(n, f) <= memory:
                return Chunk(images=n, filters=f)
            if f == 1:
                raise ValueError(
                    f"memory={memory} bytes is too small for this shape: one image and one filter at a time take "
                    f"{self.least} bytes. Raise memory, choose a smaller tile, or leave memory out"
                )
            f = -(-f // 2)
