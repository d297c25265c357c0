"""The memory cap: counted tensor by tensor, by resident memory in a fresh process, and refused where too small."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastcnn.methods.transforms.convolution import scratch
from fastcnn.methods.transforms.convolution.counter import count_transforms
from fastcnn.methods.transforms.convolution.native_passes import NativePasses
from fastcnn.methods.transforms.convolution.passes import passes_for
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, Algorithm, ConvSettings
from fastcnn.methods.transforms.fft_conv import FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConv2d


class LiveBytes(TorchDispatchMode):
    """Follows the storage of every tensor that an op returns until it is freed, and the pool, its idle buffers too."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()
        self._take = scratch.take

    def __enter__(self) -> LiveBytes:
        gc.disable()  # the buffers of an earlier test's graphs would come back to the pool meanwhile, and count
        scratch.take = self._take_and_follow
        super().__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        scratch.take = self._take
        gc.enable()

    def _take_and_follow(self, sizes: Any, **limits: Any) -> list[scratch.Floats]:
        arrays = self._take(sizes, **limits)
        for array in arrays:
            self._add(array.nbytes)
            weakref.finalize(array, self._subtract, array.nbytes)
        return arrays

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), storage.data_ptr()
        if not size or key in self._seen:
            return
        self._seen.add(key)
        self._add(size)
        weakref.finalize(storage, self._drop, size, key)

    def _drop(self, size: int, key: int) -> None:
        self._seen.discard(key)
        self._subtract(size)

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now + scratch.idle_bytes())

    def _subtract(self, size: int) -> None:
        self.now -= size


CASES: list[tuple[Algorithm, int]] = [
    ("fft", AUTO),
    ("fft", 8),
    ("fft", 16),
    ("fft", FULL),
    ("winograd", 2),
    ("winograd", 4),
]
SHAPES: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int], dict[str, Any]]] = {
    "many images": ((24, 8, 30, 30), (8, 8, 3, 3), {}),
    "many filters": ((2, 48, 12, 12), (96, 48, 3, 3), {"padding": (1, 1)}),
    "one image": ((1, 64, 32, 32), (4, 64, 3, 3), {}),
    "groups": ((6, 24, 20, 20), (36, 12, 3, 3), {"groups": 2}),
    "stride": ((6, 12, 32, 32), (24, 12, 5, 5), {"stride": (2, 2)}),
    "dilation": ((6, 12, 24, 24), (24, 12, 3, 3), {"dilation": (2, 2)}),
}


