"""Small nets that run, between them over every op: where the fuzzing of load and call starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.engine.graph import Graph, GraphInput, Node, make_node


class Net:
    """Collects nodes and weights; every method returns the name of the value it makes."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(5)
        self.inputs = tuple(GraphInput(name=f"x{i}", shape=shape) for i, shape in enumerate(shapes))
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def op(self, op: str, *inputs: str, params: dict[str, Any] | None = None, **attrs: Any) -> str:
        name = f"n{len(self.nodes)}"
        keys = {role: f"{name}.{role}" for role in params or {}}
        self.weights |= {keys[role]: array for role, array in (params or {}).items()}
        self.nodes.append(make_node(name, op, inputs, params=keys, attrs=attrs, source=f"layer.{name}"))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))

    def conv(self, x: str, inputs: int, outputs: int, k: int = 3, groups: int = 1, stride: int = 1) -> str:
        params = {"weight": self.normal(outputs, inputs // groups, k, k), "bias": self.normal(outputs)}
        return self.op(
            "conv2d", x, params=params, stride=[stride] * 2, padding=[k // 2] * 4, dilation=[1, 1], groups=groups
        )

    def graph(self, *outputs: str) -> Graph:
        return Graph(inputs=self.inputs, nodes=self.nodes, outputs=outputs, weights=self.weights)


def residual() -> Graph:
    """Winograd, direct, grouped and depthwise convolutions, batch norm, a residual, a concatenation, a head."""
    net = Net((2, 3, 14, 13))
    x = net.op("relu", net.conv("x0", 3, 16))
    norm = {role: np.abs(net.normal(16)) for role in ("weight", "bias", "running_mean", "running_var")}
    y = net.op("batch_norm", net.conv(x, 16, 16), params=norm, eps=1e-5)
    x = net.op("relu", net.op("add", y, x))
    d = net.op("silu", net.conv(x, 16, 16, groups=16))
    g = net.op("clamp", net.conv(d, 16, 24, groups=2, stride=1), min=0, max=6.0)
    x = net.op("concat", x, g, dim=1)
    x = net.op("max_pool2d", x, kernel_size=[3, 3], stride=[2, 2], padding=[1, 1, 1, 1], dilation=[1, 1],
               ceil_mode=False)  # fmt: skip
    x = net.op("mean", net.conv(x, 40, 16), dims=[2, 3], keepdim=False)
    return net.graph(net.op("linear", x, params={"weight": net.normal(10, 16), "bias": net.normal(10)}))


def upsampling() -> Graph:
    """Transposed convolution, resizes, pads, slices, all pools, normalisations."""
    net = Net((1, 6, 9, 8))
    x = net.op("conv_transpose2d", "x0", params={"weight": net.normal(6, 5, 3, 3)}, stride=[2, 2], padding=[1, 1],
               output_padding=[1, 0], dilation=[1, 1], groups=1)  # fmt: skip
    x = net.op("local_response_norm", x, size=3, alpha=1e-2, beta=0.75, k=1.0)
    x = net.op("prelu", x, params={"weight": net.normal(5)})
    y = net.op("resize", x, size=None, scale=[1.5, 2.0], mode="bilinear", align_corners=False)
    y = net.op("avg_pool2d", y, kernel_size=[2, 3], stride=[2, 2], padding=[0, 1, 0, 1], ceil_mode=True,
               count_include_pad=True, divisor_override=None)  # fmt: skip
    z = net.op("pad", y, pads=[[0, 0], [0, 0], [1, 0], [0, 2]], value=0.5)
    z = net.op("slice", z, dim=2, start=1, end=None, step=2)
    z = net.op("adaptive_avg_pool2d", z, output_size=[3, 4])
    w = net.op("adaptive_max_pool2d", x, output_size=[3, 4])
    z = net.op("gelu", net.op("mul", net.op("tanh", z), net.op("sigmoid", w)), approximate="none")
    flat = net.op("flatten", z, start_dim=1, end_dim=3)
    return net.graph(net.op("softmax", flat, dim=1), net.op("resize", w, size=[5, 6], scale=None, mode="nearest",
                                                            align_corners=False))  # fmt: skip


def sequence() -> Graph:
    """One axis: conv1d and its pools, permutations, reshapes, a linear layer on rank 3, the other activations."""
    net = Net((2, 4, 20))
    params = {"weight": net.normal(8, 2, 3), "bias": net.normal(8)}
    x = net.op("conv1d", "x0", params=params, stride=[1], padding=[1, 1], dilation=[1], groups=2)
    x = net.op("leaky_relu", x, negative_slope=0.1)
    x = net.op("max_pool1d", x, kernel_size=[2], stride=[2], padding=[0, 0], dilation=[1], ceil_mode=False)
    x = net.op("avg_pool1d", x, kernel_size=[3], stride=[1], padding=[1, 1], ceil_mode=False, count_include_pad=False,
               divisor_override=None)  # fmt: skip
    x = net.op("permute", x, dims=[0, 2, 1])
    x = net.op("elu", net.op("linear", x, params={"weight": net.normal(6, 8)}), alpha=1.0)
    y = net.op("reshape", x, shape=[0, 5, -1])
    y = net.op("mul_scalar", net.op("add_scalar", net.op("softplus", y), value=1), value=0.5)
    y = net.op("mish", net.op("hardswish", net.op("hardsigmoid", y)))
    z = net.op("log_softmax", x, dim=2)
    return net.graph(y, z, net.op("mean", net.op("exp", z), dims=[1], keepdim=True))


def codebooks() -> Graph:
    """Codebook layers, constants, broadcasting, two inputs."""
    net = Net((1, 8, 6, 6), (1, 8, 1, 1))
    book = np.r_[0, net.normal(15)].astype(np.float32)
    codes = net.rng.integers(0, 16, (16, 8, 3, 3)).astype(np.uint8)
    x = net.op("codebook_conv2d", "x0", params={"codebook": book, "codes": codes}, stride=[1, 1], padding=[1] * 4,
               dilation=[1, 1], groups=1)  # fmt: skip
    scale = net.op("concat", "x1", "x1", dim=1)
    x = net.op("mul", x, scale)
    x = net.op("div", x, net.op("constant", params={"value": np.abs(net.normal(1, 16, 1, 1)) + 1}))
    x = net.op("sub", x, net.op("constant", params={"value": net.normal(6)}))
    flat = net.op("reshape", x, shape=[0, -1])
    codes = net.rng.integers(0, 16, (7, 16 * 36)).astype(np.uint8)
    return net.graph(net.op("codebook_linear", flat, params={"codebook": book, "codes": codes}), x)


def wide() -> Graph:
    """Layers with more than a megabyte of weights on few pixels; one value each, so that the file is small."""
    net = Net((1, 128, 6, 5))
    params = {"weight": np.full((256, 128, 3, 3), 0.01, np.float32)}
    x = net.op("conv2d", "x0", params=params, stride=[2, 2], padding=[1] * 4, dilation=[1, 1], groups=1)
    x = net.op("relu", net.op("add", x, net.op("constant", params={"value": net.normal(1, 256, 1, 1)})))
    flat = net.op("flatten", x, start_dim=1, end_dim=3)
    return net.graph(net.op("linear", flat, params={"weight": np.full((128, 256 * 9), -0.02, np.float32)}))


def structured() -> Graph:
    """Layers of few numbers, wide enough for kernels of their own, and two that are expanded."""
    net = Net((2, 512), (1, 6, 5, 4))
    signs = np.where(net.normal(1, 512) > 0, 1, -1).astype(np.float32)
    x = net.op("circulant_linear", "x0", params={"vectors": net.normal(1, 512), "signs": signs}, out_features=130)
    x = net.op("relu", x)
    params = {"vectors": net.normal(10, 9, 16), "bias": net.normal(150)}
    x = net.op("block_circulant_linear", x, params=params, out_features=150)
    params = {role: net.normal(1, 256) for role in ("scale", "gauss", "signs")}
    params["permutation"] = net.rng.permutation(256).astype(np.int32)[None]
    x = net.op("fastfood_linear", x, params=params, out_features=200)
    params = {role: net.normal(2, 512) for role in ("a", "d", "beta")}
    params["permutations"] = net.rng.permutation(512).astype(np.int32)[None]
    x = net.op("acdc_linear", x, params=params, relu=True, out_features=90)
    cores = {"core0": net.normal(1, 3, 9, 2), "core1": net.normal(2, 2, 10, 1)}
    x = net.op("tt_linear", x, params=cores, in_features=90, out_features=6)
    y = net.op("block_circulant_conv2d", "x1", params={"vectors": net.normal(2, 2, 2, 3, 3)}, stride=[1, 1],
               padding=[1] * 4, dilation=[1, 1], groups=2, out_features=4)  # fmt: skip
    return net.graph(x, y)


NETS = (residual, upsampling, sequence, codebooks, wide, structured)


def ops() -> set[str]:
    """Ops that the nets use."""
    return {node.op for build in NETS for node in build().nodes}
