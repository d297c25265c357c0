"""``_native.TilePasses`` on every instruction set: float64 reference, poisoned memory, refusals, callers at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fastcnn import _native
from tests.engine.nets import FFT, ISAS, WINOGRAD

GUARD = 64


def poisoned(floats: int) -> np.ndarray:
    """NaN everywhere, and so many more behind what is handed out."""
    return np.full(floats + GUARD, np.nan, np.float32)


@dataclass(frozen=True)
class Problem:
    """A plain correlation; ``after`` is the padding below and to the right, which need not be that before."""

    form: tuple[str, int]
    images: int = 1
    groups: int = 1
    channels: int = 1
    filters: int = 1
    size: tuple[int, int] = (5, 5)
    kernel: tuple[int, int] = (3, 3)
    padding: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)

    @property
    def out(self) -> tuple[int, int]:
        rows, columns = (self.size[i] + self.padding[i] + self.after[i] - self.kernel[i] + 1 for i in (0, 1))
        return rows, columns

    @property
    def tolerance(self) -> float:
        op, size = self.form
        return FFT if op == "fft" else WINOGRAD[size + max(self.kernel) - 1]

    def native(self, isa: str, threads: int = 1) -> _native.TilePasses:
        return _native.TilePasses(
            isa, *self.form, self.images, self.groups, (self.channels, self.filters), self.size, self.out, self.kernel,
            self.padding, threads,
        )  # fmt: skip

    def arrays(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, w and dy of unit variance."""
        rng = np.random.default_rng(seed)
        shapes = (
            (self.images, self.groups * self.channels, *self.size),
            (self.groups * self.filters, self.channels, *self.kernel),
            (self.images, self.groups * self.filters, *self.out),
        )
        x, w, dy = (rng.standard_normal(shape, np.float32) for shape in shapes)
        return x, w, dy

    def wanted(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        """y, dx, dw in float64."""
        a, b = (torch.from_numpy(v).double().requires_grad_() for v in (x, w))
        around = (self.padding[1], self.after[1], self.padding[0], self.after[0])
        y = F.conv2d(F.pad(a, around), b, groups=self.groups)
        return [v.detach().numpy() for v in (y, *torch.autograd.grad(y, (a, b), torch.from_numpy(dy).double()))]

    def scales(self) -> tuple[float, float, float]:
        """Deviation of y, dx and dw from sums of so many terms."""
        taps = math.prod(self.kernel)
        return (
            math.sqrt(self.channels * taps),
            math.sqrt(self.filters * taps),
            math.sqrt(self.images * math.prod(self.out)),
        )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    if draw(st.booleans()):
        points = draw(st.sampled_from(_native.fft_sizes("scalar")))
        longest = st.one_of(st.integers(1, min(points, 9)), st.integers(1, points))
        form, kernel = ("fft", points), (draw(longest), draw(longest))
    else:
        m, rows, columns = draw(st.sampled_from(_native.winograd_forms("scalar")))
        form, kernel = ("winograd", m), (rows, columns)
    size, padding, after = [], [], []
    for k in kernel:
        before, behind = draw(st.integers(0, k + 2)), draw(st.integers(0, k + 2))
        least = max(1, k - before - behind)
        size.append(draw(st.integers(least, least + 17)))
        padding.append(before)
        after.append(behind)
    return Problem(
        form=form,
        images=draw(st.integers(1, 4)),
        groups=draw(st.sampled_from([1, 1, 2, 3])),
        channels=draw(st.sampled_from([1, 3, 8, 15, 16, 17, 40])),
        filters=draw(st.sampled_from([1, 2, 7, 8, 16, 17, 65])),
        size=(size[0], size[1]),
        kernel=kernel,
        padding=(padding[0], padding[1]),
        after=(after[0], after[1]),
    )


@dataclass
class Call:
    """Runs a problem natively in memory full of NaN, and looks past the end of all of it."""

    problem: Problem
    native: _native.TilePasses
    held: list[np.ndarray] = field(default_factory=list)

    def room(self, floats: int) -> np.ndarray:
        self.held.append(poisoned(floats))
        return self.held[-1][:floats]

    def filters(self, w: np.ndarray) -> np.ndarray:
        u = self.room(self.native.filter_floats)
        self.native.filters(w, u)
        return u

    def forward(self, x: np.ndarray, u: np.ndarray, *, keep: bool) -> tuple[np.ndarray, np.ndarray | None]:
        p = self.problem
        y = self.room(p.images * p.groups * p.filters * math.prod(p.out))
        spectra = self.room(p.images * self.native.input_floats) if keep else None
        self.native.forward(x, u, y, spectra, self.room(self.native.forward_scratch))
        return y.reshape(p.images, p.groups * p.filters, *p.out), spectra

    def backward(
        self, dy: np.ndarray, x: np.ndarray, w: np.ndarray, u: np.ndarray, spectra: np.ndarray | None, at_once: int,
        *, need_input: bool = True, need_weight: bool = True,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:  # fmt: skip
        own = self.room(self.native.backward_scratch(at_once, spectra is not None, need_input, need_weight))
        dx = self.room(x.size) if need_input else None
        dw = self.room(w.size) if need_weight else None
        # What is kept serves instead of x: x may then hold anything.
        given = x if spectra is None else np.full_like(x, np.nan)
        self.native.backward(dy, given, spectra, u if need_input else None, dx, dw, at_once, own)
        return None if dx is None else dx.reshape(x.shape), None if dw is None else dw.reshape(w.shape)

    def check_guards(self) -> None:
        for array in self.held:
            assert np.isnan(array[-GUARD:]).all(), "written past the end"


def check(problem: Problem, isa: str, threads: int, keep: bool, at_once: int, seed: int) -> None:
    call = Call(problem, problem.native(isa, threads))
    x, w, dy = problem.arrays(seed)
    u = call.filters(w)
    y, spectra = call.forward(x, u, keep=keep)
    dx, dw = call.backward(dy, x, w, u, spectra, at_once)
    call.check_guards()
    for got, want, scale in zip((y, dx, dw), problem.wanted(x, w, dy), problem.scales(), strict=True):
        assert got is not None
        assert np.isfinite(got).all(), "something was read before it was written, or never written"
        assert np.abs(got - want).max() <= problem.tolerance * max(float(np.abs(want).max()), scale)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 3), st.booleans(), st.integers(1, 5), st.integers(0, 2**31))
