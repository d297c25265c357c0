"""XNOR-Net and binary-weight networks: signs with a scale for each output, alpha = mean |W|, the best there is in L2.

Wins what :mod:`fastcnn.methods.lowprecision.bnn` does, with less loss: a Gaussian weight keeps 64 % of its energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from fastcnn.methods.contract import check_choice
from fastcnn.methods.lowprecision.binary_ops import sign
from fastcnn.methods.lowprecision.bnn import SignsConfig, check_flag
from fastcnn.methods.lowprecision.latent import LatentLayer
from fastcnn.methods.lowprecision.quantizers import paper_sign, stochastic_sign
from fastcnn.methods.lowprecision.session import FewBitsSession
from fastcnn.methods.registry import register_method


def mean_size(weight: Tensor) -> Tensor:
    """alpha of each output (O,): mean |W|."""
    return weight.abs().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class XNORConfig(SignsConfig):
    """XNOR-Net: signs of inputs and weights, sums scaled by alpha = mean |W| of each output.

    Put the batch norm before the layer (batch norm, sign, convolution, pool): see
    :class:`~fastcnn.methods.lowprecision.blocks.BinaryBlock`. Parameters as in
    :class:`~fastcnn.methods.lowprecision.bnn.SignsConfig`, and:

    Parameters
    ----------
    alpha : {"mean", "learned", "none"}
        Mean |W| of each output; a parameter that starts there; or no scale.
    beta : bool
        Whether sums are also multiplied by the mean |input| under the kernel, at each position. Costs the fold of batch
        norm and sign into thresholds, for less than a point of accuracy.
    gradient : {"full", "paper"}
        Of alpha sgn(W): with all of alpha's dependence on W, or the diagonal of it that the paper gives.
    center : bool
        Whether a weight's mean over input channels is taken off first, as the authors' code does.

    References
    ----------
    Rastegari, Ordonez, Redmon and Farhadi 2016, arXiv:1603.05279.
    """

    method: ClassVar[str] = "xnor"

    alpha: Literal["mean", "learned", "none"] = "mean"
    beta: bool = False
    gradient: Literal["full", "paper"] = "full"
    center: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("alpha", self.alpha, ("mean", "learned", "none"))
        check_choice("gradient", self.gradient, ("full", "paper"))
        check_flag("beta", self.beta)
        check_flag("center", self.center)
        if self.gradient == "paper" and self.alpha != "mean":
            raise ValueError(f"gradient='paper' is that of alpha='mean', not of alpha={self.alpha!r}")
        if self.gradient == "paper" and self.stochastic_weights:
            raise ValueError(
                "gradient='paper' is that of signs, not of signs drawn at random: stochastic_weights=False"
            )
        if self.beta and not self.inputs:
            raise ValueError("beta scales sums of signs: it needs inputs=True")

    @property
    def box(self) -> bool:
        """Whether outputs are multiplied by the mean size of the inputs under the kernel."""
        return self.beta

    def begin(self, layer: LatentLayer) -> None:
        """A learned scale starts at the mean."""
        if self.alpha == "learned":
            layer.alpha = nn.Parameter(mean_size(layer.weight.detach()))

    def take_weight(self, layer: LatentLayer) -> tuple[Tensor, Tensor | None]:
        """Signs of the weight and alpha; the weight itself where or while it is real."""
        if not self.binary_now(layer):
            return layer.weight, None
        weight: Tensor = layer.weight
        if self.center and weight.dim() == 4:
            weight = weight - weight.mean(1, keepdim=True)
        if self.alpha == "mean" and self.gradient == "paper":
            alpha = mean_size(weight.detach())
            return paper_sign(weight, alpha), alpha
        if layer.training and self.stochastic_weights:
            signs = stochastic_sign(weight, layer.generator())
        else:
            signs = sign(weight)
        if self.alpha == "none":
            return signs, None
        return signs, mean_size(weight) if self.alpha == "mean" else layer.get_parameter("alpha")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """As it is; with beta and the paper's gradient; a learned scale; centred, without one."""
        return (
            cls(skip=()),
            cls(skip=(), beta=True, gradient="paper", pad_value=0),
            cls(skip=(), alpha="learned", outputs=True),
            cls(skip=(), alpha="none", center=True),
        )


@dataclass(frozen=True, kw_only=True)
class BWNConfig(XNORConfig):
    """Binary-weight networks: weights of +-1 with alpha = mean |W| of each output; inputs stay real.

    31 times smaller, no faster. Parameters as in :class:`XNORConfig`.

    References
    ----------
    Rastegari, Ordonez, Redmon and Farhadi 2016, arXiv:1603.05279, section 3.1.
    """

    method: ClassVar[str] = "bwn"

    inputs: bool = False

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """As it is, and with the paper's gradient."""
        return (cls(skip=()), cls(skip=(), gradient="paper"))


register_method(XNORConfig)(FewBitsSession)
register_method(BWNConfig)(FewBitsSession)
