"""Structured layers become the dense ones they stand for, exact up to rounding.

For kernels that work on dense weights: a matrix of b x b circulant blocks takes b times the memory that its vectors do.
A cascade of ACDC layers with activations between them becomes one dense layer for each. A tensor train becomes a walk
through its cores instead where that takes less time (:mod:`fastcnn.engine.plan.passes.sweep_train`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.engine.graph.graph import Array, Graph, GraphError, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.structured import cores_of
from fastcnn.engine.plan.limits import memory_limit
from fastcnn.engine.plan.passes import sweep_train
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild

Layer = tuple[Array, Array | None]
"""Dense weight, and a bias of its own."""


def nothing(node: Node, arrays: Mapping[str, Array], shape: Shape) -> bool:
    """Keep no layer."""
    return False


def run(
    graph: Graph,
    shapes: Mapping[str, Shape],
    notes: list[str] | None = None,
    *,
    keep: Callable[[Node, Mapping[str, Array], Shape], bool] = nothing,
) -> Graph:
    """Expand every structured layer that ``keep`` does not want; ``shapes`` hold those of all values."""
    weights: dict[str, Array] = dict(graph.weights)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op not in _LAYERS:
            nodes.append(node)
            continue
        arrays = {role: weights[key] for role, key in node.params.items()}
        if keep(node, arrays, shapes[node.inputs[0]]):
            nodes.append(node)
            continue
        if node.op == "tt_linear" and sweep_train.pays(arrays, shapes[node.inputs[0]], node.attrs["out_features"]):
            nodes += sweep_train.walk(node, arrays, shapes[node.inputs[0]], weights)
            if notes is not None:
                notes.append(f"{node.name}: {node.op} multiplies by its cores one after the other")
            continue
        channels = shapes[node.inputs[0]][1 if node.op == "block_circulant_conv2d" else -1]
        layers = _LAYERS[node.op](node, arrays, channels)
        value = node.inputs[0]
        for k, (weight, bias) in enumerate(layers):
            last = k == len(layers) - 1
            name = node.name if last else f"{node.name}.{k}"
            params = {"weight": fresh_key(f"{name}.weight (expanded)", weights)}
            weights[params["weight"]] = np.ascontiguousarray(weight, np.float32)
            if last and "bias" in node.params:
                params["bias"] = node.params["bias"]
            elif bias is not None:
                params["bias"] = fresh_key(f"{name}.bias (expanded)", weights)
                weights[params["bias"]] = np.ascontiguousarray(bias, np.float32)
            nodes.append(_dense(node, name, value, params))
            value = name
            if not last and node.attrs["relu"]:
                value = f"{name}.relu"
                nodes.append(Node(name=value, op="relu", inputs=(name,), params={}, attrs={}, source=node.source))
        if notes is not None:
            small = sum(array.size for array in arrays.values())
            large = sum(weight.size for weight, _ in layers)
            notes.append(f"{node.name}: {node.op} of {small} numbers expanded to {large} dense ones")
    return rebuild(graph, nodes, weights=weights)


def _dense(node: Node, name: str, value: str, params: dict[str, str]) -> Node:
    attrs: dict[str, Any] = {"expanded_from": node.op}
    op = "linear"
    if node.op == "block_circulant_conv2d":
        op = "conv2d"
        attrs |= {key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups")}
    return node.with_(name=name, op=op, inputs=(value,), params=params, attrs=attrs)


def _check(node: Node, numbers: int) -> None:
    """GraphError before an array of so many float64 takes memory that is not there."""
    limit = memory_limit() // 4
    if 8 * numbers > limit:
        raise GraphError(
            f"node {node.name!r} ({node.op}): its matrix takes {8 * numbers / 2**30:.1f} GiB to make and at most "
            f"{limit / 2**30:.1f} are allowed"
        )


def _blocks(vectors: Array, rows: int, columns: int) -> Array:
    """Entries W[r, c] = v[r // b, c // b, (r - c) mod b] of vectors (p, q, b), no more than are wanted."""
    size = vectors.shape[2]
    r, c = np.arange(rows)[:, None], np.arange(columns)
    entries: Array = vectors[r // size, c // size, (r - c) % size]
    return entries


def _circulant(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    rows = int(node.attrs["out_features"])
    _check(node, 3 * rows * features)
    whole = _blocks(arrays["vectors"][:, None], rows, features)
    return [(whole * arrays["signs"][np.arange(rows) // features], None)]


def _block_circulant(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    rows = int(node.attrs["out_features"])
    _check(node, 3 * rows * features)
    return [(_blocks(arrays["vectors"], rows, features), None)]


def _block_circulant_conv(node: Node, arrays: Mapping[str, Array], channels: int) -> list[Layer]:
    groups, vectors = int(node.attrs["groups"]), arrays["vectors"]
    kh, kw = vectors.shape[3:]
    out, fan_in = int(node.attrs["out_features"]) // groups, channels // groups
    _check(node, 3 * groups * out * fan_in * kh * kw)
    parts = [_blocks(part.reshape(*part.shape[:3], kh * kw), out, fan_in) for part in np.split(vectors, groups)]
    return [(np.concatenate(parts).reshape(groups * out, fan_in, kh, kw), None)]


def hadamard(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Orthonormal Walsh-Hadamard transform of every row, a power of two long."""
    count, n = rows.shape
    step = 1
    while step < n:
        pairs = rows.reshape(count, n // (2 * step), 2, step)
        rows = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), axis=2).reshape(count, n)
        step *= 2
    return rows / math.sqrt(n)


def _fastfood(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    scale, gauss, signs = (arrays[role].astype(np.float64) for role in ("scale", "gauss", "signs"))
    blocks, length = scale.shape
    _check(node, 4 * features * length + 2 * features * blocks * length)
    rows = []
    for b in range(blocks):
        unit = np.zeros((features, length))
        unit[np.arange(features), np.arange(features)] = signs[b, :features]
        inner = hadamard(unit)[:, arrays["permutation"][b]] * gauss[b]
        rows.append((hadamard(inner) * scale[b]).T)
    return [(np.concatenate(rows)[: node.attrs["out_features"]], None)]


def dct(n: int) -> Array:
    """Orthonormal DCT-II as a matrix: the transform of a column x is dct(n) @ x."""
    k, i = np.arange(n)[:, None], np.arange(n)
    matrix: Array = math.sqrt(2 / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    matrix[0] /= math.sqrt(2)
    return matrix


def _acdc(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    a, d = (arrays[role].astype(np.float64) for role in ("a", "d"))
    beta = arrays["beta"].astype(np.float64) if "beta" in arrays else None
    layers, n = a.shape
    _check(node, (layers + 4) * n * n)
    c = dct(n)
    found: list[Layer] = []
    for k in range(layers):
        weight = c.T @ (d[k][:, None] * (c * a[k]))
        if k:
            # The layer is given x[permutation]: column i of its weight belongs to x[permutation[i]].
            spread = np.empty_like(weight)
            spread[:, arrays["permutations"][k - 1]] = weight
            weight = spread
        found.append((weight, None if beta is None else c.T @ beta[k]))
    if not node.attrs["relu"]:
        while len(found) > 1:
            (first, shift), (second, more) = found[:2]
            bias = None if shift is None or more is None else second @ shift + more
            found[:2] = [(second @ first, bias)]
    first, shift = found[0]
    found[0] = first[:, :features], shift
    last, shift = found[-1]
    wanted = node.attrs["out_features"]
    found[-1] = last[:wanted], None if shift is None else shift[:wanted]
    return found


def _tensor_train(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    whole = np.ones((1, 1, 1))  # (outputs, inputs, rank)
    for role in cores_of(arrays):
        core = arrays[role].astype(np.float64)
        _check(node, 2 * whole.shape[0] * whole.shape[1] * math.prod(core.shape[1:]))
        whole = np.einsum("oir,rmns->omins", whole, core)
        outputs, m, inputs, n, rank = whole.shape
        whole = whole.reshape(outputs * m, inputs * n, rank)
    return [(whole[: node.attrs["out_features"], :features, 0], None)]


_LAYERS: dict[str, Callable[[Node, Mapping[str, Array], int], list[Layer]]] = {
    "circulant_linear": _circulant,
    "block_circulant_linear": _block_circulant,
    "block_circulant_conv2d": _block_circulant_conv,
    "fastfood_linear": _fastfood,
    "acdc_linear": _acdc,
    "tt_linear": _tensor_train,
}
