"""Chains of convolutions, or of linear layers, that stand for one: what every factorisation shares.

A chain is made of ordinary ``nn.Conv2d`` and ``nn.Linear``, so autograd, export and the engine need nothing new, and
another method may work on its parts (k-means on the factors, say). Only the last stage has the bias. Stages follow
each other without an activation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import ConvSpec, Cost, LayerTheory, Spec, check_input
from fastcnn.methods.dense import ConvLike, PaddingMode, pair, rebuild_dense
from fastcnn.methods.replace import dense_bytes


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One convolution of a chain. A linear stage has the defaults."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def weights(self) -> int:
        """Numbers in its weight."""
        return self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel_size)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns it makes of so many."""
        down, across = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) - 1) // self.stride[i] + 1
            for i in range(2)
        )
        return down, across


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How the dense convolution walks over its input, as the stage with the taps has to."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


def chain_macs(stages: Sequence[Stage]) -> int:
    """Multiply-adds of a chain per position of its output: stages before a stride see more positions."""
    total, positions = 0, 1
    for stage in reversed(stages):
        total += stage.weights * positions
        positions *= math.prod(stage.stride)
    return total


def chain_macs_at(stages: Sequence[Stage], shape: tuple[int, ...]) -> int:
    """Multiply-adds of a chain on an input (..., C, H, W); one without rows and columns has (..., C, 1, 1)."""
    *lead, _, height, width = shape
    size, total = (height, width), 0
    for stage in stages:
        size = stage.output_size(size)
        total += stage.weights * math.prod(size)
    return total * math.prod(lead)


