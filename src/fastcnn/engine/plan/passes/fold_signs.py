"""From sums of signs straight to signs: batch norm and what else stands between two binary layers becomes a threshold.

Between a binary layer and the next there are a scale, a bias, a batch norm, often a clamp and a max pool; all the next
one looks at is whether the result is >= 0. That is a step function of the whole-numbered sum, so the place of its step
is found by bisection on the very arithmetic, in float32, that it stands for. Where the function falls the filter is
negated. A max pool then works on signs, as the largest of some numbers is >= 0 where one of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fastcnn.engine.graph import binary
from fastcnn.engine.graph.graph import Array, Graph, Node
from fastcnn.engine.plan.passes.rewrite import fresh_key, rebuild, use_counts

F32 = npt.NDArray[np.float32]
Function = Callable[[F32], F32]
NEVER = 1 << 30
"""A threshold that no sum reaches."""


def run(graph: Graph, notes: list[str] | None = None) -> Graph:
    """Give every binary layer that only binary layers read thresholds in place of what follows it."""
    weights = dict(graph.weights)
    counts, readers = use_counts(graph), graph.consumers()
    changed: dict[str, Node | None] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in binary.BINARY or not node.attrs["binarize"] or "thresholds" in node.params:
            continue
        between = _between(node, readers, counts)
        if between is None:
            continue
        functions = [_of_layer(node, weights), *(_function(item, weights) for item in between)]
        bits = weights[node.params["bits"]]
        found = thresholds(functions, binary.outputs(node, len(bits)), binary.reach(node))
        if found is None:
            continue
        limits, negated = found
        params = {"bits": node.params["bits"]}
        if bool(negated.any()):
            params["bits"] = fresh_key(f"{node.name}.bits (negated)", weights)
            weights[params["bits"]] = _negated(node, bits, np.tile(negated, len(node.attrs["planes"])))
        params["thresholds"] = fresh_key(f"{node.name}.thresholds", weights)
        weights[params["thresholds"]] = limits
        changed[node.name] = node.with_(params=params)
        for item in between:
            changed[item.name] = None
        if between:
            renamed[between[-1].name] = node.name
        if notes is not None:
            steps = ", ".join(item.name for item in between) or "its scale"
            notes.append(f"{node.name}: {steps} became a threshold for each output")
    if not changed:
        return graph
    nodes = [new for node in graph.nodes if (new := changed.get(node.name, node)) is not None]
    return rebuild(graph, nodes, renamed=renamed, weights=weights)


def _between(node: Node, readers: Mapping[str, Sequence[Node]], counts: Mapping[str, int]) -> list[Node] | None:
    """Steps from a binary layer to a pool or flattening, or to the binary layers that read it; None if others do."""
    found: list[Node] = []
    value, pooled = node.name, False
    while True:
        following = readers.get(value, [])
        if following and counts[value] == len(following) and all(_binarizes(other, readers) for other in following):
            return found
        if len(following) != 1 or counts[value] != 1:
            return None
        (step,) = following
        if step.op in ("max_pool2d", "flatten", "reshape"):
            pooled = True
        elif pooled or step.op not in _STEPS or "epilogue" in step.attrs:
            return None
        else:
            found.append(step)
        value = step.name


def _binarizes(node: Node, readers: Mapping[str, Sequence[Node]]) -> bool:
    if node.op == "sign":
        following = readers.get(node.name, [])
        return bool(following) and all(_binarizes(other, readers) for other in following)
    return node.op in binary.BINARY and bool(node.attrs["binarize"])


def _of_layer(node: Node, weights: Mapping[str, Array]) -> Function:
    """Scale and bias of the layer itself, rounded after each."""
    scale, bias = (weights[node.params[role]] if role in node.params else None for role in ("scale", "bias"))

    def function(x: F32) -> F32:
        y = x if scale is None else x * scale
        return y if bias is None else y + bias

    return function


def _function(node: Node, weights: Mapping[str, Array]) -> Function:
    p = {role: weights[key] for role, key in node.params.items()}
    return _STEPS[node.op](node, p)


def _batch_norm(node: Node, p: Mapping[str, Array]) -> Function:
    # As torch evaluates it: one factor, one shift, each rounded once.
    factor = (p["weight"] / np.sqrt(p["running_var"] + np.float32(node.attrs["eps"]))).astype(np.float32)
    shift = (p["bias"] - p["running_mean"] * factor).astype(np.float32)
    return lambda x: x * factor + shift


def _scale_shift(node: Node, p: Mapping[str, Array]) -> Function:
    return lambda x: x * p["scale"] + p["shift"]


def _clamp(node: Node, p: Mapping[str, Array]) -> Function:
    low, high = (np.float32(limit) if limit is not None else None for limit in (node.attrs["min"], node.attrs["max"]))
    return lambda x: np.clip(x, low, high) if low is not None or high is not None else x


def _mul_scalar(node: Node, p: Mapping[str, Array]) -> Function:
    value = np.float32(node.attrs["value"])
    return lambda x: x * value


def _add_scalar(node: Node, p: Mapping[str, Array]) -> Function:
    value = np.float32(node.attrs["value"])
    return lambda x: x + value


def _relu(node: Node, p: Mapping[str, Array]) -> Function:
    return lambda x: np.maximum(x, np.float32(0))


def _sign(node: Node, p: Mapping[str, Array]) -> Function:
    return lambda x: np.where(x >= 0, np.float32(1), np.float32(-1))


_STEPS: dict[str, Callable[[Node, Mapping[str, Array]], Function]] = {
    "batch_norm": _batch_norm,
    "scale_shift": _scale_shift,
    "clamp": _clamp,
    "relu": _relu,
    "sign": _sign,
    "mul_scalar": _mul_scalar,
    "add_scalar": _add_scalar,
}
"""Steps that are monotone in float32, as each of their roundings is."""


def thresholds(functions: Sequence[Function], outputs: int, reach: int) -> tuple[Array, npt.NDArray[np.bool_]] | None:
    """Least sum of each output for which the functions come to >= 0, int32, and whose filters are negated for that.

    Returns None where a value is no number.
    """

    def positive(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        y = sums.astype(np.float32)
        for function in functions:
            y = np.asarray(function(y), np.float32)
        if not bool(np.isfinite(y).all()):
            raise FloatingPointError
        result: npt.NDArray[np.bool_] = y >= 0
        return result

    low, high = np.full(outputs, -reach, np.int64), np.full(outputs, reach, np.int64)
    try:
        least, most = positive(low), positive(high)
        negated = least & ~most
        # Of a negated filter the sums are those of the other sign: find the least -s that is still >= 0.
        sign = np.where(negated, -1, 1)
        # low is never >= 0, high is; outputs that are constant keep their ends.
        while bool((high - low > 1).any()):
            middle = (low + high) // 2
            at = positive(sign * middle)
            high = np.where(at, middle, high)
            low = np.where(at, low, middle)
    except FloatingPointError:
        return None
    always, never = least & most, ~least & ~most
    found = np.where(always, -NEVER, np.where(never, NEVER, high))
    return found.astype(np.int32), negated


def _negated(node: Node, bits: Array, which: npt.NDArray[np.bool_]) -> Array:
    """Bits with the rows in question flipped, those past the last weight left alone."""
    length = binary.fan_in(node)
    valid = binary.pack(-np.ones((1, length), np.float32))
    return np.where(which[:, None], bits ^ valid, bits)
