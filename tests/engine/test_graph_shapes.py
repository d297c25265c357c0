"""Inferred shapes equal torch's for random hyper-parameters, and fit exactly where torch's own ops fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.engine.graph import Graph, GraphError, GraphInput, infer_shapes, macs, make_node
from fastcnn.engine.graph.reshapes import open_target
from fastcnn.engine.graph.shape_rules import resolve_reshape
from tests.reference.interpreter import run_graph

UNPOOL = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "ceil_mode": False}
RUNS = settings(max_examples=150, deadline=None, derandomize=True)
small = st.integers(1, 4)
extent = st.integers(1, 12)
pair = st.tuples(small, small).map(list)


def one_node(op: str, x: tuple[int, ...], *, attrs: dict[str, Any], **params: np.ndarray) -> Graph:
    names = {role: role for role in params}
    node = make_node("y", op, ["x"], params=names, attrs=attrs, weights=params)
    return Graph(inputs=(GraphInput(name="x", shape=x),), nodes=[node], outputs=("y",), weights=dict(params))


def both(op: str, x: tuple[int, ...], attrs: dict[str, Any], torch_op: Any, **params: np.ndarray) -> None:
    """Shape and values equal torch's, or both refuse."""
    data = torch.randn(x, dtype=torch.float64)
    try:
        expected = torch_op(data)
    except RuntimeError:
        with pytest.raises(GraphError):
            infer_shapes(one_node(op, x, attrs=attrs, **params), {"x": x})
        return
    graph = one_node(op, x, attrs=attrs, **params)
    assert infer_shapes(graph, {"x": x})["y"] == tuple(expected.shape)
    np.testing.assert_allclose(run_graph(graph, {"x": data.numpy()})[0], expected.numpy(), atol=1e-12)


def half(data: st.DataObject, reach: list[int]) -> list[int]:
    return [data.draw(st.integers(0, r // 2)) for r in reach]


@RUNS
@given(st.data(), extent, extent, pair, pair, pair)
def test_conv2d(data: st.DataObject, h: int, w: int, kernel: list[int], stride: list[int], dilation: list[int]) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4]))
    padding = [data.draw(st.integers(0, 3)) for _ in range(4)]
    weight = np.random.default_rng(0).standard_normal((4, 4 // groups, *kernel)).astype(np.float32)
    top, left, bottom, right = padding

    def conv(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, torch.from_numpy(weight).double(), None, stride, 0, dilation, groups)

    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    both("conv2d", (2, 4, h, w), attrs, conv, weight=weight)


@RUNS
@given(st.data(), extent, extent, pair, pair, pair)
def test_conv_transpose2d(
    data: st.DataObject, h: int, w: int, kernel: list[int], stride: list[int], dilation: list[int]
) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    padding = [data.draw(st.integers(0, 2)) for _ in range(2)]
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    weight = np.random.default_rng(0).standard_normal((4, 3, *kernel)).astype(np.float32)
    attrs = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}

    def conv(x: torch.Tensor) -> torch.Tensor:
        double = torch.from_numpy(weight).double()
        return F.conv_transpose2d(x, double, None, stride, padding, extra, groups, dilation)

    both("conv_transpose2d", (2, 4, h, w), attrs, conv, weight=weight)


@RUNS
@given(st.data(), extent, extent, pair, pair, pair, st.booleans())
def test_max_pool2d(
    data: st.DataObject, h: int, w: int, kernel: list[int], stride: list[int], dilation: list[int], ceil: bool
) -> None:
    # torch bounds the padding by half the kernel, dilation apart
    padding = half(data, kernel)
    attrs = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding * 2,
        "dilation": dilation,
        "ceil_mode": ceil,
    }
    both("max_pool2d", (1, 2, h, w), attrs, lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil))


@RUNS
@given(st.data(), extent, extent, pair, pair, st.booleans(), st.booleans(), st.sampled_from([None, 1, 5]))
def test_avg_pool2d(
    data: st.DataObject,
    h: int,
    w: int,
    kernel: list[int],
    stride: list[int],
    ceil: bool,
    counted: bool,
    divisor: int | None,
) -> None:
    padding = half(data, kernel)
    attrs = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding * 2,
        "ceil_mode": ceil,
        "count_include_pad": counted,
        "divisor_override": divisor,
    }
    both("avg_pool2d", (1, 2, h, w), attrs, lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, counted, divisor))


