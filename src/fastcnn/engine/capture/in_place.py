"""In-place ops: which are plain ops in disguise, and which need torch to make the program functional.

Torch's functional form is always right, but making it takes longer than tracing. ``relu_`` on the fresh output of a
convolution that nothing else reads is simply ``relu``, and most in-place ops of real nets are of that kind.
"""

from __future__ import annotations

import torch
from torch import fx

from fastcnn.engine.capture.registry import HANDLERS

_FRESH = frozenset(
    f"aten::{name}"
    for name in (
        *("conv1d", "conv2d", "conv_transpose2d", "linear", "addmm", "batch_norm", "add", "sub", "mul", "div", "cat"),
        *("relu", "relu6", "sigmoid", "hardsigmoid", "hardswish", "silu"),
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
    )
)
"""Ops whose result never shares memory with an argument."""


def plain_name(target: torch._ops.OpOverload) -> str:
    """Schema name; of an in-place op with a handler for its plain form, that form's name."""
    name = str(target._schema.name)
    plain = name.removesuffix("_")
    return plain if target._schema.is_mutable and name != plain and plain in HANDLERS else name


def needs_functional_form(graph: fx.Graph) -> bool:
    """Whether any in-place op might change a value that something else sees."""
    return any(_writes(node) and not _is_private(node) for node in graph.nodes)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _is_private(node: fx.Node) -> bool:
    """Whether the op writes only into a fresh value that it alone reads, and has a plain form."""
    target, written = node.target, node.args[0] if node.args else None
    assert isinstance(target, torch._ops.OpOverload)
    if plain_name(target) == target._schema.name or not isinstance(written, fx.Node) or len(written.users) != 1:
        return False
    maker = written.target
    if not isinstance(maker, torch._ops.OpOverload) or written in node.args[1:]:
        return False
    mutated = [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if mutated != [target._schema.arguments[0].name]:
        return False
    return str(maker._schema.name) in _FRESH or (_writes(written) and _is_private(written))
