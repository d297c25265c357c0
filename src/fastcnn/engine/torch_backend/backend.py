"""The function that torch.compile calls with every graph it has traced."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fastcnn.engine.capture import NotSupportedError
from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.torch_backend.bound import slots_of
from fastcnn.engine.torch_backend.options import BackendOptions
from fastcnn.engine.torch_backend.probe import plain, probe
from fastcnn.engine.torch_backend.runner import NetRunner
from fastcnn.engine.torch_backend.split import LeftToTorchError, Split, returned, split

logger = logging.getLogger("fastcnn")

Compiled = Callable[..., Sequence[Any]]

REFUSALS = (LeftToTorchError, NotSupportedError, GraphError, ValueError, TypeError)
"""What capture and planning say of a model they cannot take; anything else is a mistake and comes through."""


def fastcnn(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Compiled:
    """Compile one graph for this CPU: the backend of ``torch.compile(model, backend="fastcnn")``.

    For inference: a model in evaluation mode, called under ``torch.no_grad()`` or ``torch.inference_mode()``. A graph
    that cannot run natively as a whole (gradients are asked for, training mode, autocast, inputs other than float32 on
    the CPU) runs in torch, with a warning that says why; ``options={"strict": True}`` makes that an error. A single
    operation outside the engine's set runs in torch between native stretches, with the engine's warning that names it.

    Parameters
    ----------
    graph_module : fx.GraphModule
        From torch.compile, with parameters and buffers among its inputs or inside.
    example_inputs : sequence
        Values of the graph's placeholders.
    options : mapping, optional
        ``tolerance``, ``threads``, ``strict``, ``tune``, as in :func:`fastcnn.compile`.
    mode : None
        The modes of torch.compile are inductor's.

    Returns
    -------
    callable
        Takes what the graph takes, returns what it returns. Tensors are new and contiguous.

    Raises
    ------
    ValueError, TypeError
        For unknown options or a mode; under ``strict`` for what would run in torch.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    >>> fast = torch.compile(model, backend="fastcnn", options={"tune": False})
    >>> with torch.no_grad():
    ...     fast(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 8, 30, 30])
    """
    if mode is not None:
        raise ValueError(f'mode={mode!r} is inductor\'s: give options={{"tolerance": …, "tune": …}} instead')
    settings = BackendOptions.parse(options)
    try:
        return _compile(graph_module, example_inputs, settings)
    except REFUSALS as error:
        message = f"a graph of {_size(graph_module)} operations runs in torch, not in fastcnn: {error}"
        if settings.strict:
            raise NotSupportedError(message) from error
        warnings.warn(message, UserWarning, stacklevel=2)
        return graph_module.forward


def _compile(graph_module: fx.GraphModule, example_inputs: Sequence[Any], settings: BackendOptions) -> Compiled:
    if asks_for_gradients(example_inputs):
        raise LeftToTorchError(
            "gradients are asked for: call the model under torch.no_grad() or torch.inference_mode()"
        )
    if torch.is_autocast_enabled("cpu"):
        raise LeftToTorchError("autocast is on: the engine computes in float32; choose a tolerance instead")
    parts = split(graph_module, probe(graph_module, example_inputs))
    if parts.net is None:
        logger.info("torch.compile: a graph of %d operations has no float32 result: torch", _size(graph_module))
        return graph_module.forward
    return Assembled(graph_module, parts, example_inputs, settings)


class Assembled:
    """Net, tail, and what is passed through, put together to the graph's outputs."""

    def __init__(
        self, module: fx.GraphModule, parts: Split, example_inputs: Sequence[Any], settings: BackendOptions
    ) -> None:
        assert parts.net is not None
        self._module = module
        self._parts = parts
        self._names = [node for node in module.graph.nodes if node.op == "placeholder"]
        self._returned = list(returned(module))
        given: dict[fx.Node, Any] = dict(zip(self._names, example_inputs, strict=True))
        given |= {node: given[source].item() for node, source in parts.numbers.items()}
        values = [plain(given[node]) for node in parts.net_inputs]
        self._strict, self._left_to_torch = settings.strict, False
        self._run = NetRunner(parts.net, slots_of(parts.net_inputs, values), settings)
        self._run.prepare(values)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        if self._left_to_torch or asks_for_gradients(args):
            return self._in_torch(args)
        values: dict[fx.Node, Any] = dict(zip(self._names, args, strict=True))
        parts = self._parts
        values |= {node: values[source].item() for node, source in parts.numbers.items()}
        try:
            made = self._run([values[n] for n in parts.net_inputs])
        except REFUSALS as error:  # sizes that came later
            message = f"a graph of {_size(self._module)} operations runs in torch from now on: {error}"
            if self._strict:
                raise NotSupportedError(message) from error
            warnings.warn(message, UserWarning, stacklevel=2)
            self._left_to_torch = True
            return self._in_torch(args)
        values |= zip(parts.net_outputs, made, strict=True)
        if parts.tail is not None:
            found = parts.tail(*(values[n] for n in parts.tail_inputs))
            values |= zip(parts.tail_outputs, found, strict=True)
        return tuple(values[item] if isinstance(item, fx.Node) else item for item in self._returned)

    def _in_torch(self, args: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._module.forward(*args))


def asks_for_gradients(values: Sequence[Any]) -> bool:
    """Whether autograd would record an operation on these values."""
    return torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)


def _size(module: fx.GraphModule) -> int:
    return sum(node.op.startswith("call") for node in module.graph.nodes)
