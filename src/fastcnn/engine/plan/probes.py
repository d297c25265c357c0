"""Probes: the inputs on which a plan's error is measured, and what the exact kernels make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built

PICTURES = 4
"""So many pictures at least tell a net's error: from one to the next it may double."""

_COARSE = 16
"""Smooth inputs are straight from one point to the next, this many pixels apart."""


class Probes:
    """The calibration inputs, and more of their range, with the outputs of the exact kernels.

    A net rounds smooth maps otherwise than noise (sums of like numbers grow), and pictures are smooth where the
    examples that people plan with are often noise. So at least one smooth input stands beside the given ones, then as
    many of both kinds as make up ``PICTURES``.

    Parameters
    ----------
    built : Built
        With exact kernels chosen.
    inputs : sequence of ndarray
        One for each input of the net.
    """

    def __init__(self, built: Built, inputs: Sequence[Array]) -> None:
        pictures = max((x.shape[0] for x in inputs if x.ndim), default=1)
        sets = [list(inputs)]
        while len(sets) < 2 or len(sets) * pictures < PICTURES:
            rng = np.random.default_rng(len(sets))
            smooth = len(sets) % 2 == 1
            sets.append([_alike(x, smooth, rng) for x in inputs])
        self._probes = [(probe, tuning.run_once(built, probe)) for probe in sets]

    @property
    def finite(self) -> bool:
        """Whether the exact kernels' outputs are, so that others can be compared."""
        return all(np.isfinite(y).all() for _, outputs in self._probes for y in outputs)

    def error(self, built: Built, enough: float = math.inf) -> float:
        """Return the error of the worst picture under the kernels that are chosen now (design §5).

        The first probe that exceeds ``enough`` is the last one that is tried; the worst ones before come first.
        """
        built.net.finish()
        worst = 0.0
        for at, (probe, exact) in enumerate(self._probes):
            error = tuning.relative_error(tuning.run_once(built, probe), exact)
            if error > worst:
                worst, first = error, at
            if not error <= enough:
                break
        if worst > 0:
            self._probes.insert(0, self._probes.pop(first))
        return worst


def normal_inputs(shapes: Sequence[Shape]) -> list[Array]:
    """Return standard normal inputs, the same ones every time."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _alike(x: Array, smooth: bool, rng: np.random.Generator) -> Array:
    """Return noise, or a smooth field, with the mean, deviation and range that x has in every channel."""
    field = _smooth_noise(x.shape, rng) if smooth else rng.standard_normal(x.shape, np.float32)
    axes = (0, *range(2, x.ndim)) if x.ndim > 2 else None
    mean, deviation = x.mean(axes, np.float64, keepdims=True), x.std(axes, np.float64, keepdims=True)
    low, high = x.min(axes, keepdims=True, initial=np.inf), x.max(axes, keepdims=True, initial=-np.inf)
    alike: Array = np.clip(mean + deviation * field, low, high).astype(np.float32)
    return alike


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
