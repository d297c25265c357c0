"""Whole nets: exported by torch, imported, and compared with torch and onnxruntime; which axes stay open."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

import fastcnn
from fastcnn.engine.graph import infer_shapes
from fastcnn.engine.onnx_import import OnnxError, import_onnx
from tests.engine.test_capture_nets import flat, settle
from tests.models import lenet5, load_pretrained
from tests.models.odd import ODD
from tests.models.onnx_build import model, run_onnxruntime, single, write
from tests.reference.interpreter import run_graph

FOLDED_TOLERANCE = 1e-5
"""Graph and model both in float64, the graph's weights rounded to float32 once more."""
FP32_TOLERANCE = 1e-4
"""What tolerance "fp32" promises of a net."""


def export(
    net: nn.Module, x: torch.Tensor, path: Path, *, dynamo: bool, open_axes: dict[int, str] | None = None
) -> Path:
    """Write a model with one of torch's two exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    names: dict[str, Any] = {"input_names": ["input"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about their own internals
        try:
            if dynamo:
                shapes = ({i: torch.export.Dim(word) for i, word in open_axes.items()},) if open_axes else None
                names |= {"external_data": False, "verbose": False, "dynamic_shapes": shapes}
                torch.onnx.export(net, (x,), str(path), dynamo=True, **names)
            else:
                axes = {"input": open_axes} if open_axes else None
                torch.onnx.export(net, (x,), str(path), dynamo=False, opset_version=13, dynamic_axes=axes, **names)
        finally:
            logger.setLevel(level)
    return path


def assert_same(net: nn.Module, path: Path, x: torch.Tensor, shape: tuple[int, ...] | None = None) -> None:
    """Graph against the model, both in float64; then the compiled net."""
    graph = import_onnx(path, None if shape is None else [shape])
    with torch.no_grad():
        exact = [y.numpy() for y in flat(copy.deepcopy(net).double()(x.double()))]
    compiled = fastcnn.compile(path, np.zeros(shape or x.shape, np.float32), threads=1, tune=False)
    for got, run, y in zip(run_graph(graph, {"input": x.numpy()}), _tuple(compiled(x.numpy())), exact, strict=True):
        assert got.shape == run.shape == y.shape
        # Exporters fold batch norms in float32: what is left of that is the rounding of a weight.
        assert np.abs(got - y).max() <= FOLDED_TOLERANCE * np.abs(y).max()
        assert np.abs(run - y).max() <= FP32_TOLERANCE * np.abs(y).max()


def _tuple(outputs: Any) -> tuple[np.ndarray, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


EXPORTERS = pytest.mark.parametrize(
    "dynamo", [pytest.param(True, marks=pytest.mark.slow), False], ids=["dynamo", "torchscript"]
)
"""The newer exporter takes ten seconds to warm up."""


class Small(nn.Module):
    """Grouped and dilated convolutions, squeeze and excite, shuffle, a view that reads the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.middle = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.middle(x)) * self.gate(x) + x
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = nn.functional.interpolate(self.up(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(x.mean((2, 3)).view(x.size(0), -1)).softmax(1)


@EXPORTERS
def test_a_stated_batch_stays_open_where_every_picture_is_by_itself(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = settle(Small())
    path = export(net, torch.rand(1, 3, 16, 12), tmp_path / "net.onnx", dynamo=dynamo)
    (value,) = import_onnx(path).inputs
    assert (value.shape, value.fixed) == ((1, 3, 16, 12), (1, 2, 3))
    assert_same(net, path, torch.rand(3, 3, 16, 12), (1, 3, 16, 12))
    assert import_onnx(path, [(4, 3, 16, 12)]).inputs[0].shape == (4, 3, 16, 12)
    with pytest.raises(OnnxError, match=r"shape \(1, 3, 16, 16\), but the file states 12 on axis 3"):
        import_onnx(path, [(1, 3, 16, 16)])


@EXPORTERS
def test_open_axes(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = settle(Small())
    axes = {0: "batch", 2: "height", 3: "width"}
    path = export(net, torch.rand(2, 3, 16, 12), tmp_path / "net.onnx", dynamo=dynamo, open_axes=axes)
    (value,) = import_onnx(path, {"input": (1, 3, 16, 12)}).inputs
    assert (value.shape, value.fixed) == ((1, 3, 16, 12), (1,))
    assert_same(net, path, torch.rand(3, 3, 20, 28), (1, 3, 16, 12))
    with pytest.raises(OnnxError, match=r"input 'input' has shape \(batch, 3, height, width\): give an example input"):
        import_onnx(path)


NO_ONNX = ("unknown", "in_place")
"""Exported with operations outside the set: topk and roll, ScatterND."""


@pytest.mark.parametrize("name", [n for n in ODD if n not in NO_ONNX])
def test_odd_nets(name: str, tmp_path: Path) -> None:
    build, shape = ODD[name]
    torch.manual_seed(2)
    net = settle(build())
    x = torch.rand(shape)
    path = export(net, x, tmp_path / "net.onnx", dynamo=False)
    assert_same(net, path, x, shape)


@pytest.mark.slow
def test_lenet_by_both_exporters_is_the_same_graph(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net, x = lenet5().eval(), torch.rand(1, 1, 28, 28)
    one, two = (
        import_onnx(export(net, x, tmp_path / f"{dynamo}.onnx", dynamo=dynamo, open_axes={0: "N"}), [(1, 1, 28, 28)])
        for dynamo in (True, False)
    )
    ops = [[node.op.replace("flatten", "reshape") for node in graph] for graph in (one, two)]
    assert ops[0] == ops[1]
    assert ops[0].count("conv2d") == 2
    assert one.inputs[0].fixed == two.inputs[0].fixed == (1, 2, 3)


@pytest.mark.data
def test_resnet20_gives_the_labels_of_torch(data_dir: Path, tmp_path: Path) -> None:
    from fastcnn.data import PRESETS, load_data

    net = load_pretrained("cifar10_resnet20", data_dir)
    path = export(net, torch.rand(1, 3, 32, 32), tmp_path / "net.onnx", dynamo=False, open_axes={0: "N"})
    pictures = load_data(f"cifar10:{data_dir / 'cifar10'}", split="test").limit(100)
    x, _ = next(pictures.batches(PRESETS["cifar10"], batch_size=100))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    got = fastcnn.compile(path, x[:1], threads=1, tune=False)(x)
    assert np.array_equal(got.argmax(1), expected.argmax(1))
    assert np.abs(got - expected).max() <= FP32_TOLERANCE * np.abs(expected).max()


ZOO = [
    ("vgg.bn_vgg11", True),
    ("resnet.resnet18", True),
    ("resnet.resnet50", False),
    ("alexnet.alexnet", True),
    ("alexnet.alexnetb", True),
    ("mobilenetv2.mobilenetv2_w1", True),
    ("mobilenetv3.mobilenetv3_small_w7d20", False),
    ("squeezenet.squeezenet_v1_1", False),
    ("shufflenetv2.shufflenetv2_wd2", False),
    ("densenet.densenet121", False),
    ("efficientnet.efficientnet_b0", False),
]


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize(("name", "dynamo"), ZOO, ids=[name for name, _ in ZOO])
def test_zoo(name: str, dynamo: bool, tmp_path: Path) -> None:
    """Against torch in float64, and against onnxruntime on the same file."""
    pytest.importorskip("pytorchcv", reason="the zoo needs pytorchcv")
    from fastcnn.benchmarking.settle import settle as settle_on_pictures

    module, function = name.split(".")
    build = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)
    torch.manual_seed(4)
    net = settle_on_pictures(build().eval(), (1, 3, 224, 224))
    path = export(net, torch.rand(1, 3, 224, 224), tmp_path / "net.onnx", dynamo=dynamo)
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        exact = copy.deepcopy(net).double()(x.double()).numpy()
    got = fastcnn.compile(path, x.numpy()[:1], threads=1, tune=False)(x.numpy())
    assert np.abs(got - exact).max() <= FP32_TOLERANCE * np.abs(exact).max()
    (theirs,) = run_onnxruntime(path, {"input": x.numpy()[:1]})
    assert np.abs(got[:1] - theirs).max() <= FP32_TOLERANCE * np.abs(exact).max()


# -- sizes, by hand ------------------------------------------------------------------------------------------------

IMAGE = ("N", 4, "H", "W")


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, [n if n != "_" else "" for n in inputs.split()], [output], **attributes)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


FIXED: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "plain": (single("Relu", IMAGE), (1, 4, 6, 6), (1,)),
    "pool-same-stride-2": (
        single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        (1, 4, 6, 6),
        (1, 2, 3),
    ),
    "pool-same-stride-1": (single("MaxPool", IMAGE, kernel_shape=[3, 3], auto_pad="SAME_LOWER"), (1, 4, 6, 6), (1,)),
    "reshape-to-numbers": (single("Reshape", IMAGE, i64(-1, 4, 36)), (1, 4, 6, 6), (1, 2, 3)),
    "reshape-batch-in-number": (single("Reshape", IMAGE, i64(1, 4, 6, -1)), (1, 4, 6, 6), (0, 1, 2, 3)),
    "slice-from-the-end": (single("Slice", IMAGE, i64(1), i64(-1), i64(2)), (1, 4, 6, 6), (1, 2, 3)),
    "resize-twice-the-shape": (
        model(
            [
                node("Shape", "x", "s"),
                node("Mul", "s two", "t"),
                node("Resize", "x _ _ t", mode="linear"),
            ],
            {"x": IMAGE},
            constants={"two": i64(1, 1, 2, 2)},
        ),
        (1, 4, 6, 6),
        (1,),
    ),
    "resize-to-another-map": (
        model(
            [
                node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
                node("Shape", "x", "s"),
                node("Resize", "p _ _ s", mode="linear"),
            ],
            {"x": IMAGE},
        ),
        (1, 4, 6, 6),
        (1, 2, 3),
    ),
    "batch-as-a-number": (
        model(
            [
                node("Shape", "x", "s"),
                node("Slice", "s zero one", "n"),
                node("Cast", "n", "f", to=1),
                node("Mul", "x f"),
            ],
            {"x": IMAGE},
            constants={"zero": i64(0), "one": i64(1)},
        ),
        (3, 4, 6, 6),
        (0, 1),
    ),
    "stated-softmax-over-the-batch": (single("Softmax", (2, 4), axis=0), (2, 4), (0, 1)),
    "stated-reshape-across-the-batch": (single("Reshape", (2, 4), i64(4, 2)), (2, 4), (0, 1)),
    "stated-per-picture-constant": (single("Add", (2, 4), np.ones((2, 1), np.float32)), (2, 4), (0, 1)),
    "stated-flatten": (single("Reshape", (2, 4, 3), i64(2, 12)), (2, 4, 3), (1, 2)),
    "stated-transposed": (single("Transpose", (2, 4), perm=[1, 0]), (2, 4), (0, 1)),
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_axes(name: str, tmp_path: Path) -> None:
    """The axes that stay open, and at another size of them the graph is what onnxruntime says."""
    net, shape, fixed = FIXED[name]
    graph = import_onnx(write(net, tmp_path), [shape])
    assert graph.inputs[0].fixed == fixed
    stated = all(d.HasField("dim_value") for d in net.graph.input[0].type.tensor_type.shape.dim)
    other = tuple(n if i in fixed else n + 2 for i, n in enumerate(shape))
    infer_shapes(graph, {"x": other})
    x = np.random.default_rng(5).standard_normal(other).astype(np.float32)
    (got,) = run_graph(graph, {"x": x})
    if stated:  # picture by picture, in groups of the stated batch
        parts = [run_onnxruntime(net, {"x": x[i : i + shape[0]]})[0] for i in range(0, other[0], shape[0])]
        expected = np.concatenate(parts)
    else:
        (expected,) = run_onnxruntime(net, {"x": x})
    assert np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max()


def test_a_batch_that_the_nodes_depend_on_is_refused(tmp_path: Path) -> None:
    path = write(single("Softmax", (2, 4), axis=0), tmp_path)
    with pytest.raises(OnnxError, match=r"shape \(3, 4\), but the file states a batch of 2 and its nodes depend on it"):
        import_onnx(path, [(3, 4)])
