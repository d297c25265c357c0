"""Plan passes keep results, fuse what they should, and leave alone what they must."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn.engine.capture import capture
from fastcnn.engine.graph import Graph, GraphInput, check_graph, infer_shapes, make_node
from fastcnn.engine.plan.passes import (
    expand_codebook,
    fold_batchnorm,
    fuse_epilogue,
    optimise,
    simplify,
)
from fastcnn.engine.plan.passes.folded_weight import FoldedWeight
from tests.engine.test_capture_nets import settle
from tests.models import PRETRAINED, load_pretrained
from tests.models.odd import ODD
from tests.reference.interpreter import run_graph

EXACT = 1e-12  # simplify, fuse and expand move no rounding
FOLDED = 5e-6  # folding rounds each weight to float32 once; 1e-9 would ask for unrounded weights


def difference(a: Graph, b: Graph, x: np.ndarray) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    name = a.inputs[0].name
    worst = 0.0
    for one, two in zip(run_graph(a, {name: x}), run_graph(b, {name: x}), strict=True):
        assert one.shape == two.shape
        worst = max(worst, float(np.abs(one - two).max() / max(np.abs(one).max(), 1e-30)))
    return worst


def captured(model: nn.Module, *shape: int) -> tuple[Graph, dict[str, tuple[int, ...]]]:
    graph = capture(model.eval(), torch.zeros(shape), strict=True)
    return graph, infer_shapes(graph, {graph.inputs[0].name: shape})


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(11).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", [n for n in ODD if n != "unknown"])
def test_every_pass_keeps_every_odd_net(name: str) -> None:
    build, shape = ODD[name]
    torch.manual_seed(12)
    graph, shapes = captured(settle(build()), *shape)
    x = noise(*shape)
    before = {key: array.copy() for key, array in graph.weights.items()}
    for module, tolerance in (
        (expand_codebook, EXACT),
        (simplify, EXACT),
        (fold_batchnorm, FOLDED),
        (fuse_epilogue, EXACT),
    ):
        result = module.run(graph, shapes)
        check_graph(result, internal=True)
        assert difference(graph, result, x) <= tolerance, module.__name__
    best = optimise(graph, shapes)
    check_graph(best.graph, internal=True)
    assert difference(graph, best.graph, x) <= FOLDED
    assert len(best.graph.nodes) <= len(graph.nodes)
    assert all(np.array_equal(before[key], graph.weights[key]) for key in before), (
        "a pass wrote into the input's weights"
    )


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_weights_multiplied_out_later_are_the_same(groups: int) -> None:
    torch.manual_seed(14)
    layers = (nn.Conv2d(6, 12, 3, groups=groups), nn.BatchNorm2d(12), nn.Conv2d(12, 520, 7), nn.BatchNorm2d(520))
    net = nn.Sequential(*layers)
    graph, shapes = captured(settle(net), 1, 6, 12, 12)
    now, later = (optimise(graph, shapes, multiply=multiply).graph for multiply in (True, False))
    assert now.nodes == later.nodes
    folded = [key for key, weight in later.weights.items() if isinstance(weight, FoldedWeight)]
    assert len(folded) == 2
    for key, weight in later.weights.items():
        array = np.asarray(weight)
        assert (weight.shape, weight.ndim, weight.size) == (array.shape, array.ndim, array.size)
        assert weight.dtype == array.dtype
        assert array.flags.c_contiguous
        assert np.array_equal(array.view(np.uint32), now.weights[key].view(np.uint32))


@pytest.mark.parametrize("scale", [1e38, -1e38, np.inf, np.nan, 1e30])
def test_weights_that_would_overflow_are_not_folded(scale: float) -> None:
    weight = np.array([0.0, 1.0, -2.0, 4.0], np.float32).reshape(1, 1, 2, 2)
    folded = FoldedWeight(weight, np.array([scale]))
    with np.errstate(all="ignore"):
        assert folded.is_finite() == np.isfinite(np.asarray(folded)).all() == (scale == 1e30)


@pytest.mark.parametrize("name", [n for n in ODD if n != "unknown"])
def test_optimised_graph_serves_another_size(name: str) -> None:
    build, shape = ODD[name]
    torch.manual_seed(13)
    graph, shapes = captured(settle(build()), *shape)
    fixed = graph.inputs[0].fixed
    step = 4 if name == "unet" else 3
    other = tuple(n if i == 1 or i in fixed else n + step for i, n in enumerate(shape))
    assert difference(graph, optimise(graph, shapes).graph, noise(*other)) <= FOLDED


@pytest.mark.data
def test_resnet20_becomes_convolutions_and_little_else(data_dir: Path) -> None:
    graph, shapes = captured(load_pretrained("cifar10_resnet20", data_dir), 2, 3, 32, 32)
    best = optimise(graph, shapes)
    counts = ops(best.graph)
    assert counts["conv2d"] == 19
    assert not {"batch_norm", "relu", "add", "scale_shift"} & set(counts)
    residuals = [n for n in best.graph if "epilogue" in n.attrs and n.attrs["epilogue"]["residual"]]
    assert len(residuals) == 9
    assert all(n.attrs["epilogue"]["order"] == "add_then_act" for n in residuals)
    assert any("folded" in note for note in best.notes)
    assert difference(graph, best.graph, noise(2, 3, 32, 32)) <= FOLDED


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10_resnet32", "imagenet_mobilenet_v2", "imagenet_squeezenet1_0_dc"])
def test_pretrained_nets_keep_their_results(name: str, data_dir: Path) -> None:
    size = 32 if name.startswith("cifar") else 96
    graph, shapes = captured(load_pretrained(name, data_dir), 1, PRETRAINED[name][1][0], size, size)
    best = optimise(graph, shapes)
    assert not {"batch_norm", "relu", "clamp"} & set(ops(best.graph))
    assert difference(graph, best.graph, noise(1, 3, size, size)) <= FOLDED


class Chain(nn.Module):
    """A layer and a batch norm, for each kind of layer."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)) * 0.5 + 0.25


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 7, 6)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), (2, 4, 7, 6)),
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 6)),
        (nn.ConvTranspose2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 6)),
        (nn.Linear(5, 6), nn.BatchNorm1d(6), (3, 5)),
    ],
)
def test_batch_norm_folds_into_each_kind_of_layer(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(14)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    graph, shapes = captured(Chain(layer, norm), *shape)
    result = fold_batchnorm.run(graph, shapes)
    assert len(result.nodes) == 1
    assert "bias" in result.nodes[0].params
    assert difference(graph, result, noise(*shape)) <= FOLDED


def test_folding_rounds_once() -> None:
    """The folded weight is the float64 product rounded once: bit for bit."""
    torch.manual_seed(15)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(norm.weight)
    graph, shapes = captured(Chain(conv, norm), 1, 3, 6, 6)
    node = fold_batchnorm.run(graph, shapes).nodes[0]
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    wanted = (conv.weight.double() * (scale * 0.5).reshape(-1, 1, 1, 1)).float().detach().numpy()
    result = fold_batchnorm.run(graph, shapes)
    np.testing.assert_array_equal(result.weights[node.params["weight"]], wanted)


def test_linear_on_three_axes_keeps_its_batch_norm() -> None:
    """BatchNorm1d works on axis 1, the outputs of the linear layer stand on axis 2."""
    torch.manual_seed(16)
    graph, shapes = captured(settle(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))), 2, 5, 5)
    result = fold_batchnorm.run(graph, shapes)
    assert ops(result) == {"linear": 1, "scale_shift": 1}
    assert difference(graph, result, noise(2, 5, 5)) <= FOLDED


