"""Layers of few numbers for test nets, with random parameters; every function returns the new value's name."""

from __future__ import annotations

import numpy as np

from tests.engine.nets import Maker


def signs(make: Maker, *shape: int) -> np.ndarray:
    return np.where(make.normal(*shape) > 0, 1, -1).astype(np.float32)


def places(make: Maker, rows: int, length: int) -> np.ndarray:
    return np.stack([make.rng.permutation(length) for _ in range(rows)]).astype(np.int32)


def circulant(make: Maker, x: str, length: int, outputs: int, *, bias: bool) -> str:
    pairs = -(-outputs // length)
    params = {"vectors": make.normal(pairs, length), "signs": signs(make, pairs, length)}
    return make.op("circulant_linear", x, params=with_bias(make, params, outputs, bias), out_features=outputs)


def block_circulant(make: Maker, x: str, inputs: int, outputs: int, size: int, *, bias: bool) -> str:
    params = {"vectors": make.normal(-(-outputs // size), -(-inputs // size), size)}
    return make.op("block_circulant_linear", x, params=with_bias(make, params, outputs, bias), out_features=outputs)


def fastfood(make: Maker, x: str, length: int, outputs: int, *, bias: bool) -> str:
    blocks = -(-outputs // length)
    params = {role: make.normal(blocks, length) for role in ("scale", "gauss", "signs")}
    params["permutation"] = places(make, blocks, length)
    return make.op("fastfood_linear", x, params=with_bias(make, params, outputs, bias), out_features=outputs)


def acdc(make: Maker, x: str, length: int, outputs: int, layers: int, *, bias: bool, relu: bool) -> str:
    params = {role: make.normal(layers, length) for role in ("a", "d")}
    if bias:
        params["beta"] = make.normal(layers, length)
    if layers > 1:
        params["permutations"] = places(make, layers - 1, length)
    return make.op("acdc_linear", x, params=params, out_features=outputs, relu=relu)


def with_bias(make: Maker, params: dict[str, np.ndarray], outputs: int, bias: bool) -> dict[str, np.ndarray]:
    return {**params, "bias": make.normal(outputs)} if bias else params
