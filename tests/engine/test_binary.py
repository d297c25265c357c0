"""Layers of signs: kernels of bits against the float64 interpreter, bit for bit, on every ISA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn.engine.graph import Graph, GraphError
from fastcnn.engine.graph import binary as ops
from fastcnn.engine.graph.graph import Node
from fastcnn.engine.graph.ops import check_graph
from fastcnn.engine.plan.passes import fold_signs
from fastcnn.engine.run.net import CompiledNet
from tests.engine.binary_nets import batch_norm, conv, linear
from tests.engine.nets import ISAS, Maker, choose, compiled, native, poison
from tests.reference.interpreter import run_graph

pytestmark = pytest.mark.parametrize("isa", ISAS)


def kernels(net: CompiledNet) -> list[str]:
    return [native(net).net.kernel(i) for i in range(native(net).net.steps)]


def whole_numbers(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Inputs with zeros, both of them, and small whole numbers."""
    rng = np.random.default_rng(seed)
    found = []
    for value in graph.inputs:
        x = rng.integers(-3, 4, value.shape).astype(np.float32)
        x[rng.random(value.shape) < 0.1] = -0.0
        found.append(x)
    return found


def same(graph: Graph, net: CompiledNet, inputs: list[np.ndarray] | None = None) -> None:
    """The net's outputs are the interpreter's, to the last bit of float32."""
    inputs = whole_numbers(graph) if inputs is None else inputs
    expected = run_graph(graph, {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)})
    poison(net)
    for y, e in zip(net.run(inputs), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(y), e.astype(np.float32))


GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"kernel": (1, 1)},
    {"kernel": (1, 1), "stride": (2, 2)},
    {"kernel": (5, 3), "padding": (2, 0, 1, 2)},
    {"stride": (2, 1)},
    {"dilation": (2, 3), "padding": (2, 3, 2, 3)},
    {"kernel": (2, 4), "stride": (3, 2), "padding": (1, 3, 0, 2), "dilation": (2, 1)},
    {"kernel": (3, 3), "padding": (4, 4, 4, 4)},
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pad_value", [1, -1, 0])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_sums_of_signs_are_exact(isa: str, geometry: dict[str, Any], pad_value: int, threads: int) -> None:
    for channels, filters in ((3, 5), (32, 40), (65, 17), (128, 64)):
        make = Maker(channels, (2, channels, 9, 11))
        graph = make.graph(conv(make, "x0", channels, filters, pad_value=pad_value, **geometry))
        net = compiled(graph, isa, threads)
        assert any(name.startswith("sign_conv_f32") for name in kernels(net))
        same(graph, net)


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 63, 64, 65, 127, 300])
def test_every_number_of_channels(isa: str, channels: int) -> None:
    """Words that are not full, on both sides; one picture of one pixel, and more."""
    for shape in ((1, channels, 1, 1), (3, channels, 4, 7)):
        make = Maker(channels, shape)
        first = conv(make, "x0", channels, channels, thresholds=make.rng.integers(-3, 4, channels).astype(np.int32))
        graph = make.graph(conv(make, first, channels, channels))
        net = compiled(graph, isa, 2)
        assert any(name.startswith("sign_conv_bits") for name in kernels(net))
        same(graph, net)


def test_every_tile_gives_the_same(isa: str) -> None:
    make = Maker(1, (1, 40, 9, 13))
    graph = make.graph(conv(make, "x0", 40, 100, pad_value=0))
    net = compiled(graph, isa, 1)
    (draft,) = [d for d in native(net).lowered.drafts if d.op == "sign_conv"]
    assert len(draft.candidates) >= 3
    for candidate in draft.candidates:
        choose(net, draft.name, candidate)
        word = "amx" if candidate.op == "sign_amx" else candidate.label.split(":")[1]
        assert any(word in name for name in kernels(net))
        same(graph, net)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_whole_words(isa: str, groups: int) -> None:
    make = Maker(groups, (2, 32 * groups, 6, 5))
    limits = make.rng.integers(-9, 10, 32 * groups).astype(np.int32)
    first = conv(make, "x0", 32 * groups, 32 * groups, groups=groups, thresholds=limits)
    graph = make.graph(conv(make, first, 32 * groups, 64 * groups, groups=groups, pad_value=-1))
    net = compiled(graph, isa, 2)
    assert sum(name.startswith("sign_conv") for name in kernels(net)) == 2
    same(graph, net)


