"""Lies about the net itself: attributes, wiring, shapes, weights and the plan hint of a file that is otherwise whole.

:func:`mutate_net` changes a file taken apart (``fuzz_artifact.File``) so that most results pass the reader and reach
planning, packing and the kernels. Growing appends nodes whose shapes fit, so deep and odd nets come up as well.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcnn.artifact import ArtifactError
from fastcnn.engine.graph import OPS, Graph, GraphError, GraphInput, Node, graph_from_json, infer_shapes

SMALL = (0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33)
LARGE = (64, 100, 255, 256, 1000, 4096, 65535, 65536, 65537, 10**6, 2**24, 2**30, 2**31 - 1, 2**31, 2**33, 2**62, 2**64)
NUMBERS = (0, 1, -1, 0.5, 2.0, 1e-45, 1e-38, 1e38, -3.4e38, 1e300, 2**53 - 1, -(2**53) + 1, 10**400, -0.0, 0.75)
WRONG = (None, True, False, "", "x", [], {}, [[]], [1], -1, -(2**31), 0.5, 1e400, float("nan"), "é" * 600)
LABELS = (
    *("winograd:6:1", "winograd:6:tiles", "winograd:4:panels", "winograd:2:tiles", "winograd:8:tiles", "winograd:"),
    *("direct:6x2:pixels", "direct:4x3:panels", "direct:1x1:pixels", "direct:999999999x2:pixels", "direct:-1x-1:-1"),
    *("depthwise:planes", "depthwise:rows", "", ":", "::::", "direct", "winograd", "fft", "x" * 5000, "direct:\u0000"),
)  # fmt: skip
EXTREMES = (np.nan, np.inf, -np.inf, 1e-45, -1e-39, 3.4e38, -3.4e38, 0.0, -0.0, 1e20, 1e-20)


def mutate_net(rng: random.Random, file: Any, number: int) -> str:
    """Change the file in place; returns the name of the mutation."""
    kinds: tuple[tuple[str, Callable[[random.Random, Any], None]], ...] = (
        ("attribute", attribute),
        ("weight shape", weight_shape),
        ("wiring", wiring),
        ("grown", grown),
        ("grown", grown),
        ("input shape", input_shape),
        ("hint field", hint_field),
        ("hint choices", hint_choices),
        ("weight values", weight_values),
        ("reshaped", reshaped),
    )
    name, change = kinds[number % (len(kinds) + 1) if number % (len(kinds) + 1) < len(kinds) else 0]
    if number % (len(kinds) + 1) == len(kinds):
        name = "several"
        for _ in range(rng.choice([2, 3, 4])):
            rng.choice(kinds)[1](rng, file)
    else:
        for _ in range(rng.choice([1, 1, 1, 2])):
            change(rng, file)
    if rng.randrange(16):
        prune(file)
    return name


def nodes_of(file: Any) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = file.inner["graph"]["nodes"]
    return nodes


def prune(file: Any) -> None:
    """Drop weights that no node names: the reader would refuse them before anything else is tried."""
    used = {key for node in nodes_of(file) for key in node["params"].values() if isinstance(key, str)}
    kept = [i for i, entry in enumerate(file.inner["weights"]) if entry["key"] in used]
    file.inner["weights"] = [file.inner["weights"][i] for i in kept]
    file.chunks = [file.chunks[i] for i in kept]


def set_weight(file: Any, key: str, array: np.ndarray) -> None:
    """Put an array in a weight's place, or add it; stored raw, so that any value can be written."""
    entry = {"key": key, "dtype": array.dtype.name, "shape": list(array.shape), "code": {"as": "raw"}}
    chunk = np.ascontiguousarray(array).tobytes()
    for i, old in enumerate(file.inner["weights"]):
        if old["key"] == key:
            file.inner["weights"][i], file.chunks[i] = {**old, **entry}, chunk
            return
    file.inner["weights"].append({**entry, "bytes": 0, "crc32": 0})
    file.chunks.append(chunk)


def extent(rng: random.Random, large: int = 6) -> int:
    """A size, small but for one in ``large``."""
    return rng.choice(SMALL) if rng.randrange(large) else rng.choice(LARGE)


