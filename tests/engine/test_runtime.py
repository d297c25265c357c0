"""The executor: no allocation, memory plan, concat without copies, errors, dispatch, plans as text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn import _native
from fastcnn.engine.graph import Graph, GraphError
from fastcnn.engine.plan import tune
from fastcnn.engine.plan.build import Built, step_arguments
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.make import SAFETY
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import DIRECT, ISAS, Maker, compiled, error_of, inputs_for, native

HERE = Path(__file__).parent


def residual_net(size: int = 20) -> Graph:
    """A stem, a residual block, a depthwise block, a concat, a pool and a head."""
    make = Maker(0, (1, 3, size, size))
    x = make.op("relu", make.conv("x0", 3, 24, stride=2))
    y = make.op("relu", make.conv(x, 24, 24))
    x = make.op("relu", make.op("add", make.conv(y, 24, 24), x))
    d = make.op("silu", make.conv(x, 24, 24, groups=24))
    x = make.op("concat", x, d, dim=1)
    x = make.op("mean", make.conv(x, 48, 32, 1), dims=[2, 3], keepdim=False)
    return make.graph(make.op("linear", x, params={"weight": make.normal(10, 32)}))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_net_of_everything(isa: str, threads: int) -> None:
    for size in (1, 7, 20, 33):
        graph = residual_net(size)
        assert error_of(compiled(graph, isa, threads), inputs_for(graph)) <= 1e-5


def test_threads_do_not_change_a_bit() -> None:
    graph = residual_net(29)
    x = inputs_for(graph)
    isa = str(_native.host()["isa_active"])
    outputs = [compiled(graph, isa, threads, exact=True).run(x)[0] for threads in (1, 2, 3, 4)]
    assert all(np.array_equal(outputs[0], y) for y in outputs)


def test_a_long_way_to_the_next_weights() -> None:
    """A convolution looks ahead past a hundred thousand steps that have none."""
    make = Maker(0, (1, 16, 8, 8))
    y = make.op("sigmoid", make.op("add_scalar", make.conv("x0", 16, 16, 1), value=1.0))
    graph = make.graph(
        make.conv(make.op("resize", y, size=[9, 9], scale=None, mode="nearest", align_corners=False), 16, 16, 1)
    )
    built = native(compiled(graph, "scalar"))
    net = _native.Net("scalar", 1)
    net.set_arena(built.arena_floats)
    repeated = 0
    for draft, candidate in zip(built.lowered.drafts, built.chosen, strict=True):
        again = 100_000 if draft.op == "resize" else 1
        repeated += again > 1
        for _ in range(again):
            net.add_step(*step_arguments(draft, candidate))
    assert repeated == 1
    net.finish()
    x = inputs_for(graph)
    y = [np.full(shape, np.nan, np.float32) for shape in built.lowered.outputs]
    net.run(x, y)
    assert np.array_equal(y[0], compiled(graph, "scalar").run(x)[0])


def test_run_allocates_nothing(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "this test needs a C compiler"
    library = tmp_path / "allocations.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, HERE / "allocations.c"], check=True)
    script = (
        "import numpy as np\n"
        "from tests.engine.nets import compiled, inputs_for, native\n"
        "from tests.engine.test_runtime import residual_net\n"
        "from fastcnn import _native\n"
        "graph = residual_net(33)\n"
        "for threads in (1, 2):\n"
        "    net = compiled(graph, _native.host()['isa_active'], threads)\n"
        "    y = [np.empty((1, 10), np.float32)]\n"
        "    native(net).net.run(inputs_for(graph), y)\n"
        "    print(native(net).net.count_allocations(inputs_for(graph), y, 100))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "LD_PRELOAD": str(library)}, cwd=HERE.parents[1], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0"]


def test_arena_is_near_its_lower_bound() -> None:
    plan = compiled(residual_net(64), "scalar").plan
    assert plan.arena_lower_bound <= plan.arena_bytes <= 1.1 * plan.arena_lower_bound + 8192


def test_concat_of_whole_blocks_copies_nothing() -> None:
    make = Maker(0, (2, 16, 9, 9))
    a = make.op("relu", make.conv("x0", 16, 32, 1))
    b = make.op("relu", make.conv("x0", 16, 16))
    c = make.op("concat", a, b, dim=1)
    d = make.op("concat", c, make.conv(c, 48, 16), dim=1)
    parts = [make.op("slice", d, dim=1, start=0, end=32, step=1), make.op("slice", d, dim=1, start=32, end=64, step=1)]
    y = make.op("add", make.conv(parts[0], 32, 8), make.conv(parts[1], 32, 8))
    graph = make.graph(y)
    for isa in ISAS:
        net = compiled(graph, isa, 2)
        assert not [s.kernel for s in net.plan.steps if s.kernel == "copy_region"]
        assert error_of(net, inputs_for(graph)) <= 1e-5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("widths", [(5, 7), (8, 3, 8), (16, 1, 16), (17, 16)])
def test_concat_and_slices_at_any_boundary(isa: str, widths: tuple[int, ...]) -> None:
    make = Maker(0, (2, 6, 7, 5))
    parts = [make.op("relu", make.conv("x0", 6, width)) for width in widths]
    whole = make.op("concat", *parts, parts[0], dim=1)
    total = sum(widths) + widths[0]
    cut = make.op("slice", whole, dim=1, start=3, end=total - 1, step=1)
    rows = make.op("slice", make.op("slice", cut, dim=2, start=1, end=None, step=2), dim=3, start=0, end=4, step=1)
    padded = make.op("pad", rows, pads=[[0, 0], [2, 1], [1, 0], [0, 2]], value=0.5)
    graph = make.graph(make.conv(padded, total - 4 + 3, 9), whole)
    assert error_of(compiled(graph, isa, 2), inputs_for(graph)) <= 1e-5


@pytest.mark.parametrize("isa", ISAS)
def test_plain_tensors_of_any_rank(isa: str) -> None:
    make = Maker(0, (2, 12, 4, 6))
    x = make.op("relu", make.conv("x0", 12, 12))
    shuffled = make.op("reshape", x, shape=[0, 3, 4, 4, 6])
    shuffled = make.op("reshape", make.op("permute", shuffled, dims=[0, 2, 1, 3, 4]), shape=[0, 12, 4, 6])
    y = make.conv(shuffled, 12, 7)
    tokens = make.op("permute", make.op("reshape", y, shape=[0, 7, -1]), dims=[0, 2, 1])
    z = make.op("linear", tokens, params={"weight": make.normal(5, 7)})
    z = make.op("softmax", z, dim=1)
    last = make.op("concat", z, make.op("slice", z, dim=2, start=1, end=3, step=1), dim=2)
    graph = make.graph(last, make.op("pad", tokens, pads=[[0, 0], [1, 2], [0, 1]], value=-1.0), y)
    assert error_of(compiled(graph, isa, 2), inputs_for(graph)) <= 1e-5


class RandomDag:
    """Maps of one net that read each other in every way the planner aliases: concat, slice, residual, rename."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.make = Maker(draw(st.integers(0, 99)), (draw(st.integers(1, 2)), draw(st.sampled_from([3, 10, 16])), 7, 6))
        self.maps = [("x0", self.make.inputs[0].shape[1])]

    def pick(self) -> tuple[str, int]:
        return self.maps[self.draw(st.integers(max(0, len(self.maps) - 4), len(self.maps) - 1))]

    def step(self) -> None:
        make, (x, c) = self.make, self.pick()
        kind = self.draw(st.sampled_from(["conv", "conv", "same", "concat", "concat", "slice", "add", "div", "pool"]))
        if kind == "conv":
            out = self.draw(st.sampled_from([5, 8, 10, 16, 24]))
            k = self.draw(st.sampled_from([1, 3]))
            self.maps.append((make.op("relu", make.conv(x, c, out, k)), out))
        elif kind == "same":
            self.maps.append((make.op("sigmoid", x), c))
        elif kind == "concat":
            others = [(x, c)] + [self.pick() for _ in range(self.draw(st.integers(1, 2)))]
            self.maps.append((make.op("concat", *(v for v, _ in others), dim=1), sum(n for _, n in others)))
        elif kind == "slice" and c > 1:
            start = self.draw(st.integers(0, c - 1))
            self.maps.append((make.op("slice", x, dim=1, start=start, end=None, step=1), c - start))
        elif kind == "add":
            self.maps.append((make.op("add", make.conv(x, c, c), x), c))
        elif kind == "div":
            self.maps.append((make.op("div", x, make.op("add_scalar", make.op("sigmoid", x), value=0.5)), c))
        elif kind == "pool":
            padded = make.op("pad", x, pads=[[0, 0], [0, 0], [1, 1], [1, 1]], value=-1e9)
            self.maps.append((make.op("max_pool2d", padded, kernel_size=[3, 3], stride=[1, 1], padding=[0] * 4,
                                      dilation=[1, 1], ceil_mode=False), c))  # fmt: skip

    def graph(self) -> Graph:
        for _ in range(self.draw(st.integers(2, 9))):
            self.step()
        last, c = self.maps[-1]
        return self.make.graph(self.make.conv(last, c, 9), self.pick()[0])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), threads=st.integers(1, 2))
