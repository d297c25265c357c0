"""Batch norm and AdaMax whose products are shifts: multiplications by powers of two, as the BNN paper has them.

For fidelity to the paper only. Its shifts are for hardware that has no multiplier; on a CPU or a GPU a product by a
power of two takes as long as any other, finding the power takes time on top, and where a net ends in bits its batch
norms vanish into thresholds whatever they were. The results are those of shifts, to the last bit: floats multiply by
powers of two without rounding.

References
----------
Courbariaux, Hubara, Soudry, El-Yaniv and Bengio 2016, arXiv:1602.02830, section 1.5, algorithms 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import check_range
from fastcnn.methods.lowprecision.quantizers import straight

MEAN_RATE, SIZE_RATE = 2.0**-3, 2.0**-10
"""1 - beta1 and 1 - beta2 of the paper's AdaMax."""


def ap2(z: Tensor) -> Tensor:
    """The power of two nearest to each number on a logarithmic scale, with its sign: sgn(z) 2^round(log2 |z|).

    Exact: numbers below sqrt(2) times a power of two, subnormal ones too, go to that power and those above to the next,
    but never beyond the largest power that the dtype has. 0 stays 0, infinities and NaN stay what they are. No
    gradient passes: see :func:`shifted`.

    Parameters
    ----------
    z : Tensor
        Any shape, of a floating dtype.

    Returns
    -------
    Tensor
        Of the same shape and dtype.

    Raises
    ------
    TypeError
        If z holds no floats.
    """
    if not z.is_floating_point():
        raise TypeError(f"ap2 takes floats, got {z.dtype}")
    z = z.detach()
    fraction, _ = torch.frexp(z)
    # Of z = fraction 2^k, 0.5 <= |fraction| < 1, that is 2^(k - 1), without rounding.
    below = z / (2 * fraction)
    # In float64: the root rounded up is the first number above it there, and of no other dtype.
    upper = fraction.double().abs() >= 0.5**0.5
    largest = 2.0 ** (math.frexp(torch.finfo(z.dtype).max)[1] - 1)
    power = torch.where(upper, 2 * below, below).clamp(max=largest).copysign(z)
    return torch.where((z == 0) | ~torch.isfinite(z), z, power)


def shifted(z: Tensor) -> Tensor:
    """:func:`ap2` of numbers, with their gradients passed straight through."""
    return straight(z, ap2(z))


