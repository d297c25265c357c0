"""Batch norms, and other per-channel scalings, go into the layer before them.

A chain of batch_norm, mul_scalar, add_scalar, and mul or add by a per-channel constant is composed to one
``y = x * scale[c] + shift[c]`` in float64 and rounded to float32 once. After a convolution or fully connected layer
that only the chain reads, it goes into weight and bias, of layers of few bits into the scale and bias of their sums;
elsewhere a chain with a per-channel part becomes one ``scale_shift`` node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from fastcnn.engine.graph.binary import BINARY
from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.int8 import INT8
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.passes.folded_weight import FoldedWeight
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild, use_counts

F64 = npt.NDArray[np.float64]
_FOLDABLE = ("conv2d", "conv1d", "conv_transpose2d", "linear", *BINARY, *INT8)


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift, per channel of axis 1 or (size 1) for all alike."""

    scale: F64
    shift: F64
    reads: str

    def then(self, later: _Affine) -> _Affine:
        return _Affine(self.scale * later.scale, self.shift * later.scale + later.shift, self.reads)


def run(graph: Graph, shapes: Mapping[str, Shape], notes: list[str] | None = None, *, multiply: bool = True) -> Graph:
    """Fold every chain; see the module's text, and :func:`~fastcnn.engine.plan.passes.optimise` for ``multiply``."""
    weights = dict(graph.weights)
    counts = use_counts(graph)
    makers = {node.name: node for node in graph.nodes}
    readers: dict[str, list[Node]] = graph.consumers()
    renamed: dict[str, str] = {}
    done: set[str] = set()
    replaced: dict[str, Node | None] = {}
    for node in graph.nodes:
        if node.name in done:
            continue
        affine = _affine(graph, node, shapes, makers)
        if affine is None:
            continue
        chain = [node]
        while counts[chain[-1].name] == 1 and readers[chain[-1].name]:
            following = readers[chain[-1].name][0]
            step = _affine(graph, following, shapes, makers)
            if step is None or step.reads != chain[-1].name:
                break
            affine, chain = affine.then(step), [*chain, following]
        done.update(item.name for item in chain)
        base = makers.get(affine.reads)
        if base is not None and base.op in _FOLDABLE and counts[base.name] == 1 and "epilogue" not in base.attrs:
            base = replaced.get(base.name) or base
            if base.op in BINARY or base.op in INT8:
                folded = _fold_scale(base, affine, weights, shapes)
            else:
                folded = _fold(base, affine, shapes, weights, multiply=multiply)
            if folded is not None:
                replaced[base.name] = folded
                replaced.update({item.name: None for item in chain})
                renamed[chain[-1].name] = base.name
                _note(notes, f"{base.name}: folded {', '.join(item.name for item in chain)} into its weights")
                continue
        merged = _merge(chain, affine, shapes, weights)
        if merged is not None:
            replaced.update({item.name: None for item in chain[:-1]})
            replaced[chain[-1].name] = merged
            _note(notes, f"{merged.name}: {', '.join(item.name for item in chain)} became one scale and shift")
    nodes = [new for node in graph.nodes if (new := replaced.get(node.name, node)) is not None]
    return rebuild(graph, nodes, renamed=renamed, weights=weights)


def _note(notes: list[str] | None, text: str) -> None:
    if notes is not None:
        notes.append(text)


def _affine(graph: Graph, node: Node, shapes: Mapping[str, Shape], makers: Mapping[str, Node]) -> _Affine | None:
    """Read a node as per-channel affine, or None."""
    one, zero = np.ones(1), np.zeros(1)
    if node.op in ("batch_norm", "scale_shift"):
        if "epilogue" in node.attrs:
            return None
        p = {role: graph.weights[key].astype(np.float64) for role, key in node.params.items()}
        if node.op == "scale_shift":
            return _Affine(p["scale"], p["shift"], node.inputs[0])
        scale = p["weight"] / np.sqrt(p["running_var"] + float(node.attrs["eps"]))
        return _Affine(scale, p["bias"] - p["running_mean"] * scale, node.inputs[0])
    if node.op == "mul_scalar":
        return _Affine(one * float(node.attrs["value"]), zero, node.inputs[0])
    if node.op == "add_scalar":
        return _Affine(one, one * float(node.attrs["value"]), node.inputs[0])
    if node.op in ("add", "sub", "mul", "div"):
        return _constant_operand(graph, node, shapes, makers)
    return None


