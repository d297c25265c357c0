"""Every op of the table, and every spelling torch has for it, captured and run against torch in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn.engine.capture import capture
from fastcnn.engine.graph import OPS, graph_from_json
from fastcnn.engine.graph.binary import BINARY
from fastcnn.engine.graph.int8 import INT8
from fastcnn.engine.graph.structured import STRUCTURED
from tests.engine.test_capture_nets import assert_captured, settle

Function = Callable[[torch.Tensor], Any]


class Call(nn.Module):
    """A function as a model."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class ChannelsLast(nn.Module):
    """A layer that works on the last axis, on images."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.arange(1.0, 1.0 + parameter.numel()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


IMAGE = (2, 6, 8, 10)
LINE = (2, 6, 12)
ROW = (3, 6)

# name: (ops the graph must hold, function or module, input shape)
CASES: dict[str, tuple[set[str], Function | nn.Module, tuple[int, ...]]] = {
    # convolutions
    "conv2d": ({"conv2d"}, nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), IMAGE),
    "conv2d depthwise": ({"conv2d"}, nn.Conv2d(6, 12, 3, groups=6, bias=False), IMAGE),
    "conv2d same": ({"conv2d"}, nn.Conv2d(6, 4, (2, 4), padding="same", dilation=(3, 1)), IMAGE),
    "conv2d valid": ({"conv2d"}, nn.Conv2d(6, 4, 3, padding="valid"), IMAGE),
    "conv1d": ({"conv1d"}, nn.Conv1d(6, 4, 3, stride=2, padding=2, dilation=2, groups=2), LINE),
    "conv1d same": ({"conv1d"}, nn.Conv1d(6, 4, 4, padding="same"), LINE),
    "conv_transpose2d": (
        {"conv_transpose2d"},
        nn.ConvTranspose2d(6, 4, 3, stride=(2, 3), padding=1, output_padding=(1, 2), groups=2, dilation=(2, 1)),
        IMAGE,
    ),
    "conv_transpose1d": ({"conv_transpose2d", "reshape"}, nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1), LINE),
    "linear": ({"linear"}, nn.Linear(6, 4), ROW),
    "linear on four axes": ({"linear"}, nn.Linear(10, 4, bias=False), IMAGE),
    # normalisation
    "batch_norm2d": ({"batch_norm"}, nn.BatchNorm2d(6), IMAGE),
    "batch_norm1d": ({"batch_norm"}, nn.BatchNorm1d(6, affine=False), LINE),
    "batch_norm in place": ({"batch_norm", "relu"}, nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True)), IMAGE),
    "local_response_norm": ({"local_response_norm"}, nn.LocalResponseNorm(4, alpha=0.3, beta=0.75, k=2.0), IMAGE),
    "local_response_norm line": ({"local_response_norm"}, lambda x: F.local_response_norm(x, 3, 0.4, 0.5, 0.7), LINE),
    "local_response_norm wide": ({"local_response_norm"}, lambda x: F.local_response_norm(x, 15, 2.0, 1.0, 1), IMAGE),
    "local_response_norm of one": ({"local_response_norm"}, lambda x: F.local_response_norm(x, 1, 0.5, 2), IMAGE),
    "local_response_norm in place": (
        {"relu", "local_response_norm"},
        nn.Sequential(nn.ReLU(inplace=True), nn.LocalResponseNorm(2, alpha=0.3), nn.ReLU(inplace=True)),
        IMAGE,
    ),
    "group_norm": ({"group_norm"}, nn.GroupNorm(3, 6), IMAGE),
    "group_norm plain": ({"group_norm"}, lambda x: F.group_norm(x, 2, eps=0.1), LINE),
    "group_norm row": ({"group_norm"}, nn.GroupNorm(2, 6), ROW),
    "instance_norm": ({"group_norm"}, nn.InstanceNorm2d(6, affine=True), IMAGE),
    "instance_norm line": ({"group_norm"}, nn.InstanceNorm1d(6), LINE),
    "instance_norm running": ({"batch_norm"}, nn.InstanceNorm2d(6, affine=True, track_running_stats=True), IMAGE),
    "layer_norm": ({"layer_norm"}, nn.LayerNorm(10), IMAGE),
    "layer_norm image": ({"layer_norm"}, nn.LayerNorm((8, 10), elementwise_affine=False, eps=0.01), IMAGE),
    "layer_norm channels last": (
        {"permute", "layer_norm"},
        ChannelsLast(nn.LayerNorm(6)),
        IMAGE,
    ),
    "normalize": ({"mul", "sum", "sqrt", "clamp", "div"}, lambda x: F.normalize(x), IMAGE),
    # pools
    "max_pool2d": ({"max_pool2d"}, lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0), dilation=(2, 1)), IMAGE),
    "max_pool2d ceil": ({"max_pool2d"}, lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), IMAGE),
    "max_pool2d indices dropped": ({"max_pool2d"}, lambda x: F.max_pool2d(x, 2, return_indices=True)[0], IMAGE),
    "max_pool1d": ({"max_pool1d"}, lambda x: F.max_pool1d(x, 3, 2, 1), LINE),
    "avg_pool2d": ({"avg_pool2d"}, lambda x: F.avg_pool2d(x, (3, 2), (2, 3), (1, 0)), IMAGE),
    "avg_pool2d ceil": ({"avg_pool2d"}, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "avg_pool2d not counted": (
        {"avg_pool2d"},
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    "avg_pool2d divisor": ({"avg_pool2d"}, lambda x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "avg_pool1d": ({"avg_pool1d"}, lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True), LINE),
    "adaptive_avg_pool2d": ({"adaptive_avg_pool2d"}, nn.AdaptiveAvgPool2d((3, None)), IMAGE),
    "adaptive_max_pool2d": ({"adaptive_max_pool2d"}, nn.AdaptiveMaxPool2d((3, 4)), IMAGE),
    "adaptive_avg_pool1d": ({"adaptive_avg_pool2d"}, nn.AdaptiveAvgPool1d(5), LINE),
    "adaptive_max_pool1d": ({"adaptive_max_pool2d"}, nn.AdaptiveMaxPool1d(5), LINE),
    "mean": ({"mean"}, lambda x: x.mean([2, 3]), IMAGE),
    "mean keepdim": ({"mean"}, lambda x: x.mean((-1, 2), keepdim=True), IMAGE),
    "mean one axis": ({"mean"}, lambda x: torch.mean(x, 1), IMAGE),
    "sum channels": ({"sum"}, lambda x: x.sum(1, keepdim=True), IMAGE),
    "sum": ({"sum"}, lambda x: x.sum((-1, 2)), IMAGE),
    "amax": ({"amax"}, lambda x: x.amax((2, 3)), IMAGE),
    "max": ({"amax"}, lambda x: x.max(dim=1)[0].unsqueeze(1) * x.max(-1, keepdim=True).values, IMAGE),
    "max_unpool2d": (
        {"max_pool2d", "max_unpool2d"},
        lambda x: (lambda y, places: F.max_unpool2d(2 * y - 1, places, 2))(*F.max_pool2d(x, 2, return_indices=True)),
        IMAGE,
    ),
    # activations
    "relu": ({"relu"}, nn.ReLU(), IMAGE),
    "relu in place": ({"relu"}, lambda x: torch.relu_(x * 2), IMAGE),
    "relu6": ({"clamp"}, nn.ReLU6(), IMAGE),
    "hardtanh": ({"clamp"}, nn.Hardtanh(-0.5, 0.75, inplace=True), IMAGE),
    "clamp": ({"clamp"}, lambda x: x.clamp(min=-0.3).clamp_max(0.4), IMAGE),
    "threshold": ({"relu"}, lambda x: F.threshold(x, 0.0, 0.0), IMAGE),
    "silu": ({"silu"}, nn.SiLU(inplace=True), IMAGE),
    "hardswish": ({"hardswish"}, nn.Hardswish(inplace=True), IMAGE),
    "hardsigmoid": ({"hardsigmoid"}, nn.Hardsigmoid(), IMAGE),
    "sigmoid": ({"sigmoid"}, lambda x: x.sigmoid() + torch.sigmoid(x), IMAGE),
    "tanh": ({"tanh"}, nn.Tanh(), IMAGE),
    "exp": ({"exp"}, torch.exp, IMAGE),
    "softplus": ({"softplus"}, lambda x: F.softplus(30 * x), IMAGE),
    "softplus beta": ({"softplus", "mul_scalar"}, nn.Softplus(beta=2.0), IMAGE),
    "log_sigmoid": ({"softplus", "mul_scalar"}, nn.LogSigmoid(), IMAGE),
    "mish": ({"mish"}, nn.Mish(), IMAGE),
    "leaky_relu": ({"leaky_relu"}, nn.LeakyReLU(0.2, inplace=True), IMAGE),
    "rrelu": ({"leaky_relu"}, nn.RReLU(), IMAGE),
    "elu": ({"elu"}, nn.ELU(0.7, inplace=True), IMAGE),
    "selu": ({"elu", "mul_scalar"}, nn.SELU(), IMAGE),
    "celu": ({"elu", "mul_scalar"}, nn.CELU(0.7), IMAGE),
    "gelu": ({"gelu"}, nn.GELU(), IMAGE),
    "gelu tanh": ({"gelu"}, nn.GELU("tanh"), IMAGE),
    "glu": ({"slice", "sigmoid", "mul"}, nn.GLU(1), IMAGE),
    "prelu": ({"prelu"}, nn.PReLU(), IMAGE),
    "prelu per channel": ({"prelu"}, nn.PReLU(6, init=0.3), IMAGE),
    "softmax": ({"softmax"}, nn.Softmax(-1), IMAGE),
    "sqrt": ({"sqrt", "div"}, lambda x: (x * x).sqrt() + (x * x + 1) ** -0.5 + (x * x + 2).pow(0.5), IMAGE),
    "rsqrt": ({"sqrt", "div"}, lambda x: torch.rsqrt(x * x + 1), IMAGE),
    "abs": ({"abs"}, torch.abs, IMAGE),
    "filled": ({"clamp"}, lambda x: x * torch.full_like(x, 0.3) + torch.ones_like(x) - torch.zeros_like(x), IMAGE),
    "softmin": ({"softmax", "mul_scalar"}, nn.Softmin(1), ROW),
    "log_softmax": ({"log_softmax"}, lambda x: x.log_softmax(1), IMAGE),
    # arithmetic
    "add": ({"add"}, lambda x: x + x[:, :1], IMAGE),
    "add alpha": ({"add", "mul_scalar"}, lambda x: torch.add(x, x[:, :, :1], alpha=0.5), IMAGE),
    "sub": ({"sub"}, lambda x: x - x.mean((2, 3), keepdim=True), IMAGE),
    "mul": ({"mul"}, lambda x: x * torch.sigmoid(x), IMAGE),
    "div": ({"div"}, lambda x: x / (x * x + 1), IMAGE),
    "scalars": ({"add_scalar", "mul_scalar"}, lambda x: -(3 - x / 4) * 2 + 1 - 0.5, IMAGE),
    "scalars in place": ({"add_scalar", "mul_scalar"}, lambda x: (x + 0.0).mul_(3).add_(1).div_(2).sub_(0.5), IMAGE),
    "rsub alpha": ({"add_scalar", "mul_scalar"}, lambda x: torch.rsub(x, 2.0, alpha=3.0), IMAGE),
    "reciprocal": ({"div"}, lambda x: 1 / (x * x + 1), IMAGE),
    "powers": ({"mul"}, lambda x: x**2 + x.pow(3) + x.square() + x**1, IMAGE),
    "bmm": ({"matmul"}, lambda x: torch.bmm(x.flatten(2).transpose(1, 2), x.flatten(2)), IMAGE),
    "matmul": ({"matmul", "permute"}, lambda x: x.softmax(-1) @ x.transpose(2, 3), IMAGE),
    "constant": ({"constant", "mul", "sub"}, lambda x: x * torch.arange(10.0) - torch.ones(6, 1, 1), IMAGE),
    "one-element constant": ({"mul_scalar"}, lambda x: x * torch.tensor([0.5]), IMAGE),
    # shapes
    "concat": ({"concat"}, lambda x: torch.cat([x, x * 2, x], dim=-3), IMAGE),
    "stack": ({"concat", "reshape"}, lambda x: torch.stack((x, x + 1), 2), IMAGE),
    "split": ({"slice", "concat"}, lambda x: torch.cat(torch.split(x, 4, dim=1)[::-1], 1), IMAGE),
    "split sizes": ({"slice"}, lambda x: x.split([1, 2, 3], 1)[1], IMAGE),
    "chunk": ({"slice"}, lambda x: torch.chunk(x, 4, 1)[2], IMAGE),
    "unbind": ({"slice", "reshape"}, lambda x: x.unbind(1)[3], IMAGE),
    "slice": ({"slice"}, lambda x: x[:, 1:5:3, 2:], IMAGE),
    "slice negative": ({"slice"}, lambda x: x[:, -4:-1], IMAGE),
    "select": ({"slice", "reshape"}, lambda x: x[:, -1], IMAGE),
    "narrow": ({"slice"}, lambda x: x.narrow(1, 2, 3), IMAGE),
    "pad": ({"pad"}, lambda x: F.pad(x, (1, 2, 0, 3, 1, 0), value=0.5), IMAGE),
    "pad negative": ({"pad", "slice"}, lambda x: F.pad(x, (-1, 2, 1, -2)), IMAGE),
    "zero pad": ({"pad"}, nn.ZeroPad2d((1, 0, 2, 0)), IMAGE),
    "pad reflect": ({"edge_pad2d"}, lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), IMAGE),
    "pad replicate": ({"edge_pad2d"}, nn.ReplicationPad2d((1, 2, 9, 4)), IMAGE),
    "pad reflect line": ({"edge_pad2d", "reshape"}, nn.ReflectionPad1d((2, 3)), LINE),
    "index_select": ({"index_select"}, lambda x: x.index_select(1, torch.tensor([3, 1, 1, 0])), IMAGE),
    "index": ({"index_select"}, lambda x: x[:, :, torch.tensor([2, 0, -1])], IMAGE),
    "resize nearest": ({"resize"}, lambda x: F.interpolate(x, scale_factor=(2.0, 1.5)), IMAGE),
    "resize nearest size": ({"resize"}, lambda x: F.interpolate(x, size=(7, 23)), IMAGE),
    "resize nearest kept": ({"resize"}, lambda x: F.interpolate(x, scale_factor=(1.05, 2.04)), IMAGE),
    "resize bilinear kept": ({"resize"}, lambda x: F.interpolate(x, scale_factor=(1.05, 1.5), mode="bilinear"), IMAGE),
    "resize bilinear": ({"resize"}, nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "resize bilinear scale": ({"resize"}, lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), IMAGE),
    "resize bilinear corners": (
        {"resize"},
        lambda x: F.interpolate(x, size=(5, 1), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "resize line": ({"resize", "reshape"}, lambda x: F.interpolate(x, scale_factor=2), LINE),
    "reshape": ({"reshape"}, lambda x: x.reshape(x.size(0), -1, 4), IMAGE),
    "view": ({"reshape"}, lambda x: x.view(x.size(0), 2, 3, *x.shape[2:]), IMAGE),
    "batch merged": ({"reshape"}, lambda x: x.view(-1, *x.shape[2:]), IMAGE),
    "flatten": ({"flatten"}, nn.Flatten(), IMAGE),
    "flatten middle": ({"flatten"}, lambda x: torch.flatten(x, 1, -2), IMAGE),
    "unflatten": ({"reshape"}, nn.Unflatten(1, (2, 3)), IMAGE),
    "squeeze": ({"reshape"}, lambda x: x[:, :1].squeeze(1).unsqueeze(-1), IMAGE),
    "squeeze all": ({"reshape"}, lambda x: x[:, :1].squeeze(), IMAGE),
    "permute": ({"permute"}, lambda x: x.permute(0, 2, 3, 1), IMAGE),
    "transpose": ({"permute"}, lambda x: x.transpose(-1, 1).swapaxes(2, 3), IMAGE),
    "movedim": ({"permute"}, lambda x: x.movedim(1, -1), IMAGE),
    "repeat": ({"concat"}, lambda x: x.repeat(1, 2, 1, 3), IMAGE),
    "expand": ({"mul"}, lambda x: x * x.mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:]), IMAGE),
    "expand alone": ({"add", "constant"}, lambda x: x[:, :1].expand_as(x).flatten(1), IMAGE),
    "pixel_shuffle": ({"reshape", "permute", "flatten"}, lambda x: F.pixel_shuffle(x[:, :4], 2), IMAGE),
    "pixel_unshuffle": ({"reshape", "permute", "flatten"}, nn.PixelUnshuffle(2), IMAGE),
    "channel_shuffle": ({"reshape", "permute", "flatten"}, nn.ChannelShuffle(3), IMAGE),
    # what vanishes
    "identities": (
        {"relu"},
        nn.Sequential(
            nn.Identity(), nn.Dropout(), nn.ReLU(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()
        ),
        IMAGE,
    ),
    "copies": ({"relu"}, lambda x: x.clone().contiguous().detach().to(x.dtype).relu(), IMAGE),
}

VIA_OTHER_TESTS = {"codebook_conv2d", "codebook_linear", "torch", *STRUCTURED, *BINARY, *INT8, "sign", "quantize"}


@pytest.mark.parametrize("name", CASES)
def test_op(name: str) -> None:
    ops, what, shape = CASES[name]
    torch.manual_seed(21)
    model = settle(what) if isinstance(what, nn.Module) else Call(what).eval()
    x = torch.randn(shape)
    graph = capture(model, x, strict=True)
    assert ops <= {node.op for node in graph}
    assert_captured(model, x, graph)
    again = graph_from_json(json.loads(json.dumps(graph.to_json())), graph.weights)
    assert again.nodes == graph.nodes


@pytest.mark.parametrize("name", [name for name in CASES if name != "squeeze all"])
def test_op_at_another_batch(name: str) -> None:
    """A graph captured at batch 1 serves batch 4 (squeeze() of a batch of one would squeeze the batch itself)."""
    _, what, shape = CASES[name]
    torch.manual_seed(22)
    model = settle(what) if isinstance(what, nn.Module) else Call(what).eval()
    graph = capture(model, torch.randn(1, *shape[1:]), strict=True)
    assert 0 not in graph.inputs[0].fixed
    assert_captured(model, torch.randn(4, *shape[1:]), graph)


def test_every_op_of_the_table_is_captured_somewhere() -> None:
    covered = set().union(*(ops for ops, _, _ in CASES.values())) | VIA_OTHER_TESTS
    assert {name for name, schema in OPS.items() if not schema.internal} <= covered


def test_identities_leave_nothing_behind() -> None:
    for name in ("identities", "copies"):
        _, what, shape = CASES[name]
        model = what if isinstance(what, nn.Module) else Call(what)
        assert [node.op for node in capture(model, torch.randn(shape), strict=True)] == ["relu"]
