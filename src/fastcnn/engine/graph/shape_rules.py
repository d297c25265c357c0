"""Output shapes, op by op, by torch's rules. Each rule gets (node, input shapes, parameter shapes).

Rules raise GraphError with what was expected and what came; :func:`fastcnn.engine.graph.shapes.infer_shapes`
adds the layer's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fastcnn.engine.graph.graph import GraphError, Node
from fastcnn.engine.graph.schema import Shape

Shapes = Sequence[Shape]
Params = Mapping[str, Shape]


def _rank(shape: Shape, *ranks: int) -> None:
    if len(shape) not in ranks:
        wanted = " or ".join(f"{r}-d" for r in ranks)
        raise GraphError(f"expects a {wanted} input, got shape {shape}")


def _channels(shape: Shape, expected: int, axis: int = 1) -> None:
    if shape[axis] != expected:
        raise GraphError(f"expects {expected} channels on axis {axis}, got {shape[axis]} in shape {shape}")


def _window(extent: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    reach = dilation * (kernel - 1) + 1
    padded = extent + before + after
    if padded < reach:
        raise GraphError(
            f"kernel of {kernel} (dilation {dilation}, reach {reach}) is larger than the padded input "
            f"({extent} + {before} + {after} = {padded}): give a larger image or more padding"
        )
    return (padded - reach) // stride + 1


def window_output(extent: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil: bool) -> int:
    """Number of windows along one axis of a pool.

    With ``ceil`` a last window may hang over the end, but it must start inside the input or the padding before it
    (torch's rule).
    """
    reach = dilation * (kernel - 1) + 1
    span = extent + before + after - reach
    if not ceil or span <= -stride:
        return _window(extent, kernel, stride, before, after, dilation)
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= extent + before else out


def same(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Element-wise ops of one input."""
    return inputs[0]


def local_response_norm(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Shape kept; channels on axis 1, and at least one axis after them."""
    _rank(inputs[0], 3, 4)
    return inputs[0]


def conv(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Convolution over 1 or 2 spatial axes; weight (O, I/groups, k...), dense or as codes."""
    weight = params["weight"] if "weight" in params else params["codes"]
    x, a = inputs[0], node.attrs
    axes = len(weight) - 2
    _rank(x, axes + 2)
    _channels(x, weight[1] * a["groups"])
    spatial = tuple(
        _window(x[2 + i], weight[2 + i], a["stride"][i], a["padding"][i], a["padding"][axes + i], a["dilation"][i])
        for i in range(axes)
    )
    return (x[0], weight[0], *spatial)


def conv_transpose2d(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Transposed convolution; weight (I, O/groups, kH, kW)."""
    x, weight, a = inputs[0], params["weight"], node.attrs
    _rank(x, 4)
    _channels(x, weight[0])
    out = [
        (x[2 + i] - 1) * a["stride"][i]
        - 2 * a["padding"][i]
        + a["dilation"][i] * (weight[2 + i] - 1)
        + a["output_padding"][i]
        + 1
        for i in range(2)
    ]
    if min(out) < 1:
        raise GraphError(f"output would be {out[0]} x {out[1]}: the input {x} is too small for its padding")
    return (x[0], weight[1] * a["groups"], *out)


def linear(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Fully connected layer on the last axis; weight (O, I), dense or as codes."""
    weight = params["weight"] if "weight" in params else params["codes"]
    x = inputs[0]
    if not x or x[-1] != weight[1]:
        raise GraphError(f"expects {weight[1]} features on the last axis, got shape {x}")
    return (*x[:-1], weight[0])


def per_channel(node: Node, inputs: Shapes, params: Params) -> Shape:
    """batch_norm and scale_shift: one number per channel of axis 1."""
    x = inputs[0]
    _rank(x, 2, 3, 4, 5)
    _channels(x, next(iter(params.values()))[0])
    return x


def group_norm(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Shape kept; channels on axis 1, divided by the groups."""
    x, groups = inputs[0], node.attrs["groups"]
    _rank(x, 2, 3, 4)
    if x[1] % groups:
        raise GraphError(f"groups={groups} does not divide the {x[1]} channels of shape {x}")
    for shape in params.values():
        _channels(x, shape[0])
    return x


def layer_norm(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Shape kept; weight and bias have the extents of the last axes, which leave the batch alone."""
    x, axes = inputs[0], node.attrs["axes"]
    if axes >= len(x):
        raise GraphError(f"a norm over the last {axes} axes needs more axes than shape {x} has")
    for role, shape in params.items():
        if shape != x[len(x) - axes :]:
            raise GraphError(f"{role} must have shape {x[len(x) - axes :]}, got {shape}")
    return x


def prelu(node: Node, inputs: Shapes, params: Params) -> Shape:
    """One slope, or one per channel of axis 1."""
    slopes = params["weight"][0]
    if slopes != 1:
        if len(inputs[0]) < 2:
            raise GraphError(f"expects an input with channels on axis 1, got shape {inputs[0]}")
        _channels(inputs[0], slopes)
    return inputs[0]


def pool(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Max and average pools over 1 or 2 spatial axes."""
    x, a = inputs[0], node.attrs
    axes = len(a["kernel_size"])
    _rank(x, axes + 2)
    dilation = a.get("dilation", [1] * axes)
    spatial = tuple(
        window_output(
            x[2 + i],
            a["kernel_size"][i],
            a["stride"][i],
            a["padding"][i],
            a["padding"][axes + i],
            dilation[i],
            a["ceil_mode"],
        )
        for i in range(axes)
    )
    return (x[0], x[1], *spatial)


def adaptive_pool2d(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Pools to a given output size."""
    _rank(inputs[0], 4)
    return (*inputs[0][:2], *node.attrs["output_size"])


def max_unpool2d(node: Node, inputs: Shapes, params: Params) -> Shape:
    """The shape of the second input, whose max pool has the shape of the first."""
    x, pooled_from = inputs
    _rank(x, 4)
    _rank(pooled_from, 4)
    expected = pool(node, [pooled_from], params)
    if x != expected:
        raise GraphError(f"expects {expected}, the shape of the pool of {pooled_from}, got {x}")
    a = node.attrs
    whole = tuple(
        (x[2 + i] - 1) * a["stride"][i] + a["kernel_size"][i] - a["padding"][i] - a["padding"][2 + i] for i in range(2)
    )
    if whole != pooled_from[2:]:
        raise GraphError(f"the windows cover {whole} of the image {pooled_from[2:]}: its size is not their inverse")
    return pooled_from


def reduction(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Mean, sum or maximum over some axes."""
    x, dims = inputs[0], node.attrs["dims"]
    if max(dims) >= len(x):
        raise GraphError(f"{node.op} over axes {dims} needs more axes than shape {x} has")
    if node.attrs["keepdim"]:
        return tuple(1 if i in dims else n for i, n in enumerate(x))
    return tuple(n for i, n in enumerate(x) if i not in dims)


def along_dim(node: Node, inputs: Shapes, params: Params) -> Shape:
    """softmax and log_softmax: shape kept, the axis must exist."""
    if node.attrs["dim"] >= len(inputs[0]):
        raise GraphError(f"dim={node.attrs['dim']} is not an axis of shape {inputs[0]}")
    return inputs[0]


def broadcast(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Element-wise ops of two inputs, numpy broadcasting."""
    a, b = inputs
    rank = max(len(a), len(b))
    out = []
    for m, n in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if m != n and m != 1 and n != 1:
            raise GraphError(f"shapes {a} and {b} do not broadcast")
        out.append(n if m == 1 else m)
    return tuple(out)


def matmul(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Products of matrices: the last two axes multiply, the axes before them agree."""
    a, b = inputs
    if len(a) < 3 or len(a) != len(b) or a[:-2] != b[:-2] or a[-1] != b[-2]:
        raise GraphError(
            f"expects (..., M, K) and (..., K, N) of one rank from 3 on with equal axes before, got {a}, {b}"
        )
    return (*a[:-1], b[-1])


def concat(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Join along one axis."""
    dim, first = node.attrs["dim"], inputs[0]
    if dim >= len(first):
        raise GraphError(f"dim={dim} is not an axis of shape {first}")
    for other in inputs[1:]:
        if len(other) != len(first) or other[:dim] + other[dim + 1 :] != first[:dim] + first[dim + 1 :]:
            raise GraphError(f"cannot join shapes {first} and {other} on axis {dim}: all other axes must agree")
    return (*first[:dim], sum(s[dim] for s in inputs), *first[dim + 1 :])


def slice_(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Every ``step``-th index of start..end on one axis; both ends are clipped to the axis."""
    x, a = inputs[0], node.attrs
    if a["dim"] >= len(x):
        raise GraphError(f"dim={a['dim']} is not an axis of shape {x}")
    extent = x[a["dim"]]
    end = extent if a["end"] is None else min(a["end"], extent)
    count = max(0, -(-(end - min(a["start"], extent)) // a["step"]))
    if count == 0:
        raise GraphError(f"slice {a['start']}:{a['end']}:{a['step']} on axis {a['dim']} of shape {x} is empty")
    return (*x[: a["dim"]], count, *x[a["dim"] + 1 :])


def pad(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Constant padding of every axis."""
    x, pads = inputs[0], node.attrs["pads"]
    if len(pads) != len(x):
        raise GraphError(f"pads name {len(pads)} axes, the input has shape {x}")
    return tuple(n + before + after for n, (before, after) in zip(x, pads, strict=True))


def edge_pad2d(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Rows and columns added that mirror the image (without its edge), or repeat the edge."""
    x, (top, left, bottom, right) = inputs[0], node.attrs["padding"]
    _rank(x, 4)
    if node.attrs["mode"] == "reflect" and (max(top, bottom) >= x[2] or max(left, right) >= x[3]):
        raise GraphError(f"padding={node.attrs['padding']} must be smaller than the image of shape {x} to mirror it")
    return (*x[:2], x[2] + top + bottom, x[3] + left + right)


def index_select(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Given indices of one axis, in the given order."""
    x, dim, indices = inputs[0], node.attrs["dim"], node.attrs["indices"]
    if dim >= len(x):
        raise GraphError(f"dim={dim} is not an axis of shape {x}")
    if max(indices) >= x[dim]:
        raise GraphError(f"index {max(indices)} is outside axis {dim} of shape {x}")
    return (*x[:dim], len(indices), *x[dim + 1 :])


def resize(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Nearest or bilinear resize to a size, or by a scale (floor, as torch)."""
    x, a = inputs[0], node.attrs
    _rank(x, 4)
    if a["size"] is not None:
        return (*x[:2], *a["size"])
    out = [math.floor(float(x[2 + i]) * a["scale"][i]) for i in range(2)]
    if min(out) < 1:
        raise GraphError(f"scale {a['scale']} leaves nothing of shape {x}")
    return (*x[:2], *out)


def resolve_reshape(target: Sequence[int], x: Shape) -> Shape:
    """Resolve a reshape's target against an input shape.

    Entries: a positive extent; 0, copy the input's axis of the same position; -2-k, copy axis k of the input;
    -1 (at most once), whatever is left.
    """
    out: list[int] = []
    for i, extent in enumerate(target):
        axis = i if extent == 0 else -2 - extent
        if extent > 0 or extent == -1:
            out.append(extent)
        elif axis < len(x):
            out.append(x[axis])
        else:
            raise GraphError(f"reshape to {list(target)} copies axis {axis}, which shape {x} does not have")
    total = math.prod(x)
    if -1 in out:
        rest = math.prod(n for n in out if n != -1)
        if rest == 0 or total % rest:
            raise GraphError(f"cannot reshape {x} to {list(target)}: {total} elements do not divide by {rest}")
        out[out.index(-1)] = total // rest
    if math.prod(out) != total:
        raise GraphError(f"cannot reshape {x} ({total} elements) to {list(target)} ({math.prod(out)} elements)")
    return tuple(out)


def reshape(node: Node, inputs: Shapes, params: Params) -> Shape:
    """New shape, same elements in the same order."""
    return resolve_reshape(node.attrs["shape"], inputs[0])


def flatten(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Merge axes start_dim..end_dim (both included)."""
    x, start, end = inputs[0], node.attrs["start_dim"], node.attrs["end_dim"]
    if end >= max(len(x), 1) or start > end:
        raise GraphError(f"flatten of axes {start}..{end} does not fit shape {x}")
    return (*x[:start], math.prod(x[start : end + 1]), *x[end + 1 :])


def permute(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Axes in a new order."""
    x, dims = inputs[0], node.attrs["dims"]
    if len(dims) != len(x):
        raise GraphError(f"permute by {dims} does not fit shape {x}")
    return tuple(x[i] for i in dims)


def constant(node: Node, inputs: Shapes, params: Params) -> Shape:
    """The baked tensor's own shape."""
    return params["value"]


def outside(node: Node, inputs: Shapes, params: Params) -> Shape:
    """Shapes of torch steps come from their callable, never from here."""
    raise GraphError("the shape of a torch step comes from its callable in Graph.torch_calls")


def conv_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Output elements times taps per output."""
    weight = params["weight"] if "weight" in params else params["codes"]
    return math.prod(out) * math.prod(weight[1:])


def conv_transpose_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Every input element meets every tap of its group's outputs."""
    return math.prod(inputs[0]) * math.prod(params["weight"][1:])


def linear_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Output elements times input features."""
    return math.prod(out) * inputs[0][-1]


def matmul_macs(node: Node, inputs: Shapes, params: Params, out: Shape) -> int:
    """Output elements times the inner extent."""
    return math.prod(out) * inputs[0][-1]
