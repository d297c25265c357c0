"""Layers of one and two bits: planes of signs against the float64 interpreter, bit for bit, on every ISA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.engine.graph import Graph, binary
from fastcnn.engine.plan.lowering.binary import level_limits
from fastcnn.engine.run.net import CompiledNet
from tests.engine.binary_nets import conv
from tests.engine.nets import ISAS, Maker, choose, compiled, native, poison
from tests.reference.interpreter import run_graph

FORMS = [(1, 1), (1, 2), (2, 1)]
"""Bits of weights and inputs."""


def levels(make: Maker, x: str, bits: int, factor: float | None = None) -> str:
    top = (1 << bits) - 1
    return make.op("quantize", x, factor=float(top if factor is None else factor), step=1.0, zero=0, low=0, high=top)


def kernels(net: CompiledNet) -> list[str]:
    return [native(net).net.kernel(i) for i in range(native(net).net.steps)]


def numbers(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """On both sides of every limit, on halves, which go to even numbers, and beyond; zeros, infinities."""
    rng = np.random.default_rng(seed)
    found = []
    for value in graph.inputs:
        x = rng.integers(-3, 10, value.shape).astype(np.float32) / np.float32(6)
        x = np.where(rng.random(value.shape) < 0.5, np.nextafter(x, rng.choice([-9, 9], value.shape)), x)
        for odd, share in ((-0.0, 0.05), (np.inf, 0.01), (-np.inf, 0.01), (1e-42, 0.02)):
            x[rng.random(value.shape) < share] = odd
        found.append(x.astype(np.float32))
    return found


def same(graph: Graph, net: CompiledNet) -> None:
    inputs = numbers(graph)
    expected = run_graph(graph, {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)})
    poison(net)
    for y, e in zip(net.run(inputs), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(y), e.astype(np.float32))


GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"kernel": (1, 1), "stride": (2, 2)},
    {"kernel": (5, 3), "padding": (2, 0, 1, 2)},
    {"kernel": (2, 4), "stride": (3, 2), "padding": (1, 3, 0, 2), "dilation": (2, 1)},
    {"padding": (4, 4, 4, 4)},
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("weight_bits", "input_bits"), FORMS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_sums_of_planes_are_exact(
    isa: str, geometry: dict[str, Any], weight_bits: int, input_bits: int, threads: int
) -> None:
    """Channels that fill words and that do not; every sum is a whole number, so all its bits are compared."""
    for channels, filters in ((3, 5), (32, 40), (65, 17)):
        make = Maker(channels, (2, channels, 9, 11))
        planes = tuple(1 << k for k in range(weight_bits))
        out = conv(
            make, levels(make, "x0", input_bits), channels, filters, planes=planes, binarize=False, pad_value=0,
            **geometry,
        )  # fmt: skip
        graph = make.graph(out)
        net = compiled(graph, isa, threads)
        assert any(name.startswith("levels_") for name in kernels(net))
        assert any(name.startswith("sign_conv_f32") for name in kernels(net))
        assert len(kernels(net)) == 4, "nothing but layouts beside them"
        same(graph, net)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("weight_bits", "input_bits"), FORMS)
def test_every_tile_gives_the_same(isa: str, weight_bits: int, input_bits: int) -> None:
    """More products than bytes hold counts of."""
    make = Maker(1, (1, 300, 9, 13))
    planes = tuple(1 << k for k in range(weight_bits))
    graph = make.graph(conv(make, levels(make, "x0", input_bits), 300, 100, planes=planes, binarize=False, pad_value=0))
    net = compiled(graph, isa, 1)
    (draft,) = [d for d in native(net).lowered.drafts if d.op == "sign_conv"]
    for candidate in draft.candidates:
        choose(net, draft.name, candidate)
        same(graph, net)


@pytest.mark.parametrize("isa", ISAS)
def test_two_layers_read_the_same_levels_and_one_reads_floats(isa: str) -> None:
    make = Maker(0, (1, 20, 6, 5))
    q = levels(make, "x0", 2)
    a = conv(make, q, 20, 8, planes=(1,), binarize=False, pad_value=0)
    b = conv(make, q, 20, 8, planes=(1,), binarize=False, pad_value=0)
    graph = make.graph(make.op("add", a, b))
    net = compiled(graph, isa, 1)
    assert sum(name.startswith("levels_") for name in kernels(net)) == 1
    same(graph, net)
    make = Maker(0, (1, 8, 6, 5))
    q = levels(make, "x0", 1)
    graph = make.graph(make.op("add", conv(make, q, 8, 8, planes=(1,), binarize=False, pad_value=0), q))
    net = compiled(graph, isa, 1)
    same(graph, net)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("weight_bits", "input_bits"), [(1, 4), (2, 2), (7, 8), (1, 8), (3, 1)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_more_bits_run_on_bytes(isa: str, geometry: dict[str, Any], weight_bits: int, input_bits: int) -> None:
    """Made straight from what is rounded, and clipped where the levels end."""
    for channels, filters in ((3, 5), (40, 33)):
        make = Maker(channels, (2, channels, 9, 11))
        planes = tuple(1 << k for k in range(weight_bits))
        q = levels(make, "x0", input_bits)
        graph = make.graph(
            conv(make, q, channels, filters, planes=planes, binarize=False, pad_value=0, **geometry),
            conv(make, q, channels, filters, planes=planes, binarize=False, pad_value=0, **geometry),
        )
        net = compiled(graph, isa, 2)
        names = kernels(net)
        assert sum(name.startswith("int8_conv") for name in names) == 2
        assert sum(name.startswith("bytes_") for name in names) == 1
        assert not any("quantize" in name or name.startswith("math") for name in names)
        same(graph, net)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("weight_bits", "input_bits"), [(1, 1), (1, 2), (2, 2), (4, 3)])
def test_flattened_maps(isa: str, weight_bits: int, input_bits: int) -> None:
    """A linear layer reads the map itself, whatever its levels are held in."""
    make = Maker(5, (2, 20, 4, 3))
    x = make.op(
        "max_pool2d", "x0", kernel_size=[2, 2], stride=[1, 1], padding=[0] * 4, dilation=[1, 1], ceil_mode=False
    )
    q = levels(make, make.op("flatten", x, start_dim=1, end_dim=3), input_bits)
    planes = [1 << k for k in range(weight_bits)]
    bits = binary.pack(np.where(make.rng.random((len(planes) * 7, 120)) < 0.5, -1, 1).astype(np.float32))
    out = make.op("binary_linear", q, params={"bits": bits}, in_features=120, planes=planes, binarize=False)
    graph = make.graph(out)
    net = compiled(graph, isa, 1)
    assert not any(name.startswith("math") or "quantize" in name for name in kernels(net))
    assert len(kernels(net)) == 5, "layout, pool, levels, products, layout"
    same(graph, net)


@pytest.mark.parametrize(
    ("weight_bits", "input_bits", "groups", "binarize"), [(8, 8, 1, False), (1, 1, 2, False), (2, 1, 1, True)]
)
def test_what_neither_takes_is_expanded(weight_bits: int, input_bits: int, groups: int, binarize: bool) -> None:
    make = Maker(0, (1, 64, 6, 5))
    planes = tuple(1 << k for k in range(weight_bits))
    q = levels(make, "x0", input_bits)
    graph = make.graph(conv(make, q, 64, 64, planes=planes, binarize=binarize, pad_value=0, groups=groups))
    net = compiled(graph, ISAS[0], 1, exact=True)
    assert not any(name.startswith(("sign_conv", "int8_conv")) for name in kernels(net))
    assert any("expanded to dense float32" in note for note in net.plan.notes)


@pytest.mark.parametrize("factor", [1.0, 3.0, 2.7, 0.1, 1e-20, 1e20])
@pytest.mark.parametrize("count", [1, 3])
def test_limits_are_where_rounding_steps(factor: float, count: int) -> None:
    limits = level_limits(np.float32(factor), count)
    at = np.rint(limits * np.float32(factor))
    before = np.rint(np.nextafter(limits, np.float32(-np.inf)) * np.float32(factor))
    assert (at >= np.arange(1, count + 1)).all()
    assert (before < np.arange(1, count + 1)).all()


@pytest.mark.parametrize(("weight_bits", "input_bits"), FORMS)
def test_dorefa_nets_run_on_planes(weight_bits: int, input_bits: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * 16, 32), nn.BatchNorm1d(32), nn.Linear(32, 10),
    )  # fmt: skip
    x = torch.randn(16, 3, 8, 8)
    model: Any = fc.prepare(net, fc.DoReFaConfig(weight_bits=weight_bits, input_bits=input_bits))
    for _ in range(3):
        model(x)
    small = fc.convert(model.eval())
    compiled_net = fc.compile(small, x[:1], threads=1, strict=True, tune=False)
    names = [step.kernel for step in compiled_net.plan.steps]
    assert sum(name.startswith("sign_conv") for name in names) == 2
    for picture in x:
        got, want = np.asarray(compiled_net(picture[None].numpy())), small(picture[None]).detach().numpy()
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
