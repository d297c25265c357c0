"""Layers of few bits, as they are run: planes of signs, a scale and a bias of each output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import LayerTheory, check_input
from fastcnn.methods.dense import ConvLike
from fastcnn.methods.lowprecision.binary_ops import pack_planes, quantize, sign, unpack_planes


def padded(x: Tensor, pads: Sequence[int], mode: str, value: float) -> Tensor:
    """A map (N, C, H, W) with its surroundings; pads and mode as ``F.pad`` has them, zeros meaning ``value``."""
    if not any(pads):
        return x
    if mode == "zeros":
        return F.pad(x, list(pads), value=float(value))
    return F.pad(x, list(pads), mode=mode)


def box_mean(x: Tensor, conv: Any) -> Tensor:
    """Mean |x| under the kernel of each output, (N, 1, H', W') or (N, O, H', W') for groups; zeros around count.

    References
    ----------
    Rastegari et al. 2016, arXiv:1603.05279, section 3.2: the map K.
    """
    groups = conv.groups
    sizes = x.abs().reshape(len(x), groups, -1, *x.shape[2:]).mean(2) if groups > 1 else x.abs().mean(1, keepdim=True)
    sizes = padded(sizes, conv._reversed_padding_repeated_twice, conv.padding_mode, 0.0)
    kernel = conv.kernel_size
    outputs = conv.out_channels if groups > 1 else 1
    even = torch.full((outputs, 1, *kernel), 1.0 / (kernel[0] * kernel[1]), dtype=x.dtype, device=x.device)
    return F.conv2d(sizes, even, None, conv.stride, 0, conv.dilation, groups)


class _Packed(nn.Module):
    """What the two layers share: bits, scale and bias as buffers, and what they need in theory."""

    bits: Tensor
    scale: Tensor | None
    bias: Tensor | None
    _like: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs and outputs."""
        return self._like.dtype

    def _hold(
        self, levels: Tensor, scale: Tensor | None, bias: Tensor | None, planes: Sequence[int], signs_in: bool,
        signs_out: bool, levels_in: int, box: bool,
    ) -> None:  # fmt: skip
        self.planes, self.signs_in, self.signs_out, self.box = list(planes), signs_in, signs_out, box
        self.levels_in = levels_in
        self.fan_in = levels[0].numel()
        # Travels with the module to other devices and dtypes.
        self.register_buffer("_like", levels.new_empty(0), persistent=False)
        self.register_buffer("bits", pack_planes(levels, planes))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The real weight (O, ...) that this layer stands for, made anew on every reading."""
        levels = unpack_planes(self.bits, self.planes, self.fan_in)
        if self.scale is None:
            return levels
        return levels.to(self.scale.dtype) * (self.scale * (self.levels_in or 1))[:, None]

    def _numbers(self) -> int:
        return sum(t.numel() for t in (self.scale, self.bias) if t is not None)

    def theory(self) -> LayerTheory:
        """Weights, products of one bit per output position, and bytes: rows of whole words, 4 for each number."""
        rows, wide = self.bits.shape
        weights = rows // len(self.planes) * self.fan_in
        return LayerTheory(
            params=weights + self._numbers(), macs=weights * len(self.planes), bytes=rows * wide + 4 * self._numbers()
        )

    def _taken(self, x: Tensor) -> Tensor:
        """Levels of the inputs, if they are to have any."""
        if not self.levels_in:
            return x
        levels: Tensor = quantize(x, float(self.levels_in), 1.0, 0, 0, self.levels_in)
        return levels

    def _given(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale, and the bias if it comes straight after."""
        return self.scale, None if self.box else self.bias

    def _finish(self, y: Tensor, box: Tensor | None, shape: Sequence[int]) -> Tensor:
        if box is not None:
            y = y * box
            if self.bias is not None:
                y = y + self.bias.reshape(shape)
        return sign(y) if self.signs_out else y

    def _words(self) -> str:
        kind = "signs" if self.planes == [1] else f"planes {self.planes}"
        extra = [
            f"weights of {kind}" + (" and a scale" if self.scale is not None else ""),
            "inputs by their signs" if self.signs_in else "inputs as they are",
        ]
        if self.levels_in:
            extra[-1] = f"inputs of {self.levels_in + 1} levels"
        if self.box:
            extra.append("scaled by the inputs' mean size")
        if self.signs_out:
            extra.append("outputs by their signs")
        return ", ".join(extra)


