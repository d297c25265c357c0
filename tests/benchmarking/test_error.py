"""The error of a net, against its definition written out."""

from __future__ import annotations

import numpy as np
import pytest

from fastcnn.benchmarking import relative_error


def test_it_is_the_worst_picture_over_its_own_largest_output() -> None:
    exact = np.array([[1.0, -4.0], [0.5, 0.25]])
    outputs = np.array([[1.0, -4.1], [0.5, 0.30]], np.float32)
    worst = 0.0
    for y, y64 in zip(outputs.astype(np.float64), exact, strict=True):
        worst = max(worst, max(abs(a - b) for a, b in zip(y, y64, strict=True)) / max(abs(b) for b in y64))
    assert relative_error(outputs, exact) == pytest.approx(worst)
    assert worst == pytest.approx(0.1, rel=1e-5)


def test_special_values() -> None:
    exact = np.zeros((1, 3))
    assert relative_error(np.zeros((1, 3), np.float32), exact) == 0
    assert relative_error(np.array([[0, 1e-9, 0]], np.float32), exact) == np.inf
    assert relative_error(np.array([[0, np.nan, 0]], np.float32), np.ones((1, 3))) == np.inf


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        relative_error(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="nothing to compare"):
        relative_error(np.zeros((0, 3)), np.zeros((0, 3)))
