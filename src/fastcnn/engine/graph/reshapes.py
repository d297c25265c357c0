"""Reshape targets that leave batch and image size open.

Entries of a target: an extent; 0, copy the same axis of the input; -2-k, copy axis k of the input; -1 (at most once),
whatever is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastcnn.engine.graph.schema import Shape


def copy_axis(target_axis: int, source_axis: int) -> int:
    """Entry of a reshape target that copies an axis of the input."""
    return 0 if target_axis == source_axis else -2 - source_axis


def open_target(asked: Sequence[int], x: Shape, out: Shape) -> list[int]:
    """Write a reshape from shape x to shape out with as few fixed extents as its meaning allows.

    Parameters
    ----------
    asked : sequence of int
        What the model passed to view or reshape; -1 stays where it is, except on the batch axis.
    x, out : tuple of int
        Shapes at the example's size.
    """
    target: list[int] = [int(n) for n in asked]
    front = 0
    while front < min(len(x), len(out)) and x[front] == out[front] and (asked[front] != -1 or front == 0):
        target[front] = 0
        front += 1
    back = 0
    while back < min(len(x), len(out)) - front and x[-1 - back] == out[-1 - back] and asked[len(out) - 1 - back] != -1:
        position = len(out) - 1 - back
        target[position] = copy_axis(position, len(x) - 1 - back)
        back += 1
    middle = range(front, len(out) - back)
    if -1 not in target and len(middle):
        if len(middle) == 1 and out[middle[0]] > 1:
            target[middle[0]] = -1
        elif front == 0:
            target[0] = -1  # the batch is merged into axis 0
    return target
