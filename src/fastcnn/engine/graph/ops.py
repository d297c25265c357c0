"""The op table: what the engine can hold, and the checks every graph passes before a shape or a byte is used.

Adding an op is one entry in ``OPS`` (with its shape rule in :mod:`fastcnn.engine.graph.shape_rules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastcnn.engine.graph import param_rules
from fastcnn.engine.graph import shape_rules as shapes
from fastcnn.engine.graph.binary import BINARY
from fastcnn.engine.graph.graph import Array, Graph, GraphError, Node
from fastcnn.engine.graph.int8 import INT8
from fastcnn.engine.graph.schema import (
    MAX_INPUTS,
    MAX_NAME,
    MAX_NODES,
    MAX_RANK,
    MAX_SIZE,
    MAX_WINDOW,
    AttrSpec,
    OpSchema,
    ParamSpec,
    axes,
    boolean,
    choice,
    integer,
    integer_or_null,
    integers,
    integers_or_null,
    is_integer,
    many_integers,
    number,
    number_or_null,
    numbers_or_null,
    pad_pairs,
    reshape_target,
    show,
    text,
)
from fastcnn.engine.graph.structured import STRUCTURED

_CODES = ("uint8", "uint16")
_BIAS = ParamSpec(ranks=(1,), required=False)
_VECTOR = ParamSpec(ranks=(1,))
_DIM = integer(0, MAX_RANK - 1)
_LEVEL = integer(-(1 << 15), 1 << 16)
"""Of a quantised value: what 8 or 16 bits count, signed or not."""

INTERNAL_ATTRS = ("epilogue", "expanded_from")
"""Attributes that plan passes add; never in a captured graph or a file."""


def _conv_attrs(spatial: int) -> dict[str, AttrSpec]:
    return {
        "stride": integers(spatial, 1, MAX_WINDOW),
        "padding": integers(2 * spatial, 0, MAX_WINDOW),
        "dilation": integers(spatial, 1, MAX_WINDOW),
        "groups": integer(1, MAX_WINDOW),
    }


def _conv(spatial: int) -> OpSchema:
    return OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(spatial + 2,)), "bias": _BIAS},
        attrs=_conv_attrs(spatial),
        param_rule=param_rules.conv,
        shape=shapes.conv,
        macs=shapes.conv_macs,
        epilogue=True,
    )


def _pool(spatial: int, kind: str) -> OpSchema:
    window = integers(spatial, 1, MAX_WINDOW)
    attrs = {"kernel_size": window, "stride": window, "padding": integers(2 * spatial, 0, MAX_WINDOW)}
    if kind == "max":
        attrs |= {"dilation": window, "ceil_mode": boolean()}
    else:
        attrs |= {
            "ceil_mode": boolean(),
            "count_include_pad": boolean(),
            "divisor_override": integer_or_null(1, MAX_SIZE),
        }
    return OpSchema(arity=(1, 1), attrs=attrs, param_rule=param_rules.pool, shape=shapes.pool)


def _levels(node: Node, arrays: Mapping[str, Array]) -> None:
    if not node.attrs["low"] < node.attrs["high"]:
        raise GraphError(f"low={node.attrs['low']} must be less than high={node.attrs['high']}")


def _activation(**attrs: AttrSpec) -> OpSchema:
    return OpSchema(arity=(1, 1), attrs=attrs, shape=shapes.same, activation=True)


def _binary() -> OpSchema:
    return OpSchema(arity=(2, 2), shape=shapes.broadcast)


def _reduction() -> OpSchema:
    return OpSchema(arity=(1, 1), attrs={"dims": axes(), "keepdim": boolean()}, shape=shapes.reduction)


_ADAPTIVE = OpSchema(arity=(1, 1), attrs={"output_size": integers(2, 1, MAX_WINDOW)}, shape=shapes.adaptive_pool2d)

OPS: dict[str, OpSchema] = {
    "conv2d": _conv(2),
    "conv1d": _conv(1),
    "conv_transpose2d": OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(4,)), "bias": _BIAS},
        attrs={
            "stride": integers(2, 1, MAX_WINDOW),
            "padding": integers(2, 0, MAX_WINDOW),
            "output_padding": integers(2, 0, MAX_WINDOW),
            "dilation": integers(2, 1, MAX_WINDOW),
            "groups": integer(1, MAX_WINDOW),
        },
        param_rule=param_rules.conv_transpose2d,
        shape=shapes.conv_transpose2d,
        macs=shapes.conv_transpose_macs,
        epilogue=True,
    ),
    "linear": OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(2,)), "bias": _BIAS},
        param_rule=param_rules.linear,
        shape=shapes.linear,
        macs=shapes.linear_macs,
        epilogue=True,
    ),
    "codebook_conv2d": OpSchema(
        arity=(1, 1),
        params={"codebook": _VECTOR, "codes": ParamSpec(ranks=(4,), dtypes=_CODES), "bias": _BIAS},
        attrs=_conv_attrs(2),
        param_rule=param_rules.codebook_conv2d,
        shape=shapes.conv,
        macs=shapes.conv_macs,
    ),
    "codebook_linear": OpSchema(
        arity=(1, 1),
        params={"codebook": _VECTOR, "codes": ParamSpec(ranks=(2,), dtypes=_CODES), "bias": _BIAS},
        param_rule=param_rules.codebook_linear,
        shape=shapes.linear,
        macs=shapes.linear_macs,
    ),
    **STRUCTURED,
    **BINARY,
    **INT8,
    "batch_norm": OpSchema(
        arity=(1, 1),
        params={"weight": _VECTOR, "bias": _VECTOR, "running_mean": _VECTOR, "running_var": _VECTOR},
        attrs={"eps": number(0.0, 1e6)},
        param_rule=param_rules.batch_norm,
        shape=shapes.per_channel,
    ),
    # y[c] = x[c] / (k + alpha * mean of x^2 over channels c - size // 2 ... c + (size - 1) // 2)^beta; zeros outside.
    "local_response_norm": OpSchema(
        arity=(1, 1),
        attrs={"size": integer(1, MAX_WINDOW), "alpha": number(), "beta": number(), "k": number()},
        shape=shapes.local_response_norm,
    ),
    # (x - mean) / sqrt(variance + eps), mean and variance over the pixels of a group of channels of one picture.
    "group_norm": OpSchema(
        arity=(1, 1),
        params={"weight": ParamSpec(ranks=(1,), required=False), "bias": _BIAS},
        attrs={"groups": integer(1, MAX_WINDOW), "eps": number(0.0, 1e6)},
        param_rule=param_rules.group_norm,
        shape=shapes.group_norm,
    ),
    # The same over the last axes of a value, one weight and one bias for each of their places.
    "layer_norm": OpSchema(
        arity=(1, 1),
        params={role: ParamSpec(ranks=tuple(range(1, MAX_RANK)), required=False) for role in ("weight", "bias")},
        attrs={"axes": integer(1, MAX_RANK - 1), "eps": number(0.0, 1e6)},
        shape=shapes.layer_norm,
    ),
    "max_pool2d": _pool(2, "max"),
    "avg_pool2d": _pool(2, "avg"),
    "max_pool1d": _pool(1, "max"),
    "avg_pool1d": _pool(1, "avg"),
    "adaptive_avg_pool2d": _ADAPTIVE,
    "adaptive_max_pool2d": _ADAPTIVE,
    # The inverse of a max pool: x goes where the maxima of the second input's windows stood, zeros elsewhere.
    "max_unpool2d": OpSchema(
        arity=(2, 2),
        attrs={
            "kernel_size": integers(2, 1, MAX_WINDOW),
            "stride": integers(2, 1, MAX_WINDOW),
            "padding": integers(4, 0, MAX_WINDOW),
            "ceil_mode": boolean(),
        },
        param_rule=param_rules.max_unpool2d,
        shape=shapes.max_unpool2d,
    ),
    "mean": _reduction(),
    "sum": _reduction(),
    "amax": _reduction(),
    "relu": _activation(),
    "silu": _activation(),
    "hardswish": _activation(),
    "hardsigmoid": _activation(),
    "sigmoid": _activation(),
    "tanh": _activation(),
    "exp": _activation(),
    "softplus": _activation(),
    "mish": _activation(),
    "clamp": _activation(min=number_or_null(), max=number_or_null()),
    "leaky_relu": _activation(negative_slope=number()),
    "elu": _activation(alpha=number()),
    "gelu": _activation(approximate=choice("none", "tanh")),
    "prelu": OpSchema(arity=(1, 1), params={"weight": _VECTOR}, shape=shapes.prelu),
    "sqrt": OpSchema(arity=(1, 1), shape=shapes.same),
    "abs": OpSchema(arity=(1, 1), shape=shapes.same),
    # +1 where x >= 0, else -1, NaN too: not torch.sign, which is 0 at 0.
    "sign": OpSchema(arity=(1, 1), shape=shapes.same),
    # (clamp(rint(x * factor) + zero, low, high) - zero) * step, in float32, halves to even, NaN as low.
    "quantize": OpSchema(
        arity=(1, 1),
        attrs={
            "factor": number(1e-30, 1e30),
            "step": number(1e-30, 1e30),
            "zero": _LEVEL,
            "low": _LEVEL,
            "high": _LEVEL,
        },
        param_rule=_levels,
        shape=shapes.same,
    ),
    "softmax": OpSchema(arity=(1, 1), attrs={"dim": _DIM}, shape=shapes.along_dim),
    "log_softmax": OpSchema(arity=(1, 1), attrs={"dim": _DIM}, shape=shapes.along_dim),
    "add": _binary(),
    "sub": _binary(),
    "mul": _binary(),
    "div": _binary(),
    "matmul": OpSchema(arity=(2, 2), shape=shapes.matmul, macs=shapes.matmul_macs),
    "add_scalar": OpSchema(arity=(1, 1), attrs={"value": number()}, shape=shapes.same),
    "mul_scalar": OpSchema(arity=(1, 1), attrs={"value": number()}, shape=shapes.same),
    "concat": OpSchema(arity=(1, MAX_INPUTS), attrs={"dim": _DIM}, shape=shapes.concat),
    "slice": OpSchema(
        arity=(1, 1),
        attrs={
            "dim": _DIM,
            "start": integer(0, MAX_SIZE),
            "end": integer_or_null(0, MAX_SIZE),
            "step": integer(1, MAX_SIZE),
        },
        shape=shapes.slice_,
    ),
    "pad": OpSchema(arity=(1, 1), attrs={"pads": pad_pairs(), "value": number()}, shape=shapes.pad),
    "edge_pad2d": OpSchema(
        arity=(1, 1),
        attrs={"padding": integers(4, 0, MAX_WINDOW), "mode": choice("reflect", "replicate")},
        shape=shapes.edge_pad2d,
    ),
    "index_select": OpSchema(
        arity=(1, 1), attrs={"dim": _DIM, "indices": many_integers(0, MAX_SIZE)}, shape=shapes.index_select
    ),
    "resize": OpSchema(
        arity=(1, 1),
        attrs={
            "size": integers_or_null(2, 1, MAX_WINDOW),
            "scale": numbers_or_null(2, 1e-4, 1e4),
            "mode": choice("nearest", "bilinear"),
            "align_corners": boolean(),
        },
        param_rule=param_rules.resize,
        shape=shapes.resize,
    ),
    "reshape": OpSchema(arity=(1, 1), attrs={"shape": reshape_target()}, shape=shapes.reshape),
    "flatten": OpSchema(arity=(1, 1), attrs={"start_dim": _DIM, "end_dim": _DIM}, shape=shapes.flatten),
    "permute": OpSchema(arity=(1, 1), attrs={"dims": axes(permutation=True)}, shape=shapes.permute),
    "constant": OpSchema(
        arity=(0, 0), params={"value": ParamSpec(ranks=tuple(range(MAX_RANK + 1)))}, shape=shapes.constant
    ),
    "torch": OpSchema(arity=(0, MAX_INPUTS), attrs={"target": text(), "key": text()}, shape=shapes.outside),
    # Made by plan passes only: y = x * scale[c] + shift[c], channels on axis 1.
    "scale_shift": OpSchema(
        arity=(1, 1),
        params={"scale": _VECTOR, "shift": _VECTOR},
        param_rule=param_rules.scale_shift,
        shape=shapes.per_channel,
        epilogue=True,
        internal=True,
    ),
}

ACTIVATIONS = frozenset(name for name, schema in OPS.items() if schema.activation)
"""Element-wise ops without parameters: what an epilogue may carry."""


def where(node: Node) -> str:
    """Name a node for a message: its name, op and, if known, the layer it came from."""
    layer = f", layer {node.source!r}" if node.source and node.source != node.name else ""
    return f"node {node.name!r} ({node.op}{layer})"


def make_node(
    name: str,
    op: str,
    inputs: Sequence[str],
    *,
    params: Mapping[str, str] | None = None,
    attrs: Mapping[str, Any] | None = None,
    source: str = "",
    weights: Mapping[str, Array] | None = None,
) -> Node:
    """Build one node and check it against the op table.

    Parameters
    ----------
    name, op, inputs, params, attrs, source
        As :class:`~fastcnn.engine.graph.graph.Node`.
    weights : mapping of str to ndarray, optional
        Where the parameters live; given, their ranks, dtypes and mutual fit are checked too.

    Raises
    ------
    GraphError
        Naming the node, the field, what is allowed and what came.
    """
    node = Node(
        name=name, op=op, inputs=tuple(inputs), params=dict(params or {}), attrs=dict(attrs or {}), source=source
    )
    check_node(node, weights)
    return node


def check_node(node: Node, weights: Mapping[str, Array] | None = None) -> None:
    """Raise GraphError unless the node keeps its op's schema (and, with ``weights``, its parameters fit)."""
    _check_name(node.name, "node name")
    if not isinstance(node.op, str) or node.op not in OPS:
        raise GraphError(f"node {node.name!r}: op {show(node.op)} is not known; known are {', '.join(OPS)}")
    if not isinstance(node.source, str) or len(node.source) > MAX_NAME:
        raise GraphError(f"node {node.name!r}: source must be a string of at most {MAX_NAME} characters")
    schema = OPS[node.op]
    _check_inputs(node, schema)
    _check_attrs(node, schema)
    _check_roles(node, schema)
    if weights is not None:
        check_params(node, weights)


