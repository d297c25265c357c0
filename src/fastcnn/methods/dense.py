"""Dense layers taken apart and put together again: what layers that stand for them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import ConvSpec

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """Two numbers of two, or of one that stands for both."""
    return values[0], values[-1]


def conv_arguments(layer: Any) -> dict[str, Any]:
    """Arguments of ``nn.Conv2d`` for another layer of this form; ``layer`` has them as attributes."""
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": pair(layer.kernel_size),
        "stride": pair(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else pair(layer.padding),
        "dilation": pair(layer.dilation),
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }


def linear_arguments(layer: Any) -> dict[str, Any]:
    """Arguments of ``nn.Linear`` for another layer of this form."""
    return {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias is not None,
    }


class ConvLike(nn.Module):
    """A module with the arguments of ``nn.Conv2d``, checked and normalised by it, and its ways of padding.

    Subclasses call :meth:`keep_arguments` in their constructor.
    """

    replaces: ClassVar[type[nn.Module]] = nn.Conv2d

    def keep_arguments(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: str | int | tuple[int, int],
        dilation: int | tuple[int, int],
        groups: int,
        bias: bool,
        padding_mode: PaddingMode,
    ) -> None:
        """Take the arguments over as attributes; pairs where ``nn.Conv2d`` allows a number.

        Raises
        ------
        ValueError
            Where ``nn.Conv2d`` raises it.
        """
        # On "meta" it allocates nothing.
        plan = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device="meta"
        )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = map(pair, (plan.kernel_size, plan.stride, plan.dilation))
        self.padding: str | tuple[int, int] = plan.padding if isinstance(plan.padding, str) else pair(plan.padding)
        self.padding_mode = padding_mode
        # left, right, top, bottom, as F.pad wants it
        self._pads: list[int] = list(plan._reversed_padding_repeated_twice)
        self.spec = ConvSpec.of(plan)

    @property
    def inner_padding(self) -> tuple[int, int]:
        """Zeros above and left (and as many below and right) that a convolution may add itself."""
        left, right, top, bottom = self._pads
        return (0, 0) if self.padding_mode != "zeros" or left != right or top != bottom else (top, left)

    def padded(self, x: Tensor) -> Tensor:
        """The input with all padding that :attr:`inner_padding` leaves out."""
        if self.inner_padding != (0, 0) or not any(self._pads):
            return x
        return F.pad(x, self._pads, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)

    def check_fits(self, x: Tensor) -> None:
        """ValueError if the kernel does not fit into the padded input (N, C, H, W)."""
        check_fits(type(self).__name__, x, self.kernel_size, self.dilation, self._pads)

    def arguments_repr(self) -> str:
        """Arguments as ``nn.Conv2d`` shows them."""
        bias = getattr(self, "bias", None) is not None
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, bias={bias}"
        )


def check_fits(
    layer: str, x: Tensor, kernel_size: tuple[int, ...], dilation: tuple[int, ...], pads: Sequence[int]
) -> None:
    """ValueError if a kernel does not fit into the padded input (N, C, H, W); pads as ``F.pad`` wants them."""
    left, right, top, bottom = pads
    for i, axis, pad in ((0, "height", top + bottom), (1, "width", left + right)):
        reach = dilation[i] * (kernel_size[i] - 1) + 1
        have = x.shape[2 + i] + pad
        if have < reach:
            raise ValueError(
                f"input of {layer} has padded {axis} {have}, but its kernel reaches over {reach}: "
                "give a larger image or more padding"
            )


def rebuild_dense(layer: Any, weight: Tensor) -> nn.Conv2d | nn.Linear:
    """Return the dense layer with the arguments, bias and mode of ``layer`` and this weight.

    The weight may be in a wider dtype; the layer has that of ``layer``'s own parameters.
    """
    own = next(layer.parameters())
    factory: dict[str, Any] = {"device": own.device, "dtype": own.dtype}
    dense: nn.Conv2d | nn.Linear
    if hasattr(layer, "kernel_size"):
        dense = nn.Conv2d(**conv_arguments(layer), **factory)
    else:
        dense = nn.Linear(**linear_arguments(layer), **factory)
    with torch.no_grad():
        dense.weight.copy_(weight)
        dense.weight.requires_grad_(own.requires_grad)
        if layer.bias is not None and dense.bias is not None:
            dense.bias.copy_(layer.bias)
            dense.bias.requires_grad_(layer.bias.requires_grad)
    return dense.train(layer.training)
