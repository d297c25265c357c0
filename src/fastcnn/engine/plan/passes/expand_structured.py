"""Structured layers become the dense ones they stand for, exact up to rounding.

For kernels that work on dense weights: a matrix of b x b circulant blocks takes b times the memory that its vectors do.
A cascade of ACDC layers with activations between them becomes one dense layer for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.structured import cores_of
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


def circulant(vectors: Array) -> Array:
    """C[..., i, j] = v[..., (i - j) mod n] of vectors (..., n)."""
    n = vectors.shape[-1]
    return vectors[..., (np.arange(n)[:, None] - np.arange(n)) % n]


def _circulant(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    whole = circulant(arrays["vectors"]) * arrays["signs"][:, None, :]
    return [(whole.reshape(-1, features)[: node.attrs["out_features"]], None)]


def _block_circulant(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    blocks = circulant(arrays["vectors"])  # (p, q, b, b)
    p, q, b, _ = blocks.shape
    whole = blocks.transpose(0, 2, 1, 3).reshape(p * b, q * b)
    return [(whole[: node.attrs["out_features"], :features], None)]


def _block_circulant_conv(node: Node, arrays: Mapping[str, Array], channels: int) -> list[Layer]:
    groups = node.attrs["groups"]
    blocks = circulant(arrays["vectors"].transpose(3, 4, 0, 1, 2))  # (kh, kw, groups p, q, b, b)
    kh, kw, rows, q, b, _ = blocks.shape
    whole = blocks.transpose(2, 4, 3, 5, 0, 1).reshape(groups, rows // groups * b, q * b, kh, kw)
    each = node.attrs["out_features"] // groups
    return [(whole[:, :each, : channels // groups].reshape(groups * each, channels // groups, kh, kw), None)]


def hadamard(n: int) -> Array:
    """Orthonormal Walsh-Hadamard matrix, n a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(n)


def _fastfood(node: Node, arrays: Mapping[str, Array], features: int) -> list[Layer]:
    scale, gauss, signs = (arrays[role].astype(np.float64) for role in ("scale", "gauss", "signs"))
    h = hadamard(scale.shape[1])
    rows = []
    for b in range(len(scale)):
        inner = (h * signs[b])[arrays["permutation"][b]]
        rows.append(scale[b][:, None] * (h @ (gauss[b][:, None] * inner)))
    return [(np.concatenate(rows)[: node.attrs["out_features"], :features], None)]


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
