"""Every kernel against the float64 interpreter: random shapes, every instruction set, memory poisoned first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastcnn import _native
from fastcnn.engine.graph import Graph
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.tiles import WINOGRAD_TILES
from fastcnn.engine.plan.tune import exact_choice
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import (
    DIRECT,
    FFT,
    ISAS,
    WINOGRAD,
    Maker,
    choose,
    compiled,
    error_of,
    inputs_for,
    native,
    poison,
)  # fmt: skip
from tests.reference.interpreter import run_graph

pytestmark = pytest.mark.parametrize("isa", ISAS)
CHANNELS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 32, 33, 40])
MANY = st.sampled_from([15, 16, 17, 33])  # one output alone can cancel to nothing, and its relative error with it
SIZES = st.sampled_from([1, 2, 3, 5, 6, 7, 8, 13, 14, 15])
FEW = settings(max_examples=25, deadline=None, derandomize=True)
ACTIVATIONS = [
    ("relu", {}), ("clamp", {"min": 0.0, "max": 6.0}), ("clamp", {"min": None, "max": 0.5}), ("silu", {}),
    ("hardswish", {}), ("hardsigmoid", {}), ("sigmoid", {}), ("tanh", {}), ("exp", {}), ("softplus", {}), ("mish", {}),
    ("leaky_relu", {"negative_slope": 0.1}), ("elu", {"alpha": 0.7}), ("gelu", {"approximate": "none"}),
    ("gelu", {"approximate": "tanh"}),
]  # fmt: skip


def plain(graph: Graph, isa: str, threads: int = 1) -> CompiledNet:
    """Compile for kernels that reorder no algebra, as tolerance "fp32" has them: plain sums."""
    net = compiled(graph, isa, threads)
    native(net).choose(exact_choice(native(net).lowered))
    return net


@FEW
@given(
    n=st.integers(1, 3), in_c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, kh=st.integers(1, 5), kw=st.integers(1, 5),
    stride=st.integers(1, 3), dilation=st.integers(1, 2), pad=st.integers(0, 3), bias=st.booleans(),
    groups=st.sampled_from([1, 1, 1, 2, 4]), threads=st.integers(1, 3), act=st.sampled_from([None, *ACTIVATIONS[:4]]),
    exact=st.booleans(),
)  # fmt: skip
def test_direct_convolution(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: int, dilation: int, pad: int,
    bias: bool, groups: int, threads: int, act: tuple[str, dict[str, float]] | None, exact: bool,
) -> None:  # fmt: skip
    in_c, out_c = in_c * groups, out_c * groups
    h, w = max(h, (kh - 1) * dilation + 1 - 2 * pad), max(w, (kw - 1) * dilation + 1 - 2 * pad)
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    x = make.conv(
        "x0", in_c, out_c, (kh, kw), stride=stride, dilation=dilation, padding=[pad, pad, pad, pad], bias=bias,
        groups=groups,
    )  # fmt: skip
    if act is not None:
        x = make.op(act[0], x, **act[1])
    graph = make.graph(x)
    net = compiled(graph, isa, threads, exact=True) if exact else plain(graph, isa, threads)
    assert error_of(net, inputs_for(graph)) <= DIRECT


@FEW
@given(
    n=st.integers(1, 3), in_c=CHANNELS, out_c=CHANNELS, h=st.integers(1, 5), w=st.integers(1, 5), k=st.integers(1, 5),
    stride=st.integers(1, 2), pad=st.integers(0, 2), groups=st.sampled_from([1, 1, 2]), threads=st.integers(1, 3),
    residual=st.booleans(), act=st.sampled_from([None, "relu", "silu"]),
)  # fmt: skip
def test_weights_in_16_bits(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, k: int, stride: int, pad: int, groups: int, threads: int,
    residual: bool, act: str | None,
) -> None:  # fmt: skip
    in_c, out_c = in_c * groups, out_c * groups
    h, w = max(h, k - 2 * pad), max(w, k - 2 * pad)
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    arguments = {"stride": stride, "padding": [pad] * 4, "groups": groups}
    layer = y = make.conv("x0", in_c, out_c, k, **arguments)
    if residual:
        y = make.op("add", y, make.conv("x0", in_c, out_c, k, **arguments))
    graph = make.graph(y if act is None else make.op(act, y))
    net = compiled(graph, isa, threads, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    assume(draft.op == "direct")
    attrs = {**draft.candidates[0].attrs, "split": "panels", "weights": "i16", "compensated": 0, "sum_terms": 512}
    choose(net, layer, Candidate("half", draft.op, attrs, exact=False))
    assert "direct_i16" in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))
    # Every weight is off by up to 2^-16 of the largest of its 64; in sums of few products that is some 5e-5.
    assert error_of(net, inputs_for(graph), least=1.0) <= 1e-4


def on_bf16_grid(x: np.ndarray) -> np.ndarray:
    """Numbers of 8 significant bits, near those given."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@FEW
