"""Bits of a weight of few bits, to the byte: the table of the methods, the report, the arrays of a file and its bytes.

For O outputs of K products the table has ``O * 64 * ceil(K / 64)`` bits for a plane of signs, 32 more for every number
beside it (a scale, a bias or a threshold of an output), and ``8 O K`` bits of int8 weights with 32 for every scale and
bias. A file never takes more; it takes less where the entropy coder finds something, such as what fills rows up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.artifact import WeightInfo, inspect, load_graph, predict_file_bytes
from fastcnn.compression.report import LayerReport
from fastcnn.engine.graph.graph import Array
from fastcnn.engine.run import net as net_module

TABLE = {27: 9.0, 576: 30.3, 2304: 31.6}
"""How many times smaller than float32 a layer of K products becomes, with one number per output beside the signs."""

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "K27": (lambda: nn.Conv2d(3, 40, 3), (1, 3, 6, 6)),
    "K100": (lambda: nn.Conv2d(4, 33, 5), (1, 4, 7, 7)),
    "K576": (lambda: nn.Conv2d(64, 48, 3), (1, 64, 5, 5)),
    "K2304": (lambda: nn.Conv2d(256, 24, 3), (1, 256, 3, 3)),
    "K288-groups": (lambda: nn.Conv2d(64, 66, 3, groups=2), (1, 64, 5, 5)),
    "K18-groups": (lambda: nn.Conv2d(8, 16, 3, groups=4), (1, 8, 5, 5)),
    "linear-K64": (lambda: nn.Linear(64, 200), (2, 64)),
    "linear-K65": (lambda: nn.Linear(65, 200), (2, 65)),
    "linear-K2304": (lambda: nn.Linear(2304, 17), (2, 2304)),
}
FEW_BITS: dict[str, tuple[Any, int, bool]] = {
    "bnn": (fc.BNNConfig(skip=()), 1, False),
    "binaryconnect": (fc.BinaryConnectConfig(skip=()), 1, False),
    "bwn": (fc.BWNConfig(skip=()), 1, True),
    "xnor": (fc.XNORConfig(skip=()), 1, True),
    "bitwise": (fc.BitwiseConfig(), 1, False),
    "bitwise-zeros": (fc.BitwiseConfig(zeros=0.3), 2, True),
    "dorefa-1": (fc.DoReFaConfig(skip=(), weight_bits=1), 1, True),
    "dorefa-2": (fc.DoReFaConfig(skip=(), weight_bits=2), 2, True),
    "dorefa-5": (fc.DoReFaConfig(skip=(), weight_bits=5), 5, True),
    "dorefa-8": (fc.DoReFaConfig(skip=(), weight_bits=8, input_bits=32), 8, True),
}
"""Config, planes of signs, and whether there is a scale of each output."""


@dataclass(frozen=True)
class Stored:
    """A file's arrays and what ``inspect`` says of them, by role; and the report's line of the layer."""

    line: LayerReport
    arrays: dict[str, Array]
    infos: dict[str, WeightInfo]


def stored(model: nn.Module, config: Any, x: Tensor, path: Path, **convert: Any) -> Stored:
    """Convert a net of one weighted layer, save it and look into the file."""
    small = fc.convert(model, config, **convert)
    (line,) = fc.report(small)
    assert line.status == "done"
    fc.compile(small.eval(), x, threads=1, tune=False, strict=True).save(path)
    found, graph = inspect(path), load_graph(path).graph
    infos = {info.role: info for info in found.weights}
    assert len(infos) == len(found.weights)
    assert found.totals["weight_bytes"] == sum(info.file_bytes for info in found.weights)
    return Stored(line, {role: graph.weights[info.key] for role, info in infos.items()}, infos)


def sizes(layer: Any) -> tuple[int, int]:
    """Outputs, and products of each."""
    return len(layer.weight), layer.weight[0].numel()


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("method", FEW_BITS)
def test_signs_take_what_the_table_says(method: str, shape: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, inputs = LAYERS[shape]
    layer = build()
    config, planes, scaled = FEW_BITS[method]
    found = stored(nn.Sequential(layer), config, torch.randn(*inputs), tmp_path / "net.fcnn")
    outputs, products = sizes(layer)
    rows = planes * outputs * 64 * -(-products // 64)
    numbers = 32 * outputs * (2 if scaled else 1)  # the bias, and the scale

    # The report's bytes, the arrays' and the table's are one number.
    assert 8 * found.line.bytes_after == rows + numbers
    assert set(found.arrays) == ({"bits", "scale", "bias"} if scaled else {"bits", "bias"})
    assert 8 * found.arrays["bits"].nbytes == rows
    assert 8 * sum(array.nbytes for array in found.arrays.values()) == rows + numbers

    # The file spends no more on any of them, and on signs no less than they are without what fills rows up.
    for role, info in found.infos.items():
        assert info.file_bytes <= found.arrays[role].nbytes
    bits = found.infos["bits"]
    if method != "bitwise-zeros":
        assert planes * outputs * products <= 8 * bits.file_bytes
        if products % 64 == 0:
            assert 8 * bits.file_bytes == rows
    if method.startswith("dorefa"):
        assert found.infos["scale"].file_bytes == 4  # of a whole layer it is one number

    # What is predicted from statistics is what was written.
    for info in found.infos.values():
        assert abs(info.theory_bytes - info.file_bytes) <= 0.02 * info.theory_bytes + 24, info

    # And it is said per weight, not per byte of signs.
    assert bits.count == outputs * products
    assert bits.bits_per_weight == 8 * bits.file_bytes / (outputs * products)
    assert bits.dense_bytes == 4 * outputs * products
    assert bits.method == ("signs" if planes == 1 else f"{planes} planes of signs")
    zeros = round(0.3 * bits.count) if method == "bitwise-zeros" else 0
    assert bits.nonzeros == bits.count - zeros
    assert bits.distinct == {"bitwise-zeros": 3}.get(method, min(2**planes, bits.distinct or 0))
    if "scale" in found.infos:
        assert found.infos["scale"].dense_bytes == 0


@pytest.mark.parametrize("shape", LAYERS)
def test_int8_takes_a_byte_for_a_weight_and_two_numbers_for_an_output(shape: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    build, inputs = LAYERS[shape]
    layer = build()
    x = torch.randn(*inputs)
    found = stored(nn.Sequential(layer), fc.Int8Config(), x, tmp_path / "net.fcnn", data=[x])
    outputs, products = sizes(layer)
    table = 8 * outputs * products + 32 * outputs + 32 * outputs
    assert 8 * found.line.bytes_after == table
    assert {role: array.dtype.name for role, array in found.arrays.items()} == {
        "weight": "int8",
        "scale": "float32",
        "bias": "float32",
    }
    assert 8 * sum(array.nbytes for array in found.arrays.values()) == table
    for role, info in found.infos.items():
        assert info.file_bytes <= found.arrays[role].nbytes
        assert abs(info.theory_bytes - info.file_bytes) <= 0.02 * info.theory_bytes + 24
    assert found.infos["weight"].bits_per_weight <= 8
    assert found.infos["weight"].dense_bytes == 4 * outputs * products
    assert found.infos["scale"].dense_bytes == 0


def test_int8_of_a_layer_with_batch_norm_has_its_bias(tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(16, 24, 3, bias=False), nn.BatchNorm2d(24)).eval()
    x = torch.randn(2, 16, 6, 6)
    found = stored(net, fc.Int8Config(), x, tmp_path / "net.fcnn", data=[x])
    assert 8 * found.line.bytes_after == 8 * 24 * 144 + 64 * 24
    assert sum(array.nbytes for array in found.arrays.values()) == found.line.bytes_after


def norm(channels: int, dims: int = 2) -> nn.Module:
    """A batch norm as training leaves it: nothing is the same in two channels."""
    made: Any = nn.BatchNorm2d(channels) if dims == 2 else nn.BatchNorm1d(channels)
    with torch.no_grad():
        made.weight.copy_(torch.randn(channels))
        made.bias.copy_(torch.randn(channels))
        made.running_mean.copy_(8 * torch.randn(channels))
        made.running_var.copy_(torch.rand(channels) * 50 + 10)
    return made  # type: ignore[no-any-return]


def signs_net() -> nn.Sequential:
    """K = 27, 576 and 2304 one after the other, with batch norms; the last layer's sums go out."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False),
        norm(64),
        nn.Conv2d(64, 256, 3, padding=1, bias=False),
        norm(256),
        nn.MaxPool2d(2),
        nn.Conv2d(256, 32, 3, padding=1, bias=False),
        norm(32),
        nn.Hardtanh(),
        nn.Flatten(),
        nn.Linear(32 * 9, 10),
    ).eval()


