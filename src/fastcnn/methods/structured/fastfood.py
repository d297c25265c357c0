"""Fastfood and Adaptive Fastfood: a matrix made of three diagonals, a permutation and two Hadamard transforms.

Wins bytes and multiply-adds in wide linear layers: 3 N numbers for an N x N matrix, O(N log N) per row. Loses on small
layers, and where a trained matrix must be kept: few matrices are close to one of this form, so conversion only gives
training a start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    Cost,
    DeclinedError,
    LayerTheory,
    LinearSpec,
    MethodConfig,
    Sight,
    check_count,
    check_finite,
    check_input,
)
from fastcnn.methods.registry import register_method
from fastcnn.methods.structured import fastfood_ops as ops
from fastcnn.methods.structured.hadamard import hadamard_macs, next_power_of_two, split
from fastcnn.methods.structured.matrix_fit import fit_matrix, unit_of
from fastcnn.methods.transforms.convolution.spectra import compute_dtype

SEED_BYTES = 8
"""A seed stands for what is drawn from it and never trained."""


@dataclass(frozen=True, kw_only=True)
class FastfoodConfig(MethodConfig):
    """Fastfood matrices, D1 H D2 P H D3, for linear layers.

    Conversion fits the three diagonals to the weight by Adam. It is an initialiser: no closed form is known, a generic
    matrix of N^2 numbers is far from all that 3 N can describe, and the layer is meant to be trained afterwards. The
    error it starts from is in the report.

    Parameters
    ----------
    adaptive : bool
        Train all three diagonals. False: they stay as drawn, random features of a Gaussian kernel; such a layer has
        nothing to take over from a trained one, and ``convert`` declines unless forced.
    seed : int
        Of the permutations and of the diagonals' first values.
    steps : int
        Of Adam, in conversion. The fit starts small and takes about a hundred to grow; 0 keeps the random start, scaled
        to the weight.
    force : bool
        Convert also where neither parameters nor multiply-adds become fewer, or with ``adaptive=False``.

    References
    ----------
    Le, Sarlos and Smola 2013, "Fastfood: approximating kernel expansions in loglinear time", ICML, arXiv:1408.3060;
    Yang et al. 2014, "Deep fried convnets", arXiv:1412.7149, where the diagonals are trained.
    """

    method: ClassVar[str] = "fastfood"

    adaptive: bool = True
    seed: int = 0
    steps: int = 300
    force: bool = False

    def __post_init__(self) -> None:
        _check_flag("adaptive", self.adaptive)
        check_count("seed", self.seed, 0)
        check_count("steps", self.steps, 0)
        _check_flag("force", self.force)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Trained diagonals after a short fit, and random features."""
        return (cls(steps=10, force=True), cls(adaptive=False, seed=3, force=True))


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r}")


