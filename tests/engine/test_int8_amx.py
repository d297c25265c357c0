"""Products of bytes on tile registers, real or emulated: equal to the last bit to the interpreter's whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.engine.plan import candidates
from fastcnn.engine.plan.candidates import Target, byte_tile_candidates
from tests.engine.byte_tiles import SPLITS, on_tiles, take
from tests.engine.int8_nets import conv, levels, linear
from tests.engine.nets import Maker, compiled
from tests.engine.test_int8 import same


@on_tiles
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3), in_c=st.integers(1, 70), out_c=st.integers(1, 70), h=st.integers(1, 20), w=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), padding=st.tuples(*[st.integers(0, 4)] * 4),
    zero=st.sampled_from([0, 3, 255]), relu=st.booleans(), threads=st.sampled_from([1, 2, 3]),
    split=st.sampled_from(SPLITS),
)  # fmt: skip
def test_any_geometry(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kernel: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], padding: tuple[int, ...], zero: int, relu: bool, threads: int, split: str,
) -> None:  # fmt: skip
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    h, w = max(h, reach[0] - padding[0] - padding[2]), max(w, reach[1] - padding[1] - padding[3])
    make = Maker(in_c, (n, in_c, h, w))
    y = conv(
        make, "x0", in_c, out_c, kernel, stride=stride, dilation=dilation, padding=padding, zero=zero,
        bias=make.normal(out_c),
    )  # fmt: skip
    graph = make.graph(make.op("relu", y) if relu else y)
    net = compiled(graph, isa, threads)
    assert take(net, split) == 1
    same(graph, net)


@on_tiles
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("width", [7, 16, 30, 33])
def test_bytes_go_from_layer_to_layer(isa: str, width: int, split: str) -> None:
    """Tiles that end with rows, and tiles that run on over borders; the last layer makes floats of one pixel."""
    make = Maker(width, (2, 3, 9, width))
    y = make.op("relu", conv(make, "x0", 3, 40, zero=7))
    y = make.op("clamp", conv(make, y, 40, 72, stride=(2, 2)), min=0.0, max=3.0)
    y = conv(make, make.op("relu", conv(make, y, 72, 16, (1, 1))), 16, 70, zero=200)
    y = make.op("relu", y)
    graph = make.graph(linear(make, make.op("flatten", y, start_dim=1, end_dim=3), 70 * 5 * ((width + 1) // 2), 33))
    net = compiled(graph, isa, 2)
    assert take(net, split) == 5
    same(graph, net)


@on_tiles
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("quantized", [True, False])
def test_residuals(isa: str, quantized: bool, split: str) -> None:
    """Of bytes and of floats. Scales are powers of two, so that sums with the residual are exact."""
    make = Maker(2, (2, 24, 8, 7))
    exact = np.full(24, 2.0**-12, np.float32)
    x = conv(make, "x0", 24, 24, scale=exact)
    x = levels(make, x) if quantized else x
    y = make.op("relu", conv(make, x, 24, 24, scale=exact))
    y = make.op("relu", make.op("add", conv(make, y, 24, 24, scale=exact), x))
    y = levels(make, y) if quantized else y
    graph = make.graph(conv(make, y, 24, 24, scale=exact))
    net = compiled(graph, isa, 2)
    assert take(net, split) == 4
    same(graph, net)


@on_tiles
@pytest.mark.parametrize("images", [1, 5, 16, 37])
def test_images_of_one_pixel_are_the_pixels_of_a_tile(isa: str, images: int) -> None:
    make = Maker(3, (images, 70))
    y = make.op("relu", linear(make, "x0", 70, 50))
    graph = make.graph(linear(make, y, 50, 10))
    for split in SPLITS:
        net = compiled(graph, isa, 2)
        assert take(net, split) == 2
        same(graph, net)


@on_tiles
def test_nothing_saturates_at_the_extremes(isa: str) -> None:
    make = Maker(1, (1, 256, 5, 5))
    graph = make.graph(conv(make, "x0", 256, 32, factor=1e6, zero=0, extreme=True))
    net = compiled(graph, isa, 1)
    assert take(net, "tiles") == 1
    same(graph, net)


@on_tiles
def test_activations_that_are_no_clamp(isa: str) -> None:
    make = Maker(6, (1, 20, 6, 19))
    graph = make.graph(conv(make, make.op("hardswish", conv(make, "x0", 20, 24)), 24, 9, (1, 1)))
    net = compiled(graph, isa, 1)
    assert take(net, "tiles") == 2
    same(graph, net, tolerance=0.02)


@pytest.fixture
def amx_target(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(candidates, "_amx", lambda isa: "native")
    return Target(isa="avx512_amx", threads=2, lanes=16, l2_bytes=2 << 20)


def labels(target: Target, *args: Any) -> list[str]:
    return [c.label for c in byte_tile_candidates("int8_amx", target, *args)]


def test_candidates(amx_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels(amx_target, (1, 64, 56, 56), 36864) == ["int8_amx:tiles", "int8_amx:panels"]
    assert labels(amx_target, (1, 512, 7, 7), 9 << 18) == ["int8_amx:panels", "int8_amx:tiles"]
    assert labels(amx_target, (1, 32, 56, 56), 36864) == ["int8_amx:tiles"], "too few outputs for two threads"
    assert labels(amx_target, (1, 1000, 1, 1), 1 << 20) == [], "a single pixel waits for its weights"
    assert labels(amx_target, (16, 1000, 1, 1), 1 << 20) == ["int8_amx:panels", "int8_amx:tiles"]
    monkeypatch.setattr(candidates, "_amx", lambda isa: "emulated")
    assert labels(amx_target, (1, 64, 56, 56), 36864) == []
