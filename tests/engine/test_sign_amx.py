"""Signs as bytes on tile registers, real or emulated: equal to the last bit to the interpreter's whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.binary_nets import batch_norm, conv
from tests.engine.byte_tiles import SPLITS, on_tiles, take
from tests.engine.nets import Maker, compiled
from tests.engine.test_binary import same


@on_tiles
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3), in_c=st.integers(1, 100), mid_c=st.integers(1, 70), out_c=st.integers(1, 40),
    h=st.integers(2, 18), w=st.integers(2, 38), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 4)] * 4), pad_value=st.sampled_from([1, -1, 0]),
    threads=st.sampled_from([1, 2, 3]), split=st.sampled_from(SPLITS),
)  # fmt: skip
def test_any_geometry(
    isa: str, n: int, in_c: int, mid_c: int, out_c: int, h: int, w: int, kernel: tuple[int, int],
    stride: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, ...], pad_value: int, threads: int,
    split: str,
) -> None:  # fmt: skip
    """From floats to signs by thresholds, and from signs to floats."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    h = max(h, reach[0] - padding[0] - padding[2] + stride[0])  # more than one row of outputs
    w = max(w, reach[1] - padding[1] - padding[3])
    make = Maker(in_c, (n, in_c, h, w))
    y = conv(
        make, "x0", in_c, mid_c, kernel, stride=stride, dilation=dilation, padding=padding, pad_value=pad_value,
        thresholds=make.rng.integers(-9, 10, mid_c).astype(np.int32),
    )  # fmt: skip
    graph = make.graph(conv(make, y, mid_c, out_c, pad_value=pad_value))
    net = compiled(graph, isa, threads)
    assert take(net, split) == 2
    same(graph, net)


@on_tiles
@pytest.mark.parametrize("split", SPLITS)
def test_scales_biases_residuals_and_activations(isa: str, split: str) -> None:
    make = Maker(4, (2, 48, 6, 7), (2, 20, 6, 7))
    scale = (np.float32(2.0) ** make.rng.integers(-3, 1, 20)).astype(np.float32)
    y = conv(make, "x0", 48, 20, scale=scale, bias=make.rng.integers(-4, 5, 20).astype(np.float32))
    graph = make.graph(make.op("relu", make.op("add", y, "x1")))
    net = compiled(graph, isa, 2)
    assert take(net, split) == 1
    same(graph, net)


@on_tiles
@pytest.mark.parametrize("pad_value", [1, -1, 0])
def test_signs_from_layer_to_layer_through_a_pool(isa: str, pad_value: int) -> None:
    make = Maker(5, (2, 64, 14, 15))
    y = batch_norm(make, conv(make, "x0", 64, 96, pad_value=pad_value), 96)
    y = make.op("max_pool2d", y, kernel_size=[2, 2], stride=[2, 2], padding=[0] * 4, dilation=[1, 1], ceil_mode=False)
    y = batch_norm(make, conv(make, y, 96, 33, pad_value=pad_value), 33)
    graph = make.graph(conv(make, y, 33, 8, pad_value=pad_value))
    for split in SPLITS:
        net = compiled(graph, isa, 2)
        assert take(net, split) == 3
        same(graph, net)
