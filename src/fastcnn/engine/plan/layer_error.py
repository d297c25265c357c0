"""The errors of one layer's fast kernels, measured with its own weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn import _native
from fastcnn.engine.graph.graph import Array
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.slots import Candidate, Draft, Slot, Storage

_FILTERS = 32  # enough outputs to see the spread; packing all of VGG's would take seconds
_SIZE = 26  # rows and columns: whole and cut tiles of every form
_POINTS = 6  # the same for kernels of one pixel, whose channels can be many


class LayerErrors:
    """Errors of one layer's kernels: max|y - y_exact| / max|y_exact| on standard normal input, on a sample of outputs.

    All kernels run natively on a small map and the filters with the largest weights; the exact one is the layer's own
    direct candidate. Dilation is left out: it moves what is multiplied, not how it is rounded.
    """

    def __init__(self, draft: Draft, target: Target) -> None:
        stride = draft.attrs["stride"]
        weight = _largest(np.asarray(draft.weights["weight"]), draft.attrs["groups"])
        reach = list(weight.shape[2:])
        # A kernel that lies further out sees zeros alone.
        padding = [min(p, r - 1) for p, r in zip(draft.attrs["padding"], reach * 2, strict=True)]
        size = [max(_SIZE if max(reach) > 1 else _POINTS, r) for r in reach]
        out = [(size[i] + padding[i] + padding[2 + i] - reach[i]) // stride[i] + 1 for i in range(2)]
        self._target, self._weight = target, weight
        self._source, self._result = (1, weight.shape[1], size[0], size[1]), (1, len(weight), out[0], out[1])
        self._attrs: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": [1, 1], "groups": 1}
        self._exact = self._run(next(c for c in draft.candidates if c.exact))

    def of(self, candidate: Candidate) -> float:
        """Return the error of one of the layer's candidates."""
        top = float(np.abs(self._exact).max())
        return float(np.abs(self._run(candidate) - self._exact).max()) / top if top > 0 else 0.0

    def _run(self, candidate: Candidate) -> npt.NDArray[np.float64]:
        source, result, lanes = self._source, self._result, self._target.lanes
        net = _native.Net(self._target.isa, 1)
        blocked_in = Storage(source, True, lanes)
        blocked_in.need_border(self._attrs["padding"])
        blocked_out = Storage(result, True, lanes, offset=-(-blocked_in.floats() // 16) * 16)
        net.set_arena(blocked_out.offset + blocked_out.floats())
        slots = [
            Slot(Storage(source, False, lanes, space="input"), source, source),
            Slot(blocked_in, source, source),
            Slot(blocked_out, result, result),
            Slot(Storage(result, False, lanes, space="output"), result, result),
        ]
        native = [slot.to_native() for slot in slots]
        net.add_step("relayout", [native[0]], native[1], {}, {})
        attrs, weights = {**self._attrs, **candidate.attrs}, {"weight": self._weight}
        net.add_step(candidate.op, [native[1]], native[2], attrs, weights)
        net.add_step("relayout", [native[2]], native[3], {}, {})
        net.finish()
        y = np.empty(result, np.float32)
        net.run([np.random.default_rng(0).standard_normal(source, np.float32)], [y])
        return y.astype(np.float64)


def _largest(weight: Array, groups: int) -> Array:
    """Filters with the largest weights, all of the group that has the largest one: pruned ones say nothing."""
    top = np.abs(weight).max(axis=(1, 2, 3))
    size = len(weight) // groups
    first = int(np.argmax(top)) // size * size
    return np.ascontiguousarray(
        weight[first + np.sort(np.argsort(-top[first : first + size], kind="stable")[:_FILTERS])]
    )
