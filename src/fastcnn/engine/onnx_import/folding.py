"""Arithmetic on constants, in numpy: shapes, sizes and weights that the file computes instead of storing.

Every function gets the constant inputs (None for one left out) and the call; each checks how large its result will be
before it makes it, because a few bytes of a hostile file can ask for terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import MAX_RANK
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported
from fastcnn.engine.onnx_import.registry import Call, Constant, axes, axis
from fastcnn.engine.onnx_import.tensors import numpy_type

MAX_FOLDED = 1 << 27
"""Elements of one computed constant (the largest layer of VGG-16 has 2^26.6)."""

Inputs = Sequence[Array | None]
Fold = Callable[[Inputs, Call], Array | list[Array]]

FOLDS: dict[str, Fold] = {}
"""ONNX op to the function that computes it on constants."""


def folds(*ops: str) -> Callable[[Fold], Fold]:
    """Register a function under ONNX op names."""

    def register(function: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(ops, function))
        return function

    return register


def fold(call: Call) -> list[Constant]:
    """Compute a node whose inputs are all constants.

    Raises
    ------
    Damaged
        If the numbers do not fit the op (shapes that do not broadcast, an index out of range ...) or the result would
        be too large.
    """
    arrays = [value.array if isinstance(value, Constant) else None for value in call.inputs]
    try:
        with np.errstate(all="ignore"):
            made = FOLDS[call.op](arrays, call)
    except (ValueError, IndexError, TypeError, ArithmeticError, MemoryError) as error:
        shapes = [None if a is None else f"{a.dtype}{list(a.shape)}" for a in arrays]
        raise Damaged(f"it cannot be computed from constants {shapes}: {error}") from None
    return [Constant(np.asarray(array)) for array in (made if isinstance(made, list) else [made])]


def _limited(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(shape) > MAX_FOLDED:
        raise ValueError(
            f"the result would have shape {list(shape)[:MAX_RANK]}; at most {MAX_FOLDED} elements are allowed"
        )
    return tuple(int(n) for n in shape)


def _at(inputs: Inputs, index: int) -> Array:
    if index >= len(inputs) or (array := inputs[index]) is None:
        raise ValueError(f"input {index} is missing")
    return array


def _list(call: Call, inputs: Inputs, index: int, name: str) -> list[int] | None:
    """Numbers from an attribute (older opsets) or an input."""
    if call.has(name):
        return call.integers(name)
    return call.int_input(index, name)


def _elementwise(function: Callable[..., Any], *, count: int) -> Fold:
    def computed(inputs: Inputs, call: Call) -> Array:
        arrays = [_at(inputs, i) for i in range(count)]
        if count == 2 and arrays[0].dtype != arrays[1].dtype:
            raise ValueError("the operands have different types")
        _limited(np.broadcast_shapes(*(a.shape for a in arrays)))
        result = np.asarray(function(*arrays))
        return result if result.dtype == np.bool_ else result.astype(arrays[0].dtype, copy=False)

    return computed


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if not b.all():
        raise ValueError("division by zero")
    quotient = np.abs(a) // np.abs(b)  # ONNX: integers round towards zero
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient))


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Not": np.logical_not,
    "Identity": np.asarray,
}
for _table, _count in ((_BINARY, 2), (_UNARY, 1)):
    for _name, _function in _table.items():
        folds(_name)(_elementwise(_function, count=_count))


@folds("Pow")
def pow_(inputs: Inputs, call: Call) -> Array:
    """Base to the exponent, in the base's type."""
    base, exponent = _at(inputs, 0), _at(inputs, 1)
    _limited(np.broadcast_shapes(base.shape, exponent.shape))
    return np.asarray(np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(base.dtype))


@folds("Mod")
def mod(inputs: Inputs, call: Call) -> Array:
    """Remainder: the divisor's sign for integers, the dividend's with fmod."""
    a, b = _at(inputs, 0), _at(inputs, 1)
    _limited(np.broadcast_shapes(a.shape, b.shape))
    if a.dtype.kind in "iu" and not b.all():
        raise ValueError("division by zero")
    return np.asarray(np.fmod(a, b) if call.flag("fmod") else np.mod(a, b))