def walked(dense: nn.Conv2d | nn.Linear, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape (..., C, H, W) that the first stage of a chain in a layer's place sees of an input of this shape."""
    if isinstance(dense, nn.Linear):
        return (*shape, 1, 1)
    left, right, top, bottom = dense._reversed_padding_repeated_twice
    if geometry_of(dense).padding != (0, 0):
        return shape
    return (*shape[:-2], shape[-2] + top + bottom, shape[-1] + left + right)


def chain_cost(stages: Sequence[Stage], spec: Spec) -> Cost:
    """Cost in float32. Workspace: the maps between the stages."""
    bias = spec.out_channels if spec.bias else 0
    params = sum(stage.weights for stage in stages) + bias
    positions = math.prod(spec.output_size) if isinstance(spec, ConvSpec) else 1
    between, seen = 0, 1
    for stage in reversed(stages[1:]):
        seen *= math.prod(stage.stride)
        between += stage.in_channels * seen
    return Cost(
        macs=chain_macs(stages) * positions,
        params=params,
        param_bytes=4 * params,
        workspace_bytes=4 * between * positions,
    )


class Factored(nn.Module):
    """What chains of both kinds share."""

    kernel: ClassVar[str | None] = None
    stages: nn.Sequential

    @property
    def bias(self) -> nn.Parameter | None:
        """Bias of the last stage."""
        bias: nn.Parameter | None = self.stages[-1].bias  # type: ignore[assignment]  # a conv's or linear's
        return bias

    @property
    def chain(self) -> tuple[Stage, ...]:
        """The stages' shapes, input side first."""
        return tuple(stage_of(module) for module in self.stages)  # type: ignore[arg-type]  # convs or linears

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: weights N(0, 1 / fan_in) in every stage, bias zero.

        Each stage then keeps the variance of what it is given, and none of the factors outweighs another.
        """
        with torch.no_grad():
            for module in self.stages:
                weight: Tensor = module.weight  # type: ignore[assignment]  # a conv's or linear's
                weight.normal_(0.0, weight[0].numel() ** -0.5)
            if self.bias is not None:
                self.bias.zero_()

    def take_over(self, dense: nn.Conv2d | nn.Linear, weights: Sequence[Tensor], bias: Tensor | None = None) -> None:
        """Fill the stages; the bias (if none is given), requires_grad and mode are those of ``dense``."""
        with torch.no_grad():
            for module, weight in zip(self.stages, weights, strict=True):
                own: nn.Parameter = module.weight  # type: ignore[assignment]  # a conv's or linear's
                own.copy_(weight.reshape(own.shape)).requires_grad_(dense.weight.requires_grad)
            if self.bias is not None and dense.bias is not None:
                self.bias.copy_(dense.bias if bias is None else bias).requires_grad_(dense.bias.requires_grad)
        self.train(dense.training)

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds per output position, bytes of the stages as they are."""
        modules: list[nn.Conv2d | nn.Linear] = list(self.stages)  # type: ignore[arg-type]
        bias = 0 if self.bias is None else self.bias.numel()
        params = sum(int((module.weight.detach() != 0).sum()) for module in modules) + bias
        return LayerTheory(params=params, macs=chain_macs(self.chain), bytes=sum(map(dense_bytes, modules)))


def stage_of(module: nn.Conv2d | nn.Linear) -> Stage:
    """A layer's shape as a stage, with the zeros that it can add itself."""
    if isinstance(module, nn.Linear):
        return Stage(in_channels=module.in_features, out_channels=module.out_features)
    geometry = vars(geometry_of(module))
    return Stage(in_channels=module.in_channels, out_channels=module.out_channels, groups=module.groups, **geometry)


class FactoredConv2d(ConvLike, Factored):
    """A chain of convolutions in the place of one. Input (N, C, H, W) or (C, H, W).

    Subclasses say in :meth:`plan_stages` which stages there are; arguments are those of ``nn.Conv2d``.
    """

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
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        geometry = Geometry(
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.inner_padding,
            dilation=self.dilation,
        )
        self.stages = nn.Sequential()
        planned = self.plan_stages(geometry)
        for name, stage in planned.items():
            last = bias and stage is list(planned.values())[-1]
            self.stages.add_module(name, nn.Conv2d(**vars(stage), bias=last, device=device, dtype=dtype))
        self.reset_parameters()

    def plan_stages(self, geometry: Geometry) -> Mapping[str, Stage]:
        """Stages by name, input side first."""
        raise NotImplementedError

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` this chain stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Conv2d)
        return dense

    @property
    def weight(self) -> Tensor:
        """The dense weight (F, C / groups, kh, kw) this chain stands for, in float64, made anew on every reading."""
        return self._composed([stage.weight.detach().double() for stage in self.stages])  # type: ignore[operator]

    def _composed(self, weights: Sequence[Tensor]) -> Tensor:
        groups = [stage.groups for stage in self.chain]
        return block_diagonal(compose(list(zip(weights, groups, strict=True))), self.groups)

    def fit_to(self, targets: Sequence[Tensor], roots: Sequence[Tensor], steps: int = 60) -> None:
        """Move the factors by L-BFGS to the least sum over the groups of ||T - W L||^2, in float64 on the CPU.

        Parameters
        ----------
        targets, roots : sequence of Tensor, shapes (F / groups, n) and (n, n)
            T and L of every group, n = C / groups * kh * kw.
        steps : int
            Of L-BFGS, at most.
        """
        own: list[Tensor] = [stage.weight for stage in self.stages]  # type: ignore[misc]  # convolutions
        factors = [weight.detach().cpu().double().clone().requires_grad_() for weight in own]
        whole = sum(float(target.square().sum()) for target in targets) or 1.0
        optimizer = torch.optim.LBFGS(
            factors, max_iter=steps, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-9
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            parts = self._composed(factors).chunk(self.groups)
            error = sum(
                (target - part.flatten(1) @ root).square().sum()
                for part, target, root in zip(parts, targets, roots, strict=True)
            )
            assert isinstance(error, Tensor)
            error = error / whole
            error.backward()  # type: ignore[no-untyped-call]  # torch's own
            return error

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch's own
        if all(bool(torch.isfinite(factor).all()) for factor in factors):
            with torch.no_grad():
                for weight, factor in zip(own, factors, strict=True):
                    weight.copy_(factor)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does."""
        name, dtype = type(self).__name__, self.stages[0].weight.dtype
        check_input(input, layer=name, channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=dtype)  # type: ignore[arg-type]
        out: Tensor = self.stages(self.padded(input))
        return out

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``."""
        return self.arguments_repr()


class FactoredLinear(Factored):
    """A chain of linear layers in the place of one. Input (..., I), output (..., O)."""

    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.stages = nn.Sequential()
        planned = self.plan_stages()
        for name, stage in planned.items():
            last = bias and stage is list(planned.values())[-1]
            self.stages.add_module(
                name, nn.Linear(stage.in_channels, stage.out_channels, bias=last, device=device, dtype=dtype)
            )
        self.reset_parameters()

    def plan_stages(self) -> Mapping[str, Stage]:
        """Stages by name, input side first."""
        raise NotImplementedError

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this chain stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Linear)
        return dense

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this chain stands for, in float64, made anew on every reading."""
        product: Tensor | None = None
        for stage in self.stages:
            factor: Tensor = stage.weight.detach().double()  # type: ignore[operator]
            product = factor if product is None else factor @ product
        assert product is not None
        return product

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        name, dtype = type(self).__name__, self.stages[0].weight.dtype
        check_input(input, layer=name, channels=self.in_features, axis=-1, ranks=(), dtype=dtype)  # type: ignore[arg-type]
        out: Tensor = self.stages(input)
        return out

    def extra_repr(self) -> str:
        """Arguments of ``nn.Linear``."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


def compose(weights: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Kernel of a chain of convolutions at stride 1, without groups.

    Parameters
    ----------
    weights : sequence of (Tensor of shape (out, in / groups, kh, kw), groups)
        Input side first.

    Returns
    -------
    Tensor, shape (F, C, sum of (kh - 1) + 1, sum of (kw - 1) + 1)
    """
    whole: Tensor | None = None
    for weight, groups in weights:
        if whole is None:
            whole = without_groups(weight, groups)
            continue
        reach = (weight.shape[2] - 1, weight.shape[3] - 1)
        # Each input channel of the chain so far is a picture; a full convolution of it with the next kernel.
        whole = F.conv2d(whole.transpose(0, 1), weight.flip(2, 3), padding=reach, groups=groups).transpose(0, 1)
    assert whole is not None
    return whole


def without_groups(weight: Tensor, groups: int) -> Tensor:
    """Weight (O, I / groups, ...) as (O, I, ...), zero between channels of different groups."""
    if groups == 1:
        return weight
    out, fan_in = weight.shape[0] // groups, weight.shape[1]
    wide = weight.new_zeros(weight.shape[0], fan_in * groups, *weight.shape[2:])
    for g in range(groups):
        wide[g * out : (g + 1) * out, g * fan_in : (g + 1) * fan_in] = weight[g * out : (g + 1) * out]
    return wide


def block_diagonal(wide: Tensor, groups: int) -> Tensor:
    """Inverse of :func:`without_groups`."""
    if groups == 1:
        return wide
    out, fan_in = wide.shape[0] // groups, wide.shape[1] // groups
    return torch.cat([wide[g * out : (g + 1) * out, g * fan_in : (g + 1) * fan_in] for g in range(groups)])


def grouped(weight: Tensor, groups: int) -> list[Tensor]:
    """Weights of each group, in float64 on the CPU: what is factorised."""
    return list(weight.detach().to("cpu", torch.float64).chunk(groups))


def geometry_of(dense: nn.Conv2d | nn.Linear) -> Geometry:
    """How a dense layer walks, with the zeros that a convolution can add itself; other padding comes before."""
    if isinstance(dense, nn.Linear):
        return Geometry(kernel_size=(1, 1))
    left, right, top, bottom = dense._reversed_padding_repeated_twice
    own = dense.padding_mode == "zeros" and left == right and top == bottom
    return Geometry(
        kernel_size=pair(dense.kernel_size),
        stride=pair(dense.stride),
        padding=(top, left) if own else (0, 0),
        dilation=pair(dense.dilation),
    )


def spec_geometry(spec: Spec, stride: tuple[int, int] = (1, 1)) -> Geometry:
    """Geometry of a spec, which knows no padding."""
    return Geometry(kernel_size=spec.kernel_size if isinstance(spec, ConvSpec) else (1, 1), stride=stride)
