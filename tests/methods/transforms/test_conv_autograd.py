"""Gradients of first and second order, the reuses of spectra, and graphs: compile, export, autocast, checkpoints."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fastcnn import _native
from fastcnn.methods.transforms.convolution.counter import count_transforms
from fastcnn.methods.transforms.fft_conv import FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConv2d

LAYERS: dict[str, tuple[type[nn.Conv2d], dict[str, Any]]] = {
    "fft-8": (FFTConv2d, {"tile": 8}),
    "fft-full": (FFTConv2d, {"tile": "full"}),
    "fft-recomputed": (FFTConv2d, {"tile": 8, "save_spectra": False}),
    "winograd-2": (WinogradConv2d, {"m": 2}),
    "winograd": (WinogradConv2d, {}),
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3, "padding": 1},
    "stride": {"kernel_size": (4, 3), "stride": (2, 1), "padding": 1},
    "dilation": {"kernel_size": (3, 2), "dilation": (2, 3), "padding": 2},
    "groups": {"kernel_size": (1, 3), "groups": 2, "bias": False},
}


def make(name: str, shape: dict[str, Any] | None = None, channels: int = 2, filters: int = 4) -> Any:
    """Layer in float64 from a fixed seed."""
    torch.manual_seed(5)
    cls, settings = LAYERS[name]
    return cls(channels, filters, **(shape or SHAPES["plain"]), **settings, dtype=torch.float64)  # type: ignore[arg-type]


def call(layer: nn.Conv2d) -> Any:
    """Layer as a function of input and parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return out

    return run


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_first_and_second_order(name: str, shape: str) -> None:
    layer = make(name, SHAPES[shape])
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    assert torch.autograd.gradcheck(call(layer), (x, *values))
    assert torch.autograd.gradgradcheck(call(layer), (x, *values))


