"""Small graphs that together use every native step, with the attributes and layouts the planner gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcnn.engine.graph import Graph
from fastcnn.engine.run.net import CompiledNet
from tests.engine import int8_nets
from tests.engine.binary_nets import batch_norm, conv, linear
from tests.engine.nets import Maker, compiled, fuse
from tests.engine.structured_nets import acdc, block_circulant, circulant, fastfood


def residual_net() -> Graph:
    """Winograd, direct, a residual, a pool over the map, a linear layer, softmax."""
    make = Maker(1, (2, 3, 20, 20))
    x = make.op("relu", make.conv("x0", 3, 32, 3))
    y = make.op("relu", make.conv(x, 32, 32, 3))
    y = make.op("relu", make.op("add", make.conv(y, 32, 32, 3), x))
    y = make.op("max_pool2d", y, kernel_size=[3, 3], stride=[2, 2], padding=[1] * 4, dilation=[1, 1], ceil_mode=False)
    y = make.op("mean", y, dims=[2, 3], keepdim=False)
    y = make.op("linear", y, params={"weight": make.normal(10, 32), "bias": make.normal(10)})
    return make.graph(make.op("softmax", y, dim=1))


def mobile_net() -> Graph:
    """Depthwise, squeeze and excite, hard-swish, groups of whole and of partial vectors, two outputs."""
    make = Maker(2, (1, 3, 17, 17))
    x = make.op("hardswish", make.conv("x0", 3, 48, 3, stride=2))
    y = make.op("clamp", make.conv(x, 48, 48, 5, groups=48), min=0.0, max=6.0)
    gate = make.op("mean", y, dims=[2, 3], keepdim=True)
    gate = make.op("hardsigmoid", make.conv(gate, 48, 48, 1))
    y = make.op("mul", y, gate)
    y = make.op("silu", make.conv(y, 48, 48, 3, groups=3))
    z = make.op("leaky_relu", make.conv(y, 48, 12, 3, groups=6, dilation=2), negative_slope=0.1)
    return make.graph(z, make.op("prelu", y, params={"weight": make.normal(48)}))


def unet() -> Graph:
    """Transposed convolution, concat with and without a copy, resize, slices, pads."""
    make = Maker(3, (1, 5, 16, 24))
    x = make.op("relu", make.conv("x0", 5, 19, 3))
    down = make.op(
        "avg_pool2d", x, kernel_size=[2, 2], stride=[2, 2], padding=[0] * 4, ceil_mode=False, count_include_pad=False,
        divisor_override=None,
    )  # fmt: skip
    up = make.op(
        "conv_transpose2d", down, params={"weight": make.normal(19, 16, 3, 3), "bias": make.normal(16)}, stride=[2, 2],
        padding=[1, 1], output_padding=[1, 1], dilation=[1, 1], groups=1,
    )  # fmt: skip
    y = make.op("concat", up, x, up, dim=1)
    y = make.op("slice", y, dim=3, start=1, end=23, step=2)
    y = make.op("pad", y, pads=[[0, 0], [0, 0], [1, 2], [3, 0]], value=0.5)
    y = make.op("resize", y, size=[9, 31], scale=None, mode="bilinear", align_corners=False)
    y = make.op("mul_scalar", make.op("exp", make.conv(y, 51, 7, 1)), value=0.5)
    return make.graph(make.op("local_response_norm", y, size=3, alpha=0.1, beta=0.75, k=1.0))


def shuffle() -> Graph:
    """Plain memory: permute, reshape, constants, broadcasting, reductions, a batch of vectors."""
    make = Maker(4, (2, 8, 6, 6), (2, 8))
    y = make.op("reshape", "x0", shape=[0, 2, 4, 36])
    y = make.op("permute", y, dims=[0, 2, 1, 3])
    y = make.op("mul", y, make.op("constant", params={"value": make.normal(1, 4, 1, 36)}))
    y = make.op("mean", y, dims=[2], keepdim=False)
    y = make.op("log_softmax", make.op("add_scalar", y, value=0.25), dim=1)
    z = make.op("tanh", make.op("linear", "x1", params={"weight": make.normal(5, 8), "bias": make.normal(5)}))
    return make.graph(y, make.op("concat", z, z, dim=0))


def wave() -> Graph:
    """One dimension."""
    make = Maker(5, (2, 9, 40))
    params = {"weight": make.normal(17, 9, 5), "bias": make.normal(17)}
    y = make.op("gelu", make.op(
        "conv1d", "x0", params=params, stride=[2], padding=[2, 2], dilation=[1], groups=1
    ), approximate="none")  # fmt: skip
    return make.graph(
        make.op("max_pool1d", y, kernel_size=[3], stride=[2], padding=[1, 1], dilation=[1], ceil_mode=True)
    )


def norms() -> Graph:
    """Normalisations and what attention needs."""
    make = Maker(6, (2, 12, 7, 5))
    y = make.op("group_norm", make.conv("x0", 12, 12, 3), groups=4, eps=1e-5,
                params={"weight": make.normal(12), "bias": make.normal(12)})  # fmt: skip
    y = make.op("sqrt", make.op("abs", y))
    y = make.op("quantize", y, factor=64.0, step=1 / 64, zero=3, low=0, high=255)
    rows = make.op("reshape", y, shape=[0, 12, 35])
    rows = make.op("layer_norm", rows, axes=1, eps=1e-5, params={"weight": make.normal(35), "bias": make.normal(35)})
    product = make.op("matmul", rows, make.op("permute", rows, dims=[0, 2, 1]))
    picked = make.op("index_select", product, dim=1, indices=[3, 0, 11, 3])
    return make.graph(make.op("amax", picked, dims=[2], keepdim=False), make.op("sum", rows, dims=[1], keepdim=True))


def unpool() -> Graph:
    """Max pooling and back, with an edge pad and a second reader."""
    make = Maker(7, (1, 9, 12, 12))
    x = make.op("relu", make.conv("x0", 9, 9, 3))
    window = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0] * 4}
    pooled = make.op("max_pool2d", x, **window, dilation=[1, 1], ceil_mode=False)
    y = make.op("max_unpool2d", make.op("sigmoid", pooled), x, **window, ceil_mode=False)
    return make.graph(make.op("edge_pad2d", y, padding=[2, 1, 0, 3], mode="reflect"))


def inverted() -> Graph:
    """Inverted residuals, whose steps run in bands of rows."""
    make = Maker(8, (2, 3, 19, 13))
    x = make.conv(make.op("relu", make.conv("x0", 3, 9, 3, stride=2)), 9, 9, 3, groups=9)
    x = make.conv(x, 9, 12, 1)
    for stride in (1, 2):
        y = make.op("clamp", make.conv(x, 12, 20, 1), min=0.0, max=6.0)
        y = make.op("clamp", make.conv(y, 20, 20, 3, groups=20, stride=stride), min=0.0, max=6.0)
        y = make.conv(y, 20, 12, 1)
        x = make.op("add", y, x) if stride == 1 else y
    return make.graph(x)


def large_kernels() -> Graph:
    """FFT, depthwise too, and Winograd along one axis."""
    make = Maker(9, (2, 16, 22, 25))
    x = make.op("relu", make.conv("x0", 16, 20, 11))
    x = make.op("silu", make.conv(x, 20, 20, 19, groups=20))
    y = make.conv(make.conv(x, 20, 24, (1, 7)), 24, 20, (7, 1))
    return make.graph(make.op("add", y, x))


def structured() -> Graph:
    """Layers of few numbers that have kernels of their own."""
    make = Maker(10, (3, 512))
    x = circulant(make, "x0", 512, 600, bias=True)
    x = block_circulant(make, make.op("relu", x), 600, 150, 16, bias=True)
    x = fastfood(make, x, 256, 300, bias=True)
    return make.graph(acdc(make, x, 512, 90, 2, bias=True, relu=True))


def planes() -> Graph:
    """Inputs of one bit and of two, weights of two bits, padded."""
    make = Maker(9, (1, 20, 9, 7))

    def level(x: str, top: int) -> str:
        return make.op("quantize", x, factor=float(top), step=1.0, zero=0, low=0, high=top)

    x = conv(make, level("x0", 3), 20, 40, binarize=False, pad_value=0, scale=0.01 * make.normal(40))
    y = conv(make, level(x, 1), 40, 24, planes=(1, 2), binarize=False, pad_value=0, stride=(2, 1))
    return make.graph(conv(make, level(y, 1), 24, 8, (1, 1), binarize=False, pad_value=0))


def signs() -> Graph:
    """Layers of signs: bits between them, pooled, padded with zeros, in groups, flattened; sums with a residual."""
    make = Maker(11, (2, 3, 12, 10))
    x = make.conv("x0", 3, 64, 3)
    y = batch_norm(make, conv(make, x, 64, 64, pad_value=0), 64)
    y = make.op(
        "max_pool2d", y, kernel_size=[3, 2], stride=[1, 1], padding=[1, 0, 1, 1], dilation=[1, 1], ceil_mode=False
    )
    limits = np.arange(-32, 32, dtype=np.int32)
    y = conv(make, y, 64, 64, groups=2, pad_value=-1, thresholds=limits)
    z = conv(make, y, 64, 64, scale=np.abs(make.normal(64)), bias=make.normal(64))
    z = make.op("relu", make.op("add", z, x))
    flat = make.op("flatten", z, start_dim=1, end_dim=3)
    return make.graph(linear(make, flat, 64 * 12 * 10, 7), make.op("sign", z))


def small_numbers() -> Graph:
    """Layers of 8 bits: bytes between them, pooled, with a residual of bytes and one of floats, read as floats too."""
    make = Maker(12, (2, 3, 12, 10))
    x = int8_nets.levels(make, make.op("relu", int8_nets.conv(make, "x0", 3, 24)), zero=0)
    y = int8_nets.conv(make, x, 24, 24, groups=24, zero=0, bias=make.normal(24))
    y = make.op("relu", make.op("add", int8_nets.conv(make, y, 24, 24, (1, 1)), x))
    y = make.op(
        "max_pool2d", y, kernel_size=[3, 2], stride=[2, 2], padding=[1, 0, 1, 1], dilation=[1, 1], ceil_mode=False
    )
    z = int8_nets.conv(make, y, 24, 40, dilation=(1, 2), padding=(1, 2, 1, 2))
    w = int8_nets.conv(make, z, 40, 40, (1, 1))
    w = make.op("add", make.op("hardswish", w), z)
    flat = make.op("flatten", w, start_dim=1, end_dim=3)
    return make.graph(int8_nets.linear(make, flat, 40 * 6 * 5, 7), make.op("sqrt", make.op("abs", x)))


CASES: dict[str, Callable[[], Graph]] = {
    case.__name__: case
    for case in (
        residual_net,
        mobile_net,
        unet,
        shuffle,
        wave,
        norms,
        unpool,
        inverted,
        large_kernels,
        structured,
        signs,
        planes,
        small_numbers,
    )
}


def compiled_case(case: str, isa: str, threads: int = 1) -> CompiledNet:
    """Compile by rules of thumb; the maps are too small for bands by those, so they are asked for."""
    net = compiled(CASES[case](), isa, threads)
    if case == "inverted":
        assert fuse(net, 2) == 3
    return net


def inputs_of(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
