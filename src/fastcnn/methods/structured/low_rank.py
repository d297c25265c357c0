"""Low rank of the final layer: a bottleneck before the outputs, trained from scratch or cut by SVD.

Wins where the last layer has hundreds of outputs and more, and holds much of the net's weights. A head of ten outputs
would need a rank below ten to save anything; from ten on it is declined. Approximate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from fastcnn.methods.registry import register_method
from fastcnn.methods.structured.svd import SVDConfig, SVDLinear


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(SVDConfig):
    """Low rank for the final linear layer of a net, by SVD; other layers stay as they are.

    Parameters
    ----------
    rank, energy, keep, budget, speedup, budget_of, measure, multiple_of, force, ridge
        As in :class:`~fastcnn.methods.structured.svd.SVDConfig`; give exactly one of the first five.

    References
    ----------
    Sainath, Kingsbury, Sindhwani, Arisoy and Ramabhadran 2013, "Low-rank matrix factorization for deep neural network
    training with high-dimensional output targets", ICASSP.
    """

    method: ClassVar[str] = "low-rank"

    def which(self, layers: Mapping[str, nn.Module]) -> list[str]:
        """The last one."""
        return list(layers)[-1:]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A rank for every layer."""
        return (cls(rank=1, force=True),)


@register_method(LowRankConfig)
class LowRankLinear(SVDLinear):
    """Two linear layers, I -> rank -> O, for the outputs of a net.

    Parameters
    ----------
    in_features, out_features, bias
        As in ``torch.nn.Linear``.
    rank : int

    Notes
    -----
    From scratch the first factor is N(0, 1 / I), the second N(0, 1 / rank). Weight decay belongs to the product, not to
    each factor: leave both out of the optimizer's decay and add ``decay * layer.penalty()`` to the loss.

    References
    ----------
    Sainath et al. 2013.
    """

    def penalty(self) -> Tensor:
        """Squared Frobenius norm of the product of both factors; differentiable, and never builds the product."""
        reduce, expand = (stage.weight for stage in self.stages)
        assert isinstance(reduce, Tensor)
        assert isinstance(expand, Tensor)
        return ((reduce @ reduce.mT) * (expand.mT @ expand)).sum()  # two (rank, rank) matrices