@given(
    n=st.integers(1, 2), in_c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, kh=st.integers(1, 4), kw=st.integers(1, 4),
    stride=st.integers(1, 3), dilation=st.integers(1, 2), pad=st.integers(0, 2), groups=st.sampled_from([1, 1, 2]),
    threads=st.integers(1, 3), residual=st.booleans(), tile=st.integers(0, 1), block=st.integers(1, 50),
    split=st.sampled_from(["pixels", "panels"]), terms=st.sampled_from([16, 512]),
)  # fmt: skip
def test_products_in_bf16(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, kh: int, kw: int, stride: int, dilation: int, pad: int,
    groups: int, threads: int, residual: bool, tile: int, block: int, split: str, terms: int,
) -> None:  # fmt: skip
    """Weights and inputs that bf16 holds lose nothing; the sums are those of fp32."""
    in_c, out_c = in_c * groups, out_c * groups
    h, w = max(h, (kh - 1) * dilation + 1 - 2 * pad), max(w, (kw - 1) * dilation + 1 - 2 * pad)
    make = Maker(n * 7 + in_c, (n, in_c, h, w))
    arguments = {"stride": stride, "dilation": dilation, "padding": [pad] * 4, "groups": groups}
    blocked = make.op("mul_scalar", make.op("max_pool2d", "x0", kernel_size=[1, 1], stride=[1, 1], padding=[0] * 4,
                      dilation=[1, 1], ceil_mode=False), value=2.0)  # fmt: skip
    layer = y = make.conv(blocked, in_c, out_c, (kh, kw), **arguments)
    key = make.nodes[-1].params["weight"]
    make.weights[key] = on_bf16_grid(make.weights[key])
    if residual:
        y = make.op("add", y, make.conv(blocked, in_c, out_c, (kh, kw), **arguments))
    graph = make.graph(y)
    net = compiled(graph, isa, threads, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    assume(draft.op == "direct" and draft.inputs[0].storage.blocked and draft.out.nchw[2:] != (1, 1))
    tile_pixels, panel = _native.direct_configs(isa)[tile]
    attrs = {
        "tile": tile_pixels, "panel": panel, "split": split, "pixel_block": block, "weights": "bf16", "compensated": 0,
        "sum_terms": terms,
    }  # fmt: skip
    choose(net, layer, Candidate("bf16", draft.op, attrs, exact=False))
    assert "direct_bf16" in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))
    assert error_of(net, [on_bf16_grid(x) for x in inputs_for(graph)], least=1.0) <= DIRECT


def test_weights_of_16_bits_lose_nothing(isa: str) -> None:
    """Weights on the grid of their scales come back as they were."""
    make = Maker(0, (2, 200))
    weight = make.rng.integers(-32767, 32768, (70, 200)).astype(np.float32)
    weight[:, ::50] = 32767.0  # every 64 products of an output see the largest value
    layer = make.op("linear", "x0", params={"weight": weight / np.float32(2**20), "bias": make.normal(70)})
    graph = make.graph(layer)
    net = compiled(graph, isa, 2, exact=True)
    draft = next(d for d in native(net).lowered.drafts if d.name == layer)
    attrs = {**draft.candidates[0].attrs, "split": "panels", "weights": "i16", "compensated": 0}
    choose(net, layer, Candidate("half", draft.op, attrs, exact=False))
    assert error_of(net, inputs_for(graph)) <= DIRECT


FORMS = [(2, (3, 3)), (4, (3, 3)), (6, (3, 3)), (2, (5, 5)), (4, (5, 5)), (3, (2, 2)), (5, (2, 2)), (7, (2, 2))] + [
    (m, shape) for k, ms in {3: (2, 4, 6), 5: (2, 4), 7: (2, 4)}.items() for m in ms for shape in ((1, k), (k, 1))
]


def test_the_forms_are_those_of_the_kernels(isa: str) -> None:
    assert {(m, *taps) for m, taps in FORMS} == set(_native.winograd_forms(isa))
    assert {(m, taps) for taps, ms in WINOGRAD_TILES.items() for m in ms} == set(FORMS)


def tiled_error(
    isa: str, candidate: Candidate, kernel: tuple[int, int], stride: tuple[int, int], n: int, in_c: int,
    out_c: int, h: int, w: int, dilation: tuple[int, int],
    pad: tuple[int, int, int, int], threads: int, residual: bool, act: str | None, late: bool,
) -> float:  # fmt: skip
    """Error of a convolution by tiles, with what may follow it."""
    dilation = tuple(1 if s > 1 else d for s, d in zip(stride, dilation, strict=True))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    h, w = max(h, reach[0] - pad[0] - pad[2]), max(w, reach[1] - pad[1] - pad[3])
    make = Maker(in_c, (n, in_c, h, w))
    blocked = make.op("mul_scalar", make.conv("x0", in_c, in_c, 1), value=1.5)
    y = make.conv(blocked, in_c, out_c, kernel, stride=stride, padding=list(pad), dilation=dilation)
    layer = y
    if residual:
        other = make.conv(blocked, in_c, out_c, kernel, stride=stride, padding=list(pad), dilation=dilation)
        if late and act:
            y = make.op("add", make.op(act, y), other)
        else:
            y = make.op("add", y, other)
    if act and not (residual and late):
        y = make.op(act, y)
    graph = make.graph(y)
    net = compiled(graph, isa, threads, exact=True)
    choose(net, layer, candidate)
    name = {"rows": "fft_rows", "own_rows": "fft_own_rows"}.get(candidate.attrs["split"], candidate.op)
    assert name in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))
    poison(net)
    return error_of(net, inputs_for(graph), least=1.0)


