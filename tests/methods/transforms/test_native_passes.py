"""Native passes behind the layers: which calls they serve, every layout and dtype, changes between the passes, caps."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn import _native
from fastcnn.methods.transforms.convolution.direct import DirectPasses
from fastcnn.methods.transforms.convolution.native_passes import NativePasses
from fastcnn.methods.transforms.convolution.passes import passes_for
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, Algorithm, ConvSettings
from fastcnn.methods.transforms.convolution.torch_passes import TorchPasses
from fastcnn.methods.transforms.fft_conv import FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConv2d

X, W = (2, 6, 20, 20), (8, 6, 3, 3)


def settings(algorithm: Algorithm = "fft", size: int = AUTO, **more: Any) -> ConvSettings:
    return ConvSettings(algorithm=algorithm, size=size, **more)


@pytest.mark.parametrize(
    ("asked", "kernel", "form"),
    [
        (settings(size=16), (3, 3), ("fft", 16)),
        (settings(size=FULL), (3, 3), ("fft", 20)),
        (settings(size=FULL, padding=(3, 0)), (3, 3), ("fft", 32)),
        (settings(size=FULL, padding=(23, 0)), (3, 3), None),
        (settings(size=8), (9, 9), None),
        (settings(size=FULL, stride=(2, 2)), (5, 5), ("fft", 12)),
        (settings("winograd"), (3, 3), ("winograd", 4)),
        (settings("winograd"), (5, 5), ("winograd", 4)),
        (settings("winograd", 6), (1, 3), ("winograd", 6)),
        (settings("winograd", 3), (3, 3), None),
        (settings("winograd"), (7, 7), None),
        (settings("winograd"), (3, 5), None),
        (settings("winograd"), (1, 1), None),
        (settings("winograd", stride=(2, 2)), (5, 5), ("winograd", 4)),
        (settings(stride=(2, 1), dilation=(2, 1)), (3, 3), None),
        (settings(memory=1000), (3, 3), None),
    ],
)
def test_forms_that_native_code_serves(
    asked: ConvSettings, kernel: tuple[int, int], form: tuple[str, int] | None
) -> None:
    passes = NativePasses.of(torch.zeros(X), torch.zeros(8, 6, *kernel), asked)
    assert (None if passes is None else passes._correlation.form) == form


def test_what_native_code_does_not_serve_others_do() -> None:
    x, w = torch.zeros(X), torch.zeros(W)
    assert isinstance(passes_for(x, w, settings()), NativePasses)
    assert isinstance(passes_for(x.half(), w.half(), settings()), NativePasses)
    assert isinstance(passes_for(x.bfloat16(), w.bfloat16(), settings("winograd")), NativePasses)
    assert isinstance(passes_for(x.double(), w.double(), settings()), TorchPasses)
    assert isinstance(passes_for(x[:0], w, settings()), TorchPasses)
    assert isinstance(passes_for(x.to("meta"), w.to("meta"), settings()), TorchPasses)
    assert isinstance(passes_for(x, w, settings("winograd", 3)), TorchPasses)
    assert isinstance(passes_for(x, w, settings(stride=(2, 2), dilation=(2, 2))), DirectPasses)


def test_a_cap_takes_a_smaller_tile_before_it_leaves_native_code() -> None:
    x, w = torch.zeros(24, 8, 30, 30), torch.zeros(8, 8, 3, 3)
    forms = []
    for memory in (0, *(cap << 16 for cap in range(400, 1, -1))):
        passes = passes_for(x, w, settings(memory=memory))
        forms.append(passes._correlation.form[1] if isinstance(passes, NativePasses) else 0)
    changes = [form for i, form in enumerate(forms) if not i or form != forms[i - 1]]
    assert len(changes) > 2, changes
    assert changes[-1] == 0
    assert all(changes[:-1])


class Model(nn.Module):
    """Both algorithms, a stride, groups, and biases; of one dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = FFTConv2d(3, 16, 5, padding=2, dtype=dtype)
        self.b = WinogradConv2d(16, 8, 3, padding=1, groups=2, dtype=dtype)
        self.c = FFTConv2d(8, 4, 4, stride=2, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return out


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Of x and the parameters."""
    x = x.detach().requires_grad_()
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().mean(), (x, *model.parameters()))]


def dense(model: nn.Module) -> nn.Module:
    """The same of ``nn.Conv2d`` in float64."""
    other = Model(torch.float64)
    other.load_state_dict(model.state_dict())
    for name in "abc":
        setattr(other, name, getattr(other, name).to_dense())
    return other


def layouts() -> dict[str, Any]:
    base = torch.randn(2, 3, 19, 22)
    return {
        "contiguous": base,
        "channels last": base.to(memory_format=torch.channels_last),
        "every second": torch.randn(4, 3, 38, 22)[::2, :, ::2],
        "transposed": torch.randn(2, 3, 22, 19).transpose(2, 3),
        "expanded": torch.randn(1, 3, 19, 1).expand(2, 3, 19, 22),
        "negated": torch._neg_view(torch.randn(2, 3, 19, 22)),
    }


@pytest.mark.parametrize("name", layouts())
def test_every_layout(name: str) -> None:
    torch.manual_seed(1)
    x = layouts()[name]
    model = Model(torch.float32)
    assert isinstance(passes_for(x, model.a.weight, model.a._settings), NativePasses)
    for mine, theirs in zip(gradients(model, x), gradients(dense(model), x.double()), strict=True):
        assert float((mine - theirs).abs().max()) <= 2e-5 * float(theirs.abs().max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_of_every_layout(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    for x in layouts().values():
        layer = FFTConv2d(3, 16, 5, padding=2, stride=2, bias=False, dtype=dtype)
        given = x.to(dtype)
        assert isinstance(passes_for(given, layer.weight, layer._settings), NativePasses)
        found = gradients(layer, given)
        exact = FFTConv2d(3, 16, 5, padding=2, stride=2, bias=False, dtype=torch.float64)
        exact.load_state_dict(layer.state_dict())
        for mine, theirs in zip(found, gradients(exact.to_dense(), given.double()), strict=True):
            assert mine.dtype == dtype
            # The loss's gradient is rounded once more than the result.
            assert float((mine - theirs).abs().max()) <= 2 * torch.finfo(dtype).eps * float(theirs.abs().max())


def test_default_dtype_and_device_are_not_asked() -> None:
    x = torch.randn(2, 3, 19, 22)
    model = Model(torch.float32)
    wanted = gradients(model, x)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = gradients(model, x)
    finally:
        torch.set_default_dtype(torch.float32)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("save_spectra", [True, False])
def test_a_change_between_the_passes_is_noticed(save_spectra: bool) -> None:
    layer = FFTConv2d(4, 4, 3, save_spectra=save_spectra)
    for changed in ("input", "weight"):
        x = torch.randn(2, 4, 9, 9, requires_grad=True)
        y = layer(x).sum()
        with torch.no_grad():
            (x if changed == "input" else layer.weight).add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_kept_spectra_are_those_of_the_forward_pass() -> None:
    """A change through ``.data`` escapes torch's version counter: gradients then belong to what was convolved."""
    layer = FFTConv2d(4, 4, 3, bias=False)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    y = layer(x).square().sum()
    x.data.zero_()
    layer.weight.data.zero_()
    for mine, theirs in zip(torch.autograd.grad(y, (x, layer.weight)), wanted, strict=True):
        assert torch.equal(mine, theirs)


def test_an_empty_batch_trains() -> None:
    model = Model(torch.float32)
    x = torch.zeros(0, 3, 20, 20, requires_grad=True)
    y = model(x)
    assert y.shape == (0, 4, 9, 9)
    y.sum().backward()
    assert x.grad is not None
    assert all(float(p.grad.abs().sum()) == 0.0 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("memory", [None, 8 << 20])
def test_threads_train_at_once(memory: int | None) -> None:
    """Each its own input, one layer: results are those of one thread alone, to the bit."""
    layer = FFTConv2d(16, 16, 5, padding=2, tile=16, bias=False, memory=memory)
    inputs = [torch.randn(4, 16, 24, 24, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert isinstance(passes_for(inputs[0], layer.weight, layer._settings), NativePasses)
    wanted = [gradients(layer, x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        torch.set_num_threads(1)
        for _ in range(5):
            found = gradients(layer, inputs[index])
            if not all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted[index], strict=True)):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(("cls", "size"), [(FFTConv2d, "tile"), (WinogradConv2d, "m")])
def test_a_cap_changes_no_result(cls: Any, size: str) -> None:
    """Images in turn, spectra made anew: the same sums in another order."""
    layer = cls(12, 20, 3, padding=1, bias=False, **{size: 8 if size == "tile" else 4})
    x = torch.randn(8, 12, 24, 24)
    wanted = gradients(layer, x)
    free = NativePasses.of(x, layer.weight, layer._settings)
    assert free is not None
    needed = [free._footprint.backward_bytes(images, kept=False) for images in (1, 2, 4)]
    assert needed == sorted(set(needed))
    images = []
    for memory in (*needed, 1 << 30):
        asked = ConvSettings(algorithm=layer.algorithm, size=layer._settings.size, memory=memory, padding=(1, 1))
        passes = passes_for(x, layer.weight, asked)
        assert isinstance(passes, NativePasses)
        images.append(passes._images_at_once(kept=False))
        y, kept = passes.forward(x, layer.weight, for_input=True, for_weight=True)
        grad = 2 * y / y.numel()
        both = passes.backward(grad, x, layer.weight, kept, need_input=True, need_weight=True)
        for mine, theirs in zip((y, *both), wanted, strict=True):
            assert mine is not None
            assert float((mine - theirs).detach().abs().max()) <= 4e-6 * float(theirs.abs().max())
    assert images == [1, 2, 4, 4], "four for one thread, where the cap allows it"


def test_the_choice_follows_kernel_and_map() -> None:
    """The fastest tile holds a few times the kernel, and no more than the map asks for."""

    def tile(height: int, kernel: int) -> int:
        x, w = torch.zeros(8, 64, height, height), torch.zeros(64, 64, kernel, kernel)
        passes = NativePasses.of(x, w, settings(padding=(kernel // 2, kernel // 2)))
        assert passes is not None
        return passes._correlation.form[1]

    assert tile(56, 3) <= tile(56, 7) <= tile(56, 15) <= tile(56, 31)
    sizes = _native.fft_sizes(str(_native.host()["isa_active"]))
    for height in (7, 14, 28):
        for kernel in (3, 5, 9):
            whole = next(one for one in sizes if one >= height + kernel - 1 + (kernel - 1))
            assert kernel < tile(height, kernel) <= whole


def test_gradients_of_the_second_order_in_float32() -> None:
    """They go through the op, whose passes are native too."""
    torch.manual_seed(0)
    x, w = torch.randn(2, 4, 9, 9), torch.randn(5, 4, 3, 3)

    def penalty(convolve: Any, *tensors: Tensor) -> list[Tensor]:
        a, b = (t.detach().requires_grad_() for t in tensors)
        (first,) = torch.autograd.grad(convolve(a, b).pow(3).sum(), a, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), (a, b)))

    layer = FFTConv2d(4, 5, 3, bias=False, tile=8)
    ours = penalty(lambda a, b: torch.func.functional_call(layer, {"weight": b}, (a,)), x, w)
    for mine, theirs in zip(ours, penalty(F.conv2d, x.double(), w.double()), strict=True):
        assert math.isfinite(float(mine.sum()))
        assert float((mine - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
