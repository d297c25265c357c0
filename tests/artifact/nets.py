"""Small graphs the tests of this room save and load."""

from __future__ import annotations

import numpy as np

from fastcnn.engine.graph import Graph, GraphInput, Node, make_node


def pruned_and_shared(
    rng: np.random.Generator, shape: tuple[int, ...], density: float, values: int, dtype: str = "float32"
) -> np.ndarray:
    """Weights as Deep Compression leaves them: the largest survive, each replaced by one of ``values`` centroids."""
    weight = rng.normal(0, 0.05, shape)
    threshold = np.quantile(np.abs(weight), 1 - density)
    kept = np.abs(weight) > threshold
    centroids = np.linspace(weight.min(), weight.max(), values)
    shared = centroids[np.abs(weight[..., None] - centroids).argmin(-1)]
    return np.where(kept, shared, 0).astype(dtype)


def conv(name: str, source: str, weight: str, *, stride: int = 1, padding: int = 0) -> Node:
    """A convolution with bias, its arrays named ``<weight>.weight`` and ``<weight>.bias``."""
    return make_node(
        name,
        "conv2d",
        [source],
        params={"weight": f"{weight}.weight", "bias": f"{weight}.bias"},
        attrs={"stride": [stride] * 2, "padding": [padding] * 4, "dilation": [1, 1], "groups": 1},
        source=weight,
    )


def max_pool(name: str, source: str, *, size: int, stride: int, ceil: bool = False) -> Node:
    """Max pooling without padding."""
    attrs = {
        "kernel_size": [size] * 2,
        "stride": [stride] * 2,
        "padding": [0] * 4,
        "dilation": [1, 1],
        "ceil_mode": ceil,
    }
    return make_node(name, "max_pool2d", [source], attrs=attrs)


def squeezenet(weights: dict[str, np.ndarray]) -> Graph:
    """SqueezeNet 1.0 (Iandola et al. 2016) over weights named as in torchvision."""
    nodes = [conv("features_0", "x", "features.0", stride=2), make_node("features_1", "relu", ["features_0"])]
    nodes.append(max_pool("features_2", "features_1", size=3, stride=2, ceil=True))
    last = "features_2"
    for i in range(3, 13):
        name = f"features_{i}"
        if i in (6, 11):
            nodes.append(max_pool(name, last, size=3, stride=2, ceil=True))
            last = name
            continue
        nodes += [
            conv(f"{name}_squeeze", last, f"features.{i}.squeeze"),
            make_node(f"{name}_squeeze_activation", "relu", [f"{name}_squeeze"]),
            conv(f"{name}_expand1x1", f"{name}_squeeze_activation", f"features.{i}.expand1x1"),
            make_node(f"{name}_expand1x1_activation", "relu", [f"{name}_expand1x1"]),
            conv(f"{name}_expand3x3", f"{name}_squeeze_activation", f"features.{i}.expand3x3", padding=1),
            make_node(f"{name}_expand3x3_activation", "relu", [f"{name}_expand3x3"]),
            make_node(
                f"{name}_cat",
                "concat",
                [f"{name}_expand1x1_activation", f"{name}_expand3x3_activation"],
                attrs={"dim": 1},
            ),
        ]
        last = f"{name}_cat"
    nodes += [
        conv("classifier_1", last, "classifier.1"),
        make_node("classifier_2", "relu", ["classifier_1"]),
        make_node("classifier_3", "adaptive_avg_pool2d", ["classifier_2"], attrs={"output_size": [1, 1]}),
        make_node("flatten", "flatten", ["classifier_3"], attrs={"start_dim": 1, "end_dim": 3}),
    ]
    return Graph(
        inputs=(GraphInput(name="x", shape=(1, 3, 227, 227)),), nodes=nodes, outputs=("flatten",), weights=weights
    )


def _linear(name: str, source: str) -> Node:
    return make_node(name, "linear", [source], params={"weight": f"{name}.weight", "bias": f"{name}.bias"}, source=name)


def lenet_300_100(seed: int) -> Graph:
    """LeNet-300-100 pruned to 8 % and clustered to 32 values a layer, as in Han et al. 2016, table 2."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes = [make_node("flat", "flatten", ["x"], attrs={"start_dim": 1, "end_dim": 3})]
    last = "flat"
    for i, (inputs, outputs, density) in enumerate([(784, 300, 0.08), (300, 100, 0.09), (100, 10, 0.26)], 1):
        weights[f"fc{i}.weight"] = pruned_and_shared(rng, (outputs, inputs), density, 33)
        weights[f"fc{i}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        nodes.append(_linear(f"fc{i}", last))
        last = f"fc{i}"
        if i < 3:
            nodes.append(make_node(f"relu{i}", "relu", [last]))
            last = f"relu{i}"
    inputs_ = (GraphInput(name="x", shape=(1, 1, 28, 28)),)
    return Graph(inputs=inputs_, nodes=nodes, outputs=(last,), weights=weights)


def lenet_5(seed: int) -> Graph:
    """LeNet-5 (Caffe's, 20-50-500-10) pruned and clustered, as in Han et al. 2016, table 3."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
    density = {"conv1": 0.66, "conv2": 0.12, "fc1": 0.08, "fc2": 0.19}
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = pruned_and_shared(rng, shape, density[name], 257 if "conv" in name else 33)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    nodes = [
        conv("conv1", "x", "conv1"),
        max_pool("pool1", "conv1", size=2, stride=2),
        conv("conv2", "pool1", "conv2"),
        max_pool("pool2", "conv2", size=2, stride=2),
        make_node("flat", "flatten", ["pool2"], attrs={"start_dim": 1, "end_dim": 3}),
        _linear("fc1", "flat"),
        make_node("relu", "relu", ["fc1"]),
        _linear("fc2", "relu"),
    ]
    inputs = (GraphInput(name="x", shape=(1, 1, 28, 28)),)
    return Graph(inputs=inputs, nodes=nodes, outputs=("fc2",), weights=weights)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have one dtype, one shape and equal bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