TILED = {
    "n": st.integers(1, 2), "in_c": CHANNELS, "out_c": CHANNELS, "h": st.integers(1, 20), "w": st.integers(1, 20),
    "pad": st.tuples(*[st.integers(0, 2)] * 4), "threads": st.integers(1, 3), "residual": st.booleans(),
    "act": st.sampled_from([None, "relu", "silu"]), "late": st.booleans(),
    "dilation": st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]),
}  # fmt: skip
SHARED_OUT = {
    "split": st.sampled_from(["tiles", "panels"]), "weights": st.sampled_from(["f32", "i16"]),
    "chunk": st.integers(1, 20),
}  # fmt: skip
FFT_SHARED_OUT = SHARED_OUT | {"split": st.sampled_from(["tiles", "panels", "rows", "own_rows"])}


STRIDES = st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)])


@FEW
@given(
    form=st.sampled_from(FORMS), stride=STRIDES, short=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    shared=st.fixed_dictionaries(SHARED_OUT), layer=st.fixed_dictionaries(TILED),
)  # fmt: skip
def test_winograd(
    isa: str, form: tuple[int, tuple[int, int]], stride: tuple[int, int], short: tuple[int, int],
    shared: dict[str, Any], layer: dict[str, Any],
) -> None:  # fmt: skip
    """With a stride, taps are those of its phases, of which the last may have one less."""
    m, taps = form
    kernel = tuple(t * s - min(less, s - 1) for t, s, less in zip(taps, stride, short, strict=True))
    t = m + max(taps) - 1
    rounding = {4: 1e-4, 6: 1e-3, 8: 5e-3, 10: 5e-2}[t] if shared["weights"] == "i16" else 0.0
    error = tiled_error(isa, Candidate("w", "winograd", {"m": m, **shared}, exact=False), kernel, stride, **layer)
    assert error <= WINOGRAD[t] + rounding


@pytest.mark.parametrize(
    ("op", "split"), [("winograd", "panels"), ("fft", "panels"), ("fft", "rows"), ("fft", "own_rows")]
)
@pytest.mark.parametrize(("in_c", "out_c"), [(64, 16), (65, 17), (130, 33), (200, 40)])
def test_spectra_of_16_bits_have_a_scale_for_every_64_channels(
    isa: str, op: str, split: str, in_c: int, out_c: int
) -> None:
    form = {"m": 2} if op == "winograd" else {"tile": 8}
    candidate = Candidate("w", op, {**form, "chunk": 9, "split": split, "weights": "i16"}, exact=False)
    error = tiled_error(
        isa, candidate, (3, 3), (1, 1), n=1, in_c=in_c, out_c=out_c, h=9, w=11, pad=(1, 1, 1, 1), threads=2,
        residual=False, act=None, late=False, dilation=(1, 1),
    )  # fmt: skip
    assert error <= 6e-5


@FEW
@given(
    size=st.sampled_from(range(12)), kh=st.integers(1, 64), kw=st.integers(1, 64), stride=STRIDES,
    shared=st.fixed_dictionaries(FFT_SHARED_OUT), layer=st.fixed_dictionaries(TILED),
)  # fmt: skip
def test_fft(
    isa: str, size: int, kh: int, kw: int, stride: tuple[int, int], shared: dict[str, Any], layer: dict[str, Any]
) -> None:
    """Kernels of any size up to the tile, maps smaller and larger than it, tiles that hang over."""
    tile = _native.fft_sizes(isa)[size]
    kernel = (min(kh, tile * stride[0]), min(kw, tile * stride[1]))
    layer["in_c"], layer["out_c"] = min(layer["in_c"], 20), min(layer["out_c"], 35)
    layer["pad"] = tuple(min(2 * pad, kernel[i % 2] - 1) for i, pad in enumerate(layer["pad"]))
    error = tiled_error(isa, Candidate("f", "fft", {"tile": tile, **shared}, exact=False), kernel, stride, **layer)
    assert error <= FFT + (1e-4 if shared["weights"] == "i16" else 0.0)