def test_random_dags(isa: str, data: st.DataObject, threads: int) -> None:
    graph = RandomDag(data.draw).graph()
    assert error_of(compiled(graph, isa, threads, exact=True), inputs_for(graph)) <= 1e-5


def test_concat_keeps_what_the_first_step_made() -> None:
    make = Maker(0, (1, 16, 9, 9))
    x = make.conv("x0", 16, 16, 1)
    y = make.op("relu", make.conv(make.op("relu", make.conv(make.op("relu", make.conv(x, 16, 16)), 16, 16)), 16, 16))
    graph = make.graph(make.op("concat", x, y, dim=1))
    for isa in ISAS:
        assert error_of(compiled(graph, isa, 1, exact=True), inputs_for(graph)) <= 1e-5


@pytest.mark.parametrize("parts", ["abc", "abb", "aab", "bab"])
def test_borders_behind_a_concat(parts: str) -> None:
    make = Maker(0, (1, 8, 9, 9))
    width = {"a": 16, "b": 10, "c": 6}
    maps = {letter: make.op("relu", make.conv("x0", 8, n)) for letter, n in width.items()}
    whole = make.op("concat", *(maps[p] for p in parts), dim=1)
    graph = make.graph(make.conv(whole, sum(width[p] for p in parts), 8))
    for isa in ISAS:
        assert error_of(compiled(graph, isa, 2, exact=True), inputs_for(graph)) <= 1e-5


