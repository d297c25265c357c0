"""What capture refuses, warns of, and leaves untouched."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn.engine.capture import NotSupportedError, capture
from fastcnn.engine.graph import GraphError, check_graph, infer_shapes
from tests.engine.test_capture_nets import assert_captured, settle
from tests.models import cifar_resnet20
from tests.models.odd import Unknown
from tests.reference.interpreter import run_graph


class Call(nn.Module):
    """A function as a model."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        return self.function(*args, **kwargs)


X = torch.ones(2, 3, 6, 6)
CONV = nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    ("model", "inputs", "error", "message"),
    [
        ("resnet", X, TypeError, "model must be a torch.nn.Module, got str"),
        (CONV, 3, TypeError, "example_inputs must be a tensor.*got int"),
        (CONV, np.zeros((1, 3, 6, 6), np.float32), TypeError, "got ndarray"),
        (CONV, (np.zeros((1, 3, 6, 6), np.float32),), TypeError, "example input 0 must be a torch.Tensor, got ndarray"),
        (CONV, X.double(), TypeError, "example input 0 must be float32, got torch.float64"),
        (CONV, {"input": X.half()}, TypeError, "example input input must be float32, got torch.float16"),
        (CONV, (), ValueError, "example_inputs is empty"),
        (CONV, torch.zeros(0, 3, 6, 6), ValueError, r"shape \(0, 3, 6, 6\).*none of them empty"),
        (CONV, torch.tensor(1.0), ValueError, r"1\.\.8 axes"),
        (CONV, torch.ones(1, 5, 6, 6), ValueError, r"the model itself fails.*\(1, 5, 6, 6\).*5 channels"),
        (CONV, torch.ones(1, 3, 2, 2), ValueError, "the model itself fails.*Kernel size"),
        (CONV, (X, X), ValueError, "the model itself fails"),
        (copy.deepcopy(CONV).double(), X, TypeError, "parameter 'weight' is torch.float64.*model.float"),
        (copy.deepcopy(CONV).half(), X, TypeError, "parameter 'weight' is torch.float16"),
        (nn.LazyConv2d(4, 3), X, ValueError, "parameter 'weight' is not initialised"),
        (Call(lambda x: x.argmax(1)), X, NotSupportedError, "returns a torch.int64 tensor.*aten::argmax"),
        (Call(lambda x: (x, 3)), X, NotSupportedError, "the model returns 3"),
        (Call(lambda x: None), X, NotSupportedError, "the model returns None|returns no tensor"),
        (Call(lambda x: x + torch.rand(6)), X, NotSupportedError, "draws random numbers.*aten::rand"),
        (Call(lambda x: x if x.sum() > 0 else -x), X, NotSupportedError, "torch.export cannot trace.*control flow"),
    ],
)
def test_refusals(model: Any, inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        capture(model, inputs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_weights_are_named(bad: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        model[0].weight[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"'0\.weight' holds NaN or infinity"):
        capture(model, X)
    with torch.no_grad():
        model[0].weight[1, 0, 0, 0] = 0.0
        model[1].running_var[2] = bad
    with pytest.raises(ValueError, match=r"1\.running_var holds NaN or infinity"):
        capture(model, X)


def test_state_kept_in_buffers_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return x * self.calls

    with pytest.raises(NotSupportedError, match="changes its buffer 'calls'"):
        capture(Counter(), X)


def test_strict_names_op_layer_and_way_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unfold(2))
    with pytest.raises(NotSupportedError, match=r"aten::im2col in layer '1'.*strict=False"):
        capture(model, X, strict=True)
    with pytest.warns(UserWarning, match=r"aten::im2col in layer '1' runs in torch") as caught:
        graph = capture(model, X)
    assert len(caught) == 1
    assert_captured(model, X, graph)
    with pytest.raises(GraphError, match=r"'1'.*aten::im2col.*cannot be saved"):
        graph.to_json()
    with pytest.raises(GraphError, match=r"a torch step .* is not allowed"):
        check_graph(graph)


def test_three_dimensional_convolutions_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3))
    with pytest.raises(NotSupportedError, match=r"aten::conv3d in layer '0' \(three-dimensional convolutions"):
        capture(model, torch.zeros(1, 1, 4, 4, 4), strict=True)


