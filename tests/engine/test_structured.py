"""Layers of few numbers: their kernels and their expansion against the float64 interpreter, on every ISA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn.engine.graph import Graph, GraphError
from fastcnn.engine.graph.schema import MAX_WINDOW
from fastcnn.engine.plan.lowering import structured as lowering
from fastcnn.engine.plan.passes import sweep_train
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import DIRECT, ISAS, Maker, compiled, error_of, inputs_for, native, poison
from tests.engine.structured_nets import acdc, block_circulant, circulant, fastfood, signs, with_bias

Case = dict[str, Any]


def error(graph: Graph, isa: str, threads: int, kernel: str) -> float:
    """Error of a graph that must run by a kernel of this name."""
    net = compiled(graph, isa, threads)
    names = [native(net).net.kernel(i) for i in range(native(net).net.steps)]
    assert any(name.startswith(kernel) for name in names), names
    poison(net)
    return error_of(net, inputs_for(graph), least=1.0)


pytestmark = pytest.mark.parametrize("isa", ISAS)
NATIVE = pytest.mark.parametrize("threads", [1, 2, 3])


@NATIVE
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((1, 512), 512), ((3, 512), 100), ((2, 300), 700), ((2, 2, 129), 129), ((1, 1024), 1025)],
    ids=str,
)
def test_circulant(isa: str, threads: int, shape: tuple[int, ...], outputs: int) -> None:
    """A transform as long as the vector, and a longer one that must not wrap; outputs cut, and in several parts."""
    for bias in (True, False):
        make = Maker(3, shape)
        graph = make.graph(circulant(make, "x0", shape[-1], outputs, bias=bias))
        assert error(graph, isa, threads, "spectral_f32_") <= DIRECT


@NATIVE
@pytest.mark.parametrize("size", [4, 5, 8, 15, 16, 17, 32, 64])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 35])
def test_block_circulant(isa: str, threads: int, size: int, rows: int) -> None:
    """Blocks that hang over on both sides, more rows than are taken at once."""
    make = Maker(size, (rows, 131))
    graph = make.graph(block_circulant(make, "x0", 131, 150, size, bias=rows != 2))
    assert error(graph, isa, threads, f"block_circulant_f32_b{size}_") <= DIRECT


@NATIVE
@pytest.mark.parametrize(("length", "inputs", "outputs"), [(128, 128, 128), (256, 200, 300), (512, 512, 40)])
def test_fastfood(isa: str, threads: int, length: int, inputs: int, outputs: int) -> None:
    make = Maker(length, (3, inputs))
    graph = make.graph(fastfood(make, "x0", length, outputs, bias=inputs != 512))
    assert error(graph, isa, threads, "fastfood_f32_") <= DIRECT


@pytest.mark.parametrize("length", [1, 2, 4, 8, 16, 32, 64])
def test_the_hadamard_transform_of_short_rows(isa: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter than a vector, one vector, a few."""
    monkeypatch.setattr(lowering, "_LEAST", 0)
    make = Maker(length, (3, length))
    graph = make.graph(fastfood(make, "x0", length, 2 * length, bias=True))
    assert error(graph, isa, 1, "fastfood_f32_") <= DIRECT


@NATIVE
@pytest.mark.parametrize(("length", "inputs", "outputs"), [(512, 512, 512), (1024, 900, 50), (1536, 1536, 1536)])
@pytest.mark.parametrize("layers", [1, 3])
def test_acdc(isa: str, threads: int, length: int, inputs: int, outputs: int, layers: int) -> None:
    for bias, relu in ((True, True), (False, False)):
        if not bias and length == 1536:
            continue
        make = Maker(length + layers, (2, inputs))
        graph = make.graph(acdc(make, "x0", length, outputs, layers, bias=bias, relu=relu))
        assert error(graph, isa, threads, "spectral_f32_") <= 2 * DIRECT


def test_every_transform_there_is(isa: str) -> None:
    """Circulants of every length whose half is a number of points."""
    from fastcnn import _native

    found = _native.spectral_points(isa)
    assert found == sorted(set(found))
    assert {256, 512, 1024, 2048, 4096} <= set(found)
    generator = np.random.default_rng(0)
    for points in found:
        length = 2 * points
        make = Maker(points, (1, length))
        vector = generator.standard_normal((1, length)).astype(np.float32)
        params = {"vectors": vector, "signs": signs(make, 1, length)}
        graph = make.graph(make.op("circulant_linear", "x0", params=params, out_features=length))
        net = compiled(graph, isa, 1)
        (x,) = inputs_for(graph)
        flipped = x.astype(np.float64) * params["signs"]
        want = np.fft.ifft(np.fft.fft(flipped) * np.fft.fft(vector.astype(np.float64))).real
        assert float(np.abs(np.asarray(net(x)) - want).max() / np.abs(want).max()) <= DIRECT


def expanded(graph: Graph, isa: str) -> CompiledNet:
    net = compiled(graph, isa, 1)
    assert any("expanded" in note for note in net.plan.notes)
    return net


