"""Blocks of binary nets: orders, shapes, gradients, and the way through prepare, convert and compile."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastcnn as fc
from fastcnn.methods.lowprecision.blocks import BinaryBlock, ChannelShift, ShiftedPReLU
from fastcnn.methods.lowprecision.packed import BinaryConv2d


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


FORMS: list[dict[str, Any]] = [
    {"order": order, "rsign": rsign, "rprelu": rprelu, "shortcut": shortcut}
    for order, rsign, rprelu, shortcut in itertools.product(
        ("norm-first", "conv-first"), (False, True), (False, True), (False, True)
    )
    if not (shortcut and order == "norm-first")
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(str(part) for part in form.values()))
SIZES = [
    {"in_channels": 6, "out_channels": 6},
    {"in_channels": 6, "out_channels": 10, "stride": 2},
    {"in_channels": 6, "out_channels": 6, "stride": 2, "pool": 2},
    {"in_channels": 6, "out_channels": 10, "kernel_size": 1, "pool": 2},
]


def settle(block: nn.Module, seed: int = 0) -> None:
    """Statistics, factors and shifts other than 0 and 1; factors positive."""
    generator = torch.Generator().manual_seed(seed)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
        elif isinstance(module, ChannelShift):
            nn.init.normal_(module.shift, generator=generator)


@each_form
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_shapes_and_gradients(form: dict[str, Any], sizes: dict[str, int]) -> None:
    """Every parameter learns, in a block of real layers and in one of signs."""
    torch.manual_seed(0)
    block = BinaryBlock(**sizes, **form)
    x = torch.randn(4, 6, 8, 12)
    size = sizes.get("stride", 1) * sizes.get("pool", 1)
    for net in (block, fc.prepare(block, fc.XNORConfig(skip=(), exclude="shortcut.*"))):
        y = net(x)
        assert y.shape == (4, sizes["out_channels"], 8 // size, 12 // size)
        y.square().sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("rprelu", [False, True])
@pytest.mark.parametrize("rsign", [False, True])
def test_norm_first_is_norm_convolution_curve_pool(rsign: bool, rprelu: bool) -> None:
    torch.manual_seed(1)
    block = BinaryBlock(4, 6, pool=2, rsign=rsign, rprelu=rprelu)
    settle(block)
    x = torch.randn(2, 4, 6, 6)
    z = block.norm(x)
    if rsign:
        z = z + block.threshold.shift[:, None, None]  # type: ignore[union-attr]
    z = curved(block, F.conv2d(z, block.conv.weight, None, padding=1), rprelu, torch.relu)
    torch.testing.assert_close(block(x), F.max_pool2d(z, 2))


@pytest.mark.parametrize("rprelu", [False, True])
@pytest.mark.parametrize("rsign", [False, True])
def test_conv_first_is_convolution_norm_pool_curve(rsign: bool, rprelu: bool) -> None:
    """As the docstring has it, in training too, where it matters which of norm and pool is first."""
    torch.manual_seed(2)
    block = BinaryBlock(4, 6, order="conv-first", pool=2, rsign=rsign, rprelu=rprelu)
    settle(block)
    x = torch.randn(2, 4, 6, 6)
    for mode in (False, True):
        block.train(mode)
        other = copy.deepcopy(block)
        z = x + other.threshold.shift[:, None, None] if rsign else x  # type: ignore[union-attr]
        z = F.max_pool2d(other.norm(F.conv2d(z, other.conv.weight, None, padding=1)), 2)
        torch.testing.assert_close(block(x), curved(block, z, rprelu, F.hardtanh), msg=f"training={mode}")


def curved(block: Any, z: Tensor, rprelu: bool, plain: Any) -> Tensor:
    """The curve by hand: shifts and slopes of each channel, or the plain one."""
    if not rprelu:
        return plain(z)  # type: ignore[no-any-return]
    before, after = block.curve.before.shift[:, None, None], block.curve.after.shift[:, None, None]
    z = z + before
    return torch.where(z > 0, z, z * block.curve.prelu.weight[:, None, None]) + after  # type: ignore[no-any-return]


@pytest.mark.parametrize(("stride", "channels"), [(1, 4), (2, 4), (1, 6), (2, 6)])
def test_shortcuts_add_the_input(stride: int, channels: int) -> None:
    torch.manual_seed(3)
    block: Any = BinaryBlock(4, channels, stride=stride, order="conv-first", shortcut=True)
    settle(block)
    block.eval()
    x = torch.randn(2, 4, 6, 8)
    kept = x if stride == 1 else x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    if channels != 4:
        conv, norm = list(block.shortcut)[-2:]
        kept = norm(torch.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0], kept))
    want = block.norm(block.conv(x)) + kept
    torch.testing.assert_close(block(x), want)


@pytest.mark.parametrize("size", [(7, 8), (7, 7), (1, 5)])
def test_shortcuts_over_odd_maps(size: tuple[int, int]) -> None:
    """A convolution of stride 2 gives half a map, rounded up."""
    block = BinaryBlock(4, 6, stride=2, order="conv-first", shortcut=True)
    assert block(torch.randn(2, 4, *size)).shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))


@each_form
def test_from_prepare_to_the_engine(form: dict[str, Any]) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        BinaryBlock(32, 32, **form),
        BinaryBlock(32, 40, stride=2, pool=2, **form),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 5),
    )
    trainee: Any = fc.prepare(model, fc.XNORConfig(exclude="*.shortcut.*"))
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.01)
    x = torch.randn(6, 3, 8, 8)
    for _ in range(2):
        optimizer.zero_grad()
        trainee(x).square().mean().backward()
        optimizer.step()
        trainee.step()
    want = trainee.eval()(x)
    small: Any = fc.convert(trainee)
    assert torch.equal(small(x), want)
    assert isinstance(small[1].conv, BinaryConv2d)
    assert isinstance(small[2].conv, BinaryConv2d)
    assert type(small[0]) is nn.Conv2d
    done = {line.layer for line in fc.report(small) if line.status == "done"}
    assert done == {"1.conv", "2.conv"}
    net = fc.compile(small, x, strict=True, tune=False, tolerance="exact")
    found = torch.as_tensor(net(x.numpy()))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(1), want.argmax(1))


def test_shifts_begin_at_nothing() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(ChannelShift(3)(x), x)
    torch.testing.assert_close(ShiftedPReLU(3)(x), torch.where(x > 0, x, 0.25 * x))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"order": "pool-first"}, ValueError, "order='pool-first' .* 'norm-first', 'conv-first'"),
        ({"pool": 0}, ValueError, "pool=0 is out of range: it must be at least 1"),
        ({"pool": 2.0}, TypeError, "pool must be an integer, got float 2.0"),
        ({"shortcut": True}, ValueError, "needs order='conv-first'"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BinaryBlock(3, 4, **settings)
    with pytest.raises(ValueError, match="channels=0"):
        ChannelShift(0)
