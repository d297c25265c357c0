"""Circulant and block-circulant layers: matrices that an FFT multiplies by, with a weight per row instead of per entry.

A circulant matrix C(v)[r, c] = v[(r - c) mod n] holds n numbers instead of n * n. Wins size by that factor (the width
for :class:`CirculantConfig`, the block for :class:`BlockCirculantConfig`), and multiply-adds on wide layers. Loses
accuracy unless trained: a trained dense weight is not nearly circulant, so conversion gives a start, not a result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    DeclinedError,
    LayerTheory,
    LinearSpec,
    MethodConfig,
    Sight,
    Spec,
    check_count,
    check_finite,
    check_input,
)
from fastcnn.methods.dense import ConvLike, PaddingMode, conv_arguments, linear_arguments, rebuild_dense
from fastcnn.methods.registry import register_method
from fastcnn.methods.storage import sparse_bits
from fastcnn.methods.structured import circulant_ops as ops

_LAST_SEED = 2**63 - 1


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class CirculantConfig(MethodConfig):
    """Circulant matrices for linear layers: d weights in the place of d x d, products by FFT.

    A weight (k, d) becomes the first k rows of ceil(k / d) matrices C(v) D, one above the other, where D = diag(signs)
    is random and fixed. Conversion finds the nearest such weight in the Frobenius norm. That is a start for training
    and no more: of a weight without structure it misses the share sqrt(1 - 1 / min(k, d)) of the norm, nearly all.

    Parameters
    ----------
    seed : int
        Of the signs, 0 to 2^63 - 1.
    signs : bool
        False leaves D out, for comparison: without it, C(v) maps a shifted input to the shifted output.
    force : bool
        Also convert layers that become no smaller.

    References
    ----------
    Cheng, Yu, Feris, Kumar, Choudhary and Chang 2015, arXiv:1502.03436. Differs: outputs beyond d come from further
    matrices with vectors and signs of their own.
    """

    method: ClassVar[str] = "circulant"

    seed: int = 0
    signs: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0, _LAST_SEED)
        _check_flag("signs", self.signs)
        _check_flag("force", self.force)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With signs and without."""
        return (cls(force=True), cls(signs=False, force=True))


@dataclass(frozen=True, kw_only=True)
class BlockCirculantConfig(MethodConfig):
    """Circulant blocks for conv and linear layers: 1 / b of the weights, products by short FFTs and small matrices.

    The weight is cut into b x b blocks of output and input channels (of each group, and for each tap); every block is
    a circulant matrix. Channels are filled with zeros to multiples of b. Conversion finds the nearest such weight in
    the Frobenius norm: a start for training, which of a weight without structure misses the share sqrt(1 - 1 / b).

    Parameters
    ----------
    block_size : int
        b; 1 is the dense layer.
    force : bool
        Also convert layers that become no smaller.

    References
    ----------
    Ding et al. 2017 (CirCNN), arXiv:1708.08917. Differs: where spectra would take more multiply-adds than the dense
    weight, the dense weight is written out.
    """

    method: ClassVar[str] = "block-circulant"

    block_size: int = 16
    force: bool = False

    def __post_init__(self) -> None:
        check_count("block_size", self.block_size, 1)
        _check_flag("force", self.force)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """An even and an odd length."""
        return (cls(block_size=4, force=True), cls(block_size=3, force=True))


