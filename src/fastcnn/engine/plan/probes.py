"""Probes: the inputs on which a plan's error is measured, and what the exact kernels make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.limits import check_memory

PICTURES = 4
"""So many pictures at least tell a net's error: from one to the next it may double."""

LEAST_TOP = 0.01
"""Of the given pictures' largest output: errors are relative, and a made-up picture that a net hardly answers says
little about pictures that it answers."""

_COARSE = 16
"""Smooth inputs are straight from one point to the next, this many pixels apart."""


def made_up(pictures: int) -> int:
    """Return how many sets of inputs are made up beside the given one, if that holds so many pictures."""
    return max(1, math.ceil(PICTURES / max(1, pictures)) - 1)


class Probes:
    """The calibration inputs, and more of their kind, with the outputs of the exact kernels.

    A net rounds smooth maps otherwise than noise (sums of like numbers grow), and pictures are smooth where the
    examples that people plan with are often noise. So at least one smooth input stands beside the given ones, then as
    many of both kinds as make up ``PICTURES``. Where a net's exact output for one of them is not finite or very small
    (a square root of what is not negative for the given ones), it is left out.

    Parameters
    ----------
    built : Built
        With exact kernels chosen.
    inputs : sequence of ndarray
        One for each input of the net.

    Raises
    ------
    GraphError
        If this process cannot hold them.
    """

    def __init__(self, built: Built, inputs: Sequence[Array]) -> None:
        outputs = built.lowered.outputs
        sets = made_up(outputs[0][0] if outputs[0] else 1)
        floats = sum(x.size for x in inputs) + sum(math.prod(shape) for shape in outputs)
        check_memory(4 * floats * (1 + sets), "the inputs that tell this net's error")
        given = tuning.run_once(built, inputs)
        self._probes = [(list(inputs), given)]
        self.finite = all(np.isfinite(y).all() for y in given)
        """Whether the exact kernels' outputs for the given inputs are, so that others can be compared."""
        least = LEAST_TOP * min(tuning.largest(given))
        for k in range(1, 1 + sets if self.finite else 1):
            rng = np.random.default_rng(k)
            probe = [_alike(x, k % 2 == 1, rng) for x in inputs]
            exact = tuning.run_once(built, probe)
            if all(np.isfinite(y).all() for y in exact) and min(tuning.largest(exact)) >= least:
                self._probes.append((probe, exact))

    def error(self, built: Built, enough: float = math.inf) -> float:
        """Return the error of the worst picture under the kernels that are chosen now (design §5).

        The first probe that exceeds ``enough`` is the last one that is tried; the worst ones before come first.
        """
        built.net.finish()
        worst, first = 0.0, 0
        for at, (probe, exact) in enumerate(self._probes):
            error = tuning.relative_error(tuning.run_once(built, probe), exact)
            if error > worst:
                worst, first = error, at
            if error > enough:
                break
        self._probes.insert(0, self._probes.pop(first))
        return worst


def normal_inputs(shapes: Sequence[Shape]) -> list[Array]:
    """Return standard normal inputs, the same ones every time."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _alike(x: Array, smooth: bool, rng: np.random.Generator) -> Array:
    """Return noise, or a smooth field, with about the mean and deviation that x has in every channel, in its range."""
    field: Array = _smooth_noise(x.shape, rng) if smooth else rng.standard_normal(x.shape, np.float32)
    if x.min() == x.max():  # an example that stands for any: about it
        return x + field
    axes = (0, *range(2, x.ndim)) if math.prod(x.shape[2:]) > 1 else None
    if smooth and axes is not None:
        field -= field.mean(axes, keepdims=True)
        field /= np.maximum(field.std(axes, keepdims=True), np.float32(1e-6))
    # Float64 while squares are summed: theirs overflow sooner than the numbers do.
    mean, deviation = (f(axes, np.float64, keepdims=True).astype(np.float32) for f in (x.mean, x.std))
    field *= deviation
    field += mean
    np.clip(field, x.min(axes, keepdims=True), x.max(axes, keepdims=True), out=field)
    return field


def _smooth_noise(shape: Shape, rng: np.random.Generator) -> Array:
    """Return standard normal numbers at points of a coarse grid along the last axes, and straight lines between."""
    spatial = range(2, len(shape))
    coarse = [-(-n // _COARSE) + 1 if axis in spatial else n for axis, n in enumerate(shape)]
    field: Array = rng.standard_normal(coarse, np.float32)
    for axis in spatial:
        at = np.arange(shape[axis], dtype=np.float32) / _COARSE
        before = at.astype(np.intp)
        share = (at - before.astype(np.float32)).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        field = field.take(before, axis) * (1 - share) + field.take(before + 1, axis) * share
    return field
