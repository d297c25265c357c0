"""Layers converted without an input size: measured time decides in their first call."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

from fastcnn.methods.transforms.convolution.measure import Timing

UNDECIDED = "undecided: timed in its first call"
MAX_SIZES = 8
"""Sizes of the map that a layer is timed at in one setting; a further size goes by the one of most similar area."""


class FirstCalls:
    """What the calls of one layer decided, by (height, width, setting); travels with copies and pickles.

    ``chosen`` says in words how the last timing ended.
    """

    def __init__(self) -> None:
        self.chosen = UNDECIDED
        self._direct: dict[tuple[int, int, Hashable], bool] = {}

    def is_direct(self, height: int, width: int, setting: Hashable, time: Callable[[], Timing]) -> bool:
        """Whether to convolve directly; runs ``time`` where nothing is known of the size in this setting.

        It runs in a thread of its own, which knows nothing of the caller's grad mode, autocast, hooks and modes.
        """
        key = (height, width, setting)
        if key in self._direct:
            return self._direct[key]
        known = [other for other in self._direct if other[2] == setting]
        if len(known) >= MAX_SIZES:
            return self._direct[min(known, key=lambda other: abs(other[0] * other[1] - height * width))]
        try:
            with ThreadPoolExecutor(1) as thread:
                timing = thread.submit(time).result()
        except ValueError as error:
            direct, self.chosen = True, f"convolves directly: {error}"
        else:
            direct = timing.ours_ms >= timing.dense_ms
            self.chosen = (
                f"convolves directly: it is no faster: {timing}" if direct else f"measured in its first call, {timing}"
            )
        self._direct[key] = direct
        return direct
