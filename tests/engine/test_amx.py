"""Convolution on the tile registers of AMX against the float64 interpreter: natively where the CPU has them, and
emulated everywhere. Memory is poisoned first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _native
from fastcnn.engine.plan import candidates
from fastcnn.engine.plan.candidates import AmxLayer, Target, amx_candidates, amx_likely
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import DIRECT, ISAS, Maker, choose, compiled, error_of, fuse, inputs_for, native, poison

on_tiles = pytest.mark.parametrize("isa", [isa for isa in ISAS if _native.amx(isa)])
CHANNELS = st.sampled_from([1, 3, 15, 16, 17, 32, 33, 48, 70])
MANY = st.sampled_from([15, 16, 33, 70])  # one output alone can cancel to nothing, and its relative error with it
SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 14, 15, 20])
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDINGS = st.tuples(*[st.integers(0, 2)] * 4)
ACTIVATIONS = [
    None, ("relu", {}), ("clamp", {"min": 0.0, "max": 6.0}), ("silu", {}), ("hardswish", {}), ("sigmoid", {}),
    ("tanh", {}), ("leaky_relu", {"negative_slope": 0.1}), ("elu", {"alpha": 0.7}), ("gelu", {"approximate": "none"}),
]  # fmt: skip
# What bf16x3 leaves out of a product is up to 2^-15 of it, and a product of few can be larger than their sum, or than
# what the activation makes of it.
SPLIT = 4e-5
SIX = 4 * DIRECT  # as many sums again as there are products, each rounded


def on_bf16_grid(x: np.ndarray) -> np.ndarray:
    """Numbers of 8 significant bits, near those given."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def take(net: CompiledNet, layer: str, **attrs: object) -> None:
    """Run the layer on tile registers."""
    choose(net, layer, Candidate("amx", "amx", {"groups": 1, **attrs}, exact=False))
    assert f"amx_{attrs['products']}_" in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))


def check(net: CompiledNet, products: str) -> None:
    """bf16x6 is fp32, bf16x3 but for the last bits; inputs that bf16 holds, with such weights, lose nothing in bf16."""
    inputs = inputs_for(net.graph)
    if products == "bf16":
        assert error_of(net, [on_bf16_grid(x) for x in inputs], least=1.0) <= DIRECT
    else:
        assert error_of(net, inputs, least=1.0) <= (SPLIT if products == "bf16x3" else SIX)


@on_tiles
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 5), in_c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, kh=st.integers(1, 4), kw=st.integers(1, 4),
    stride=PAIRS, dilation=PAIRS, pad=PADDINGS, threads=st.integers(1, 3), residual=st.booleans(),
    act=st.sampled_from(ACTIVATIONS), rows=st.integers(1, 8), images=st.integers(1, 5),
    split=st.sampled_from(["pixels", "panels"]), products=st.sampled_from(["bf16", "bf16x3", "bf16x6"]),
)  # fmt: skip
def test_convolution(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: tuple[int, int],
    dilation: tuple[int, int], pad: tuple[int, int, int, int], threads: int, residual: bool,
    act: tuple[str, dict[str, Any]] | None, rows: int, images: int, split: str, products: str,
) -> None:  # fmt: skip
    h = max(h, (kh - 1) * dilation[0] + 1 - pad[0] - pad[2])
    w = max(w, (kw - 1) * dilation[1] + 1 - pad[1] - pad[3])
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    arguments = {"stride": stride, "dilation": dilation, "padding": pad}
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
    net = compiled(make.graph(y), isa, threads, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    if draft.op != "direct" or not draft.inputs[0].storage.blocked:
        return
    images = min(images, n)
    take(net, layer, split=split, rows=draft.out.nchw[2] if images > 1 else rows, images=images, products=products)
    check(net, products)


@on_tiles
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3), in_c=st.integers(1, 5), out_c=MANY, h=SIZES, w=SIZES, kh=st.integers(1, 5),
    kw=st.integers(1, 12), stride=st.tuples(st.integers(1, 3), st.integers(1, 4)), down=st.integers(1, 2), pad=PADDINGS,
    threads=st.integers(1, 3), act=st.sampled_from(ACTIVATIONS), rows=st.integers(1, 8),
    split=st.sampled_from(["pixels", "panels"]), products=st.sampled_from(["bf16", "bf16x3", "bf16x6"]),
)  # fmt: skip
def test_convolution_of_a_picture(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: tuple[int, int], down: int,
    pad: tuple[int, int, int, int], threads: int, act: tuple[str, dict[str, Any]] | None, rows: int, split: str,
    products: str,
) -> None:  # fmt: skip
    """Planes: the columns of a row of taps are multiplied together."""
    h, w = max(h, (kh - 1) * down + 1 - pad[0] - pad[2]), max(w, kw - pad[1] - pad[3])
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    layer = make.conv("x0", in_c, out_c, (kh, kw), stride=stride, dilation=[down, 1], padding=pad)
    key = make.nodes[-1].params["weight"]
    if products == "bf16":
        make.weights[key] = on_bf16_grid(make.weights[key])
    # No activation that may leave one small output of a picture: its error would be relative to that.
    keeps = act if act is not None and act[0] in ("leaky_relu", "elu", "sigmoid", "tanh") else None
    net = compiled(
        make.graph(layer if keeps is None else make.op(keeps[0], layer, **keeps[1])), isa, threads, exact=True
    )
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    if draft.inputs[0].storage.blocked or draft.op != "direct":
        return
    take(net, layer, split=split, rows=rows, images=1, products=products)
    check(net, products)


