"""Teams of threads: they sleep when idle, share cores without coming to a halt, and serve several nets at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import compiled, inputs_for
from tests.engine.test_runtime import residual_net

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0))
SECONDS_PER_STEP = 1e-3
"""A thread that waits without giving up its core spends its time slice, some milliseconds, at every step. Time of the
process, not of the clock: others may use the cores too."""


def tasks() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def cpu_seconds(task: int) -> float:
    """What a thread has spent; Linux makes the clock of a thread from its number (include/linux/posix-timers.h)."""
    return time.clock_gettime(~task << 3 | 6)


def switches(task: int) -> str:
    """How often a thread went to sleep or was interrupted."""
    lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    return " ".join(line.split()[1] for line in lines if "ctxt_switches" in line)


def stays_asleep(workers: set[int], seconds: float) -> bool:
    before = {worker: (cpu_seconds(worker), switches(worker)) for worker in workers}
    time.sleep(seconds)
    return before == {worker: (cpu_seconds(worker), switches(worker)) for worker in workers}


def in_a_process(statement: str) -> None:
    """In one without other teams and their threads."""
    script = f"import os\nfrom tests.engine import test_threads\n{statement}\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def check_sleep(threads: int) -> None:
    """Workers asleep within a millisecond can spend one on each core; and asleep, they do not so much as look up."""
    before = tasks()
    net = compiled(residual_net(20), "scalar", threads)
    x = inputs_for(net.graph)
    net.run(x)
    workers = tasks() - before
    assert len(workers) == threads - 1
    spent = []
    for _ in range(10):
        net.run(x)
        start = sum(map(cpu_seconds, workers))
        time.sleep(0.03)
        spent.append(sum(map(cpu_seconds, workers)) - start)
    assert sorted(spent)[5] < 1e-3 * min(len(workers), CORES), spent
    assert any(stays_asleep(workers, 0.2) for _ in range(10))  # beside other work some are still on their way to bed


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", [2, 7])
def test_idle_workers_sleep_and_cost_nobody_anything(threads: int) -> None:
    in_a_process(f"test_threads.check_sleep({threads})")


def least_seconds(call: Callable[[], object], enough: float) -> float:
    """Of the best call: up to 400 of them, until one takes little enough. Beside other work most of them wait."""
    least = float("inf")
    for _ in range(400):
        start = time.process_time()
        call()
        least = min(least, time.process_time() - start)
        if least < enough:
            break
    return least


def check_a_crowd(threads: int) -> None:
    """Right, and not catastrophically slow."""
    graph = residual_net(20)
    x = inputs_for(graph)
    net = compiled(graph, "scalar", threads, exact=True)
    assert np.array_equal(net.run(x)[0], compiled(graph, "scalar", 1, exact=True).run(x)[0])
    limit = len(net.plan.steps) * SECONDS_PER_STEP
    assert least_seconds(lambda: net.run(x), limit) < limit


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned here")
@pytest.mark.parametrize(("threads", "cores"), [(8, 2), (2, 1)])
def test_more_threads_than_cores(threads: int, cores: int) -> None:
    pin = f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])"
    in_a_process(f"{pin}\ntest_threads.check_a_crowd({threads})")


def test_several_nets_from_several_python_threads() -> None:
    """On one team, on another, and on none."""
    nets: list[tuple[CompiledNet, list[np.ndarray], np.ndarray]] = []
    for size, threads in ((20, 2), (29, 2), (33, 3), (24, 1)):
        net = compiled(residual_net(size), "scalar", threads)
        x = inputs_for(net.graph, seed=size)
        nets.append((net, x, net.run(x)[0]))
    begin = threading.Barrier(2 * len(nets), timeout=60)

    def calls(which: int) -> int:
        net, x, expected = nets[which % len(nets)]
        begin.wait()
        return sum(not np.array_equal(net.run(x)[0], expected) for _ in range(200))

    with ThreadPoolExecutor(2 * len(nets)) as pool:
        assert sum(pool.map(calls, range(2 * len(nets)))) == 0


def test_new_shapes_are_planned_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While calls with known shapes run on; callers of one shape share its plan."""
    net = compiled(residual_net(20), "scalar", exact=True)
    make, known = CompiledNet._make, inputs_for(net.graph)
    expected, planned, at_once = net.run(known)[0], [], []
    making, busy, go = threading.Lock(), threading.Event(), threading.Event()

    def slow(self: CompiledNet, shapes: tuple[tuple[int, ...], ...], *rest: Any) -> Any:
        at_once.append(making.acquire(blocking=False))
        busy.set()
        assert go.wait(60)
        made = make(self, shapes, *rest)
        planned.append(shapes)
        making.release()
        return made

    monkeypatch.setattr(CompiledNet, "_make", slow)
    sizes = [17, 18, 19, 21, 17, 18]
    with ThreadPoolExecutor(len(sizes)) as pool:
        calls = [pool.submit(net.run, [np.ones((1, 3, n, n), np.float32)]) for n in sizes]
        assert busy.wait(60)
        assert np.array_equal(net.run(known)[0], expected)
        assert not planned
        go.set()
        shapes = [call.result(60)[0].shape for call in calls]
    assert shapes == [(1, 10)] * len(sizes)
    assert at_once == [True] * 4
    assert len(planned) == len(set(planned)) == 4
