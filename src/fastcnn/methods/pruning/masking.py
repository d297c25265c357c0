"""Fixed masks on weights, through ``torch.nn.utils.parametrize``.

``W_eff = W where mask, else +0``: the gradient is masked with it. Momentum and weight decay can still move
a masked stored weight, so :func:`settle` is called after every optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune


class Mask(nn.Module):
    """Parametrization that holds a bool mask and zeroes the rest."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with pruned entries at +0; torch.where, so that a NaN cannot leak through."""
        return torch.where(self.mask, weight, weight.new_zeros(()))


def attach(modules: Iterable[nn.Module], mask: Tensor) -> Mask:
    """Put one mask on the weight of every given module (several if they share one parameter)."""
    shared = Mask(mask)
    for module in modules:
        parametrize.register_parametrization(module, "weight", shared)
    return shared


def stored(module: nn.Module) -> nn.Parameter:
    """The parameter behind a masked weight, the one the optimizer moves."""
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    original = parametrizations["weight"].original
    assert isinstance(original, nn.Parameter)
    return original


def settle(module: nn.Module, mask: Mask) -> None:
    """Write exact zeros into the stored weight where the mask is off."""
    with torch.no_grad():
        stored(module).masked_fill_(~mask.mask, 0.0)


def detach(module: nn.Module) -> None:
    """Make the masked weight an ordinary parameter with exact zeros."""
    # torch gives copies of a parametrized module one class and takes `weight` off that class here: copies would
    # lose theirs. A class of its own keeps them apart.
    cls = type(module)
    namespace = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, namespace)
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def absorb_torch_prune(model: nn.Module) -> dict[str, Tensor]:
    """Turn ``torch.nn.utils.prune`` masks into plain weights; return the masks by module name.

    torch.nn.utils.prune keeps ``weight_orig`` and ``weight_mask`` and a hook: it zeroes and never shrinks.
    """
    masks: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        for parameter in [key.removesuffix("_mask") for key, _ in module.named_buffers(recurse=False)]:
            if f"{parameter}_orig" not in module._parameters or f"{parameter}_mask" not in module._buffers:
                continue
            if parameter == "weight":
                masks[name] = module._buffers["weight_mask"].detach().bool().clone()
            prune.remove(module, parameter)  # type: ignore[no-untyped-call]
    return masks
