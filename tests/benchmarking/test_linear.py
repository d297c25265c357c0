"""Structured linear layers against the dense one: what is compared, and a small run of the real thing."""

from __future__ import annotations

from typing import Any

import pytest

from fastcnn.benchmarking import linear
from fastcnn.benchmarking.linear import HALF, Case, measure, table


def _never() -> Any:
    raise AssertionError


def row(ours: list[float], *, half: list[float], error: float = 1e-6, goal: float | None = 0.2) -> dict[str, Any]:
    """Of a case with these times, beside dense layers of 1.0 (torch) and 0.5, 0.4, 0.5 (ours)."""
    times = {state: {"x": ours, "torch": [1.0] * 3, "fastcnn": [0.5, 0.4, 0.5], HALF: half} for state in linear.STATES}
    case = Case(name="x", batch=1, goal=goal, layer=_never)
    return linear._row(case, times, ["fastcnn", HALF, "torch"], {"x": error, "torch": 0, "fastcnn": 0, HALF: 0})


def test_ratios_are_to_the_best_float32_layer_of_their_round() -> None:
    found = row([0.1, 0.1, 0.2], half=[0.2, 0.2, 0.2])
    assert found["ratios"]["warm"] == pytest.approx([0.2, 0.25, 0.4])
    assert found["ratio"] == pytest.approx(0.25)
    assert found["ratio_to_16_bits"]["warm"] == pytest.approx(0.5)
    assert found["best_dense"] == "fastcnn"
    assert not found["met"]
    assert "MISSED" in table([found])
    assert row([0.05, 0.05, 0.05], half=[0.2] * 3)["met"]
    assert not row([0.05, 0.05, 0.05], half=[0.2] * 3, error=2e-4)["met"]
    without = row([9.0] * 3, half=[0.2] * 3, goal=None)
    assert without["met"] is None
    assert "MISSED" not in table([without])


def test_a_small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm and evicted; outputs are checked against float64."""
    pytest.importorskip("openvino")
    from fastcnn.methods.structured.svd import SVDLinear

    monkeypatch.setattr(linear, "SIZE", 64)
    monkeypatch.setattr(linear, "evicted_bytes", lambda: {"warm": 0, "evicted": 1 << 20})
    monkeypatch.setattr(linear, "PEERS", ("openvino",))
    case = Case(name="SVD", batch=2, goal=1e6, layer=lambda: SVDLinear(64, 64, rank=4))
    (found,) = measure([case], threads=1, rounds=1, seconds=0.0)
    assert found["met"]
    assert set(found["ms"]["evicted"]) == {"SVD", "fastcnn", HALF, *linear.PEERS}
    assert all(error < 1e-4 for error in found["errors"].values())
    assert all(len(times) == 1 and times[0] > 0 for state in linear.STATES for times in found["ms"][state].values())