def _constant_operand(
    graph: Graph, node: Node, shapes: Mapping[str, Shape], makers: Mapping[str, Node]
) -> _Affine | None:
    """Arithmetic with a baked tensor that holds one number per channel."""
    constants = [i for i, name in enumerate(node.inputs) if name in makers and makers[name].op == "constant"]
    if len(constants) != 1 or (node.op == "div" and constants[0] == 0):
        return None
    x = node.inputs[1 - constants[0]]
    vector = _per_channel(graph.weights[makers[node.inputs[constants[0]]].params["value"]], shapes[x])
    if vector is None or shapes[node.name] != shapes[x]:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op == "add":
        return _Affine(one, vector, x)
    if node.op == "mul":
        return _Affine(vector, zero, x)
    if node.op == "sub":
        return _Affine(one, -vector, x) if constants[0] == 1 else _Affine(-one, vector, x)
    return _Affine(1.0 / vector, zero, x) if bool(np.all(vector != 0)) else None


def _per_channel(value: Array, x: Shape) -> F64 | None:
    """Return the constant as a vector over axis 1 of x, if it broadcasts along that axis alone."""
    if len(x) < 2 or value.ndim > len(x):
        return None
    full = (1,) * (len(x) - value.ndim) + value.shape
    if math.prod(full) != full[1] or full[1] not in (1, x[1]):
        return None
    return value.astype(np.float64).reshape(-1)


def _fold(
    base: Node, affine: _Affine, shapes: Mapping[str, Shape], weights: dict[str, Array], *, multiply: bool
) -> Node | None:
    """Return the layer with the affine step in its weights; None if it does not fit or leaves float32's range."""
    weight = np.asarray(weights[base.params["weight"]])
    groups = int(base.attrs.get("groups", 1))
    out_channels = weight.shape[1] * groups if base.op == "conv_transpose2d" else weight.shape[0]
    per_channel = affine.scale.size > 1 or affine.shift.size > 1
    if per_channel and base.op == "linear" and len(shapes[base.name]) != 2:
        return None  # its outputs are on the last axis, the channels of the step on axis 1
    scale, shift = np.broadcast_to(affine.scale, out_channels), np.broadcast_to(affine.shift, out_channels)
    bias = weights[base.params["bias"]].astype(np.float64) if "bias" in base.params else np.zeros(out_channels)
    folded = FoldedWeight(weight, scale)
    with np.errstate(over="ignore"):
        new_bias = (bias * scale + shift).astype(np.float32)
        if base.op == "conv2d" and not multiply:
            new_weight, finite = cast(Array, folded), folded.is_finite()
        elif base.op == "conv_transpose2d":
            grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).astype(np.float64)
            new_weight = (grouped * scale.reshape(groups, 1, -1, 1, 1)).astype(np.float32).reshape(weight.shape)
            finite = bool(np.isfinite(new_weight).all())
        else:
            new_weight = np.asarray(folded)
            finite = bool(np.isfinite(new_weight).all())
    if not (finite and np.isfinite(new_bias).all()):
        return None
    params = {}
    for role, array in (("weight", new_weight), ("bias", new_bias)):
        params[role] = fresh_key(f"{base.name}.{role} (folded)", weights)
        weights[params[role]] = array
    return base.with_(params=params)


def _fold_scale(base: Node, affine: _Affine, weights: dict[str, Array], shapes: Mapping[str, Shape]) -> Node | None:
    """Return the layer of few bits with the affine step in its scale and bias; None if it has thresholds instead."""
    if "thresholds" in base.params:
        return None
    outputs = shapes[base.name][1]
    old = {role: weights[base.params[role]].astype(np.float64) for role in ("scale", "bias") if role in base.params}
    with np.errstate(over="ignore"):
        new = {
            "scale": old.get("scale", 1.0) * affine.scale,
            "bias": old.get("bias", 0.0) * affine.scale + affine.shift,
        }
        arrays = {role: np.array(np.broadcast_to(value, outputs), np.float32) for role, value in new.items()}
    if not all(bool(np.isfinite(array).all()) for array in arrays.values()):
        return None
    params = dict(base.params)
    for role, array in arrays.items():
        params[role] = fresh_key(f"{base.name}.{role} (folded)", weights)
        weights[params[role]] = array
    return base.with_(params=params)


def _merge(chain: list[Node], affine: _Affine, shapes: Mapping[str, Shape], weights: dict[str, Array]) -> Node | None:
    """Return one scale_shift for a chain with a per-channel part; None leaves the chain as it is."""
    shape = shapes[chain[-1].name]
    if not 2 <= len(shape) <= 5 or all(item.op in ("mul_scalar", "add_scalar") for item in chain):
        return None
    with np.errstate(over="ignore"):
        pair = {
            role: np.array(np.broadcast_to(value, shape[1]), np.float32)
            for role, value in (("scale", affine.scale), ("shift", affine.shift))
        }
    if not all(np.isfinite(array).all() for array in pair.values()):
        return None
    params = {}
    for role, array in pair.items():
        params[role] = fresh_key(f"{chain[-1].name}.{role}", weights)
        weights[params[role]] = array
    return chain[-1].with_(op="scale_shift", inputs=(affine.reads,), params=params, attrs={})