@pytest.mark.parametrize(("channels", "filters"), [(64, 66), (66, 64), (64, 2), (32, 64)])
def test_groups_that_do_not_fill_their_words_are_expanded(isa: str, channels: int, filters: int) -> None:
    """On either side of the layer."""
    make = Maker(channels, (2, channels, 6, 5))
    graph = make.graph(conv(make, "x0", channels, filters, groups=2))
    net = compiled(graph, isa, 1, exact=True)
    assert any("no kernel of bits takes its groups: " in note for note in net.plan.notes)
    same(graph, net)


@pytest.mark.parametrize("binarize", [True, False])
@pytest.mark.parametrize("pad_value", [1, -1, 0])
def test_what_no_kernel_of_bits_takes_is_expanded(isa: str, binarize: bool, pad_value: int) -> None:
    """Narrow groups, and inputs that are no signs; the plan says so."""
    make = Maker(3, (2, 12, 6, 5))
    scale, bias = np.float32(2.0) ** make.rng.integers(-2, 3, 9), make.rng.integers(-3, 4, 9).astype(np.float32)
    graph = make.graph(
        conv(
            make,
            "x0",
            12,
            9,
            groups=3,
            pad_value=pad_value,
            binarize=binarize,
            scale=scale.astype(np.float32),
            bias=bias,
        )
    )
    net = compiled(graph, isa, 1, exact=True)
    assert any("expanded to dense" in note for note in net.plan.notes)
    assert not any(name.startswith("sign_conv") for name in kernels(net))
    same(graph, net)


def test_a_relu_or_a_sign_before_the_next_sign_is_folded(isa: str) -> None:
    """ReLU and a batch norm behind it; a sign before a pool and a flattening."""
    make = Maker(7, (2, 40, 8, 8))
    y = batch_norm(make, make.op("relu", conv(make, "x0", 40, 40)), 40)
    y = make.op("sign", conv(make, y, 40, 33))
    y = make.op("max_pool2d", y, kernel_size=[2, 2], stride=[2, 2], padding=[0] * 4, dilation=[1, 1], ceil_mode=False)
    y = linear(make, make.op("flatten", y, start_dim=1, end_dim=3), 33 * 16, 9)
    graph = make.graph(y)
    net = compiled(graph, isa, 2)
    assert sum("became a threshold" in note for note in net.plan.notes) == 2
    assert sum(name.startswith("sign_conv_bits") for name in kernels(net)) == 2
    same(graph, net)


@pytest.mark.parametrize("planes", [(1, 1), (1, 2), (1, 2, 4)])
def test_weights_of_several_planes(isa: str, planes: tuple[int, ...]) -> None:
    """Of inputs that are signs, and of others; to floats, and through a fold to signs."""
    make = Maker(len(planes), (2, 12, 6, 5))
    first = conv(make, "x0", 12, 40, planes=planes, binarize=False)
    second = batch_norm(make, conv(make, first, 40, 33, planes=planes, pad_value=-1), 33)
    graph = make.graph(conv(make, second, 33, 9, planes=planes, scale=np.full(9, 0.5, np.float32)))
    net = compiled(graph, isa, 1, exact=True)
    assert sum("weights of few bits expanded to dense" in note for note in net.plan.notes) == 3
    assert any("became a threshold" in note for note in net.plan.notes)
    same(graph, net)


def test_scales_biases_residuals_and_activations(isa: str) -> None:
    make = Maker(4, (2, 48, 6, 7), (2, 20, 6, 7))
    scale = (np.float32(2.0) ** make.rng.integers(-3, 1, 20)).astype(np.float32)
    y = conv(make, "x0", 48, 20, scale=scale, bias=make.rng.integers(-4, 5, 20).astype(np.float32))
    graph = make.graph(make.op("relu", make.op("add", y, "x1")))
    net = compiled(graph, isa, 2)
    assert not any("relu" in name or "binary" in name for name in kernels(net))
    same(graph, net)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("pad_value", [1, -1, 0])
