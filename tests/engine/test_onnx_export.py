"""Nets as ONNX files: onnxruntime and our own importer say what the engine says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.cli.main import run_cli
from fastcnn.engine.graph import GraphError
from tests.models.cifar_resnet import cifar_resnet20
from tests.models.onnx_build import run_onnxruntime


class Plain(nn.Module):
    """What convolutional nets are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.gate = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.slopes = nn.PReLU(8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        y = F.silu(self.depth(F.pad(x, (1, 0, 0, 1), value=0.5))[:, :, 1:, :-1])
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        y = F.max_pool2d(F.relu6(torch.cat((x, y), 1)[:, 8:24]), 3, 2, 1) + F.avg_pool2d(x, 2)
        z = self.slopes(self.up(y)).mean((2, 3))
        w: Tensor = F.softmax(self.last(F.gelu(F.elu(z) - F.leaky_relu(2 * z + 1))), -1)
        return w


def check(net: Any, x: np.ndarray, path: Path, tolerance: float) -> onnx.ModelProto:
    net.to_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    want = np.asarray(net(x))
    (name,) = [value.name for value in model.graph.input]
    (got,) = run_onnxruntime(path, {name: x})
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
    return model


@pytest.mark.parametrize("seed", [0, 1])
def test_plain_nets(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 16, 16)
    net = fc.compile(Plain().eval(), x, strict=True, tune=False)
    check(net, x.numpy(), tmp_path / "net.onnx", 1e-5)
    again = fc.compile(tmp_path / "net.onnx", x.numpy(), tune=False)
    assert np.abs(np.asarray(again(x.numpy())) - np.asarray(net(x.numpy()))).max() < 1e-5
    check(net, np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32), tmp_path / "b.onnx", 1e-5)


def test_int8_nets_are_pairs_that_onnxruntime_fuses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense, x = cifar_resnet20().eval(), torch.randn(64, 3, 32, 32)
    small = fc.convert(dense, fc.Int8Config(), data=x)
    net = fc.compile(small, x, strict=True, tune=False)
    # A level may fall on the other side here and there: sums are scaled in another order.
    model = check(net, x.numpy(), tmp_path / "net.onnx", 0.05)
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("QuantizeLinear") >= 20
    assert {init.data_type for init in model.graph.initializer} >= {
        onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32,
    }  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), options, providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    # The stem and the first convolution of every block; the others add a shortcut in float32.
    assert fused.count("QLinearConv") >= 10
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    want = np.asarray(net(x.numpy()))
    assert (np.asarray(got).argmax(1) == want.argmax(1)).mean() >= 0.95


def test_compressed_layers_are_written_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 9, 9)
    net = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 9, 3), nn.Flatten(), nn.Linear(225, 10))
    signs = fc.convert(fc.prepare(net, fc.BNNConfig(skip=("first_conv", "last_linear"))))
    shared = fc.convert(signs, fc.KMeansConfig(clusters=7))
    check(fc.compile(shared.eval(), x, strict=True, tolerance="exact"), x.numpy(), tmp_path / "net.onnx", 1e-4)


def test_what_has_no_form_is_named(tmp_path: Path) -> None:
    x = torch.randn(1, 4, 8, 8)
    net = fc.compile(nn.Sequential(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(3)).eval(), x, strict=True, tune=False)
    with pytest.raises(GraphError, match=r"adaptive_avg_pool2d.*only adaptive pools to one pixel"):
        net.to_onnx(tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_onnx(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 16, 16)
    fc.compile(Plain().eval(), x, strict=True, tune=False).save(tmp_path / "net.fcnn")
    out = tmp_path / "net.onnx"
    assert run_cli(["export", str(tmp_path / "net.fcnn"), "--out", str(out), "--shape", "4,3,16,16"]) == 0
    (value,) = onnx.load(out).graph.input
    assert [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim] == ["batch", 3, 16, 16]