@pytest.mark.parametrize("kind", ["circulant", "block", "fastfood", "acdc", "acdc-linear", "train", "conv"])
def test_small_layers_are_expanded(isa: str, kind: str) -> None:
    """And those that no kernel takes: the dense layer that they stand for."""
    shape = (2, 6, 5, 7) if kind == "conv" else (3, 12)
    make = Maker(5, shape)
    if kind == "circulant":
        y = circulant(make, "x0", 12, 30, bias=True)
    elif kind == "block":
        y = block_circulant(make, "x0", 12, 10, 5, bias=True)
    elif kind == "fastfood":
        y = fastfood(make, "x0", 16, 20, bias=True)
    elif kind == "acdc":
        y = acdc(make, "x0", 13, 9, 3, bias=True, relu=True)
    elif kind == "acdc-linear":
        y = acdc(make, "x0", 13, 9, 3, bias=True, relu=False)
    elif kind == "train":
        params = {"core0": make.normal(1, 3, 2, 4), "core1": make.normal(4, 2, 3, 2), "core2": make.normal(2, 2, 2, 1)}
        y = make.op(
            "tt_linear", "x0", params=with_bias(make, params, 11, True), in_features=12, out_features=11
        )  # fmt: skip
    else:
        params = {"vectors": make.normal(4, 2, 2, 3, 3)}
        y = make.op(
            "block_circulant_conv2d", "x0", params=with_bias(make, params, 6, True), out_features=6, stride=[2, 1],
            padding=[1, 1, 1, 1], dilation=[1, 2], groups=2,
        )  # fmt: skip
    graph = make.graph(y)
    assert error_of(expanded(graph, isa), inputs_for(graph), least=1.0) <= DIRECT


def train(make: Maker, cores: list[tuple[int, int, int, int]], shape: tuple[int, ...], outputs: int, bias: bool) -> str:
    """A node with these cores on the first input."""
    params = {f"core{k}": make.normal(*core) * np.float32(core[0] * core[2]) ** -0.5 for k, core in enumerate(cores)}
    return make.op(
        "tt_linear", "x0", params=with_bias(make, params, outputs, bias), in_features=shape[-1], out_features=outputs
    )


TRAINS = {
    "rightward": [(1, 2, 7, 3), (3, 3, 5, 4), (4, 2, 6, 1)],
    "leftward": [(1, 7, 2, 3), (3, 5, 3, 4), (4, 6, 2, 1)],
    "one core": [(1, 12, 20, 1)],
    "four": [(1, 3, 4, 5), (5, 4, 3, 8), (8, 2, 4, 2), (2, 5, 2, 1)],
}


