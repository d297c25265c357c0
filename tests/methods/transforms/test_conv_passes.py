"""The three passes against torch's convolution in float64, over random shapes, forms and caps; their identities.

In float64 torch's ops carry them out, in float32 native code too, where it has the form and the cap leaves room for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.transforms.convolution.choice import geometry_of
from fastcnn.methods.transforms.convolution.chunks import Footprint
from fastcnn.methods.transforms.convolution.counter import count_transforms
from fastcnn.methods.transforms.convolution.lengths import fast_length
from fastcnn.methods.transforms.convolution.passes import passes_for
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL, ConvSettings

FORMS = [("fft", AUTO), ("fft", FULL), ("fft", 8), ("fft", 16), ("winograd", AUTO), ("winograd", 2), ("winograd", 3)]
# Largest difference / largest value, float64. Winograd's grows with the tile, 9 values at most here.
TOLERANCE = {"fft": 1e-13, "winograd": 2e-12}
# In float32: the acceptance of FFT, and of F(m, r) by the next even length of its tile.
FFT_FLOAT32 = 4e-6
WINOGRAD_FLOAT32 = {2: 4e-6, 4: 4e-6, 6: 4e-5, 8: 1e-4, 10: 4e-4}


@dataclass(frozen=True)
class Problem:
    """Shapes of one convolution."""

    x: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Random x and weight that record gradients."""
        made = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in (self.x, self.weight)]
        return made[0], made[1]

    def settings(self, algorithm: Any, size: int, memory: int = 0) -> ConvSettings:
        """The same for the engine."""
        return ConvSettings(
            algorithm=algorithm,
            size=size,
            memory=memory,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    axes = []
    for _ in range(2):
        stride, dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]))
        kernel, padding = draw(st.integers(1, 7)), draw(st.integers(0, 4))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        axes.append((draw(st.integers(least, least + 11)), kernel, stride, padding, dilation))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, filters = draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    rows, columns = axes
    return Problem(
        x=(draw(st.integers(0, 3)), groups * per_group, rows[0], columns[0]),
        weight=(filters, per_group, rows[1], columns[1]),
        stride=(rows[2], columns[2]),
        padding=(rows[3], columns[3]),
        dilation=(rows[4], columns[4]),
        groups=groups,
    )


def error(got: Tensor | None, want: Tensor) -> float:
    """Largest difference over largest value; 0 for two empty tensors."""
    assert got is not None
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if not want.numel():
        return 0.0
    scale = float(want.detach().abs().max())
    return float((got - want).detach().abs().max()) / (scale or 1.0)


@settings(max_examples=120, deadline=None)
@given(problems(), st.sampled_from(FORMS), st.booleans(), st.floats(1.0, 4.0), st.integers(0, 2**31))
def test_all_passes_equal_direct_convolution(
    problem: Problem, form: tuple[str, int], keep: bool, room: float, seed: int
) -> None:
    torch.manual_seed(seed)
    algorithm, size = form
    x, weight = problem.tensors()
    y = F.conv2d(x, weight, None, problem.stride, problem.padding, problem.dilation, problem.groups)
    grad = torch.randn_like(y)
    want_x, want_w = torch.autograd.grad(y, (x, weight), grad)
    asked = problem.settings(algorithm, size)
    geometry = geometry_of(problem.x, problem.weight, asked)
    assert geometry is not None
    least = Footprint.of(geometry, is_complex=algorithm == "fft", item=8).least
    for memory in (0, int(room * least) + 1):
        passes = passes_for(x, weight, problem.settings(algorithm, size, memory))
        with torch.no_grad():
            got, kept = passes.forward(x, weight, for_input=keep, for_weight=keep)
            got_x, got_w = passes.backward(grad, x, weight, kept, need_input=True, need_weight=True)
        for mine, theirs in ((got, y), (got_x, want_x), (got_w, want_w)):
            assert error(mine, theirs) <= TOLERANCE[algorithm]


