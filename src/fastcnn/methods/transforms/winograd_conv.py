"""Winograd convolution F(m, r) with exact matrices; same weights, for training and inference.

Wins on small kernels (3, 5) with many channels, where the transforms are compiled; loses on few channels, depthwise
and 1x1 layers, which ``convert`` declines. Exact as algebra; in float32 within 4e-6 (F(2, 3)), 4e-5 (F(4, 3)) and
1e-4 (F(6, 3)) of the largest output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from fastcnn.methods.contract import ConvSpec, Cost, MethodConfig, check_count
from fastcnn.methods.dense import PaddingMode
from fastcnn.methods.registry import register_method
from fastcnn.methods.transforms.convolution.arithmetic import cost_of
from fastcnn.methods.transforms.convolution.layer import TransformConv2d
from fastcnn.methods.transforms.convolution.settings import (
    AUTO,
    MAX_WINOGRAD_TILE,
    Algorithm,
    ConvSettings,
    check_memory,
)


def check_step(m: int | None) -> int:
    """Return the engine's number for m; ValueError if no kernel could use it."""
    if m is None:
        return AUTO
    check_count("m", m, 1, MAX_WINOGRAD_TILE["float64"] - 1)
    return m


@dataclass(frozen=True, kw_only=True)
class WinogradConfig(MethodConfig):
    """Winograd algorithm for 2-d convolutions; the weights stay as they are.

    ``convert`` keeps a layer where a measurement at its input size shows a gain. It needs ``data`` for that; without
    it each layer is timed in its first call, once per size of the map (at most 8), with the backward pass in training
    mode, and convolves as ``nn.Conv2d`` does where the algorithm is no faster; ``chosen`` says what was found.

    Parameters
    ----------
    m : int, optional
        Outputs per tile and axis, m in F(m, r). Larger saves more multiplications and loses accuracy; the tile
        m + r - 1 may have 10 values in float32, 14 in float64. None: tiles of 6 up to 4 taps, of 8 above. Where that
        does not apply (more than 7 taps, stride and dilation on one axis) a layer without m convolves directly.
    memory : int, optional
        Cap in bytes, per layer, on everything held in the transform domain at once, temporaries included; the
        batch and the filters are taken in parts. None: no cap.
    force : bool
        Convert every layer the algorithm can serve, without asking whether it gains time.

    References
    ----------
    Lavin and Gray 2016, arXiv:1509.09308, section 4; points: Barabasz et al. 2018, arXiv:1803.10986. Differs: any m
    and r, one set of matrices per axis, gradients by the transposed matrices, stride by polyphase.
    """

    method: ClassVar[str] = "winograd"
    reads_input_sizes: ClassVar[bool] = True

    m: int | None = None
    memory: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        check_step(self.m)
        check_memory(self.memory)
        if not isinstance(self.force, bool):
            raise TypeError(f"force must be True or False, got {self.force!r}")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The default by kernel size, the most accurate, and one under a cap."""
        return (cls(force=True), cls(m=2, force=True), cls(m=3, memory=1 << 18, force=True))


@register_method(WinogradConfig)
class WinogradConv2d(TransformConv2d):
    """Convolution by Winograd's minimal filtering.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``.
    m, memory
        As in :class:`WinogradConfig`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong kind or out of range, dtypes that are not real floating point among them.
    ValueError
        If ``m`` is given and the kernel has more than 7 taps, the tile is too long for the dtype, or stride and
        dilation are both above 1 on one axis.

    Notes
    -----
    A NaN or Inf in the input reaches outputs of its tile beside those whose window holds it. Halves are computed in
    float32.

    References
    ----------
    Lavin and Gray 2016, arXiv:1509.09308.
    """

    kernel: ClassVar[str | None] = "winograd_conv2d"
    algorithm: ClassVar[Algorithm] = "winograd"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        m: int | None = None,
        memory: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            size=check_step(m),
            memory=check_memory(memory),
            keep=True,
            device=device,
            dtype=dtype,
        )
        self.m, self.memory = m, memory

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: WinogradConfig) -> Self:
        """Take over the parameters of ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If the algorithm cannot serve the layer; without ``config.force`` also if its form cannot gain time (1x1,
            depthwise, fewer than 32 channels or filters per group, dilation) or a measurement at the input size
            noted on ``dense`` shows no gain. Where no size is noted the first call decides.
        """
        return cls._convert(dense, force=config.force, m=config.m, memory=config.memory)

    @staticmethod
    def cost(config: WinogradConfig, spec: ConvSpec) -> Cost:
        """Real multiplications of the products and bytes of the spectra of one picture, at stride 1."""
        return cost_of(ConvSettings(algorithm="winograd", size=check_step(config.m), groups=spec.groups), spec)

    def _extra(self) -> dict[str, Any]:
        return {"m": self.m, "memory": self.memory}
