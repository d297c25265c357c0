"""From a convolution with stride, padding and dilation to a plain correlation cut into tiles, and back.

Per axis (H the input, p the padding, k the kernel, s the stride, d the dilation, one of s and d is 1):

- stride: the padded axis splits into s phases that become channels, and so does the kernel, of which
  ``taps = ceil(k / s)`` remain (polyphase). Nothing that stride skips is computed.
- dilation: the padded axis splits into d phases that become images; the kernel stays as it is.
- tiles: ``count`` tiles of t values start every ``m = t - taps + 1`` values and give m outputs each
  (overlap-save); the axis is padded or cropped to ``span = count m + taps - 1`` values per phase.

Every step is a permutation, a zero padding or a crop, so its adjoint is the same step backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.transforms.convolution.settings import taps_of


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the convolution; ``tile`` is the transform's length t."""

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    tile: int = 1

    @property
    def out(self) -> int:
        """Outputs of the convolution."""
        return (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    @property
    def taps(self) -> int:
        """Taps of the plain correlation."""
        return taps_of(self.kernel, self.stride)

    @property
    def needed(self) -> int:
        """Outputs of the plain correlation that are used, per phase."""
        return -(-self.out // self.dilation)

    @property
    def step(self) -> int:
        """m, outputs per tile."""
        return self.tile - self.taps + 1

    @property
    def count(self) -> int:
        """Tiles per phase."""
        return -(-self.needed // self.step)

    @property
    def span(self) -> int:
        """Inputs of the plain correlation, per phase."""
        return self.count * self.step + self.taps - 1

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros before and after; below zero, values cropped."""
        return self.padding, self.span * self.stride * self.dilation - self.size - self.padding


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A convolution (N, C, H, W) -> (N, F, Ho, Wo) and the tiled correlation it becomes."""

    batch: int
    channels: int
    filters: int
    groups: int
    rows: Axis
    columns: Axis

    @property
    def phases(self) -> int:
        """Images that dilation makes of one."""
        return self.rows.dilation * self.columns.dilation

    @property
    def fold(self) -> int:
        """Channels that stride makes of one."""
        return self.rows.stride * self.columns.stride

    @property
    def tiles(self) -> int:
        """Tiles of one image, phases included."""
        return self.phases * self.rows.count * self.columns.count

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        return self.batch, self.filters, self.rows.out, self.columns.out

    def lower_input(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n phases, C fold, span, span)."""
        a, b = self.rows, self.columns
        x = F.pad(x, (*b.pads, *a.pads))
        n, channels = x.shape[0], x.shape[1]
        x = x.reshape(n, channels, a.span, a.stride, a.dilation, b.span, b.stride, b.dilation)
        x = x.permute(0, 4, 7, 1, 3, 6, 2, 5)
        return x.reshape(n * self.phases, channels * self.fold, a.span, b.span)

    def raise_input(self, x: Tensor) -> Tensor:
        """Adjoint of :meth:`lower_input`."""
        a, b = self.rows, self.columns
        n, channels = x.shape[0] // self.phases, x.shape[1] // self.fold
        x = x.reshape(n, a.dilation, b.dilation, channels, a.stride, b.stride, a.span, b.span)
        x = x.permute(0, 3, 6, 4, 1, 7, 5, 2)
        x = x.reshape(n, channels, a.span * a.stride * a.dilation, b.span * b.stride * b.dilation)
        return F.pad(x, tuple(-amount for amount in (*b.pads, *a.pads)))

    def lower_weight(self, w: Tensor) -> Tensor:
        """(f, C / g, kH, kW) -> (f, C / g fold, taps, taps)."""
        a, b = self.rows, self.columns
        if self.fold == 1:
            return w
        filters, channels = w.shape[0], w.shape[1]
        w = F.pad(w, (0, b.taps * b.stride - b.kernel, 0, a.taps * a.stride - a.kernel))
        w = w.reshape(filters, channels, a.taps, a.stride, b.taps, b.stride).permute(0, 1, 3, 5, 2, 4)
        return w.reshape(filters, channels * self.fold, a.taps, b.taps)

    def raise_weight(self, w: Tensor) -> Tensor:
        """Adjoint of :meth:`lower_weight`."""
        a, b = self.rows, self.columns
        if self.fold == 1:
            return w
        filters, channels = w.shape[0], w.shape[1] // self.fold
        w = w.reshape(filters, channels, a.stride, b.stride, a.taps, b.taps).permute(0, 1, 4, 2, 5, 3)
        return w.reshape(filters, channels, a.taps * a.stride, b.taps * b.stride)[:, :, : a.kernel, : b.kernel]

    def raise_output(self, y: Tensor) -> Tensor:
        """(n phases, f, count, count, m, m), the tiles' outputs -> (n, f, Ho, Wo)."""
        a, b = self.rows, self.columns
        n, filters = y.shape[0] // self.phases, y.shape[1]
        y = y.reshape(n, a.dilation, b.dilation, filters, a.count, b.count, a.step, b.step)
        y = y.permute(0, 3, 4, 6, 1, 5, 7, 2)
        y = y.reshape(n, filters, a.count * a.step * a.dilation, b.count * b.step * b.dilation)
        return y[:, :, : a.out, : b.out]

    def lower_output(self, grad: Tensor) -> Tensor:
        """Adjoint of :meth:`raise_output`."""
        a, b = self.rows, self.columns
        n, filters = grad.shape[0], grad.shape[1]
        height, width = a.count * a.step * a.dilation, b.count * b.step * b.dilation
        grad = F.pad(grad, (0, width - b.out, 0, height - a.out))
        grad = grad.reshape(n, filters, a.count, a.step, a.dilation, b.count, b.step, b.dilation)
        grad = grad.permute(0, 4, 7, 1, 2, 5, 3, 6)
        return grad.reshape(n * self.phases, filters, a.count, b.count, a.step, b.step)

    def cut(self, x: Tensor) -> Tensor:
        """(i, C, span, span) -> (i, C, count, count, t, t), overlapping tiles, a view."""
        a, b = self.rows, self.columns
        return x.unfold(2, a.tile, a.step).unfold(3, b.tile, b.step)

    def paste(self, tiles: Tensor) -> Tensor:
        """Adjoint of :meth:`cut`: tiles are added where they overlap."""
        images, channels = tiles.shape[0], tiles.shape[1]
        tall = _overlap_add(tiles.transpose(3, 4), self.rows.step)
        wide = _overlap_add(tall.flatten(1, 2), self.columns.step)
        return wide.reshape(images, channels, self.rows.span, self.columns.span)


def _overlap_add(tiles: Tensor, step: int) -> Tensor:
    """(i, C, count, t, ...) -> (i, C, count step + t - step, ...): tile j is added at ``j step``.

    Tiles are cut into slices of ``step`` values: slice q of all tiles is one block of the sum, moved by q steps.
    """
    count, tile = tiles.shape[2], tiles.shape[3]
    rest = tiles.shape[4:]
    if count == 1:
        return tiles.squeeze(2)
    if tile == step:
        return tiles.flatten(2, 3)
    slices = -(-tile // step)
    total = tiles.new_zeros((*tiles.shape[:2], count + slices - 1, step, *rest))
    for q in range(slices):
        part = tiles[:, :, :, q * step : (q + 1) * step]
        total[:, :, q : q + count, : part.shape[3]] += part
    return total.flatten(2, 3)[:, :, : count * step + tile - step]
