"""The torch ops of layers of signs: values, gradients, bits, and the engine behind them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.engine.capture import capture
from fastcnn.methods.lowprecision.binary_ops import binary_conv2d, binary_linear, pack_signs, sign, unpack_signs


def test_the_sign_of_zero_is_one_and_gradients_go_straight_through() -> None:
    x = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 1.0001, -1.0001, torch.nan], requires_grad=True)
    y = sign(x)
    assert y.tolist() == [1, 1, 1, -1, 1, -1, 1, -1, -1]
    y.backward(torch.arange(1.0, 10.0))
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0]
    torch.library.opcheck(torch.ops.fastcnn.sign, (torch.randn(3, 4, requires_grad=True),))


@pytest.mark.parametrize("count", [1, 8, 63, 64, 65, 300])
def test_bits_and_back(count: int) -> None:
    weight = torch.randn(5, count)
    bits = pack_signs(weight)
    assert bits.shape == (5, -(-count // 64) * 8)
    assert bits.dtype == torch.uint8
    assert torch.equal(unpack_signs(bits, count), torch.where(weight < 0, -1.0, 1.0))
    assert not bool(unpack_signs(bits, bits.shape[1] * 8)[:, count:].lt(0).any())
    with pytest.raises(ValueError, match="NaN"):
        pack_signs(torch.tensor([[torch.nan]]))


CONVS: list[dict[str, Any]] = [
    {"kernel_size": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1},
    {"kernel_size": [2, 3], "stride": [2, 1], "padding": [0, 2], "dilation": [1, 2], "groups": 2},
]


@pytest.mark.parametrize("binarize", [True, False])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_convolutions(conv: dict[str, Any], pad_value: int, binarize: bool) -> None:
    """By hand with floats; through torch.export and the engine to the last bit, as scales are powers of two."""
    torch.manual_seed(0)
    x = torch.randint(-3, 4, (2, 8, 7, 9)).float()
    weight = torch.randn(6, 8 // conv["groups"], *conv["kernel_size"])
    scale, bias = 2.0 ** torch.randint(-2, 3, (6,)), torch.randint(-3, 4, (6,)).float()
    arguments = (x, pack_signs(weight), scale, bias, *conv.values(), [1], binarize, pad_value)
    given = torch.where(x >= 0, 1.0, -1.0) if binarize else x
    down, across = conv["padding"]
    given = F.pad(given, (across, across, down, down), value=float(pad_value) if binarize else 0.0)
    sums = F.conv2d(
        given,
        torch.where(weight < 0, -1.0, 1.0),
        stride=conv["stride"],
        dilation=conv["dilation"],
        groups=conv["groups"],
    )
    want = sums * scale[:, None, None] + bias[:, None, None]
    assert torch.equal(binary_conv2d(*arguments), want)
    torch.library.opcheck(torch.ops.fastcnn.binary_conv2d, arguments)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bits", arguments[1])
            self.register_buffer("scale", scale)
            self.register_buffer("bias", bias)

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.fastcnn.binary_conv2d(x, self.bits, self.scale, self.bias, *arguments[4:])  # type: ignore[no-any-return]

    assert {node.op for node in capture(Layer().eval(), x, strict=True)} == {"binary_conv2d"}
    net = fc.compile(Layer().eval(), x, strict=True)
    assert torch.equal(torch.as_tensor(net(x.numpy())), want)


def test_linear_layers_of_signs_in_a_net() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(3, 70), torch.randn(5, 70)
    arguments = (x, pack_signs(weight), None, None, [1], True)
    want = torch.where(x >= 0, 1.0, -1.0) @ torch.where(weight < 0, -1.0, 1.0).T
    assert torch.equal(binary_linear(*arguments), want)
    torch.library.opcheck(torch.ops.fastcnn.binary_linear, arguments)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bits", arguments[1])

        def forward(self, x: Tensor) -> Tensor:
            sums = torch.ops.fastcnn.binary_linear(torch.ops.fastcnn.sign(x), self.bits, None, None, [1], True)
            return torch.ops.fastcnn.sign(sums)  # type: ignore[no-any-return]

    model = Layer().eval()
    assert {node.op for node in capture(model, x, strict=True)} == {"binary_linear", "sign"}
    net = fc.compile(model, x, strict=True)
    assert torch.equal(torch.as_tensor(net(x.numpy())), model(x))


def test_bits_that_do_not_fit_are_named() -> None:
    x, bits = torch.randn(1, 8, 5, 5), pack_signs(torch.randn(4, 8, 3, 3))
    rest = [[1, 1], [1, 1], [1, 1], 1, [1], True]
    with pytest.raises(ValueError, match=r"shape \(rows, 32\) for 200 weights .* pack_signs"):
        binary_conv2d(x, bits, None, None, [5, 5], *rest, 1)
    with pytest.raises(ValueError, match="pad_value=5 is not a sign or zero"):
        binary_conv2d(x, bits, None, None, [3, 3], *rest, 5)
    with pytest.raises(ValueError, match=r"shape \(rows, 16\) for 70 weights"):
        binary_linear(torch.randn(2, 70), bits[:, :8], None, None, [1], True)
