"""Measured time decides: a converted layer against ``nn.Conv2d``, at the sizes that an example input gives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

_SHAPE = "_fastcnn_input_shape"
ROUNDS = 5
"""Timed rounds per candidate, one call each, in turn."""
BUDGET_SECONDS = 2.0
"""No further round begins after this long."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Medians in milliseconds; ``backward`` tells whether both gradients are part of it."""

    ours_ms: float
    dense_ms: float
    backward: bool
    shape: tuple[int, ...]

    def __str__(self) -> str:
        what = "forward and backward" if self.backward else "forward"
        return f"{self.ours_ms:.3g} ms against {self.dense_ms:.3g} ms of nn.Conv2d, {what} at {self.shape}"


def record_input_shapes(model: nn.Module, *inputs: object) -> None:
    """Run a model once and note on every ``nn.Conv2d`` the input shape it saw (the largest, if called often).

    The notes travel with deepcopy, not with ``state_dict``; :func:`forget_input_shapes` removes them. The model runs
    in eval mode without gradients and is left as it was otherwise.
    """

    def note(module: nn.Module, args: tuple[object, ...]) -> None:
        x = args[0] if args else None
        if isinstance(x, Tensor) and x.dim() == 4:
            known = module.__dict__.get(_SHAPE)
            if known is None or x.numel() > torch.Size(known).numel():
                module.__dict__[_SHAPE] = tuple(x.shape)

    modes = {module: module.training for module in model.modules()}
    forget_input_shapes(model)
    handles = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        model.eval()
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def forget_input_shapes(model: nn.Module) -> None:
    """Remove the notes of :func:`record_input_shapes`, so that no later conversion goes by an old size."""
    for module in model.modules():
        module.__dict__.pop(_SHAPE, None)


def input_shape_of(layer: nn.Module) -> tuple[int, int, int, int] | None:
    """Shape noted by :func:`record_input_shapes`, or None."""
    shape: tuple[int, int, int, int] | None = layer.__dict__.get(_SHAPE)
    return shape


_TIMINGS: dict[Hashable, Timing] = {}


def time_against(dense: nn.Conv2d, layer: nn.Conv2d, shape: tuple[int, int, int, int]) -> Timing:
    """Time both layers in turn on the same random input; once per shape, settings and thread count.

    In training mode forward and backward are timed together, in eval mode the forward alone. ``nn.Conv2d`` runs
    in the better of its two memory formats.
    """
    backward = dense.training and dense.weight.requires_grad
    key = (
        *(str(layer), shape, backward, dense.weight.dtype, str(dense.weight.device)),
        torch.get_num_threads(),
    )
    if key not in _TIMINGS:
        _TIMINGS[key] = _time(dense, layer, shape, backward)
    return _TIMINGS[key]


def _time(dense: nn.Conv2d, layer: nn.Conv2d, shape: tuple[int, int, int, int], backward: bool) -> Timing:
    weight = dense.weight
    generator = torch.Generator(device=weight.device).manual_seed(0)
    x = torch.randn(shape, generator=generator, device=weight.device, dtype=torch.float32).to(weight.dtype)
    last = x.clone(memory_format=torch.channels_last)
    calls = [_call(layer, x, backward), _call(dense, x, backward), _call(dense, last, backward)]
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        for call, times in zip(calls, taken, strict=True):
            _wait(weight.device)
            start = time.perf_counter()
            call()
            _wait(weight.device)
            times.append(1e3 * (time.perf_counter() - start))
        if time.perf_counter() - begin > BUDGET_SECONDS:
            break
    ours, plain, channels_last = map(median, taken)
    return Timing(ours_ms=ours, dense_ms=min(plain, channels_last), backward=backward, shape=shape)


def _call(layer: nn.Conv2d, x: Tensor, backward: bool) -> Callable[[], None]:
    """One forward pass, or one of each; nothing is accumulated in the layer, and its hooks are left in peace."""

    def forward() -> None:
        with torch.no_grad():
            layer.forward(x)

    def both() -> None:
        given = x.detach().requires_grad_()
        y = layer.forward(given)
        torch.autograd.grad(y, [given, *(p for p in layer.parameters() if p.requires_grad)], torch.ones_like(y))

    return both if backward else forward


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
