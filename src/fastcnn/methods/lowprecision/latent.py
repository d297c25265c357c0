"""Training with few bits: layers that keep real weights and multiply what a config makes of them.

A latent layer is a dense layer whose forward pass sees inputs, weight, bias and outputs through the config's eyes, as
signs or levels, and whose gradients go straight through to the real ones behind. It multiplies whole numbers as floats
and scales the sums afterwards, exactly as the packed layer does that it becomes at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import MethodConfig, check_count, check_input, check_patterns
from fastcnn.methods.dense import check_fits, conv_arguments, linear_arguments
from fastcnn.methods.lowprecision.packed import BinaryConv2d, BinaryLinear, box_mean, padded
from fastcnn.methods.skips import check_skip

SHORTCUTS = ("*shortcut*", "*downsample*")


@dataclass(frozen=True, kw_only=True)
class FewBitsConfig(MethodConfig):
    """What configs of layers with few bits share.

    Parameters
    ----------
    skip : sequence of {"first_conv", "last_linear", "depthwise"}
        Layers left as they are; () takes them too.
    exclude : sequence of glob patterns
        More of them; by default what stands in a shortcut, which is to stay real.
    seed : int
        Of whatever is random in training: the same for every division of a step into batches.
    """

    skip: tuple[str, ...] | str = ("first_conv", "last_linear")
    exclude: tuple[str, ...] | str = SHORTCUTS
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", check_skip(self.skip))
        object.__setattr__(self, "exclude", check_patterns("exclude", self.exclude))
        check_count("seed", self.seed, 0)

    @property
    def clips(self) -> bool:
        """Whether latent weights are kept in [-1, 1] after every step: beyond, they would only grow and not flip."""
        return True

    @property
    def clips_biases(self) -> bool:
        """The same of biases."""
        return False

    @property
    def planes(self) -> tuple[int, ...]:
        """Factors of the planes of signs that a packed weight has."""
        return (1,)

    @property
    def signs_in(self) -> bool:
        """Whether inputs count by their signs."""
        return False

    @property
    def levels_in(self) -> int:
        """Largest whole number that inputs in [0, 1] are rounded to once multiplied by it; 0 if they are not."""
        return 0

    @property
    def pads_with(self) -> int:
        """What stands around a map of signs."""
        return 0

    @property
    def box(self) -> bool:
        """Whether outputs are multiplied by the mean size of the inputs under the kernel."""
        return False

    def why_not(self, layer: nn.Conv2d | nn.Linear) -> str:
        """Why the method does not serve a layer; empty if it does."""
        return ""

    def unit(self, layer: LatentLayer) -> float:
        """Size of a real weight that levels and scale have as 1; the scale may be that of inputs too."""
        return 1.0

    def begin(self, layer: LatentLayer) -> None:
        """Give a new layer what it needs more than weight and bias."""

    def take_inputs(self, x: Tensor, layer: LatentLayer) -> Tensor:
        """What is multiplied in the place of the inputs."""
        return x

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Whole numbers in the place of the weight, and a scale of each output (O,) or of all (), or None."""
        raise NotImplementedError

    def take_bias(self, layer: LatentLayer) -> Tensor | None:
        """What is added in the place of the bias."""
        bias: Tensor | None = layer.bias
        return bias

    def give_outputs(self, y: Tensor, layer: LatentLayer) -> Tensor:
        """What the layer returns in the place of its outputs."""
        return y

    def signs_out(self, layer: LatentLayer) -> bool:
        """Whether the packed layer ends in a sign."""
        return False

    def after_step(self, layer: LatentLayer) -> None:
        """Called after each optimizer step, without gradients, for one of the layers that share a weight."""
        if self.clips:
            layer.weight.clamp_(-1.0, 1.0)
        if self.clips_biases and layer.bias is not None:
            layer.bias.clamp_(-1.0, 1.0)

    def finished(self, layer: LatentLayer) -> nn.Module:
        """What a layer becomes when training ends."""
        return layer.packed()