def least_cap(x: Tensor, weight: Tensor, settings: ConvSettings) -> int:
    """Read off the refusal; not by ``pytest.raises``, which keeps this frame and what it holds until later."""
    try:
        passes_for(x, weight, settings).forward(x, weight)
    except ValueError as refusal:
        return int(re.search(r"is too small .* take (\d+) bytes", str(refusal))[1])  # type: ignore[index]
    raise AssertionError("a cap of one byte was not refused")


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("share", [1.0, 0.9, 0.8, 0.5, 0.15, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("algorithm", "size"), CASES)
def test_no_more_than_the_cap_is_ever_alive(algorithm: Algorithm, size: int, shape: str, share: float) -> None:
    """Cap from what the call takes without one down to the least that is possible."""
    torch.manual_seed(0)
    scratch.release()
    x_shape, w_shape, arguments = SHAPES[shape]
    x, weight = torch.randn(x_shape), torch.randn(w_shape)
    free = passes_for(x, weight, ConvSettings(algorithm=algorithm, size=size, **arguments))
    grad = torch.randn_like(free.forward(x, weight)[0])
    own = x.nbytes + weight.nbytes + grad.nbytes
    with LiveBytes() as live:
        y, kept = free.forward(x, weight, for_input=True, for_weight=True)
        wanted = free.backward(grad, x, weight, kept, need_input=True, need_weight=True)
    del kept
    least = least_cap(x, weight, ConvSettings(algorithm=algorithm, size=size, memory=1, **arguments))
    cap = int(least + share * max(live.peak - least, 0))
    capped = passes_for(x, weight, ConvSettings(algorithm=algorithm, size=size, memory=cap, **arguments))
    with LiveBytes() as live:
        got, kept = capped.forward(x, weight, for_input=True, for_weight=True)
        found = capped.backward(grad, x, weight, kept, need_input=True, need_weight=True)
    assert live.peak - own <= cap
    for mine, theirs in zip((got, *found), (y, *wanted), strict=True):
        assert mine is not None
        assert theirs is not None
        assert float((mine - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


LAYOUTS: dict[str, Any] = {
    "plain": lambda t: t,
    "channels last": lambda t: t.to(memory_format=torch.channels_last),
    "half": lambda t: t.half(),
    "half channels last": lambda t: t.half().to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keep", [True, False])
def test_native_passes_bound_each_pass_by_itself(layout: str, shape: str, keep: bool) -> None:
    """Copies of x, weight and gradient included, under a cap that is the bound itself."""
    x_shape, w_shape, arguments = SHAPES[shape]
    x, weight = (LAYOUTS[layout](torch.randn(size)) for size in (x_shape, w_shape))
    free = NativePasses.of(x, weight, ConvSettings(algorithm="fft", size=8, **arguments))
    assert free is not None
    grad = torch.randn(free.forward(x, weight)[0].shape).to(x.dtype)
    grad = grad.transpose(2, 3).contiguous().transpose(2, 3)
    assert not grad.is_contiguous()
    scratch.release()
    size, images = free._footprint, free._images_at_once(kept=keep)
    forward, backward = size.forward_bytes(keep=keep), size.backward_bytes(images, kept=keep)
    cap = max(forward, backward)
    passes = NativePasses.of(x, weight, ConvSettings(algorithm="fft", size=8, memory=cap, **arguments))
    assert passes is not None
    with LiveBytes() as live:
        y, kept = passes.forward(x, weight, for_input=keep, for_weight=keep)
    assert bool(kept) == keep
    assert 0.5 * forward <= live.peak - y.nbytes <= forward
    held = sum(part.nbytes for part in kept)
    scratch.release()
    with LiveBytes() as live:
        grad_x, grad_w = passes.backward(grad, x, weight, kept, need_input=True, need_weight=True)
    assert grad_x is not None
    assert grad_w is not None
    assert 0.5 * backward <= live.peak - grad_x.nbytes - grad_w.nbytes + held <= backward


def test_the_count_sees_what_is_alive() -> None:
    scratch.release()
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a + 1
        del a
        b.view(10, 100)
        c = b * 2
    assert (live.now, live.peak) == (8000, 8000)
    del c
    assert live.now == 4000
    with LiveBytes() as live:
        (buffer,) = scratch.take([1000])
        del buffer
        torch.zeros(1000)
    assert live.peak == 8000, "an idle buffer counts"


@pytest.mark.usefixtures("served_by")
def test_filters_are_transformed_once_per_pass_even_under_a_cap() -> None:
    x, weight = torch.randn(16, 8, 30, 30), torch.randn(8, 8, 3, 3)
    cap = 1 << 20
    passes = passes_for(x, weight, ConvSettings(algorithm="fft", size=8, memory=cap))
    with count_transforms() as counter:
        y, kept = passes.forward(x, weight, for_input=True, for_weight=True)
    assert kept == ()
    assert (counter.kernel, counter.input) == (64, 16 * 25 * 8)
    with count_transforms() as counter:
        passes.backward(y, x, weight, kept, need_input=True, need_weight=True)
    assert (counter.kernel, counter.gradient, counter.kernel_adjoint) == (64, 16 * 25 * 8, 64)


@pytest.mark.usefixtures("served_by")
@pytest.mark.parametrize("make", [FFTConv2d, WinogradConv2d])
def test_a_layer_names_the_bytes_it_needs(make: type[nn.Conv2d]) -> None:
    layer = make(16, 32, 3, memory=1000)  # type: ignore[call-arg]
    x = torch.randn(2, 16, 20, 20)
    with pytest.raises(ValueError, match="memory=1000 bytes is too small for this shape") as refusal:
        layer(x)
    enough = int(str(refusal.value).split(" take ")[1].split(" bytes")[0])
    assert layer.__class__(16, 32, 3, memory=enough)(x).shape == (2, 32, 18, 18)  # type: ignore[call-arg]
    with torch.no_grad():
        other = layer.__class__(16, 32, 3, memory=enough).eval()  # type: ignore[call-arg]
        assert torch.allclose(other(x), F.conv2d(x, other.weight, other.bias), atol=1e-5)


PROBE = """
import json, sys
import torch
from fastcnn.methods.transforms.convolution import scratch
from fastcnn.methods.transforms.convolution.native_passes import NativePasses
from fastcnn.methods.transforms.fft_conv import FFTConv2d
torch.set_num_threads(1)
memory, tile, size, native = json.loads(sys.argv[1])
of = NativePasses.of
def served(*call):
    passes = of(*call) if native else None
    assert (passes is not None) == native
    return passes
NativePasses.of = served
def step(batch, memory):
    layer = FFTConv2d(32, 32, 3, padding=1, tile=tile, memory=memory)
    x = torch.randn(batch, 32, size, size, requires_grad=True)
    y = layer(x)
    y.backward(torch.ones_like(y))
def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))
step(1, None)
scratch.release()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew from here
before = status("VmRSS")
step(16, memory)
print(status("VmHWM") - before)
"""


def resident_growth(memory: int | None, tile: int | str, *, size: int, native: bool) -> int:
    """Growth of peak resident memory in bytes over a training step of 16 images, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([memory, tile, size, native])],
        # Freed blocks go back to the system at once, so that the peak is what was in use.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return 1024 * int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peak resident memory is read from /proc")
@pytest.mark.parametrize(
    ("tile", "size", "native", "cap"),
    [
        (8, 64, True, 15 << 20),
        (32, 64, True, 40 << 20),
        ("full", 62, True, 150 << 20),  # native tiles end at 64 points: 62 and the padding
        (8, 64, False, 32 << 20),
        ("full", 64, False, 48 << 20),
    ],
)
def test_resident_memory_keeps_the_cap(tile: int | str, size: int, native: bool, cap: int) -> None:
    """The cap binds: without it the step takes half as much again, at least."""
    # Input, output, both gradients and the gradient of ones: 16 images of 32 channels each.
    own = 5 * (4 * 16 * 32 * size * size)
    free = resident_growth(None, tile, size=size, native=native)
    held = resident_growth(cap, tile, size=size, native=native)
    assert held <= own + cap + (6 << 20)
    assert free >= own + 3 * cap // 2
