"""What stands in for a compiled graph: native nets, one for each form of the inputs that needs its own."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from fastcnn import _native
from fastcnn.engine.api import resolve_threads, resolve_tolerance
from fastcnn.engine.capture import capture
from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.run.net import CompiledNet
from fastcnn.engine.torch_backend.bound import Bound, Slot
from fastcnn.engine.torch_backend.options import BackendOptions
from fastcnn.engine.torch_backend.split import LeftToTorchError

logger = logging.getLogger("fastcnn")

MAX_NETS = 8
"""Nets one graph keeps, where sizes or numbers are baked into it, and different numbers it takes."""


class NetRunner:
    """Runs the net part of a graph.

    A net holds its own packed weights. They are made anew where a parameter or buffer is not what it was: another
    tensor, other memory, or changed in place (torch counts that; a change through ``.data`` leaves no trace).
    """

    def __init__(self, graph: fx.GraphModule, slots: Sequence[Slot], options: BackendOptions) -> None:
        self._graph = graph
        self._slots = list(slots)
        self._options = options
        self._nets: OrderedDict[tuple[Any, ...], CompiledNet] = OrderedDict()
        self._state: list[tuple[torch.Tensor, int, int]] = []
        self._choices: dict[str, str] | None = None
        self._lock = threading.Lock()
        # Where torch does not lift them, parameters are held by the graph itself.
        _RUNNERS.add(self)
        self._reads_sizes = _reads_sizes(graph, slots)
        self._numbers_seen: set[tuple[Any, ...]] = set()
        self._held = [*graph.parameters(), *graph.buffers()]

    def __call__(self, values: Sequence[Any]) -> list[torch.Tensor]:
        """Run on the values of the net's placeholders."""
        tensors = [values[slot.index] for slot in self._slots if slot.kind == "input"]
        with self._lock:
            net = self._net(values, tensors)
        arrays = [t.detach().resolve_neg().contiguous().numpy() for t in tensors]
        return [torch.from_numpy(y) for y in net.run(arrays)]

    def prepare(self, values: Sequence[Any]) -> None:
        """Make the net for these values now: what cannot be captured or planned shows here."""
        with self._lock:
            self._net(values, [values[slot.index] for slot in self._slots if slot.kind == "input"])

    def forget(self) -> None:
        """Drop the nets; the next call makes them anew."""
        with self._lock:
            self._nets.clear()

    def _net(self, values: Sequence[Any], tensors: Sequence[torch.Tensor]) -> CompiledNet:
        state = [values[i] for i, slot in enumerate(self._slots) if slot.kind == "state"] + self._held
        if not self._same_state(state):
            if self._nets:
                logger.info("torch.compile: parameters have changed: the net is made anew, with the same plan")
                self._choices = next(iter(self._nets.values())).plan.choices()
            self._nets.clear()
            self._state = [(t, t.data_ptr(), t._version) for t in state]
        numbers = tuple(values[slot.index] for slot in self._slots if slot.kind == "number")
        shapes = tuple(tuple(t.shape) for t in tensors)
        self._numbers_seen.add(numbers)
        if len(self._numbers_seen) > MAX_NETS:
            raise LeftToTorchError(
                f"a number among its inputs has had more than {MAX_NETS} values, and each needs a net of its own: "
                f"pass it as a tensor of shape (1,)"
            )
        if self._reads_sizes:  # the model may compute anything from them
            numbers += tuple(shape[1:] for shape in shapes)
        for key, net in self._nets.items():
            if key[0] == numbers and _takes(net, shapes):
                self._nets.move_to_end(key)
                return net
        made = self._make(values, tensors)
        self._nets[(numbers, shapes)] = made
        while len(self._nets) > MAX_NETS:
            self._nets.popitem(last=False)
        return made

    def _same_state(self, state: Sequence[torch.Tensor]) -> bool:
        return len(state) == len(self._state) and all(
            now is then and now.data_ptr() == address and now._version == version
            for now, (then, address, version) in zip(state, self._state, strict=True)
        )

    def _make(self, values: Sequence[Any], tensors: Sequence[torch.Tensor]) -> CompiledNet:
        options = self._options
        limit, exact = resolve_tolerance(options.tolerance)
        target = make_target(str(_native.host()["isa_active"]), resolve_threads(options.threads))
        with _outside_tracing(), torch.inference_mode(False), torch.no_grad():
            examples = tuple(t.detach().clone() for t in tensors)
            graph = capture(Bound(self._graph, self._slots, values), examples, strict=options.strict)
        net = CompiledNet(
            graph,
            target,
            tolerance=limit,
            exact=exact,
            how="hint" if self._choices is not None else "tune" if options.tune else "heuristic",
            hint=self._choices,
            calibration=[t.contiguous().numpy() for t in examples],
        )
        logger.info("torch.compile: %r", net)
        return net


_RUNNERS: weakref.WeakSet[NetRunner] = weakref.WeakSet()


@atexit.register
def _forget_nets() -> None:
    """torch keeps compiled graphs beyond the end of the interpreter; native nets must go before."""
    for runner in _RUNNERS:
        runner.forget()


@contextlib.contextmanager
def _outside_tracing() -> Iterator[None]:
    """Hide the tracing that torch.compile is in: its symbolic sizes would become those of our own."""
    static = torch._dynamo.config.patch(assume_static_by_default=True, automatic_dynamic_shapes=False)
    with static, torch._guards.tracing(None):
        yield


def _reads_sizes(graph: fx.GraphModule, slots: Sequence[Slot]) -> bool:
    """Whether the net reads a size other than the batch's."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if any(s.kind == "size" and s.axis > 0 and n.users for n, s in zip(placeholders, slots, strict=True)):
        return True
    return any(
        (node.op == "call_method" and node.target in ("size", "numel", "__len__"))
        or (node.target is getattr and node.args[1] == "shape")
        for node in graph.graph.nodes
    )


def _takes(net: CompiledNet, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether the net serves these shapes: they differ from its example's on open axes only, and can be planned."""
    for value, shape in zip(net.graph.inputs, shapes, strict=True):
        if len(value.shape) != len(shape) or any(value.shape[axis] != shape[axis] for axis in value.fixed):
            return False
    try:
        net.plan_for(*shapes)
    except GraphError:
        return False
    return True
