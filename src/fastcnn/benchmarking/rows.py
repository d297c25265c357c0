"""The rows of suite ``exact``: conditions, peers and goals, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastcnn.benchmarking.engines import PEERS
from fastcnn.reporting.host import host_facts, native

NETS = ("vgg16", "resnet18", "resnet50", "mobilenetv2", "alexnet")
FP32_ERROR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: every net under the same conditions.

    Attributes
    ----------
    name, title : str
        The word for ``--rows``, and what the table says.
    peers : tuple of str
    goals : mapping of str to float
        Net to the largest ratio (our time / the best peer's) that is good enough. Nets without one are only shown.
    batch : int
    threads : int or None
        None: as many as the run is told to use.
    isa : str
        Cap of our instruction set; the peers are not held back.
    tolerance : str
        Of our net.
    max_error : float or None
        Largest error of ours against float64; None: the best peer's.
    """

    name: str
    title: str
    peers: tuple[str, ...]
    goals: Mapping[str, float]
    batch: int = 1
    threads: int | None = None
    isa: str = ""
    tolerance: str = "fp32"
    max_error: float | None = field(default=FP32_ERROR)

    def __post_init__(self) -> None:
        if not self.peers:
            raise ValueError(f"row {self.name!r} has no peers: name at least one")


def _goals(*ratios: float) -> dict[str, float]:
    return dict(zip(NETS, ratios, strict=True))


EXACT_ROWS: tuple[Row, ...] = (
    Row(name="batch1", title="batch 1", peers=PEERS, goals=_goals(0.72, 0.68, 0.82, 0.90, 0.60)),
    Row(
        name="batch8",
        title="batch 8, peers that take a batch",
        peers=("torch", "onnxruntime", "openvino"),
        goals=_goals(0.33, 0.55, 0.88, 0.90, 0.60),
        batch=8,
    ),
    Row(
        name="batch8-mobile",
        title="batch 8, ncnn and MNN, picture by picture or as a batch",
        peers=("ncnn", "mnn"),
        goals=_goals(0.68, 0.68, 0.85, 0.90, 0.60),
        batch=8,
    ),
    Row(
        name="avx2",
        title="batch 1, ours held to AVX2, peers unrestricted",
        peers=PEERS,
        goals=_goals(0.90, 0.92, 1.05, 1.35, 0.75),
        isa="avx2",
    ),
    Row(
        name="relaxed",
        title="batch 1, tolerance relaxed, against OpenVINO's default precision",
        peers=("openvino-default",),
        goals=_goals(0.68, 0.88, 0.92, 1.10, 0.70),
        tolerance="relaxed",
        max_error=None,
    ),
    Row(
        name="one-thread",
        title="batch 1, one thread",
        peers=PEERS,
        goals=_goals(0.85, 0.85, 0.95, 0.95, 0.85),
        threads=1,
    ),
)

ROW_SUITES: dict[str, tuple[Row, ...]] = {"exact": EXACT_ROWS}
"""Suites that are measured row by row."""


def skip_reason(row: Row) -> str:
    """Why a row says nothing on this machine or in this version; empty if it can be measured."""
    module = native()
    known: dict[str, Any] = dict(module.host()) if module is not None else {}
    if row.isa and known.get("isa_active") == row.isa:
        return f"this machine runs {row.isa} without a cap: the same as the row without one"
    if row.isa and row.isa not in known.get("isa_available", ()):
        return f"this machine cannot run {row.isa}"
    if not _accepted(row.tolerance):
        return f"this version has no tolerance {row.tolerance!r} yet"
    if "openvino-default" in row.peers and not {"avx512_bf16", "amx_bf16"} & set(host_facts()["flags"]):
        return "this CPU has no bf16 arithmetic: OpenVINO's default precision is float32 here"
    return ""


def _accepted(tolerance: str) -> bool:
    from fastcnn.engine.api import resolve_tolerance

    try:
        resolve_tolerance(tolerance)
    except ValueError:
        return False
    return True