@on_tiles
@pytest.mark.parametrize("products", ["bf16", "bf16x3", "bf16x6"])
@pytest.mark.parametrize("in_c", [1, 2, 3, 4, 5])
def test_rows_of_a_picture_of_many_vectors(isa: str, in_c: int, products: str) -> None:
    """Whole vectors of pixels one after the other, and a rest."""
    make = Maker(in_c, (1, in_c, 9, 50))
    layer = make.conv("x0", in_c, 20, 5, stride=2)
    key = make.nodes[-1].params["weight"]
    if products == "bf16":
        make.weights[key] = on_bf16_grid(make.weights[key])
    net = compiled(make.graph(layer), isa, 1, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    assert not draft.inputs[0].storage.blocked
    take(net, layer, split="pixels", rows=2, images=1, products=products)
    check(net, products)


@on_tiles
def test_slopes_of_channels(isa: str) -> None:
    make = Maker(6, (2, 40, 7, 9))
    layer = make.conv(make.op("mul_scalar", "x0", value=1.0), 40, 50)
    net = compiled(make.graph(make.op("prelu", layer, params={"weight": make.normal(50)})), isa, 2, exact=True)
    take(net, layer, split="pixels", rows=3, images=1, products="bf16x3")
    check(net, "bf16x3")


def wide_layer(isa: str, products: str) -> CompiledNet:
    make = Maker(3, (2, 64, 12, 12))
    layer = make.conv(make.op("mul_scalar", "x0", value=1.0), 64, 40, 3, padding=[1] * 4)
    net = compiled(make.graph(layer), isa, 2, exact=True)
    take(net, layer, split="pixels", rows=5, images=1, products=products)
    return net


@on_tiles
def test_each_part_is_worth_eight_bits(isa: str) -> None:
    """Three products are over a hundred times more exact than one, and six are fp32."""
    errors = {}
    for products in ("bf16", "bf16x3", "bf16x6"):
        net = wide_layer(isa, products)
        errors[products] = error_of(net, inputs_for(net.graph))
    assert 1e-4 < errors["bf16"] < 1e-2
    assert errors["bf16x6"] < errors["bf16x3"] < 5e-6
    assert errors["bf16x6"] < DIRECT


@on_tiles
def test_numbers_beyond_bf16(isa: str) -> None:
    """An infinity comes out as one or as NaN (its products with both parts of a weight), a NaN as NaN, and both where
    they should; what a tile holds beside the map does not reach it.
    """
    net = wide_layer(isa, "bf16x3")
    (x,) = inputs_for(net.graph)
    expected = net.run([x])[0]
    for bad in (np.inf, -np.inf, np.nan, np.float32(3.4e38)):
        y = x.copy()
        y[1, 5, 4, 7] = bad
        (got,) = net.run([y])
        touched = np.zeros(got.shape, bool)
        touched[1, :, 3:6, 6:9] = True
        assert np.array_equal(got[~touched], expected[~touched])
        assert not np.isfinite(got[touched]).any()
        assert np.isnan(got[touched]).all() == np.isnan(bad)


@on_tiles
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


@on_tiles
@pytest.mark.parametrize(("split", "images"), [("pixels", 1), ("panels", 1), ("pixels", 2), ("panels", 2)])
@pytest.mark.parametrize("products", ["bf16", "bf16x3", "bf16x6"])
def test_in_bands(isa: str, split: str, images: int, products: str) -> None:
    """Two layers and the depthwise one between them: the rows of a band are the same numbers."""
    make = Maker(9, (2, 40, 15, 15))
    first = make.conv(make.op("mul_scalar", "x0", value=1.0), 40, 70)
    middle = make.conv(make.op("relu", first), 70, 70, groups=70)
    last = make.conv(make.op("relu", middle), 70, 40, 1)
    net = compiled(make.graph(make.op("mul_scalar", last, value=2.0)), isa, 2, exact=True)
    for layer in (first, last):
        take(net, layer, split=split, rows=15 if images > 1 else 4, images=images, products=products)
    inputs = inputs_for(net.graph)
    expected = net.run(inputs)
    assert fuse(net, 2) == 1
    for _ in range(5):  # one thread's scratch is not another's
        poison(net)
        assert np.array_equal(net.run(inputs)[0], expected[0])


def layer_of(**changes: Any) -> AmxLayer:
    known = {
        "batch": 1, "in_channels": 64, "out_channels": 64, "kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1),
        "out_map": (56, 56), "planar": False,
    }  # fmt: skip
    return AmxLayer(**{**known, **changes})


@pytest.fixture
def amx_target(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(candidates, "_amx", lambda isa: "native")
    return Target(isa="avx512_amx", threads=2, lanes=16, l2_bytes=2 << 20)


def labels(layer: AmxLayer, target: Target, *, relaxed: bool = False) -> list[str]:
    return [c.label for c in amx_candidates(layer, target, relaxed=relaxed)]


def test_candidates_share_out_rows_and_output_channels(amx_target: Target) -> None:
    found = labels(layer_of(), amx_target)
    assert {label.split(":")[1] for label in found} == {"pixels", "panels"}
    assert {label.split(":")[0] for label in found} == {"amx_bf16x3", "amx_bf16x6"}
    assert amx_likely(layer_of(), amx_target)
    assert labels(layer_of(), amx_target, relaxed=True)[0].startswith("amx_bf16:")
    small = layer_of(batch=8, out_map=(7, 7), in_channels=512, out_channels=512)
    assert labels(small, amx_target)[0] == "amx_bf16x3:panels:7x6"


def test_a_single_row_is_not_left_to_one_thread(amx_target: Target) -> None:
    line = layer_of(out_map=(1, 16000), kernel=(1, 3))
    assert {label.split(":")[1] for label in labels(line, amx_target)} == {"panels"}
    narrow = layer_of(out_map=(1, 16000), kernel=(1, 3), out_channels=32)
    assert labels(narrow, amx_target) == []


def test_what_is_mostly_wasted_is_not_offered(amx_target: Target) -> None:
    wide = layer_of(in_channels=2048, out_channels=256, dilation=(36, 36), out_map=(33, 33))
    assert labels(wide, amx_target) == []
    assert not amx_likely(layer_of(in_channels=2048, dilation=(6, 6), out_map=(33, 33)), amx_target)
    assert not amx_likely(layer_of(in_channels=16), amx_target)
    assert not amx_likely(layer_of(planar=True, in_channels=3), amx_target)
    assert amx_likely(layer_of(planar=True, in_channels=3, kernel=(7, 7), stride=(2, 2)), amx_target)
    assert labels(layer_of(batch=8, kernel=(7, 7), out_map=(1, 1)), amx_target) == []
    assert labels(layer_of(out_map=(2, 3)), amx_target) == []