def test_shared_convolution_folds_two_norms_apart() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.conv(F.relu(self.a(self.conv(x)))))

    torch.manual_seed(17)
    graph, shapes = captured(settle(Net()), 1, 3, 6, 6)
    result = fold_batchnorm.run(graph, shapes)
    assert ops(result) == {"conv2d": 2, "relu": 1}
    assert len({n.params["weight"] for n in result if n.op == "conv2d"}) == 2
    assert difference(graph, result, noise(1, 3, 6, 6)) <= FOLDED


def test_norm_whose_input_is_read_twice_becomes_scale_shift() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return torch.cat([F.relu(self.bn(y)), y], 1)

    torch.manual_seed(18)
    graph, shapes = captured(settle(Net()), 1, 3, 5, 5)
    best = optimise(graph, shapes).graph
    assert ops(best) == {"conv2d": 1, "scale_shift": 1, "concat": 1}
    assert difference(graph, best, noise(1, 3, 5, 5)) <= FOLDED


def test_codebook_expands_exactly() -> None:
    weights = {
        "book": np.array([0, -1.5, 0.25], np.float32),
        "codes": np.array([[[[0, 1], [2, 2]]], [[[1, 0], [0, 2]]]], np.uint8),
    }
    attrs = {"stride": [1, 1], "padding": [0, 1, 1, 0], "dilation": [1, 1], "groups": 1}
    node = make_node("c", "codebook_conv2d", ["x"], params={"codebook": "book", "codes": "codes"}, attrs=attrs)
    graph = Graph(inputs=(GraphInput(name="x", shape=(1, 1, 4, 4)),), nodes=[node], outputs=("c",), weights=weights)
    notes: list[str] = []
    result = expand_codebook.run(graph, infer_shapes(graph, {"x": (1, 1, 4, 4)}), notes)
    assert result.nodes[0].op == "conv2d"
    assert result.nodes[0].attrs["expanded_from"] == "codebook"
    assert set(result.weights) == {result.nodes[0].params["weight"]}
    assert len(notes) == 1
    assert difference(graph, result, noise(1, 1, 4, 4)) == 0.0
    with pytest.raises(ValueError, match="made by plan passes only"):
        check_graph(result)


