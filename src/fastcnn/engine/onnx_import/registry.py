"""The table from ONNX ops to handlers, and what a handler is given.

A handler is a small function ``handler(lower, call)``: it emits graph nodes through ``lower`` and returns the name of
the result, a constant, or a list of them for an op with several outputs (None for one that nothing may read). It raises
``Unsupported`` for a variant the graph cannot hold and ``Damaged`` for one that ONNX does not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import AttributeProto, TensorProto

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import show
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported

if TYPE_CHECKING:
    from fastcnn.engine.onnx_import.walk import Walk

MAX_NUMBERS = 4096
"""Longest list of numbers that a constant input may hold where an op takes axes, sizes or pads."""


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that depends on no input: an initializer, or arithmetic of them.

    ``key`` is its name in the file, where it has one.
    """

    array: Array
    key: str | None = None


@dataclass(frozen=True, eq=False)
class Partial:
    """Part of a formula that the graph holds only as a whole.

    See :mod:`~fastcnn.engine.onnx_import.error_function` (GELU) and :mod:`~fastcnn.engine.onnx_import.channel_norm`.
    """

    x: str
    stage: Literal["erf", "sum", "norm"]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refusal(self) -> str:
        """Why no other operation may read it."""
        if self.stage == "norm":
            return f"a power of {self.attrs['beta']} is supported inside a local response norm only"
        return "the error function is supported inside GELU only"


Value = str | Constant | Partial
Result = Value | Sequence[Value | None]
Handler = Callable[["Walk", "Call"], Result]

HANDLERS: dict[str, Handler] = {}
"""ONNX op (of the default domain) to handler."""


def lowers(*ops: str) -> Callable[[Handler], Handler]:
    """Register a handler under ONNX op names."""

    def register(handler: Handler) -> Handler:
        for op in ops:
            if op in HANDLERS:
                raise ValueError(f"two handlers claim {op}")
            HANDLERS[op] = handler
        return handler

    return register


class Call:
    """One node: its inputs as values, its attributes with their types checked.

    Parameters
    ----------
    op : str
    opset : int
    inputs : sequence of str, Constant or None
        None where the node leaves an optional input out.
    attributes : mapping of str to AttributeProto
    outputs : sequence of str
        Names of its outputs, empty for those left out.
    """

    def __init__(
        self,
        op: str,
        opset: int,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        outputs: Sequence[str],
    ) -> None:
        self.op = op
        self.opset = opset
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self._attributes = attributes

    # -- inputs -----------------------------------------------------------------------------------------------

    def optional(self, index: int) -> Value | None:
        """Return an input, or None if it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self, index: int, what: str) -> str | Constant:
        """Return an input that must be there."""
        value = self.optional(index)
        if value is None:
            raise Damaged(f"its input {index} ({what}) is missing")
        if isinstance(value, Partial):
            raise Unsupported(value.refusal)
        return value

    def constant(self, index: int, what: str) -> Constant:
        """Return an input that must be there and depend on no graph input."""
        value = self.given(index, what)
        if not isinstance(value, Constant):
            raise Unsupported(f"its {what} is computed from the net's input")
        return value

    def optional_constant(self, index: int, what: str) -> Constant | None:
        """Return a constant input, or None if it was left out."""
        return None if self.optional(index) is None else self.constant(index, what)

    def int_input(self, index: int, what: str) -> list[int] | None:
        """Return a constant input of whole numbers as a list; None if it was left out."""
        constant = self.optional_constant(index, what)
        if constant is None:
            return None
        array = constant.array
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > MAX_NUMBERS:
            raise Damaged(f"its {what} must be a list of integers, got {array.dtype} of shape {array.shape}")
        return [int(n) for n in array.reshape(-1)]

    def scalar_input(self, index: int, what: str) -> float | None:
        """Return a constant input of one number; None if it was left out."""
        constant = self.optional_constant(index, what)
        if constant is None:
            return None
        if constant.array.size != 1 or constant.array.dtype.kind not in "fiub":
            raise Damaged(f"its {what} must be one number, got {constant.array.dtype} of shape {constant.array.shape}")
        return float(constant.array.reshape(-1)[0])

    def attr_or_input(self, name: str, index: int) -> list[int] | None:
        """Numbers that older opsets keep in an attribute and newer ones in an input."""
        return self.integers(name) if self.has(name) else self.int_input(index, name)

    # -- attributes -------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the node carries the attribute."""
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        found = self._get(name, AttributeProto.INT)
        return default if found is None else int(found.i)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is 0 or 1."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise Damaged(f"its {name} must be 0 or 1, got {value}")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        """Return a number, as it was written (see :func:`shortest`)."""
        found = self._get(name, AttributeProto.FLOAT)
        if found is None:
            return default
        if not np.isfinite(found.f):
            raise Damaged(f"its {name} is {found.f}")
        return shortest(found.f)

    def integers(self, name: str) -> list[int] | None:
        """Return a list of integers, or None without the attribute."""
        found = self._get(name, AttributeProto.INTS)
        return None if found is None else [int(n) for n in found.ints]

    def numbers(self, name: str) -> list[float] | None:
        """Return a list of numbers, or None without the attribute."""
        found = self._get(name, AttributeProto.FLOATS)
        return None if found is None else [float(n) for n in found.floats]

    def text(self, name: str, default: str) -> str:
        """Return a word."""
        found = self._get(name, AttributeProto.STRING)
        if found is None:
            return default
        try:
            return bytes(found.s).decode("ascii")
        except UnicodeDecodeError:
            raise Damaged(f"its {name} is {show(found.s)}") from None

    def tensor(self, name: str) -> TensorProto | None:
        """Return a tensor attribute, still encoded."""
        found = self._get(name, AttributeProto.TENSOR)
        return None if found is None else found.t

    def _get(self, name: str, kind: int) -> Any:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != kind:
            raise Damaged(f"its {name} must be a {AttributeProto.AttributeType.Name(kind).lower()}")
        return attribute


def shortest(value: Any) -> float:
    """Return the shortest decimal that a float32 stands for: what was written before ONNX rounded it (1e-5, 0.7)."""
    return float(str(np.float32(value)))


def axis(dim: int, rank: int) -> int:
    """Return a dim counted from the front; Damaged if there is no such axis."""
    if not -rank <= dim < rank:
        raise Damaged(f"axis {dim} does not exist in a value of {rank} axes")
    return dim + rank if dim < 0 else dim


def axes(dims: Sequence[int], rank: int) -> list[int]:
    """Return distinct dims counted from the front."""
    found = [axis(d, rank) for d in dims]
    if len(set(found)) != len(found):
        raise Damaged(f"axes {show(list(dims))} name one axis twice")
    return found
