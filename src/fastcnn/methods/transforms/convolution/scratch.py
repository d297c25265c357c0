"""Memory that native passes use again from step to step.

Fresh memory of the system is zeroed page by page when it is first touched, which takes longer than what then goes
into it. So large buffers come from a small pool and go back to it when nothing refers to them any more.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MOST_IDLE_BYTES = 1 << 30
"""Idle buffers beyond this are given back to the system, the oldest first."""

_lock = threading.Lock()
_idle: list[Floats] = []


def take(floats: int) -> Floats:
    """Return at least that many floats, uninitialised; they are free again once the array and its views are gone."""
    with _lock:
        fitting = [k for k, buffer in enumerate(_idle) if floats <= buffer.size <= 2 * floats + 4096]
        buffer = _idle.pop(min(fitting, key=lambda k: _idle[k].size)) if fitting else None
    if buffer is None:
        buffer = np.empty(max(floats, 1), np.float32)
    view = buffer[:]
    weakref.finalize(view, _give_back, buffer).atexit = False
    return view


def release() -> int:
    """Give all idle buffers back to the system; returns their bytes."""
    with _lock:
        freed = sum(buffer.nbytes for buffer in _idle)
        _idle.clear()
    return freed


def _give_back(buffer: Floats) -> None:
    with _lock:
        _idle.append(buffer)
        while len(_idle) > 1 and sum(one.nbytes for one in _idle) > MOST_IDLE_BYTES:
            _idle.pop(0)
