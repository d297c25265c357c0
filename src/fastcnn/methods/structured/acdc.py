"""ACDC: diagonal, cosine transform, diagonal, inverse cosine transform; alone or in a cascade, for a linear layer.

Wins bytes and multiply-adds in wide linear layers: 2 N numbers for an N x N matrix, O(N log N) per row and layer of the
cascade. Loses on small layers, and where a trained matrix must be kept: conversion only gives training a start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import (
    Cost,
    DeclinedError,
    LayerTheory,
    LinearSpec,
    MethodConfig,
    Sight,
    check_choice,
    check_count,
    check_finite,
    check_input,
    check_range,
)
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured import acdc_ops as ops
from fastcnn.methods.structured.dct import dct, dct_macs, table_bytes
from fastcnn.methods.structured.matrix_fit import fit_matrix, unit_of
from fastcnn.methods.transforms.convolution.spectra import compute_dtype

Activation = Literal["none", "relu"]
STD = 0.061
"""Spread of a and d around 1 in the paper's ImageNet net, recalled; it may have meant the variance."""
SEED_BYTES = 8
"""A seed stands for the permutations that are drawn from it."""


@dataclass(frozen=True, kw_only=True)
class ACDCConfig(MethodConfig):
    """ACDC layers, or cascades of them, for linear layers.

    Conversion fits the diagonals to the weight by Adam. It is an initialiser: no closed form is known for a cascade, a
    generic matrix of N^2 numbers is far from all that 2 N K can describe, and the layer is meant to be trained
    afterwards. The error it starts from is in the report.

    Parameters
    ----------
    layers : int
        K, the layers of the cascade. The paper's net has 12.
    activation : {"relu", "none"}
        Between the layers of a cascade. A cascade with ReLU stands for no matrix: it cannot be converted, only trained
        from scratch, as :class:`ACDCLinear`.
    seed : int
        Of the permutations and of the first values of the diagonals.
    std : float
        Standard deviation of a and d around 1, 0 to 1.
    steps : int
        Of Adam, in conversion. The fit starts small and takes about a hundred to grow; 0 keeps the start, scaled to the
        weight.
    force : bool
        Convert also where neither parameters nor multiply-adds become fewer.

    References
    ----------
    Moczulski, Denil, Appleyard and de Freitas 2015, "ACDC: a structured efficient linear layer", arXiv:1511.05946.
    """

    method: ClassVar[str] = "acdc"

    layers: int = 1
    activation: Activation = "relu"
    seed: int = 0
    std: float = STD
    steps: int = 300
    force: bool = False

    def __post_init__(self) -> None:
        _check_cascade(self.layers, self.activation, self.seed, self.std)
        check_count("steps", self.steps, 0)
        if not isinstance(self.force, bool):
            raise TypeError(f"force must be True or False, got {type(self.force).__name__} {self.force!r}")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One layer, and a linear cascade of two; a short fit."""
        return (cls(steps=10, force=True), cls(layers=2, activation="none", seed=3, steps=10))


def _check_cascade(layers: int, activation: str, seed: int, std: float) -> None:
    check_count("layers", layers, 1)
    check_choice("activation", activation, ("none", "relu"))
    check_count("seed", seed, 0)
    check_range("std", std, 0.0, 1.0)


def _macs(layers: int, n: int) -> int:
    """Two diagonals and two transforms for every layer."""
    return layers * (2 * n + 2 * dct_macs(n))


@register_method(ACDCConfig)
class ACDCLinear(nn.Module):
    """A cascade of ACDC layers in the place of a linear layer.

    With rows x, and C the orthonormal DCT-II of N = max(in_features, out_features) numbers, each layer computes

        y = ((x * a) C * d + beta) C^-1

    The input is padded with zeros to N, the output cut to ``out_features``. Between the layers stand the activation
    and a permutation that is drawn once and stays; there is none in front of the first.

    Parameters
    ----------
    in_features, out_features
        As in ``torch.nn.Linear``.
    bias : bool
        Whether the layers have beta. It belongs to d, between the transforms; behind the last of them it is a bias
        like any other.
    layers : int
        K.
    activation : {"relu", "none"}
        Between the layers, K - 1 times.
    std : float
        Standard deviation of a and d around 1 at the start.
    seed : int
        Of everything that is drawn. Layers of one shape with one seed are alike: give those of a net different seeds.

    Notes
    -----
    ``a``, ``d`` and ``beta`` (or None) are (K, N), ``permutations`` (K - 1, N) int32 is a buffer. Input (..., I). With
    wide outputs and K = 1, those beyond ``in_features`` start near zero: a layer near the identity has little to put
    there. Train a and d without weight decay, which would pull them to 0 instead of 1, and at a higher rate:
    :func:`parameter_groups`.

    References
    ----------
    Moczulski et al. 2015, arXiv:1511.05946.
    """

    kernel: ClassVar[str | None] = "acdc_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear

    a: nn.Parameter
    d: nn.Parameter
    beta: nn.Parameter | None
    permutations: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        layers: int = 1,
        activation: Activation = "relu",
        std: float = STD,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        _check_cascade(layers, activation, seed, std)
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.layers, self.activation, self.std, self.seed = layers, activation, std, seed
        shape = (layers, max(in_features, out_features))
        self.a = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.d = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        own = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if bias else None
        self.register_parameter("beta", own)
        places = torch.empty(layers - 1, shape[1], device=device, dtype=torch.int32)
        self.register_buffer("permutations", places)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew from ``seed``, for training from scratch: a, d ~ N(1, std^2), beta zero.

        Near the identity, signals and gradients pass through any number of layers. Around zero they shrink by the
        spread twice per layer, and a deep cascade does not learn.
        """
        generator = torch.Generator().manual_seed(self.seed)
        n = self.a.shape[1]
        with torch.no_grad():
            for places in self.permutations:
                places.copy_(torch.randperm(n, generator=generator))
            for diagonal in (self.a, self.d):
                noise = torch.randn(diagonal.shape, generator=generator, dtype=torch.float64)
                diagonal.copy_(1 + self.std * noise)
            if self.beta is not None:
                self.beta.zero_()

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: ACDCConfig, sight: Sight | None = None) -> Self:
        """Fit a layer to ``dense``, which is left alone; keeps bias, mode, device, dtype and requires_grad.

        The result is where training starts from, not a stand-in for the dense layer. The dense bias goes into the last
        beta, exactly.

        Raises
        ------
        DeclinedError
            If the cascade has ReLUs inside, neither parameters nor multiply-adds become fewer (unless forced), or there
            is nothing to fit.
        ValueError
            If a weight is NaN or Inf.
        """
        check_finite(dense.weight, "weight")
        if config.activation == "relu" and config.layers > 1:
            raise DeclinedError(
                "a cascade with ReLU between its layers stands for no matrix: use activation='none', or build "
                f"ACDCLinear({dense.in_features}, {dense.out_features}, layers={config.layers}) and train it from "
                "scratch"
            )
        if not config.force:
            _decline(config, LinearSpec.of(dense))
        layer = cls(
            dense.in_features,
            dense.out_features,
            dense.bias is not None,
            layers=config.layers,
            activation=config.activation,
            std=config.std,
            seed=config.seed,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        layer._fit(dense.weight, config.steps)
        layer.a.requires_grad_(dense.weight.requires_grad)
        layer.d.requires_grad_(dense.weight.requires_grad)
        if layer.beta is not None:
            wide = F.pad(dense.bias.detach().double(), (0, layer.a.shape[1] - dense.out_features))
            with torch.no_grad():
                layer.beta[-1] = dct(wide)
            layer.beta.requires_grad_(dense.bias.requires_grad)
        return layer.train(dense.training)

    def _fit(self, weight: Tensor, steps: int) -> None:
        """Fit a and d, from near an identity or a permutation that is cut to the layer's size."""
        unit = unit_of(weight, min(self.in_features, self.out_features) ** 0.5, steps)
        dtype = compute_dtype(weight.dtype)
        a, d = (diagonal.detach().to(dtype, copy=True).requires_grad_() for diagonal in (self.a, self.d))

        def apply(rows: Tensor) -> Tensor:
            out: Tensor = torch.ops.fastcnn.acdc_linear(rows, a, d, None, self.permutations, False, self.out_features)
            return out

        fit_matrix((a, d), apply, weight.detach().to(dtype) / unit, steps, self.a.numel())
        with torch.no_grad():
            self.a.copy_(a)
            self.d.copy_(d)
            self.d[-1].mul_(unit)

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for; its bias is the image of zero.

        Raises
        ------
        TypeError
            If ReLUs stand between the layers of the cascade.
        """
        if self.activation == "relu" and self.layers > 1:
            raise TypeError(
                f"ACDCLinear with activation='relu' between its {self.layers} layers stands for no linear layer: "
                "to_dense needs layers=1 or activation='none'"
            )
        dense = nn.Linear(
            self.in_features, self.out_features, self.beta is not None, device=self.a.device, dtype=self.a.dtype
        )
        a, d = self.a.detach().double(), self.d.detach().double()
        units = torch.eye(self.in_features, dtype=torch.float64, device=a.device)
        with torch.no_grad():
            dense.weight.copy_(ops.acdc_linear(units, a, d, None, self.permutations, False, self.out_features).t())
            if self.beta is not None:
                beta = self.beta.detach().double()
                nothing = units.new_zeros(self.in_features)
                image = ops.acdc_linear(nothing, a, d, beta, self.permutations, False, self.out_features)
                dense.bias.copy_(image)
                dense.bias.requires_grad_(self.beta.requires_grad)
        dense.weight.requires_grad_(self.a.requires_grad)
        return dense.train(self.training)

    @staticmethod
    def cost(config: ACDCConfig, spec: LinearSpec) -> Cost:
        """Cost in float32; a transform counts as N log2(N) multiply-adds.

        ``workspace_bytes`` is for one row: two sets of its N numbers, and the table of the transform.
        """
        n = max(spec.in_features, spec.out_features)
        params = config.layers * n * (3 if spec.bias else 2)
        return Cost(
            macs=_macs(config.layers, n),
            params=params,
            param_bytes=4 * (params + (config.layers - 1) * n),
            workspace_bytes=4 * 2 * n + table_bytes(n),
        )

    def theory(self) -> LayerTheory:
        """Non-zeros in a and d, and all of beta; bytes of a, d and beta, and of the seed for the permutations."""
        beta = 0 if self.beta is None else self.beta.numel()
        size = self.a.element_size() * (self.a.numel() + self.d.numel() + beta)
        return LayerTheory(
            params=sum(int((diagonal.detach() != 0).sum()) for diagonal in (self.a, self.d)) + beta,
            macs=_macs(self.layers, self.a.shape[1]),
            bytes=size + (SEED_BYTES if self.layers > 1 else 0),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        check_input(input, layer="ACDCLinear", channels=self.in_features, axis=-1, ranks=(), dtype=self.a.dtype)
        a, d, beta = self._cast(input.device.type)
        relu = self.activation == "relu"
        out: Tensor = torch.ops.fastcnn.acdc_linear(
            input.to(a.dtype), a, d, beta, self.permutations, relu, self.out_features
        )
        return out

    def _cast(self, device: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """a, d and beta in the dtype of autocast, if it is on: custom ops are not on its lists."""
        if not torch.is_autocast_enabled(device):
            return self.a, self.d, self.beta
        dtype = torch.get_autocast_dtype(device)
        return self.a.to(dtype), self.d.to(dtype), None if self.beta is None else self.beta.to(dtype)

    def extra_repr(self) -> str:
        """Shape and cascade."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.beta is not None}, layers={self.layers}, "
            f"activation={self.activation!r}, seed={self.seed}"
        )


