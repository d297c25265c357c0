"""Layers of 8 bits: kernels of bytes against the interpreter's whole numbers, to the last bit, on every ISA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.engine.graph import Graph, GraphError
from fastcnn.engine.graph.ops import check_graph
from fastcnn.engine.run.net import CompiledNet
from tests.engine.int8_nets import conv, levels, linear
from tests.engine.nets import ISAS, Maker, choose, compiled, native, poison
from tests.reference.interpreter import run_graph

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.parametrize("isa", ISAS)


def kernels(net: CompiledNet) -> list[str]:
    return [native(net).net.kernel(i) for i in range(native(net).net.steps)]


def inputs_of(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Values on levels, between them, half way, and outside."""
    rng = np.random.default_rng(seed)
    found = []
    for value in graph.inputs:
        x = (8 * rng.standard_normal(value.shape)).astype(np.float32)
        x.flat[::5] = np.round(x.flat[::5] * 8) / 8
        x.flat[::31] *= 100
        found.append(x)
    return found


def same(graph: Graph, net: CompiledNet, *, tolerance: float = 0.0) -> None:
    inputs = inputs_of(graph)
    expected = run_graph(graph, {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)})
    poison(net)
    for y, e in zip(net.run(inputs), expected, strict=True):
        if tolerance:
            assert np.abs(np.asarray(y) - e).max() <= tolerance * np.abs(e).max()
        else:
            np.testing.assert_array_equal(np.asarray(y), e.astype(np.float32))


GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"kernel": (1, 1)},
    {"kernel": (1, 1), "stride": (2, 2)},
    {"kernel": (7, 7), "stride": (2, 2)},
    {"kernel": (5, 3), "padding": (2, 0, 1, 2)},
    {"dilation": (2, 3), "padding": (2, 3, 2, 3)},
    {"kernel": (2, 4), "stride": (3, 2), "padding": (1, 3, 0, 2), "dilation": (2, 1)},
    {"padding": (4, 4, 4, 4)},
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_sums_of_products_are_exact(isa: str, geometry: dict[str, Any], threads: int) -> None:
    for channels, filters in ((3, 5), (16, 40), (33, 17), (64, 64)):
        make = Maker(channels, (2, channels, 9, 11))
        graph = make.graph(conv(make, "x0", channels, filters, bias=make.normal(filters), **geometry))
        net = compiled(graph, isa, threads)
        assert any(name.startswith("int8_conv_f32") for name in kernels(net))
        same(graph, net)


def test_nothing_saturates_at_the_extremes(isa: str) -> None:
    make = Maker(1, (1, 256, 5, 5))
    graph = make.graph(conv(make, "x0", 256, 32, factor=1e6, zero=0, extreme=True))
    net = compiled(graph, isa, 1)
    same(graph, net)


@pytest.mark.parametrize("zero", [0, 100, 255])
@pytest.mark.parametrize("channels", [1, 4, 5, 16, 17, 31, 48, 64, 130])
def test_bytes_go_from_layer_to_layer(isa: str, channels: int, zero: int) -> None:
    make = Maker(channels, (2, channels, 7, 6))
    y = make.op("relu", conv(make, "x0", channels, channels, zero=zero))
    y = conv(make, y, channels, 20, stride=(2, 2), factor=8.0, zero=3, bias=make.normal(20))
    graph = make.graph(conv(make, y, 20, 9, (1, 1), zero=zero))
    net = compiled(graph, isa, 2)
    assert sum(name.startswith("int8_conv_u8") for name in kernels(net)) == (2 if channels > 4 else 1)
    same(graph, net)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [5, 16, 40, 100])
def test_filters_of_their_own(isa: str, channels: int, stride: int) -> None:
    make = Maker(channels, (2, channels, 9, 8))
    y = conv(make, "x0", channels, channels, groups=channels, stride=(stride, stride), bias=make.normal(channels))
    y = conv(make, make.op("clamp", y, min=0.0, max=6.0), channels, channels, (5, 5), groups=channels, zero=0)
    graph = make.graph(conv(make, y, channels, 7, (1, 1)), y)
    net = compiled(graph, isa, 2)
    assert sum(name.startswith("int8_depthwise") for name in kernels(net)) == 2
    same(graph, net)


@pytest.mark.parametrize("quantized", [True, False])
def test_residuals_of_bytes_and_of_floats(isa: str, quantized: bool) -> None:
    """Scales are powers of two, so that sums with the residual are exact."""
    make = Maker(2, (2, 24, 8, 7))
    exact = np.full(24, 2.0**-12, np.float32)
    x = conv(make, "x0", 24, 24, scale=exact)
    x = levels(make, x) if quantized else x
    y = make.op("relu", conv(make, x, 24, 24, scale=exact))
    y = make.op("relu", make.op("add", conv(make, y, 24, 24, scale=exact), x))
    y = levels(make, y) if quantized else y
    graph = make.graph(make.op("add", y, conv(make, y, 24, 24, groups=24, scale=exact)))
    net = compiled(graph, isa, 2)
    names = kernels(net)
    assert sum(name.startswith("int8_conv_u8") for name in names) == (3 if quantized else 1)
    same(graph, net)