@pytest.mark.parametrize("split", ["rows", "own_rows"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_fft_by_rows_of_more_tiles_than_its_maps_hold(isa: str, threads: int, split: str) -> None:
    """25 tiles of 250,000 numbers: the rows are gone through twice; 5 threads share 4 rows out where tiles have 8."""
    attrs: dict[str, Any] = {"tile": 32, "chunk": 14, "split": split}
    layer = {"n": 1, "out_c": 64, "pad": (1, 1, 1, 1), "residual": True, "act": "relu", "late": False}
    more = {"in_c": 64, "h": 140, "w": 140, "dilation": (1, 1), "threads": threads}
    error = tiled_error(isa, Candidate("f", "fft", attrs, exact=False), (3, 3), (1, 1), **layer, **more)
    assert error <= FFT
    more |= {"in_c": 20, "h": 17, "w": 30}
    short = Candidate("f", "fft", {**attrs, "tile": 8}, exact=False)
    assert tiled_error(isa, short, (3, 3), (1, 1), **layer, **more) <= FFT


@FEW
@given(
    size=st.sampled_from(range(12)), kh=st.integers(1, 64), kw=st.integers(1, 64), n=st.integers(1, 2),
    c=CHANNELS.filter(lambda c: c > 1), h=SIZES, w=SIZES, pad=st.tuples(*[st.integers(0, 2)] * 4),
    threads=st.integers(1, 3), act=st.sampled_from([None, "relu", "silu"]), residual=st.booleans(),
)  # fmt: skip
def test_fft_depthwise(
    isa: str, size: int, kh: int, kw: int, n: int, c: int, h: int, w: int, pad: tuple[int, int, int, int],
    threads: int, act: str | None, residual: bool,
) -> None:  # fmt: skip
    tile = _native.fft_sizes(isa)[size]
    kh, kw = min(kh, tile), min(kw, tile)
    pads = [min(2 * p, k - 1) for p, k in zip(pad, (kh, kw, kh, kw), strict=True)]
    make = Maker(c, (n, c, max(h, kh - pads[0] - pads[2]), max(w, kw - pads[1] - pads[3])))
    layer = y = make.conv("x0", c, c, (kh, kw), padding=pads, groups=c)
    if residual:
        y = make.op("add", y, make.conv("x0", c, c, (kh, kw), padding=pads, groups=c))
    if act:
        y = make.op(act, y)
    graph = make.graph(y)
    net = compiled(graph, isa, threads, exact=True)
    choose(net, layer, Candidate("f", "fft_depthwise", {"tile": tile}, exact=False))
    assert "fft_depthwise" in "".join(native(net).net.kernel(i) for i in range(native(net).net.steps))
    poison(net)
    assert error_of(net, inputs_for(graph), least=1.0) <= FFT


@pytest.mark.parametrize("split", ["tiles", "rows", "own_rows"])
@pytest.mark.parametrize("size", range(12))
def test_every_fft_size(isa: str, size: int, split: str) -> None:
    """A map of several tiles, of which the last ones hang over, and a kernel of a third of the tile."""
    tile = _native.fft_sizes(isa)[size]
    kernel = (tile // 3, tile // 3 + 1)
    error = tiled_error(
        isa, Candidate("f", "fft", {"tile": tile, "chunk": 3, "split": split}, exact=False), kernel, (1, 1), 1, 3, 18,
        tile + 9, tile + 4, (1, 1), (1, 0, 1, 2), 2, True, "relu", False,
    )  # fmt: skip
    assert error <= FFT


@FEW
@given(
    n=st.integers(1, 2), c=CHANNELS.filter(lambda c: c > 1), h=SIZES, w=SIZES, k=st.sampled_from([1, 2, 3, 5, 7]),
    stride=st.integers(1, 3), dilation=st.integers(1, 2), pad=st.integers(0, 3), threads=st.integers(1, 2),
    act=st.sampled_from([None, "relu", "hardswish"]), residual=st.booleans(),
)  # fmt: skip
def test_depthwise(
    isa: str, n: int, c: int, h: int, w: int, k: int, stride: int, dilation: int, pad: int, threads: int,
    act: str | None, residual: bool,
) -> None:  # fmt: skip
    reach = (k - 1) * dilation + 1 - 2 * pad
    make = Maker(c, (n, c, max(h, reach), max(w, reach)))
    y = make.conv("x0", c, c, k, stride=stride, dilation=dilation, padding=[pad] * 4, groups=c)
    if residual:
        y = make.op("add", y, make.conv("x0", c, c, k, stride=stride, dilation=dilation, padding=[pad] * 4))
    if act:
        y = make.op(act, y)
    graph = make.graph(y)
    net = compiled(graph, isa, threads, exact=True)
    assert any(native(net).net.kernel(i).startswith("depthwise") for i in range(native(net).net.steps))
    assert error_of(net, inputs_for(graph)) <= DIRECT


@FEW
@given(
    n=st.integers(1, 2), in_c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, k=st.integers(1, 4), stride=st.integers(1, 3),
    dilation=st.integers(1, 2), pad=st.integers(0, 2), extra=st.integers(0, 1), groups=st.sampled_from([1, 1, 2]),
    threads=st.integers(1, 2),
)  # fmt: skip
def test_transposed_convolution(
    isa: str, n: int, in_c: int, out_c: int, h: int, w: int, k: int, stride: int, dilation: int, pad: int, extra: int,
    groups: int, threads: int,
) -> None:  # fmt: skip
    in_c, out_c = in_c * groups, out_c * groups
    extra = min(extra, max(stride, dilation) - 1)
    if (min(h, w) - 1) * stride - 2 * pad + (k - 1) * dilation + extra + 1 < 1:
        pad = 0
    make = Maker(in_c, (n, in_c, h, w))
    weight = make.normal(in_c, out_c // groups, k, k) * np.float32(1 / math.sqrt(in_c * k * k))
    y = make.op(
        "conv_transpose2d", "x0", params={"weight": weight, "bias": make.normal(out_c)}, stride=[stride, stride],
        padding=[pad, pad], output_padding=[extra, extra], dilation=[dilation, dilation], groups=groups,
    )  # fmt: skip
    graph = make.graph(make.op("relu", y))
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(n=st.sampled_from([1, 2, 3, 5, 8, 13]), i=CHANNELS, o=CHANNELS, threads=st.integers(1, 3), act=st.booleans())
def test_linear(isa: str, n: int, i: int, o: int, threads: int, act: bool) -> None:
    make = Maker(i, (n, i))
    y = make.op("linear", "x0", params={"weight": make.normal(o, i) / np.float32(i), "bias": make.normal(o)})
    graph = make.graph(make.op("tanh", y) if act else y)
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    n=st.integers(1, 3), c=CHANNELS, h=SIZES, w=SIZES, o=MANY, threads=st.integers(1, 2), padded=st.booleans()
)  # fmt: skip
def test_linear_after_flatten(isa: str, n: int, c: int, h: int, w: int, o: int, threads: int, padded: bool) -> None:
    make = Maker(c, (n, c, h, w))
    x = make.conv("x0", c, c, 1)
    flat = make.op("reshape", x, shape=[0, -1])
    y = make.op("linear", flat, params={"weight": make.normal(o, c * h * w) / np.float32(c * h * w)})
    outputs = [y]
    if padded:  # another reader gives the map a border
        outputs.append(make.conv(x, c, 4))
    graph = make.graph(*outputs)
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    rank3=st.booleans(), i=CHANNELS, o=CHANNELS, n=st.integers(1, 3), rows=st.integers(1, 9), threads=st.integers(1, 2)
)  # fmt: skip
def test_linear_on_the_last_axis(isa: str, rank3: bool, i: int, o: int, n: int, rows: int, threads: int) -> None:
    make = Maker(i, (n, rows, i) if rank3 else (n, 2, rows, i))
    y = make.op("linear", "x0", params={"weight": make.normal(o, i) / np.float32(i), "bias": make.normal(o)})
    graph = make.graph(make.op("add", y, y))
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    kind=st.sampled_from(["max", "avg"]), n=st.integers(1, 2), c=CHANNELS, h=SIZES, w=SIZES, k=st.integers(1, 4),
    stride=st.integers(1, 3), pad=st.integers(0, 2), ceil=st.booleans(), include=st.booleans(),
    divisor=st.sampled_from([None, None, 3]), dilation=st.integers(1, 2), threads=st.integers(1, 2),
)  # fmt: skip
def test_pools(
    isa: str, kind: str, n: int, c: int, h: int, w: int, k: int, stride: int, pad: int, ceil: bool, include: bool,
    divisor: int | None, dilation: int, threads: int,
) -> None:  # fmt: skip
    pad = min(pad, k // 2)
    dilation = dilation if kind == "max" else 1
    reach = (k - 1) * dilation + 1 - 2 * pad
    make = Maker(c, (n, c, max(h, reach), max(w, reach)))
    attrs = {"kernel_size": [k, k], "stride": [stride, stride], "padding": [pad] * 4, "ceil_mode": ceil}
    if kind == "max":
        y = make.op("max_pool2d", "x0", **attrs, dilation=[dilation, dilation])
    else:
        y = make.op("avg_pool2d", "x0", **attrs, count_include_pad=include, divisor_override=divisor)
    graph = make.graph(y)
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(c=CHANNELS, h=SIZES, w=SIZES, oh=st.integers(1, 7), ow=st.integers(1, 7), kind=st.sampled_from(["avg", "max"]))
def test_adaptive_pools(isa: str, c: int, h: int, w: int, oh: int, ow: int, kind: str) -> None:
    make = Maker(c, (2, c, h, w))
    graph = make.graph(make.op(f"adaptive_{kind}_pool2d", "x0", output_size=[oh, ow]))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@pytest.mark.parametrize(("op", "attrs"), ACTIVATIONS)
@pytest.mark.parametrize("where", ["plain", "blocked", "fused", "depthwise", "winograd"])
def test_activations(isa: str, op: str, attrs: dict[str, float], where: str) -> None:
    make = Maker(1, (2, 19, 9, 7))
    x = "x0"
    if where == "blocked":
        x = make.op("mul_scalar", make.conv("x0", 19, 19, 1), value=2.0)
    if where == "fused":
        x = make.conv("x0", 19, 19, 1)
    if where == "depthwise":
        x = make.conv("x0", 19, 19, groups=19)
    if where == "winograd":
        x = make.conv(make.conv("x0", 19, 19, 1), 19, 19)
    graph = make.graph(make.op(op, x, **attrs))
    net = compiled(graph, isa, 2) if where == "winograd" else plain(graph, isa, 2)
    assert error_of(net, inputs_for(graph)) <= (WINOGRAD[8] if where == "winograd" else DIRECT)


def test_activations_far_out(isa: str) -> None:
    """Large, tiny, infinite and NaN arguments, as float64 has them."""
    values = np.array(
        [0.0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4, 20, -20, 80, -80, 88, -88, 100, -100, 1e30, -1e30, np.inf, -np.inf]
    )
    for op, attrs in ACTIVATIONS:
        make = Maker(0, (1, len(values)))
        graph = make.graph(make.op(op, "x0", **attrs))
        net = compiled(graph, isa)
        got = net.run([values[None].astype(np.float32)])[0][0].astype(np.float64)
        with np.errstate(all="ignore"):
            want = run_graph(graph, {"x0": values[None].astype(np.float32)})[0][0]
            want = want.astype(np.float32).astype(np.float64)  # float32 overflows to infinity
        both_nan = np.isnan(got) & np.isnan(want)
        close = np.isclose(got, want, rtol=4e-6, atol=1e-36)
        assert (close | both_nan).all(), (op, values[~(close | both_nan)], got, want)
        assert np.isnan(net.run([np.full((1, len(values)), np.nan, np.float32)])[0]).all(), op


@FEW
@given(
    kind=st.sampled_from(["add", "sub", "mul", "div"]), c=CHANNELS, h=SIZES, w=SIZES, n=st.integers(1, 2),
    shape=st.sampled_from(["same", "channel", "batch1", "scalar", "row", "spatial", "vector", "rank5"]),
    swap=st.booleans(), blocked=st.booleans(),
)  # fmt: skip
def test_binary(isa: str, kind: str, c: int, h: int, w: int, n: int, shape: str, swap: bool, blocked: bool) -> None:
    other = {
        "same": (n, c, h, w), "channel": (n, c, 1, 1), "batch1": (1, c, h, w), "scalar": (1, 1, 1, 1),
        "row": (1, 1, 1, w), "spatial": (n, 1, h, w), "vector": (w,), "rank5": (2, 1, 1, h, 1),
    }[shape]  # fmt: skip
    make = Maker(c, (n, c, h, w))
    constant = make.op("constant", params={"value": make.rng.uniform(0.5, 2, other).astype(np.float32)})
    x = make.op("add_scalar", make.op("sigmoid", make.conv("x0", c, c, 1) if blocked else "x0"), value=0.5)
    graph = make.graph(make.op(kind, *((constant, x) if swap else (x, constant))))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@FEW
@given(
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data(), log=st.booleans(),
    threads=st.integers(1, 2),
)  # fmt: skip
def test_softmax(isa: str, dims: list[int], data: st.DataObject, log: bool, threads: int) -> None:
    make = Maker(0, tuple(dims))
    dim = data.draw(st.integers(0, len(dims) - 1))
    y = make.op("log_softmax" if log else "softmax", make.op("mul_scalar", "x0", value=4.0), dim=dim)
    graph = make.graph(y)
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    dims=st.lists(st.integers(1, 9), min_size=2, max_size=5), data=st.data(), keep=st.booleans(), blocked=st.booleans(),
    op=st.sampled_from(["mean", "sum", "amax"]),
)  # fmt: skip
def test_reductions(isa: str, dims: list[int], data: st.DataObject, keep: bool, blocked: bool, op: str) -> None:
    axes = data.draw(st.sets(st.integers(1, len(dims) - 1), min_size=1))
    make = Maker(0, tuple(dims))
    x = make.conv("x0", dims[1], dims[1], 1) if blocked and len(dims) == 4 else "x0"
    graph = make.graph(make.op("add_scalar", make.op(op, x, dims=sorted(axes), keepdim=keep), value=1.0))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@FEW
@given(
    mode=st.sampled_from(["nearest", "bilinear"]), c=CHANNELS, h=SIZES, w=SIZES, oh=st.integers(1, 20),
    ow=st.integers(1, 20), align=st.booleans(), scaled=st.sampled_from([None, None, [2.0, 1.5], [1.05, 2.04]]),
)  # fmt: skip
def test_resize(
    isa: str, mode: str, c: int, h: int, w: int, oh: int, ow: int, align: bool, scaled: list[float] | None
) -> None:
    make = Maker(0, (2, c, h, w))
    size = {"size": None, "scale": scaled} if scaled else {"size": [oh, ow], "scale": None}
    align = align and mode == "bilinear" and not scaled
    graph = make.graph(make.op("resize", "x0", **size, mode=mode, align_corners=align))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


def test_prelu(isa: str) -> None:
    for count in (1, 19):
        for conv in (False, True):
            make = Maker(0, (2, 19, 5, 5))
            x = make.conv("x0", 19, 19, 1) if conv else "x0"
            graph = make.graph(make.op("prelu", x, params={"weight": make.normal(count)}))
            assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@pytest.mark.parametrize("beta", [0.75, 0.5, 0.9])
def test_local_response_norm(isa: str, beta: float) -> None:
    for channels, size in [(1, 1), (7, 5), (19, 4), (33, 3), (4, 9), (1, 6), (5, 10**6)]:
        make = Maker(0, (2, channels, 5, 4))
        y = make.op(
            "local_response_norm", make.op("mul_scalar", "x0", value=3.0), size=size, alpha=0.3, beta=beta, k=2.0
        )
        graph = make.graph(y)
        net = plain(graph, isa, 2)
        assert error_of(net, inputs_for(graph)) <= DIRECT
        # Nothing is kept, or summed, for what a window covers outside of the channels.
        assert net.plan.scratch_bytes <= 4 * 2 * 64 * 3 * (channels + 16)


@FEW
@given(
    n=st.integers(1, 2), size=st.sampled_from([1, 2, 3, 5, 8, 16, 24]), groups=st.integers(1, 5), h=SIZES, w=SIZES,
    rank=st.integers(2, 4), affine=st.booleans(), threads=st.integers(1, 3), offset=st.sampled_from([0.0, 100.0]),
)  # fmt: skip
def test_group_norm(
    isa: str, n: int, size: int, groups: int, h: int, w: int, rank: int, affine: bool, threads: int, offset: float
) -> None:
    c = size * groups
    make = Maker(c, (n, c, h, w)[:rank])
    params = {"weight": make.normal(c), "bias": make.normal(c)} if affine else {}
    y = make.op("group_norm", make.op("add_scalar", "x0", value=offset), params=params, groups=groups, eps=1e-3)
    graph = make.graph(make.op("add_scalar", y, value=0.5))
    # The offset costs the digits it takes from x before any normalisation.
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT + offset * 2e-6


@FEW
@given(
    dims=st.lists(st.integers(1, 9), min_size=2, max_size=4), data=st.data(), affine=st.booleans(),
    threads=st.integers(1, 2),
)  # fmt: skip
def test_layer_norm(isa: str, dims: list[int], data: st.DataObject, affine: bool, threads: int) -> None:
    axes = data.draw(st.integers(1, len(dims) - 1))
    make = Maker(0, tuple(dims))
    params = {role: make.normal(*dims[-axes:]) for role in ("weight", "bias")} if affine else {}
    y = make.op("layer_norm", "x0", params=params, axes=axes, eps=1e-3)
    graph = make.graph(make.op("add_scalar", y, value=0.5))
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    before=st.lists(st.integers(1, 3), min_size=1, max_size=2), m=SIZES, n=st.sampled_from([1, 5, 63, 64, 65, 130]),
    k=st.sampled_from([1, 7, 127, 128, 129, 300]), threads=st.integers(1, 3),
)  # fmt: skip
def test_matmul(isa: str, before: list[int], m: int, n: int, k: int, threads: int) -> None:
    make = Maker(k, (*before, m, k), (*before, k, n))
    graph = make.graph(make.op("matmul", "x0", "x1"))
    a, b = inputs_for(graph)
    assert error_of(plain(graph, isa, threads), [a + 1, b + 1]) <= DIRECT


