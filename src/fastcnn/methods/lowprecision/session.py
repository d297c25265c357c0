"""The session of methods that train with few bits: latent layers while it runs, layers of bits at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from fastcnn.methods.contract import LayerReport, check_finite, relative_error
from fastcnn.methods.lowprecision.latent import FewBitsConfig, LatentConv2d, LatentLayer, LatentLinear
from fastcnn.methods.lowprecision.packed import BinaryConv2d, BinaryLinear
from fastcnn.methods.pruning.masking import absorb_torch_prune
from fastcnn.methods.replace import dense_bytes, swap
from fastcnn.methods.skips import exclusions, last_linear


class FewBitsSession:
    """Replaces dense layers by latent ones, keeps them in order after every step, and packs them at the end.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Batch norms, activations and pools stay where they are: reorder blocks before (a batch norm
        ahead of a layer whose inputs count by their signs), as :mod:`fastcnn.methods.lowprecision.blocks` has them.
    config : FewBitsConfig
    layers : sequence of str

    Raises
    ------
    ValueError
        If a weight or bias is NaN or Inf.
    """

    serves: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.Linear)

    def __init__(self, model: nn.Module, config: FewBitsConfig, layers: Sequence[str]) -> None:
        self.model, self.config = model, config
        self.reports: list[LayerReport] = []
        absorb_torch_prune(model)
        reasons, last = exclusions(model, config.skip, config.exclude), last_linear(model)
        modules = dict(model.named_modules())
        self._names = list(layers)
        self._declined: dict[str, str] = {}
        self._layers: dict[str, LatentLayer] = {}
        for index, name in enumerate(layers):
            dense = modules[name]
            assert isinstance(dense, nn.Conv2d | nn.Linear)
            why = reasons.get(name) or config.why_not(dense)
            if why:
                self._declined[name] = why
                continue
            _check(name, dense)
            if isinstance(dense, nn.Conv2d):
                self._layers[name] = LatentConv2d.of(dense, config, index, name == last)
            else:
                self._layers[name] = LatentLinear.of(dense, config, index, name == last)
        swap(model, {id(modules[name]): layer for name, layer in self._layers.items()})

    def step(self) -> None:
        """Call after every optimizer step: latent weights are clipped, schedules go on."""
        done: set[int] = set()
        for layer in self._layers.values():
            layer.advance()
            if id(layer.weight) not in done:
                done.add(id(layer.weight))
                with torch.no_grad():
                    self.config.after_step(layer)

    def finish(self) -> nn.Module:
        """Replace latent layers by what inference needs; ValueError if a weight became NaN or Inf."""
        for name, layer in self._layers.items():
            _check(name, layer)
        made = {name: self.config.finished(layer) for name, layer in self._layers.items()}
        swap(self.model, {id(layer): made[name] for name, layer in self._layers.items()})
        self.reports = [self._report(name, made.get(name)) for name in self._names]
        return self.model

    def state(self) -> dict[str, Any]:
        """Steps so far; weights travel in the model's ``state_dict``."""
        return {"steps": max((layer.steps for layer in self._layers.values()), default=0)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        for layer in self._layers.values():
            layer.steps = int(state["steps"])

    def _report(self, name: str, made: nn.Module | None) -> LayerReport:
        layer: Any = self._layers.get(name) or self.model.get_submodule(name)
        weights = layer.weight.numel()
        params, size = weights + (0 if layer.bias is None else layer.bias.numel()), dense_bytes(layer)
        after, error, why = (params, weights, size), 0.0, self._declined.get(name, "")
        if made is not None:
            with torch.no_grad():
                error = relative_error(layer.weight, layer.rebuilt())
            why = repr(made)
            if isinstance(made, BinaryConv2d | BinaryLinear):
                theory = made.theory()
                after = (theory.params, theory.macs, theory.bytes)
        return LayerReport(
            layer=name,
            method=self.config.method,
            status="done" if made is not None else "declined",
            why=why,
            params_before=params,
            params_after=after[0],
            macs_before=weights,
            macs_after=after[1],
            bytes_before=size,
            bytes_after=after[2],
            weight_error=error,
        )


def _check(name: str, layer: Any) -> None:
    check_finite(layer.weight, f"weight of layer {name!r}")
    if layer.bias is not None:
        check_finite(layer.bias, f"bias of layer {name!r}")
