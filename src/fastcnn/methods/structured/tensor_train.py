"""Tensor-Train layers: a weight as a chain of small cores over the factors of its rows and columns.

Wins bytes, by far the most on large linear layers; seldom time beyond a batch of one, and the multiply-adds may exceed
the dense layer's. Approximate: at small ranks the conversion is a start for training, not a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    check_range,
    spec_of,
)
from fastcnn.methods.dense import ConvLike, PaddingMode, conv_arguments, linear_arguments, pair, rebuild_dense
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured import tt_ops as tt_ops
from fastcnn.methods.structured.tt_decomposition import (
    MOST_FACTORS,
    CoreShape,
    Factors,
    core_shapes,
    cut_rank,
    full_ranks,
    largest_step,
    level,
    matrix_factors,
    product_macs,
    rebuild_matrix,
    tt_matrix,
)

Ranks = int | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class TTConfig(MethodConfig):
    """Tensor-Train form of linear layers and convolutions.

    A weight of m = m_1 ... m_d rows and n = n_1 ... n_d columns becomes d cores of shape (r_{k-1}, m_k, n_k, r_k). A
    convolution has one more, in front: r filters of its taps that every input channel shares, after which the cores
    take (channels * r) to the output channels at each pixel; a 1x1 convolution has only those. Sizes that do not
    factor well are padded with zeros.

    Parameters
    ----------
    rank : int, optional
        Maximal TT rank: no rank between two cores is larger, and none is larger than an exact train needs there.
    epsilon : float, optional
        Smallest ranks with which ``||W - W'||_F <= epsilon ||W||_F``, from 0 to below 1. Exactly one of ``rank`` and
        ``epsilon`` is given: with this one, say ``rank=None``.
    factors : int, optional
        Cores, 2 to 16. None: 2 to 5, the fewest with which a factor is 8 on average.
    force : bool
        Also convert layers that would not have fewer parameters.

    References
    ----------
    Oseledets 2011, SIAM J. Sci. Comput. 33(5); Novikov et al. 2015, arXiv:1509.06569; convolutions: Garipov et al.
    2016, arXiv:1611.03214. Differs: the spatial core stands at the other end of the train, so that its channels are
    innermost; the norm of a converted weight is spread over all cores.
    """

    method: ClassVar[str] = "tensor-train"

    rank: int | None = 8
    epsilon: float | None = None
    factors: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.epsilon is None):
            raise ValueError(
                f"TTConfig needs exactly one of rank and epsilon, got rank={self.rank}, epsilon={self.epsilon}: "
                "set rank=None beside an epsilon"
            )
        if self.rank is not None:
            check_count("rank", self.rank, 1)
        if self.epsilon is not None:
            check_range("epsilon", self.epsilon, 0.0, 1.0, open_high=True)
        if self.factors is not None:
            check_count("factors", self.factors, 2, MOST_FACTORS)
        if not isinstance(self.force, bool):
            raise TypeError(f"force must be True or False, got {self.force!r}")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Rank one, and a larger one with three cores."""
        return (cls(rank=1, force=True), cls(rank=2, factors=3, force=True))


