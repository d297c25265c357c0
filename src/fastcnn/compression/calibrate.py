"""Data-aware conversion: layer by layer, each fed by the already converted layers before it.

Two nets run on the same calibration inputs: the original, which says what each layer should put out, and the copy in
conversion, which says what the layer is given by then. A layer is replaced before the next one is looked at, so that
later layers make up for the errors of earlier ones where they can. The running statistics of each batch norm on the way
are moved by what conversion changed of its inputs, on the same pictures: statistics of the calibration set itself would
bring its own bias along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.cli.output import progress_bar
from fastcnn.compression.latency import layer_ms
from fastcnn.methods.contract import LayerReport, MethodConfig, Sight
from fastcnn.methods.registry import Method
from fastcnn.methods.replace import Choice, replace_layers
from fastcnn.methods.structured.calibration import MOST_WIDE_ROWS, Gatherer
from fastcnn.methods.structured.factored import chain_macs_at, stage_of, walked

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
    original: nn.Module,
    model: nn.Module,
    method: Method,
    config: MethodConfig | Mapping[str, Choice],
    names: Sequence[str],
    batches: Batches,
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
        fitted = [name for name in order if name in names and not _is_left(config, name)]
        wanted = _Wanted(original, fitted, batches)
        with progress_bar("converting", total=sum(name in names for name in order)) as advance:
            for name in order:
                if name in norms:
                    if any(line.status == "done" for line in reports.values()):
                        after = _norm_inputs(model, [name], batches, enough=before[name].calls)
                        _move_norm(model.get_submodule(name), before[name], after[name])
                    continue
                sight = _sight(model, name, batches, wanted) if name in fitted else None
                sights_of = None if sight is None else {name: sight}
                (reports[name],) = replace_layers(model, method, config, [name], sights_of)
                model.get_submodule(name).eval()
                advance(note=name)
    for name, training in modes.items():
        model.get_submodule(name).train(training)
    unseen = [name for name in names if name not in reports]
    for line in replace_layers(model, method, config, unseen, dict.fromkeys(unseen)):
        reports[line.layer] = line
    return [reports[name] for name in names]


def _is_left(config: MethodConfig | Mapping[str, Choice], name: str) -> bool:
    return not isinstance(config, MethodConfig) and isinstance(config[name], str)


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
    for part in _parts(model, names, _moment_bytes):
        gatherers = {name: _gatherer(model, name, batches) for name in part if name in order}
        shapes: dict[str, tuple[int, ...]] = {}
        with _evaluating(model), torch.no_grad():

            def take(name: str, x: Tensor, y: Tensor, gatherers: Any = gatherers, shapes: Any = shapes) -> None:
                shapes.setdefault(name, _of_one(x))
                gatherers[name].add(x, y)

            for batch in batches:
                _run(model, list(gatherers), batch, take)
        for name in part:
            yield name, _shown(model, name, gatherers.pop(name), shapes[name], threads) if name in order else None


MOST_BYTES = 1 << 29
"""Of what is gathered of several layers in one pass over the calibration inputs."""


def _parts(model: nn.Module, names: Sequence[str], size: Callable[[Gatherer], int]) -> Iterator[list[str]]:
    """Names in their order, in parts whose sizes are ``MOST_BYTES`` at most, or one layer."""
    part: list[str] = []
    room = MOST_BYTES
    for name in names:
        need = size(_gatherer(model, name, ()))
        if part and need > room:
            yield part
            part, room = [], MOST_BYTES
        part.append(name)
        room -= need
    if part:
        yield part


def _moment_bytes(gatherer: Gatherer) -> int:
    """Of a layer's second moments, or its rows, float64."""
    n, m = gatherer.layer.weight[0].numel(), len(gatherer.layer.weight)
    return 8 * MOST_WIDE_ROWS * (n + m) if gatherer.wide else 8 * n * (n * gatherer.groups + m)


def _output_bytes(gatherer: Gatherer) -> int:
    """Of a layer's outputs where they are looked at, float32."""
    return 4 * gatherer.most_rows * len(gatherer.layer.weight)


def _gatherer(model: nn.Module, name: str, batches: Batches) -> Gatherer:
    dense = model.get_submodule(name)
    assert isinstance(dense, nn.Conv2d | nn.Linear)
    return Gatherer(dense, sum(map(len, batches)))


class _Wanted:
    """Outputs of the original net's layers where they are looked at, a few layers at a time."""

    def __init__(self, original: nn.Module, names: Sequence[str], batches: Batches) -> None:
        self.original = original
        self._batches = batches
        self._parts = _parts(original, names, _output_bytes)
        self._held: dict[str, list[list[Tensor]]] = {}

    def take(self, name: str) -> list[list[Tensor]]:
        """Rows of each call, for every batch; layers are asked for in their order, each once."""
        while name not in self._held:
            part = next(self._parts)
            gatherers = {other: _gatherer(self.original, other, self._batches) for other in part}
            self._held = {other: [] for other in part}

            def take(other: str, x: Tensor, y: Tensor, held: Any = self._held, gatherers: Any = gatherers) -> None:
                gatherer = gatherers[other]
                # A copy: what follows may work in place, and the positions that are taken are a small share.
                held[other][-1].append(gatherer.outputs(y, gatherer.calls).clone())
                gatherer.calls += 1

            for batch in self._batches:
                for rows in self._held.values():
                    rows.append([])
                _run(self.original, part, batch, take)
        return self._held.pop(name)


