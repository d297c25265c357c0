"""Methods that work on a captured net: what the layers are, and what runs between them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastcnn.compression.calibrate import inputs_of
from fastcnn.compression.report import attach
from fastcnn.methods.contract import MethodConfig
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import obstacle, tied_weights
from fastcnn.methods.skips import exclusions


def convert_captured(
    model: nn.Module, method: Method, config: MethodConfig, names: Sequence[str], data: Tensor | Iterable[Any] | None
) -> nn.Module:
    """Capture a model, which is in eval mode from then on, and apply a method to its graph.

    Raises
    ------
    ValueError
        If there is no data, or the model cannot be captured.
    """
    batches = _batches(config, data, "convert")
    model.eval()
    reasons = _reasons(model, config, names)
    conversion = method.session(capture_graph(model, batches[0]), config, names, reasons)
    made: nn.Module = conversion.run(batches)
    attach(made, conversion.reports)
    return made.eval()


def prepare_captured(
    model: nn.Module, method: Method, config: MethodConfig, names: Sequence[str], data: Tensor | Iterable[Any] | None
) -> Any:
    """Capture a model, which is in eval mode from then on, and begin a method's session on its graph.

    The session's ``model`` is the net in training; its modules are in the modes that the model's were in.

    Raises
    ------
    ValueError
        If there is no data, or the model cannot be captured.
    """
    batches = _batches(config, data, "prepare")
    modes = {name: module.training for name, module in model.named_modules()}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is None:
            module.momentum = 0.1  # A graph has no count of batches for a mean of all: the mean moves on from here.
    model.eval()
    return method.training(
        capture_graph(model, batches[0]), config, names, _reasons(model, config, names), batches, modes
    )


def _batches(config: MethodConfig, data: Tensor | Iterable[Any] | None, verb: str) -> list[Tensor]:
    batches = [] if data is None else list(inputs_of(data))
    if not batches:
        raise ValueError(f"{type(config).__name__} needs calibration inputs, some hundred of them: give {verb} data")
    return batches


def _reasons(model: nn.Module, config: MethodConfig, names: Sequence[str]) -> dict[str, str]:
    """Why layers are left alone, as far as their modules show it."""
    tied = tied_weights(model)
    settings: Any = config
    reasons = exclusions(model, settings.skip, settings.exclude)
    for name in names:
        layer: Any = model.get_submodule(name)
        why = obstacle(layer, name, tied)
        if not why and getattr(layer, "padding_mode", "zeros") != "zeros":
            why = f"padding_mode={layer.padding_mode!r} has no form of levels"
        if not why and getattr(layer, "padding", 0) == "same" and _is_uneven(layer):
            why = "padding='same' of its kernel is uneven"
        if why:
            reasons.setdefault(name, why)
    return reasons


def _is_uneven(conv: nn.Conv2d) -> bool:
    """Whether "same" means one row or column more after the map than before it."""
    return any(d * (k - 1) % 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))


def capture_graph(model: nn.Module, inputs: Tensor) -> fx.GraphModule:
    """ATen graph of a model in eval mode, for any batch size if the model is made for that.

    Raises
    ------
    ValueError
        If torch.export cannot capture the model.
    """
    example = inputs if len(inputs) > 1 else torch.cat((inputs, inputs))
    batch = {0: torch.export.Dim("batch", min=1)}
    program = None
    errors = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for shapes, given in (((batch,), example), (None, inputs)):
            try:
                program = torch.export.export(model, (given,), dynamic_shapes=shapes)
                break
            except Exception as error:  # of torch.export, which raises all kinds
                errors.append(error)
    if program is None:
        raise ValueError(f"the model cannot be captured by torch.export: {errors[-1]}") from errors[-1]
    module: Any = program.module()
    # A module of its own: torch's has no modes.
    return fx.GraphModule(module, module.graph)
