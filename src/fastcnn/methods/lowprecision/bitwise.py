"""Bitwise neural networks: weights, biases and values between layers of -1, 0 and +1, from a net of tangents.

Wins what bits win. No batch norms are needed: a net of tangents whose weights are already bounded is trained first, and
becomes signs from where it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from fastcnn.methods.contract import check_count, check_range
from fastcnn.methods.lowprecision.binary_ops import sign
from fastcnn.methods.lowprecision.bnn import ONE_CHANNEL, check_flag
from fastcnn.methods.lowprecision.latent import FewBitsConfig, LatentLayer
from fastcnn.methods.lowprecision.quantizers import straight, ternary, through_hard_tanh
from fastcnn.methods.lowprecision.session import FewBitsSession
from fastcnn.methods.registry import register_method


@dataclass(frozen=True, kw_only=True)
class BitwiseConfig(FewBitsConfig):
    """Bitwise networks, in two stages: tanh(w), tanh(b), tanh between layers; then signs and an exact share of zeros.

    For nets of linear layers and convolutions with nothing but flattening between them: the layers themselves have
    their tangents and signs. In the second stage errors flow through signs, and real weights take the updates.

    Parameters
    ----------
    zeros : float
        Share of a layer's weights that are 0, the smallest, in [0, 1): exactly round(zeros * n) of n.
    real_steps : int
        Optimizer steps of the first stage.
    inputs : bool
        Whether inputs of every layer count by their signs: bipolar data then.
    outputs : bool
        Whether all layers but the last linear one end in a tangent, then a sign.
    skip, exclude, seed
        As in :class:`~fastcnn.methods.lowprecision.latent.FewBitsConfig`; nothing is skipped by default.

    References
    ----------
    Kim and Smaragdis 2016, arXiv:1601.06071. Differs: a sign's gradient is that of a hard tanh over sqrt(n) of its n
    products, for want of which hardly a gradient would pass.
    """

    method: ClassVar[str] = "bitwise"

    skip: tuple[str, ...] | str = ()
    zeros: float = 0.0
    real_steps: int = 0
    inputs: bool = True
    outputs: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("zeros", self.zeros, 0.0, 1.0, open_high=True)
        check_count("real_steps", self.real_steps, 0)
        check_flag("inputs", self.inputs)
        check_flag("outputs", self.outputs)

    @property
    def clips_biases(self) -> bool:
        """Biases become signs, as weights do."""
        return True

    @property
    def planes(self) -> tuple[int, ...]:
        """One of signs, or with zeros two, which cancel there."""
        return (1, 1) if self.zeros else (1,)

    @property
    def signs_in(self) -> bool:
        """Whether inputs count by their signs."""
        return self.inputs

    def why_not(self, layer: nn.Conv2d | nn.Linear) -> str:
        """Layers that see one channel are for int8; small ones may have no weight left."""
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels:
            return ONE_CHANNEL
        if round(self.zeros * layer.weight.numel()) == layer.weight.numel():
            return f"zeros={self.zeros} would leave none of its {layer.weight.numel()} weights"
        return ""

    def is_real(self, layer: LatentLayer) -> bool:
        """Whether a layer is still in the first stage."""
        return layer.steps < self.real_steps and not layer.final

    def take_inputs(self, x: Tensor, layer: LatentLayer) -> Tensor:
        """Signs, in the second stage."""
        if not self.inputs or self.is_real(layer):
            return x
        signs: Tensor = sign(x)
        return signs

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Tangents; then signs, or with zeros -2, 0 and 2, and a half."""
        weight: Tensor = layer.weight
        if self.is_real(layer):
            return weight.tanh(), None
        if not self.zeros:
            return straight(weight, sign(weight)), None
        return straight(2 * weight, 2 * ternary(weight, self.zeros)), weight.new_full((1,), 0.5)

    def take_bias(self, layer: LatentLayer) -> Tensor | None:
        """Tangents; then signs."""
        bias = layer.bias
        if bias is None:
            return None
        return bias.tanh() if self.is_real(layer) else straight(bias, sign(bias))

    def give_outputs(self, y: Tensor, layer: LatentLayer) -> Tensor:
        """Tangents; then signs."""
        if not self.signs_out(layer):
            return y
        if self.is_real(layer):
            return y.tanh()
        return through_hard_tanh(y / math.sqrt(layer.weight[0].numel()), sign(y))

    def signs_out(self, layer: LatentLayer) -> bool:
        """All layers but the last."""
        return self.outputs and not layer.last

    def after_step(self, layer: LatentLayer) -> None:
        """The second stage begins with the tangents of the first; then real weights are clipped."""
        if layer.steps < self.real_steps:
            return
        if layer.steps == self.real_steps > 0:
            layer.weight.tanh_()
            if layer.bias is not None:
                layer.bias.tanh_()
        super().after_step(layer)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Signs; zeros after a first stage; real inputs."""
        return (cls(), cls(zeros=0.3, real_steps=3), cls(zeros=0.6, inputs=False, outputs=False))


register_method(BitwiseConfig)(FewBitsSession)
