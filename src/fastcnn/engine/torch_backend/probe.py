"""One run of an FX graph on copies of its example inputs: what kind of value each node makes, and what it writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx


@dataclass
class Probed:
    """``carried`` are nodes whose value is a float32 tensor of at least one axis: what a net can take or return."""

    carried: set[fx.Node] = field(default_factory=set)
    tensors: set[fx.Node] = field(default_factory=set)
    in_place: list[fx.Node] = field(default_factory=list)
    written_inputs: list[fx.Node] = field(default_factory=list)


class _Probe(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found = Probed()
        self._inputs: list[tuple[fx.Node, torch.Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return super().run_node(n)
        tensors = [self.env[a] for a in n.all_input_nodes if isinstance(self.env[a], torch.Tensor)]
        before = [t._version for t in tensors]
        value = super().run_node(n)
        if any(t._version != version for t, version in zip(tensors, before, strict=True)):
            self.found.in_place.append(n)
        if isinstance(value, torch.Tensor):
            self.found.tensors.add(n)
            if n.op == "placeholder":
                self._inputs.append((n, value))
            if value.dtype == torch.float32 and value.dim() >= 1 and value.numel() > 0:
                self.found.carried.add(n)
        return value


def probe(module: fx.GraphModule, example_inputs: Sequence[Any]) -> Probed:
    """Run the graph once on copies; nothing of the caller's changes."""
    with torch.inference_mode(False), torch.no_grad():  # version counters do not exist in inference mode
        copies = [
            value.detach().clone() if isinstance(value, torch.Tensor) else plain(value) for value in example_inputs
        ]
        versions = [value._version if isinstance(value, torch.Tensor) else 0 for value in copies]
        interpreter = _Probe(module)
        interpreter.run(*copies)
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        for node, value, version in zip(placeholders, copies, versions, strict=True):
            if isinstance(value, torch.Tensor) and value._version != version:
                interpreter.found.written_inputs.append(node)
    return interpreter.found


def plain(value: Any) -> Any:
    """The number behind a symbolic one, without telling torch, which would then compile for that number alone."""
    return value.node.hint if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value