@pytest.mark.parametrize("kernel", ["fft_conv2d", "winograd_conv2d"])
def test_the_op_has_gradients_of_every_order_by_itself(kernel: str) -> None:
    torch.manual_seed(0)
    op = getattr(torch.ops.fastcnn, kernel)
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = op(x, weight, bias, [1, 1], [1, 1], [1, 1], 1, -1, 0)
        return out

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, weight, bias))

    def third(f: Any) -> list[Tensor]:
        """Derivative of a gradient penalty, differentiated twice more."""
        a, w = x.detach().requires_grad_(), weight.detach().requires_grad_()
        (first,) = torch.autograd.grad(f(a, w).pow(3).sum(), a, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), w, create_graph=True)
        return list(torch.autograd.grad(second.pow(2).sum(), (a, w)))

    got = third(lambda a, w: op(a, w, None, [1, 1], [1, 1], [1, 1], 1, -1, 0))
    for mine, theirs in zip(got, third(lambda a, w: F.conv2d(a, w, padding=1)), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_weight_or_input_gets_no_gradient(name: str) -> None:
    layer = make(name)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer = make(name).requires_grad_(False)
    x.requires_grad_()
    with count_transforms() as counter:
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert counter.kernel_adjoint == 0


def spectrum_bytes(served_by: str) -> tuple[int, int]:
    """Bytes of X and K of the next tests' layer: 3 images of 14 x 14, k = 5 in tiles of 8, 2 channels, 6 filters.

    Torch's are complex64 with 8 x 5 bins, of 4 x 4 tiles per image. Native code has three real numbers for a complex
    bin and fills up vectors of channels and groups of tiles.
    """
    if served_by == "torch":
        return 8 * 40 * 3 * 16 * 2, 8 * 40 * 6 * 2
    isa = str(_native.host()["isa_active"])
    native = _native.TilePasses(isa, "fft", 8, 3, 1, (2, 6), (14, 14), (14, 14), (5, 5), (2, 2), 1)
    assert native.input_floats >= 94 * 16 * 2
    assert native.filter_floats >= 94 * 6 * 2
    return 4 * 3 * native.input_floats, 4 * native.filter_floats


def test_each_spectrum_is_made_once_per_step(served_by: str) -> None:
    """Tile 8, k = 5, 14 x 14 -> 4 x 4 tiles of 4 outputs, 3 images."""
    layer = FFTConv2d(2, 6, 5, padding=2, tile=8)
    x = torch.randn(3, 2, 14, 14, requires_grad=True)
    tiles = 3 * 16
    with count_transforms() as counter:
        layer(x).square().sum().backward()
    assert (counter.kernel, counter.input, counter.gradient) == (6 * 2, tiles * 2, tiles * 6)
    assert (counter.output, counter.input_adjoint, counter.kernel_adjoint) == (tiles * 6, tiles * 2, 6 * 2)
    assert counter.kept_bytes == sum(spectrum_bytes(served_by))


def test_only_spectra_that_serve_a_gradient_are_kept(served_by: str) -> None:
    of_x, of_weight = spectrum_bytes(served_by)
    x = torch.randn(3, 2, 14, 14)
    layer = FFTConv2d(2, 6, 5, padding=2, tile=8)
    with count_transforms() as counter:
        layer(x).sum().backward()
    assert (counter.kernel, counter.input, counter.kept_bytes) == (12, 96, of_x)
    layer.requires_grad_(False)
    with count_transforms() as counter:
        layer(x.requires_grad_()).sum().backward()
    assert (counter.kernel, counter.input, counter.kept_bytes) == (12, 96, of_weight)


@pytest.mark.usefixtures("served_by")
def test_without_kept_spectra_they_are_made_anew() -> None:
    layer = FFTConv2d(2, 6, 5, padding=2, tile=8, save_spectra=False)
    x = torch.randn(3, 2, 14, 14, requires_grad=True)
    with count_transforms() as counter:
        layer(x).square().sum().backward()
    assert (counter.kernel, counter.input, counter.gradient) == (2 * 12, 2 * 96, 288)
    assert counter.kept_bytes == 0


@pytest.mark.usefixtures("served_by")
def test_two_counters_count_apart() -> None:
    layer = WinogradConv2d(1, 1, 3)
    with count_transforms() as outer:
        layer(torch.zeros(1, 1, 6, 6))
        with count_transforms() as inner:
            layer(torch.zeros(1, 1, 6, 6))
    assert (outer.kernel, inner.kernel) == (2, 1)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_may_run_twice_and_notices_a_changed_weight(name: str) -> None:
    layer = make(name)
    y = layer(torch.randn(1, 2, 6, 6, dtype=torch.float64)).sum()
    y.backward(retain_graph=True)
    first = layer.weight.grad.clone()
    y.backward(retain_graph=True)
    assert torch.allclose(layer.weight.grad, 2 * first)
    with torch.no_grad():
        layer.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("name", LAYERS)
def test_training_makes_the_same_steps_as_the_dense_layer(name: str) -> None:
    layer = make(name)
    dense = layer.to_dense()
    losses: list[list[float]] = [[], []]
    for which, model in enumerate((layer, dense)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        x = torch.randn(4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for _ in range(6):
            optimizer.zero_grad()
            loss = (model(x) - 1.0).square().mean()
            loss.backward()
            optimizer.step()
            losses[which].append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("name", LAYERS)
def test_empty_batch_trains(name: str) -> None:
    layer = make(name)
    x = torch.zeros(0, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert out.shape == (0, 4, 6, 6)
    out.sum().backward()
    assert float(layer.weight.grad.abs().sum()) == 0.0
    assert x.grad is not None
    assert layer.eval()(x.detach()).shape == (0, 4, 6, 6)


@pytest.mark.parametrize("name", ["fft-8", "winograd"])
def test_compiled_training_equals_eager(name: str) -> None:
    layer = make(name, SHAPES["stride"])
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64)
    layer(x).square().sum().backward()
    want = layer.weight.grad.clone()
    layer.zero_grad()
    with warnings.catch_warnings():
        # Inductor's own imports warn.
        warnings.simplefilter("ignore")
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        compiled(x).square().sum().backward()
    assert torch.allclose(layer.weight.grad, want, rtol=1e-12)


@pytest.mark.parametrize("name", ["fft-8", "fft-full", "winograd"])
def test_export_leaves_batch_and_size_open(name: str) -> None:
    layer = make(name).eval()
    batch, height = torch.export.Dim("batch"), torch.export.Dim("height", min=4, max=64)
    program = torch.export.export(
        layer, (torch.randn(2, 2, 9, 8, dtype=torch.float64),), dynamic_shapes=({0: batch, 2: height},)
    )
    assert f"fastcnn.{layer.kernel}.default" in {str(node.target) for node in program.graph.nodes}
    x = torch.randn(5, 2, 17, 8, dtype=torch.float64)
    assert torch.allclose(program.module()(x), layer.to_dense()(x), atol=1e-11)


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    layer = make(name, channels=16).to(dtype)
    x = torch.randn(2, 16, 12, 12).to(dtype).requires_grad_()
    out = layer(x)
    assert out.dtype == dtype
    # Rounded once at the end and once with the bias, as nothing in between was rounded to half precision.
    want = layer.to_dense().double()(x.detach().double()).detach()
    step = torch.finfo(dtype).eps
    assert float((out.detach() - want).abs().max()) <= 2 * step * float(want.abs().max())
    out.sum().backward()
    assert x.grad is not None
    assert (x.grad.dtype, layer.weight.grad.dtype) == (dtype, dtype)
    exact = torch.autograd.grad(F.conv2d(x.double(), (w := layer.weight.double()), padding=1).sum(), w)[0]
    assert float((layer.weight.grad - exact).abs().max()) <= step * float(exact.abs().max())


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("name", LAYERS)
def test_under_autocast_only_the_result_is_rounded(name: str) -> None:
    layer = make(name, channels=16).float()
    x = torch.randn(2, 16, 12, 12)
    exact = copy.deepcopy(layer).to_dense().double()(x.double()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        out, chained = layer(x), layer(x.bfloat16())
        with torch.no_grad():
            assert layer.eval()(x).dtype == torch.bfloat16
        layer.train()
        out.sum().backward()
    assert (out.dtype, chained.dtype) == (torch.bfloat16, torch.bfloat16)
    # Half a unit in the last place of bfloat16: products in bfloat16 would be off by several.
    assert float((out.detach() - exact).abs().max()) <= 0.51 * 2**-7 * float(exact.abs().max())
    want = torch.autograd.grad(F.conv2d(x.double(), (w := layer.weight.double()), padding=1).sum(), w)[0]
    assert layer.weight.grad.dtype == torch.float32
    assert float((layer.weight.grad - want).abs().max()) <= 1e-5 * float(want.abs().max())


@pytest.mark.parametrize("name", LAYERS)
def test_channels_last_is_kept(name: str) -> None:
    layer = make(name)
    x = torch.randn(2, 2, 7, 6, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    out.sum().backward()
    assert torch.allclose(out, layer(x.contiguous()), atol=1e-12)
    with torch.no_grad():
        assert layer.eval()(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["fft-8", "winograd"])
def test_checkpointing_gives_the_same_gradient(name: str) -> None:
    layer = make(name)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    layer(x).square().sum().backward()
    want = layer.weight.grad.clone()
    layer.zero_grad()
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    assert torch.allclose(layer.weight.grad, want, rtol=1e-12)