def check_params(node: Node, weights: Mapping[str, Array]) -> None:
    """Raise GraphError unless the parameters have their rank and dtype, are finite, and fit the attributes."""
    schema = OPS[node.op]
    arrays: dict[str, Array] = {}
    for role, key in node.params.items():
        if key not in weights:
            raise GraphError(f"{where(node)}: {role} names weight {key!r}, which is not in the graph")
        array, spec = weights[key], schema.params[role]
        if not isinstance(array, np.ndarray):
            raise GraphError(f"{where(node)}: {role} must be a numpy array, got {type(array).__name__}")
        if array.ndim not in spec.ranks:
            ranks = " or ".join(map(str, spec.ranks))
            raise GraphError(f"{where(node)}: {role} must have rank {ranks}, got shape {array.shape}")
        if array.dtype.name not in spec.dtypes or not array.dtype.isnative:
            raise GraphError(f"{where(node)}: {role} must be {' or '.join(spec.dtypes)}, got {array.dtype}")
        if array.size == 0 or max(array.shape, default=1) > MAX_SIZE:
            raise GraphError(f"{where(node)}: {role} has shape {array.shape}; every extent must be 1..{MAX_SIZE}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise GraphError(f"{where(node)}: {role} ({key!r}) holds NaN or infinity")
        arrays[role] = array
    if schema.param_rule is not None:
        try:
            schema.param_rule(node, arrays)
        except GraphError as error:
            raise GraphError(f"{where(node)}: {error}") from None


def check_graph(graph: Graph, *, internal: bool = False, allow_torch: bool = False) -> None:
    """Check everything about a graph that can be checked without input shapes.

    Safe for graphs from untrusted files: no attribute is used before its type and range are known, and only
    GraphError comes out.

    Parameters
    ----------
    graph : Graph
    internal : bool
        Permit what plan passes add (``scale_shift``, epilogues).
    allow_torch : bool
        Permit torch steps.

    Raises
    ------
    GraphError
    """
    if len(graph.nodes) > MAX_NODES:
        raise GraphError(f"graph has {len(graph.nodes)} nodes; at most {MAX_NODES} are allowed")
    if not 1 <= len(graph.inputs) <= MAX_INPUTS or not 1 <= len(graph.outputs) <= MAX_INPUTS:
        raise GraphError(f"graph must have 1..{MAX_INPUTS} inputs and outputs")
    for value in graph.inputs:
        _check_name(value.name, "input name")
        if not isinstance(value.shape, tuple) or not 1 <= len(value.shape) <= MAX_RANK:
            raise GraphError(f"input {value.name!r}: shape must have 1..{MAX_RANK} axes, got {show(value.shape)}")
        if not all(is_integer(n) and 1 <= n <= MAX_SIZE for n in value.shape):
            raise GraphError(f"input {value.name!r}: extents must be in 1..{MAX_SIZE}, got {show(value.shape)}")
        if value.dtype != "float32":
            raise GraphError(f"input {value.name!r}: dtype must be 'float32', got {show(value.dtype)}")
        rank = len(value.shape)
        if not isinstance(value.fixed, tuple) or not all(is_integer(i) and 0 <= i < rank for i in value.fixed):
            raise GraphError(f"input {value.name!r}: fixed must name axes of {value.shape}, got {show(value.fixed)}")
    for name in graph.outputs:
        _check_name(name, "output name")
    for node in graph.nodes:
        check_node(node)
        if not internal and (OPS[node.op].internal or any(key in node.attrs for key in INTERNAL_ATTRS)):
            raise GraphError(f"{where(node)}: made by plan passes only, not allowed here")
        if node.op == "torch" and not allow_torch:
            raise GraphError(f"{where(node)}: a torch step ({node.attrs['target']}) is not allowed here")
    graph.check()
    for node in graph.nodes:
        check_params(node, graph.weights)


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise GraphError(f"{what} must be a printable string of 1..{MAX_NAME} characters, got {show(name)}")


def _check_inputs(node: Node, schema: OpSchema) -> None:
    if not isinstance(node.inputs, tuple):
        raise GraphError(f"{where(node)}: inputs must be a tuple of value names")
    for name in node.inputs:
        _check_name(name, f"{where(node)}: input")
    low, high = schema.arity
    extra = 1 if _residual(node) is not None else 0
    if not low <= len(node.inputs) - extra <= high:
        wanted = str(low) if low == high else f"{low}..{high}"
        raise GraphError(f"{where(node)}: takes {wanted} inputs, got {len(node.inputs)}")


def _check_attrs(node: Node, schema: OpSchema) -> None:
    for key in node.attrs:
        if key not in schema.attrs and not (key in INTERNAL_ATTRS and (schema.epilogue or key != "epilogue")):
            raise GraphError(f"{where(node)}: attribute {show(key)} is not known; known are {sorted(schema.attrs)}")
    for key, spec in schema.attrs.items():
        if key not in node.attrs:
            raise GraphError(f"{where(node)}: attribute {key!r} is missing: give {spec.allowed}")
        if not spec.accepts(node.attrs[key]):
            raise GraphError(f"{where(node)}: {key} must be {spec.allowed}, got {show(node.attrs[key])}")
    if "epilogue" in node.attrs:
        _check_epilogue(node)


def _check_roles(node: Node, schema: OpSchema) -> None:
    for role, key in node.params.items():
        if role not in schema.params:
            raise GraphError(
                f"{where(node)}: parameter {str(role)[:80]!r} is not known; known are {sorted(schema.params)}"
            )
        if not isinstance(key, str):
            raise GraphError(f"{where(node)}: parameter {role!r} must name a weight")
    for role, spec in schema.params.items():
        if spec.required and role not in node.params:
            raise GraphError(f"{where(node)}: parameter {role!r} is missing")


def _residual(node: Node) -> str | None:
    epilogue = node.attrs.get("epilogue")
    residual = epilogue.get("residual") if isinstance(epilogue, Mapping) else None
    return residual if isinstance(residual, str) else None


def _check_epilogue(node: Node) -> None:
    epilogue = node.attrs["epilogue"]
    if not isinstance(epilogue, Mapping) or set(epilogue) != {"residual", "activation", "order"}:
        raise GraphError(f"{where(node)}: epilogue must have residual, activation and order")
    if epilogue["order"] not in ("add_then_act", "act_then_add"):
        raise GraphError(f"{where(node)}: epilogue order must be 'add_then_act' or 'act_then_add'")
    residual = epilogue["residual"]
    if residual is not None and (not node.inputs or residual != node.inputs[-1]):
        raise GraphError(f"{where(node)}: the residual {show(residual)} must be the last input")
    activation = epilogue["activation"]
    if activation is not None:
        if not isinstance(activation, Mapping) or activation.get("op") not in ACTIVATIONS:
            raise GraphError(f"{where(node)}: epilogue activation must be one of {sorted(ACTIVATIONS)}")
        attrs = {key: value for key, value in activation.items() if key != "op"}
        check_node(Node(name=node.name, op=activation["op"], inputs=("x",), attrs=attrs))