def test_one_nan_picture_spoils_no_other() -> None:
    make = Maker(0, (1, 10, 5, 5))
    parts = [make.op("relu", make.conv("x0", 10, 10, 1)) for _ in range(2)]
    graph = make.graph(make.conv(make.op("concat", *parts, dim=1), 20, 8))
    for isa in ISAS:
        net = compiled(graph, isa)
        clean = net.run(inputs_for(graph))[0]
        net.run([np.full((1, 10, 5, 5), np.nan, np.float32)])
        assert np.array_equal(net.run(inputs_for(graph))[0], clean)


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_tiny_maps_of_wide_layers(size: int) -> None:
    make = Maker(0, (1, 64, size, size))
    graph = make.graph(make.conv("x0", 64, 64, padding=[0] * 4))
    for isa in ISAS:
        assert error_of(compiled(graph, isa), inputs_for(graph)) <= 1e-4


def test_native_nets_check_arrays_and_isa() -> None:
    net = compiled(residual_net(20), "scalar")
    with pytest.raises(ValueError, match="smaller than the plan"):
        native(net).net.run([np.zeros((1, 3, 19, 20), np.float32)], [np.zeros((1, 10), np.float32)])
    with pytest.raises(ValueError, match="too few output"):
        native(net).net.run(inputs_for(net.graph), [])
    for isa in ("avx512_vnni", "avx512", "avx2"):
        if isa not in ISAS:
            with pytest.raises(ValueError, match="cannot run"):
                _native.Net(isa, 1)