@pytest.mark.parametrize("config", [fc.BNNConfig(skip=()), fc.XNORConfig(skip=())], ids=["bnn", "xnor"])
def test_batch_norms_between_layers_of_signs_are_thresholds_of_32_bits(config: Any, tmp_path: Path) -> None:
    """Four numbers of a batch norm, a scale and a bias become one; the file's net is the saved one, bit for bit."""
    torch.manual_seed(3)
    x = torch.randn(2, 3, 6, 6)
    small = fc.convert(signs_net(), config).eval()
    net = fc.compile(small, x, threads=1, tune=False, strict=True)
    net.save(tmp_path / "net.fcnn")
    graph, found = load_graph(tmp_path / "net.fcnn").graph, inspect(tmp_path / "net.fcnn")
    layers = [node for node in graph.nodes if node.op.startswith("binary")]
    assert not [node for node in graph.nodes if node.op in ("batch_norm", "clamp")]
    for node, products in zip(layers[:3], TABLE, strict=True):
        arrays = {role: graph.weights[key] for role, key in node.params.items()}
        outputs = len(arrays["bits"])
        assert set(arrays) == {"bits", "thresholds"}
        table = outputs * 64 * -(-products // 64) + 32 * outputs
        assert 8 * sum(array.nbytes for array in arrays.values()) == table
        assert round(32 * outputs * products / table, 1) == TABLE[products]
        written = sum(w.file_bytes for w in found.weights if w.key in node.params.values())
        assert 8 * written <= table
    thresholds = [w for w in found.weights if w.role == "thresholds"]
    assert [(w.method, w.dense_bytes) for w in thresholds] == [("thresholds", 0)] * 3
    plan = net.plan
    predicted = predict_file_bytes(graph, plan_hint=load_graph(tmp_path / "net.fcnn").plan_hint, meta=net.meta)
    assert abs(predicted - found.file_bytes) <= 0.02 * predicted

    loaded = fc.load(tmp_path / "net.fcnn", threads=1)
    assert loaded.plan.choices() == plan.choices()
    assert loaded.plan.error_as_saved == (plan.error is not None)
    pictures = torch.randn(50, 3, 6, 6)
    for picture in torch.split(pictures, 2):
        ours, theirs = net(picture.numpy()), loaded(picture.numpy())
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.argmax(ours, 1), small(picture).argmax(1).numpy())

    # Saved again it is the same file, and other engines read what it exports.
    loaded.save(tmp_path / "again.fcnn")
    assert inspect(tmp_path / "again.fcnn").totals == found.totals
    loaded.to_onnx(tmp_path / "net.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (foreign,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(foreign, loaded(x.numpy()), rtol=1e-5, atol=1e-5)


def test_thresholds_are_kept_only_where_they_take_less(tmp_path: Path) -> None:
    """Between layers without batch norm a threshold would take as much as the bias."""
    torch.manual_seed(4)
    small = fc.convert(nn.Sequential(nn.Linear(64, 40), nn.Linear(40, 5)), fc.BitwiseConfig())
    net = fc.compile(small.eval(), torch.randn(2, 64), threads=1, tune=False, strict=True)
    assert net_module._stored(net.graph) is net.graph
    net.save(tmp_path / "net.fcnn")
    assert {w.role for w in inspect(tmp_path / "net.fcnn").weights} == {"bits", "bias"}


def test_what_a_layer_of_signs_gives_to_others_keeps_its_batch_norm(tmp_path: Path) -> None:
    """There real numbers are read, which no threshold stands for; the table's bits stand beside the batch norm's."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), norm(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 4)).eval()
    small = fc.convert(net, fc.XNORConfig(skip="last_linear")).eval()
    fc.compile(small, torch.randn(2, 3, 6, 6), threads=1, tune=False, strict=True).save(tmp_path / "net.fcnn")
    ops = [node.op for node in load_graph(tmp_path / "net.fcnn").graph.nodes]
    assert "batch_norm" in ops
    assert "thresholds" not in {w.role for w in inspect(tmp_path / "net.fcnn").weights}


@pytest.mark.parametrize("at_once", [1, 300, 1 << 20])
def test_signs_are_counted_in_parts_of_any_size(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcnn.artifact.inspection._AT_ONCE", at_once)
    torch.manual_seed(6)
    layer = nn.Linear(130, 21)
    found = stored(nn.Sequential(layer), fc.BitwiseConfig(zeros=0.4), torch.randn(1, 130), tmp_path / "net.fcnn")
    info = found.infos["bits"]
    assert (info.count, info.nonzeros, info.distinct) == (2730, 2730 - 1092, 3)