class _ShiftBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What both layers share; state and arguments as those of ``torch.nn.BatchNorm2d``."""

    axes: ClassVar[dict[int, str]]
    """What an input may be, by the number of its axes."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.125,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.axes or input.shape[1] != self.num_features:
            wanted = " or ".join(self.axes.values())
            raise ValueError(
                f"{type(self).__name__} takes {wanted} with C = {self.num_features}, got shape {tuple(input.shape)}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the batch in training, by the running statistics after it."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return self._by_running_statistics(input, self.running_mean, self.running_var)
        if input.numel() == input.shape[1]:
            raise ValueError(f"{type(self).__name__} needs more than one value per channel in training")
        axes, shape = [0, *range(2, input.dim())], (1, -1, *[1] * (input.dim() - 2))
        mean = input.mean(axes)
        centred = input - mean.reshape(shape)
        variance = (centred * shifted(centred)).mean(axes)
        if self.training:
            self._follow(mean, variance)
        y = centred * shifted((variance + self.eps).rsqrt()).reshape(shape)
        if self.affine:
            y = y * shifted(self.weight).reshape(shape) + self.bias.reshape(shape)
        return y

    def _by_running_statistics(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        # A batch norm of mean 0 and variance 1, so that the engine sees one and folds it. Its only rounding is that of
        # the sum, as the factor is a power of two.
        scale, shift = self.scale_and_shift()
        return F.batch_norm(x, torch.zeros_like(mean), torch.ones_like(variance), scale, shift, False, 0.0, 0.0)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What the layer is after training, (C,) each: y = scale x + shift, and scale a power of two or 0.

        Raises
        ------
        ValueError
            If the layer has no running statistics (``track_running_stats=False``).
        """
        if self.running_mean is None or self.running_var is None:
            raise ValueError("the layer has no running statistics: make it with track_running_stats=True")
        scale = shifted((self.running_var + self.eps).rsqrt())
        if not self.affine:
            return scale, -self.running_mean * scale
        scale = scale * shifted(self.weight)
        return scale, self.bias - self.running_mean * scale

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards the batch's; with momentum None they are means over all batches."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


class ShiftBatchNorm1d(_ShiftBatchNorm):
    """Batch norm of (N, C) or (N, C, L) by shifts; see :class:`ShiftBatchNorm2d`."""

    axes: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class ShiftBatchNorm2d(_ShiftBatchNorm):
    """Batch norm of maps (N, C, H, W) by shifts.

    With c = x - mean and :func:`ap2` as AP2, the variance is estimated as mean(c AP2(c)), and
    ``y = c AP2(1 / sqrt(variance + eps)) AP2(weight) + bias``. The estimate is within a factor of sqrt(2) of the
    variance, y - bias within 2^1.25 of what ``nn.BatchNorm2d`` gives. After training a channel is ``scale x + shift``
    with a power of two for a scale, which the engine folds as it does any batch norm, into thresholds before signs.

    Parameters
    ----------
    num_features, eps, affine, track_running_stats, device, dtype
        As in ``torch.nn.BatchNorm2d``, with which it shares its ``state_dict``.
    momentum : float or None
        Share of a batch in the running statistics, 2^-3 as in the authors' code; None for means over all batches.

    Raises
    ------
    ValueError
        If the input has another number of axes or channels, or in training one value per channel.

    Notes
    -----
    Gradients take AP2 for the identity. ``running_var`` is the mean of the estimates themselves, where torch has the
    unbiased variance. For fidelity only: it is slower than ``nn.BatchNorm2d`` everywhere.

    References
    ----------
    Courbariaux et al. 2016, arXiv:1602.02830, algorithm 3. Differs: the paper's last line has no bias, which its
    authors' code adds, as here; their code averages 1 / sqrt(variance) where this averages the variance.

    Examples
    --------
    >>> norm = ShiftBatchNorm2d(8)
    >>> y = norm(torch.randn(4, 8, 5, 5))
    >>> scale, shift = norm.scale_and_shift()
    >>> bool((ap2(scale) == scale).all())
    True
    """

    axes: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class ShiftAdaMax(torch.optim.Optimizer):
    """AdaMax whose products are shifts.

    With g a gradient and t the number of the step, from m = v = 0::

        m = m + (g - m) AP2(1 - beta1)
        v = max(v - v AP2(1 - beta2), |g|)
        weight = weight - AP2(lr / (1 - beta1^t)) m / AP2(v)

    where beta1^t is of the rounded beta1. A weight that never had a gradient stays where it is.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        As for every optimizer of torch; :func:`~fastcnn.methods.lowprecision.latent.parameter_groups` makes groups.
    lr : float
        Its power of two counts: a schedule moves it in steps of factors of two. The paper has 2^-10 and shifts it to
        the right by one every so many epochs.
    betas : pair of float
        In [0, 1).
    weight_decay : float
        Its power of two times the weight is added to the gradient.

    Raises
    ------
    TypeError, ValueError
        If a setting is no number or out of range.

    Notes
    -----
    State of a parameter: ``step``, ``exp_avg`` (m) and ``exp_inf`` (v). Latent weights are not clipped here: that is
    ``trainee.step()``, after this. For fidelity only: it is slower than ``torch.optim.Adamax``.

    References
    ----------
    Courbariaux et al. 2016, arXiv:1602.02830, algorithm 4; Kingma and Ba 2015, arXiv:1412.6980, section 7.1. The paper
    prints 1 - beta1 in the bias correction, its authors' code has 1 - beta1^t, as AdaMax does and this. Their code also
    rounds v itself, which then never falls.

    Examples
    --------
    >>> net = nn.Linear(4, 2)
    >>> optimizer = ShiftAdaMax(net.parameters(), lr=2**-7)
    >>> net(torch.randn(3, 4)).square().mean().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2.0**-10,
        betas: tuple[float, float] = (1 - MEAN_RATE, 1 - SIZE_RATE),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; TypeError or ValueError for settings that are none."""
        settings = {**self.defaults, **param_group}
        check_range("lr", settings["lr"], 0.0, float("inf"), open_high=True)
        check_range("weight_decay", settings["weight_decay"], 0.0, float("inf"), open_high=True)
        betas = settings["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
        for name, value in zip(("betas[0]", "betas[1]"), betas, strict=True):
            check_range(name, value, 0.0, 1.0, open_high=True)
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step along the gradients.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss anew, and gradients.

        Returns
        -------
        float or None
            The closure's loss.

        Raises
        ------
        TypeError
            If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if gradient.is_sparse:
            raise TypeError("ShiftAdaMax takes no sparse gradients: make the layer with sparse=False")
        state = self.state[parameter]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_inf=torch.zeros_like(parameter))
        state["step"] += 1
        mean, size = state["exp_avg"], state["exp_inf"]
        mean_rate, size_rate = (_power(1.0 - beta) for beta in group["betas"])
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=_power(group["weight_decay"]))
        mean.add_(gradient.sub(mean), alpha=mean_rate)
        torch.maximum(size.sub(size, alpha=size_rate), gradient.abs(), out=size)
        rate = _power(group["lr"] / (1.0 - (1.0 - mean_rate) ** state["step"]))
        # Where there never was a gradient both are 0.
        parameter.sub_(torch.where(size > 0, mean / ap2(size), 0.0), alpha=rate)


def _power(value: float) -> float:
    """:func:`ap2` of a number."""
    return float(ap2(torch.tensor(value, dtype=torch.float64)))
