"""Replace dense layers by a method's layers inside a model, one report per layer.

Shared by ``fastcnn.convert`` and by sessions that end in a conversion. Layers are matched by exact class:
a subclass may compute something else. A module reached under several names is replaced once, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from fastcnn.methods.contract import DeclinedError, LayerReport, MethodConfig, Sight, relative_error, spec_of
from fastcnn.methods.registry import Method
from fastcnn.methods.storage import sparse_bits

Choice = MethodConfig | str
"""What a layer is converted with, or why it is left as it is."""


def dense_bytes(module: nn.Conv2d | nn.Linear) -> int:
    """Bytes of weight and bias in theory: dense, or positions at their bound plus non-zeros if that is less."""
    weight = module.weight.detach()
    item = weight.element_size()
    bias = 0 if module.bias is None else module.bias.numel()
    bits = sparse_bits(weight.numel(), int((weight != 0).sum()), 8 * item)
    return -(-int(bits) // 8) + item * bias


def weight_layers(model: nn.Module, kinds: Iterable[type[nn.Module]]) -> list[str]:
    """Names of modules of exactly these classes (parametrized ones included), in ``named_modules`` order."""
    wanted = tuple(kinds)
    return [name for name, module in model.named_modules() if _dense_class(module) in wanted]


def _dense_class(module: nn.Module) -> type[nn.Module]:
    """Class of a module; for a parametrized one (whose class torch makes up) the class it had before."""
    cls = type(module)
    return cls.__bases__[0] if "parametrizations" in module._modules else cls


def replace_layers(
    model: nn.Module,
    method: Method,
    config: MethodConfig | Mapping[str, Choice],
    names: Iterable[str],
    sights: Mapping[str, Sight | None] | None = None,
) -> list[LayerReport]:
    """Replace the named dense layers in ``model`` itself.

    Parameters
    ----------
    config : MethodConfig, or mapping of names to one or to a reason
        For all layers, or for each; a layer with a reason is declined.
    sights : mapping of str to Sight or None, optional
        What calibration inputs show of each layer; None for one that they do not reach. Left out: no calibration.

    Returns
    -------
    list of LayerReport
        One per name: done, or declined with the reason (parametrized, tied weight, or the method's own).
    """
    modules = dict(model.named_modules())
    tied = tied_weights(model)
    swaps: dict[int, nn.Module] = {}
    reports: list[LayerReport] = []
    for name in names:
        dense = modules[name]
        assert isinstance(dense, nn.Conv2d | nn.Linear)
        try:
            if sights is not None and sights[name] is None:
                raise DeclinedError("the calibration inputs do not reach it")
            choice = config if isinstance(config, MethodConfig) else config[name]
            if isinstance(choice, str):
                raise DeclinedError(choice)
            layer = _build(dense, name, method, choice, tied, sights[name] if sights is not None else None)
        except DeclinedError as error:
            reports.append(_report(name, method, dense, str(error), None))
        else:
            swaps[id(dense)] = layer
            reports.append(_report(name, method, dense, "", layer))
    swap(model, swaps)
    return reports


def _build(
    dense: nn.Conv2d | nn.Linear,
    name: str,
    method: Method,
    config: MethodConfig,
    tied: Mapping[int, list[str]],
    sight: Sight | None,
) -> nn.Module:
    why = obstacle(dense, name, tied)
    if why:
        raise DeclinedError(why)
    build = method.layers[type(dense)].from_dense
    layer = build(dense, config) if sight is None else build(dense, config, sight)
    assert isinstance(layer, nn.Module)
    return layer


def obstacle(dense: nn.Conv1d | nn.Conv2d | nn.Linear, name: str, tied: Mapping[int, list[str]]) -> str:
    """Why no method can replace this layer of a model; empty if one can.

    Parameters
    ----------
    tied : mapping of int to list of str
        As :func:`tied_weights` returns it.
    """
    if "parametrizations" in dense._modules:
        return "its weight is parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
    others = [other for other in tied[id(dense.weight)] if other != name]
    if others:
        return f"its weight is tied with {', '.join(others)}: conversion would untie them"
    return "" if dense.weight.numel() else "it has no weights"


def tied_weights(model: nn.Module) -> dict[int, list[str]]:
    """Module names by the identity of their weight parameter."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return owners


def swap(model: nn.Module, swaps: Mapping[int, nn.Module]) -> None:
    """Put the new modules wherever the old ones hang, under every name."""
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is not None and id(child) in swaps:
                parent._modules[key] = swaps[id(child)]


def _report(name: str, method: Method, dense: nn.Conv2d | nn.Linear, why: str, layer: nn.Module | None) -> LayerReport:
    spec = spec_of(dense)
    bias = spec.out_channels if spec.bias else 0
    nonzero = int((dense.weight.detach() != 0).sum())
    size = dense_bytes(dense)
    params, macs, after, error = nonzero + bias, nonzero, size, 0.0
    if layer is not None:
        theory = layer.theory()  # type: ignore[operator]  # ConvertedLayer
        params, macs, after = theory.params, theory.macs, theory.bytes
        error = relative_error(dense.weight, layer.to_dense().weight)  # type: ignore[operator]  # ConvertedLayer
        why = repr(layer)
    return LayerReport(
        layer=name,
        method=method.name,
        status="done" if layer is not None else "declined",
        why=why,
        params_before=nonzero + bias,
        params_after=params,
        macs_before=nonzero,
        macs_after=macs,
        bytes_before=size,
        bytes_after=after,
        weight_error=error,
    )