@folds("Min", "Max")
def extremum(inputs: Inputs, call: Call) -> Array:
    """Smallest or largest, element by element."""
    arrays = [_at(inputs, i) for i in range(len(inputs))]
    _limited(np.broadcast_shapes(*(a.shape for a in arrays)))
    function = np.minimum if call.op == "Min" else np.maximum
    result = arrays[0]
    for array in arrays[1:]:
        result = np.asarray(function(result, array))
    return result


@folds("Where")
def where(inputs: Inputs, call: Call) -> Array:
    """Choose by a condition."""
    arrays = [_at(inputs, i) for i in range(3)]
    _limited(np.broadcast_shapes(*(a.shape for a in arrays)))
    return np.asarray(np.where(*arrays))


@folds("Cast")
def cast(inputs: Inputs, call: Call) -> Array:
    """Another element type."""
    try:
        return _at(inputs, 0).astype(numpy_type(call.integer("to", 0)))
    except Unsupported as error:
        raise Unsupported(f"it casts constants, and {error}") from None


@folds("Constant")
def constant(inputs: Inputs, call: Call) -> Array:
    """A number or list written into the node (a tensor is the walk's to read)."""
    if call.has("value_float"):
        return np.array(call.number("value_float", 0.0), np.float32)
    if call.has("value_int"):
        return np.array(call.integer("value_int", 0), np.int64)
    floats, ints = call.numbers("value_floats"), call.integers("value_ints")
    if floats is None and ints is None:
        raise Unsupported("it holds strings or a sparse tensor")
    return np.array(floats, np.float32) if floats is not None else np.array(ints, np.int64)


@folds("Gather")
def gather(inputs: Inputs, call: Call) -> Array:
    """Entries of one axis by index, negative ones from the end."""
    data, indices = _at(inputs, 0), _at(inputs, 1)
    dim = axis(call.integer("axis", 0), data.ndim)
    if indices.dtype.kind not in "iu":
        raise ValueError("the indices are not integers")
    _limited(data.shape[:dim] + indices.shape + data.shape[dim + 1 :])
    return np.asarray(np.take(data, indices, axis=dim))  # IndexError outside -n..n-1


@folds("Concat")
def concat(inputs: Inputs, call: Call) -> Array:
    """Join along an axis."""
    arrays = [_at(inputs, i) for i in range(len(inputs))]
    dim = axis(call.integer("axis", 0), arrays[0].ndim)
    if sum(a.size for a in arrays) > MAX_FOLDED:
        raise ValueError(f"the result would have more than {MAX_FOLDED} elements")
    return np.concatenate(arrays, dim)


@folds("Unsqueeze")
def unsqueeze(inputs: Inputs, call: Call) -> Array:
    """Insert axes of extent 1."""
    data, dims = _at(inputs, 0), _list(call, inputs, 1, "axes") or []
    if data.ndim + len(dims) > MAX_RANK:
        raise ValueError(f"the result would have more than {MAX_RANK} axes")
    return np.expand_dims(data, tuple(axes(dims, data.ndim + len(dims))))


@folds("Squeeze")
def squeeze(inputs: Inputs, call: Call) -> Array:
    """Remove axes of extent 1."""
    data, dims = _at(inputs, 0), _list(call, inputs, 1, "axes")
    return np.squeeze(data, None if dims is None else tuple(axes(dims, data.ndim)))


@folds("Reshape")
def reshape(inputs: Inputs, call: Call) -> Array:
    """A new shape; 0 copies an axis."""
    data, target = _at(inputs, 0), call.int_input(1, "shape") or []
    if not call.flag("allowzero"):
        target = [data.shape[i] if n == 0 else n for i, n in enumerate(target)]
    if len(target) > MAX_RANK:
        raise ValueError(f"the result would have more than {MAX_RANK} axes")
    return np.reshape(data, target)


@folds("Flatten")
def flatten(inputs: Inputs, call: Call) -> Array:
    """A matrix."""
    data = _at(inputs, 0)
    dim = call.integer("axis", 1)
    dim = data.ndim if dim == data.ndim else axis(dim, data.ndim)
    return data.reshape(math.prod(data.shape[:dim]), -1)


@folds("Transpose")
def transpose(inputs: Inputs, call: Call) -> Array:
    """Axes in a new order."""
    data = _at(inputs, 0)
    return np.ascontiguousarray(np.transpose(data, call.integers("perm")))