def variant(rng: random.Random, old: Any) -> Any:
    """Another value of the same kind, mostly."""
    if rng.randrange(12) == 0:
        return copy.deepcopy(rng.choice(WRONG))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice([extent(rng), old + 1, old - 1, old * 2, -old, -2 - rng.randrange(4)])
    if isinstance(old, float) or old is None:
        return rng.choice([*NUMBERS, extent(rng), None])
    if isinstance(old, str):
        return rng.choice(["nearest", "bilinear", "none", "tanh", old.upper(), old + "x"])
    if isinstance(old, list) and old:
        new = copy.deepcopy(old)
        kind = rng.randrange(8)
        if kind == 0:
            return [*new, copy.deepcopy(rng.choice(new))]
        if kind == 1:
            return new[:-1]
        if kind == 2:
            rng.shuffle(new)
            return new
        if kind == 3 and isinstance(old[0], int):
            return [extent(rng)] * len(old)
        place = rng.randrange(len(new))
        new[place] = variant(rng, new[place])
        return new
    return rng.choice([None, [], extent(rng)])


def attribute(rng: random.Random, file: Any) -> None:
    """One attribute of one node, or its op."""
    node = rng.choice(nodes_of(file))
    if rng.randrange(12) == 0 or not node["attrs"]:
        alike = [name for name, op in OPS.items() if set(op.attrs) == set(node["attrs"])]
        node["op"] = rng.choice(alike if rng.randrange(4) and alike else sorted(OPS))
        return
    key = rng.choice(sorted(node["attrs"]))
    node["attrs"][key] = variant(rng, node["attrs"][key])
    if key == "groups" and rng.randrange(2):  # and a weight that fits
        groups = node["attrs"]["groups"]
        if isinstance(groups, int) and 1 <= groups <= 64:
            filters, kernel = groups * rng.choice([1, 1, 2, 3, 8]), rng.choice([1, 3])
            array = np.full((filters, rng.choice([1, 2, 8]), kernel, kernel), 0.1, np.float32)
            set_weight(file, node["params"].get("weight", "w"), array)


def weight_shape(rng: random.Random, file: Any) -> None:
    """Another shape for a weight, with bytes that fill it."""
    entry = rng.choice(file.inner["weights"])
    shape = [n for n in entry["shape"] if isinstance(n, int)]
    kind = rng.randrange(5)
    if kind == 0 and shape:
        shape[rng.randrange(len(shape))] = rng.choice([*SMALL, 64, 100, 1000, 4096, 70000])
    elif kind == 1:
        rng.shuffle(shape)
    elif kind == 2:
        shape.insert(rng.randrange(len(shape) + 1), rng.choice([1, 1, 2, 3]))
    elif kind == 3 and shape:
        del shape[rng.randrange(len(shape))]
    else:
        shape = [rng.choice(SMALL) for _ in range(rng.randrange(6))]
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if 0 <= count <= 1 << 22:
        dtype = entry["dtype"] if rng.randrange(8) else rng.choice(["float32", "uint8", "uint16", "float64", "int8"])
        values = np.arange(count) % 5 if dtype.startswith("u") else np.arange(count) % 7 - 3
        set_weight(file, entry["key"], values.reshape(shape).astype(dtype))
    else:
        entry["shape"] = shape


def values_before(file: Any, position: int) -> list[str]:
    return [v["name"] for v in file.inner["graph"]["inputs"]] + [n["name"] for n in nodes_of(file)[:position]]


