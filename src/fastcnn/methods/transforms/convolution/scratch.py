"""Memory that native passes use again from step to step.

Fresh memory of the system is zeroed page by page when it is first touched, which takes longer than transforming what
goes into it. So large buffers come from a small pool and go back to it when nothing refers to them any more.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MOST_IDLE_BYTES = 1 << 30
"""Idle buffers beyond this are given back to the system, the oldest first."""

_SPARE_FLOATS = 4096
"""A buffer serves what is at least half as large, and whatever fits into it with so many floats left over."""

_lock = threading.Lock()
_idle: list[Floats] = []
_returned: deque[Floats] = deque()


def take(sizes: Sequence[int], *, most_idle: int | None = None) -> list[Floats]:
    """Hand out uninitialised arrays.

    Parameters
    ----------
    sizes : sequence of int
        Floats wanted of each array.
    most_idle : int, optional
        Bytes that may stay idle beside what is handed out, of all that the pool holds; the rest goes back to the system
        before anything new is taken from it. Buffers then fit exactly. None: ``MOST_IDLE_BYTES``.

    Returns
    -------
    list of ndarray, float32, shape (at least the size asked for,)
        A buffer is idle again once its array and all views of it are gone.
    """
    with _lock:
        _collect()
        found = [_fitting(floats, exactly=most_idle is not None) for floats in sizes]
        _trim(MOST_IDLE_BYTES if most_idle is None else most_idle)
    arrays = []
    for floats, buffer in zip(sizes, found, strict=True):
        kept = np.empty(max(floats, 1), np.float32) if buffer is None else buffer
        array = kept[:]
        weakref.finalize(array, _give_back, kept).atexit = False
        arrays.append(array)
    return arrays


def idle_bytes() -> int:
    """Bytes that the pool holds and nobody uses."""
    with _lock:
        _collect()
        return sum(buffer.nbytes for buffer in _idle)


def release() -> int:
    """Give all idle buffers back to the system; returns their bytes."""
    with _lock:
        _collect()
        freed = sum(buffer.nbytes for buffer in _idle)
        _idle.clear()
    return freed


def _give_back(buffer: Floats) -> None:
    # May run inside any allocation, where the garbage collector finds an array, even under the lock: so it never waits.
    _returned.append(buffer)
    if _lock.acquire(blocking=False):
        try:
            _collect()
            _trim(MOST_IDLE_BYTES)
        finally:
            _lock.release()


def _collect() -> None:
    while _returned:
        _idle.append(_returned.popleft())


def _fitting(floats: int, *, exactly: bool) -> Floats | None:
    most = floats if exactly else 2 * floats + _SPARE_FLOATS
    fitting = [k for k, buffer in enumerate(_idle) if floats <= buffer.size <= most]
    return _idle.pop(min(fitting, key=lambda k: _idle[k].size)) if fitting else None


def _trim(most: int) -> None:
    held = sum(buffer.nbytes for buffer in _idle)
    while held > most:
        held -= _idle.pop(0).nbytes


def _after_fork() -> None:
    """A child may be born while another thread of its parent holds the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
