"""Local response normalisation, which torch spells as a chain of small operations, read back as one.

``torch.nn.functional.local_response_norm`` is Python code, so the exported program holds what it calls::

    x / (alpha * mean over the window of x^2 + k) ^ beta

as mul(x, x), a view with an axis of one before the channels, pad, avg_pool3d (avg_pool2d for inputs of rank 3), the
view back, mul, add, pow and div. Only a chain that computes exactly this is taken, and only where nothing else reads a
value inside it; whatever differs is lowered operation by operation, as if this file did not exist.

References
----------
Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks", section 3.3.
Differs: the mean over the window stands for the sum, as in torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from fastcnn.engine.capture.in_place import plain_name
from fastcnn.engine.capture.registry import Arguments, Unsupported
from fastcnn.engine.graph.schema import Shape

if TYPE_CHECKING:
    from fastcnn.engine.capture.lowering import Lowering

_SHAPE_OPS = ("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::unsqueeze", "aten::squeeze")
"""They keep the order of the elements, so that only the shapes at both ends of a run of them matter."""


@dataclass(frozen=True, eq=False)
class LocalResponseNorm:
    """One chain that was found.

    Attributes
    ----------
    x : fx.Node
        What is normalised.
    size : int
        Channels in the window.
    alpha, beta, k : object
        As the program has them: a number, or the fx node of a tensor.
    inner : tuple of fx.Node
        The chain before its division, in execution order; nothing outside the chain reads them.
    """

    x: fx.Node
    size: int
    alpha: Any
    beta: Any
    k: Any
    inner: tuple[fx.Node, ...]


class _Different(Exception):
    """The chain computes something else."""


def find(graph: fx.Graph) -> dict[fx.Node, LocalResponseNorm]:
    """Return the chains of a program, each under the division that ends it."""
    found: dict[fx.Node, LocalResponseNorm] = {}
    for node in graph.nodes:
        try:
            found[node] = _match(node)
        except _Different:
            continue
    return found


def emit(lower: Lowering, norm: LocalResponseNorm) -> str | None:
    """Add the node and return its name; None if the input is a constant or a number is none."""
    x = lower.value_of(norm.x)
    numbers = {name: lower.scalar(lower.value_of(getattr(norm, name))) for name in ("alpha", "beta", "k")}
    if not isinstance(x, str) or None in numbers.values():
        return None
    try:
        return lower.emit("local_response_norm", [x], attrs={"size": norm.size, **numbers})
    except Unsupported:  # an infinite number, a window beyond all limits
        return None


def _match(division: fx.Node) -> LocalResponseNorm:
    """Walk the chain from its end to its beginning."""
    inner: list[fx.Node] = []

    def step(value: object, shape: Shape, *names: str) -> Arguments:
        arguments = _arguments(value, shape, *names)
        assert isinstance(value, fx.Node)
        if len(value.users) != 1:
            raise _Different
        inner.append(value)
        return arguments

    def before_reshapes(value: Any) -> Any:
        while isinstance(value, fx.Node) and _name(value) in _SHAPE_OPS and len(value.users) == 1:
            inner.append(value)
            value = value.args[0]
        return value

    if _name(division) not in ("aten::div", "aten::true_divide"):
        raise _Different
    x = division.args[0]
    shape = _shape(x)
    _require(isinstance(x, fx.Node) and len(shape) in (3, 4))
    lifted = (shape[0], 1, *shape[1:])
    others = len(shape) - 2

    div = _arguments(division, shape, "aten::div", "aten::true_divide")
    _require(div.get("rounding_mode") is None)
    power = step(div.at(1), shape, "aten::pow")
    total = step(power.at(0), shape, "aten::add")
    _require(total.get("alpha", 1) == 1)
    scaled = step(total.at(0), shape, "aten::mul")
    _require(_shape(scaled.at(0)) == shape)
    pool = step(before_reshapes(scaled.at(0)), lifted, f"aten::avg_pool{others + 1}d")
    size = int(_list(pool["kernel_size"])[0])
    _require(_list(pool["kernel_size"]) == [size] + [1] * others)
    _require(set(_list(pool["stride"])) == {1} and not any(_list(pool["padding"])) and pool["divisor_override"] is None)
    padded = step(pool["self"], (shape[0], 1, shape[1] + size - 1, *shape[2:]), "aten::pad", "aten::constant_pad_nd")
    _require(padded.get("mode", "constant") == "constant" and padded.get("value") in (None, 0))
    pads = list(padded["pad"])
    wanted = [0, 0] * others + [size // 2, (size - 1) // 2] + [0] * (len(pads) - 2 * others - 2)
    _require(pads == wanted and _shape(padded["self"]) == lifted)
    squares = step(before_reshapes(padded["self"]), shape, "aten::mul")
    _require(squares.at(0) is x and squares.at(1) is x)
    alpha, beta, k = scaled.at(1), power.at(1), total.at(1)
    _require(not any(number is node for number in (alpha, beta, k) for node in inner))
    assert isinstance(x, fx.Node)
    return LocalResponseNorm(x, size, alpha, beta, k, tuple(reversed(inner)))


def _require(condition: bool) -> None:
    if not condition:
        raise _Different


def _name(value: object) -> str:
    """Schema name of a call, without overload; empty for anything else."""
    is_call = isinstance(value, fx.Node) and isinstance(value.target, torch._ops.OpOverload)
    return plain_name(value.target) if is_call else ""  # type: ignore[attr-defined]


def _shape(value: object) -> Shape:
    """Shape of a float32 tensor of the program; anything else is a difference."""
    tensor = value.meta.get("val") if isinstance(value, fx.Node) else None
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float32:
        raise _Different
    return tuple(int(n) for n in tensor.shape)


def _arguments(value: object, shape: Shape, *names: str) -> Arguments:
    """Arguments of a call that must be one of ``names`` and make ``shape``."""
    _require(_name(value) in names and _shape(value) == shape)
    assert isinstance(value, fx.Node)
    assert isinstance(value.target, torch._ops.OpOverload)
    return Arguments(value.target._schema, value.args, value.kwargs)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
