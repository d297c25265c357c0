"""Convolution on the tile registers of AMX against the float64 interpreter: natively where the CPU has them, and
emulated everywhere. Memory is poisoned first.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _native
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import DIRECT, ISAS, Maker, choose, compiled, error_of, inputs_for, native

TILES = [isa for isa in ISAS if _native.amx(isa)]
pytestmark = pytest.mark.parametrize("isa", TILES)
CHANNELS = st.sampled_from([1, 3, 15, 16, 17, 32, 33, 48, 70])
MANY = st.sampled_from([15, 16, 33, 70])  # one output alone can cancel to nothing, and its relative error with it
SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 14, 15, 20])
ACTIVATIONS = [
    None, ("relu", {}), ("clamp", {"min": 0.0, "max": 6.0}), ("silu", {}), ("hardswish", {}), ("sigmoid", {}),
    ("tanh", {}), ("leaky_relu", {"negative_slope": 0.1}), ("elu", {"alpha": 0.7}), ("gelu", {"approximate": "none"}),
]  # fmt: skip
# What bf16x3 leaves out of a product is up to 3 * 2^-18 of it, and a product of few can be larger than their
# sum, or than what the activation makes of it.
SPLIT = 4e-5


def on_bf16_grid(x: np.ndarray) -> np.ndarray:
    """Numbers of 8 significant bits, near those given."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def take(net: CompiledNet, layer: str, **attrs: object) -> None:
    """Run the layer on tile registers."""
    choose(net, layer, Candidate("amx", "amx", {"groups": 1, **attrs}, exact=False))
    assert f"amx_{attrs['products']}_" in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 5), in_c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, kh=st.integers(1, 4), kw=st.integers(1, 4),
    stride=st.integers(1, 3), dilation=st.integers(1, 3), pad=st.integers(0, 2), threads=st.integers(1, 3),
    residual=st.booleans(), act=st.sampled_from(ACTIVATIONS), rows=st.integers(1, 8), images=st.integers(1, 5),
    split=st.sampled_from(["pixels", "panels"]), products=st.sampled_from(["bf16", "bf16x3"]),
)  # fmt: skip
def test_convolution(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: int, dilation: int, pad: int,
    threads: int, residual: bool, act: tuple[str, dict[str, float]] | None, rows: int, images: int, split: str,
    products: str,
) -> None:  # fmt: skip
    """bf16x3 is fp32 but for the last bits; weights and inputs that bf16 holds lose nothing in bf16 either."""
    h, w = max(h, (kh - 1) * dilation + 1 - 2 * pad), max(w, (kw - 1) * dilation + 1 - 2 * pad)
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    arguments = {"stride": stride, "dilation": dilation, "padding": [pad] * 4}
    blocked = make.op("mul_scalar", make.op("max_pool2d", "x0", kernel_size=[1, 1], stride=[1, 1], padding=[0] * 4,
                      dilation=[1, 1], ceil_mode=False), value=2.0)  # fmt: skip
    layer = y = make.conv(blocked, in_c, out_c, (kh, kw), **arguments)
    key = make.nodes[-1].params["weight"]
    if products == "bf16":
        make.weights[key] = on_bf16_grid(make.weights[key])
    if residual:
        y = make.op("add", y, make.conv(blocked, in_c, out_c, (kh, kw), **arguments))
    if act is not None:
        y = make.op(act[0], y, **act[1])
    graph = make.graph(y)
    net = compiled(graph, isa, threads, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    if draft.op != "direct" or not draft.inputs[0].storage.blocked:
        return
    images = min(images, n)
    take(net, layer, split=split, rows=draft.out.nchw[2] if images > 1 else rows, images=images, products=products)
    inputs = inputs_for(graph)
    if products == "bf16":
        assert error_of(net, [on_bf16_grid(x) for x in inputs], least=1.0) <= DIRECT
    else:
        assert error_of(net, inputs, least=1.0) <= SPLIT


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3), in_c=st.integers(1, 5), out_c=MANY, h=SIZES, w=SIZES, kh=st.integers(1, 5),
    kw=st.integers(1, 12), stride=st.integers(1, 4), down=st.integers(1, 2), pad=st.integers(0, 2),
    threads=st.integers(1, 3), rows=st.integers(1, 8), split=st.sampled_from(["pixels", "panels"]),
    products=st.sampled_from(["bf16", "bf16x3"]),
)  # fmt: skip
def test_convolution_of_a_picture(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: int, down: int, pad: int,
    threads: int, rows: int, split: str, products: str,
) -> None:  # fmt: skip
    """Planes: the columns of a row of taps are multiplied together."""
    h, w = max(h, (kh - 1) * down + 1 - 2 * pad), max(w, kw - 2 * pad)
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    layer = make.conv("x0", in_c, out_c, (kh, kw), stride=stride, dilation=[down, 1], padding=[pad] * 4)
    key = make.nodes[-1].params["weight"]
    if products == "bf16":
        make.weights[key] = on_bf16_grid(make.weights[key])
    graph = make.graph(layer)
    net = compiled(graph, isa, threads, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    if draft.inputs[0].storage.blocked or draft.op != "direct":
        return
    take(net, layer, split=split, rows=rows, images=1, products=products)
    inputs = inputs_for(graph)
    if products == "bf16":
        assert error_of(net, [on_bf16_grid(x) for x in inputs], least=1.0) <= DIRECT
    else:
        assert error_of(net, inputs, least=1.0) <= SPLIT


def wide_layer(isa: str, products: str, weight: np.ndarray | None = None) -> tuple[CompiledNet, str]:
    make = Maker(3, (2, 64, 12, 12))
    layer = make.conv(make.op("mul_scalar", "x0", value=1.0), 64, 40, 3, padding=[1] * 4)
    if weight is not None:
        make.weights[make.nodes[-1].params["weight"]] = weight
    net = compiled(make.graph(layer), isa, 2, exact=True)
    take(net, layer, split="pixels", rows=5, images=1, products=products)
    return net, layer


def test_three_products_are_worth_eight_bits(isa: str) -> None:
    """bf16x3 is over a hundred times more exact than bf16, and near fp32."""
    errors = {p: error_of(net, inputs_for(net.graph)) for p in ("bf16", "bf16x3") for net, _ in [wide_layer(isa, p)]}
    assert 1e-4 < errors["bf16"] < 1e-2
    assert errors["bf16x3"] < 5e-6


def test_numbers_beyond_bf16(isa: str) -> None:
    """Infinities and NaN come out as from fp32; what a tile holds beside the map does not reach it."""
    net, _ = wide_layer(isa, "bf16x3")
    (x,) = inputs_for(net.graph)
    expected = net.run([x])[0]
    for bad in (np.inf, -np.inf, np.nan):
        y = x.copy()
        y[1, 5, 4, 7] = bad
        (got,) = net.run([y])
        touched = np.zeros(got.shape, bool)
        touched[1, :, 3:6, 6:9] = True
        assert np.array_equal(got[~touched], expected[~touched])
        assert not np.isfinite(got[touched]).any()


@pytest.mark.parametrize("split", ["pixels", "panels"])
def test_threads_and_blocks_change_no_bit(isa: str, split: str) -> None:
    make = Maker(5, (3, 50, 9, 11))
    layer = make.conv(make.op("mul_scalar", "x0", value=1.0), 50, 90, 3, padding=[1] * 4, stride=2)
    graph = make.graph(layer)
    outputs = []
    for threads, rows, images in [(1, 5, 1), (1, 2, 1), (2, 5, 3), (3, 5, 2), (2, 3, 1)]:
        net = compiled(graph, isa, threads, exact=True)
        take(net, layer, split=split, rows=rows, images=images, products="bf16x3")
        outputs.append(net.run(inputs_for(graph))[0])
    assert all(np.array_equal(y, outputs[0]) for y in outputs[1:])