@dataclass(frozen=True, kw_only=True)
class TrainShape:
    """Everything about a layer's train but the numbers in it.

    Parameters
    ----------
    taps : int
        kh * kw of the spatial core; 1 for a linear layer or a 1x1 convolution, which has none.
    filters : int
        Rank between the spatial core and the rest: filters that every channel shares. 1 where there is none.
    channels : int
        Input channels or features.
    cores : tuple of CoreShape
        Of the TT-matrix (channels * filters) to the outputs.
    """

    taps: int
    filters: int
    channels: int
    cores: tuple[CoreShape, ...]

    @property
    def out_factors(self) -> Factors:
        """m_1 ... m_d."""
        return tuple(core[1] for core in self.cores)

    @property
    def in_factors(self) -> Factors:
        """n_1 ... n_d; the last one holds the filters."""
        return tuple(core[2] for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks that there are between the cores, that of a spatial core first."""
        inner = tuple(core[3] for core in self.cores[:-1])
        return (self.filters, *inner) if self.taps > 1 else inner

    @property
    def weights(self) -> int:
        """Numbers in all cores."""
        spatial = self.taps * self.filters if self.taps > 1 else 0
        return spatial + sum(math.prod(core) for core in self.cores)

    @property
    def macs(self) -> int:
        """Multiply-adds per output position or row."""
        spatial = self.channels * self.filters * self.taps if self.taps > 1 else 0
        return spatial + product_macs(self.cores)

    @property
    def held(self) -> int:
        """Numbers that the reference path holds per output position or row: what the cores are given, and a step."""
        return math.prod(self.in_factors) + largest_step(self.cores)


def train_shape(spec: Spec, rank: Ranks, factors: int | None) -> TrainShape:
    """Shape of a layer's train at a maximal rank, or at ranks that are given one by one.

    Raises
    ------
    TypeError, ValueError
        If a rank is no integer or does not fit, or there are not as many as cores allow.
    """
    taps = math.prod(spec.kernel_size) if isinstance(spec, ConvSpec) else 1
    channels = spec.in_channels if isinstance(spec, ConvSpec) else spec.in_features
    outs, ins = matrix_factors(spec.out_channels, channels, factors)
    spatial = min(taps, channels * spec.out_channels)
    if not isinstance(rank, Sequence):
        check_count("rank", rank, 1)
        filters = min(rank, spatial) if taps > 1 else 1
    else:
        _check_ranks(rank, len(outs) if taps > 1 else len(outs) - 1)
        filters = rank[0] if taps > 1 else 1
        if taps > 1 and filters > spatial:
            raise ValueError(f"rank={tuple(rank)} is out of range: {taps} taps have at most {spatial} shared filters")
    ins = (*ins[:-1], ins[-1] * filters)
    most = full_ranks([m * n for m, n in zip(outs, ins, strict=True)])
    if not isinstance(rank, Sequence):
        inner = tuple(min(rank, full) for full in most)
    else:
        inner = tuple(rank[1:] if taps > 1 else rank)
        if any(own > full for own, full in zip(inner, most, strict=True)):
            raise ValueError(f"rank={tuple(rank)} is out of range: ranks between these cores are at most {most}")
    cores = tuple(core_shapes(outs, ins, inner))
    return TrainShape(taps=taps, filters=filters, channels=channels, cores=cores)


def _check_ranks(ranks: Sequence[int], count: int) -> None:
    for rank in ranks:
        check_count("rank", rank, 1)
    if len(ranks) != count:
        raise ValueError(f"rank={tuple(ranks)} holds {len(ranks)} ranks: this layer has {count}, or give one maximum")


class _Train(nn.Module):
    """What the two layers share: the cores and their arithmetic."""

    kernel: ClassVar[str | None] = "tt_linear"
    cores: nn.ParameterList
    spatial: nn.Parameter | None
    bias: nn.Parameter | None
    shape: TrainShape

    def _hold(self, spec: Spec, rank: Ranks, factors: int | None, bias: bool, factory: dict[str, Any]) -> None:
        self.shape = train_shape(spec, rank, factors)
        taps = spec.kernel_size if isinstance(spec, ConvSpec) else (1, 1)
        spatial = nn.Parameter(torch.empty(self.shape.filters, 1, *taps, **factory)) if self.shape.taps > 1 else None
        self.register_parameter("spatial", spatial)
        self.cores = nn.ParameterList([nn.Parameter(torch.empty(core, **factory)) for core in self.shape.cores])
        self.register_parameter("bias", nn.Parameter(torch.empty(spec.out_channels, **factory)) if bias else None)
        self.reset_parameters()

    def _all_cores(self) -> list[nn.Parameter]:
        """The cores of the TT-matrix, and the spatial one in front where there is one."""
        return [*([] if self.spatial is None else [self.spatial]), *self.cores]

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: entries of the weight have variance 2 / fan_in, the bias is zero.

        An entry is a sum over all ranks of products of one number from each core, so cores are drawn with variance
        (2 / (fan_in * product of ranks)) ** (1 / number of cores).
        """
        cores = self._all_cores()
        fan_in = self.shape.channels * self.shape.taps
        variance = (2 / (fan_in * math.prod(self.shape.ranks))) ** (1 / len(cores))
        with torch.no_grad():
            for core in cores:
                core.normal_(0.0, variance**0.5)
            if self.bias is not None:
                self.bias.zero_()

    def _fill(self, dense: nn.Conv2d | nn.Linear, train: Sequence[Tensor]) -> None:
        """Take over cores, spatial one first; bias, requires_grad and mode are those of ``dense``."""
        with torch.no_grad():
            for core, value in zip(self._all_cores(), train, strict=True):
                core.copy_(value.reshape(core.shape)).requires_grad_(dense.weight.requires_grad)
            if self.bias is not None and dense.bias is not None:
                self.bias.copy_(dense.bias).requires_grad_(dense.bias.requires_grad)
        self.train(dense.training)

    def _product(self, x: Tensor, features: int, outputs: int) -> Tensor:
        """The TT-matrix times rows (..., features); dtypes as autocast has them, where it is on."""
        cores: list[Tensor] = list(self.cores)
        bias: Tensor | None = self.bias
        device = x.device.type
        if torch.is_autocast_enabled(device):
            # Custom ops are not on autocast's lists.
            dtype = torch.get_autocast_dtype(device)
            x, cores = x.to(dtype), [core.to(dtype) for core in cores]
            bias = None if bias is None else bias.to(dtype)
        out: Tensor = torch.ops.fastcnn.tt_linear(x, cores, bias, features, outputs)
        return out

    def _matrix(self) -> Tensor:
        """The TT-matrix in float64, (outputs, channels * filters), padding included."""
        return rebuild_matrix([core.detach().double() for core in self.cores])

    def theory(self) -> LayerTheory:
        """Non-zeros in cores and bias, true multiply-adds of the cheaper sweep, bytes of all numbers as they are."""
        held = [*self._all_cores(), *([] if self.bias is None else [self.bias])]
        return LayerTheory(
            params=sum(int((tensor.detach() != 0).sum()) for tensor in held),
            macs=self.shape.macs,
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in held),
        )

    def __repr__(self) -> str:
        """One line: the list of cores says nothing that factors and ranks do not."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def _extra(self) -> str:
        outs, ins = ("*".join(map(str, factors)) for factors in (self.shape.out_factors, self.shape.in_factors))
        return f"factors={outs} x {ins}, ranks={self.shape.ranks}"


def _decompose(dense: nn.Conv2d | nn.Linear, config: TTConfig) -> list[Tensor]:
    """Cores of a layer's weight by TT-SVD, spatial one first, in float64 on the CPU.

    Raises
    ------
    DeclinedError
        If every weight is zero, or the cores would hold as many numbers as the weight.
    ValueError
        If a weight is NaN or Inf.
    """
    check_finite(dense.weight, "weight")
    spec = spec_of(dense)
    if not bool(dense.weight.detach().any()):
        raise DeclinedError("every weight is zero: cores of zeros would never learn")
    if config.rank is not None:
        _demand_gain(train_shape(spec, config.rank, config.factors), spec, config)
    weight = dense.weight.detach().to("cpu", torch.float64).flatten(2 if dense.weight.dim() == 4 else 1)
    outs, ins = matrix_factors(weight.shape[0], weight.shape[1], config.factors)
    taps = weight.shape[2] if weight.dim() == 3 else 1
    cuts = len(outs) if taps > 1 else len(outs) - 1
    delta = 0.0 if config.epsilon is None else config.epsilon * float(weight.norm()) / cuts**0.5
    train: list[Tensor] = []
    matrix = weight.reshape(weight.shape[0], -1)
    if taps > 1:
        left, singular, right = torch.linalg.svd(weight.reshape(-1, taps).T, full_matrices=False)
        filters = cut_rank(singular, config.rank, delta)
        train.append(left[:, :filters].T)
        rest = (singular[:filters, None] * right[:filters]).reshape(filters, *weight.shape[:2])
        matrix = rest.permute(1, 2, 0).reshape(weight.shape[0], -1)
        ins = (*ins[:-1], ins[-1] * filters)
    train += tt_matrix(matrix, outs, ins, rank=config.rank, delta=delta)
    _demand_gain(train_shape(spec, _ranks(train, taps > 1), config.factors), spec, config)
    return level(train)


def _demand_gain(shape: TrainShape, spec: Spec, config: TTConfig) -> None:
    if shape.weights >= spec.weights and not config.force:
        raise DeclinedError(
            f"cores of ranks {', '.join(map(str, shape.ranks))} would hold {shape.weights} numbers, no fewer than its "
            f"{spec.weights} weights"
        )


def _ranks(train: Sequence[Tensor], spatial: bool) -> tuple[int, ...]:
    """Ranks of decomposed cores, as a layer takes them."""
    inner = tuple(core.shape[3] for core in train[spatial:-1])
    return (train[0].shape[0], *inner) if spatial else inner


def _cost(config: TTConfig, spec: Spec) -> Cost:
    """Four-byte floats; ranks as large as the config lets them be."""
    if config.rank is None:
        raise ValueError("the ranks depend on the weights: the cost at an epsilon is known once the layer is converted")
    if isinstance(spec, ConvSpec) and spec.groups != 1:
        raise ValueError(f"groups={spec.groups}: a TT-convolution has one group, as all channels share its filters")
    shape = train_shape(spec, config.rank, config.factors)
    params = shape.weights + (spec.out_channels if spec.bias else 0)
    positions = math.prod(spec.output_size) if isinstance(spec, ConvSpec) else 1
    return Cost(
        macs=shape.macs * positions,
        params=params,
        param_bytes=4 * params,
        workspace_bytes=4 * shape.held * positions,
    )


@register_method(TTConfig)
class TTLinear(_Train):
    """Linear layer whose weight is a TT-matrix.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    rank : int or sequence of int
        Maximal TT rank, or the rank between each core and the next.
    factors : int, optional
        Cores; as in :class:`TTConfig`.

    Notes
    -----
    ``cores`` holds the parameters, core k of shape (r_{k-1}, m_k, n_k, r_k). Input (..., I).

    References
    ----------
    Novikov et al. 2015, arXiv:1509.06569.
    """

    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rank: Ranks = 8,
        factors: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        self.in_features, self.out_features = in_features, out_features
        spec = LinearSpec(in_features=in_features, out_features=out_features, bias=bias)
        self._hold(spec, rank, factors, bias, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: TTConfig, sight: Sight | None = None) -> Self:
        """Decompose the weight of ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If every weight is zero, or (without ``config.force``) the cores would not be smaller than the weight.
        ValueError
            If a weight is NaN or Inf.
        """
        train = _decompose(dense, config)
        layer = cls(
            **linear_arguments(dense), rank=_ranks(train, False), factors=config.factors,
            device=dense.weight.device, dtype=dense.weight.dtype,
        )  # fmt: skip
        layer._fill(dense, train)
        return layer

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this layer stands for, in float64, made anew on every reading."""
        return self._matrix()[: self.out_features, : self.in_features]

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Linear)
        return dense

    @staticmethod
    def cost(config: TTConfig, spec: LinearSpec) -> Cost:
        """Cost in float32 at a maximal rank; ValueError for an epsilon, whose ranks depend on the weights."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        dtype = self.cores[0].dtype
        check_input(input, layer="TTLinear", channels=self.in_features, axis=-1, ranks=(), dtype=dtype)
        return self._product(input, self.in_features, self.out_features)

    def extra_repr(self) -> str:
        """Shape, factors and ranks."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._extra()}"


