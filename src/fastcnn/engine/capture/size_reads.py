"""Does the model's Python code look at the sizes of its tensors? What it never looks at, it cannot bake in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_SHAPE: Any = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_OTHER = frozenset(
    {torch.Tensor.numel, torch.Tensor.nelement, torch.Tensor.stride, torch.Tensor.__len__, torch.Tensor.__iter__}
)

_HARMLESS = frozenset(
    (
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
        *(
            "hardtanh",
            "rrelu",
            "glu",
            "logsigmoid",
            "tanh",
            "sigmoid",
            "softmax",
            "log_softmax",
            "softmin",
            "threshold",
        ),
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "batch_norm"),
        *("max_pool1d", "max_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices", "boolean_dispatch", "fn"),
        *("_max_pool1d", "_max_pool2d", "linear", "prelu", "threshold"),
        *("group_norm", "instance_norm", "layer_norm"),  # they look at sizes to refuse bad ones only
    )
)
"""Functions of torch.nn.functional that look at no size in eval mode; what any other reads inside stays unseen."""


def _reads_inside(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    if getattr(func, "__module__", None) != "torch.nn.functional":
        return False
    name = getattr(func, "__name__", "")
    if name.startswith("adaptive_"):
        size = args[1] if len(args) > 1 else given.get("output_size")
        return isinstance(size, (tuple, list)) and None in size
    if name == "interpolate":
        return bool(given.get("recompute_scale_factor"))
    return name not in _HARMLESS


class SizeReads(TorchFunctionMode):
    """Watches reads of ``shape``, ``size`` and the like, in the model and in torch's own Python functions.

    Attributes
    ----------
    batch, spatial : bool
        Whether axis 0, or an axis after the channels, was read. A read of all axes counts as both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batch = False
        self.spatial = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the read and carry on."""
        given = dict(kwargs or {})
        if func is torch.Tensor.size:
            dim = args[1] if len(args) > 1 else given.get("dim")
            with torch._C.DisableTorchFunction():
                rank = args[0].dim()
            position = None if dim is None else int(dim) % max(rank, 1)
            self.batch |= position in (None, 0)
            self.spatial |= position is None or position > 1
        elif func == _SHAPE or func in _OTHER or _reads_inside(func, args, given):
            self.batch = self.spatial = True
        return func(*args, **given)


def watch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SizeReads:
    """Run the model once on its inputs and return what it read."""
    reads = SizeReads()
    copies = [tensor.clone() for tensor in args]
    named = {key: tensor.clone() for key, tensor in kwargs.items()}
    with torch.no_grad(), reads:
        model(*copies, **named)
    return reads
