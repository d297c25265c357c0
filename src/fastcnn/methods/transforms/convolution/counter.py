"""Count what the engine transforms, so that its reuses can be seen and tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class TransformCounter:
    """Two-dimensional transforms done while counting, one per tile and channel (or per kernel).

    Attributes
    ----------
    kernel, input, gradient : int
        From weights, input tiles, and tiles of the output's gradient, into the transform domain.
    output, input_adjoint, kernel_adjoint : int
        Out of it, into outputs, gradients of input tiles, and gradients of weights.
    kept_bytes : int
        Spectra that a forward pass handed to its backward pass.
    """

    kernel: int = 0
    input: int = 0
    gradient: int = 0
    output: int = 0
    input_adjoint: int = 0
    kernel_adjoint: int = 0
    kept_bytes: int = 0


_ACTIVE: list[TransformCounter] = []


@contextmanager
def count_transforms() -> Iterator[TransformCounter]:
    """Count transforms inside the block, of every layer and thread.

    Examples
    --------
    >>> with count_transforms() as counter:
    ...     pass
    >>> counter.kernel
    0
    """
    counter = TransformCounter()
    _ACTIVE.append(counter)
    try:
        yield counter
    finally:
        _ACTIVE.remove(counter)


def count(what: str, number: int) -> None:
    """Add to every active counter."""
    for counter in _ACTIVE:
        setattr(counter, what, getattr(counter, what) + number)