@pytest.mark.parametrize("name", TRAINS)
def test_walks_through_a_train(isa: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directions, padded inputs and cut outputs, more axes, with and without a bias, at one batch and another."""
    monkeypatch.setattr(sweep_train, "pays", lambda *given: True)
    cores = TRAINS[name]
    inputs, outputs = (int(np.prod([core[i] for core in cores])) for i in (2, 1))
    shapes: list[tuple[int, ...]] = [*cores]
    assert (sweep_train._macs(shapes, True) < sweep_train._macs(shapes, False)) == (name in ("rightward", "four"))
    for lead, cut, bias in (((3,), 0, True), ((1,), 1, False), ((2, 2), 1, True), ((2, 1, 3), 0, False)):
        shape = (*lead, inputs - cut)
        make = Maker(7 + cut, shape)
        graph = make.graph(train(make, cores, shape, outputs - cut, bias))
        for threads in (1, 2):
            net = compiled(graph, isa, threads)
            assert any("cores one after the other" in note for note in net.plan.notes)
            poison(net)
            assert error_of(net, inputs_for(graph), least=1.0) <= DIRECT


def test_a_train_is_walked_where_it_pays(isa: str) -> None:
    """A large layer at few rows: no array of its size is made. Small layers, and high ranks, are expanded."""
    if isa != ISAS[-1]:
        pytest.skip("a rule, the same on all")
    large = {f"core{k}": np.zeros(core, np.float32) for k, core in enumerate([(1, 64, 64, 4), (4, 64, 64, 1)])}
    assert sweep_train.pays(large, (1, 4096), 4096)
    assert sweep_train.pays(large, (16, 4096), 4096)
    small = {f"core{k}": np.zeros(core, np.float32) for k, core in enumerate([(1, 4, 3, 4), (4, 4, 4, 1)])}
    assert not sweep_train.pays(small, (1, 12), 16)
    full = {f"core{k}": np.zeros(core, np.float32) for k, core in enumerate([(1, 64, 64, 512), (512, 64, 64, 1)])}
    assert not sweep_train.pays(full, (64, 4096), 4096)
    padded = {"core0": np.zeros((1, 1, MAX_WINDOW + 2, 1), np.float32)}
    assert not sweep_train.pays(padded, (1, 1), 1)
    assert not sweep_train.pays(large, (4096,), 4096)  # no axis for rows
    make = Maker(0, (1, 4096))
    graph = make.graph(train(make, [(1, 64, 64, 4), (4, 64, 64, 1)], (1, 4096), 4096, True))
    net = compiled(graph, isa, 2)
    assert net.plan.weight_bytes < 1 << 20
    assert error_of(net, inputs_for(graph), least=1.0) <= DIRECT


BAD: list[tuple[str, Case, Case, str]] = [
    ("circulant_linear", {"vectors": (2, 5), "signs": (1, 5)}, {"out_features": 9}, "must have one shape"),
    (
        "circulant_linear",
        {"vectors": (2, 5), "signs": (2, 5)},
        {"out_features": 11},
        r"out_features=11 must be in 6..10",
    ),
    ("circulant_linear", {"vectors": (2, 5), "signs": (2, 5)}, {"out_features": 5}, r"out_features=5 must be in 6..10"),
    ("circulant_linear", {"vectors": (1, 5), "signs": (1, 5), "bias": (4,)}, {"out_features": 5}, "bias must have 5"),
    ("block_circulant_linear", {"vectors": (2, 3, 4)}, {"out_features": 9}, r"out_features=9 must be in 5..8"),
    (
        "fastfood_linear",
        {"scale": (1, 6), "gauss": (1, 6), "signs": (1, 6), "permutation": np.arange(6, dtype=np.int32)[None]},
        {"out_features": 6},
        "must be a power of two long, got 6",
    ),
    (
        "fastfood_linear",
        {"scale": (1, 4), "gauss": (1, 4), "signs": (1, 4), "permutation": np.array([[0, 1, 2, 2]], np.int32)},
        {"out_features": 4},
        r"must hold each of 0\.\.3 once",
    ),
    (
        "fastfood_linear",
        {"scale": (1, 4), "gauss": (1, 4), "signs": (1, 4), "permutation": np.array([[0, 1, 2, 9]], np.int32)},
        {"out_features": 4},
        r"must hold each of 0\.\.3 once",
    ),
    ("acdc_linear", {"a": (2, 5), "d": (2, 5)}, {"out_features": 5, "relu": True}, "2 layers need 1 permutations"),
    ("tt_linear", {"core1": (1, 2, 2, 1)}, {"out_features": 2, "in_features": 2}, "parameter 'core0' is missing"),
    (
        "tt_linear",
        {"core0": (1, 2, 2, 3), "core1": (2, 2, 2, 1)},
        {"out_features": 4, "in_features": 4},
        "ranks of neighbouring cores must agree",
    ),
    ("tt_linear", {"core0": (1, 2, 3, 1)}, {"out_features": 2, "in_features": 4}, "in_features=4 exceeds the 3"),
]


@pytest.mark.parametrize(("op", "params", "attrs", "said"), BAD, ids=[f"{case[0]}-{i}" for i, case in enumerate(BAD)])
def test_parameters_that_do_not_fit_are_named(isa: str, op: str, params: Case, attrs: Case, said: str) -> None:
    from fastcnn.engine.graph.ops import check_graph

    make = Maker(0, (2, 5))
    arrays = {r: v if isinstance(v, np.ndarray) else make.normal(*v) for r, v in params.items()}
    with pytest.raises(GraphError, match=said):
        check_graph(make.graph(make.op(op, "x0", params=arrays, **attrs)))


HUGE: list[tuple[str, Case, Case, int]] = [
    ("tt_linear", {f"core{k}": (1, 16, 16, 1) for k in range(8)}, {"in_features": 1, "out_features": 1}, 1),
    ("acdc_linear", {"a": (1, 1 << 17), "d": (1, 1 << 17)}, {"out_features": 1, "relu": False}, 1),
]


@pytest.mark.parametrize(("op", "params", "attrs", "width"), HUGE, ids=[case[0] for case in HUGE])
def test_few_numbers_that_stand_for_terabytes_are_refused(
    isa: str, op: str, params: Case, attrs: Case, width: int
) -> None:
    make = Maker(0, (2, width))
    arrays = {role: np.zeros(shape, np.float32) for role, shape in params.items()}
    with pytest.raises(GraphError, match=r"its matrix takes [\d.]+ GiB to make and at most [\d.]+ are allowed"):
        compiled(make.graph(make.op(op, "x0", params=arrays, **attrs)), isa, 1)


def test_long_blocks_with_few_outputs_take_what_is_wanted(isa: str) -> None:
    """The matrix of a block of 60,000 would be 14 GB; two rows of it are not."""
    make = Maker(1, (1, 60_000))
    params = {"vectors": make.normal(1, 60_000), "signs": signs(make, 1, 60_000)}
    graph = make.graph(make.op("circulant_linear", "x0", params=params, out_features=2))
    net = compiled(graph, isa, 1)
    (x,) = inputs_for(graph)
    rolled = np.stack([np.roll(params["vectors"][0, ::-1], i + 1) for i in range(2)]).astype(np.float64)
    want = (x.astype(np.float64) * params["signs"]) @ rolled.T
    assert float(np.abs(np.asarray(net(x)) - want).max() / np.abs(want).max()) < 1e-4