def parameter_groups(
    model: nn.Module, lr: float, a_factor: float = 24.0, d_factor: float = 12.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: a and d of all ACDC layers at higher rates and without weight decay, and the rest.

    Parameters
    ----------
    model : nn.Module
        With ACDC layers anywhere.
    lr : float
        Rate of everything else, beta included; its weight decay is the optimizer's.
    a_factor, d_factor : float
        Rates of a and d, over ``lr``. The figures are recalled from the paper's ImageNet run with momentum SGD, not
        measured here: tune them. Optimizers that scale their steps themselves (Adam) need much smaller ones.

    Returns
    -------
    list of dict
        Without empty groups and without parameters that are frozen.

    Raises
    ------
    TypeError, ValueError
        If a rate or a factor is not a number, or negative.

    Examples
    --------
    >>> net = nn.Sequential(ACDCLinear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(group["lr"], len(group["params"])) for group in parameter_groups(net, lr=0.01)]
    [(0.24, 1), (0.12, 1), (0.01, 3)]
    """
    for name, value in (("lr", lr), ("a_factor", a_factor), ("d_factor", d_factor)):
        check_range(name, value, 0.0, float("inf"), open_high=True)
    cascades = [module for module in model.modules() if isinstance(module, ACDCLinear)]
    fast = {id(parameter) for layer in cascades for parameter in (layer.a, layer.d)}
    groups: list[dict[str, Any]] = [
        {"params": _trained(layer.a for layer in cascades), "lr": lr * a_factor, "weight_decay": 0.0},
        {"params": _trained(layer.d for layer in cascades), "lr": lr * d_factor, "weight_decay": 0.0},
        {"params": _trained(p for p in model.parameters() if id(p) not in fast), "lr": lr},
    ]
    return [group for group in groups if group["params"]]


def _trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that are not frozen, once each."""
    return list({id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values())


def _decline(config: ACDCConfig, spec: LinearSpec) -> None:
    """Raise DeclinedError where nothing is gained."""
    cost = ACDCLinear.cost(config, spec)
    dense = spec.weights + (spec.out_features if spec.bias else 0)
    if cost.params >= dense and cost.macs >= spec.dense_macs:
        raise DeclinedError(
            f"{config.layers} ACDC layers would need {cost.params} parameters and {cost.macs} multiply-adds instead of "
            f"{dense} and {spec.dense_macs}: neither smaller nor faster"
        )