def test_batch_norm_between_binary_layers_becomes_thresholds(isa: str, pad_value: int, pool: bool) -> None:
    """Scales above, below and at zero; with a clamp and a max pool, all activations stay bits."""
    make = Maker(5, (2, 24, 8, 9))
    scale = make.normal(40)
    scale[::7] = 0.0
    y = batch_norm(make, conv(make, "x0", 24, 40, pad_value=pad_value), 40, scale=scale)
    y = make.op("clamp", y, min=-1.0, max=1.0)
    if pool:
        y = make.op(
            "max_pool2d", y, kernel_size=[3, 2], stride=[2, 2], padding=[1, 1, 1, 0], dilation=[1, 1], ceil_mode=False
        )
    y = make.op("flatten", conv(make, y, 40, 33, pad_value=pad_value), start_dim=1, end_dim=3)
    graph = make.graph(y)
    net = compiled(graph, isa, 2)
    assert [name.split("_")[0] for name in kernels(net)].count("sign") == 2
    assert any(name.startswith("sign_conv_bits") for name in kernels(net))
    assert any(name == "max_pool_bits" for name in kernels(net)) == pool
    assert any("became a threshold" in note for note in net.plan.notes)
    same(graph, net)


def test_a_net_of_signs_to_its_last_layer(isa: str) -> None:
    """Convolution, pool, flatten, two linear layers."""
    make = Maker(6, (3, 3, 12, 12))
    y = batch_norm(make, conv(make, "x0", 3, 32), 32)
    y = make.op("max_pool2d", y, kernel_size=[2, 2], stride=[2, 2], padding=[0] * 4, dilation=[1, 1], ceil_mode=False)
    y = make.op("flatten", batch_norm(make, conv(make, y, 32, 48), 48), start_dim=1, end_dim=3)
    y = batch_norm(make, linear(make, y, 48 * 36, 70), 70)
    graph = make.graph(linear(make, y, 70, 10, bias=make.rng.integers(-4, 5, 10).astype(np.float32)))
    net = compiled(graph, isa, 2)
    assert sum(name.startswith("sign_conv_bits") for name in kernels(net)) == 3
    assert sum(name.startswith("sign_conv_f32") for name in kernels(net)) == 1
    same(graph, net)


def test_values_that_others_read_too_stay_floats(isa: str) -> None:
    make = Maker(7, (1, 32, 5, 5))
    y = batch_norm(make, conv(make, "x0", 32, 32), 32, scale=np.ones(32, np.float32))
    graph = make.graph(conv(make, y, 32, 8), make.op("relu", y))
    net = compiled(graph, isa, 1)
    assert not any(name.startswith("sign_conv_bits") for name in kernels(net))
    expected = run_graph(graph, {"x0": whole_numbers(graph)[0]})
    got = net.run(whole_numbers(graph))
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5)


def test_thresholds_whose_signs_others_read(isa: str) -> None:
    """As a file may have them: signs in floats, and both at once."""
    make = Maker(9, (2, 32, 5, 5))
    limits = make.rng.integers(-9, 10, 20).astype(np.int32)
    y = conv(make, "x0", 32, 20, thresholds=limits, pad_value=0)
    pooled = make.op(
        "max_pool2d", y, kernel_size=[2, 2], stride=[2, 2], padding=[0] * 4, dilation=[1, 1], ceil_mode=False
    )
    flat = make.op("flatten", pooled, start_dim=1, end_dim=3)
    graph = make.graph(y, linear(make, flat, 80, 7), flat)
    check_graph(graph)
    same(graph, compiled(graph, isa, 2))


