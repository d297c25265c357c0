"""Ops of layers whose matrix is made of few numbers: circulant, block-circulant, Fastfood, ACDC, tensor train.

Their parameters stay what the method holds; the planner decides whether a kernel multiplies by them as they are or by
the matrix they stand for (:mod:`fastcnn.engine.plan.passes.expand_structured`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.graph.schema import (
    MAX_SIZE,
    MAX_WINDOW,
    AttrSpec,
    OpSchema,
    ParamSpec,
    Shape,
    boolean,
    integer,
    integers,
)
from fastcnn.engine.graph.shape_rules import window_output

MAX_CORES = 16
"""Of a tensor train."""
Shapes = Sequence[Shape]
Params = Mapping[str, Shape]
Arrays = Mapping[str, Array]

_BIAS = ParamSpec(ranks=(1,), required=False)
_MATRIX = ParamSpec(ranks=(2,))
_PLACES = ParamSpec(ranks=(2,), dtypes=("int32",))
_FEATURES = integer(1, MAX_SIZE)
_CORES = tuple(f"core{k}" for k in range(MAX_CORES))


def cores_of(params: Mapping[str, object]) -> list[str]:
    """Roles of a tensor train's cores, first to last; those that are there must be the first ones.

    Raises
    ------
    GraphError
        If one is left out.
    """
    found = [role for role in _CORES if role in params]
    if not found or found != list(_CORES[: len(found)]):
        raise GraphError(f"a tensor train's cores are core0, core1 ... without a gap, got {', '.join(found) or 'none'}")
    return found


def _same_shape(arrays: Arrays, roles: Sequence[str]) -> Shape:
    shapes = {role: arrays[role].shape for role in roles if role in arrays}
    if len(set(shapes.values())) > 1:
        raise GraphError(f"{', '.join(shapes)} must have one shape, got {', '.join(map(str, shapes.values()))}")
    return next(iter(shapes.values()))


def _permutations(array: Array, length: int) -> None:
    if array.shape[1] != length:
        raise GraphError(f"a permutation must have {length} places, got {array.shape[1]}")
    for row in array:
        if not np.array_equal(np.sort(row), np.arange(length)):
            raise GraphError(f"a permutation must hold each of 0..{length - 1} once")


def _outputs(node: Node, arrays: Arrays, least: int, most: int) -> None:
    wanted = node.attrs["out_features"]
    if not least <= wanted <= most:
        raise GraphError(f"out_features={wanted} must be in {least}..{most} for these parameters")
    if "bias" in arrays and arrays["bias"].shape != (wanted,):
        raise GraphError(f"bias must have {wanted} entries, one per output, got {arrays['bias'].shape[0]}")


def _circulant(node: Node, arrays: Arrays) -> None:
    """Vectors and signs of one shape; every vector has outputs."""
    pairs, length = _same_shape(arrays, ("vectors", "signs"))
    _outputs(node, arrays, (pairs - 1) * length + 1, pairs * length)


def _block_circulant(node: Node, arrays: Arrays) -> None:
    """Every row of blocks has outputs."""
    rows, _, size = arrays["vectors"].shape
    _outputs(node, arrays, (rows - 1) * size + 1, rows * size)


def _block_circulant_conv(node: Node, arrays: Arrays) -> None:
    """Groups divide rows of blocks and outputs; every row of blocks has outputs."""
    rows, _, size, *_ = arrays["vectors"].shape
    groups, wanted = node.attrs["groups"], node.attrs["out_features"]
    if rows % groups or wanted % groups:
        raise GraphError(f"groups={groups} must divide {rows} rows of blocks and {wanted} output channels")
    rows //= groups
    if not (rows - 1) * size < wanted // groups <= rows * size:
        raise GraphError(f"out_features={wanted} does not fit {groups} groups of {rows} rows of blocks of {size}")
    if "bias" in arrays and arrays["bias"].shape != (wanted,):
        raise GraphError(f"bias must have {wanted} entries, one per output, got {arrays['bias'].shape[0]}")


def _fastfood(node: Node, arrays: Arrays) -> None:
    """Three diagonals and a permutation of one shape, a power of two long; every block has outputs."""
    blocks, length = _same_shape(arrays, ("scale", "gauss", "signs"))
    if length & (length - 1):
        raise GraphError(f"diagonals must be a power of two long, got {length}")
    if arrays["permutation"].shape[0] != blocks:
        raise GraphError(f"permutation must have {blocks} rows, got {arrays['permutation'].shape[0]}")
    _permutations(arrays["permutation"], length)
    _outputs(node, arrays, (blocks - 1) * length + 1, blocks * length)


def _acdc(node: Node, arrays: Arrays) -> None:
    """Diagonals (and shifts) of one shape, a permutation between each two layers."""
    layers, length = _same_shape(arrays, ("a", "d", "beta"))
    have = arrays["permutations"].shape[0] if "permutations" in arrays else 0
    if have != layers - 1:
        raise GraphError(f"{layers} layers need {layers - 1} permutations between them, got {have}")
    if "permutations" in arrays:
        _permutations(arrays["permutations"], length)
    _outputs(node, arrays, 1, length)


def _tensor_train(node: Node, arrays: Arrays) -> None:
    """Ranks of neighbours agree and are 1 at both ends; the modes hold inputs and outputs."""
    shapes = [arrays[role].shape for role in cores_of(arrays)]
    ranks = [1, *(shape[3] for shape in shapes)]
    if [shape[0] for shape in shapes] != ranks[:-1] or ranks[-1] != 1:
        raise GraphError(f"ranks of neighbouring cores must agree and be 1 at both ends, got cores {shapes}")
    _outputs(node, arrays, 1, math.prod(shape[1] for shape in shapes))
    inputs = math.prod(shape[2] for shape in shapes)
    if node.attrs["in_features"] > inputs:
        raise GraphError(f"in_features={node.attrs['in_features']} exceeds the {inputs} that the cores' modes hold")


def _last_axis(node: Node, inputs: Shapes, low: int, high: int) -> Shape:
    x = inputs[0]
    if not x or not low <= x[-1] <= high:
        wanted = str(high) if low == high else f"{low}..{high}"
        raise GraphError(f"expects {wanted} features on the last axis, got shape {x}")
    return (*x[:-1], node.attrs["out_features"])


def _circulant_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """(..., d) to (..., out_features)."""
    length = params["vectors"][1]
    return _last_axis(node, inputs, length, length)


def _block_circulant_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """(..., I) to (..., out_features), where the last column of blocks may hang over."""
    _, columns, size = params["vectors"]
    return _last_axis(node, inputs, (columns - 1) * size + 1, columns * size)


def _block_circulant_conv_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """As conv2d, where the last column of blocks may hang over each group's channels."""
    _, columns, size, *kernel = params["vectors"]
    x, a = inputs[0], node.attrs
    if len(x) != 4:
        raise GraphError(f"expects a 4-d input, got shape {x}")
    each = x[1] // a["groups"]
    if x[1] % a["groups"] or not (columns - 1) * size < each <= columns * size:
        raise GraphError(f"{x[1]} channels in {a['groups']} groups do not fit {columns} columns of blocks of {size}")
    pads, strides, dilations = a["padding"], a["stride"], a["dilation"]
    spatial = tuple(
        window_output(x[2 + i], kernel[i], strides[i], pads[i], pads[2 + i], dilations[i], False) for i in range(2)
    )
    return (x[0], a["out_features"], *spatial)