class LatentLayer(nn.Module):
    """What latent convolutions and linear layers share.

    Attributes
    ----------
    weight, bias : Parameter
        The real ones; tied with whatever the dense layer's are tied with.
    steps : int
        Optimizer steps so far.
    index : int
        Place among the session's layers, for what is random.
    last : bool
        Whether this is the model's last linear layer.
    first : int
        Inputs seen in this step before those of the present pass, so that what is random does not depend on batches.
    final : bool
        Whether a schedule is to be taken as run to its end.
    """

    config: FewBitsConfig
    weight: Tensor
    bias: Any
    channels: ClassVar[tuple[int, ...]]
    """Shape that spreads a number of each output over the outputs."""

    def _take(self, dense: nn.Conv2d | nn.Linear, config: FewBitsConfig, index: int, last: bool) -> None:
        # Parameters, which typing knows as tensors.
        self._parameters.update(weight=dense._parameters["weight"], bias=dense._parameters["bias"])
        self.config, self.index, self.last = config, index, last
        self.steps = self._samples = self.first = 0
        self.final = False
        self.train(dense.training)
        config.begin(self)

    def advance(self) -> None:
        """The optimizer has made a step."""
        self.steps += 1
        self._samples = 0

    def _count(self, x: Tensor) -> None:
        """Take note of a batch of inputs."""
        self.first = self._samples
        if self.training:
            self._samples += len(x)

    def generator(self, *more: int) -> torch.Generator:
        """A generator of this step of this layer on its device."""
        key = 0
        for part in (self.config.seed, self.index, self.steps, *more):
            key = (key ^ part) * 0x9E3779B97F4A7C15 % (1 << 64)
            key ^= key >> 29
        return torch.Generator(device=self.weight.device).manual_seed(key >> 1)

    def levels(self) -> tuple[Tensor, Tensor | None]:
        """Whole numbers that stand for the weight now, and their scale, as inference has them."""
        training = self.training
        self.training, self.final = False, True
        try:
            with torch.no_grad():
                return self.config.take_weight(self)
        finally:
            self.training, self.final = training, False

    def levels_of_bias(self) -> Tensor | None:
        """The same of the bias."""
        self.final = True
        try:
            with torch.no_grad():
                return self.config.take_bias(self)
        finally:
            self.final = False

    def rebuilt(self) -> Tensor:
        """The real weight that the layer stands for, in the size of the one behind it."""
        levels, scale = self.levels()
        if scale is not None:
            levels = levels * scale.reshape(-1, *[1] * (levels.dim() - 1))
        return levels * self.config.unit(self)

    def packed(self) -> nn.Module:
        """The layer of bits with the same outputs."""
        raise NotImplementedError

    def dense(self) -> nn.Conv2d | nn.Linear:
        """The dense layer with the real weight and bias."""
        raise NotImplementedError

    def _give(self, made: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
        # Parameters, which typing knows as tensors.
        made._parameters.update(weight=self._parameters["weight"], bias=self._parameters["bias"])
        return made.train(self.training)

    def _arguments(self) -> dict[str, Any]:
        """What both packed layers take."""
        levels, scale = self.levels()
        bias = self.levels_of_bias()
        outputs = len(levels)
        return {
            "levels": levels,
            "scale": None if scale is None else scale.detach().expand(outputs).clone(),
            "bias": None if bias is None else bias.detach().clone(),
            "planes": self.config.planes,
            "signs_in": self.config.signs_in,
            "signs_out": self.config.signs_out(self),
            "levels_in": self.config.levels_in,
        }

    def _finish(self, sums: Tensor, scale: Tensor | None, box: Tensor | None) -> Tensor:
        if scale is not None:
            sums = sums * scale.reshape(self.channels)
        if box is not None:
            sums = sums * box
        bias = self.config.take_bias(self)
        return self.config.give_outputs(sums if bias is None else sums + bias.reshape(self.channels), self)


class LatentConv2d(LatentLayer, nn.Conv2d):
    """A convolution in training. Input (N, C, H, W) or (C, H, W)."""

    channels: ClassVar[tuple[int, ...]] = (-1, 1, 1)

    @classmethod
    def of(cls, dense: nn.Conv2d, config: FewBitsConfig, index: int = 0, last: bool = False) -> Self:
        """Take a dense layer's parameters over."""
        layer = cls(**conv_arguments(dense), device="meta")
        layer._take(dense, config, index, last)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Convolve as ``nn.Conv2d`` does, with few bits."""
        name, pads = type(self).__name__, list(self._reversed_padding_repeated_twice)
        check_input(input, layer=name, channels=self.in_channels, axis=-3, ranks=(3, 4), dtype=self.weight.dtype)
        whole = input.unsqueeze(0) if input.dim() == 3 else input
        check_fits(name, whole, self.kernel_size, self.dilation, pads)
        self._count(whole)
        # Modes that repeat the map do so with what is multiplied as well as with the inputs.
        x = padded(self.config.take_inputs(whole, self), pads, self.padding_mode, self.config.pads_with)
        levels, scale = self.config.take_weight(self)
        sums = F.conv2d(x, levels.to(x.dtype), None, self.stride, 0, self.dilation, self.groups)
        box = box_mean(whole, self) if self.config.box else None
        y = self._finish(sums, scale, box)
        return y.squeeze(0) if input.dim() == 3 else y

    def dense(self) -> nn.Conv2d | nn.Linear:
        """The dense layer with the real weight and bias."""
        return self._give(nn.Conv2d(**conv_arguments(self), device="meta"))

    def packed(self) -> BinaryConv2d:
        """The layer of bits with the same outputs."""
        arguments = {**conv_arguments(self), **self._arguments(), "pad_value": self.config.pads_with}
        layer = BinaryConv2d(**arguments, box=self.config.box)
        return layer.train(self.training)


class LatentLinear(LatentLayer, nn.Linear):
    """A linear layer in training. Input (..., I)."""

    channels: ClassVar[tuple[int, ...]] = (-1,)

    @classmethod
    def of(cls, dense: nn.Linear, config: FewBitsConfig, index: int = 0, last: bool = False) -> Self:
        """Take a dense layer's parameters over."""
        layer = cls(**linear_arguments(dense), device="meta")
        layer._take(dense, config, index, last)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Multiply as ``nn.Linear`` does, with few bits."""
        check_input(
            input, layer=type(self).__name__, channels=self.in_features, axis=-1, ranks=(), dtype=self.weight.dtype
        )
        self._count(input)
        levels, scale = self.config.take_weight(self)
        x = self.config.take_inputs(input, self)
        sums = F.linear(x, levels.to(x.dtype))
        box = input.abs().mean(-1, keepdim=True) if self.config.box else None
        return self._finish(sums, scale, box)

    def dense(self) -> nn.Conv2d | nn.Linear:
        """The dense layer with the real weight and bias."""
        return self._give(nn.Linear(**linear_arguments(self), device="meta"))

    def packed(self) -> BinaryLinear:
        """The layer of bits with the same outputs."""
        layer = BinaryLinear(**{**linear_arguments(self), **self._arguments()}, box=self.config.box)
        return layer.train(self.training)


def latent_layers(model: nn.Module) -> list[tuple[str, LatentLayer]]:
    """Latent layers of a model by name, each once."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LatentLayer)]


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.0, *, glorot: bool = False
) -> list[dict[str, Any]]:
    """Groups for an optimizer that decay no clipped latent weight or bias: pulled to 0, it would flip for nothing.

    Parameters
    ----------
    model : nn.Module
        A prepared one, or another.
    lr, weight_decay : float
        Of all other parameters.
    glorot : bool
        Whether latent weights learn faster by the inverse of Glorot's standard deviation, sqrt(1.5 / (fan in + fan
        out)): weights that start that much closer to 0 then flip as often.

    References
    ----------
    Courbariaux, Bengio and David 2015, arXiv:1511.00363, section 2.5.
    """
    latent = {id(layer.weight): layer for _, layer in latent_layers(model) if layer.config.clips}
    kept = {id(layer.bias) for _, layer in latent_layers(model) if layer.config.clips_biases}
    groups: list[dict[str, Any]] = []
    rest: list[nn.Parameter] = []
    for parameter in _trained(model.parameters()):
        layer = latent.get(id(parameter))
        if id(parameter) in kept:
            groups.append({"params": [parameter], "lr": lr, "weight_decay": 0.0})
            continue
        if layer is None:
            rest.append(parameter)
            continue
        area = parameter[0, 0].numel() if parameter.dim() > 1 else 1
        fans = (parameter.shape[0] + parameter.shape[1]) * area
        groups.append({"params": [parameter], "lr": lr / (1.5 / fans) ** 0.5 if glorot else lr, "weight_decay": 0.0})
    if rest:
        groups.append({"params": rest, "lr": lr, "weight_decay": weight_decay})
    return groups


def _trained(parameters: Iterable[nn.Parameter]) -> Sequence[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