def random_signs(pairs: int, length: int, seed: int) -> Tensor:
    """Signs +1 and -1 of a seed, int8 of shape (pairs, length), on the CPU."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randint(0, 2, (pairs, length), generator=generator, dtype=torch.int8, device="cpu") * 2 - 1


def circulant_weight(vectors: Tensor, signs: Tensor, rows: int) -> Tensor:
    """First rows of the matrices C(v) D, one above the other.

    Parameters
    ----------
    vectors, signs : Tensor, shape (q, d)
    rows : int
        At most q * d.

    Returns
    -------
    Tensor, shape (rows, d)
    """
    length = vectors.shape[1]
    row = torch.arange(rows, device=vectors.device)
    column = torch.arange(length, device=vectors.device)
    matrix = row // length
    return vectors[matrix[:, None], (row[:, None] - column) % length] * signs[matrix].to(vectors.dtype)


def project_circulant(weight: Tensor, signs: Tensor) -> Tensor:
    """Vectors whose :func:`circulant_weight` is nearest to a weight: means of W D along wrapped diagonals.

    Parameters
    ----------
    weight : Tensor, shape (k, d)
    signs : Tensor, shape (ceil(k / d), d)

    Returns
    -------
    Tensor, shape (ceil(k / d), d), dtype and device of ``weight``
    """
    length = weight.shape[1]
    column = torch.arange(length, device=weight.device)
    vectors = []
    for start, flips in zip(range(0, weight.shape[0], length), signs, strict=True):
        part = weight[start : start + length]
        row = torch.arange(part.shape[0], device=weight.device)
        # Diagonal k has one entry in each row: column row - k.
        vectors.append((part * flips.to(part)).gather(1, (row[:, None] - column) % length).mean(0))
    return torch.stack(vectors)


def project_blocks(weight: Tensor, block_size: int, groups: int = 1) -> Tensor:
    """Vectors whose :func:`~fastcnn.methods.structured.circulant_ops.expand` is nearest to a weight.

    Means along the wrapped diagonals of each block, over the entries the weight has; 0 where it has none.

    Parameters
    ----------
    weight : Tensor, shape (F, C / groups, ...)
    block_size : int
    groups : int

    Returns
    -------
    Tensor, shape (groups * p, q, b, ...), dtype and device of ``weight``
    """
    entries = ops.collect(weight.new_ones(weight.shape[:2]), block_size, groups)
    sums = ops.collect(weight, block_size, groups)
    return sums / entries.clamp(min=1).reshape(*entries.shape, *[1] * (weight.dim() - 2))


class _Circulant(nn.Module):
    """What the three layers share: the parameters, and how they are filled and counted."""

    vectors: nn.Parameter
    bias: nn.Parameter | None

    def _hold(self, shape: tuple[int, ...], out: int, bias: bool, factory: dict[str, Any]) -> None:
        self.vectors = nn.Parameter(torch.empty(shape, **factory))
        self.register_parameter("bias", nn.Parameter(torch.empty(out, **factory)) if bias else None)
        self.reset_parameters()

    @property
    def fan_in(self) -> int:
        """Numbers that a row of the dense weight has."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: vectors N(0, 2 / fan_in) of the dense layer, bias zero."""
        with torch.no_grad():
            self.vectors.normal_(0.0, math.sqrt(2.0 / self.fan_in))
            if self.bias is not None:
                self.bias.zero_()

    def _fill(self, dense: nn.Conv2d | nn.Linear, vectors: Tensor) -> None:
        """Take these vectors; bias, requires_grad and mode are those of ``dense``."""
        with torch.no_grad():
            self.vectors.copy_(vectors).requires_grad_(dense.weight.requires_grad)
            if self.bias is not None and dense.bias is not None:
                self.bias.copy_(dense.bias).requires_grad_(dense.bias.requires_grad)
        self.train(dense.training)

    def _cast(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, vectors and bias in the dtype of autocast, if it is on: custom ops are not on its lists."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return x, self.vectors, self.bias
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), self.vectors.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def _theory(self, macs: int, fixed_bits: int = 0) -> LayerTheory:
        """Non-zeros, and bytes: dense, or positions at their bound plus non-zeros if that is less; fixed bits."""
        item = self.vectors.element_size()
        bias = 0 if self.bias is None else self.bias.numel()
        nonzero = int((self.vectors.detach() != 0).sum())
        bits = math.ceil(sparse_bits(self.vectors.numel(), nonzero, 8 * item)) + fixed_bits
        return LayerTheory(params=nonzero + bias, macs=macs, bytes=-(-bits // 8) + item * bias)


def _circulant_macs(pairs: int, length: int) -> int:
    """Each pair has a transform of its own input and of its own output."""
    return pairs * (2 * ops.transform_macs(length) + ops.product_macs(length))


@register_method(CirculantConfig)
class CirculantLinear(_Circulant):
    """Linear layer whose weight is the first rows of circulant matrices with signs, C(v) D.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    seed, signs
        As in :class:`CirculantConfig`.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong kind or out of range.

    Notes
    -----
    ``vectors`` (q, in_features) is a parameter, q = ceil(out_features / in_features); ``signs`` of the same shape,
    int8, a buffer. Input (..., in_features).

    References
    ----------
    Cheng et al. 2015, arXiv:1502.03436.
    """

    kernel: ClassVar[str | None] = "circulant_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear
    signs: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        seed: int = 0,
        signs: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        check_count("seed", seed, 0, _LAST_SEED)
        _check_flag("signs", signs)
        self.in_features, self.out_features, self.seed, self._signed = in_features, out_features, seed, signs
        pairs = ops.count_blocks(out_features, in_features)
        self._hold((pairs, in_features), out_features, bias, {"device": device, "dtype": dtype})
        values = random_signs(pairs, in_features, seed) if signs else torch.ones(pairs, in_features, dtype=torch.int8)
        self.register_buffer("signs", values.to(self.vectors.device))

    @property
    def fan_in(self) -> int:
        """Numbers that a row of the dense weight has."""
        return self.in_features

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: CirculantConfig, sight: Sight | None = None) -> Self:
        """Take the nearest weight of this form; keeps mode, device, dtype and requires_grad of ``dense``.

        A start for training, whatever the weight: see :class:`CirculantConfig`.

        Raises
        ------
        DeclinedError
            If the layer would become no smaller: one output, or one input.
        ValueError
            If a weight is NaN or Inf.
        """
        check_finite(dense.weight, "weight")
        weights = ops.count_blocks(dense.out_features, dense.in_features) * dense.in_features
        if weights >= dense.weight.numel() and not config.force:
            # One output, or one input: multiply-adds do not become fewer either.
            raise DeclinedError(f"a circulant form has {weights} weights, no fewer than its {dense.weight.numel()}")
        layer = cls(
            **linear_arguments(dense),
            seed=config.seed,
            signs=config.signs,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        layer._fill(dense, project_circulant(dense.weight.detach().to("cpu", torch.float64), layer.signs.cpu()))
        return layer

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Linear)
        return dense

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this layer stands for, in float64, made anew on every reading."""
        return circulant_weight(self.vectors.detach().double(), self.signs, self.out_features)

    @staticmethod
    def cost(config: CirculantConfig, spec: LinearSpec) -> Cost:
        """Cost in float32, signs of a byte each. The weight's transform, once per batch, is not in ``macs``."""
        length, bias = spec.in_features, spec.out_features if spec.bias else 0
        pairs = ops.count_blocks(spec.out_features, length)
        return Cost(
            macs=_circulant_macs(pairs, length),
            params=pairs * length + bias,
            param_bytes=4 * (pairs * length + bias) + pairs * length,
            # Flipped inputs and outputs; spectra of inputs, weight and outputs.
            workspace_bytes=pairs * (2 * 4 * length + 3 * 8 * (length // 2 + 1)),
        )

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds per row, and bytes: vectors and bias, and a bit for each sign if there are any."""
        bits = self.signs.numel() if bool((self.signs < 0).any()) else 0
        return self._theory(_circulant_macs(*self.vectors.shape), bits)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        check_input(
            input, layer="CirculantLinear", channels=self.in_features, axis=-1, ranks=(), dtype=self.vectors.dtype
        )
        x, vectors, bias = self._cast(input)
        out: Tensor = torch.ops.fastcnn.circulant_linear(x, vectors, self.signs, bias, self.out_features)
        return out

    def extra_repr(self) -> str:
        """Shape and what the signs come from."""
        signs = "" if self._signed else ", signs=False"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, seed={self.seed}{signs}"


def _groups(spec: Spec) -> tuple[int, int, int, int]:
    """Groups, then output channels and input channels of one, then taps."""
    if isinstance(spec, LinearSpec):
        return 1, spec.out_features, spec.in_features, 1
    return spec.groups, spec.out_channels // spec.groups, spec.in_channels // spec.groups, math.prod(spec.kernel_size)


def _block_weights(spec: Spec, block_size: int) -> int:
    groups, rows, columns, taps = _groups(spec)
    return groups * ops.count_blocks(rows, block_size) * ops.count_blocks(columns, block_size) * block_size * taps


def _block_macs(spec: Spec, block_size: int, fold: int = 1) -> int:
    """Multiply-adds per output position by the way the ops take."""
    groups, rows, columns, taps = _groups(spec)
    return groups * min(ops.spectral_macs(rows, columns, block_size, taps, fold), rows * columns * taps)


def _block_cost(config: BlockCirculantConfig, spec: Spec) -> Cost:
    groups, rows, columns, taps = _groups(spec)
    b, bins = config.block_size, config.block_size // 2 + 1
    weights = _block_weights(spec, b)
    params = weights + (spec.out_channels if spec.bias else 0)
    positions = math.prod(spec.output_size) if isinstance(spec, ConvSpec) else 1
    workspace = 4 * spec.weights
    if ops.takes_spectra(rows, columns, b, taps):
        # Spectra of the input and of the output; of the weight, complex for linear, in real form (twice) for conv.
        spectra = (ops.count_blocks(rows, b) + ops.count_blocks(columns, b)) * groups * bins * positions
        workspace = 8 * (spectra + weights // b * bins * (2 if isinstance(spec, ConvSpec) else 1))
    return Cost(macs=_block_macs(spec, b) * positions, params=params, param_bytes=4 * params, workspace_bytes=workspace)


def _check_shrinks(spec: Spec, config: BlockCirculantConfig) -> None:
    """DeclinedError for blocks that do not shrink a layer; spectra, 2 b - 2 multiply-adds a block, save none then."""
    weights = _block_weights(spec, config.block_size)
    if weights >= spec.weights and not config.force:
        raise DeclinedError(
            f"circulant blocks of {config.block_size} need {weights} weights, no fewer than its {spec.weights}"
        )


@register_method(BlockCirculantConfig)
class BlockCirculantLinear(_Circulant):
    """Linear layer whose weight is made of circulant blocks.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    block_size : int
        b.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong kind or out of range.

    Notes
    -----
    ``vectors`` (p, q, b) is a parameter, p = ceil(out_features / b), q = ceil(in_features / b): entry (r, c) of block
    (i, j) is ``vectors[i, j, (r - c) mod b]``. Input (..., in_features).

    References
    ----------
    Ding et al. 2017, arXiv:1708.08917.
    """

    kernel: ClassVar[str | None] = "block_circulant_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        block_size: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        check_count("block_size", block_size, 1)
        self.in_features, self.out_features, self.block_size = in_features, out_features, block_size
        shape = (ops.count_blocks(out_features, block_size), ops.count_blocks(in_features, block_size), block_size)
        self._hold(shape, out_features, bias, {"device": device, "dtype": dtype})

    @property
    def fan_in(self) -> int:
        """Numbers that a row of the dense weight has."""
        return self.in_features

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: BlockCirculantConfig, sight: Sight | None = None) -> Self:
        """Take the nearest weight of this form; keeps mode, device, dtype and requires_grad of ``dense``.

        A start for training, whatever the weight: see :class:`BlockCirculantConfig`.

        Raises
        ------
        DeclinedError
            If the layer would become no smaller.
        ValueError
            If a weight is NaN or Inf.
        """
        check_finite(dense.weight, "weight")
        _check_shrinks(LinearSpec.of(dense), config)
        layer = cls(
            **linear_arguments(dense),
            block_size=config.block_size,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        layer._fill(dense, project_blocks(dense.weight.detach().to("cpu", torch.float64), config.block_size))
        return layer

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Linear)
        return dense

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this layer stands for, in float64, made anew on every reading."""
        return ops.expand(self.vectors.detach().double(), self.out_features, self.in_features)

    @staticmethod
    def cost(config: BlockCirculantConfig, spec: LinearSpec) -> Cost:
        """Cost in float32. The weight's transform, once per batch, is not in ``macs``."""
        return _block_cost(config, spec)

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds per row, bytes."""
        spec = LinearSpec(in_features=self.in_features, out_features=self.out_features)
        return self._theory(_block_macs(spec, self.block_size))

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        check_input(
            input, layer="BlockCirculantLinear", channels=self.in_features, axis=-1, ranks=(), dtype=self.vectors.dtype
        )
        x, vectors, bias = self._cast(input)
        out: Tensor = torch.ops.fastcnn.block_circulant_linear(x, vectors, bias, self.out_features)
        return out

    def extra_repr(self) -> str:
        """Shape and block."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, block_size={self.block_size}"


@register_method(BlockCirculantConfig)
class BlockCirculantConv2d(ConvLike, _Circulant):
    """Convolution whose weight, at every tap, is made of circulant blocks over output and input channels.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; each group has blocks of its own.
    block_size : int
        b.

    Raises
    ------
    TypeError, ValueError
        For an argument of the wrong kind or out of range.

    Notes
    -----
    ``vectors`` (groups * p, q, b, kh, kw) is a parameter, p and q the blocks that hold a group's output and input
    channels: entry (r, c) of block (i, j) at tap (u, v) is ``vectors[i, j, (r - c) mod b, u, v]``. Input (N, C, H, W)
    or (C, H, W).

    References
    ----------
    Ding et al. 2017, arXiv:1708.08917.
    """

    kernel: ClassVar[str | None] = "block_circulant_conv2d"

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
        block_size: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels, 1)
        check_count("out_channels", out_channels, 1)
        check_count("block_size", block_size, 1)
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.block_size = block_size
        p, q = ops.count_blocks(out_channels // groups, block_size), ops.count_blocks(in_channels // groups, block_size)
        shape = (groups * p, q, block_size, *self.kernel_size)
        self._hold(shape, out_channels, bias, {"device": device, "dtype": dtype})

    @property
    def fan_in(self) -> int:
        """Numbers that a filter of the dense weight has."""
        return self.in_channels // self.groups * math.prod(self.kernel_size)

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: BlockCirculantConfig, sight: Sight | None = None) -> Self:
        """Take the nearest weight of this form; raises as :meth:`BlockCirculantLinear.from_dense`."""
        check_finite(dense.weight, "weight")
        _check_shrinks(ConvSpec.of(dense), config)
        layer = cls(
            **conv_arguments(dense),
            block_size=config.block_size,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        weight = dense.weight.detach().to("cpu", torch.float64)
        layer._fill(dense, project_blocks(weight, config.block_size, dense.groups))
        return layer

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Conv2d)
        return dense

    @property
    def weight(self) -> Tensor:
        """The dense weight (F, C / groups, kh, kw) this layer stands for, in float64, made anew on every reading."""
        columns = self.in_channels // self.groups
        return ops.expand(self.vectors.detach().double(), self.out_channels, columns, self.groups)

    @staticmethod
    def cost(config: BlockCirculantConfig, spec: ConvSpec) -> Cost:
        """Cost in float32 at stride 1. The weight's transform, once per batch, is not in ``macs``."""
        return _block_cost(config, spec)

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds per output position, bytes."""
        return self._theory(_block_macs(self.spec, self.block_size, math.prod(self.stride)))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does.

        Raises
        ------
        TypeError, ValueError
            For an input of the wrong kind, rank, channels or dtype, or smaller than the kernel once padded.
        """
        name = "BlockCirculantConv2d"
        check_input(input, layer=name, channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=self.vectors.dtype)
        x, vectors, bias = self._cast(input.unsqueeze(0) if input.dim() == 3 else input)
        self.check_fits(x)
        out: Tensor = torch.ops.fastcnn.block_circulant_conv2d(
            self.padded(x),
            vectors,
            bias,
            self.out_channels,
            list(self.stride),
            list(self.inner_padding),
            list(self.dilation),
            self.groups,
        )
        return out.squeeze(0) if input.dim() == 3 else out

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``, then the block."""
        return f"{self.arguments_repr()}, block_size={self.block_size}"