class Residual(nn.Module):
    """conv (+ activation) + shortcut (+ activation), as chosen."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "add_then_act":
            return F.relu(self.a(x) + x)
        if self.kind == "act_then_add":
            return F.silu(self.a(x)) + x
        if self.kind == "two_layers":
            return F.relu6(self.a(x) + self.b(x))
        if self.kind == "read_twice":
            y = self.a(x)
            return F.relu(y) + y
        if self.kind == "broadcast":
            return self.a(x).mean((2, 3), keepdim=True) + self.b(x)
        return self.a(x) + self.a(x).mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("add_then_act", {"conv2d": 1}),
        ("act_then_add", {"conv2d": 1}),
        ("two_layers", {"conv2d": 2}),
        ("read_twice", {"conv2d": 1, "relu": 1, "add": 1}),
        ("broadcast", {"conv2d": 2, "mean": 1, "add": 1}),
    ],
)
def test_epilogues(kind: str, left: dict[str, int]) -> None:
    torch.manual_seed(19)
    graph, shapes = captured(Residual(kind), 2, 4, 5, 6)
    result = fuse_epilogue.run(graph, shapes)
    check_graph(result, internal=True)
    assert ops(result) == left
    assert difference(graph, result, noise(2, 4, 5, 6)) <= EXACT
    last = result.nodes[-1]
    if kind in ("add_then_act", "act_then_add"):
        assert last.attrs["epilogue"]["order"] == kind
        assert last.attrs["epilogue"]["residual"] == last.inputs[-1] == graph.inputs[0].name
    if kind == "two_layers":
        assert last.attrs["epilogue"]["activation"] == {"op": "clamp", "min": 0.0, "max": 6.0}
        assert last.inputs[-1] == result.nodes[0].name


def test_activations_can_be_limited() -> None:
    graph, shapes = captured(Residual("act_then_add"), 1, 4, 5, 5)
    result = fuse_epilogue.run(graph, shapes, activations={"relu"})
    assert ops(result) == {"conv2d": 1, "silu": 1, "add": 1}


def test_output_in_the_middle_is_not_fused_away() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.conv(x)
            return y, F.relu(self.bn(y))

    torch.manual_seed(20)
    graph, shapes = captured(settle(Net()), 1, 3, 6, 6)
    best = optimise(graph, shapes).graph
    assert best.node(best.outputs[0]).attrs.get("epilogue") is None
    assert difference(graph, best, noise(1, 3, 6, 6)) <= FOLDED


PADDED = {
    "conv": (nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(3, 4, 3, padding=1)), 1),
    "avg": (nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2)), 1),
    "avg_not_counted": (nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)), 2),
    "avg_ceil": (nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2, ceil_mode=True)), 2),
    "max_signed": (nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)), 2),
    "max_after_relu": (nn.Sequential(nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)), 2),
    "value": (nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 4, 3)), 2),
    "too_wide": (nn.Sequential(nn.ZeroPad2d(2), nn.AvgPool2d(3, 2)), 2),
    "channels": (nn.Sequential(nn.ConstantPad3d((0, 0, 0, 0, 1, 0), 0.0), nn.Conv2d(4, 4, 3)), 2),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_moves_only_where_it_means_the_same(name: str) -> None:
    model, left = PADDED[name]
    torch.manual_seed(21)
    graph, shapes = captured(model, 2, 3, 8, 9)
    result = simplify.run(graph, shapes)
    assert len(result.nodes) == left
    assert difference(graph, result, noise(2, 3, 8, 9) - 1.0) <= EXACT


def test_what_does_nothing_goes() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.interpolate(x, scale_factor=1.0) * torch.sigmoid(x)
            return F.pad(x, (0, 0)).flatten(2).flatten(1).view(x.size(0), -1)

    graph, shapes = captured(Net(), 2, 3, 4, 5)
    result = simplify.run(graph, shapes)
    assert ops(result) == {"silu": 1, "reshape": 1}
    assert difference(graph, result, noise(3, 3, 6, 4)) <= EXACT


def test_huge_scale_is_not_folded() -> None:
    """A fold that leaves float32's range is refused; the chain stays."""
    conv = nn.Conv2d(2, 2, 1)
    nn.init.constant_(conv.weight, 1e30)
    graph, shapes = captured(nn.Sequential(conv), 1, 2, 3, 3)
    graph.nodes.append(make_node("big", "mul_scalar", [graph.nodes[0].name], attrs={"value": 1e20}))
    graph.outputs = ("big",)
    result = fold_batchnorm.run(graph, infer_shapes(graph, {graph.inputs[0].name: (1, 2, 3, 3)}))
    assert ops(result) == {"conv2d": 1, "mul_scalar": 1}
    assert len(shapes) == 2