@FEW
@given(
    n=st.integers(1, 2), c=CHANNELS, rows=st.integers(1, 5), columns=st.integers(1, 5), k=st.integers(1, 3),
    gap=st.integers(0, 1), pad=st.integers(0, 1), threads=st.integers(1, 3),
)  # fmt: skip
def test_max_unpool(
    isa: str, n: int, c: int, rows: int, columns: int, k: int, gap: int, pad: int, threads: int
) -> None:
    pad = min(pad, k // 2)
    h, w = ((count - 1) * (k + gap) + k - 2 * pad for count in (rows, columns))
    if min(h, w) < 1:
        return
    make = Maker(c, (n, c, h, w))
    window = {"kernel_size": [k, k], "stride": [k + gap] * 2, "padding": [pad] * 4, "ceil_mode": False}
    x = make.op("relu", "x0")  # many equal maxima: the first one counts
    y = make.op("max_pool2d", x, **window, dilation=[1, 1])
    graph = make.graph(make.op("max_unpool2d", make.op("add_scalar", y, value=0.5), x, **window))
    assert error_of(plain(graph, isa, threads), inputs_for(graph)) <= DIRECT


@FEW
@given(
    c=CHANNELS, h=st.integers(2, 9), w=st.integers(2, 9), pads=st.tuples(*[st.integers(0, 8)] * 4),
    mode=st.sampled_from(["reflect", "replicate"]),
)  # fmt: skip
def test_edge_pad(isa: str, c: int, h: int, w: int, pads: tuple[int, int, int, int], mode: str) -> None:
    limits = (h, w, h, w)
    padding = [min(p, limit - 1) if mode == "reflect" else p for p, limit in zip(pads, limits, strict=True)]
    make = Maker(0, (2, c, h, w))
    graph = make.graph(make.op("edge_pad2d", "x0", padding=padding, mode=mode))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) == 0