def test_signs_of_odd_numbers(isa: str) -> None:
    """Zeros of both signs are +1, as are the smallest numbers above; NaN and what is below are -1."""
    make = Maker(8, (1, 8, 1, 1))
    weight = np.eye(8, dtype=np.float32)[:, :, None, None]
    bits = ops.pack(np.where(weight > 0, 1, -1).astype(np.float32))
    y = make.op(
        "binary_conv2d", "x0", params={"bits": bits}, in_channels=8, kernel_size=[1, 1], stride=[1, 1], padding=[0] * 4,
        dilation=[1, 1], groups=1, binarize=True, planes=[1], pad_value=1,
    )  # fmt: skip
    graph = make.graph(y, make.op("sign", "x0"))
    x = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 2.0], np.float32).reshape(1, 8, 1, 1)
    want = np.array([1, 1, 1, -1, 1, -1, -1, 1], np.float32)
    sums, direct = compiled(graph, isa, 1).run([x])
    np.testing.assert_array_equal(direct.reshape(-1), want)
    np.testing.assert_array_equal(sums.reshape(-1), (2 * np.eye(8) - 1) @ want)


def test_thresholds_are_those_of_every_sum(isa: str) -> None:
    """Against the functions at every sum there can be: rising, falling, constant, with means on whole numbers."""
    if isa != ISAS[0]:
        pytest.skip("the same on all")
    rng = np.random.default_rng(0)
    length, outputs = 45, 200
    scale = rng.standard_normal(outputs).astype(np.float32)
    scale[::9] = 0
    shift = np.round(rng.standard_normal(outputs) * 20).astype(np.float32)
    scale[1::9], shift[1::9] = np.float32(1e-3), np.float32(-1e-3) * np.float32(7)

    def function(x: np.ndarray) -> np.ndarray:
        return x * scale + shift

    found = fold_signs.thresholds([function], outputs, length)
    assert found is not None
    limits, negated = found
    for total in range(-length, length + 1):
        want = function(np.full(outputs, total, np.float32)) >= 0
        np.testing.assert_array_equal(np.where(negated, -total, total) >= limits, want)
    assert fold_signs.thresholds([lambda x: x * np.float32(np.nan)], outputs, length) is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"bits": np.zeros((4, 7), np.uint8)}, "must have 8 bytes in a row for 27 weights, got 7"),
    ({"bits": np.full((4, 8), 255, np.uint8)}, "bits past the last weight must be zero"),
    ({"scale": np.ones(3, np.float32)}, "scale must have 4 entries"),
    ({"thresholds": np.ones(4, np.int32), "bias": np.ones(4, np.float32)}, "neither scale nor bias"),
    ({"thresholds": np.ones(5, np.int32)}, "thresholds must have 4 entries"),
    ({"planes": [1, 2, 4]}, "must have a row for each output in each of 3 planes, got 4"),
    ({"planes": [1, 256]}, "planes.* 1..8 integers in 1..128"),
]


@pytest.mark.parametrize(("params", "said"), BAD, ids=[said for _, said in BAD])
def test_parameters_that_do_not_fit_are_named(isa: str, params: dict[str, Any], said: str) -> None:
    if isa != ISAS[0]:
        pytest.skip("the same on all")
    make = Maker(0, (1, 3, 4, 4))
    attrs = {"planes": [1], **{role: value for role, value in params.items() if role == "planes"}}
    arrays = {"bits": np.zeros((4, 8), np.uint8), **{role: v for role, v in params.items() if role not in attrs}}
    y = make.op(
        "binary_conv2d", "x0", params=arrays, in_channels=3, kernel_size=[3, 3], stride=[1, 1], padding=[0] * 4,
        dilation=[1, 1], groups=1, binarize=True, pad_value=1, **attrs,
    )  # fmt: skip
    with pytest.raises(GraphError, match=said):
        check_graph(make.graph(y))


def test_bits_and_back(isa: str) -> None:
    if isa != ISAS[0]:
        pytest.skip("the same on all")
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1, 1), (3, 31, 1, 1), (5, 7, 3, 3), (2, 64, 1, 1), (2, 65, 1, 1)):
        weight = np.where(rng.random(shape) < 0.5, -1, 1).astype(np.float32)
        node = Node(
            name="n", op="binary_conv2d", inputs=("x",), params={},
            attrs={"in_channels": shape[1], "groups": 1, "planes": [1], "kernel_size": list(shape[2:])},
        )  # fmt: skip
        bits = ops.pack(weight)
        assert bits.shape == (shape[0], -(-int(np.prod(shape[1:])) // 64) * 8)
        np.testing.assert_array_equal(ops.unpack(node, bits), weight)