@RUNS
@given(extent, st.integers(1, 5), small, st.booleans())
def test_pool1d(length: int, kernel: int, stride: int, ceil: bool) -> None:
    attrs = {"kernel_size": [kernel], "stride": [stride], "padding": [kernel // 2] * 2, "ceil_mode": ceil}
    both(
        "max_pool1d",
        (1, 2, length),
        attrs | {"dilation": [1]},
        lambda x: F.max_pool1d(x, kernel, stride, kernel // 2, 1, ceil),
    )
    both(
        "avg_pool1d",
        (1, 2, length),
        attrs | {"count_include_pad": False, "divisor_override": None},
        lambda x: F.avg_pool1d(x, kernel, stride, kernel // 2, ceil, False),
    )


@RUNS
@given(extent, extent, extent, extent)
def test_adaptive(h: int, w: int, a: int, b: int) -> None:
    attrs = {"output_size": [a, b]}
    both("adaptive_avg_pool2d", (1, 2, h, w), attrs, lambda x: F.adaptive_avg_pool2d(x, (a, b)))
    both("adaptive_max_pool2d", (1, 2, h, w), attrs, lambda x: F.adaptive_max_pool2d(x, (a, b)))


@RUNS
@given(extent, extent, st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_resize_to_a_size(h: int, w: int, a: int, b: int, corners: bool) -> None:
    attrs = {"size": [a, b], "scale": None, "mode": "nearest", "align_corners": False}
    both("resize", (1, 2, h, w), attrs, lambda x: F.interpolate(x, size=(a, b)))
    attrs |= {"mode": "bilinear", "align_corners": corners}
    both(
        "resize",
        (1, 2, h, w),
        attrs,
        lambda x: F.interpolate(x, size=(a, b), mode="bilinear", align_corners=corners),
    )


@RUNS
@given(st.integers(3, 12), st.integers(3, 12), st.floats(0.4, 3.5), st.floats(0.4, 3.5))
def test_resize_by_a_scale(h: int, w: int, a: float, b: float) -> None:
    attrs = {"size": None, "scale": [a, b], "mode": "nearest", "align_corners": False}
    both("resize", (1, 2, h, w), attrs, lambda x: F.interpolate(x, scale_factor=(a, b)))
    both(
        "resize",
        (1, 2, h, w),
        attrs | {"mode": "bilinear"},
        lambda x: F.interpolate(x, scale_factor=(a, b), mode="bilinear"),
    )


shapes = st.lists(st.integers(1, 3), max_size=4).map(tuple)


@RUNS
@given(shapes, shapes)
def test_broadcasting(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    graph = Graph(
        inputs=(GraphInput(name="a", shape=a or (1,)), GraphInput(name="b", shape=b or (1,))),
        nodes=[make_node("y", "add", ["a", "b"])],
        outputs=("y",),
        weights={},
    )
    a, b = a or (1,), b or (1,)
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(GraphError, match="do not broadcast"):
            infer_shapes(graph, {"a": a, "b": b})
        return
    assert infer_shapes(graph, {"a": a, "b": b})["y"] == expected


@RUNS
@given(st.integers(1, 9), st.integers(0, 12), st.one_of(st.none(), st.integers(0, 12)), st.integers(1, 4))
def test_slice(n: int, start: int, end: int | None, step: int) -> None:
    graph = one_node("slice", (2, n), attrs={"dim": 1, "start": start, "end": end, "step": step})
    expected = np.zeros((2, n))[:, start:end:step].shape
    if expected[1] == 0:
        with pytest.raises(GraphError, match="is empty"):
            infer_shapes(graph, {"x": (2, n)})
    else:
        assert infer_shapes(graph, {"x": (2, n)})["y"] == expected


@RUNS
@given(st.data(), st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5))
def test_open_target_means_the_reshape_it_was_made_for(data: st.DataObject, x: list[int]) -> None:
    total = int(np.prod(x))
    out: list[int] = []
    rest = total
    for _ in range(data.draw(st.integers(0, 4))):
        out.append(data.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
        rest //= out[-1]
    out.append(rest)
    asked = list(out)
    if data.draw(st.booleans()):
        asked[data.draw(st.integers(0, len(out) - 1))] = -1
    target = open_target(asked, tuple(x), tuple(out))
    assert resolve_reshape(target, tuple(x)) == tuple(out)
    if out[0] == x[0]:
        grown = (x[0] * 5, *x[1:])
        assert resolve_reshape(target, grown) == (out[0] * 5, *out[1:])


@pytest.mark.parametrize(
    ("op", "x", "attrs", "params", "message"),
    [
        (
            "conv2d",
            (1, 4, 8, 8),
            {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1},
            {"weight": (2, 3, 3, 3)},
            r"node 'y' \(conv2d\): expects 3 channels on axis 1, got 4 in shape \(1, 4, 8, 8\)",
        ),
        (
            "conv2d",
            (1, 3, 2, 8),
            {"stride": [1, 1], "padding": [0] * 4, "dilation": [2, 2], "groups": 1},
            {"weight": (2, 3, 3, 3)},
            r"kernel of 3 \(dilation 2, reach 5\) is larger than the padded input \(2 \+ 0 \+ 0 = 2\)",
        ),
        (
            "conv2d",
            (3, 8, 8),
            {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1},
            {"weight": (2, 3, 3, 3)},
            "expects a 4-d input, got shape",
        ),
        ("linear", (2, 5), {}, {"weight": (3, 4)}, "expects 4 features on the last axis"),
        ("softmax", (2, 5), {"dim": 2}, {}, "dim=2 is not an axis"),
        ("permute", (2, 5), {"dims": [0, 2, 1]}, {}, "does not fit shape"),
        ("flatten", (2, 5), {"start_dim": 1, "end_dim": 2}, {}, "does not fit shape"),
        ("reshape", (2, 5), {"shape": [0, 3, -1]}, {}, "do not divide by 6"),
        ("reshape", (2, 5), {"shape": [2, 4]}, {}, r"\(10 elements\) to \[2, 4\] \(8 elements\)"),
        ("reshape", (2, 5), {"shape": [-6, -1]}, {}, "copies axis 4"),
        ("pad", (2, 5), {"pads": [[0, 0]], "value": 0.0}, {}, "pads name 1 axes"),
        ("mean", (2, 5), {"dims": [2], "keepdim": False}, {}, "needs more axes"),
        ("sum", (2, 5), {"dims": [2], "keepdim": False}, {}, "sum over axes .* needs more axes"),
        ("group_norm", (2, 6, 4), {"groups": 4, "eps": 0.1}, {}, "groups=4 does not divide the 6 channels"),
        ("group_norm", (2, 6, 4), {"groups": 2, "eps": 0.1}, {"weight": (4,)}, "expects 4 channels"),
        ("group_norm", (6,), {"groups": 2, "eps": 0.1}, {}, "expects a 2-d or 3-d or 4-d input"),
        ("layer_norm", (2, 6), {"axes": 2, "eps": 0.1}, {}, "needs more axes"),
        ("layer_norm", (2, 6), {"axes": 1, "eps": 0.1}, {"bias": (5,)}, r"bias must have shape \(6,\), got \(5,\)"),
        ("edge_pad2d", (1, 2, 3, 3), {"padding": [3, 0, 0, 0], "mode": "reflect"}, {}, "smaller than the image"),
        ("index_select", (2, 5), {"dim": 1, "indices": [0, 5]}, {}, "index 5 is outside axis 1"),
        ("index_select", (2, 5), {"dim": 2, "indices": [0]}, {}, "dim=2 is not an axis"),
        ("prelu", (2, 5), {}, {"weight": (3,)}, "expects 3 channels"),
        ("pad", (3, 65536, 65536), {"pads": [[0, 0]] * 3, "value": 0.0}, {}, "more than 8589934592 elements"),
    ],
)
def test_what_does_not_fit(
    op: str, x: tuple[int, ...], attrs: dict[str, Any], params: dict[str, tuple[int, ...]], message: str
) -> None:
    graph = one_node(op, x, attrs=attrs, **{role: np.zeros(s, np.float32) for role, s in params.items()})
    with pytest.raises(GraphError, match=message):
        infer_shapes(graph, {"x": x})


@pytest.mark.parametrize(
    ("op", "attrs", "a", "b", "message"),
    [
        ("matmul", {}, (2, 3, 4), (2, 5, 6), r"expects \(\.\.\., M, K\) and"),
        ("matmul", {}, (2, 3, 4), (3, 4, 6), "equal axes before"),
        ("matmul", {}, (3, 4), (4, 6), "one rank from 3 on"),
        ("max_unpool2d", UNPOOL, (1, 2, 3, 3), (1, 2, 8, 8), r"expects \(1, 2, 4, 4\), the shape of the pool"),
        ("max_unpool2d", UNPOOL, (1, 2, 4, 4), (1, 2, 9, 8), r"cover \(8, 8\) of the image \(9, 8\)"),
        ("max_unpool2d", UNPOOL, (1, 2, 4), (1, 2, 8), "expects a 4-d input"),
    ],
)
def test_pairs_that_do_not_fit(
    op: str, attrs: dict[str, Any], a: tuple[int, ...], b: tuple[int, ...], message: str
) -> None:
    node = make_node("y", op, ["a", "b"], attrs=attrs)
    graph = Graph(
        inputs=(GraphInput(name="a", shape=a), GraphInput(name="b", shape=b)), nodes=[node], outputs=("y",), weights={}
    )
    with pytest.raises(GraphError, match=message):
        infer_shapes(graph, {"a": a, "b": b})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no shape was given for input 'x'"),
        ({"x": (1, 2), "z": (1,)}, r"unknown inputs \['z'\]: this graph takes \['x'\]"),
        ({"x": (1, 2, 3)}, "must have 2 axes"),
        ({"x": (0, 2)}, "every extent must be in 1"),
        ({"x": (-1, 2)}, "every extent must be in 1"),
        ({"x": (2**31, 2)}, "every extent must be in 1"),
        ({"x": (1.0, 2)}, "extents must be integers"),
    ],
)
def test_bad_input_shapes(given: Any, message: str) -> None:
    graph = Graph(
        inputs=(GraphInput(name="x", shape=(1, 2)),),
        nodes=[make_node("y", "relu", ["x"])],
        outputs=("y",),
        weights={},
    )
    with pytest.raises(GraphError, match=message):
        infer_shapes(graph, given)


def test_macs_count_multiply_adds() -> None:
    """Against counts worked out by hand."""
    conv = {"stride": [2, 2], "padding": [1] * 4, "dilation": [1, 1], "groups": 2}
    up = {"stride": [2, 2], "padding": [0, 0], "output_padding": [0, 0], "dilation": [1, 1], "groups": 2}
    weights = {
        "c": np.zeros((6, 2, 3, 3), np.float32),
        "t": np.zeros((6, 4, 2, 2), np.float32),
        "l": np.zeros((5, 8), np.float32),
    }
    graph = Graph(
        inputs=(GraphInput(name="x", shape=(1, 4, 8, 8)),),
        nodes=[
            make_node("c", "conv2d", ["x"], params={"weight": "c"}, attrs=conv, weights=weights),
            make_node("r", "relu", ["c"]),
            make_node("t", "conv_transpose2d", ["r"], params={"weight": "t"}, attrs=up, weights=weights),
            make_node("m", "mean", ["t"], attrs={"dims": [2, 3], "keepdim": False}),
            make_node("l", "linear", ["m"], params={"weight": "l"}, weights=weights),
        ],
        outputs=("l",),
        weights=weights,
    )
    shapes = infer_shapes(graph, {"x": (3, 4, 8, 8)})
    assert macs(graph, shapes) == {
        "c": 3 * 6 * 4 * 4 * 2 * 9,
        "r": 0,
        "t": 3 * 6 * 4 * 4 * 4 * 4,
        "m": 0,
        "l": 3 * 5 * 8,
    }
