"""The published nets on every real picture: 10,000 of CIFAR-10, 200 photographs, untuned and tuned, fp32 and exact.

``test_real_nets.py`` looks at a part of this in the fast suite. The figures are printed (``pytest -s``) beside torch's
own and stand in the report of ``pytest --junit-xml`` as properties.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcnn
from tests.engine.real_nets import (
    EXACT_LIMIT,
    FP32_LIMIT,
    PHOTOGRAPHS,
    cifar,
    run_float64,
    run_ours,
    run_torch,
    worst,
)
from tests.models import load_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(3000)]

PLANS = [(tolerance, tune) for tolerance in ("fp32", "exact") for tune in (False, True)]
LIMITS = {"fp32": FP32_LIMIT, "exact": EXACT_LIMIT}


@pytest.mark.parametrize(
    ("name", "pictures", "count", "batch", "agreement"),
    [
        ("cifar10_resnet20", cifar, 10_000, 50, 0.999),
        ("cifar10_resnet32", cifar, 10_000, 50, 0.999),
        ("imagenet_mobilenet_v2", PHOTOGRAPHS["imagenet_mobilenet_v2"], 200, 4, 1.0),
        ("imagenet_squeezenet1_0_dc", PHOTOGRAPHS["imagenet_squeezenet1_0_dc"], 200, 4, 1.0),
    ],
    ids=["resnet20", "resnet32", "mobilenet_v2", "squeezenet"],
)
def test_every_picture(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None],
    name: str, pictures: Callable[[Path], np.ndarray], count: int, batch: int, agreement: float,
) -> None:  # fmt: skip
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path))  # tuned here and now, not as some earlier version tuned it
    model = load_pretrained(name, data_dir)
    x = pictures(data_dir)
    assert len(x) == count
    y64 = run_float64(model, x)
    theirs = run_torch(model, x, batch, torch.float32)
    torch_error = worst(theirs, y64)
    record_property("torch_error", torch_error)
    print(f"\n{name}, {count} pictures: torch error {torch_error:.2e}")
    missed = []
    for tolerance, tune in PLANS:
        net = fastcnn.compile(model, x[:batch], strict=True, tune=tune, tolerance=tolerance)
        assert net.plan.how == ("tuned" if tune else "heuristic")
        ours = run_ours(net, x, batch)
        same = int((ours.argmax(1) == theirs.argmax(1)).sum())
        error = worst(ours, y64)
        plan = f"{tolerance}, {net.plan.how}"
        print(f"  {plan}: error {error:.2e}, label of torch on {same} of {count}")
        record_property(f"{plan}: error", error)
        record_property(f"{plan}: same label", same)
        if not (error <= LIMITS[tolerance] and same >= agreement * count):
            missed.append(f"{plan}: error {error:.2e} (limit {LIMITS[tolerance]}), {same} of {count} labels")
    assert not missed
