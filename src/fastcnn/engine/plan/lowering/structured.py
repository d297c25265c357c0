"""Layers whose matrix is made of few numbers, on plain rows: the kernels multiply by it without ever making it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan import spectral
from fastcnn.engine.plan.lowering.lowerer import Lowerer, lowers
from fastcnn.engine.plan.slots import Slot

_LEAST = 1 << 14
"""Weights of the dense layer from which on a kernel of its own is faster than the dense product."""
_MOST_BLOCK = 128
"""Size of circulant blocks up to which their transforms as products with a matrix are cheap."""


@lru_cache
def _points(isa: str) -> tuple[int, ...]:
    return tuple(int(points) for points in _native.spectral_points(isa))


def _circulant_points(length: int, isa: str) -> int | None:
    """Complex points for circulants of a length: half of it, or the least that hold a product without wrapping."""
    if length % 2 == 0 and length // 2 in _points(isa):
        return length // 2
    return next((points for points in _points(isa) if 2 * points >= 2 * length - 1), None)


def has_kernel(node: Node, arrays: Mapping[str, Array], shape: Shape, *, isa: str) -> bool:
    """Whether a structured layer runs by a kernel of its own at this input shape; else it is expanded."""
    if node.op == "block_circulant_conv2d" or node.op == "tt_linear":
        return False
    if int(node.attrs["out_features"]) * shape[-1] < _LEAST:
        return False
    if node.op == "circulant_linear":
        return _circulant_points(arrays["vectors"].shape[1], isa) is not None
    if node.op == "block_circulant_linear":
        return 4 <= int(arrays["vectors"].shape[2]) <= _MOST_BLOCK
    if node.op == "acdc_linear":
        length = arrays["a"].shape[1]
        return bool(length % 2 == 0 and length // 2 in _points(isa))
    return True


def _rows(low: Lowerer, node: Node) -> tuple[Slot, int]:
    source = low.plain(node.inputs[0])
    return source, math.prod(source.dims[:-1])


def _with_bias(low: Lowerer, node: Node, weights: dict[str, Array]) -> dict[str, Array]:
    bias = low.param(node, "bias")
    return weights if bias is None else {**weights, "bias": bias}


@lowers("circulant_linear")
def circulant_linear(low: Lowerer, node: Node) -> None:
    """One spectral block for each vector."""
    vectors = low.weight(node, "vectors")
    points = _circulant_points(vectors.shape[1], low.target.isa)
    assert points is not None
    made = spectral.circulant(vectors, low.weight(node, "signs"), points)
    source, rows = _rows(low, node)
    _emit_spectral(low, node, node.name, source, low.new_plain(node.name), rows, len(vectors), made, {})


@lowers("acdc_linear")
def acdc_linear(low: Lowerer, node: Node) -> None:
    """A spectral step for each layer of the cascade."""
    a, d, beta = low.weight(node, "a"), low.weight(node, "d"), low.param(node, "beta")
    permutations = low.graph.param(node, "permutations")
    source, rows = _rows(low, node)
    layers, length = a.shape
    for k in range(layers):
        last = k == layers - 1
        inputs = source.dims[-1]
        outputs = low.dims(node.name)[-1] if last else length
        made = spectral.acdc(
            a[k], d[k], None if beta is None else beta[k], None if not k else np.asarray(permutations)[k - 1],
            inputs, outputs,
        )  # fmt: skip
        name = node.name if last else f"{node.name}.{k}"
        out = low.new_plain(node.name) if last else low.temporary((rows, length), blocked=False)
        act = {"act": "clamp", "act_lo": 0.0, "act_hi": math.inf} if node.attrs["relu"] and not last else {}
        _emit_spectral(low, node, name, source, out, rows, 1, made, act)
        source = out


def _emit_spectral(
    low: Lowerer, node: Node, name: str, source: Slot, out: Slot, rows: int, blocks: int, made: spectral.Spectral,
    act: dict[str, Any],
) -> None:  # fmt: skip
    attrs = {
        "rows": rows, "blocks": blocks, "points": len(made.gather) // 2, "gather": made.gather.tolist(),
        "place": made.place.tolist(), **act,
    }  # fmt: skip
    last = name == node.name
    weights = _with_bias(low, node, made.factors) if last else made.factors
    low.emit("spectral", name, [source], out, attrs=attrs, weights=weights, node=node if last else None)


@lowers("fastfood_linear")
def fastfood_linear(low: Lowerer, node: Node) -> None:
    """One step for all blocks."""
    scale = low.weight(node, "scale")
    places = low.graph.param(node, "permutation")
    source, rows = _rows(low, node)
    attrs = {
        "rows": rows, "blocks": len(scale), "length": scale.shape[1],
        "permutation": np.asarray(places).reshape(-1).tolist(),
    }  # fmt: skip
    weights = {role: low.weight(node, role).reshape(-1) for role in ("scale", "gauss", "signs")}
    out = low.new_plain(node.name)
    low.emit(
        "fastfood", node.name, [source], out, attrs=attrs, weights=_with_bias(low, node, weights), node=node,
    )  # fmt: skip


@lowers("block_circulant_linear")
def block_circulant_linear(low: Lowerer, node: Node) -> None:
    """Spectra of the input's blocks, complex products, one inverse transform for each block of the output."""
    source, rows = _rows(low, node)
    weights = _with_bias(low, node, {"vectors": low.weight(node, "vectors")})
    out = low.new_plain(node.name)
    low.emit("block_circulant", node.name, [source], out, attrs={"rows": rows}, weights=weights, node=node)
