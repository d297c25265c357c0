"""Predicted parameters: a few weights of every unit are learned, a fixed kernel fills in the others.

Wins bytes where the weights of a unit vary smoothly: first layers on pictures, large taps. Loses on 1x1 layers and on
inputs without an order, unless calibration data shows their covariance. Approximate; a start for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

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
    check_choice,
    check_count,
    check_finite,
    check_input,
    check_range,
    spec_of,
)
from fastcnn.methods.dense import ConvLike, PaddingMode, conv_arguments, linear_arguments, rebuild_dense
from fastcnn.methods.registry import register_method

Kernel = Literal["coordinates", "covariance", "identity", "random"]
_SMALLEST = 1e-3
"""Singular values of U, as a share of the largest, below which no weight is fitted: weights there would be huge and
cancel each other, which float32 does not bear."""


@dataclass(frozen=True, kw_only=True)
class PredictedConfig(MethodConfig):
    """Parameters predicted from a learned share of them, W = w_alpha U^T with a fixed U.

    With n inputs of a unit (C / groups * kh * kw for a convolution), alpha are n_alpha = keep * n of them, and
    U = K[:, alpha] (K[alpha, alpha] + ridge I)^-1 is ridge regression with a kernel K. Inputs alpha are chosen one
    by one, each where those before it leave the largest variance.

    Parameters
    ----------
    keep : float
        Share of the weights that are learned, above 0 and at most 1.
    columns : int
        Groups of outputs, each with inputs alpha of its own, so that the rank may exceed n_alpha. Must divide the
        outputs (of each group, in a grouped convolution).
    kernel : {"coordinates", "covariance", "identity", "random"}
        ``"coordinates"``: exp(-distance^2 / (2 width^2)) of two pixels of one channel, 0 between channels. Pixels of a
        convolution are its taps, those of a linear layer the picture of ``grid``. ``"covariance"``: E[x x^T] of what
        the layer sees, over its mean diagonal; ``convert`` needs ``data``. ``"identity"``: weights outside alpha are
        zero. ``"random"``: a Gaussian U. The last two predict nothing; they are what the others have to beat.
    grid : (int, int), optional
        Height and width of the picture that a linear layer is given, flattened from (channels, height, width).
    width : float
        Of the squared exponential, in pixels, above 0.
    ridge : float
        Above 0; the larger, the smoother the prediction.
    seed : int
        Decides between equal candidates for alpha, varies them from column to column, and makes a random U.
    force : bool
        Also convert layers that become neither smaller nor faster, or have one pixel only.

    References
    ----------
    Denil, Shakibi, Dinh, Ranzato and de Freitas 2013, arXiv:1306.0543. Differs: alpha are the pivots of a Cholesky
    factorisation of K, which lie apart from each other; channels do not predict each other's weights.
    """

    method: ClassVar[str] = "predicted"
    calibrates: ClassVar[bool] = True

    keep: float = 0.25
    columns: int = 1
    kernel: Kernel = "coordinates"
    grid: tuple[int, int] | None = None
    width: float = 1.0
    ridge: float = 1e-2
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        check_range("keep", self.keep, 0.0, 1.0)
        check_count("columns", self.columns, 1)
        check_choice("kernel", self.kernel, ("coordinates", "covariance", "identity", "random"))
        if self.grid is not None:
            if not isinstance(self.grid, tuple) or len(self.grid) != 2:
                raise TypeError(f"grid must be (height, width) of a picture or None, got {self.grid!r}")
            for name, size in zip(("height", "width"), self.grid, strict=True):
                check_count(f"{name} of grid", size, 1)
        check_range("width", self.width, 0.0, 1e6)
        check_range("ridge", self.ridge, 0.0, 1e6)
        for name in ("keep", "width", "ridge"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name}=0 is out of range: {name} must be above 0")
        check_count("seed", self.seed, 0)
        if not isinstance(self.force, bool):
            raise TypeError(f"force must be True or False, got {self.force!r}")

    def reads_data(self) -> bool:
        """For second moments only."""
        return self.kernel == "covariance"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Taps that predict each other, and both baselines."""
        return (
            cls(keep=0.1, grid=(1, 1), force=True),
            cls(keep=0.2, kernel="random"),
            cls(keep=0.1, kernel="identity", seed=3),
        )


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Sizes of a layer's parts.

    Parameters
    ----------
    inputs : int
        n, of one unit.
    outputs : int
        m, of all groups.
    blocks : int
        Matrices U: columns of every group.
    learned : int
        n_alpha.
    """

    inputs: int
    outputs: int
    blocks: int
    learned: int

    @classmethod
    def of(cls, spec: Spec, config: PredictedConfig) -> _Form:
        """Sizes for a dense layer of that form."""
        groups = spec.groups if isinstance(spec, ConvSpec) else 1
        inputs = spec.weights // spec.out_channels
        return cls(
            inputs=inputs,
            outputs=spec.out_channels,
            blocks=groups * config.columns,
            learned=max(1, round(config.keep * inputs)),
        )

    @property
    def weights(self) -> int:
        """Numbers that are learned, beside the bias."""
        return self.outputs * self.learned

    @property
    def fixed(self) -> int:
        """Numbers in all U."""
        return self.blocks * self.learned * self.inputs

    @property
    def macs(self) -> int:
        """Multiply-adds per output position or row."""
        return self.fixed + self.weights


class _Covariance(Protocol):
    """A kernel: variance of every weight, and its covariance with the others."""

    variances: Tensor
    """Shape (n,)."""

    def rows(self, chosen: Tensor) -> Tensor:
        """K[chosen, :], shape (len(chosen), n)."""


class _SquaredExponential:
    """exp(-distance^2 / (2 width^2)) of pixels of one channel; weights of different channels are independent."""

    def __init__(self, channels: int, grid: tuple[int, int], width: float) -> None:
        axes = [torch.arange(size, dtype=torch.float64) for size in (channels, *grid)]
        channel, y, x = torch.meshgrid(*axes, indexing="ij")
        self._channel, self._y, self._x = channel.flatten(), y.flatten(), x.flatten()
        self._scale = 2 * width**2
        self.variances = torch.ones_like(self._x)

    def rows(self, chosen: Tensor) -> Tensor:
        """K[chosen, :]."""
        apart = (self._y[chosen, None] - self._y) ** 2 + (self._x[chosen, None] - self._x) ** 2
        return torch.exp(-apart / self._scale) * (self._channel[chosen, None] == self._channel)


class _Empirical:
    """Second moments of a layer's inputs, over their mean diagonal."""

    def __init__(self, second: Tensor) -> None:
        scale = float(second.diagonal().mean())
        if scale <= 0:
            raise DeclinedError("every calibration input of it is zero: they predict nothing")
        self._matrix = second.to("cpu", torch.float64) / scale
        self.variances = self._matrix.diagonal()

    def rows(self, chosen: Tensor) -> Tensor:
        """K[chosen, :]."""
        return self._matrix[chosen]


