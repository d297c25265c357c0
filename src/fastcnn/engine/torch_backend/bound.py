"""A part of a graph as a module of its own: parameters bound, sizes read from the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fastcnn.engine.torch_backend.split import LeftToTorchError


@dataclass(frozen=True)
class Slot:
    """Where one placeholder's value comes from.

    ``kind`` is "state" (a parameter or buffer), "input" (a tensor of the call), "size" (axis ``axis`` of input tensor
    ``index``) or "number" (a Python number of the call, which the net bakes in).
    """

    kind: str
    index: int
    axis: int = 0


def is_state(node: fx.Node, value: Any) -> bool:
    """Whether torch lifted this parameter or buffer out of the model."""
    if isinstance(value, nn.Parameter):
        return True
    marked = getattr(value, "_dynamo_static_input_type", None) is not None
    return isinstance(value, torch.Tensor) and marked and "buffers" in str(node.target)


def slots_of(placeholders: Sequence[fx.Node], values: Sequence[Any]) -> list[Slot]:
    """Sort the placeholders of a net.

    Raises
    ------
    LeftToTorchError
        For a tensor that is not float32 on the CPU, or holds nothing.
    """
    tensors = [
        (position, node)
        for position, (node, value) in enumerate(zip(placeholders, values, strict=True))
        if isinstance(value, torch.Tensor) and not is_state(node, value)
    ]
    slots = []
    for position, (node, value) in enumerate(zip(placeholders, values, strict=True)):
        if not isinstance(value, torch.Tensor):
            slots.append(_size(node, tensors) or Slot("number", position))
            continue
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise LeftToTorchError(f"{node.name!r} is on {value.device}: the engine runs on the CPU")
        if is_state(node, value):
            if value.is_inference():
                raise LeftToTorchError(
                    f"{node.name!r} was made in inference mode, where changes leave no trace: make the model outside it"
                )
            slots.append(Slot("state", position))
            continue
        if value.dtype != torch.float32:
            raise LeftToTorchError(f"input {node.name!r} is {value.dtype}: the engine takes float32")
        if value.dim() < 1 or value.numel() == 0:
            raise LeftToTorchError(f"input {node.name!r} has shape {tuple(value.shape)}")
        slots.append(Slot("input", position))
    if not tensors:
        raise LeftToTorchError("it has no tensor input")
    return slots


def _size(node: fx.Node, tensors: Sequence[tuple[int, fx.Node]]) -> Slot | None:
    """The axis a symbolic size stands for: torch names sizes alike where they are alike."""
    wanted = getattr(getattr(node.meta.get("example_value"), "node", None), "expr", None)
    if wanted is None:
        return None
    for position, tensor in tensors:
        for axis, extent in enumerate(getattr(tensor.meta.get("example_value"), "shape", ())):
            if isinstance(extent, torch.SymInt) and extent.node.expr == wanted:
                return Slot("size", position, axis)
    return None


class Bound(nn.Module):
    """The net's graph, called with the tensors of a call alone."""

    def __init__(self, graph: fx.GraphModule, slots: Sequence[Slot], values: Sequence[Any]) -> None:
        super().__init__()
        self._slots = list(slots)
        self._graph = graph
        self._numbers = {s.index: values[s.index] for s in slots if s.kind == "number"}
        for position, slot in enumerate(slots):
            if slot.kind == "state":
                self.register_buffer(f"state_{position}", values[position].detach(), persistent=False)

    def forward(self, *inputs: torch.Tensor) -> Any:
        given = iter(inputs)
        tensors = {slot.index: next(given) for slot in self._slots if slot.kind == "input"}
        values: list[Any] = []
        for position, slot in enumerate(self._slots):
            if slot.kind == "state":
                values.append(getattr(self, f"state_{position}"))
            elif slot.kind == "input":
                values.append(tensors[slot.index])
            elif slot.kind == "size":
                values.append(tensors[slot.index].shape[slot.axis])
            else:
                values.append(self._numbers[slot.index])
        return self._graph(*values)