def wiring(rng: random.Random, file: Any) -> None:
    """Edges swapped, nodes duplicated, dropped, moved or renamed, outputs changed."""
    graph, nodes = file.inner["graph"], nodes_of(file)
    if not nodes:
        return
    place = rng.randrange(len(nodes))
    node = nodes[place]
    kind = rng.randrange(9)
    before = values_before(file, place)
    if kind in (0, 1) and node["inputs"]:
        node["inputs"][rng.randrange(len(node["inputs"]))] = rng.choice(before)
    elif kind == 2:
        twin = {**copy.deepcopy(node), "name": node["name"] + rng.choice(["", "_twin", "_twin", "_twin"])}
        nodes.insert(place + 1, twin)
        graph["outputs"].append(twin["name"])
    elif kind == 3 and len(nodes) > 1:
        del nodes[place]
        heir = node["inputs"][0] if node["inputs"] else rng.choice(before)
        for other in nodes:
            other["inputs"] = [heir if name == node["name"] else name for name in other["inputs"]]
        graph["outputs"] = [heir if name == node["name"] else name for name in graph["outputs"]]
    elif kind == 4:
        graph["outputs"] = [rng.choice(values_before(file, len(nodes))) for _ in range(rng.choice([0, 1, 2, 5]))]
    elif kind == 5:
        graph["outputs"].append(rng.choice([*values_before(file, len(nodes)), "absent"]))
    elif kind == 6:
        nodes.insert(rng.randrange(len(nodes)), nodes.pop(place))
    elif kind == 7:
        node["name"] = rng.choice(["", "x0", "é" * 600, "n0", "a b", "\n", node["name"]])
    else:
        node["inputs"] = [*node["inputs"], rng.choice(before)] if rng.randrange(2) else node["inputs"][:-1]


def input_shape(rng: random.Random, file: Any) -> None:
    """Extents, rank or fixed axes of an input."""
    value = rng.choice(file.inner["graph"]["inputs"])
    kind = rng.randrange(6)
    if kind < 3 and value["shape"]:
        axis = rng.choice([i for i in range(len(value["shape"])) if i != 1] or [0])
        value["shape"][axis] = extent(rng, 2)
    elif kind == 3:
        value["shape"] = [extent(rng) for _ in range(rng.randrange(10))]
    elif kind == 4:
        value["fixed"] = [rng.choice([0, 1, 2, 3, 7, -1, 2**40, None]) for _ in range(rng.randrange(4))]
    else:
        key = rng.choice(sorted(value))
        value[key] = variant(rng, value[key])


def hint_field(rng: random.Random, file: Any) -> None:
    """A lie in the plan hint, outside its choices."""
    plan = file.inner["plan"]
    if not isinstance(plan, dict):
        return
    layer = rng.choice(nodes_of(file))["name"] if nodes_of(file) else "n0"
    band = {"layer": layer, "steps": rng.choice([2, 3, 4, 8]), "rows": rng.choice([1, 2, 5, 1000, 2**20])}
    lies: dict[str, tuple[Any, ...]] = {
        "isa": ("avx2", "scalar", "avx512", "neon", "", "AVX2\n", "é" * 100, 3, None, ["avx2"]),
        "threads": (0, 1, 2, 3, 255, 256, 257, 10**9, 2**40, -1, 10**400, 1.0, True, "2", None, []),
        "tolerance": (0, 0.0, 1e-12, 1e-4, 0.5, 1.0, 2, -1e-4, 1e308, 5e-324, True, "fp32", "exact", None, []),
        "exact": (True, False, 0, 1, "yes", None, []),
        "error": (None, 0, 0.0, 1e-9, 1e-5, 0.5, 1.0, 2.0, -1e-9, True, False, "0", [], 10**400, 1e308, 5e-324),
        "shapes": ([], [[]], [[1]], [[1, 3, 4, 4]], [[2**40] * 4], [[0, 0, 0, 0]], [[1.0]], [[True] * 4], None, 3, "x"),
        "choices": (None, [], {}, 3, "x", {"x": 1}, {"": ""}, {"absent": "direct:6x2:pixels"}),
        "bands": (None, [], {}, [3], [{}], [band], [band] * 3, [band | {"rows": 2**40}], [band | {"layer": "absent"}]),
        "graph_crc32": (0, 1, -1, 2**32, 2**32 - 1, True, None, "0", 1.5),
        "future": (None, [1, 2.5], {"a": {"b": None}}),
    }
    key = rng.choice(sorted(lies))
    if rng.randrange(10) == 0:
        plan.pop(key, None)
    elif rng.randrange(12) == 0:
        file.inner["plan"] = copy.deepcopy(rng.choice(WRONG))
    else:
        plan[key] = copy.deepcopy(rng.choice(lies[key]))