class _Independent:
    """Every weight for itself."""

    def __init__(self, inputs: int) -> None:
        self.variances = torch.ones(inputs, dtype=torch.float64)

    def rows(self, chosen: Tensor) -> Tensor:
        """Rows of the identity."""
        return F.one_hot(chosen, len(self.variances)).double()


def choose_inputs(kernel: _Covariance, count: int, generator: torch.Generator, *, spread: float = 1e-6) -> Tensor:
    """Choose inputs whose weights are learned, in ascending order.

    Pivoted Cholesky: each is the one with the largest variance, given those before it, times a random number of its own
    from 1 - ``spread`` to 1. A small spread decides between equals only; a large one makes every call choose others.

    Returns
    -------
    Tensor of int64, shape (count,)
    """
    left = kernel.variances.clone()
    chances = 1 - spread * torch.rand(len(left), generator=generator, dtype=left.dtype)
    factor = left.new_zeros(count, len(left))
    chosen: list[int] = []
    for step in range(count):
        scores = left.clamp(min=0) * chances
        scores[chosen] = -1
        pivot = int(scores.argmax())
        chosen.append(pivot)
        # Rounding is all that is left of an input that those before it predict.
        if float(left[pivot]) > 1e-12 * float(kernel.variances[pivot]):
            row = kernel.rows(torch.tensor([pivot]))[0] - factor[:step, pivot] @ factor[:step]
            factor[step] = row / row[pivot].sqrt()
            left -= factor[step] ** 2
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def predictor(kernel: _Covariance, chosen: Tensor, ridge: float) -> Tensor:
    """U^T = (K[alpha, alpha] + ridge I)^-1 K[alpha, :], shape (n_alpha, n).

    Raises
    ------
    ValueError
        If the matrix to be inverted is singular in float64.
    """
    rows = kernel.rows(chosen)
    gram = rows[:, chosen] + ridge * torch.eye(len(chosen), dtype=rows.dtype)
    lower, failed = torch.linalg.cholesky_ex(gram)
    smallest, largest = float(lower.diagonal().min()) ** 2, float(gram.diagonal().max())
    if int(failed) or smallest <= len(chosen) * torch.finfo(gram.dtype).eps * largest:
        raise ValueError(
            f"K[alpha, alpha] + ridge I is singular with ridge={ridge:g}: inputs predict each other exactly; give a "
            f"larger ridge, {max(1e-6, 1e3 * ridge):g} say"
        )
    return torch.cholesky_solve(rows, lower)