def test_unpooling_a_size_that_is_not_its_own_inverse_is_refused_later() -> None:
    """Captured on even sides; an odd side would be another size than torch's."""
    model = Call(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))
    graph = capture(model, torch.zeros(1, 3, 8, 8), strict=True)
    name = graph.inputs[0].name
    assert infer_shapes(graph, {name: (2, 3, 8, 8)})[graph.outputs[0]] == (2, 3, 8, 8)
    with pytest.raises(GraphError, match=r"not their inverse|must be 8"):
        infer_shapes(graph, {name: (1, 3, 9, 8)})


def test_unknown_ops_run_in_torch_on_numpy_arrays() -> None:
    """A roll, a topk with an unused output, and a boolean mask that stays inside one step."""
    torch.manual_seed(0)
    model, x = Unknown().eval(), torch.randn(2, 3, 6, 7)
    with pytest.warns(UserWarning, match="runs in torch") as caught:
        graph = capture(model, x)
    steps = [node for node in graph if node.op == "torch"]
    assert len(steps) == len(caught) == len(graph.torch_calls)
    assert [node.attrs["target"] for node in steps] == ["aten::erf", "aten::roll", "aten::topk", "aten::where"]
    call = graph.torch_calls[steps[0].attrs["key"]]
    shape = infer_shapes(graph, {"x": (2, 3, 6, 7)})[steps[0].inputs[0]]
    frozen = np.full(shape, 0.5, np.float32)
    frozen.flags.writeable = False
    result = call(frozen)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, torch.erf(torch.full(shape, 0.5)).numpy())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x * 2, 0.5),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
        lambda x: F.max_unpool2d(x[:, :, :3, :3], F.max_pool2d(x, 2, return_indices=True)[1] + 0, 2),
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(7, 7)),
        lambda x: F.max_unpool2d(*F.max_pool2d(x[:, :, :5], 2, return_indices=True), 2),
        lambda x: F.conv3d(x[:, None], torch.ones(2, 1, 2, 2, 2)),
        lambda x: F.local_response_norm(x[:, :, None], 3),
        lambda x: x[:, torch.tensor([[2, 0, 1]])],
        lambda x: x[torch.tensor([1, 0])],
        lambda x: x.flip(1),
        lambda x: torch.maximum(x, x * 0.5 + 0.5),
        lambda x: torch.ones(5, 6) @ x,
        lambda x: torch.linalg.vector_norm(x, 1, dim=1),
        lambda x: x.to(torch.float64).sqrt().to(torch.float32),
        lambda x: torch.where(x > 1, x, -x),
        lambda x: x / 0,
    ],
)
def test_variants_outside_the_set_become_torch_steps(function: Any) -> None:
    model = Call(function)
    with pytest.raises(NotSupportedError, match="the engine cannot run"):
        capture(model, X, strict=True)
    with pytest.warns(UserWarning, match="runs in torch"):
        graph = capture(model, X)
    assert any(node.op == "torch" for node in graph)
    out = run_graph(graph, {graph.inputs[0].name: X.numpy()})[0]
    assert out.shape == tuple(function(X).shape)


def test_model_is_left_as_it_was() -> None:
    model = cifar_resnet20()
    model.train()
    model.layer2.eval()
    flags = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    grads = [p.requires_grad for p in model.parameters()]
    graph = capture(model, torch.randn(1, 3, 32, 32), strict=True)
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == grads
    before = graph.weights["conv1.weight"].copy()
    with torch.no_grad():
        model.conv1.weight.add_(1.0)
    np.testing.assert_array_equal(graph.weights["conv1.weight"], before)


def test_flags_come_back_after_a_failure() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    with pytest.raises(ValueError, match="the model itself fails"):
        capture(model, torch.ones(1, 5, 6, 6))
    assert all(module.training for module in model.modules())


def test_dropout_and_batch_norm_are_read_in_eval_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.9)).train()
    graph = capture(settle(model).train(), X, strict=True)
    assert [node.op for node in graph] == ["conv2d", "batch_norm"]


def test_names_follow_the_module_path() -> None:
    graph = capture(cifar_resnet20(), torch.randn(1, 3, 32, 32), strict=True)
    names = [node.name for node in graph]
    assert names[:3] == ["conv1", "bn1", "relu"]
    assert "layer1.0.conv1" in names
    assert "layer1.0.add" in names
    assert "linear" in names
    assert len(set(names)) == len(names)
    assert graph.node("layer2.1.bn2").source == "layer2.1.bn2"
    assert graph.node("layer2.1.add").source == "layer2.1"
    assert graph.node("conv1").params == {"weight": "conv1.weight"}


