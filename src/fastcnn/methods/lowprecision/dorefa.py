"""DoReFa-Net: weights, activations and gradients of a chosen number of bits each.

Wins size by the bits of a weight, and time where weights and activations have few enough. Needs training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from fastcnn.methods.contract import check_count
from fastcnn.methods.lowprecision.binary_ops import quantize, sign
from fastcnn.methods.lowprecision.bnn import ONE_CHANNEL
from fastcnn.methods.lowprecision.latent import FewBitsConfig, LatentLayer
from fastcnn.methods.lowprecision.quantizers import quantized_gradient, straight
from fastcnn.methods.lowprecision.session import FewBitsSession
from fastcnn.methods.registry import register_method

MOST_BITS = 8
FLOAT = 32


def _check_bits(name: str, value: int) -> None:
    check_count(name, value, 1, FLOAT)
    if MOST_BITS < value < FLOAT:
        raise ValueError(f"{name}={value} is not supported: give 1 to {MOST_BITS} bits, or {FLOAT} to leave it real")


@dataclass(frozen=True, kw_only=True)
class DoReFaConfig(FewBitsConfig):
    """DoReFa-Net: m-bit weights, k-bit inputs, g-bit gradients; 32 leaves one of them real.

    Inputs are clipped to [0, 1] and rounded to multiples of 1 / (2^k - 1): put a batch norm (and no more than a ReLU)
    before the layer. Weights of one bit are signs times mean |W| of the layer, of more bits tanh W / max |tanh W|,
    rounded to 2^m levels in [-1, 1].

    Parameters
    ----------
    weight_bits, input_bits, gradient_bits : int
        1 to 8, or 32.
    skip, exclude, seed
        As in :class:`~fastcnn.methods.lowprecision.latent.FewBitsConfig`; ``seed`` is that of the gradients' noise.

    References
    ----------
    Zhou et al. 2016, arXiv:1606.06160.
    """

    method: ClassVar[str] = "dorefa"
    weight_bits: int = 1
    input_bits: int = 2
    gradient_bits: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_bits", "input_bits", "gradient_bits"):
            _check_bits(name, getattr(self, name))

    @property
    def clips(self) -> bool:
        """The tangent bounds what weights do; its gradient falls by itself."""
        return False

    @property
    def planes(self) -> tuple[int, ...]:
        """1, 2, 4 ...: odd numbers from -(2^m - 1) to 2^m - 1."""
        return tuple(1 << k for k in range(self.weight_bits))

    @property
    def levels_in(self) -> int:
        """2^k - 1, or 0 for real inputs."""
        return 0 if self.input_bits == FLOAT else (1 << self.input_bits) - 1

    def take_inputs(self, x: Tensor, layer: LatentLayer) -> Tensor:
        """Levels 0 to 2^k - 1."""
        top = self.levels_in
        if not top:
            return x
        levels: Tensor = quantize(x, float(top), 1.0, 0, 0, top)
        return levels

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Odd numbers, and what makes values of them and of the inputs' levels."""
        weight: Tensor = layer.weight
        inputs = 1.0 / (self.levels_in or 1)
        if self.weight_bits == FLOAT:
            return weight, None if inputs == 1.0 else weight.new_full((1,), inputs)
        if self.weight_bits == 1:
            mean = weight.detach().abs().mean()
            return _signs(weight, mean), (mean * inputs).reshape(1)
        top = (1 << self.weight_bits) - 1
        tangent = weight.tanh()
        largest = tangent.abs().amax().clamp(min=1e-30)
        real = top * tangent / largest
        odd = 2 * ((real.detach() + top) / 2).round() - top
        return straight(real, odd), weight.new_full((1,), inputs / top)

    def unit(self, layer: LatentLayer) -> float:
        """The largest tangent, which the weights of more than one bit are divided by, and the inputs' levels."""
        inputs = float(self.levels_in or 1)
        if self.weight_bits in (1, FLOAT):
            return inputs
        return inputs * float(layer.weight.detach().tanh().abs().max())

    def give_outputs(self, y: Tensor, layer: LatentLayer) -> Tensor:
        """The sums; their gradients have few bits."""
        if self.gradient_bits == FLOAT or not layer.training:
            return y
        first = layer.first
        return quantized_gradient(y, self.gradient_bits, lambda place: layer.generator(first + place))

    def finished(self, layer: LatentLayer) -> nn.Module:
        """Planes of signs; a layer whose weights are real stays what it is."""
        return layer.packed() if self.weight_bits < FLOAT else layer

    def why_not(self, layer: nn.Conv2d | nn.Linear) -> str:
        """Nothing to do for a layer if all stays real; layers that see one channel are for int8."""
        if (
            self.weight_bits == 1
            and isinstance(layer, nn.Conv2d)
            and layer.groups > 1
            and layer.groups == layer.in_channels
        ):
            return ONE_CHANNEL
        real = self.weight_bits == self.input_bits == self.gradient_bits == FLOAT
        return "weights, inputs and gradients are all left real" if real else ""

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One and two bits; 8 of all; weights alone."""
        return (
            cls(skip=()),
            cls(skip=(), weight_bits=8, input_bits=8, gradient_bits=8),
            cls(skip=(), weight_bits=3, input_bits=32, gradient_bits=6),
            cls(skip=(), weight_bits=32, input_bits=4),
        )


def _signs(weight: Tensor, mean: Tensor) -> Tensor:
    """Signs whose gradient, once they are scaled by the mean, is 1."""
    return straight(weight / mean.clamp(min=1e-30), sign(weight))


register_method(DoReFaConfig)(FewBitsSession)