class BinaryConv2d(ConvLike, _Packed):
    """Convolution whose weight is a few planes of signs; for inference.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; ``bias`` is a tensor (O,) or None here.
    levels : Tensor, shape (O, C / groups, kh, kw)
        Whole numbers that the planes can make.
    scale : Tensor, shape (O,), optional
    planes : sequence of int
        [1] for weights of +-1; see :func:`~fastcnn.methods.lowprecision.binary_ops.pack_planes`.
    signs_in, signs_out : bool
        Whether inputs count by their signs, and outputs are signs.
    levels_in : int
        If not 0, inputs are clipped to [0, 1], multiplied by it and rounded.
    pad_value : {-1, 0, 1}
        What stands around a map of signs.
    box : bool
        Whether outputs are multiplied by the mean |input| under the kernel, before the bias.

    Notes
    -----
    ``bits`` (m O, bytes) uint8, ``scale`` and ``bias`` are buffers. Input (N, C, H, W) or (C, H, W).
    """

    kernel: ClassVar[str | None] = "binary_conv2d"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: Tensor | None = None,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        *,
        levels: Tensor,
        scale: Tensor | None = None,
        planes: Sequence[int] = (1,),
        signs_in: bool = True,
        signs_out: bool = False,
        levels_in: int = 0,
        pad_value: int = 1,
        box: bool = False,
    ) -> None:
        super().__init__()
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias is not None, padding_mode
        )
        self._hold(levels, scale, bias, planes, signs_in, signs_out, levels_in, box)
        self.pad_value = pad_value
        self._reversed_padding_repeated_twice = self._pads

    @property
    def weight(self) -> Tensor:
        """The real weight (O, C / groups, kh, kw) that this layer stands for, made anew on every reading."""
        return super().weight.reshape(-1, self.in_channels // self.groups, *self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve as ``nn.Conv2d`` does."""
        name = type(self).__name__
        check_input(input, layer=name, channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=self.dtype)
        whole = input.unsqueeze(0) if input.dim() == 3 else input
        self.check_fits(whole)
        x, sides = self._taken(whole), [0, 0, 0, 0]
        left, right, top, bottom = self._pads
        if self.padding_mode == "zeros":
            sides = [top, left, bottom, right]
        else:
            x = padded(x, self._pads, self.padding_mode, 0.0)
        scale, bias = self._given()
        y: Tensor = torch.ops.fastcnn.binary_conv2d(
            x, self.bits, scale, bias, list(self.kernel_size), list(self.stride), sides, list(self.dilation),
            self.groups, self.planes, self.signs_in, self.pad_value, self.levels_in,
        )  # fmt: skip
        y = self._finish(y, box_mean(whole, self) if self.box else None, (-1, 1, 1))
        return y.squeeze(0) if input.dim() == 3 else y

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``, then what the bits are."""
        around = f", {self.pad_value} around" if self.signs_in and any(self._pads) else ""
        return f"{self.arguments_repr()}, {self._words()}{around}"


class BinaryLinear(_Packed):
    """Linear layer whose weight is a few planes of signs; for inference.

    Parameters
    ----------
    in_features, out_features
        As in ``torch.nn.Linear``; ``bias`` is a tensor (O,) or None here.
    levels : Tensor, shape (O, I)
    scale, planes, signs_in, signs_out, levels_in, box
        As in :class:`BinaryConv2d`.

    Notes
    -----
    Input (..., I).
    """

    kernel: ClassVar[str | None] = "binary_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: Tensor | None = None,
        *,
        levels: Tensor,
        scale: Tensor | None = None,
        planes: Sequence[int] = (1,),
        signs_in: bool = True,
        signs_out: bool = False,
        levels_in: int = 0,
        box: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._hold(levels, scale, bias, planes, signs_in, signs_out, levels_in, box)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply as ``nn.Linear`` does."""
        check_input(input, layer=type(self).__name__, channels=self.in_features, axis=-1, ranks=(), dtype=self.dtype)
        whole = input if input.dim() == 2 else input.reshape(-1, self.in_features)
        x = self._taken(whole)
        scale, bias = self._given()
        y: Tensor = torch.ops.fastcnn.binary_linear(
            x, self.bits, scale, bias, self.planes, self.signs_in, self.levels_in
        )
        y = self._finish(y, whole.abs().mean(-1, keepdim=True) if self.box else None, (-1,))
        return y if input.dim() == 2 else y.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape, and what the bits are."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._words()}"
