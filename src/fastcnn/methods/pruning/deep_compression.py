"""Deep Compression in one config: magnitude pruning on a schedule, then weight sharing of the survivors.

The third and fourth stages live elsewhere: centroids are tuned by ``fastcnn.finetune`` on the result, and
the file does the entropy coding. The recipe ``deep-compression`` runs all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import nn

from fastcnn.methods.contract import LayerReport, MethodConfig
from fastcnn.methods.pruning.magnitude import MagnitudeConfig, MagnitudeSession
from fastcnn.methods.registry import method_of, register_method
from fastcnn.methods.replace import replace_layers, weight_layers
from fastcnn.methods.vq.scalar import KMeansConfig


@dataclass(frozen=True, kw_only=True)
class DeepCompressionConfig(MethodConfig):
    """Deep Compression: prune the smallest weights, retrain, share the survivors by k-means.

    Parameters
    ----------
    prune : MagnitudeConfig
        Schedule and targets of pruning; training between prepare and convert is the retraining.
    share : KMeansConfig
        Weight sharing of every candidate layer, pruned or not, when training is over.

    References
    ----------
    Han, Mao and Dally 2016, arXiv:1510.00149.
    """

    method: ClassVar[str] = "deep-compression"

    prune: MagnitudeConfig = field(default_factory=MagnitudeConfig)
    share: KMeansConfig = field(default_factory=KMeansConfig)

    def __post_init__(self) -> None:
        for name, value, kind in (("prune", self.prune, MagnitudeConfig), ("share", self.share, KMeansConfig)):
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__} {value!r}")

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Everything pruned to 70 %, seven shared values."""
        return (cls(prune=MagnitudeConfig(sparsity=0.7, skip=()), share=KMeansConfig(clusters=7)),)


@register_method(DeepCompressionConfig)
class DeepCompressionSession:
    """A pruning session whose end shares the surviving weights."""

    serves: ClassVar[tuple[type[nn.Module], ...]] = MagnitudeSession.serves

    def __init__(self, model: nn.Module, config: DeepCompressionConfig, layers: Sequence[str]) -> None:
        self.config, self._names = config, tuple(layers)
        self._pruning = MagnitudeSession(model, config.prune, layers)
        self.reports: list[LayerReport] = []

    def step(self) -> None:
        """Call after every optimizer step."""
        self._pruning.step()

    def finish(self) -> nn.Module:
        """Prune to the end, then replace the layers by codebook layers."""
        model = self._pruning.finish()
        method = method_of(self.config.share)
        present = set(weight_layers(model, method.layers))
        shared = replace_layers(model, method, self.config.share, [name for name in self._names if name in present])
        self.reports = [*self._pruning.reports, *shared]
        return model

    def state(self) -> dict[str, Any]:
        """State of the pruning session."""
        return self._pruning.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._pruning.load_state(state)