def hint_choices(rng: random.Random, file: Any) -> None:
    """Labels on the wrong layers, unknown ones, layers that are not there."""
    plan = file.inner["plan"]
    if not isinstance(plan, dict) or not isinstance(plan.get("choices"), dict):
        return
    choices = plan["choices"]
    for _ in range(rng.choice([1, 1, 2, 5])):
        names = [*choices, *(node["name"] for node in nodes_of(file))] or ["n0"]
        name = rng.choice(names) if rng.randrange(10) else rng.choice(["", "absent", "é" * 600, "x0"])
        if rng.randrange(8) == 0:
            choices[name] = copy.deepcopy(rng.choice(WRONG))
        else:
            choices[name] = rng.choice([*LABELS, *(v for v in choices.values() if isinstance(v, str))])
    if rng.randrange(2):
        plan["error"] = rng.choice([None, 1e-9, 0.0, 0.9])


def weight_values(rng: random.Random, file: Any) -> None:
    """NaN, infinities, denormals, huge values; codes out of the codebook."""
    entry = rng.choice(file.inner["weights"])
    shape = entry["shape"]
    if not all(isinstance(n, int) and n >= 0 for n in shape) or np.prod(shape, dtype=object) > 1 << 20:
        return
    count = int(np.prod(shape))
    if entry["dtype"] == "float32":
        values = np.array([rng.uniform(-1, 1) for _ in range(min(count, 64))] or [0.0])
        array = np.resize(values, count).astype(np.float32)
        hostile = rng.choice(EXTREMES) if rng.randrange(2) else rng.choice(EXTREMES[3:])
        with np.errstate(all="ignore"):
            if rng.randrange(2):
                array[:] = hostile
            elif count:
                array[rng.randrange(count)] = hostile
    else:
        array = np.full(count, rng.choice([0, 1, 15, 16, 255]), np.uint8 if entry["dtype"] == "uint8" else np.uint16)
    set_weight(file, entry["key"], array.reshape(shape))


def built(file: Any) -> tuple[Graph, dict[str, tuple[int, ...]]] | None:
    """The graph as it stands and its shapes; None where it is no graph any more. Weights' values do not matter."""
    weights = {}
    try:
        for entry in file.inner["weights"]:
            dtype = np.dtype(entry["dtype"])
            weights[entry["key"]] = np.broadcast_to(np.zeros((), dtype), entry["shape"])
        for node in nodes_of(file):
            if node["op"] == "batch_norm":  # its variance must be positive
                key = node["params"]["running_var"]
                weights[key] = np.ones(weights[key].shape, np.float32)
        graph = graph_from_json(file.inner["graph"], weights)
        shapes = infer_shapes(graph, {v.name: v.shape for v in graph.inputs})
    except (GraphError, ArtifactError, TypeError, ValueError, KeyError, AttributeError, MemoryError, OverflowError):
        return None
    return graph, shapes


def grown(rng: random.Random, file: Any) -> None:
    """Append nodes whose shapes fit; the last of them, and sometimes others, become outputs."""
    state = built(file)
    if state is None:
        return
    _, shapes = state
    added: list[str] = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13])):
        recent = added[-3:] or [rng.choice(list(shapes))]
        source = rng.choice(recent) if rng.randrange(4) else rng.choice(list(shapes))
        for _ in range(6):
            name = f"g{len(nodes_of(file))}"
            op, inputs, params, attrs = candidate(rng, source, shapes)
            keys = {role: f"{name}.{role}" for role in params}
            node = Node(name=name, op=op, inputs=tuple(inputs), params=keys, attrs=attrs)
            arrays = {keys[role]: array for role, array in params.items()}
            shape = fits(node, arrays, shapes)
            if shape is None:
                continue
            shapes[name] = shape
            for key, array in arrays.items():
                set_weight(file, key, array)
            nodes_of(file).append(
                {"name": name, "op": op, "inputs": list(inputs), "params": keys, "attrs": attrs, "source": ""}
            )
            added.append(name)
            break
    if added:
        outputs = file.inner["graph"]["outputs"]
        extra = [added[-1], *(name for name in added if rng.randrange(4) == 0)]
        file.inner["graph"]["outputs"] = extra + (outputs if rng.randrange(2) else [])


