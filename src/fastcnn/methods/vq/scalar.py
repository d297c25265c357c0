"""Scalar k-means weight sharing: every non-zero weight becomes a code into a small codebook.

Wins bytes (5-8 bits per weight before entropy coding, far fewer after pruning), never time by itself.
Approximate; exact where the layer has no more distinct weights than clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    ConvSpec,
    Cost,
    DeclinedError,
    LayerTheory,
    LinearSpec,
    MethodConfig,
    Spec,
    check_choice,
    check_count,
    check_finite,
    check_input,
)
from fastcnn.methods.dense import ConvLike, PaddingMode, conv_arguments, linear_arguments
from fastcnn.methods.registry import register_method
from fastcnn.methods.storage import entropy_bits
from fastcnn.methods.vq import ops
from fastcnn.methods.vq.kmeans import Init, kmeans_1d

MAX_CLUSTERS = 65535
"""Codes are at most uint16, and code 0 is the exact zero."""


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(MethodConfig):
    """k-means weight sharing on the non-zero weights of each conv and linear layer.

    Parameters
    ----------
    clusters : int
        Shared non-zero values per layer, 1 to 65535; 255 or fewer keep codes in one byte. Capped per layer
        at the number of distinct non-zero weights, where coding is lossless.
    conv_clusters : int, optional
        Another number for convolutions (the paper: 256 there, 32 in linear layers).
    algorithm : {"lloyd", "optimal"}
        Lloyd to convergence, or the exact one-dimensional optimum by dynamic programming.
    init : {"linear", "quantile", "random"}
        Where Lloyd starts; linear keeps the rare large weights.
    seed : int
        For ``init="random"``.

    References
    ----------
    Han, Mao and Dally 2016, arXiv:1510.00149, section 3; Gong et al. 2014, arXiv:1412.6115.
    """

    method: ClassVar[str] = "kmeans"

    clusters: int = 32
    conv_clusters: int | None = None
    algorithm: Literal["lloyd", "optimal"] = "lloyd"
    init: Init = "linear"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("clusters", self.clusters, 1, MAX_CLUSTERS)
        if self.conv_clusters is not None:
            check_count("conv_clusters", self.conv_clusters, 1, MAX_CLUSTERS)
        check_choice("algorithm", self.algorithm, ("lloyd", "optimal"))
        check_choice("init", self.init, ("linear", "quantile", "random"))
        check_count("seed", self.seed, 0)

    def clusters_of(self, spec: Spec) -> int:
        """Clusters asked for in a layer of that kind."""
        if isinstance(spec, ConvSpec) and self.conv_clusters is not None:
            return self.conv_clusters
        return self.clusters

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One-byte codes, two-byte codes, the exact optimum."""
        return (cls(clusters=7), cls(clusters=300), cls(clusters=5, conv_clusters=9, algorithm="optimal"))


def share(weight: Tensor, clusters: int, config: KMeansConfig) -> tuple[Tensor, Tensor]:
    """Cluster the non-zero weights.

    Returns
    -------
    codebook : shape (k + 1,), dtype and device of ``weight``
        Entry 0 is exactly 0; the others ascend.
    codes : uint8 or uint16, shape of ``weight``
        0 where the weight is zero.

    Raises
    ------
    ValueError
        If a weight is NaN or Inf.
    """
    check_finite(weight, "weight")
    dense = weight.detach().to("cpu", torch.float64).numpy()
    alive = dense != 0
    codes = np.zeros(dense.shape, dtype=np.int64)
    book = np.zeros(1)
    if alive.any():
        centroids, members = kmeans_1d(
            dense[alive], clusters, algorithm=config.algorithm, init=config.init, seed=config.seed
        )
        codes[alive] = members + 1
        book = np.concatenate((book, centroids))
    code_type = torch.uint8 if len(book) <= 256 else torch.uint16
    return (
        torch.from_numpy(book).to(device=weight.device, dtype=weight.dtype),
        torch.from_numpy(codes).to(code_type).to(weight.device),
    )