def _fastfood_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """(..., I) to (..., out_features), I filled up with zeros."""
    return _last_axis(node, inputs, 1, params["scale"][1])


def _acdc_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """(..., I) to (..., out_features), I filled up with zeros."""
    return _last_axis(node, inputs, 1, params["a"][1])


def _tensor_train_shape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """(..., in_features) to (..., out_features)."""
    return _last_axis(node, inputs, node.attrs["in_features"], node.attrs["in_features"])


def _dense_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Of the matrix that the parameters stand for."""
    return math.prod(out) * inputs[0][-1]


def _dense_conv_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Of the convolution that the parameters stand for."""
    return math.prod(out) * inputs[0][1] // int(node.attrs["groups"]) * math.prod(params["vectors"][3:])


_CONV: dict[str, AttrSpec] = {
    "stride": integers(2, 1, MAX_WINDOW),
    "padding": integers(4, 0, MAX_WINDOW),
    "dilation": integers(2, 1, MAX_WINDOW),
    "groups": integer(1, MAX_WINDOW),
}

STRUCTURED: dict[str, OpSchema] = {
    # y = C(v) D x of each vector v and its signs D, one result after the other; C(v)[i, j] = v[(i - j) mod d].
    "circulant_linear": OpSchema(
        arity=(1, 1),
        params={"vectors": _MATRIX, "signs": _MATRIX, "bias": _BIAS},
        attrs={"out_features": _FEATURES},
        param_rule=_circulant,
        shape=_circulant_shape,
        macs=_dense_macs,
    ),
    # A matrix of p x q blocks C(vectors[i, j]); inputs are filled with zeros to q b, outputs cut from p b.
    "block_circulant_linear": OpSchema(
        arity=(1, 1),
        params={"vectors": ParamSpec(ranks=(3,)), "bias": _BIAS},
        attrs={"out_features": _FEATURES},
        param_rule=_block_circulant,
        shape=_block_circulant_shape,
        macs=_dense_macs,
    ),
    # The same for each tap of a convolution; rows of blocks belong to the groups one after the other.
    "block_circulant_conv2d": OpSchema(
        arity=(1, 1),
        params={"vectors": ParamSpec(ranks=(5,)), "bias": _BIAS},
        attrs={"out_features": _FEATURES, **_CONV},
        param_rule=_block_circulant_conv,
        shape=_block_circulant_conv_shape,
        macs=_dense_conv_macs,
    ),
    # y = scale * H (gauss * P H (signs * x)) of each block, H the orthonormal Walsh-Hadamard matrix.
    "fastfood_linear": OpSchema(
        arity=(1, 1),
        params={"scale": _MATRIX, "gauss": _MATRIX, "signs": _MATRIX, "permutation": _PLACES, "bias": _BIAS},
        attrs={"out_features": _FEATURES},
        param_rule=_fastfood,
        shape=_fastfood_shape,
        macs=_dense_macs,
    ),
    # x becomes ((a * x) C * d + beta) C^-1 in each layer, C the orthonormal DCT-II; between layers ReLU, permutation.
    "acdc_linear": OpSchema(
        arity=(1, 1),
        params={
            "a": _MATRIX,
            "d": _MATRIX,
            "beta": ParamSpec(ranks=(2,), required=False),
            "permutations": ParamSpec(ranks=(2,), dtypes=("int32",), required=False),
        },
        attrs={"relu": boolean(), "out_features": _FEATURES},
        param_rule=_acdc,
        shape=_acdc_shape,
        macs=_dense_macs,
    ),
    # W[(i_1 ... i_d), (j_1 ... j_d)] = product of core_k[:, i_k, j_k, :], cores (r, m, n, r').
    "tt_linear": OpSchema(
        arity=(1, 1),
        params={**{role: ParamSpec(ranks=(4,), required=role == "core0") for role in _CORES}, "bias": _BIAS},
        attrs={"in_features": _FEATURES, "out_features": _FEATURES},
        param_rule=_tensor_train,
        shape=_tensor_train_shape,
        macs=_dense_macs,
    ),
}
