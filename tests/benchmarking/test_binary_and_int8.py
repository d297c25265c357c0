"""Benchmarks of few bits: one quick run of the small pieces, and when a goal is met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.benchmarking import binary, binary_block, int8
from fastcnn.benchmarking.binary import BINARY, CELLS, DIRECT, GOALS, WINOGRAD, Cell
from fastcnn.benchmarking.command import guarded
from fastcnn.benchmarking.int8 import CASES, DENSE, OURS, Case
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.reproduction.lowprecision.binary_resnet import BINARY as BINARY_LAYERS
from fastcnn.reproduction.lowprecision.binary_resnet import BinaryResNet18, packed, settled


def test_a_block_times_packing_and_products_in_their_place(tmp_path: Path) -> None:
    order = {"task": "prepare", "channels": 32, "size": 10, "folder": str(tmp_path), "threads": 1}
    jobs = binary_block.run(order)
    assert {BINARY, DIRECT, WINOGRAD} < set(jobs)
    found = {}
    for label in (BINARY, DIRECT, "torch channels_last"):
        found[label] = binary_block.run({**jobs[label], "threads": 1, "seconds": 0.05, "onednn": ""})
        assert 0 < found[label]["ms"] < 1e3
    assert found[BINARY]["limit"] > 0
    wrong = {**jobs[BINARY], "steps": ["2", "not there"], "threads": 1, "onednn": ""}
    with pytest.raises(RuntimeError, match="the plan has 1"):
        binary_block.run(wrong)


def times_of(cell: Cell, share: float, gain: float) -> tuple[dict[str, list[float]], list[float]]:
    limit = 5000.0
    ms = cell.products / limit / 1e6 / share
    direct = {DIRECT: gain * ms, "torch channels_last": 2 * gain * ms}
    return {label: [each] * 3 for label, each in {BINARY: ms, **direct, WINOGRAD: 3 * ms}.items()}, [limit] * 3


@pytest.mark.parametrize(("share", "gain", "met"), [(0.76, 14.1, True), (0.74, 20.0, False), (0.9, 13.9, False)])
def test_goals_of_binary_convolutions(share: float, gain: float, met: bool) -> None:
    row = binary.row(CELLS[0], "", *times_of(CELLS[0], share, gain))
    assert row["met"] is met
    assert row["share_of_limit"] == pytest.approx(share)
    assert row["gain"] == pytest.approx(gain)
    assert row["gain_over_winograd"] == pytest.approx(3.0)
    assert ("MISSED" in binary.table([row])) is not met
    # Held to AVX2 the share is only shown.
    assert binary.row(CELLS[0], "avx2", *times_of(CELLS[0], 0.1, 4.1))["met"]
    assert not binary.row(CELLS[0], "avx2", *times_of(CELLS[0], 0.9, 3.9))["met"]


def test_the_cells_and_goals_of_the_record() -> None:
    assert [(cell.channels, cell.size) for cell in CELLS] == [(64, 56), (128, 28), (256, 14)]
    assert {cell.products for cell in CELLS} == {115_605_504}
    assert GOALS[""].limit == 0.75
    assert [GOALS[isa].direct for isa in ("", "avx2")] == [14.0, 4.0]


def test_goals_are_asked_of_machines_that_can_meet_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for active, available, sets in (
        ("avx512_vnni", ["scalar", "avx2", "avx512_vnni"], ["", "avx2"]),
        ("avx2", ["scalar", "avx2"], ["avx2"]),
        ("scalar", ["scalar"], []),
    ):
        monkeypatch.setattr("fastcnn._native.host", lambda a=active, b=available: {"isa_active": a, "isa_available": b})
        assert binary.sets_here() == sets
    assert binary.main(["--out", "x.json"]) == 2


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (EngineFailedError("torch: no"), 1), (OSError("full"), 2)]
)
def test_what_goes_wrong_has_a_line_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert guarded(work) == code
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert ("interrupted" if code == 130 else str(error)) in said


def test_goals_of_nets() -> None:
    case = next(case for case in CASES if case.binary_goals)
    times = {
        OURS: [1.0, 1.0, 5.0],
        DENSE: [4.0] * 3,
        "openvino-int8 performance": [1.1, 1.0, 1.0],
        "openvino-int8 mixed": [1.0, 2.0, 5.0],
        int8.BINARY: [0.5] * 3,
        "torch channels_last": [9.0] * 3,
        "openvino default": [3.0] * 3,
    }
    rows = int8.rows_of(case, times, {OURS: 0.01})
    assert [row["what"] for row in rows] == ["int8", "binary to int8", "binary to float32"]
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 0.5, 0.5 / 3.0])
    assert all(row["met"] for row in rows)
    assert not int8.rows_of(case, {**times, OURS: [1.2] * 3}, {})[0]["met"]
    assert "MISSED" in int8.table(int8.rows_of(case, {**times, OURS: [1.2] * 3}, {}))
    goals = {(c.net, c.batch): c.goal for c in CASES}
    assert goals[("mobilenetv2", 1)] == 0.85
    assert goals[("mobilenetv2", 8)] == 0.6
    assert goals[("vgg16", 1)] == 1.02


def test_a_small_net_becomes_entries_of_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "PICTURE", (3, 16, 16))
    monkeypatch.setattr(int8, "CALIBRATED", 4)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(1568, 4))
    entries = int8.entries_of(Case(net="tiny", batch=2, goal=1.0), net.eval(), tmp_path, threads=1)
    assert [entry.label for entry in entries] == [
        OURS, DENSE, "openvino-int8 performance", "openvino-int8 mixed",
    ]  # fmt: skip
    errors = {entry.label: int8.error_of(entry, threads=1) for entry in entries}
    assert errors[DENSE] < 1e-5
    assert {label: error for label, error in errors.items() if label != DENSE and not 1e-5 < error < 0.3} == {}


def test_the_binary_resnet_runs_as_it_was_trained() -> None:
    """Signs in bits, the rest in 8 bits; the engine gives what the packed module gives."""
    shape = (2, 3, 64, 64)
    model = settled(shape)
    x = torch.randn(shape)
    small = packed(model, [x])
    lines = {line.layer: line for line in fc.report(small)}
    assert sorted(name for name, line in lines.items() if line.status == "done") == sorted(
        ["stem.0", "blocks.4.shortcut.1", "blocks.8.shortcut.1", "blocks.12.shortcut.1", "last"]
    )
    net = fc.compile(small, x[:1], threads=1, strict=True, tune=False)
    kernels = [step.kernel for step in net.plan.steps]
    assert sum(kernel.startswith("sign_conv") for kernel in kernels) == 16
    assert sum(kernel.startswith("int8_conv") for kernel in kernels) == 5
    # Batch norms and shortcuts are done where sums are: nothing is left for steps of their own.
    assert not [kernel for kernel in kernels if kernel.startswith(("scale_shift", "binary_f32"))]
    got, want = np.asarray(net(x[:1].numpy())), small(x[:1]).detach().numpy()
    assert float(np.abs(got - want).max() / np.abs(want).max()) < 2e-2
    assert len([m for m in BinaryResNet18().modules() if isinstance(m, nn.Conv2d)]) == 1 + 16 + 3
    assert BINARY_LAYERS == "blocks.*.conv"


@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        (binary, ["--rounds", "0"], "--threads and --rounds must be at least 1"),
        (binary, ["--seconds", "nan"], "--seconds above 0"),
        (int8, ["--seconds", "0"], "--seconds above 0"),
        (int8, ["--threads", "0"], "--threads and --rounds"),
    ],
)
def test_bad_arguments_are_named(module: Any, given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["--out", "x.json", *given]) == 2
    assert said in capsys.readouterr().err
    assert not Path("x.json").exists()
