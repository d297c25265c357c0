"""``capture``: a torch model and example inputs in, a checked Graph out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from fastcnn.engine.capture import compressed, convolution, elementwise, normalisation, pooling, shape
from fastcnn.engine.capture.errors import NotSupportedError
from fastcnn.engine.capture.in_place import needs_functional_form
from fastcnn.engine.capture.lowering import Lowering, Outside
from fastcnn.engine.capture.size_reads import watch
from fastcnn.engine.capture.sizes import mark_fixed_axes
from fastcnn.engine.graph.graph import Graph
from fastcnn.engine.graph.ops import check_graph
from fastcnn.engine.graph.schema import MAX_RANK

HANDLER_FILES = (compressed, convolution, elementwise, normalisation, pooling, shape)
"""Imported for their registrations in ``registry.HANDLERS``."""


def capture(model: nn.Module, example_inputs: Any, *, strict: bool = False) -> Graph:
    """Turn a model into a Graph, through ``torch.export``.

    The model is read in eval mode; its training flags are put back and its weights copied, so that neither side sees
    the other's later changes. An operation outside the engine's set becomes a torch step, with one warning each.

    Parameters
    ----------
    model : nn.Module
        With float32 parameters, on any device torch.export can read.
    example_inputs : Tensor, tuple or list of Tensor, or dict of str to Tensor
        float32, batch first. A dict names arguments of ``forward``.
    strict : bool
        Raise instead of making torch steps.

    Returns
    -------
    Graph
        Axes of an input whose extent the model's code has baked in are listed in ``GraphInput.fixed``.

    Raises
    ------
    TypeError
        If the model is not a module or not float32, or an input is not a float32 tensor.
    ValueError
        If an input is empty, the model itself fails on the inputs, or a weight holds NaN or infinity.
    NotSupportedError
        (a ValueError) If the model branches on data, keeps state, draws random numbers, returns something other than
        float32 tensors, or, with ``strict``, uses an operation outside the engine's set.

    Examples
    --------
    >>> import torch
    >>> from fastcnn.engine.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> [node.op for node in graph]
    ['conv2d', 'relu']
    """
    _check_model(model)
    args, kwargs = _check_inputs(example_inputs)
    with _eval_mode(model), torch.no_grad():
        program = _export(model, args, kwargs)
        lowering = Lowering(program)
        graph = lowering.run()
        reads = watch(model, args, kwargs)
        lowering, graph = mark_fixed_axes(lowering, graph, args, kwargs, lambda a, k: _quiet_export(model, a, k), reads)
    if lowering.outside and strict:
        raise NotSupportedError(_refusal(lowering.outside))
    for item in lowering.outside:
        warnings.warn(
            f"{item.op} in layer {item.layer or '(top level)'!r} runs in torch ({item.reason}): it is slower there, "
            f"and the net cannot be saved; capture with strict=True to make this an error",
            UserWarning,
            stacklevel=2,
        )
    check_graph(graph, allow_torch=True)
    return graph


def _refusal(outside: list[Outside]) -> str:
    listed = "; ".join(f"{i.op} in layer {i.layer or '(top level)'!r} ({i.reason})" for i in outside)
    return (
        f"the engine cannot run {listed}: replace the operation by one of the engine's set, move it out of the model, "
        f"or capture with strict=False to run it in torch"
    )


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)):
                raise ValueError(f"{kind} {name!r} is not initialised yet: run the model once before capturing it")
            if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32):
                raise TypeError(
                    f"{kind} {name!r} is {tensor.dtype}: the engine works in float32; call model.float() first"
                )
            if kind == "parameter" and not bool(torch.isfinite(tensor.detach()).all()):
                raise ValueError(f"{kind} {name!r} holds NaN or infinity: mend or retrain the model first")


def _check_inputs(example_inputs: Any) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, torch.Tensor):
        args = (example_inputs,)
    elif isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
    elif isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    else:
        raise TypeError(
            f"example_inputs must be a tensor, a tuple or list of tensors, or a dict of them, got "
            f"{type(example_inputs).__name__}"
        )
    if not args and not kwargs:
        raise ValueError("example_inputs is empty: give one tensor per argument of forward")
    for name, tensor in [*((str(i), t) for i, t in enumerate(args)), *kwargs.items()]:
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"example input {name} must be a torch.Tensor, got {type(tensor).__name__}; "
                f"convert it with torch.from_numpy or torch.as_tensor"
            )
        if tensor.dtype != torch.float32:
            raise TypeError(f"example input {name} must be float32, got {tensor.dtype}; call .float() on it")
        if not 1 <= tensor.dim() <= MAX_RANK or tensor.numel() == 0:
            raise ValueError(
                f"example input {name} has shape {tuple(tensor.shape)}: it needs 1..{MAX_RANK} axes, none of them empty"
            )
    return args, kwargs


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the time being; flags are put back one by one, past any overridden ``train``."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


def _quiet_export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """Export and, where the model writes in place, make the program functional."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own remarks on tracing; ours are raised by capture
        program = torch.export.export(model, args, kwargs or None)
        if needs_functional_form(program.graph):
            program = program.run_decompositions({})
    return program


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    try:
        return _quiet_export(model, args, kwargs)
    except Exception as error:  # torch.export raises many kinds; find out whose fault it is
        shapes = [tuple(t.shape) for t in [*args, *kwargs.values()]]
        try:
            model(*args, **kwargs)
        except Exception as cause:
            raise ValueError(f"the model itself fails on example_inputs of shapes {shapes}: {cause}") from cause
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotSupportedError(
            f"torch.export cannot trace the model ({first}): remove control flow that depends on tensor values, or "
            f"move it out of the model"
        ) from error
