"""Data-aware conversion: layer by layer, each fed by the already converted layers before it.

Two nets run on the same calibration inputs: the original, which says what each layer should put out, and the copy in
conversion, which says what the layer is given by then. A layer is replaced before the next one is looked at, so that
later layers make up for the errors of earlier ones where they can. The running statistics of each batch norm on the way
are moved by what conversion changed of its inputs, on the same pictures: statistics of the calibration set itself would
bring its own bias along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.cli.output import progress_bar
from fastcnn.compression.latency import layer_ms
from fastcnn.methods.contract import LayerReport, MethodConfig, Sight
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import replace_layers
from fastcnn.methods.structured.calibration import Gatherer

Batches = Sequence[Tensor]


def inputs_of(data: Tensor | Iterable[Any]) -> Iterator[Tensor]:
    """Yield the model's input of each calibration batch: a tensor is one batch, a tuple begins with it.

    Raises
    ------
    TypeError, ValueError
        If data is no tensor and no iterable of batches, or holds none.
    """
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise TypeError(f"data must be a tensor or batches of them, got {type(data).__name__}")
    empty = True
    for batch in [data] if isinstance(data, Tensor) else data:
        empty = False
        first = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(first, Tensor):
            raise TypeError(f"a batch of data must be a tensor, or begin with one, got {type(first).__name__}")
        yield first
    if empty:
        raise ValueError("data holds no batch: give at least one, or leave data out")


def replace_calibrated(
    original: nn.Module, model: nn.Module, method: Method, config: MethodConfig, names: Sequence[str], batches: Batches
) -> list[LayerReport]:
    """Replace the named layers of ``model``, a copy of ``original``; one report per name, in the order of ``names``.

    Raises
    ------
    ValueError
        If the model does not run on the calibration inputs, or they hold NaN or Inf.
    """
    reports: dict[str, LayerReport] = {}
    norms = [name for name, module in model.named_modules() if _is_norm(module)]
    modes = {name: model.get_submodule(name).training for name in names}
    with _evaluating(original, model), torch.no_grad():
        order = _order(original, [*names, *norms], batches)
        before = _norm_inputs(original, norms, batches)
        with progress_bar("converting", total=sum(name in names for name in order)) as advance:
            for name in order:
                if name in norms:
                    if any(line.status == "done" for line in reports.values()):
                        _move_norm(model.get_submodule(name), before[name], _norm_inputs(model, [name], batches)[name])
                    continue
                sight = _sight(original, model, name, batches)
                (reports[name],) = replace_layers(model, method, config, [name], {name: sight})
                model.get_submodule(name).eval()
                advance(note=name)
    for name, training in modes.items():
        model.get_submodule(name).train(training)
    unseen = [name for name in names if name not in reports]
    for line in replace_layers(model, method, config, unseen, dict.fromkeys(unseen)):
        reports[line.layer] = line
    return [reports[name] for name in names]


def sights(
    model: nn.Module, names: Sequence[str], batches: Batches, *, threads: int | None = None
) -> Iterator[tuple[str, Sight | None]]:
    """Yield each named layer's name and what it sees in the model as it is; None for one that the inputs do not reach.

    Raises
    ------
    ValueError
        As :func:`replace_calibrated`.
    """
    with _evaluating(model), torch.no_grad():
        order = _order(model, names, batches)
        for name in names:
            yield name, _sight(model, model, name, batches, threads) if name in order else None


def _sight(original: nn.Module, model: nn.Module, name: str, batches: Batches, threads: int | None = None) -> Sight:
    """Moments of one layer, and how to time what could stand for it."""
    dense = original.get_submodule(name)
    assert isinstance(dense, nn.Conv2d | nn.Linear)
    expected = sum(map(len, batches))
    gatherer = Gatherer(dense, expected)
    shape: tuple[int, ...] = ()
    for batch in batches:
        wanted = _calls(original, name, batch)
        given = _calls(model, name, batch)
        for (x, _), (_, y) in zip(given, wanted, strict=True):
            shape = shape or (1, *x.shape[1:])
            gatherer.add(x, y)

    @cache
    def dense_ms() -> float:
        return layer_ms(dense, shape, threads=threads)

    return Sight(
        moments=gatherer.moments(),
        input_shape=shape,
        latency_ms=lambda layer: layer_ms(layer, shape, threads=threads),
        dense_ms=dense_ms,
    )


def _calls(model: nn.Module, name: str, batch: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of every call that a layer gets in one pass."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        found.append((_input(args, kwargs).detach(), output.detach()))

    with _hooked([model.get_submodule(name)], note):
        model(batch)
    return found


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of a layer's call, given by place or by name."""
    x = args[0] if args else kwargs["input"]
    assert isinstance(x, Tensor)
    return x


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _order(model: nn.Module, names: Sequence[str], batches: Batches) -> list[str]:
    """Names of the layers that run, in the order of their first call."""
    of = {model.get_submodule(name): name for name in reversed(names)}
    seen: dict[str, None] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        seen.setdefault(of[module])

    try:
        with _hooked(of, note):
            model(batches[0])
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the model does not run on the first batch of data, of shape {tuple(batches[0].shape)}: {error}"
        ) from error
    return list(seen)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


Statistics = tuple[Tensor, Tensor]
"""Mean and variance of each channel, float64."""


def _norm_inputs(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, Statistics]:
    """Statistics of what these batch norms are given."""
    of = {model.get_submodule(name): name for name in names}
    sums: dict[str, list[Tensor]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        x = _input(args, kwargs).detach().double().transpose(0, 1).flatten(1)
        parts = [torch.tensor(float(x.shape[1])), x.sum(1), x.square().sum(1)]
        known = sums.setdefault(of[module], [torch.zeros_like(part) for part in parts])
        for total, part in zip(known, parts, strict=True):
            total += part

    with _hooked(of, note):
        for batch in batches:
            model(batch)
    found = {}
    for name, (count, first, second) in sums.items():
        mean = first / count
        found[name] = mean, (second / count - mean.square()).clamp_min(0)
    return found


def _move_norm(norm: nn.Module, before: Statistics, after: Statistics) -> None:
    """Move the running statistics of each channel as conversion moved it, seen as x' = scale x + shift."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    floor = 1e-3 * before[1].mean() + 1e-30
    ratio = ((after[1] + floor) / (before[1] + floor)).clamp(0.1, 10.0)
    shift = after[0] - ratio.sqrt() * before[0]
    norm.running_mean.copy_(ratio.sqrt() * norm.running_mean.double() + shift)
    norm.running_var.mul_(ratio.to(norm.running_var))


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