def deviations(problem: Problem) -> tuple[float, float, float]:
    """Of y, grad_x and grad_w, for values of unit variance: roots of the numbers of terms."""
    filters, per_group, rows, columns = problem.weight
    taps = rows * columns
    phases = problem.stride[0] * problem.stride[1]
    out = math.prod(
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            problem.x[2:], problem.weight[2:], problem.stride, problem.padding, problem.dilation, strict=True
        )
    )
    return (
        math.sqrt(per_group * taps),
        math.sqrt(max(filters // problem.groups * taps / phases, 1)),
        math.sqrt(max(problem.x[0] * out, 1)),
    )


@pytest.mark.usefixtures("served_by")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problems(), st.sampled_from(FORMS), st.booleans(), st.floats(1.0, 40.0), st.integers(0, 2**31))
def test_float32_passes_equal_float64(
    problem: Problem, form: tuple[str, int], keep: bool, room: float, seed: int
) -> None:
    torch.manual_seed(seed)
    algorithm, size = form
    x, weight = (t.detach().float().double().requires_grad_() for t in problem.tensors())
    y = F.conv2d(x, weight, None, problem.stride, problem.padding, problem.dilation, problem.groups)
    grad = torch.randn(y.shape)
    wanted = (y.detach(), *torch.autograd.grad(y, (x, weight), grad.double()))
    geometry = geometry_of(problem.x, problem.weight, problem.settings(algorithm, size))
    assert geometry is not None
    least = Footprint.of(geometry, is_complex=algorithm == "fft").least
    longest = max(axis.tile for axis in (geometry.rows, geometry.columns))
    tolerance = FFT_FLOAT32 if algorithm == "fft" else WINOGRAD_FLOAT32[longest + longest % 2]
    a, w = x.detach().float(), weight.detach().float()
    for memory in (0, int(room * least) + 1):
        passes = passes_for(a, w, problem.settings(algorithm, size, memory))
        got, kept = passes.forward(a, w, for_input=keep, for_weight=keep)
        both = passes.backward(grad, a, w, kept, need_input=True, need_weight=True)
        for mine, theirs, scale in zip((got, *both), wanted, deviations(problem), strict=True):
            assert mine is not None
            assert (mine.shape, mine.dtype) == (theirs.shape, torch.float32)
            assert mine.is_contiguous()
            top = float(theirs.abs().max()) if theirs.numel() else 0.0
            assert not mine.numel() or float((mine - theirs).abs().max()) <= tolerance * max(top, scale)


@pytest.mark.parametrize("form", [("fft", 8), ("fft", FULL), ("winograd", 3)])
def test_only_what_is_asked_for_is_computed(form: tuple[str, int]) -> None:
    problem = Problem((2, 3, 9, 9), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x, weight = (t.detach() for t in problem.tensors())
    passes = passes_for(x, weight, problem.settings(*form))
    grad = torch.randn_like(passes.forward(x, weight)[0])
    with count_transforms() as counter:
        grad_x, grad_w = passes.backward(grad, x, weight, (), need_input=False, need_weight=True)
    assert grad_x is None
    assert grad_w is not None
    assert (counter.kernel, counter.input_adjoint) == (0, 0)
    with count_transforms() as counter:
        grad_x, grad_w = passes.backward(grad, x, weight, (), need_input=True, need_weight=False)
    assert grad_w is None
    assert grad_x is not None
    assert (counter.input, counter.kernel_adjoint) == (0, 0)


def test_a_circular_shift_turns_the_phase_and_energy_is_kept() -> None:
    from fastcnn.methods.transforms.convolution.geometry import Axis
    from fastcnn.methods.transforms.convolution.transforms import FourierTransform

    torch.manual_seed(0)
    axis = Axis(size=16, kernel=3, tile=16)
    transform = FourierTransform(axis, axis)
    tile = torch.randn(16, 16, dtype=torch.float64)
    spectrum = transform.input(tile)
    turned = transform.input(tile.roll((3, -5), (0, 1)))
    rows, columns = torch.arange(16)[:, None], torch.arange(9)[None]
    phase = torch.exp(-2j * torch.pi * (3 * rows - 5 * columns).to(torch.float64) / 16)
    assert torch.allclose(turned, spectrum * phase, atol=1e-12)
    # Parseval; inner columns of the half spectrum stand for two.
    weight = torch.full((9,), 2.0, dtype=torch.float64)
    weight[[0, 8]] = 1.0
    energy = (spectrum.abs().square() * weight).sum() / 256
    assert torch.allclose(energy, tile.square().sum(), rtol=1e-12)


def test_wrap_around_stays_in_the_outputs_that_are_dropped() -> None:
    """A cyclic correlation of length L = H is right in its first L - k + 1 outputs, and wrong after them."""
    torch.manual_seed(0)
    x, weight = torch.randn(10, 10, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    cyclic = torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(weight, s=(10, 10)).conj(), s=(10, 10))
    wanted = F.conv2d(x[None, None], weight[None, None])[0, 0]
    assert torch.allclose(cyclic[:8, :8], wanted, atol=1e-12)
    wide = F.conv2d(F.pad(x, (0, 2, 0, 2))[None, None], weight[None, None])[0, 0]
    assert not torch.allclose(cyclic[8:], wide[8:], atol=1e-3)
    problem = Problem((1, 1, 10, 10), (1, 1, 3, 3), (1, 1), (0, 0), (1, 1), 1)
    geometry = geometry_of(problem.x, problem.weight, problem.settings("fft", FULL))
    assert geometry is not None
    assert (geometry.rows.tile, geometry.rows.count, geometry.rows.step) == (10, 1, 8)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (4, 2), (7, 3), (2, 3)])