@register_method(TTConfig)
class TTConv2d(ConvLike, _Train):
    """Convolution by filters that all input channels share, and a TT-matrix at each pixel.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``; ``groups`` must be 1.
    rank : int or sequence of int
        Maximal TT rank; or the number of shared filters (not for 1x1), then the rank between each core and the next.
    factors : int, optional
        Cores beside the spatial one; as in :class:`TTConfig`.

    Notes
    -----
    Parameters are ``spatial`` (r, 1, kh, kw), which a 1x1 convolution has not, and ``cores``, core k of shape
    (r_{k-1}, m_k, n_k, r_k), where the last n_k also runs over the r filters. Input (N, C, H, W) or (C, H, W).

    Raises
    ------
    ValueError
        If ``groups`` is not 1, or a rank is out of range.

    References
    ----------
    Garipov et al. 2016, arXiv:1611.03214, section 4.
    """

    replaces: ClassVar[type[nn.Module]] = nn.Conv2d

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
        rank: Ranks = 8,
        factors: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(f"groups={groups} is not supported by TTConv2d: every channel shares its filters; use 1")
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self._hold(self.spec, rank, factors, bias, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: TTConfig, sight: Sight | None = None) -> Self:
        """Decompose as :meth:`TTLinear.from_dense` does; also declines ``groups`` above 1."""
        if dense.groups != 1:
            raise DeclinedError(
                f"its {dense.groups} groups have filters of their own, but the channels of a TT-convolution share them"
            )
        train = _decompose(dense, config)
        layer = cls(
            **conv_arguments(dense), rank=_ranks(train, pair(dense.kernel_size) != (1, 1)), factors=config.factors,
            device=dense.weight.device, dtype=dense.weight.dtype,
        )  # fmt: skip
        layer._fill(dense, train)
        return layer

    @property
    def weight(self) -> Tensor:
        """The dense weight (F, C, kh, kw) this layer stands for, in float64, made anew on every reading."""
        channels, filters = self.in_channels, self.shape.filters
        matrix = self._matrix()[: self.out_channels, : channels * filters].reshape(-1, channels, filters)
        if self.spatial is None:
            return matrix[:, :, :, None]
        return torch.einsum("fca,auv->fcuv", matrix, self.spatial.detach().double()[:, 0])

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Conv2d)
        return dense

    @staticmethod
    def cost(config: TTConfig, spec: ConvSpec) -> Cost:
        """Cost in float32 at a maximal rank; ValueError for an epsilon, whose ranks depend on the weights."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does."""
        channels, dtype = self.in_channels, self.cores[0].dtype
        check_input(input, layer="TTConv2d", channels=channels, axis=-3, ranks=(3, 4), dtype=dtype)
        x = input.unsqueeze(0) if input.dim() == 3 else input
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        maps = self._filtered(x).permute(0, 2, 3, 1)
        out = self._product(maps, channels * self.shape.filters, self.out_channels).permute(0, 3, 1, 2)
        out = out.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        return out.squeeze(0) if input.dim() == 3 else out

    def _filtered(self, x: Tensor) -> Tensor:
        """Every channel through every shared filter, (N, C * r, Ho, Wo); a 1x1 convolution only pads and strides."""
        x, padding = self.padded(x), self.inner_padding
        if self.spatial is None:
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
            return x if self.stride == (1, 1) else x[:, :, :: self.stride[0], :: self.stride[1]]
        pictures = x.reshape(x.shape[0] * x.shape[1], 1, x.shape[2], x.shape[3])
        maps = F.conv2d(pictures, self.spatial, None, self.stride, padding, self.dilation)
        return maps.reshape(x.shape[0], self.in_channels * self.shape.filters, maps.shape[2], maps.shape[3])

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``, factors and ranks."""
        return f"{self.arguments_repr()}, {self._extra()}"
