"""What an op of the graph may look like: arity, parameters, attributes, and the limits untrusted graphs must keep.

The table itself is :mod:`fastcnn.engine.graph.ops`; this file holds the words it is written in.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastcnn.engine.graph.graph import Array, Node

Shape = tuple[int, ...]
ShapeRule = Callable[[Node, Sequence[Shape], Mapping[str, Shape]], Shape]
"""(node, input shapes, parameter shapes) -> output shape; raises GraphError when an input does not fit."""
MacsRule = Callable[[Node, Sequence[Shape], Mapping[str, Shape], Shape], int]
ParamRule = Callable[[Node, Mapping[str, Array]], None]
"""(node, parameters by role) -> None; raises GraphError when parameters and attributes contradict each other."""

MAX_RANK = 8
MAX_WINDOW = 1 << 16
"""Largest kernel, stride, dilation or padding."""
MAX_SIZE = (1 << 31) - 1
"""Largest extent of one axis; native code keeps extents in 32 bits."""
MAX_ELEMENTS = 1 << 33
"""Largest number of elements of one value (32 GiB of float32)."""
MAX_INPUTS = 4096
MAX_NODES = 100_000
MAX_NAME = 512
MAX_CODEBOOK = 1 << 16


@dataclass(frozen=True)
class AttrSpec:
    """One attribute: what is allowed, in words (for the error) and as a test."""

    allowed: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class ParamSpec:
    """One parameter role: permitted ranks and dtypes, and whether a node must have it."""

    ranks: tuple[int, ...]
    dtypes: tuple[str, ...] = ("float32",)
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class OpSchema:
    """Everything the engine's front rooms know about one op.

    Parameters
    ----------
    arity : (int, int)
        Fewest and most inputs.
    shape : callable
        Output shape from input and parameter shapes.
    params, attrs : mapping
        Roles and attributes; a node carries every attribute and every required role.
    param_rule : callable, optional
        Rule across parameters and attributes (groups divide channels, codes stay inside the codebook ...).
    macs : callable, optional
        Multiply-adds of one node; ops without it count none.
    activation : bool
        Element-wise, one input, no parameters: an epilogue may carry it.
    epilogue : bool
        Whether the planner may attach a residual add and an activation (internal attribute ``epilogue``).
    internal : bool
        Made by plan passes only; a graph in a file never has it.
    """

    arity: tuple[int, int]
    shape: ShapeRule
    params: Mapping[str, ParamSpec] = field(default_factory=dict)
    attrs: Mapping[str, AttrSpec] = field(default_factory=dict)
    param_rule: ParamRule | None = None
    macs: MacsRule | None = None
    activation: bool = False
    epilogue: bool = False
    internal: bool = False


def show(value: object) -> str:
    """Short text of a value that may be hostile: deep nesting and long strings are cut."""
    return reprlib.repr(value)


def is_integer(value: object) -> bool:
    """Return whether value is a plain int (bool is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether value is a finite int or float that float64 holds."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53


def integer(low: int, high: int) -> AttrSpec:
    """An int in low..high."""
    return AttrSpec(f"an integer in {low}..{high}", lambda v: is_integer(v) and low <= v <= high)


def integer_or_null(low: int, high: int) -> AttrSpec:
    """An int in low..high, or null."""
    return AttrSpec(f"an integer in {low}..{high} or null", lambda v: v is None or (is_integer(v) and low <= v <= high))


def integers(length: int, low: int, high: int) -> AttrSpec:
    """A list of exactly ``length`` ints in low..high."""
    return AttrSpec(
        f"a list of {length} integers in {low}..{high}",
        lambda v: isinstance(v, list) and len(v) == length and all(is_integer(i) and low <= i <= high for i in v),
    )


def integers_or_null(length: int, low: int, high: int) -> AttrSpec:
    """A list of exactly ``length`` ints in low..high, or null."""
    inner = integers(length, low, high)
    return AttrSpec(f"{inner.allowed}, or null", lambda v: v is None or inner.accepts(v))


def many_integers(low: int, high: int) -> AttrSpec:
    """A list of 1..MAX_WINDOW ints in low..high."""
    return AttrSpec(
        f"a list of 1..{MAX_WINDOW} integers in {low}..{high}",
        lambda v: (
            isinstance(v, list) and 1 <= len(v) <= MAX_WINDOW and all(is_integer(i) and low <= i <= high for i in v)
        ),
    )


def axes(*, permutation: bool = False) -> AttrSpec:
    """A non-empty list of distinct axes; with ``permutation`` all of 0..n-1."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_RANK:
            return False
        if not all(is_integer(i) and 0 <= i < MAX_RANK for i in value):
            return False
        if permutation:
            return sorted(value) == list(range(len(value)))
        return len(set(value)) == len(value)

    what = "a permutation of 0..n-1" if permutation else "distinct"
    return AttrSpec(f"a list of 1..{MAX_RANK} axes, {what}", accepts)


def number(low: float = -math.inf, high: float = math.inf) -> AttrSpec:
    """A finite number in low..high."""
    limits = "" if low == -math.inf and high == math.inf else f" in {low}..{high}"
    return AttrSpec(f"a finite number{limits}", lambda v: is_number(v) and low <= v <= high)


def number_or_null() -> AttrSpec:
    """A finite number, or null."""
    return AttrSpec("a finite number or null", lambda v: v is None or is_number(v))


def numbers_or_null(length: int, low: float, high: float) -> AttrSpec:
    """A list of exactly ``length`` finite numbers in low..high, or null."""
    return AttrSpec(
        f"a list of {length} numbers in {low}..{high}, or null",
        lambda v: (
            v is None
            or (isinstance(v, list) and len(v) == length and all(is_number(i) and low <= i <= high for i in v))
        ),
    )


def boolean() -> AttrSpec:
    """True or false."""
    return AttrSpec("true or false", lambda v: isinstance(v, bool))


def choice(*words: str) -> AttrSpec:
    """One of the given words."""
    return AttrSpec("one of " + ", ".join(map(repr, words)), lambda v: isinstance(v, str) and v in words)


def text() -> AttrSpec:
    """A short non-empty string."""
    return AttrSpec(f"a string of 1..{MAX_NAME} characters", lambda v: isinstance(v, str) and 1 <= len(v) <= MAX_NAME)


def pad_pairs() -> AttrSpec:
    """A [before, after] pair per axis."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list)
            and 1 <= len(value) <= MAX_RANK
            and all(isinstance(p, list) and len(p) == 2 for p in value)
            and all(is_integer(i) and 0 <= i <= MAX_WINDOW for p in value for i in p)
        )

    return AttrSpec(f"a list of [before, after] per axis, each in 0..{MAX_WINDOW}", accepts)


def reshape_target() -> AttrSpec:
    """Extents of a reshape; see :func:`fastcnn.engine.graph.shape_rules.reshape`."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) <= MAX_RANK
            and all(is_integer(i) and -1 - MAX_RANK <= i <= MAX_SIZE for i in value)
            and value.count(-1) <= 1
        )

    return AttrSpec(
        f"a list of up to {MAX_RANK} integers: an extent, 0 (copy this axis of the input), at most one -1 (inferred), "
        f"or -2-k (copy axis k of the input)",
        accepts,
    )