@folds("Slice")
def slice_(inputs: Inputs, call: Call) -> Array:
    """Ranges of some axes."""
    data = _at(inputs, 0)
    starts, ends = _list(call, inputs, 1, "starts") or [], _list(call, inputs, 2, "ends") or []
    dims = _list(call, inputs, 3, "axes") or list(range(len(starts)))
    steps = call.int_input(4, "steps") or [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, dim, step in zip(starts, ends, axes(dims, data.ndim), steps, strict=True):
        # Backwards, "to before the first" is written as a large negative end, which Python would count from the end.
        stop = None if step < 0 and end < -data.shape[dim] else end
        index[dim] = slice(start, stop, step)
    return np.ascontiguousarray(data[tuple(index)])


@folds("Range")
def range_(inputs: Inputs, call: Call) -> Array:
    """From start in steps to before the limit."""
    start, limit, delta = (_at(inputs, i) for i in range(3))
    if any(a.size != 1 for a in (start, limit, delta)) or not delta.all():
        raise ValueError("start, limit and delta must be numbers, delta not 0")
    count = max(0, math.ceil((float(limit.item()) - float(start.item())) / float(delta.item())))
    _limited([count])
    return np.asarray((start.reshape(()) + np.arange(count, dtype=start.dtype) * delta.reshape(())).astype(start.dtype))


@folds("Expand")
def expand(inputs: Inputs, call: Call) -> Array:
    """Broadcast to a shape."""
    data, target = _at(inputs, 0), call.int_input(1, "shape") or []
    return np.array(np.broadcast_to(data, _limited(np.broadcast_shapes(data.shape, tuple(target)))))


@folds("Tile")
def tile(inputs: Inputs, call: Call) -> Array:
    """Copies side by side."""
    data, counts = _at(inputs, 0), call.int_input(1, "repeats") or []
    _limited([n * count for n, count in zip(data.shape, counts, strict=True)])
    return np.tile(data, counts)


@folds("ConstantOfShape")
def constant_of_shape(inputs: Inputs, call: Call) -> Array:
    """One value everywhere; the walk hands the value in as a second input."""
    target = call.int_input(0, "shape") or []
    value = _at(inputs, 1)
    return np.full(_limited(target), value.reshape(-1)[0], value.dtype)


@folds("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean")
def reduce(inputs: Inputs, call: Call) -> Array:
    """One number of some axes (or of all)."""
    data, dims = _at(inputs, 0), _list(call, inputs, 1, "axes")
    if not dims and call.flag("noop_with_empty_axes"):
        return data
    over = tuple(axes(dims, data.ndim)) if dims else None
    name = {"ReduceProd": "prod", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceMean": "mean"}
    result = getattr(np, name[call.op])(data, axis=over, keepdims=call.flag("keepdims", True))
    return np.asarray(result).astype(data.dtype)


@folds("Split")
def split(inputs: Inputs, call: Call) -> list[Array]:
    """Ranges of one axis."""
    data = _at(inputs, 0)
    dim = axis(call.integer("axis", 0), data.ndim)
    sizes = split_sizes(call, data.shape[dim])
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [np.ascontiguousarray(part) for part in np.split(data, ends[:-1], dim)]


def split_sizes(call: Call, extent: int) -> list[int]:
    """Sizes that a Split cuts an axis into; Damaged if they do not fill it."""
    sizes = call.attr_or_input("split", 1)
    if sizes is None:
        count = call.integer("num_outputs", len(call.outputs))
        if not 1 <= count <= max(extent, 1) or count != len(call.outputs):
            raise Damaged(f"it cuts an axis of {extent} into {count} parts and has {len(call.outputs)} outputs")
        if call.opset < 18 and extent % count:
            raise Damaged(f"it cuts an axis of {extent} into {count} equal parts")
        size = -(-extent // count)
        sizes = [size] * (count - 1) + [extent - size * (count - 1)]
    if len(sizes) != len(call.outputs) or min(sizes, default=0) < 0 or sum(sizes) != extent:
        raise Damaged(f"it cuts an axis of {extent} into {sizes} for {len(call.outputs)} outputs")
    return sizes
