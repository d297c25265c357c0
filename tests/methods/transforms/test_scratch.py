"""The pool of native passes: what it hands out again, what it keeps, and that it never waits for itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fastcnn.methods.transforms.convolution import scratch


@pytest.fixture(autouse=True)
def _empty_pool() -> Iterator[None]:
    scratch.release()
    yield
    scratch.release()


def address(array: scratch.Floats) -> int:
    return int(array.ctypes.data)


def test_a_buffer_comes_back_when_its_last_view_is_gone() -> None:
    (array,) = scratch.take([10_000])
    view = torch.from_numpy(array)[5:10].view(5, 1)
    where = address(array)
    del array
    assert scratch.idle_bytes() == 0
    del view
    assert scratch.idle_bytes() == 40_000
    (again,) = scratch.take([6_000])
    assert address(again) == where
    assert again.size == 10_000
    assert scratch.idle_bytes() == 0


def test_the_closest_fit_is_taken_and_nothing_twice_too_large() -> None:
    sizes = [100_000, 30_000, 50_000]
    arrays = scratch.take(sizes)
    where = dict(zip(sizes, map(address, arrays), strict=True))
    del arrays
    (array,) = scratch.take([28_000])
    assert address(array) == where[30_000]
    (other,) = scratch.take([20_000])
    assert address(other) not in where.values()
    assert other.size == 20_000


def test_arrays_of_one_call_do_not_overlap() -> None:
    first = scratch.take([1000, 1000, 1000])
    del first
    for index, array in enumerate(arrays := scratch.take([1000, 900, 0, 1000])):
        array.fill(index)
    assert [np.unique(array).tolist() for array in arrays] == [[0], [1], [2], [3]]


def test_a_limit_holds_before_anything_new_is_taken() -> None:
    first, second, third = scratch.take([1_000_000, 500_000, 1000])
    del first
    del second
    del third
    assert scratch.idle_bytes() == 4 * 1_501_000
    (array,) = scratch.take([900_000], most_idle=2_100_000)
    assert array.size == 900_000, "a cap wants buffers that fit exactly"
    assert scratch.idle_bytes() == 4 * 501_000
    (exact,) = scratch.take([500_000], most_idle=0)
    assert exact.size == 500_000
    assert scratch.idle_bytes() == 0


def test_idle_buffers_are_bounded_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MOST_IDLE_BYTES", 100_000)
    first, second, third = scratch.take([10_000, 10_001, 10_002])
    large = scratch.take([1_000_000])
    del first, second, third
    assert scratch.idle_bytes() == 4 * (10_001 + 10_002)
    del large
    assert scratch.idle_bytes() == 0, "what alone is too large is not kept"


def test_release_says_what_it_freed() -> None:
    del (arrays := scratch.take([1000, 2000]))[:]
    assert scratch.release() == 12_000
    assert scratch.release() == 0
    assert arrays == []


def test_an_array_may_die_while_the_pool_is_locked() -> None:
    """As it does when the garbage collector runs inside the pool; it would wait for ever."""
    arrays = scratch.take([1000])

    def drop() -> None:
        with scratch._lock:
            arrays.clear()

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert scratch.idle_bytes() == 4000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_under_the_lock_has_its_own() -> None:
    with scratch._lock:
        child = os.fork()
        if not child:
            free = scratch._lock.acquire(timeout=5)
            os._exit(0 if free else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