def fits(node: Node, arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Shape of the node's output, None where it does not fit or is large."""
    inputs = tuple(GraphInput(name=name, shape=shapes[name]) for name in dict.fromkeys(node.inputs))
    try:
        if not inputs:
            return tuple(arrays[node.params["value"]].shape)
        graph = Graph(inputs=inputs, nodes=[node], outputs=(node.name,), weights=arrays)
        shape = infer_shapes(graph, {v.name: v.shape for v in inputs})[node.name]
    except (ValueError, LookupError, ZeroDivisionError, TypeError):  # an op this file knows no attributes for, say
        return None
    return shape if np.prod(shape, dtype=object) <= 1 << 16 else None


def structured(
    rng: random.Random, op: str, width: int, normal: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # fmt: skip
    """Parameters and attributes of a layer of few numbers, for so many inputs."""
    length = 1 << max(width - 1, 0).bit_length()
    outputs = rng.choice([1, 3, 17, 130])
    places = np.arange(length, dtype=np.int32)[::-1][None]
    match op:
        case "circulant_linear":
            pairs = -(-outputs // width)
            params = {"vectors": normal(pairs, width), "signs": normal(pairs, width)}
        case "block_circulant_linear":
            size = rng.choice([1, 2, 4, 5, 16])
            params = {"vectors": normal(-(-outputs // size), -(-width // size), size)}
        case "fastfood_linear":
            blocks = -(-outputs // length)
            params = {role: normal(blocks, length) for role in ("scale", "gauss", "signs")}
            params["permutation"] = np.repeat(places, blocks, 0)
        case "acdc_linear":
            params = {role: normal(2, length) for role in ("a", "d", "beta")} | {"permutations": places}
            return params, {"out_features": min(outputs, length), "relu": rng.random() < 0.5}
        case _:
            params = {"core0": normal(1, 2, width, 3), "core1": normal(3, outputs, 1, 1)}
            return params, {"in_features": width, "out_features": 2 * outputs}
    return params, {"out_features": outputs}


def candidate(
    rng: random.Random, source: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[str, list[str], dict[str, np.ndarray], dict[str, Any]]:
    """An op on ``source`` that may fit it: op, inputs, parameters, attributes."""
    x = shapes[source]
    rank = len(x)
    op = rng.choice([name for name, schema in sorted(OPS.items()) if not schema.internal and name != "torch"])
    small = lambda: rng.choice([1, 1, 1, 2, 2, 3, 4, 5])  # noqa: E731
    normal = lambda *shape: np.array(  # noqa: E731
        np.resize([rng.uniform(-1, 1) for _ in range(16)], shape), np.float32
    )
    axis = rng.randrange(max(rank, 1))
    channels = x[1] if rank > 1 else 1
    spatial = 1 if op.endswith("1d") else 2
    groups = rng.choice([1, 1, 1, 2, 3, channels])
    window = [small() for _ in range(spatial)]
    attrs: dict[str, Any] = {}
    params: dict[str, np.ndarray] = {}
    inputs = [source]
    filters = groups * rng.choice([1, 1, 2, 3, 8, 16])
    match op:
        case "conv2d" | "conv1d" | "codebook_conv2d":
            kernel = [rng.choice([1, 3, 3, 3, 2, 5]) for _ in range(spatial)] if rng.randrange(3) else [3] * spatial
            attrs = {"stride": [rng.choice([1, 1, 2, 3]) for _ in window], "groups": groups}
            attrs |= {"padding": [rng.choice([0, 1, 1, 2, 7]) for _ in range(2 * spatial)]}
            attrs |= {"dilation": [rng.choice([1, 1, 1, 2, 5]) for _ in window]}
            shape = (filters, max(1, channels // groups), *kernel)
            params = {"weight": normal(*shape)}
            if op.startswith("codebook"):
                codes = np.resize(np.arange(5), shape).astype(np.uint8)
                params = {"codebook": np.array([0, 0.5, -1, 2, 0.25], np.float32), "codes": codes}
            if rng.randrange(2):
                params["bias"] = normal(filters)
        case "conv_transpose2d":
            kernel = [rng.choice([1, 2, 3, 4]) for _ in window]
            attrs = {"stride": window, "padding": [rng.choice([0, 0, 1, 2]) for _ in window], "groups": groups}
            attrs |= {"output_padding": [rng.choice([0, 0, 1]) for _ in window]}
            attrs |= {"dilation": [rng.choice([1, 1, 2, 3]) for _ in window]}
            params = {"weight": normal(channels, rng.choice([1, 2, 8]), *kernel)}
        case "linear" | "codebook_linear":
            width = x[-1] if rank else 1
            outputs = rng.choice([1, 3, 8, 16, 17])
            params = {"weight": normal(outputs, width)}
            if op.startswith("codebook"):
                codes = np.resize(np.arange(5), (outputs, width)).astype(np.uint16)
                params = {"codebook": np.array([0, 0.5, -1, 2, 0.25], np.float32), "codes": codes}
        case "circulant_linear" | "block_circulant_linear" | "fastfood_linear" | "acdc_linear" | "tt_linear":
            params, attrs = structured(rng, op, x[-1] if rank else 1, normal)
        case "block_circulant_conv2d":
            attrs = {"stride": window, "padding": [1] * 4, "dilation": [1, 1], "groups": 1, "out_features": 5}
            params = {"vectors": normal(2, -(-channels // 3), 3, *window)}
        case "batch_norm":
            params = {role: np.abs(normal(channels)) for role in ("weight", "bias", "running_mean", "running_var")}
            attrs = {"eps": rng.choice([1e-5, 1e-5, 1.0, 1e6])}
        case "prelu":
            params = {"weight": normal(rng.choice([1, channels]))}
        case "local_response_norm":
            attrs = {"size": rng.choice([1, 2, 3, 5, 200, 65536])}
            attrs |= {"alpha": rng.choice(NUMBERS[:5]), "beta": rng.choice([0.75, 0.5, 2]), "k": rng.choice([1, 0, -1])}
        case "max_pool2d" | "avg_pool2d" | "max_pool1d" | "avg_pool1d":
            attrs = {"kernel_size": window, "stride": [small() for _ in window], "ceil_mode": rng.random() < 0.5}
            attrs["padding"] = [rng.randrange(k // 2 + 1) for k in window] * 2
            if op.startswith("max"):
                attrs["dilation"] = [rng.choice([1, 1, 2]) for _ in window]
            else:
                attrs["count_include_pad"] = rng.random() < 0.5
                attrs["divisor_override"] = rng.choice([None, None, 1, 7, 2**31 - 1])
        case "adaptive_avg_pool2d" | "adaptive_max_pool2d":
            attrs = {"output_size": window if rng.randrange(8) else [40, 1]}
        case "mean":
            attrs = {"dims": sorted(rng.sample(range(rank), rng.randint(1, rank))) if rank else [0]}
            attrs["keepdim"] = rng.random() < 0.5
        case "clamp":
            attrs = {"min": rng.choice([None, 0, -1.5, 1e308]), "max": rng.choice([None, 6, 0, -1e308])}
        case "leaky_relu" | "elu":
            attrs = {"negative_slope" if op == "leaky_relu" else "alpha": rng.choice(NUMBERS[:11])}
        case "gelu":
            attrs = {"approximate": rng.choice(["none", "tanh"])}
        case "softmax" | "log_softmax":
            attrs = {"dim": axis}
        case "add_scalar" | "mul_scalar":
            attrs = {"value": rng.choice(NUMBERS[:12])}
        case "add" | "sub" | "mul" | "div":
            alike = [name for name, shape in shapes.items() if shape == x]
            inputs = [source, rng.choice(alike if rng.randrange(3) else list(shapes))]
            rng.shuffle(inputs)
        case "concat":
            alike = [
                n for n, s in shapes.items() if len(s) == rank and s[:axis] + s[axis + 1 :] == x[:axis] + x[axis + 1 :]
            ]
            inputs = [source, *(rng.choice(alike) for _ in range(rng.choice([0, 1, 1, 2, 3])))]
            attrs = {"dim": axis}
        case "slice":
            start = rng.randrange(x[axis]) if rank else 0
            attrs = {"dim": axis, "start": start, "end": rng.choice([None, start + small(), 2**31 - 1])}
            attrs["step"] = rng.choice([1, 1, 2, 3, 2**31 - 1])
        case "pad":
            attrs = {"pads": [[rng.choice([0, 0, 1, 3]), rng.choice([0, 0, 2])] for _ in x]}
            attrs["value"] = rng.choice([0, 0, 0.5, 1e38, 1e300])
        case "resize":
            attrs = {"size": [rng.choice([1, 3, 8, 13]) for _ in range(2)], "scale": None}
            if rng.randrange(2):
                attrs = {"size": None, "scale": [rng.choice([0.3, 0.5, 1, 1.5, 2, 3.7]) for _ in range(2)]}
            attrs |= {"mode": rng.choice(["nearest", "bilinear"]), "align_corners": rng.random() < 0.3}
        case "reshape":
            attrs = {"shape": rng.choice(targets(rng, x))}
        case "flatten":
            ends = sorted(rng.randrange(max(rank, 1)) for _ in range(2))
            attrs = {"start_dim": ends[0], "end_dim": ends[1]}
        case "permute":
            attrs = {"dims": rng.sample(range(rank), rank)}
        case "constant":
            inputs = []
            params = {"value": normal(*(x[i] if rng.randrange(2) else 1 for i in range(rank)))}
    return op, inputs, params, attrs


def targets(rng: random.Random, x: tuple[int, ...]) -> list[list[int]]:
    """Reshapes of shape x: flat, split, merged, with axes of one put in."""
    found: list[list[int]] = [[-1], [0, -1], [*x[:1], -1], list(x), [*x, 1], [1, *x], [-1, *x[1:]]]
    if len(x) > 1:
        found += [[x[0] * x[1], *x[2:]], [*x[:-2], x[-2] * x[-1]], [-3, -1], [0, 1, 1, -1], list(x[::-1])]
    for factor in (2, 3, 4):
        if x and x[-1] % factor == 0:
            found.append([*x[:-1], x[-1] // factor, factor])
        if len(x) > 1 and x[1] % factor == 0:
            found.append([0, factor, x[1] // factor, *x[2:]])
    rng.shuffle(found)
    return found


def reshaped(rng: random.Random, file: Any) -> None:
    """A node that only moves values between a node and one of its inputs; then the rest of the net on top."""
    nodes = nodes_of(file)
    state = built(file)
    if state is None or not nodes:
        return
    _, shapes = state
    place = rng.randrange(len(nodes))
    node = nodes[place]
    if not node["inputs"]:
        return
    edge = rng.randrange(len(node["inputs"]))
    source = node["inputs"][edge]
    x = shapes[source]
    there, back = f"m{len(nodes)}", f"m{len(nodes) + 1}"
    kind = rng.randrange(5)
    pair: list[tuple[str, dict[str, Any]]]
    if kind == 0:
        dims = rng.sample(range(len(x)), len(x))
        pair = [("permute", {"dims": dims}), ("permute", {"dims": [dims.index(i) for i in range(len(x))]})]
    elif kind == 1:
        pair = [("reshape", {"shape": rng.choice(targets(rng, x))}), ("reshape", {"shape": list(x)})]
    elif kind == 2:
        pads = [[rng.choice([0, 1, 2]), 0] for _ in x]
        axis = rng.randrange(len(x))
        pads = [p if i == axis else [0, 0] for i, p in enumerate(pads)]
        pair = [
            ("pad", {"pads": pads, "value": 0}),
            ("slice", {"dim": axis, "start": pads[axis][0], "end": None, "step": 1}),
        ]
    elif kind == 3:
        pair = [("add_scalar", {"value": 0}), ("mul_scalar", {"value": 1})]
    else:
        pair = [("relu", {}), ("concat", {"dim": rng.randrange(len(x))})]
    steps = []
    for name, reads, (op, attrs) in zip((there, back), (source, there), pair, strict=True):
        steps.append({"name": name, "op": op, "inputs": [reads], "params": {}, "attrs": attrs, "source": ""})
    nodes[place:place] = steps
    node["inputs"][edge] = back
    if rng.randrange(3) == 0:
        file.inner["graph"]["outputs"].append(there)