def test_a_plan_larger_than_the_machine_is_refused() -> None:
    make = Maker(0, (1, 16, 20000, 20000))
    graph = make.graph(make.conv(make.op("relu", make.conv("x0", 16, 16)), 16, 16))
    with pytest.raises(GraphError, match="GiB"):
        compiled(graph, "scalar", exact=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_buffers_take_little_more_than_they_hold() -> None:
    """A hundred of a little over two megabytes: not two huge pages each, nor twice their number in any other way."""
    script = (
        "from fastcnn import _native\n"
        "def held():\n"
        "    with open('/proc/self/statm') as file:\n"
        "        return 4096 * int(file.read().split()[1])\n"
        "before, nets = held(), []\n"
        "for _ in range(100):\n"
        "    nets.append(_native.Net('scalar', 1))\n"
        "    nets[-1].set_arena((2 << 20) // 4 + 1000)\n"
        "    nets[-1].finish()\n"
        "print(held() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 100 << 21 <= int(done.stdout) <= 1.125 * (100 << 21)


def test_outputs_may_be_inputs_and_repeat() -> None:
    make = Maker(0, (1, 4, 3, 3))
    y = make.op("relu", "x0")
    graph = make.graph("x0", y, y)
    assert error_of(compiled(graph, "scalar"), inputs_for(graph)) == 0


def test_wrong_inputs_are_refused() -> None:
    net = compiled(residual_net(20), "scalar")
    x = np.zeros((1, 3, 20, 20), np.float32)
    with pytest.raises(TypeError, match="float64"):
        net(x.astype(np.float64))
    with pytest.raises(TypeError, match="list"):
        net([1.0])
    with pytest.raises(ValueError, match=r"\(3, 20, 20\)"):
        net(x[0])
    with pytest.raises(ValueError, match="4"):
        net(np.zeros((1, 4, 20, 20), np.float32))
    with pytest.raises(ValueError, match="empty"):
        net(x[:0])
    with pytest.raises(ValueError, match="takes 1 input"):
        net(x, x)
    with pytest.raises(GraphError):
        CompiledNet(residual_net(20), make_target("scalar", 1), tolerance=1e-4, exact=True, how="heuristic").plan_for(
            (1, 3, -2, 20)
        )


def test_isa_cap_and_wrong_words() -> None:
    def run(cap: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from fastcnn import _native; print(_native.host()['isa_active'])"],
            env={**os.environ, "FASTCNN_ISA": cap}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert run("scalar").stdout.strip() == "scalar"
    detected = str(_native.host()["isa_detected"])
    assert run("avx512_amx").stdout.strip() == detected  # a cap, not a wish
    assert "choose scalar, avx2" in run("sse9").stderr


def test_plan_prints_layer_kernel_why_error_ms() -> None:
    graph = residual_net(32)
    target = make_target(str(_native.host()["isa_active"]), 1)
    os.environ["FASTCNN_CACHE"], before = "", os.environ.get("FASTCNN_CACHE")
    try:
        net = CompiledNet(graph, target, tolerance=1e-4, exact=False, how="tune")
    finally:
        del os.environ["FASTCNN_CACHE"]
        if before is not None:
            os.environ["FASTCNN_CACHE"] = before
    text = str(net.plan)
    assert text.splitlines()[0].split() == ["layer", "kernel", "why", "error", "ms", "GMAC/s"]
    assert re.search(r"fastest of \d", text)
    assert net.plan.total_ms is not None
    assert net.plan.error is not None
    assert net.plan.error <= 1e-4
    assert net.plan.to_json()["steps"][0]["kernel"].startswith("relayout")


@pytest.mark.parametrize("how", ["heuristic", "tune"])
def test_a_tight_tolerance_drops_winograd(how: Literal["heuristic", "tune"], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the more exact kernel was never timed."""
    monkeypatch.setenv("FASTCNN_CACHE", "")

    def winograd_is_fast(built: Built, *_: Any) -> np.ndarray:
        return np.array([0.1 if "winograd" in built.net.kernel(i) else 1.0 for i in range(built.net.steps)])

    monkeypatch.setattr(tune, "typical", winograd_is_fast)
    make = Maker(0, (1, 64, 24, 24))
    graph = make.graph(make.conv(make.op("relu", make.conv("x0", 64, 64)), 64, 64))
    target = make_target(str(_native.host()["isa_active"]), 1)
    loose = CompiledNet(graph, target, tolerance=1e-3, exact=False, how=how)
    assert any(s.error is not None for s in loose.plan.steps)
    error = loose.plan.error
    assert error is not None
    tight = CompiledNet(graph, target, tolerance=error, exact=False, how=how)
    assert tight.plan.error is not None
    assert tight.plan.error <= error * SAFETY
    strict = CompiledNet(graph, target, tolerance=3e-6, exact=False, how=how)
    assert strict.plan.error is not None
    assert strict.plan.error <= 3e-6 * SAFETY
    assert any("exceeded the error budget" in note for note in tight.plan.notes)


def test_a_net_that_does_nothing_gives_back_its_input(tmp_path: Path) -> None:
    net = fastcnn.compile(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Dropout()).eval(), torch.zeros(1, 3, 4, 4))
    x = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4)
    assert np.array_equal(net(x), x)
    net.save(tmp_path / "nothing.fcnn")
    assert np.array_equal(fastcnn.load(tmp_path / "nothing.fcnn")(x), x)


def test_a_budget_nothing_on_the_sample_can_judge() -> None:
    """Filters pruned to zero, and transforms that overflow: planning ends, with exact kernels where need be."""
    for value in (0.0, 3e38):
        make = Maker(7, (1, 32, 20, 20))
        layer = make.conv("x0", 32, 64, bias=False)
        graph = make.graph(make.conv(layer, 64, 64))
        graph.weights[f"{layer}.weight"][:32] = value
        target = make_target(str(_native.host()["isa_active"]), 1)
        net = CompiledNet(graph, target, tolerance=2.5e-6, exact=False, how="heuristic")
        assert net.plan.error is None or net.plan.error <= 1.25e-6


def test_the_error_of_a_layer_with_pruned_filters_is_seen() -> None:
    make = Maker(8, (1, 32, 24, 24))
    layer = make.conv("x0", 32, 96)
    graph = make.graph(layer)
    graph.weights[f"{layer}.weight"][:64] = 0.0
    target = make_target(str(_native.host()["isa_active"]), 1)
    net = CompiledNet(graph, target, tolerance=1e-3, exact=False, how="heuristic")
    assert [s.error > 0 for s in net.plan.steps if s.error is not None] == [True]


def test_planning_a_new_shape_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with a known shape go on meanwhile; two that want the same new one share the work."""
    net = CompiledNet(residual_net(), make_target("scalar", 1), tolerance=1e-4, exact=True, how="heuristic")
    begun, go_on, made = threading.Event(), threading.Event(), []
    plan = net._make

    def slow(shapes: tuple[tuple[int, ...], ...], *rest: Any) -> Any:
        made.append(shapes)
        begun.set()
        assert go_on.wait(60)
        return plan(shapes, *rest)

    monkeypatch.setattr(net, "_make", slow)
    x = np.ones((2, 3, 20, 20), np.float32)
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(net, x) for _ in range(2)]
        assert begun.wait(60)
        assert net(x[:1]).shape == (1, 10)
        go_on.set()
        first, second = (future.result(60) for future in waiting)
    assert np.array_equal(first, second)
    assert made == [((2, 3, 20, 20),)]


def test_a_plan_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = CompiledNet(residual_net(), make_target("scalar", 1), tolerance=1e-4, exact=True, how="heuristic")
    x = np.ones((2, 3, 20, 20), np.float32)
    with monkeypatch.context() as broken:
        broken.setattr(net, "_make", lambda *_: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                net(x)
    assert net(x).shape == (2, 10)


def test_a_fork_after_use_does_not_hang() -> None:
    script = (
        "import os, numpy as np\n"
        "from tests.engine.nets import compiled, inputs_for\n"
        "from tests.engine.test_runtime import residual_net\n"
        "net = compiled(residual_net(20), 'scalar', 3)\n"
        "x = inputs_for(net.graph)\n"
        "y = net.run(x)[0]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(net.run(x)[0], y) else 1)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=HERE.parents[1], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize("callers", [3, 24])
def test_forks_while_other_threads_run(callers: int) -> None:
    """A child must not wait for locks, workspaces, workers or waiting threads that only its parent has."""
    script = (
        "import os, sys, threading, numpy as np\n"
        "from tests.engine.nets import compiled, inputs_for\n"
        "from tests.engine.test_runtime import residual_net\n"
        "CALLERS = int(sys.argv[1])\n"
        "net = compiled(residual_net(20), 'scalar', 2)\n"
        "x = inputs_for(net.graph)\n"
        "y = net.run(x)[0]\n"
        "over = threading.Event()\n"
        "def busy():\n"
        "    while not over.is_set():\n"
        "        net.run(x)\n"
        "def together(wrong):\n"
        "    for _ in range(3):\n"
        "        if not np.array_equal(net.run(x)[0], y): wrong.append(1)\n"
        "def child():\n"
        "    wrong = []\n"
        "    threads = [threading.Thread(target=together, args=(wrong,)) for _ in range(CALLERS)]\n"
        "    for thread in threads: thread.start()\n"
        "    for thread in threads: thread.join()\n"
        "    os._exit(1 if wrong else 0)\n"
        "callers = [threading.Thread(target=busy) for _ in range(CALLERS)]\n"
        "for thread in callers: thread.start()\n"
        "codes = []\n"
        "for _ in range(60 // CALLERS):\n"
        "    made = os.fork()\n"
        "    if made == 0: child()\n"
        "    codes.append(os.waitpid(made, 0)[1])\n"
        "over.set()\n"
        "for thread in callers: thread.join()\n"
        "print(sum(code != 0 for code in codes))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(callers)], cwd=HERE.parents[1], capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "0", done.stderr


def test_steps_say_what_is_missing() -> None:
    net = _native.Net("scalar", 1)
    tensor = {
        "space": "arena", "index": 0, "offset": 0, "dims": [1, 8, 4, 4], "blocked": True, "border": [0, 0, 0, 0],
        "nchw": [1, 8, 4, 4], "image": 0, "rows": 0, "element": "float",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no step 'nonsense'"):
        net.add_step("nonsense", [tensor], tensor, {}, {})
    with pytest.raises(ValueError, match="'stride'"):
        net.add_step("direct", [tensor], tensor, {}, {"weight": np.zeros((8, 8, 1, 1), np.float32)})
    with pytest.raises(ValueError, match="threads"):
        _native.Net("scalar", 0)


def test_native_memory_is_reused() -> None:
    net = compiled(residual_net(40), "scalar")
    built = native(net)
    assert built.net.arena_bytes == net.plan.arena_bytes
    whole = sum(s.floats() for s in built.lowered.storages if s.parent is None) * 4
    assert net.plan.arena_bytes < 0.8 * whole


def test_exactness_of_exact() -> None:
    graph = residual_net(30)
    net = compiled(graph, str(_native.host()["isa_active"]), 2, exact=True)
    assert all(s.error is None for s in net.plan.steps)
    assert error_of(net, inputs_for(graph)) <= DIRECT