def test_stride_is_a_plain_correlation_of_pixel_unshuffled_phases(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 17, 17, dtype=torch.float64), torch.randn(4, 3, kernel, kernel, dtype=torch.float64)
    problem = Problem((2, 3, 17, 17), (4, 3, kernel, kernel), (stride, stride), (0, 0), (1, 1), 1)
    geometry = geometry_of(problem.x, problem.weight, problem.settings("fft", FULL))
    assert geometry is not None
    lowered, taps = geometry.lower_input(x), geometry.lower_weight(weight)
    span, wide = geometry.rows.span * stride, geometry.rows.taps * stride
    assert torch.equal(lowered, F.pixel_unshuffle(F.pad(x, (0, span - 17, 0, span - 17)), stride))
    assert torch.equal(taps, F.pixel_unshuffle(F.pad(weight, (0, wide - kernel, 0, wide - kernel)), stride))
    want = F.conv2d(x, weight, stride=stride)
    got = F.conv2d(lowered, taps)[:, :, : want.shape[2], : want.shape[3]]
    assert torch.allclose(got, want, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(problems().filter(lambda p: p.x[0] > 0), st.sampled_from(FORMS))
def test_every_step_of_the_reduction_has_its_adjoint(problem: Problem, form: tuple[str, int]) -> None:
    """<A u, v> = <u, A* v> for padding, phases, tiles and their way back."""
    torch.manual_seed(1)
    geometry = geometry_of(problem.x, problem.weight, problem.settings(*form))
    assert geometry is not None
    tiles = (geometry.phases * problem.x[0], geometry.filters, geometry.rows.count, geometry.columns.count)
    u, w = (torch.randn(shape, dtype=torch.float64) for shape in (problem.x, problem.weight))
    t = torch.randn(*tiles, geometry.rows.step, geometry.columns.step, dtype=torch.float64)
    lowered, taps, out = geometry.cut(geometry.lower_input(u)), geometry.lower_weight(w), geometry.raise_output(t)
    pairs = (
        (lowered, lambda v: geometry.raise_input(geometry.paste(v)), u),
        (taps, geometry.raise_weight, w),
        (out, geometry.lower_output, t),
    )
    for image, adjoint, source in pairs:
        v = torch.randn(image.shape, dtype=torch.float64)
        assert torch.allclose((image * v).sum(), (source * adjoint(v)).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("least", [1, 2, 3, 7, 17, 58, 61, 97, 226, 499])
def test_fast_lengths_are_the_next_even_products_of_2_3_and_5(least: int) -> None:
    def smooth(n: int) -> bool:
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    assert fast_length(least) == next(n for n in range(max(least, 2), 2 * least + 2) if n % 2 == 0 and smooth(n))


def test_the_choice_follows_the_shape() -> None:
    def tile(height: int, kernel: int, batch: int = 16, channels: int = 64, memory: int = 0) -> int:
        problem = Problem(
            (batch, channels, height, height), (channels, channels, kernel, kernel), (1, 1), (0, 0), (1, 1), 1
        )
        geometry = geometry_of(problem.x, problem.weight, problem.settings("fft", AUTO, memory))
        assert geometry is not None
        return geometry.rows.tile

    assert tile(64, 3) in (8, 16)
    assert tile(64, 3) <= tile(64, 9) <= tile(64, 31)
    # Nothing shorter than the kernel, and one tile where the map is hardly larger.
    assert tile(70, 65) == fast_length(70)
    free = tile(256, 31)
    assert tile(256, 31, memory=64 << 20) <= free


@pytest.mark.parametrize(
    ("form", "problem", "message"),
    [
        (("fft", 8), Problem((1, 1, 20, 20), (1, 1, 9, 3), (1, 1), (0, 0), (1, 1), 1), "9 taps does not fit in tile=8"),
        (("fft", FULL), Problem((1, 1, 9, 9), (1, 1, 3, 3), (2, 2), (0, 0), (2, 2), 1), "stride=2 and dilation=2"),
        (("winograd", 2), Problem((1, 1, 20, 20), (1, 1, 8, 3), (1, 1), (0, 0), (1, 1), 1), "8 taps is too long"),
        (("winograd", 13), Problem((1, 1, 20, 20), (1, 1, 3, 3), (1, 1), (0, 0), (1, 1), 1), r"F\(13, 3\).*m <= 12"),
    ],
)
def test_what_an_algorithm_cannot_do_is_said(form: tuple[str, int], problem: Problem, message: str) -> None:
    x, weight = problem.tensors()
    with pytest.raises(ValueError, match=message):
        passes_for(x, weight, problem.settings(*form))


def test_what_the_choice_cannot_do_is_convolved_directly() -> None:
    problem = Problem((2, 4, 11, 9), (6, 2, 3, 3), (2, 1), (1, 2), (2, 2), 2)
    x, weight = problem.tensors()
    y = F.conv2d(x, weight, None, problem.stride, problem.padding, problem.dilation, problem.groups)
    grad = torch.randn_like(y)
    want = torch.autograd.grad(y, (x, weight), grad)
    passes = passes_for(x, weight, problem.settings("fft", AUTO))
    with count_transforms() as counter, torch.no_grad():
        got, kept = passes.forward(x, weight, for_input=True, for_weight=True)
        both = passes.backward(grad, x, weight, kept, need_input=True, need_weight=True)
    assert (counter.input, kept) == (0, ())
    for mine, theirs in zip((got, *both), (y, *want), strict=True):
        assert error(mine, theirs) <= 1e-14
