"""The table from torch ops to handlers, and what a handler is given.

A handler is a small function ``handler(lower, a)``: ``a`` maps the op's argument names to graph values (``str``),
constants, lists or plain Python values; the handler emits graph nodes through ``lower`` and returns the name of the
result (or a list of names for an op with several outputs). It raises :class:`Unsupported` for a variant the graph
cannot hold; the op then becomes a torch step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fastcnn.engine.capture.lowering import Lowering

Handler = Callable[["Lowering", "Arguments"], Any]

HANDLERS: dict[str, Handler] = {}
"""Schema name (``aten::conv2d``), without overload, to handler."""

TAKES_DEFERRED: set[str] = set()
"""Those whose handlers look at arguments the graph cannot hold (``Deferred``) instead of becoming torch steps."""


class Unsupported(Exception):
    """A variant of an op that the graph cannot hold; the text says why."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that depends on no input: a parameter, a buffer, or arithmetic of them.

    ``key`` is its name in the model's state, where it has one.
    """

    tensor: torch.Tensor
    key: str | None = None


class Arguments:
    """Arguments of one call by name, defaults filled in from the op's schema."""

    def __init__(self, schema: torch._C.FunctionSchema, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._values: dict[str, Any] = {}
        self._names: list[str] = []
        for position, argument in enumerate(schema.arguments):
            self._names.append(argument.name)
            if position < len(args):
                self._values[argument.name] = args[position]
            elif argument.name in kwargs:
                self._values[argument.name] = kwargs[argument.name]
            elif argument.has_default_value():
                self._values[argument.name] = argument.default_value

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument, or ``default`` where this overload has none of that name."""
        return self._values.get(name, default)

    def at(self, position: int) -> Any:
        """Return the argument at a position, whatever this overload calls it."""
        return self._values.get(self._names[position])

    def value(self, name: str) -> str:
        """Return an argument that must be a graph value; Unsupported if it is something else."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise Unsupported(f"{name} does not come from the input")
        return value

    def constant(self, name: str) -> Constant:
        """Return an argument that must be a constant; Unsupported if it depends on the input."""
        value = self._values.get(name)
        if not isinstance(value, Constant):
            raise Unsupported(f"{name} is computed from the input")
        return value


def lowers(*names: str, deferred: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler under torch schema names such as ``aten::relu``; ``deferred`` as in ``TAKES_DEFERRED``."""

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in HANDLERS:
                raise ValueError(f"two handlers claim {name}")
            HANDLERS[name] = handler
            if deferred:
                TAKES_DEFERRED.add(name)
        return handler

    return register


def spread(value: Any, count: int) -> list[int]:
    """Return torch's int-or-list argument as a list of ``count`` ints."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(items) == 1:
        items *= count
    if len(items) != count or not all(isinstance(i, int) for i in items):
        raise Unsupported(f"expected {count} integers, got {items}")
    return [int(i) for i in items]


def axis(dim: int, rank: int) -> int:
    """Return a dim counted from the front."""
    return dim + rank if dim < 0 else dim