def _blocks(in_features: int, out_features: int) -> tuple[int, int]:
    """Number of blocks, and their order: the next power of two."""
    n = next_power_of_two(in_features)
    return -(-out_features // n), n


def _macs(spec: LinearSpec) -> int:
    """Three diagonals and two transforms by butterflies for every block."""
    blocks, n = _blocks(spec.in_features, spec.out_features)
    return blocks * (3 * n + 2 * hadamard_macs(n))


@register_method(FastfoodConfig)
class FastfoodLinear(nn.Module):
    """Linear layer of stacked Fastfood blocks, ``y = D1 H D2 P H D3 x + bias``.

    H is the orthonormal Walsh-Hadamard transform of order N, the next power of two to ``in_features``; x is padded
    with zeros to N. ceil(out_features / N) independent blocks give N outputs each, of which the first ``out_features``
    are kept.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    adaptive : bool
        Whether the diagonals are parameters, or buffers that stay as drawn.
    seed : int
        Of everything that is drawn. Layers of one shape with one seed are alike: give those of a net different seeds.

    Notes
    -----
    ``scale`` (D1), ``gauss`` (D2) and ``signs`` (D3) are (B, N), ``permutation`` (B, N) int32 is a buffer. Input
    (..., I).

    References
    ----------
    Le, Sarlos and Smola 2013, arXiv:1408.3060; Yang et al. 2014, arXiv:1412.7149. Differs: H is orthonormal, and the
    lengths of the rows are those of a dense layer, not those of a kernel's frequencies.
    """

    kernel: ClassVar[str | None] = "fastfood_linear"
    replaces: ClassVar[type[nn.Module]] = nn.Linear

    scale: Tensor
    gauss: Tensor
    signs: Tensor
    permutation: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        adaptive: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        _check_flag("adaptive", adaptive)
        check_count("seed", seed, 0)
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.adaptive, self.seed = adaptive, seed
        shape = _blocks(in_features, out_features)
        for name in ("scale", "gauss", "signs"):
            diagonal = torch.empty(shape, device=device, dtype=dtype)
            if adaptive:
                self.register_parameter(name, nn.Parameter(diagonal))
            else:
                self.register_buffer(name, diagonal)
        self.register_buffer("permutation", torch.empty(shape, device=device, dtype=torch.int32))
        own = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", own)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew from ``seed``, for training from scratch; the bias is zero.

        D3 is random signs, P uniform, D2 ~ N(0, 1), and D1 gives every row the length of a row of a dense Gaussian
        matrix. Row i of H D2 P H D3 has the length ||D2|| / sqrt(N), whatever i: P, H and D3 turn without stretching,
        and row i of H D2 holds +-D2[k] / sqrt(N). A row of N values of N(0, v) has a length of sqrt(v) chi_N, the
        square root of a chi-square variable with N degrees of freedom. Hence

            D1[i] = sqrt(v) chi_N sqrt(N) / ||D2||

        with v = 2 / in_features, the dense layer before a ReLU (He et al. 2015): the inputs are only the first
        ``in_features`` columns, and each of their entries has the variance v.
        """
        blocks, n = self.permutation.shape
        generator = torch.Generator().manual_seed(self.seed)
        signs = 2 * torch.randint(0, 2, (blocks, n), generator=generator) - 1
        permutation = torch.stack([torch.randperm(n, generator=generator) for _ in range(blocks)])
        gauss = torch.randn(blocks, n, generator=generator, dtype=torch.float64)
        # chi-square is twice a gamma variable of half as many degrees; the public sampler takes no generator.
        halves = torch._standard_gamma(torch.full((blocks, n), n / 2, dtype=torch.float64), generator=generator)
        gain = (2 * n / self.in_features) ** 0.5
        with torch.no_grad():
            self.signs.copy_(signs)
            self.permutation.copy_(permutation)
            self.gauss.copy_(gauss)
            self.scale.copy_(gain * (2 * halves).sqrt() / gauss.norm(dim=1, keepdim=True))
            if self.bias is not None:
                self.bias.zero_()

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: FastfoodConfig, sight: Sight | None = None) -> Self:
        """Fit a layer to ``dense``, which is left alone; keeps bias, mode, device, dtype and requires_grad.

        The result is where training starts from, not a stand-in for the dense layer.

        Raises
        ------
        DeclinedError
            If neither parameters nor multiply-adds become fewer, the diagonals are fixed (both: unless forced), or
            there is nothing to fit.
        ValueError
            If a weight is NaN or Inf.
        """
        check_finite(dense.weight, "weight")
        if not config.force:
            _decline(config, LinearSpec.of(dense))
        layer = cls(
            dense.in_features,
            dense.out_features,
            dense.bias is not None,
            adaptive=config.adaptive,
            seed=config.seed,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        if config.adaptive:
            layer._fit(dense.weight, config.steps)
            for diagonal in (layer.scale, layer.gauss, layer.signs):
                diagonal.requires_grad_(dense.weight.requires_grad)
        if layer.bias is not None:
            with torch.no_grad():
                layer.bias.copy_(dense.bias)
            layer.bias.requires_grad_(dense.bias.requires_grad)
        return layer.train(dense.training)

    def _fit(self, weight: Tensor, steps: int) -> None:
        """Fit the diagonals; at the start the weight has ``out_features`` rows with the variance 2 in all."""
        unit = unit_of(weight, (2 * self.out_features) ** 0.5, steps)
        dtype = compute_dtype(weight.dtype)
        own = (self.scale, self.gauss, self.signs)
        found = [diagonal.detach().to(dtype, copy=True).requires_grad_() for diagonal in own]

        def apply(rows: Tensor) -> Tensor:
            out: Tensor = torch.ops.fastcnn.fastfood_linear(rows, *found, self.permutation, None, self.out_features)
            return out

        fit_matrix(found, apply, weight.detach().to(dtype) / unit, steps, self.scale.numel())
        with torch.no_grad():
            for diagonal, value in zip(own, found, strict=True):
                diagonal.copy_(value)
            self.scale.mul_(unit)

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this layer stands for, in float64, made anew on every reading."""
        diagonals = [diagonal.detach().double() for diagonal in (self.scale, self.gauss, self.signs)]
        units = torch.eye(self.in_features, dtype=torch.float64, device=self.scale.device)
        rows: Tensor = ops.fastfood_linear(units, *diagonals, self.permutation, None, self.out_features)
        return rows.t()

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = nn.Linear(
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.scale.device,
            dtype=self.scale.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(self.weight)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
                dense.bias.requires_grad_(self.bias.requires_grad)
        dense.weight.requires_grad_(self.scale.requires_grad)
        return dense.train(self.training)

    @staticmethod
    def cost(config: FastfoodConfig, spec: LinearSpec) -> Cost:
        """Cost in float32; additions of the butterflies count as multiply-adds.

        ``workspace_bytes`` is for one row: two sets of its B * N numbers, and the two factors of H.
        """
        blocks, n = _blocks(spec.in_features, spec.out_features)
        bias = spec.out_features if spec.bias else 0
        diagonals = 3 * blocks * n
        left, right = split(n)
        return Cost(
            macs=_macs(spec),
            params=bias + (diagonals if config.adaptive else 0),
            param_bytes=4 * (diagonals + blocks * n + bias),
            workspace_bytes=4 * (2 * blocks * n + left * left + right * right),
        )

    def theory(self) -> LayerTheory:
        """Non-zero numbers, trained or not; bytes of those that are trained, and of the seed for all others."""
        diagonals = (self.scale, self.gauss, self.signs)
        bias = 0 if self.bias is None else self.bias.numel()
        trained = bias + (sum(diagonal.numel() for diagonal in diagonals) if self.adaptive else 0)
        spec = LinearSpec(in_features=self.in_features, out_features=self.out_features)
        return LayerTheory(
            params=sum(int((diagonal.detach() != 0).sum()) for diagonal in diagonals) + bias,
            macs=_macs(spec),
            bytes=self.scale.element_size() * trained + SEED_BYTES,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., I) to (..., O), as ``nn.Linear`` does."""
        check_input(input, layer="FastfoodLinear", channels=self.in_features, axis=-1, ranks=(), dtype=self.scale.dtype)
        scale, gauss, signs, bias = self._cast(input.device.type)
        out: Tensor = torch.ops.fastcnn.fastfood_linear(
            input.to(scale.dtype), scale, gauss, signs, self.permutation, bias, self.out_features
        )
        return out

    def _cast(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Diagonals and bias in the dtype of autocast, if it is on: custom ops are not on its lists."""
        if not torch.is_autocast_enabled(device):
            return self.scale, self.gauss, self.signs, self.bias
        dtype = torch.get_autocast_dtype(device)
        bias = None if self.bias is None else self.bias.to(dtype)
        return self.scale.to(dtype), self.gauss.to(dtype), self.signs.to(dtype), bias

    def extra_repr(self) -> str:
        """Shape, and whether the diagonals are trained."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, adaptive={self.adaptive}, "
            f"seed={self.seed}"
        )


def _decline(config: FastfoodConfig, spec: LinearSpec) -> None:
    """Raise DeclinedError where nothing is gained."""
    if not config.adaptive:
        raise DeclinedError(
            "with adaptive=False the diagonals stay random and nothing of the trained weight is kept: use "
            "adaptive=True, or force=True to put random features in its place"
        )
    cost = FastfoodLinear.cost(config, spec)
    dense = spec.weights + (spec.out_features if spec.bias else 0)
    if cost.params >= dense and cost.macs >= spec.dense_macs:
        raise DeclinedError(
            f"Fastfood would need {cost.params} parameters and {cost.macs} multiply-adds instead of {dense} and "
            f"{spec.dense_macs}: neither smaller nor faster"
        )