@FEW
@given(dims=st.lists(st.integers(1, 9), min_size=2, max_size=5), data=st.data(), blocked=st.booleans())
def test_index_select(isa: str, dims: list[int], data: st.DataObject, blocked: bool) -> None:
    dim = data.draw(st.integers(0, len(dims) - 1))
    indices = data.draw(st.lists(st.integers(0, dims[dim] - 1), min_size=1, max_size=12))
    make = Maker(0, tuple(dims))
    x = make.conv("x0", dims[1], dims[1], 1) if blocked and len(dims) == 4 else "x0"
    graph = make.graph(make.op("index_select", x, dim=dim, indices=indices))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@pytest.mark.parametrize("blocked", [False, True])
def test_square_roots_and_absolute_values(isa: str, blocked: bool) -> None:
    """On blocked maps of 19 channels the lanes past the last hold what would have no root."""
    make = Maker(0, (2, 19, 5, 5))
    x = make.op("add_scalar", make.conv("x0", 19, 19, 1), value=-5.0) if blocked else "x0"
    graph = make.graph(make.conv(make.op("sqrt", make.op("abs", x)), 19, 19, 1))
    assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("levels", [(4.0, 0.25, 0, 0, 3), (3.0, 0.5, -7, -128, 127)], ids=str)
