"""What FFTConv2d and WinogradConv2d share: the module, conversion both ways, cost and theory."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations

from fastcnn.methods.contract import DeclinedError, LayerTheory, check_input
from fastcnn.methods.dense import PaddingMode, check_fits, conv_arguments, pair
from fastcnn.methods.replace import dense_bytes
from fastcnn.methods.transforms.convolution.arithmetic import products_per_output, why_not_worth
from fastcnn.methods.transforms.convolution.cache import KernelCache
from fastcnn.methods.transforms.convolution.first_call import FirstCalls
from fastcnn.methods.transforms.convolution.measure import Timing, input_shape_of, time_against
from fastcnn.methods.transforms.convolution.ops import convolve, is_traced
from fastcnn.methods.transforms.convolution.passes import passes_for
from fastcnn.methods.transforms.convolution.settings import (
    AUTO,
    Algorithm,
    ConvSettings,
    check_dtype,
    check_pair,
    why_unsupported,
)


class TransformConv2d(nn.Conv2d):
    """``nn.Conv2d`` with another algorithm: same arguments, parameters and ``state_dict``.

    Input (N, C, H, W) or (C, H, W). Subclasses name the algorithm and translate their settings into ``size``
    (``settings.AUTO``, ``settings.FULL`` or a number), ``memory`` in bytes (0: no cap) and ``keep`` (spectra).
    """

    algorithm: ClassVar[Algorithm]
    replaces: ClassVar[type[nn.Module]] = nn.Conv2d
    _first_calls: FirstCalls | None = None

    def __init__(
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
        *,
        size: int,
        memory: int,
        keep: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        check_pair("kernel_size", kernel_size, 1)
        check_pair("stride", stride, 1)
        if not isinstance(padding, str):
            check_pair("padding", padding, 0)
        check_pair("dilation", dilation, 1)
        check_dtype(dtype)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        left, right, top, bottom = self._reversed_padding_repeated_twice
        # Padding the engine cannot express is done before it.
        self._pad_first = padding_mode != "zeros" or left != right or top != bottom
        self._keep = keep
        self._settings = ConvSettings(
            algorithm=self.algorithm,
            size=size,
            memory=memory,
            stride=pair(self.stride),
            padding=(0, 0) if self._pad_first else (top, left),
            dilation=pair(self.dilation),
            groups=groups,
        )
        self._cache = KernelCache()
        self.chosen = ""
        if size != AUTO:
            self._check_supported()

    def _why_unsupported(self) -> str:
        """Why the algorithm cannot serve this layer in its present dtype; empty if it can."""
        return why_unsupported(
            self.algorithm,
            self._settings.size,
            kernel_size=pair(self.kernel_size),
            stride=self._settings.stride,
            dilation=self._settings.dilation,
            precision="float64" if self.weight.dtype == torch.float64 else "float32",
        )

    def _check_supported(self) -> None:
        why = self._why_unsupported()
        if why:
            raise ValueError(why)

    @classmethod
    def _convert(cls, dense: nn.Conv2d, *, force: bool, **settings: Any) -> Self:
        """Build from a dense layer; see the subclasses' ``from_dense``."""
        try:
            layer = cls(**conv_arguments(dense), **settings, device=dense.weight.device, dtype=dense.weight.dtype)
        except ValueError as error:
            raise DeclinedError(str(error)) from error
        _copy(dense, layer)
        if force:
            why = layer._why_unsupported()
            layer.chosen = f"forced, but convolves directly: {why}" if why else "forced"
            return layer
        why = why_not_worth(
            cls.algorithm,
            layer._settings.size,
            channels=dense.in_channels,
            filters=dense.out_channels,
            groups=dense.groups,
            kernel_size=pair(dense.kernel_size),
            stride=pair(dense.stride),
            dilation=pair(dense.dilation),
        )
        if why:
            raise DeclinedError(why)
        shape = input_shape_of(dense)
        if shape is None:
            layer._first_calls = FirstCalls()
            layer.chosen = layer._first_calls.chosen
            return layer
        try:
            timing = time_against(dense, layer, shape)
        except ValueError as error:
            raise DeclinedError(str(error)) from error
        if timing.ours_ms >= timing.dense_ms:
            raise DeclinedError(f"it is no faster: {timing}; force=True converts it all the same")
        layer.chosen = f"measured, {timing}"
        return layer

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` with the same parameters; nothing is lost either way."""
        dense = nn.Conv2d(**conv_arguments(self), device=self.weight.device, dtype=self.weight.dtype)
        _copy(self, dense)
        return dense

    def theory(self) -> LayerTheory:
        """Non-zeros and bytes as in the dense layer; real multiplications per output far from the edges."""
        nonzero = int((self.weight.detach() != 0).sum())
        pairs = self.out_channels * (self.in_channels // self.groups)
        rate: float = self.kernel_size[0] * self.kernel_size[1]
        if not self._why_unsupported():
            rate = products_per_output(
                self.algorithm, self._settings.size, pair(self.kernel_size), self._settings.stride
            )
        bias = 0 if self.bias is None else self.bias.numel()
        return LayerTheory(params=nonzero + bias, macs=max(round(rate * pairs), 1), bytes=dense_bytes(self))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does.

        Raises
        ------
        TypeError, ValueError
            For an input of the wrong kind, rank, channels or dtype, smaller than the kernel once padded, or one
            that ``memory`` does not suffice for.
        """
        name = type(self).__name__
        check_input(input, layer=name, channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=self.weight.dtype)
        x, weight, bias = (input.unsqueeze(0) if input.dim() == 3 else input), self.weight, self.bias
        check_fits(name, x, self.kernel_size, self._settings.dilation, self._reversed_padding_repeated_twice)
        if self._settings.size != AUTO:
            self._check_supported()
        if self._is_direct(x):
            y: Tensor = self._conv_forward(input, weight, bias)
            return y
        if self._pad_first:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        cast_to = None
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            cast_to = torch.get_autocast_dtype(device)
            x, weight = x.float(), weight.float()
            bias = None if bias is None else bias.float()
        if self.training or torch.is_grad_enabled() or is_traced():
            out = convolve(x, weight, bias, self._settings, keep=self._keep)
        else:
            out = self._infer(x, weight, bias)
        if cast_to is not None:
            out = out.to(cast_to)
        return out.squeeze(0) if input.dim() == 3 else out

    def _is_direct(self, x: Tensor) -> bool:
        """Whether ``nn.Conv2d``'s algorithm takes the call of a layer whose conversion left that to its first call.

        Traced calls, fake tensors and empty batches are not timed: the layer's own algorithm takes them.
        """
        first = self._first_calls
        if first is None or is_traced() or type(x) not in (Tensor, nn.Parameter) or x.is_meta or not x.numel():
            return False
        batch, channels, height, width = x.shape
        backward = self.training and self.weight.requires_grad
        setting = (backward, self.weight.dtype, self.weight.device)
        direct = first.is_direct(height, width, setting, lambda: self._time((batch, channels, height, width)))
        self.chosen = first.chosen
        return direct

    def _time(self, shape: tuple[int, int, int, int]) -> Timing:
        """Time two layers as this one, with and without its algorithm; its own parameters stay out of it."""

        def like_this(kind: type[nn.Conv2d], **settings: Any) -> nn.Conv2d:
            # By way of "meta", since initialization would draw random numbers.
            layer = kind(**conv_arguments(self), **settings, device="meta", dtype=self.weight.dtype)
            layer.to_empty(device=self.weight.device)
            for mine, its in ((self.weight, layer.weight), (self.bias, layer.bias)):
                if mine is not None and its is not None:
                    nn.init.constant_(its, 0.01).requires_grad_(mine.requires_grad)
            return layer.train(self.training)

        ours: type[nn.Conv2d] = type_before_parametrizations(self)
        return time_against(like_this(nn.Conv2d), like_this(ours, **self._extra()), shape)

    def _infer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Forward pass with the kernel's transform kept from call to call."""
        passes = passes_for(x, weight, self._settings)
        kernel = self._cache.get(weight, passes.kernel_key, lambda: passes.kernel_spectrum(weight))
        y = passes.forward(x, weight, kernel=kernel)[0]
        return y if bias is None else y.add_(bias[:, None, None])

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training forgets the kept transform of the weight."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``, then the algorithm's."""
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]  # torch's own
        for key, value in self._extra().items():
            text += f", {key}={value!r}"
        return text + (f", chosen={self.chosen!r}" if self.chosen else "")

    def _extra(self) -> dict[str, Any]:
        """Settings of the subclass, as the user wrote them."""
        raise NotImplementedError


def _copy(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """Give ``target`` the parameters, requires_grad and mode of ``source``."""
    with torch.no_grad():
        target.weight.copy_(source.weight)
        target.weight.requires_grad_(source.weight.requires_grad)
        if source.bias is not None and target.bias is not None:
            target.bias.copy_(source.bias)
            target.bias.requires_grad_(source.bias.requires_grad)
    target.train(source.training)
