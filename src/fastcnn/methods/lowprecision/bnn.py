"""BinaryConnect and binarized neural networks: weights of +-1, and activations too.

Wins size (31 times in a layer of 576 products) and, where inputs are signs as well, time: a word of 64 products is one
exclusive or and one count. Costs accuracy, which training recovers in part; never convert without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import check_choice, check_count
from fastcnn.methods.lowprecision.binary_ops import sign
from fastcnn.methods.lowprecision.latent import FewBitsConfig, LatentLayer
from fastcnn.methods.lowprecision.quantizers import polynomial_sign, stochastic_sign
from fastcnn.methods.lowprecision.session import FewBitsSession
from fastcnn.methods.registry import register_method

ONE_CHANNEL = "each of its outputs sees one input channel: too few products for signs, which int8 serves better"


def check_flag(name: str, value: object) -> None:
    """TypeError for anything but True and False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class SignsConfig(FewBitsConfig):
    """What configs of weights of +-1 share: the three places where a layer may have signs, and how it learns them.

    Parameters
    ----------
    inputs, weights, outputs : bool
        Which of a layer's three tensors are signs in training and after. Layers of one session differ in ``outputs``
        only: the last linear layer always returns sums.
    pad_value : {1, -1, 0}
        What stands around a map of signs. 0 is what nets were trained with that padded real maps.
    estimator : {"hard-tanh", "polynomial"}
        Gradient of an input's sign: 1 or 2 - 2 |x|, on [-1, 1].
    weights_from : int
        Optimizer step from which weights are signs: training in two steps, activations first, loses less.
    stochastic_inputs, stochastic_weights : bool
        Whether signs are drawn in training, +1 with probability (x + 1) / 2.
    """

    inputs: bool = True
    weights: bool = True
    outputs: bool = False
    pad_value: Literal[1, -1, 0] = 1
    estimator: Literal["hard-tanh", "polynomial"] = "hard-tanh"
    weights_from: int = 0
    stochastic_inputs: bool = False
    stochastic_weights: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inputs", "weights", "outputs", "stochastic_inputs", "stochastic_weights"):
            check_flag(name, getattr(self, name))
        if not (self.inputs or self.weights or self.outputs):
            raise ValueError("inputs, weights and outputs are all False: nothing would become signs")
        check_count("pad_value", self.pad_value, -1, 1)
        check_choice("estimator", self.estimator, ("hard-tanh", "polynomial"))
        check_count("weights_from", self.weights_from, 0)

    @property
    def clips(self) -> bool:
        """Weights that stay real are left alone."""
        return self.weights

    @property
    def signs_in(self) -> bool:
        """Whether inputs count by their signs."""
        return self.inputs

    @property
    def pads_with(self) -> int:
        """What stands around a map of signs."""
        return self.pad_value if self.inputs else 0

    def why_not(self, layer: nn.Conv2d | nn.Linear) -> str:
        """Layers that see one channel are for int8."""
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels:
            return ONE_CHANNEL
        return ""

    def take_inputs(self, x: Tensor, layer: LatentLayer) -> Tensor:
        """Signs of the inputs, if they count by them."""
        return self._signs(x, layer) if self.inputs else x

    def _signs(self, x: Tensor, layer: LatentLayer, *more: int) -> Tensor:
        if layer.training and self.stochastic_inputs:
            drawn = [stochastic_sign(part, layer.generator(layer.first + k, *more)) for k, part in enumerate(x)]
            return torch.stack(drawn) if drawn else x
        signs: Tensor = polynomial_sign(x) if self.estimator == "polynomial" else sign(x)
        return signs

    def binary_now(self, layer: LatentLayer) -> bool:
        """Whether weights are signs at this step."""
        return self.weights and (layer.steps >= self.weights_from or layer.final)

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Signs of the weight; the weight itself where or while it is real."""
        if not self.binary_now(layer):
            return layer.weight, None
        if layer.training and self.stochastic_weights:
            return stochastic_sign(layer.weight, layer.generator()), None
        return sign(layer.weight), None

    def give_outputs(self, y: Tensor, layer: LatentLayer) -> Tensor:
        """Signs, if outputs are to be, except of the last linear layer."""
        return self._signs(y, layer, 1) if self.signs_out(layer) else y

    def signs_out(self, layer: LatentLayer) -> bool:
        """Whether the layer ends in a sign."""
        return self.outputs and not layer.last

    def finished(self, layer: LatentLayer) -> nn.Module:
        """Bits; a layer whose weights are real stays what it is."""
        return layer.packed() if self.weights else layer


@dataclass(frozen=True, kw_only=True)
class BinaryConnectConfig(SignsConfig):
    """BinaryConnect: weights of +-1 in every pass, real ones behind them that gradients add up in.

    Inputs stay real: 31 times smaller, no faster. Parameters as in :class:`SignsConfig`, and:

    Parameters
    ----------
    inference : {"sign", "float"}
        What the trained layer multiplies: signs, or the real weights, for which stochastic signs were a regulariser.

    References
    ----------
    Courbariaux, Bengio and David 2015, arXiv:1511.00363.
    """

    method: ClassVar[str] = "binaryconnect"

    inputs: bool = False
    inference: Literal["sign", "float"] = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("inference", self.inference, ("sign", "float"))
        if not self.weights:
            raise ValueError("weights=False leaves nothing of BinaryConnect: use BNNConfig(weights=False)")
        if self.inference == "float" and (self.inputs or self.outputs):
            raise ValueError("inference='float' is for weights alone: leave inputs and outputs False")

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Signs of the weight in training, and afterwards unless inference is with floats."""
        if self.inference == "float" and (layer.final or not layer.training):
            return layer.weight, None
        return super().take_weight(layer)

    def finished(self, layer: LatentLayer) -> nn.Module:
        """Bits, or the dense layer."""
        return layer.dense() if self.inference == "float" else super().finished(layer)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Deterministic, and stochastic to floats."""
        return (cls(skip=()), cls(skip=(), stochastic_weights=True, inference="float"))


@dataclass(frozen=True, kw_only=True)
class BNNConfig(SignsConfig):
    """Binarized neural networks: weights and inputs of +-1; sums in whole numbers, batch norm before each sign.

    Parameters as in :class:`SignsConfig`. The first convolution and the last linear layer stay real by default.

    References
    ----------
    Courbariaux, Hubara, Soudry, El-Yaniv and Bengio 2016, arXiv:1602.02830.
    """

    method: ClassVar[str] = "bnn"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Inputs and weights; all three, drawn at random and padded with zeros; activations first."""
        return (
            cls(skip=()),
            cls(skip=(), outputs=True, pad_value=0, stochastic_inputs=True, stochastic_weights=True),
            cls(skip=(), pad_value=-1, estimator="polynomial", weights_from=2),
            cls(skip=(), weights=False),
        )


register_method(BinaryConnectConfig)(FewBitsSession)
register_method(BNNConfig)(FewBitsSession)