def test_levels(isa: str, levels: tuple[float, float, int, int, int], blocked: bool) -> None:
    """To the last bit: halves go to even, what is outside to the ends, NaN to the lower one."""
    make = Maker(0, (2, 19, 5, 5))
    attrs = dict(zip(("factor", "step", "zero", "low", "high"), levels, strict=True))
    graph = make.graph(make.op("quantize", "x0", **attrs))
    if blocked:
        graph = make.graph(
            make.op(
                "max_pool2d",
                make.op("quantize", "x0", **attrs),
                kernel_size=[1, 1],
                stride=[1, 1],
                padding=[0] * 4,
                dilation=[1, 1],
                ceil_mode=False,
            )
        )
    x = make.rng.integers(-60, 60, (2, 19, 5, 5)).astype(np.float32) / np.float32(2 * levels[0])
    x.flat[:3] = np.nan, np.inf, -np.inf
    (want,) = run_graph(graph, {"x0": x})
    np.testing.assert_array_equal(plain(graph, isa, 2).run([x])[0], want.astype(np.float32))


def test_conv1d_and_pools_1d(isa: str) -> None:
    for c, o, k, stride, pad, groups in [
        (3, 8, 3, 1, 1, 1),
        (17, 9, 5, 2, 0, 1),
        (8, 8, 3, 1, 2, 8),
        (16, 32, 1, 1, 0, 2),
    ]:
        make = Maker(0, (2, c, 23))
        params = {"weight": make.normal(o, c // groups, k) / np.float32(k * c), "bias": make.normal(o)}
        y = make.op("conv1d", "x0", params=params, stride=[stride], padding=[pad, pad], dilation=[1], groups=groups)
        y = make.op("relu", y)
        y = make.op("max_pool1d", y, kernel_size=[3], stride=[2], padding=[1, 1], dilation=[1], ceil_mode=True)
        y = make.op(
            "avg_pool1d", y, kernel_size=[2], stride=[1], padding=[1, 1], ceil_mode=False, count_include_pad=False,
            divisor_override=None,
        )  # fmt: skip
        graph = make.graph(y)
        assert error_of(plain(graph, isa, 2), inputs_for(graph)) <= DIRECT


def test_nan_and_infinity_travel_as_in_torch(isa: str) -> None:
    make = Maker(0, (1, 9, 6, 6))
    pool = make.op(
        "max_pool2d", "x0", kernel_size=[3, 3], stride=[3, 3], padding=[0] * 4, dilation=[1, 1], ceil_mode=False
    )  # fmt: skip
    graph = make.graph(make.op("relu", make.conv(pool, 9, 9, 1)))
    x = inputs_for(graph)[0]
    x[0, 4, 1, 1] = np.nan
    got = compiled(graph, isa, exact=True).run([x])[0]
    assert np.isnan(got[0, :, 0, 0]).all()
    assert np.isfinite(got[0, :, 1:, :]).all()
    assert np.isfinite(got[0, :, 0, 1]).all()
