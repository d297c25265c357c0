"""How a convolution walks over a map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Window:
    """Arguments of ``binary_conv2d``, in full; as it stands, a linear layer's on maps of one pixel.

    Parameters
    ----------
    kernel_size, stride, dilation : tuple of int
        Down and across.
    padding : tuple of int
        Top, left, bottom, right.
    groups : int
    pad_value : {-1, 0, 1}
        What stands around a map of signs.
    """

    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the outputs; 0 or less where the kernel does not fit."""
        top, left, bottom, right = self.padding
        have = height + top + bottom, width + left + right
        return (
            (have[0] - self.dilation[0] * (self.kernel_size[0] - 1) - 1) // self.stride[0] + 1,
            (have[1] - self.dilation[1] * (self.kernel_size[1] - 1) - 1) // self.stride[1] + 1,
        )

    def elements(self, x: Tensor, outputs: int) -> int:
        """Of the outputs for an input (N, C, H, W); 0 where they cannot be computed."""
        if x.dim() != 4 or x.shape[1] % self.groups or outputs % self.groups:
            return 0
        height, width = self.size(x.shape[2], x.shape[3])
        return x.shape[0] * outputs * max(height, 0) * max(width, 0)
