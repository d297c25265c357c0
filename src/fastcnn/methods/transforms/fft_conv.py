"""FFT convolution: products per frequency instead of sums over taps; same weights, for training and inference.

Wins where kernels are large (9 taps and more, often 5 and 7) and channels many; loses on 1x1, few channels and
depthwise layers, which ``convert`` declines. Exact up to rounding: in float32 within 4e-6 of the largest output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from fastcnn.methods.contract import ConvSpec, Cost, MethodConfig, check_choice
from fastcnn.methods.dense import PaddingMode
from fastcnn.methods.registry import register_method
from fastcnn.methods.transforms.convolution.arithmetic import cost_of
from fastcnn.methods.transforms.convolution.layer import TransformConv2d
from fastcnn.methods.transforms.convolution.lengths import TILES
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, Algorithm, ConvSettings, check_memory

Tile = Literal["auto", "full", 8, 16, 32, 64]


def check_tile(tile: object) -> int:
    """Return the engine's number for a tile; ValueError for one that is not offered."""
    if isinstance(tile, str):
        check_choice("tile", tile, ("auto", "full"))
        return AUTO if tile == "auto" else FULL
    if isinstance(tile, bool) or not isinstance(tile, int):
        raise TypeError(f"tile must be 'auto', 'full' or an integer, got {type(tile).__name__} {tile!r}")
    if tile not in TILES:
        raise ValueError(f"tile={tile} is not supported: choose 'auto', 'full', {', '.join(map(str, TILES))}")
    return tile


@dataclass(frozen=True, kw_only=True)
class FFTConfig(MethodConfig):
    """FFT algorithm for 2-d convolutions; the weights stay as they are.

    ``convert`` keeps a layer where a measurement at its input size shows a gain. It needs ``data`` for that; without
    it each layer is timed in its first call, once per size of the map (at most 8), with the backward pass in training
    mode, and convolves as ``nn.Conv2d`` does where the algorithm is no faster; ``chosen`` says what was found.

    Parameters
    ----------
    tile : {"auto", "full", 8, 16, 32, 64}
        Length of the transform along each axis: tiles (overlap-save), or one transform of the whole padded map.
        ``"auto"`` takes the cheapest by arithmetic, for each shape; where the algorithm does not apply (stride and
        dilation on one axis) it convolves directly. Tiles confine rounding and NaN to their neighbourhood.
    save_spectra : bool
        Keep the spectra of input and weight from the forward to the backward pass. False makes them anew: less
        memory, more time.
    memory : int, optional
        Cap in bytes, per layer, on everything held in the transform domain at once, temporaries included; the
        batch and the filters are taken in parts. None: no cap.
    force : bool
        Convert every layer the algorithm can serve, without asking whether it gains time.

    References
    ----------
    Mathieu, Henaff and LeCun 2013, arXiv:1312.5851; tiles: Vasilache et al. 2014, arXiv:1412.7580. Differs: stride by
    polyphase and dilation by phases, instead of computing what is thrown away.
    """

    method: ClassVar[str] = "fft"
    reads_input_sizes: ClassVar[bool] = True

    tile: Tile = "auto"
    save_spectra: bool = True
    memory: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        check_tile(self.tile)
        check_memory(self.memory)
        for name in ("save_spectra", "force"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The choice by arithmetic, the whole map, small tiles without kept spectra, tiles under a cap."""
        return (
            cls(force=True),
            cls(tile="full", force=True),
            cls(tile=8, save_spectra=False, force=True),
            cls(tile=8, memory=1 << 18, force=True),
        )


@register_method(FFTConfig)
class FFTConv2d(TransformConv2d):
    """Convolution by FFT.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``.
    tile, save_spectra, memory
        As in :class:`FFTConfig`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong kind or out of range, dtypes that are not real floating point among them.
    ValueError
        If ``tile`` is shorter than the kernel, or stride and dilation are both above 1 on one axis and ``tile`` is
        not ``"auto"``.

    Notes
    -----
    A NaN or Inf in the input reaches every output of its tile (``"full"``: of its image), not only the outputs whose
    window holds it. Halves are computed in float32.

    References
    ----------
    Mathieu, Henaff and LeCun 2013, arXiv:1312.5851.
    """

    kernel: ClassVar[str | None] = "fft_conv2d"
    algorithm: ClassVar[Algorithm] = "fft"

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
        tile: Tile = "auto",
        save_spectra: bool = True,
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
            size=check_tile(tile),
            memory=check_memory(memory),
            keep=save_spectra,
            device=device,
            dtype=dtype,
        )
        self.tile, self.save_spectra, self.memory = tile, save_spectra, memory

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: FFTConfig) -> Self:
        """Take over the parameters of ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If the algorithm cannot serve the layer; without ``config.force`` also if its form cannot gain time (1x1,
            depthwise, fewer than 32 channels or filters per group, nothing saved) or a measurement at the input
            size noted on ``dense`` shows no gain. Where no size is noted the first call decides.
        """
        return cls._convert(
            dense, force=config.force, tile=config.tile, save_spectra=config.save_spectra, memory=config.memory
        )

    @staticmethod
    def cost(config: FFTConfig, spec: ConvSpec) -> Cost:
        """Real multiplications of the products and bytes of the spectra of one picture, at stride 1."""
        return cost_of(ConvSettings(algorithm="fft", size=check_tile(config.tile), groups=spec.groups), spec)

    def _extra(self) -> dict[str, Any]:
        return {"tile": self.tile, "save_spectra": self.save_spectra, "memory": self.memory}
