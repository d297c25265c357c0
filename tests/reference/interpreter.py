"""A float64 interpreter of graphs: the oracle every room is judged by.

Obvious numpy, one function per op, no import of the engine's shape rules, passes or kernels. Convolutions loop over
the kernel's taps and contract channels with a matrix product; pools gather every window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.linalg

from fastcnn.engine.graph import Graph, Node

F32, F64 = np.float32, np.float64
_erf = np.vectorize(math.erf, otypes=[F64])


def run_graph(graph: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a graph in float64.

    Parameters
    ----------
    graph : Graph
        May hold internal ops and epilogues of plan passes, and torch steps.
    inputs : dict of str to ndarray
        One array per graph input; cast to float64.

    Returns
    -------
    list of ndarray
        One float64 array per graph output.
    """
    values = run_values(graph, inputs)
    return [values[name] for name in graph.outputs]


def run_values(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Like :func:`run_graph`, but return every value by name."""
    values: dict[str, np.ndarray] = {}
    for value in graph.inputs:
        values[value.name] = np.asarray(inputs[value.name], F64)
    for node in graph.nodes:
        args = [values[name] for name in node.inputs]
        params = {role: graph.weights[key] for role, key in node.params.items()}
        if node.op == "torch":
            values[node.name] = np.asarray(graph.torch_calls[node.attrs["key"]](*args), F64)
            continue
        epilogue = node.attrs.get("epilogue")
        residual = args.pop() if epilogue and epilogue["residual"] is not None else None
        out = _OPS[node.op](node, params, *args)
        if epilogue:
            out = _epilogue(epilogue, out, residual)
        assert out.dtype == F64, node
        values[node.name] = out
    return values


def _epilogue(epilogue: dict, out: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    def activate(x: np.ndarray) -> np.ndarray:
        what = epilogue["activation"]
        if what is None:
            return x
        attrs = {key: value for key, value in what.items() if key != "op"}
        return _OPS[what["op"]](Node(name="activation", op=what["op"], inputs=(), attrs=attrs), {}, x)

    if epilogue["order"] == "add_then_act":
        return activate(out if residual is None else out + residual)
    out = activate(out)
    return out if residual is None else out + residual


def _conv(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, attrs: dict) -> np.ndarray:
    """Convolution over any number of spatial axes, tap by tap."""
    x, w = x.astype(F64), w.astype(F64)
    spatial = w.ndim - 2
    pads = attrs["padding"]
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[spatial + i]) for i in range(spatial)])
    groups, stride, dilation = attrs["groups"], attrs["stride"], attrs["dilation"]
    kernel = w.shape[2:]
    out_size = [(x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(spatial)]
    per_in, per_out = w.shape[1], w.shape[0] // groups
    out = np.zeros((x.shape[0], groups, per_out, math.prod(out_size)), F64)
    xg = x.reshape(x.shape[0], groups, per_in, *x.shape[2:])
    wg = w.reshape(groups, per_out, per_in, *kernel)
    for tap in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(t * dilation[i], t * dilation[i] + (out_size[i] - 1) * stride[i] + 1, stride[i])
            for i, t in enumerate(tap)
        )
        patch = xg[(slice(None),) * 3 + window].reshape(x.shape[0], groups, per_in, -1)
        out += wg[(slice(None),) * 3 + tap] @ patch
    out = out.reshape(x.shape[0], w.shape[0], *out_size)
    return out if bias is None else out + bias.astype(F64).reshape(-1, *[1] * spatial)


def _sign(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


def _signs_of_bits(bits: np.ndarray, count: int) -> np.ndarray:
    """Bit k of a row, lowest of the first byte first, is a weight: -1 where it is set."""
    return np.array([[-1.0 if row[k // 8] >> (k % 8) & 1 else 1.0 for k in range(count)] for row in bits.tolist()])


def _of_planes(n: Node, bits: np.ndarray, count: int) -> np.ndarray:
    """Signs of each plane times its factor, added up."""
    planes = n.attrs["planes"]
    rows = len(bits) // len(planes)
    parts = [bits[i * rows : (i + 1) * rows] for i in range(len(planes))]
    return sum(factor * _signs_of_bits(part, count) for factor, part in zip(planes, parts, strict=True))


def _quantize(n: Node, x: np.ndarray) -> np.ndarray:
    """In float32, whose roundings decide on which side of a half a value is; NaN is the lowest level."""
    a = {key: F32(value) for key, value in n.attrs.items()}
    level = np.rint(x.astype(F32) * a["factor"]) + a["zero"]
    level = np.where(level > a["low"], np.minimum(level, a["high"]), a["low"])
    return ((level - a["zero"]) * a["step"]).astype(F64)


def _int8(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    """Whole numbers in int64, then two roundings in float32."""
    a = n.attrs
    level = np.rint(x.astype(F32) * F32(a["factor"])) + F32(a["zero"])
    level = np.where(level > 0, np.minimum(level, F32(255)), F32(0)).astype(np.int64) - a["zero"]
    weight = p["weight"].astype(np.int64)
    if n.op == "int8_linear":
        sums = level @ weight.T
    else:
        sums = _conv(level, weight, None, a).astype(np.int64)
    y = sums.astype(F32) * _per_channel(p["scale"], sums).astype(F32)
    return (y + _per_channel(p["bias"], sums).astype(F32) if "bias" in p else y).astype(F64)


def _binary(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    """Products of sums of signs with a map or its signs, the map surrounded by pad_value; scaled, or compared."""
    a = n.attrs
    x = _sign(x) if a["binarize"] else x.astype(F64)
    if n.op == "binary_linear":
        y = x @ _of_planes(n, p["bits"], a["in_features"]).T
    else:
        channels, (kh, kw) = a["in_channels"] // a["groups"], a["kernel_size"]
        weight = _of_planes(n, p["bits"], channels * kh * kw).reshape(-1, channels, kh, kw)
        top, left, bottom, right = a["padding"]
        around = float(a["pad_value"]) if a["binarize"] else 0.0
        x = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=around)
        y = _conv(x, weight, None, {**a, "padding": [0] * 4})
    if "thresholds" in p:
        return np.where(y >= _per_channel(p["thresholds"], y), 1.0, -1.0)
    scale = _per_channel(p["scale"], y) if "scale" in p else 1.0
    return y * scale + (_per_channel(p["bias"], y) if "bias" in p else 0.0)


def _conv_transpose2d(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, attrs: dict) -> np.ndarray:
    """Scatter every input pixel through every tap, then cut the padding off."""
    x, w = x.astype(F64), w.astype(F64)
    groups, (sh, sw), (dh, dw) = attrs["groups"], attrs["stride"], attrs["dilation"]
    (ph, pw), (oph, opw) = attrs["padding"], attrs["output_padding"]
    n, channels, height, width = x.shape
    per_in, per_out, kh, kw = channels // groups, w.shape[1], w.shape[2], w.shape[3]
    full = (
        n,
        groups,
        per_out,
        (height - 1) * sh + dh * (kh - 1) + 1 + oph,
        (width - 1) * sw + dw * (kw - 1) + 1 + opw,
    )
    out = np.zeros(full, F64)
    xg, wg = x.reshape(n, groups, per_in, height * width), w.reshape(groups, per_in, per_out, kh, kw)
    for i, j in itertools.product(range(kh), range(kw)):
        part = (wg[:, :, :, i, j].swapaxes(1, 2) @ xg).reshape(n, groups, per_out, height, width)
        top, left = i * dh, j * dw
        out[:, :, :, top : top + (height - 1) * sh + 1 : sh, left : left + (width - 1) * sw + 1 : sw] += part
    out = out.reshape(n, groups * per_out, *full[3:])[:, :, ph : full[3] - ph, pw : full[4] - pw]
    return out if bias is None else out + bias.astype(F64).reshape(-1, 1, 1)


def _windows(extent: int, k: int, s: int, before: int, after: int, d: int, ceil: bool) -> list[list[int]]:
    """Indices (padding included: negative or beyond the end) each window reads along one axis, torch's rule."""
    reach = d * (k - 1) + 1
    total = extent + before + after - reach
    count = (math.ceil(total / s) if ceil else total // s) + 1
    if ceil and (count - 1) * s >= extent + before:
        count -= 1
    return [[o * s - before + t * d for t in range(k)] for o in range(count)]


def _pool(x: np.ndarray, attrs: dict, kind: str) -> np.ndarray:
    spatial = len(attrs["kernel_size"])
    if spatial == 1:
        lifted = {key: attrs[key] for key in ("ceil_mode", "count_include_pad", "divisor_override") if key in attrs}
        lifted |= {key: [1, *attrs[key]] for key in ("kernel_size", "stride", "dilation") if key in attrs}
        lifted["padding"] = [0, attrs["padding"][0], 0, attrs["padding"][1]]
        return _pool(x[:, :, None], lifted, kind)[:, :, 0]
    (kh, kw), (sh, sw), (top, left, bottom, right) = attrs["kernel_size"], attrs["stride"], attrs["padding"]
    dh, dw = attrs.get("dilation", [1, 1])
    height, width = x.shape[2:]
    rows = _windows(height, kh, sh, top, bottom, dh, attrs["ceil_mode"])
    cols = _windows(width, kw, sw, left, right, dw, attrs["ceil_mode"])
    out = np.empty((*x.shape[:2], len(rows), len(cols)), F64)
    for (i, rs), (j, cs) in itertools.product(enumerate(rows), enumerate(cols)):
        inside_rows = [r for r in rs if 0 <= r < height]
        inside_cols = [c for c in cs if 0 <= c < width]
        patch = x[:, :, inside_rows][:, :, :, inside_cols].reshape(*x.shape[:2], -1)
        if kind == "max":
            out[:, :, i, j] = patch.max(-1) if patch.shape[-1] else -np.inf
            continue
        # The part of the window that lies inside image plus padding: torch does not count what hangs over.
        padded = sum(r < height + bottom for r in rs) * sum(c < width + right for c in cs)
        divisor = padded if attrs["count_include_pad"] else patch.shape[-1]
        out[:, :, i, j] = patch.sum(-1) / (attrs["divisor_override"] or divisor)
    return out


def _adaptive(x: np.ndarray, size: list[int], reduce: Callable) -> np.ndarray:
    out = np.empty((*x.shape[:2], *size), F64)
    for i, j in itertools.product(range(size[0]), range(size[1])):
        rows = slice(i * x.shape[2] // size[0], -(-(i + 1) * x.shape[2] // size[0]))
        cols = slice(j * x.shape[3] // size[1], -(-(j + 1) * x.shape[3] // size[1]))
        out[:, :, i, j] = reduce(x[:, :, rows, cols], axis=(2, 3))
    return out


def _resize(x: np.ndarray, attrs: dict) -> np.ndarray:
    for axis in (2, 3):
        n = x.shape[axis]
        scale = None if attrs["scale"] is None else attrs["scale"][axis - 2]
        out = attrs["size"][axis - 2] if scale is None else math.floor(n * scale)
        if out == n:
            continue  # torch copies, whatever the scale says
        if attrs["mode"] == "nearest":
            # torch computes the source index in float32, and takes pixel i // 2 where the size doubles
            step = np.float32(n / out) if scale is None else np.float32(1.0 / scale)
            source = np.floor(np.arange(out, dtype=np.float32) * step).astype(int)
            source = np.arange(out) // 2 if out == 2 * n else source
            x = np.take(x, np.minimum(source, n - 1), axis=axis)
            continue
        position = np.arange(out, dtype=F64)
        if attrs["align_corners"]:
            position = position * ((n - 1) / (out - 1) if out > 1 else 0.0)
        else:
            position = np.maximum((position + 0.5) * (n / out if scale is None else 1.0 / scale) - 0.5, 0.0)
        low = np.minimum(np.floor(position).astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
    return x


def _reshape(x: np.ndarray, target: list[int]) -> np.ndarray:
    shape = [x.shape[i] if n == 0 else x.shape[-2 - n] if n < -1 else n for i, n in enumerate(target)]
    return x.reshape(shape)


def _per_channel(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    return v.astype(F64).reshape([-1 if i == 1 else 1 for i in range(x.ndim)])


def _batch_norm(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    mean, var = _per_channel(p["running_mean"], x), _per_channel(p["running_var"], x)
    return (x - mean) / np.sqrt(var + n.attrs["eps"]) * _per_channel(p["weight"], x) + _per_channel(p["bias"], x)


def _local_response_norm(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    size, channels = n.attrs["size"], x.shape[1]
    out = np.empty_like(x)
    for c in range(channels):
        window = [x[:, i] for i in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= i < channels]
        mean = sum(v * v for v in window) / size
        out[:, c] = x[:, c] / (n.attrs["k"] + n.attrs["alpha"] * mean) ** n.attrs["beta"]
    return out


def _group_norm(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    size = x.shape[1] // n.attrs["groups"]
    for b, first in itertools.product(range(x.shape[0]), range(0, x.shape[1], size)):
        part = x[b, first : first + size]
        out[b, first : first + size] = (part - part.mean()) / np.sqrt(part.var() + n.attrs["eps"])
    out = out * _per_channel(p["weight"], x) if "weight" in p else out
    return out + _per_channel(p["bias"], x) if "bias" in p else out


def _layer_norm(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(-n.attrs["axes"], 0))
    out = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + n.attrs["eps"])
    return out * p.get("weight", np.float32(1)).astype(F64) + p.get("bias", np.float32(0)).astype(F64)


def _max_unpool(values: np.ndarray, x: np.ndarray, attrs: dict) -> np.ndarray:
    (kh, kw), (sh, sw), (top, left, _, _) = attrs["kernel_size"], attrs["stride"], attrs["padding"]
    out = np.zeros_like(x)
    for b, c, i, j in itertools.product(*map(range, values.shape)):
        places = [
            (x[b, c, y, z], y, z)
            for y in range(i * sh - top, i * sh - top + kh)
            for z in range(j * sw - left, j * sw - left + kw)
            if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]
        ]
        _, y, z = max(places, key=lambda place: place[0])  # the first of equal ones, as in torch
        out[b, c, y, z] = values[b, c, i, j]
    return out


def _edge_pad(x: np.ndarray, attrs: dict) -> np.ndarray:
    top, left, bottom, right = attrs["padding"]
    mode = "reflect" if attrs["mode"] == "reflect" else "edge"
    return np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], mode=mode)


def _reduce(how: Callable, n: Node, x: np.ndarray) -> np.ndarray:
    return np.asarray(how(x, axis=tuple(n.attrs["dims"]), keepdims=n.attrs["keepdim"]))


def _linear(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    out = x @ w.astype(F64).T
    return out if bias is None else out + bias.astype(F64)


def _decode(p: dict) -> np.ndarray:
    return p["codebook"].astype(F64)[p["codes"].astype(np.int64)]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))  # torch is linear beyond 20


def _gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _log_softmax(x: np.ndarray, dim: int) -> np.ndarray:
    x = x - x.max(dim, keepdims=True)
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


def _prelu(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    slope = p["weight"].astype(F64) if p["weight"].size == 1 else _per_channel(p["weight"], x)
    return np.where(x > 0, x, slope * x)


def _slice(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    a = n.attrs
    index: list[slice] = [slice(None)] * x.ndim
    index[a["dim"]] = slice(a["start"], a["end"], a["step"])
    return x[tuple(index)]


def _flatten(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    start, end = n.attrs["start_dim"], n.attrs["end_dim"]
    return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


def _circulant_linear(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    d = p["vectors"].shape[1]
    y = np.zeros((*x.shape[:-1], 0))
    for vector, signs in zip(p["vectors"].astype(F64), p["signs"].astype(F64), strict=True):
        part = np.zeros_like(x)
        for i in range(d):
            for j in range(d):
                part[..., i] += vector[(i - j) % d] * signs[j] * x[..., j]
        y = np.concatenate((y, part), -1)
    y = y[..., : n.attrs["out_features"]]
    return y if p.get("bias") is None else y + p["bias"]


def _blocks(vectors: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The matrix of circulant blocks, entry by entry."""
    b = vectors.shape[2]
    weight = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            weight[i, j] = vectors[i // b, j // b, (i % b - j % b) % b]
    return weight


def _block_circulant_conv2d(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    groups, vectors = n.attrs["groups"], p["vectors"].astype(F64)
    out, channels, rows = n.attrs["out_features"] // groups, x.shape[1] // groups, vectors.shape[0] // groups
    weight = np.zeros((groups * out, channels, *vectors.shape[3:]))
    for g in range(groups):
        for u in range(weight.shape[2]):
            for v in range(weight.shape[3]):
                part = _blocks(vectors[g * rows : (g + 1) * rows, :, :, u, v], out, channels)
                weight[g * out : (g + 1) * out, :, u, v] = part
    return _conv(x, weight, p.get("bias"), n.attrs)


def _fill(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate((x, np.zeros((*x.shape[:-1], length - x.shape[-1]))), -1)


def _fastfood_linear(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    length = p["scale"].shape[1]
    h = scipy.linalg.hadamard(length) / math.sqrt(length)
    parts = []
    for scale, gauss, signs, places in zip(p["scale"], p["gauss"], p["signs"], p["permutation"], strict=True):
        inner = (_fill(x, length) * signs.astype(F64)) @ h
        parts.append((inner[..., places] * gauss.astype(F64)) @ h * scale.astype(F64))
    y = np.concatenate(parts, -1)[..., : n.attrs["out_features"]]
    return y if p.get("bias") is None else y + p["bias"]


def _acdc_linear(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    y = _fill(x, p["a"].shape[1])
    for k in range(len(p["a"])):
        if k:
            y = (np.maximum(y, 0) if n.attrs["relu"] else y)[..., p["permutations"][k - 1]]
        y = scipy.fft.dct(y * p["a"][k].astype(F64), norm="ortho") * p["d"][k].astype(F64)
        y = scipy.fft.idct(y if p.get("beta") is None else y + p["beta"][k].astype(F64), norm="ortho")
    return y[..., : n.attrs["out_features"]]


def _tt_linear(n: Node, p: dict, x: np.ndarray) -> np.ndarray:
    cores = [p[f"core{k}"].astype(F64) for k in range(16) if p.get(f"core{k}") is not None]
    rows, columns = (math.prod(core.shape[axis] for core in cores) for axis in (1, 2))
    weight = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            row, column, entry = i, j, np.ones((1, 1))
            for core in cores[::-1]:  # the last mode runs fastest
                row, m = divmod(row, core.shape[1])
                column, k = divmod(column, core.shape[2])
                entry = core[:, m, k] @ entry
            weight[i, j] = entry[0, 0]
    return _linear(x, weight[: n.attrs["out_features"], : x.shape[-1]], p.get("bias"))


_OPS: dict[str, Callable[..., np.ndarray]] = {
    "conv2d": lambda n, p, x: _conv(x, p["weight"], p.get("bias"), n.attrs),
    "conv1d": lambda n, p, x: _conv(x, p["weight"], p.get("bias"), n.attrs),
    "conv_transpose2d": lambda n, p, x: _conv_transpose2d(x, p["weight"], p.get("bias"), n.attrs),
    "binary_conv2d": _binary,
    "binary_linear": _binary,
    "int8_conv2d": _int8,
    "int8_linear": _int8,
    "linear": lambda n, p, x: _linear(x, p["weight"], p.get("bias")),
    "codebook_conv2d": lambda n, p, x: _conv(x, _decode(p), p.get("bias"), n.attrs),
    "codebook_linear": lambda n, p, x: _linear(x, _decode(p), p.get("bias")),
    "circulant_linear": _circulant_linear,
    "block_circulant_linear": lambda n, p, x: _linear(
        x, _blocks(p["vectors"].astype(F64), n.attrs["out_features"], x.shape[-1]), p.get("bias")
    ),
    "block_circulant_conv2d": _block_circulant_conv2d,
    "fastfood_linear": _fastfood_linear,
    "acdc_linear": _acdc_linear,
    "tt_linear": _tt_linear,
    "batch_norm": _batch_norm,
    "scale_shift": lambda n, p, x: x * _per_channel(p["scale"], x) + _per_channel(p["shift"], x),
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
    "max_pool2d": lambda n, p, x: _pool(x, n.attrs, "max"),
    "avg_pool2d": lambda n, p, x: _pool(x, n.attrs, "avg"),
    "max_pool1d": lambda n, p, x: _pool(x, n.attrs, "max"),
    "avg_pool1d": lambda n, p, x: _pool(x, n.attrs, "avg"),
    "adaptive_avg_pool2d": lambda n, p, x: _adaptive(x, n.attrs["output_size"], np.mean),
    "adaptive_max_pool2d": lambda n, p, x: _adaptive(x, n.attrs["output_size"], np.max),
    "max_unpool2d": lambda n, p, values, x: _max_unpool(values, x, n.attrs),
    "mean": lambda n, p, x: _reduce(np.mean, n, x),
    "sum": lambda n, p, x: _reduce(np.sum, n, x),
    "amax": lambda n, p, x: _reduce(np.max, n, x),
    "relu": lambda n, p, x: np.maximum(x, 0.0),
    "silu": lambda n, p, x: x * _sigmoid(x),
    "hardswish": lambda n, p, x: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda n, p, x: np.clip(x + 3, 0, 6) / 6,
    "sigmoid": lambda n, p, x: _sigmoid(x),
    "tanh": lambda n, p, x: np.tanh(x),
    "exp": lambda n, p, x: np.exp(x),
    "softplus": lambda n, p, x: _softplus(x),
    "mish": lambda n, p, x: x * np.tanh(np.logaddexp(0.0, x)),
    "clamp": lambda n, p, x: np.clip(
        x,
        -np.inf if n.attrs["min"] is None else n.attrs["min"],
        np.inf if n.attrs["max"] is None else n.attrs["max"],
    ),
    "leaky_relu": lambda n, p, x: np.where(x > 0, x, n.attrs["negative_slope"] * x),
    "elu": lambda n, p, x: np.where(x > 0, x, n.attrs["alpha"] * np.expm1(np.minimum(x, 0.0))),
    "gelu": lambda n, p, x: _gelu(x, n.attrs["approximate"]),
    "prelu": _prelu,
    "sqrt": lambda n, p, x: np.sqrt(x),
    "abs": lambda n, p, x: np.abs(x),
    "sign": lambda n, p, x: _sign(x),
    "quantize": lambda n, p, x: _quantize(n, x),
    "matmul": lambda n, p, a, b: a @ b,
    "softmax": lambda n, p, x: np.exp(_log_softmax(x, n.attrs["dim"])),
    "log_softmax": lambda n, p, x: _log_softmax(x, n.attrs["dim"]),
    "add": lambda n, p, a, b: a + b,
    "sub": lambda n, p, a, b: a - b,
    "mul": lambda n, p, a, b: a * b,
    "div": lambda n, p, a, b: a / b,
    "add_scalar": lambda n, p, x: x + n.attrs["value"],
    "mul_scalar": lambda n, p, x: x * n.attrs["value"],
    "concat": lambda n, p, *xs: np.concatenate(xs, n.attrs["dim"]),
    "slice": _slice,
    "pad": lambda n, p, x: np.pad(x, n.attrs["pads"], constant_values=n.attrs["value"]),
    "edge_pad2d": lambda n, p, x: _edge_pad(x, n.attrs),
    "index_select": lambda n, p, x: np.take(x, n.attrs["indices"], n.attrs["dim"]),
    "resize": lambda n, p, x: _resize(x, n.attrs),
    "reshape": lambda n, p, x: _reshape(x, n.attrs["shape"]),
    "flatten": _flatten,
    "permute": lambda n, p, x: np.transpose(x, n.attrs["dims"]),
    "constant": lambda n, p: p["value"].astype(F64),
}