class _Codebook(nn.Module):
    """What the two layers share: the tensors and their arithmetic."""

    codebook: nn.Parameter
    codes: Tensor
    bias: nn.Parameter | None

    def _hold(self, shape: tuple[int, ...], out: int, bias: bool, clusters: int, factory: dict[str, Any]) -> None:
        check_count("clusters", clusters, 0, MAX_CLUSTERS)
        code_type = torch.uint8 if clusters <= 255 else torch.uint16
        self.codebook = nn.Parameter(torch.zeros(clusters + 1, **factory))
        self.register_buffer("codes", torch.zeros(shape, dtype=code_type, device=factory.get("device")))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out, **factory)) if bias else None)

    def _fill(self, dense: nn.Conv2d | nn.Linear, codebook: Tensor, codes: Tensor) -> None:
        self.codebook = nn.Parameter(codebook, requires_grad=dense.weight.requires_grad)
        self.codes = codes
        if dense.bias is not None:
            self.bias = nn.Parameter(dense.bias.detach().clone(), requires_grad=dense.bias.requires_grad)
        self.train(dense.training)

    def _cast(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, codebook and bias in the dtype of autocast, if it is on: custom ops are not on its lists."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return x, self.codebook, self.bias
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), self.codebook.to(dtype), None if self.bias is None else self.bias.to(dtype)

    @property
    def weight(self) -> Tensor:
        """The dense weight this layer stands for, made anew on every reading; differentiable."""
        return ops.expand(self.codebook, self.codes)

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds on non-zeros, and bytes: entropy of the codes, codebook and bias as they are."""
        nonzero = int((self.codes != 0).sum())
        bias = 0 if self.bias is None else self.bias.numel()
        item = self.codebook.element_size()
        bits = entropy_bits(self.codes.detach().cpu().numpy().astype(np.int64))
        size = int(np.ceil(bits / 8)) + item * (self.codebook.numel() - 1 + bias)
        return LayerTheory(params=nonzero + bias, macs=nonzero, bytes=size)


def _cost(config: KMeansConfig, spec: Spec) -> Cost:
    """Four-byte floats; weights all distinct and non-zero, so that clusters are capped only by their number."""
    entries = min(config.clusters_of(spec), spec.weights) + 1
    bias = spec.out_channels if spec.bias else 0
    return Cost(
        macs=spec.dense_macs,
        params=entries + bias,
        param_bytes=4 * (entries + bias) + spec.weights * (1 if entries <= 256 else 2),
        workspace_bytes=4 * spec.weights,
    )


@register_method(KMeansConfig)
class CodebookConv2d(ConvLike, _Codebook):
    """Convolution whose weight is ``codebook[codes]``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``, strings for ``padding`` included.
    clusters : int
        Shared non-zero values; the codebook has one more entry, the exact zero in front.

    Notes
    -----
    ``codebook`` (K,) is a parameter, ``codes`` (O, I/g, kH, kW) a buffer. Input (N, C, H, W) or (C, H, W).
    """

    kernel: ClassVar[str | None] = "codebook_conv2d"

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
        clusters: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self._hold(shape, out_channels, bias, clusters, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: KMeansConfig) -> Self:
        """Share the weights of ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If every weight is zero: there is nothing to share.
        ValueError
            If a weight is NaN or Inf.
        """
        codebook, codes = share(dense.weight, config.clusters_of(ConvSpec.of(dense)), config)
        if codebook.numel() == 1:
            raise DeclinedError("every weight is zero: nothing to share")
        layer = cls(
            **conv_arguments(dense),
            clusters=codebook.numel() - 1,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        layer._fill(dense, codebook, codes)
        return layer

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` this layer stands for."""
        dense = nn.Conv2d(**conv_arguments(self), device=self.codebook.device, dtype=self.codebook.dtype)
        _copy_dense(self, dense)
        return dense

    @staticmethod
    def cost(config: KMeansConfig, spec: ConvSpec) -> Cost:
        """Cost for float32 and all-distinct non-zero weights."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does."""
        check_input(
            input, layer="CodebookConv2d", channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=self.codebook.dtype
        )
        x, book, bias = self._cast(input.unsqueeze(0) if input.dim() == 3 else input)
        out: Tensor = torch.ops.fastcnn.codebook_conv2d(
            self.padded(x),
            book,
            self.codes,
            bias,
            list(self.stride),
            list(self.inner_padding),
            list(self.dilation),
            self.groups,
        )
        return out.squeeze(0) if input.dim() == 3 else out

    def extra_repr(self) -> str:
        """Shape and number of shared values."""
        return f"{self.arguments_repr()}, clusters={self.codebook.numel() - 1}"


@register_method(KMeansConfig)
class CodebookLinear(_Codebook):
    """Linear layer whose weight is ``codebook[codes]``.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    clusters : int
        Shared non-zero values; the codebook has one more entry, the exact zero in front.

    Notes
    -----
    ``codebook`` (K,) is a parameter, ``codes`` (O, I) a buffer. Input (..., I).
    """

    kernel: ClassVar[str | None] = "codebook_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        clusters: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._hold((out_features, in_features), out_features, bias, clusters, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: KMeansConfig) -> Self:
        """Share the weights of ``dense``, which is left alone; raises as :meth:`CodebookConv2d.from_dense`."""
        codebook, codes = share(dense.weight, config.clusters_of(LinearSpec.of(dense)), config)
        if codebook.numel() == 1:
            raise DeclinedError("every weight is zero: nothing to share")
        layer = cls(
            **linear_arguments(dense),
            clusters=codebook.numel() - 1,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        layer._fill(dense, codebook, codes)
        return layer

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = nn.Linear(**linear_arguments(self), device=self.codebook.device, dtype=self.codebook.dtype)
        _copy_dense(self, dense)
        return dense

    @staticmethod
    def cost(config: KMeansConfig, spec: LinearSpec) -> Cost:
        """Cost for float32 and all-distinct non-zero weights."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        check_input(
            input, layer="CodebookLinear", channels=self.in_features, axis=-1, ranks=(), dtype=self.codebook.dtype
        )
        x, book, bias = self._cast(input)
        out: Tensor = torch.ops.fastcnn.codebook_linear(x, book, self.codes, bias)
        return out

    def extra_repr(self) -> str:
        """Shape and number of shared values."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"clusters={self.codebook.numel() - 1}"
        )


def _copy_dense(layer: _Codebook, dense: nn.Conv2d | nn.Linear) -> None:
    """Give ``dense`` the weight, bias and mode of ``layer``."""
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
        if layer.bias is not None and dense.bias is not None:
            dense.bias.copy_(layer.bias)
            dense.bias.requires_grad_(layer.bias.requires_grad)
    dense.weight.requires_grad_(layer.codebook.requires_grad)
    dense.train(layer.training)