def _sight(model: nn.Module, name: str, batches: Batches, wanted: _Wanted) -> Sight:
    """What a layer is given in the net in conversion, beside what it puts out in the original."""
    gatherer = _gatherer(wanted.original, name, batches)
    shapes: list[tuple[int, ...]] = []
    for batch, outputs in zip(batches, wanted.take(name), strict=True):
        left = iter(outputs)

        def take(_: str, x: Tensor, y: Tensor, left: Iterator[Tensor] = left) -> None:
            shapes.append(_of_one(x))
            gatherer.add_sampled(x, next(left))

        _run(model, [name], batch, take, enough=len(outputs))
        if next(left, None) is not None:
            raise ValueError(
                f"{name} is called less often in the converted model than in the original: calibration needs a model "
                "whose layers run whatever the values are; leave data out"
            )
    return _shown(wanted.original, name, gatherer, shapes[0], None)


def _shown(model: nn.Module, name: str, gatherer: Gatherer, shape: tuple[int, ...], threads: int | None) -> Sight:
    """Moments of a layer, and how to time what could stand for it."""
    dense = model.get_submodule(name)

    @cache
    def dense_ms() -> float:
        return layer_ms(dense, shape, threads=threads)

    return Sight(
        moments=gatherer.moments(),
        input_shape=shape,
        latency_ms=lambda layer: layer_ms(layer, shape, threads=threads),
        dense_ms=dense_ms,
    )


class _Enough(BaseException):
    """The model need run no further. No Exception, which models may catch."""


def _run(
    model: nn.Module,
    names: Sequence[str],
    batch: Tensor,
    take: Callable[[str, Tensor, Tensor], None],
    *,
    enough: int | None = None,
) -> None:
    """Tell ``take`` name, input, output of every call that the named layers get in a pass, or of the first ``enough``.

    It is told while the model runs, so that maps need not be held, and before anything works on them in place.
    """
    of = {model.get_submodule(name): name for name in names}
    calls = 0

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        nonlocal calls
        take(of[module], _input(args, kwargs).detach(), output.detach())
        calls += 1
        if calls == enough:
            raise _Enough

    if enough == 0:
        return
    with _hooked(of, note), suppress(_Enough):
        model(batch.clone())  # it may work in place


def _of_one(x: Tensor) -> tuple[int, ...]:
    """Shape of one input of a batch; a row without a batch is one."""
    return (1, *x.shape[1:]) if x.dim() > 1 else tuple(x.shape)


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
            model(batches[0].clone())
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the model does not run on the first batch of data, of shape {tuple(batches[0].shape)}: {error}"
        ) from error
    return list(seen)


def layer_inputs(model: nn.Module, batch: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of what each convolution and linear layer is given for one input of a batch, call by call.

    Raises
    ------
    ValueError
        If the model does not run on the batch.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    with _evaluating(model), torch.no_grad():
        _order(model, names, [batch])  # says so if it does not run
        _run(model, names, batch[:1], lambda name, x, y: found[name].append(tuple(x.shape)))
    return found


def layer_macs(model: nn.Module, batch: Tensor) -> dict[str, int]:
    """Multiply-adds that each convolution and linear layer makes for one input of a batch; all of its calls together.

    Raises
    ------
    ValueError
        If the model does not run on the batch.
    """
    return {
        name: sum(chain_macs_at([stage_of(layer)], walked(layer, shape)) for shape in shapes)
        for name, shapes in layer_inputs(model, batch).items()
        for layer in [model.get_submodule(name)]
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of each channel, float64, over so many calls in a pass."""

    mean: Tensor
    variance: Tensor
    calls: int


def _norm_inputs(
    model: nn.Module, names: Sequence[str], batches: Batches, *, enough: int | None = None
) -> dict[str, Statistics]:
    """Statistics of what these batch norms are given; with ``enough``, in the first so many calls of a pass."""
    of = {model.get_submodule(name): name for name in names}
    sums: dict[str, list[Tensor]] = {}
    calls = dict.fromkeys(names, 0)

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        x = _input(args, kwargs).detach().double().transpose(0, 1).flatten(1)
        parts = [torch.tensor(float(x.shape[1])), x.sum(1), x.square().sum(1)]
        known = sums.setdefault(of[module], [torch.zeros_like(part) for part in parts])
        for total, part in zip(known, parts, strict=True):
            total += part
        calls[of[module]] += 1
        if calls[of[module]] == enough:
            raise _Enough

    with _hooked(of, note):
        for batch in batches:
            calls.update(dict.fromkeys(names, 0))
            with suppress(_Enough):
                model(batch.clone())
    found = {}
    for name, (count, first, second) in sums.items():
        mean = first / count
        found[name] = Statistics(mean, (second / count - mean.square()).clamp_min(0), calls[name])
    return found


def _move_norm(norm: nn.Module, before: Statistics, after: Statistics) -> None:
    """Move the running statistics of each channel as conversion moved it, seen as x' = scale x + shift."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    floor = 1e-3 * before.variance.mean() + 1e-30
    ratio = ((after.variance + floor) / (before.variance + floor)).clamp(0.1, 10.0)
    shift = after.mean - ratio.sqrt() * before.mean
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