@example(Problem(("fft", 8), padding=(4, 5), after=(5, 4), kernel=(1, 2), size=(1, 1)), 1, False, 1, 0)
@example(Problem(("fft", 16), 2, 1, 17, 33, (40, 3), (3, 3), (1, 1), (1, 1)), 3, True, 1, 0)
@example(Problem(("fft", 64), 1, 2, 3, 2, (64, 70), (64, 33), (0, 16), (0, 16)), 2, False, 1, 0)
@example(Problem(("winograd", 4), 4, 1, 17, 130, (9, 30), (3, 3), (1, 1), (1, 1)), 2, True, 3, 0)
def test_three_passes_equal_float64(
    isa: str, problem: Problem, threads: int, keep: bool, at_once: int, seed: int
) -> None:
    check(problem, isa, threads, keep, at_once, seed)


@pytest.mark.parametrize("isa", ISAS)
def test_every_form_there_is(isa: str) -> None:
    """Maps of several tiles with a ragged edge."""
    forms = [(("fft", points), (3, 3)) for points in _native.fft_sizes(isa)]
    forms += [(("winograd", m), (rows, columns)) for m, rows, columns in _native.winograd_forms(isa)]
    assert len(forms) > 12
    for form, kernel in forms:
        step = form[1] if form[0] == "winograd" else form[1] - 2
        size = (step + kernel[0], min(2 * step, 40) + kernel[1])
        check(Problem(form, 2, 1, 18, 5, size, kernel, (1, 0), (1, 0)), isa, 2, True, 2, 0)


@pytest.mark.parametrize("isa", ISAS)
def test_only_what_is_asked_for_is_written(isa: str) -> None:
    problem = Problem(("fft", 8), 3, 2, 5, 6, (9, 10), (3, 3), (1, 1), (1, 1))
    x, w, dy = problem.arrays(0)
    _, want_x, want_w = problem.wanted(x, w, dy)
    for keep in (False, True):
        call = Call(problem, problem.native(isa, 2))
        u = call.filters(w)
        _, spectra = call.forward(x, u, keep=keep)
        dx, none = call.backward(dy, x, w, u, spectra, 2, need_weight=False)
        assert none is None
        assert dx is not None
        assert np.abs(dx - want_x).max() <= FFT * np.abs(want_x).max()
        none, dw = call.backward(dy, x, w, u, spectra, 2, need_input=False)
        assert none is None
        assert dw is not None
        assert np.abs(dw - want_w).max() <= FFT * np.abs(want_w).max()
        call.check_guards()