def _predictors(spec: Spec, config: PredictedConfig, seconds: Sequence[Tensor] | None) -> Tensor:
    """U^T of all blocks, shape (blocks, n_alpha, n), float64 on the CPU."""
    form = _Form.of(spec, config)
    generator = torch.Generator().manual_seed(config.seed)
    found: list[Tensor] = []
    for block in range(form.blocks):
        if config.kernel == "random":
            scale = form.learned**-0.5
            shape = (form.learned, form.inputs)
            found.append(scale * torch.randn(*shape, generator=generator, dtype=torch.float64))
            continue
        kernel: _Covariance
        if config.kernel == "coordinates":
            grid = spec.kernel_size if isinstance(spec, ConvSpec) else config.grid
            assert grid is not None
            kernel = _SquaredExponential(form.inputs // math.prod(grid), grid, config.width)
        elif config.kernel == "covariance":
            assert seconds is not None
            kernel = _Empirical(seconds[block // config.columns])
        else:
            kernel = _Independent(form.inputs)
        spread = 0.5 if block % config.columns else 1e-6
        chosen = choose_inputs(kernel, form.learned, generator, spread=spread)
        found.append(predictor(kernel, chosen, config.ridge))
    return torch.stack(found)


def _why_not(spec: Spec, config: PredictedConfig, known: bool) -> str:
    """Why a layer of that form cannot be had; empty if it can. ``known``: second moments are."""
    groups = spec.groups if isinstance(spec, ConvSpec) else 1
    if spec.out_channels // groups % config.columns:
        what = "outputs" if groups == 1 else "outputs of each group"
        return f"columns={config.columns} does not divide its {spec.out_channels // groups} {what}"
    if config.kernel == "covariance" and not known:
        return "kernel='covariance' is that of its inputs: give convert data"
    if config.kernel == "coordinates" and isinstance(spec, LinearSpec):
        if config.grid is None:
            return "kernel='coordinates' needs the height and width of the picture it is given: set grid"
        if spec.in_features % math.prod(config.grid):
            return f"its {spec.in_features} inputs are no pictures of grid={config.grid}"
    return ""


def _no_gain(spec: Spec, config: PredictedConfig) -> str:
    """Why a layer of that form is not worth having; empty if it is."""
    form = _Form.of(spec, config)
    grid = spec.kernel_size if isinstance(spec, ConvSpec) else config.grid
    if config.kernel == "coordinates" and grid == (1, 1):
        return "its channels have one pixel each: there is no other to predict its weight from"
    stored = form.weights + (form.fixed if config.kernel == "covariance" else 0)
    if stored >= spec.weights and form.macs >= spec.weights:
        return (
            f"{form.learned} learned weights of {form.inputs} would need {stored} stored numbers and {form.macs} "
            f"multiply-adds per output position instead of {spec.weights} of each: neither smaller nor faster"
        )
    return ""


class _Predicted(nn.Module):
    """What the two layers share: learned weights, fixed predictors and their arithmetic."""

    kernel: ClassVar[str | None] = None
    basis: Tensor
    w_alpha: nn.Parameter
    bias: nn.Parameter | None
    config: PredictedConfig
    form: _Form

    def _hold(
        self, spec: Spec, config: PredictedConfig, seconds: Sequence[Tensor] | None, factory: dict[str, Any]
    ) -> None:
        why = _why_not(spec, config, seconds is not None)
        if why:
            raise ValueError(f"{type(self).__name__} cannot be made: {why}")
        self.config, self.form = config, _Form.of(spec, config)
        basis = _predictors(spec, config, seconds)
        shape = (spec.in_channels // spec.groups, *spec.kernel_size) if isinstance(spec, ConvSpec) else (-1,)
        self.w_alpha = nn.Parameter(torch.empty(self.form.outputs, self.form.learned, **factory))
        basis = basis.to(self.w_alpha.device, self.w_alpha.dtype)
        self.register_buffer("basis", basis.reshape(self.form.blocks * self.form.learned, *shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(self.form.outputs, **factory)) if spec.bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: entries of W have variance 2 / n on average, the bias is zero.

        The predictors stay as they are.
        """
        form = self.form
        squares = float(self.basis.double().square().sum()) / form.blocks
        with torch.no_grad():
            self.w_alpha.normal_(0.0, (2 / squares) ** 0.5)
            if self.bias is not None:
                self.bias.zero_()

    def _fill(self, dense: nn.Conv2d | nn.Linear) -> None:
        """Fit w_alpha to ``dense`` by least squares; bias, requires_grad and mode are those of ``dense``."""
        form = self.form
        with torch.no_grad():
            wanted = dense.weight.detach().to("cpu", torch.float64).reshape(form.blocks, -1, form.inputs)
            basis = self.basis.to("cpu", torch.float64).reshape(form.blocks, form.learned, form.inputs)
            # Torch leaves the pivots of its default driver uninitialised; an SVD gives the same fit every time.
            fitted = torch.linalg.lstsq(basis.mT, wanted.mT, rcond=_SMALLEST, driver="gelsd").solution.mT
            self.w_alpha.copy_(fitted.reshape(self.w_alpha.shape)).requires_grad_(dense.weight.requires_grad)
            if self.bias is not None and dense.bias is not None:
                self.bias.copy_(dense.bias).requires_grad_(dense.bias.requires_grad)
        self.train(dense.training)

    def _rebuilt(self) -> Tensor:
        """w_alpha U^T, shape (m, n), float64."""
        form = self.form
        learned = self.w_alpha.detach().double().reshape(form.blocks, -1, form.learned)
        return (learned @ self.basis.double().reshape(form.blocks, form.learned, -1)).reshape(form.outputs, -1)

    def theory(self) -> LayerTheory:
        """Non-zeros, multiply-adds, bytes; predictors count where they come from data, as no seed makes those again."""
        held = [self.w_alpha, *([] if self.bias is None else [self.bias])]
        params = sum(int((tensor.detach() != 0).sum()) for tensor in held)
        numbers = sum(tensor.numel() for tensor in held)
        if self.config.kernel == "covariance":
            params, numbers = params + int((self.basis != 0).sum()), numbers + self.basis.numel()
        return LayerTheory(params=params, macs=self.form.macs, bytes=numbers * self.w_alpha.element_size())

    def _extra(self) -> str:
        form = self.form
        return f"kernel={self.config.kernel!r}, learned={form.learned} of {form.inputs}, blocks={form.blocks}"


def _accepted(dense: nn.Conv2d | nn.Linear, config: PredictedConfig, sight: Sight | None) -> tuple[Tensor, ...] | None:
    """Accept a layer; return the second moments its kernel needs, a matrix for each group, None if it needs none.

    Raises
    ------
    DeclinedError
        If the layer cannot be had, or is not worth having.
    ValueError
        If a weight is NaN or Inf.
    """
    check_finite(dense.weight, "weight")
    spec = spec_of(dense)
    why = _why_not(spec, config, sight is not None) or ("" if config.force else _no_gain(spec, config))
    if why:
        raise DeclinedError(why)
    if sight is None or config.kernel != "covariance":
        return None
    return tuple(part.second for part in sight.moments.groups)


def _cost(config: PredictedConfig, spec: Spec) -> Cost:
    """Four-byte floats; the predictors are in memory, whether or not a file has to hold them."""
    form = _Form.of(spec, config)
    params = form.weights + (spec.out_channels if spec.bias else 0)
    positions = math.prod(spec.output_size) if isinstance(spec, ConvSpec) else 1
    return Cost(
        macs=form.macs * positions,
        params=params,
        param_bytes=4 * (params + form.fixed),
        workspace_bytes=4 * form.blocks * form.learned * positions,
    )


@register_method(PredictedConfig)
class PredictedLinear(_Predicted):
    """Linear layer of which a share of the weights is learned, the rest predicted.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    config : PredictedConfig
        What is learned, and what predicts the rest.
    seconds : sequence of Tensor, shape (I, I), optional
        For ``kernel="covariance"``: E[x x^T] of its inputs, alone in the sequence.

    Notes
    -----
    ``w_alpha`` (O, n_alpha) is a parameter, ``basis`` (columns * n_alpha, I), the transposed U of all columns, a
    buffer. Input (..., I).

    Raises
    ------
    ValueError
        If the config does not fit the sizes, or K[alpha, alpha] + ridge I is singular.

    References
    ----------
    Denil et al. 2013, arXiv:1306.0543.
    """

    replaces: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        config: PredictedConfig,
        seconds: Sequence[Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("in_features", in_features, 1)
        check_count("out_features", out_features, 1)
        self.in_features, self.out_features = in_features, out_features
        spec = LinearSpec(in_features=in_features, out_features=out_features, bias=bias)
        self._hold(spec, config, seconds, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Linear, config: PredictedConfig, sight: Sight | None = None) -> Self:
        """Fit the learned weights to ``dense``, which is left alone; keeps mode, device, dtype and requires_grad.

        Raises
        ------
        DeclinedError
            If the config does not fit the layer, or (without ``config.force``) nothing would be gained.
        ValueError
            If a weight is NaN or Inf, or K[alpha, alpha] + ridge I is singular.
        """
        seconds = _accepted(dense, config, sight)
        layer = cls(
            **linear_arguments(dense), config=config, seconds=seconds,
            device=dense.weight.device, dtype=dense.weight.dtype,
        )  # fmt: skip
        layer._fill(dense)
        return layer

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I) this layer stands for, in float64, made anew on every reading."""
        return self._rebuilt()

    def to_dense(self) -> nn.Linear:
        """Return the ``nn.Linear`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Linear)
        return dense

    @staticmethod
    def cost(config: PredictedConfig, spec: LinearSpec) -> Cost:
        """Cost in float32."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., I), as ``nn.Linear`` does."""
        dtype = self.w_alpha.dtype
        check_input(input, layer="PredictedLinear", channels=self.in_features, axis=-1, ranks=(), dtype=dtype)
        seen = F.linear(input, self.basis)
        if self.form.blocks == 1:
            return F.linear(seen, self.w_alpha, self.bias)
        shape = (self.form.blocks, self.form.learned)
        columns = self.w_alpha.reshape(self.form.blocks, -1, self.form.learned)
        parts = torch.einsum("...jk,jok->...jo", seen.reshape(*seen.shape[:-1], *shape), columns)
        out = parts.flatten(-2)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def extra_repr(self) -> str:
        """Shape, kernel and sizes."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._extra()}"


@register_method(PredictedConfig)
class PredictedConv2d(ConvLike, _Predicted):
    """Convolution with fixed predictors, then a learned 1x1 convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in ``torch.nn.Conv2d``.
    config : PredictedConfig
        What is learned, and what predicts the rest.
    seconds : sequence of Tensor, shape (n, n), optional
        For ``kernel="covariance"``: E[x x^T] of the patches of each group.

    Notes
    -----
    ``w_alpha`` (O, n_alpha) is a parameter, ``basis`` (groups * columns * n_alpha, C / groups, kh, kw) a buffer. Input
    (N, C, H, W) or (C, H, W).

    Raises
    ------
    ValueError
        If the config does not fit the sizes, or K[alpha, alpha] + ridge I is singular.

    References
    ----------
    Denil et al. 2013, arXiv:1306.0543.
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
        config: PredictedConfig,
        seconds: Sequence[Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.keep_arguments(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self._hold(self.spec, config, seconds, {"device": device, "dtype": dtype})

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, config: PredictedConfig, sight: Sight | None = None) -> Self:
        """Fit the learned weights to ``dense``; as :meth:`PredictedLinear.from_dense`, on each group."""
        seconds = _accepted(dense, config, sight)
        layer = cls(
            **conv_arguments(dense), config=config, seconds=seconds,
            device=dense.weight.device, dtype=dense.weight.dtype,
        )  # fmt: skip
        layer._fill(dense)
        return layer

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, C / groups, kh, kw) this layer stands for, in float64, made anew on every reading."""
        return self._rebuilt().reshape(self.out_channels, -1, *self.kernel_size)

    def to_dense(self) -> nn.Conv2d:
        """Return the ``nn.Conv2d`` this layer stands for."""
        dense = rebuild_dense(self, self.weight)
        assert isinstance(dense, nn.Conv2d)
        return dense

    @staticmethod
    def cost(config: PredictedConfig, spec: ConvSpec) -> Cost:
        """Cost in float32."""
        return _cost(config, spec)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), as ``nn.Conv2d`` does."""
        channels, dtype = self.in_channels, self.w_alpha.dtype
        check_input(input, layer="PredictedConv2d", channels=channels, axis=-3, ranks=(3, 4), dtype=dtype)
        seen = F.conv2d(
            self.padded(input), self.basis, None, self.stride, self.inner_padding, self.dilation, self.groups
        )
        return F.conv2d(seen, self.w_alpha[:, :, None, None], self.bias, groups=self.form.blocks)

    def extra_repr(self) -> str:
        """Arguments of ``nn.Conv2d``, kernel and sizes."""
        return f"{self.arguments_repr()}, {self._extra()}"