def test_pools_and_flattenings_of_bytes(isa: str) -> None:
    make = Maker(3, (2, 3, 17, 15))
    y = make.op("relu", conv(make, "x0", 3, 40, (7, 7), stride=(2, 2)))
    y = make.op("max_pool2d", y, kernel_size=[3, 3], stride=[2, 2], padding=[1] * 4, dilation=[1, 1], ceil_mode=False)
    y = make.op("flatten", conv(make, y, 40, 20), start_dim=1, end_dim=3)
    y = make.op("relu", linear(make, y, 20 * 5 * 4, 33))
    graph = make.graph(linear(make, y, 33, 10))
    net = compiled(graph, isa, 2)
    assert any(name.startswith("max_pool_u8") for name in kernels(net))
    assert sum(name.startswith("int8_conv_u8") for name in kernels(net)) == 3
    same(graph, net)


def test_readers_that_differ_get_floats(isa: str) -> None:
    make = Maker(4, (1, 20, 6, 6))
    y = conv(make, "x0", 20, 20)
    first, second = conv(make, y, 20, 8, zero=7), conv(make, y, 20, 8, factor=2.0)
    graph = make.graph(first, second, make.op("mean", y, dims=[2, 3], keepdim=False))
    net = compiled(graph, isa, 1)
    assert not any(name.startswith("int8_conv_u8") for name in kernels(net))
    expected = run_graph(graph, {"x0": inputs_of(graph)[0]})
    for got, want in zip(net.run(inputs_of(graph))[:2], expected, strict=False):
        np.testing.assert_array_equal(np.asarray(got), want.astype(np.float32))


def test_levels_that_are_read_as_floats(isa: str) -> None:
    make = Maker(5, (2, 20, 6, 5))
    y = levels(make, conv(make, "x0", 20, 24))
    graph = make.graph(conv(make, y, 24, 9), make.op("relu", y))
    net = compiled(graph, isa, 1)
    assert any(name.startswith("bytes_to_floats") for name in kernels(net))
    same(graph, net)


@pytest.mark.parametrize("act", ["hardswish", "silu", "hardsigmoid"])
def test_activations_of_floats_before_the_bytes(isa: str, act: str) -> None:
    """Their own roundings may move a level by one, here and there."""
    make = Maker(6, (1, 20, 6, 6))
    graph = make.graph(conv(make, make.op(act, conv(make, "x0", 20, 24)), 24, 9, (1, 1)))
    same(graph, compiled(graph, isa, 1), tolerance=0.02)


def test_groups_without_a_kernel_are_expanded(isa: str) -> None:
    make = Maker(7, (2, 12, 6, 5))
    graph = make.graph(conv(make, "x0", 12, 8, groups=2, bias=make.normal(8)))
    net = compiled(graph, isa, 1, exact=True)
    assert any("weights of 8 bits expanded to float32" in note for note in net.plan.notes)
    same(graph, net, tolerance=1e-6)


def test_every_tile_gives_the_same(isa: str) -> None:
    make = Maker(8, (1, 20, 9, 15))
    graph = make.graph(conv(make, "x0", 20, 100))
    net = compiled(graph, isa, 1)
    (draft,) = [d for d in native(net).lowered.drafts if d.op == "int8_conv"]
    assert len(draft.candidates) >= 2
    for candidate in draft.candidates:
        choose(net, draft.name, candidate)
        word = "amx" if candidate.op == "int8_amx" else candidate.label.split(":")[1]
        assert any(word in name for name in kernels(net))
        same(graph, net)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"scale": np.ones(3, np.float32)}, "scale must have 4 entries"),
    ({"scale": np.full(4, np.nan, np.float32)}, "holds NaN or infinity"),
    ({"weight": np.zeros((4, 70000, 1, 1), np.int8)}, "sums 70000 products; at most 65793"),
    ({"zero": 256}, r"zero.*0\.\.255"),
    ({"factor": 0.0}, "factor"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_parameters_that_do_not_fit_are_named(isa: str, change: dict[str, Any], said: str) -> None:
    if isa != ISAS[0]:
        pytest.skip("the same on all")
    make = Maker(0, (1, 3, 4, 4))
    params = {"weight": np.zeros((4, 3, 3, 3), np.int8), "scale": np.ones(4, np.float32)}
    attrs: dict[str, Any] = {"factor": 1.0, "zero": 0}
    for key, value in change.items():
        (attrs if key in attrs else params)[key] = value
    y = make.op(
        "int8_conv2d", "x0", params=params, stride=[1, 1], padding=[0] * 4, dilation=[1, 1], groups=1, **attrs
    )  # fmt: skip
    with pytest.raises(GraphError, match=said):
        check_graph(make.graph(y))


def test_without_sums_of_fours(isa: str) -> None:
    """CPUs that have them would leave the kernels without them untested."""
    if isa not in ("avx2", "avx512"):
        pytest.skip("has no kernels of both kinds")
    script = f"from tests.engine import test_int8 as t\nt.test_sums_of_products_are_exact('{isa}', {{}}, 2)"
    script += f"\nt.test_bytes_go_from_layer_to_layer('{isa}', 48, 100)\nt.test_filters_of_their_own('{isa}', 40, 1)"
    environment = {**os.environ, "FASTCNN_BYTE_DOTS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