def test_callers_at_once_get_what_each_gets_alone() -> None:
    """They share the object and its team of threads, and nothing else."""
    problem = Problem(("fft", 16), 4, 1, 20, 20, (20, 20), (5, 5), (2, 2), (2, 2))
    native = problem.native(str(_native.host()["isa_active"]), 2)

    def run(seed: int) -> list[np.ndarray | None]:
        call = Call(problem, native)
        x, w, dy = problem.arrays(seed)
        u = call.filters(w)
        y, spectra = call.forward(x, u, keep=True)
        return [y, *call.backward(dy, x, w, u, spectra, 2)]

    seeds = list(range(6)) * 2
    alone = [run(seed) for seed in seeds]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(run, seeds))
    for mine, theirs in zip(together, alone, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one is not None
            assert np.array_equal(one, other)


GOOD = {
    "isa": "scalar", "op": "fft", "size": 8, "images": 2, "groups": 1, "channels": (2, 3), "map": (6, 7),
    "out_map": (4, 5), "kernel": (3, 3), "padding": (0, 0), "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 10}, "no fft form of size 10 for kernels of 3 x 3"),
        ({"size": 0}, "no fft form of size 0"),
        ({"kernel": (9, 3)}, "no fft form of size 8 for kernels of 9 x 3"),
        ({"op": "winograd", "size": 3}, "no winograd form of size 3 for kernels of 3 x 3"),
        ({"op": "winograd", "size": 2, "kernel": (3, 5)}, "no winograd form of size 2 for kernels of 3 x 5"),
        ({"op": "direct"}, "no direct form of size 8"),
        ({"images": 0}, "at least 1"),
        ({"groups": -1}, "at least 1"),
        ({"channels": (0, 3)}, "at least 1"),
        ({"channels": (2, 0)}, "at least 1"),
        ({"map": (6, 0)}, "at least 1"),
        ({"out_map": (0, 5)}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"kernel": (0, 3)}, "kernel"),
        ({"padding": (0, -1)}, "padding"),
        ({"isa": "mmx"}, "mmx"),
    ],
)
def test_forms_and_extents_that_do_not_exist_are_refused(change: dict[str, Any], message: str) -> None:
    _native.TilePasses(**GOOD)
    with pytest.raises(ValueError, match=message):
        _native.TilePasses(**(GOOD | change))


def arguments(native: _native.TilePasses) -> dict[str, dict[str, Any]]:
    """Arrays of exactly the sizes that each call asks for."""
    x, w, y = (np.zeros(n, np.float32) for n in (2 * 2 * 6 * 7, 3 * 2 * 9, 2 * 3 * 4 * 5))
    u, spectra = (np.zeros(n, np.float32) for n in (native.filter_floats, 2 * native.input_floats))
    own, back = (
        np.zeros(n, np.float32) for n in (native.forward_scratch, native.backward_scratch(2, True, True, True))
    )
    return {
        "filters": {"w": w, "u": u},
        "forward": {"x": x, "u": u, "y": y, "spectra": spectra, "scratch": own},
        "backward": {
            "dy": y, "x": x, "spectra": spectra, "u": u, "dx": x.copy(), "dw": w.copy(), "at_once": 2, "scratch": back,
        },
    }  # fmt: skip


@pytest.mark.parametrize("method", ["filters", "forward", "backward"])
def test_arrays_of_a_wrong_size_or_kind_are_refused(method: str) -> None:
    native = _native.TilePasses(**GOOD)
    good = arguments(native)[method]
    call = getattr(native, method)
    call(**good)
    for name, array in good.items():
        if name == "at_once":
            continue
        short = array[:-1].copy()
        with pytest.raises(ValueError, match=f"{name} has {short.size} numbers, {array.size} are needed"):
            call(**(good | {name: short}))
        with pytest.raises(TypeError):
            call(**(good | {name: array.tolist()}))
    written = {"filters": ["u"], "forward": ["y", "spectra", "scratch"], "backward": ["dx", "dw", "scratch"]}
    for name in written[method]:
        fixed = good[name].copy()
        fixed.setflags(write=False)
        with pytest.raises(TypeError):
            call(**(good | {name: fixed}))
    if method == "backward":
        with pytest.raises(ValueError, match="dx needs u"):
            call(**(good | {"u": None}))