def test_several_inputs_by_position_and_by_name() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    for inputs in ((a, b), [a, b], {"b": b, "a": a}):
        graph = capture(Two(), inputs, strict=True)
        assert sorted(v.name for v in graph.inputs) == ["a", "b"]
        got = run_graph(graph, {"a": a.numpy(), "b": b.numpy()})[0]
        np.testing.assert_allclose(got, (a.double() - b.double()).numpy())


def test_baked_sizes_are_refused_later_not_computed_wrongly() -> None:
    """A crop by a number taken from the image's size: other sizes are an error, other batches are not."""
    model = Call(lambda x: x[:, :, : x.size(2) // 2])
    graph = capture(model, torch.zeros(1, 3, 8, 8), strict=True)
    assert graph.inputs[0].fixed == (2, 3)
    name = graph.inputs[0].name
    assert infer_shapes(graph, {name: (5, 3, 8, 8)})[graph.outputs[0]] == (5, 3, 4, 8)
    with pytest.raises(GraphError, match=r"axis 2 must be 8.*capture it again"):
        infer_shapes(graph, {name: (1, 3, 10, 8)})


def test_a_ratio_of_two_sizes_is_no_constant() -> None:
    """Both axes twice as large leave it as it was; the graph holds for the example's size alone."""
    graph = capture(Call(lambda x: x * (x.shape[2] / x.shape[3])), torch.zeros(1, 3, 8, 8), strict=True)
    assert graph.inputs[0].fixed == (2, 3)
    product = capture(Call(lambda x: x.reshape(-1, 3, x.shape[2] * x.shape[3])), torch.zeros(1, 3, 8, 8), strict=True)
    assert product.inputs[0].fixed == ()


def test_pool_over_the_whole_image_serves_every_size() -> None:
    """The kernel comes from the image: written as a mean. A kernel of a fixed 8 stays a pool of 8."""
    computed = capture(Call(lambda x: F.avg_pool2d(x, x.size(3))), torch.zeros(1, 3, 8, 8), strict=True)
    fixed = capture(nn.AvgPool2d(8), torch.zeros(1, 3, 8, 8), strict=True)
    assert [n.op for n in computed] == ["mean"]
    assert [n.op for n in fixed] == ["avg_pool2d"]
    for graph, side in ((computed, 1), (fixed, 2)):
        assert graph.inputs[0].fixed == ()
        assert infer_shapes(graph, {graph.inputs[0].name: (1, 3, 16, 16)})[graph.outputs[0]] == (1, 3, side, side)


class Headed(nn.Module):
    """A pool and a head that takes one map size only; the pool's kernel is 4, or what the map is."""

    def __init__(self, kernel: int | None, stride: int) -> None:
        super().__init__()
        self.conv, self.kernel = nn.Conv2d(3, 4, 3, padding=1, stride=stride), kernel
        self.head, self.side = nn.Linear(4, 2), nn.Linear(4 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        pooled = F.avg_pool2d(y, self.kernel or y.size(3))
        return self.head(pooled.flatten(1)) + (self.side(y.flatten(1)) if self.kernel is None else 0.0)


def test_small_steps_settle_nets_with_a_fixed_head() -> None:
    """Twice the image does not fit the head; a little more does, and must change the map to prove anything."""
    moving = capture(Headed(4, 4), torch.zeros(1, 3, 16, 16), strict=True)  # 19 pixels: a map of 5, still pooled by 4
    assert moving.inputs[0].fixed == ()
    assert infer_shapes(moving, {"x": (2, 3, 20, 20)})[moving.outputs[0]] == (2, 2)
    with pytest.raises(GraphError, match="expects 4 features"):
        infer_shapes(moving, {"x": (2, 3, 32, 32)})
    standing = capture(Headed(None, 5), torch.zeros(1, 3, 16, 16), strict=True)  # a map of 4 for 16 and for 19 pixels
    assert standing.inputs[0].fixed in ((), (2, 3))
    if standing.inputs[0].fixed == ():
        assert "mean" in {node.op for node in standing}


def test_size_reads_are_seen() -> None:
    """Every way to look at a size counts; looking at the channels does not."""
    from fastcnn.engine.capture.size_reads import watch

    cases: list[tuple[Any, bool, bool]] = [
        (lambda x: F.relu(x).flatten(1), False, False),
        (lambda x: x.view(x.size(0), -1), True, False),
        (lambda x: x * x.size(dim=1), False, False),
        (lambda x: x * x.size(-1), False, True),
        (lambda x: x * x.shape[1], True, True),
        (lambda x: x * len(x), True, True),
        (lambda x: x * x.numel(), True, True),
        (lambda x: F.adaptive_avg_pool2d(F.relu6(x), 1), False, False),
        (lambda x: F.max_pool2d(F.softmax(x, 1), 2), False, False),
        (lambda x: F.interpolate(x, scale_factor=2), False, False),
        (lambda x: F.unfold(x, 2), True, True),
        (lambda x: F.group_norm(x, 1), False, False),
        (lambda x: F.adaptive_avg_pool2d(x, (None, 2)), True, True),
    ]
    for function, batch, spatial in cases:
        reads = watch(Call(function), (X,), {})
        assert (reads.batch, reads.spatial) == (batch, spatial)


def test_fixed_kernels_over_the_whole_map_stay_open() -> None:
    """A pool of 7 on a map of 7, written as a number: smaller images work as in torch, larger ones fail as in torch."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(4, 2))
    graph = capture(model, torch.randn(1, 3, 14, 14), strict=True)
    assert graph.inputs[0].fixed == ()
    assert_captured(model, torch.randn(3, 3, 13, 17), graph)
    with pytest.raises(GraphError, match="expects 4 features"):
        infer_shapes(graph, {graph.inputs[0].name: (1, 3, 28, 28)})


def test_private_in_place_ops_need_no_functional_form() -> None:
    """relu_ on a convolution's own output is relu; an add_ through a view is not add."""
    from fastcnn.engine.capture.in_place import needs_functional_form

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)).eval()
    aliased = Call(lambda x: F.relu_(x.mul(2)[:, :1]))
    dropped = Call(lambda x: F.dropout(x, training=False).add_(1.0))
    with torch.no_grad():
        for model, needs in ((plain, False), (aliased, True), (dropped, True)):
            assert needs_functional_form(torch.export.export(model, (X,)).graph) is needs


def test_hard_coded_batch_is_refused() -> None:
    graph = capture(Call(lambda x: x.view(2, -1) + torch.arange(2.0).reshape(2, 1)), torch.zeros(2, 3), strict=True)
    with pytest.raises(GraphError, match="axis 0 must be 2"):  # the constant has two rows
        infer_shapes(graph, {graph.inputs[0].name: (3, 3)})


def test_no_warning_where_all_is_supported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(cifar_resnet20(), torch.randn(1, 3, 32, 32))


def test_custom_ops_become_codebook_nodes() -> None:
    importlib.import_module("fastcnn.methods.vq.ops")  # defines the two ops

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.book = nn.Parameter(torch.tensor([0.0, -0.5, 0.25, 1.5]))
            self.bias = nn.Parameter(torch.randn(4))
            self.register_buffer("conv_codes", torch.randint(0, 4, (4, 3, 3, 3), dtype=torch.uint8))
            self.register_buffer("linear_codes", torch.randint(0, 4, (5, 4), dtype=torch.uint8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ops = torch.ops.fastcnn
            x = ops.codebook_conv2d(x, self.book, self.conv_codes, self.bias, [2, 1], [1, 0], [1, 1], 1)
            return ops.codebook_linear(x.mean((2, 3)), self.book, self.linear_codes, None)

    torch.manual_seed(1)
    model, x = Net(), torch.randn(2, 3, 7, 6)
    graph = capture(model, x, strict=True)
    assert [node.op for node in graph] == ["codebook_conv2d", "mean", "codebook_linear"]
    first, last = graph.nodes[0], graph.nodes[2]
    assert graph.weights[first.params["codes"]].dtype == np.uint8
    assert first.params["codebook"] == last.params["codebook"] == "book"
    assert first.attrs["padding"] == [1, 0, 1, 0]
    assert_captured(model, x, graph)
    with torch.no_grad():
        model.book[0] = 0.125
    with pytest.raises(NotSupportedError, match=r"codebook\[0\] must be exactly 0"):
        capture(model, x, strict=True)
