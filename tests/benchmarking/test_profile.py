"""Shares, verdicts and the joining of rounds by known figures; then a real net, its page and its command."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fastcnn import _native
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import EngineFailedError, run_worker
from fastcnn.benchmarking.profile import NetProfile, ProfileResult, profile
from fastcnn.benchmarking.profile.block import buffer_mib
from fastcnn.benchmarking.profile.profile import combine
from fastcnn.cli.errors import BAD_INPUT, DONE, GOAL_MISSED
from fastcnn.cli.main import run_cli

PEAK, READ = 100.0, 50.0  # 1e9 multiply-adds and bytes a second


def step(layer: str, family: str, ms: float, *, multiplications: int = 0, moved: int = 0, **changes: Any) -> Any:
    return {
        "layer": layer, "source": layer, "family": family, "kernel": f"{family}_f32_x", "why": "saved", "error": None,
        "ms": ms, "spread": 0.1, "macs": multiplications, "multiplications": multiplications, "counted": True,
        "weight_bytes": moved, "input_bytes": 0, "output_bytes": 0, "out_map": [14, 14], **changes,
    }  # fmt: skip


def block(*steps: Any, peak: float = PEAK, read: float = READ, call_ms: float = 10.0) -> dict[str, Any]:
    limits = {"isa": "avx2", "threads": 2, "fma_gmacs": peak, "read_gbps": read, "buffer_mib": 256}
    return {
        "limits": limits, "steps": list(steps), "call_ms": call_ms, "repeats": 7, "plan_error": 1e-6, "tolerance": 1e-4,
    }  # fmt: skip


def test_each_arithmetic_has_its_peak() -> None:
    """A bf16 kernel at three quarters of its peak is beyond that of fp32, and no sign of a busy machine."""
    one = block(
        step("half", "1x1", 1.0, multiplications=150 * M, kernel="direct_bf16_14x32_avx512_vnni"),
        step("full", "1x1", 1.0, multiplications=45 * M, kernel="direct_f32_14x32_avx512_vnni"),
    )
    one["limits"]["bf16_gmacs"] = 2 * PEAK
    net = joined(one)
    assert [round(s.compute_share, 6) for s in net.steps] == [150 / (2 * PEAK), 45 / PEAK]
    assert net.limits.bf16_gmacs == 2 * PEAK
    assert not net.doubts()
    assert joined(block(step("full", "1x1", 1.0))).limits.bf16_gmacs is None


def test_three_or_six_products_of_amx_are_one_multiply_add() -> None:
    one = block(
        step("split", "1x1", 1.0, multiplications=400 * M, kernel="amx_bf16x3_32x32_avx512_amx"),
        step("exact", "1x1", 1.0, multiplications=100 * M, kernel="amx_bf16x6_32x32_avx512_amx"),
        step("half", "direct", 1.0, multiplications=1200 * M, kernel="amx_bf16_32x32_avx512_amx"),
    )
    one["limits"]["amx_gmacs"] = 16 * PEAK
    net = joined(one)
    assert [round(s.compute_share, 6) for s in net.steps] == [
        3 * 400 / (16 * PEAK),
        6 * 100 / (16 * PEAK),
        1200 / (16 * PEAK),
    ]
    assert net.limits.amx_gmacs == 16 * PEAK
    assert [v.layers for v in net.verdicts()] == [0, 0, 0, 0]  # the goals are those of fp32


def joined(*blocks: dict[str, Any], **changes: Any) -> NetProfile:
    return combine("net", (1, 3, 8, 8), blocks, error=2e-6, **changes)


M = 1_000_000


def test_shares_are_of_the_limits_of_the_same_round() -> None:
    # 200 M multiplications at 100 G/s take 2 ms; 50 MB at 50 GB/s take 1 ms.
    net = joined(block(step("a", "direct", 4.0, multiplications=200 * M, moved=50 * M)))
    (only,) = net.steps
    assert only.compute_share == pytest.approx(0.5)
    assert only.byte_share == pytest.approx(0.25)
    assert (only.bound, only.share, only.limit_ms) == ("multiplications", pytest.approx(0.5), pytest.approx(2.0))
    # Rounds at half the clock take twice as long: their shares are the same.
    slow = block(step("a", "direct", 8.0, multiplications=200 * M, moved=50 * M), peak=50.0, read=25.0, call_ms=30.0)
    net = joined(block(step("a", "direct", 4.0, multiplications=200 * M, moved=50 * M)), slow, slow)
    assert net.steps[0].compute_share == pytest.approx(0.5)
    assert (net.steps[0].ms, net.call_ms, net.repeats, net.limits.fma_gmacs) == (8.0, 30.0, 21, 50.0)


def test_winograd_is_judged_by_what_it_multiplies_not_by_what_it_saves() -> None:
    net = joined(block(step("w", "winograd", 1.0, multiplications=70 * M, macs=280 * M)))
    assert net.steps[0].compute_share == pytest.approx(0.7)
    assert net.steps[0].useful_share == pytest.approx(2.8)
    assert net.verdicts()[2].met is True


def test_rounds_of_different_plans_are_not_joined() -> None:
    with pytest.raises(ValueError, match="net: the rounds ran different plans"):
        joined(block(step("a", "direct", 1.0)), block(step("a", "winograd", 1.0)))


def test_what_decided_comes_from_the_plan_that_was_tuned() -> None:
    assert joined(block(step("a", "direct", 1.0)), why=["fastest of 4"]).steps[0].why == "fastest of 4"
    assert joined(block(step("a", "direct", 1.0)), why=["x", "y"]).steps[0].why == "saved"


def test_the_verdict_sums_and_sorts_by_family() -> None:
    steps = [
        step("big", "direct", 10.0, multiplications=900 * M),  # 90 % of peak
        step("point", "1x1", 2.0, multiplications=100 * M),  # 50 %
        step("fed", "1x1", 2.0, multiplications=100 * M, moved=80 * M),  # 50 %, but its bytes are 80 %
        step("packed", "1x1", 1.0, multiplications=95 * M, kernel="direct_i16_x"),  # computed in fp32
        step("wide", "winograd", 1.0, multiplications=80 * M),
        step("small", "winograd", 1.0, multiplications=10 * M, out_map=[7, 7]),
        step("half", "direct", 1.0, multiplications=190 * M, kernel="direct_bf16_x"),
        step("fc", "linear", 2.0, multiplications=25 * M, moved=90 * M),  # 90 % of bandwidth
        step("warm", "linear", 1.0, multiplications=90 * M, moved=M),  # bound by its multiplications
        step("shuffle", "relayout", 5.0, moved=M),
    ]
    plain, least, large, linear = joined(block(*steps)).verdicts()
    assert plain.found == pytest.approx((900 + 100 + 100 + 95) / (100 * (10 + 2 + 2 + 1)))
    assert (plain.layers, plain.met, plain.worst) == (4, False, "point 50.0%")
    assert (least.found, least.layers, least.worst) == (pytest.approx(0.5), 3, "point 50.0%")
    assert (large.found, large.layers, large.met) == (pytest.approx(0.8), 1, True)
    assert (linear.found, linear.layers, linear.met) == (pytest.approx(0.9), 1, True)


def test_the_thresholds_are_the_goals() -> None:
    """Each goal is met at its figure and missed a hair below."""
    for family, index, share in (("direct", 0, 0.88), ("direct", 1, 0.70), ("winograd", 2, 0.70)):
        at, below = (
            joined(block(step("a", family, 1.0, multiplications=round(100 * M * value)))).verdicts()[index]
            for value in (share + 1e-9, share - 1e-3)
        )
        assert (at.wanted, at.met, below.met) == (share, True, False)
    at, below = (
        joined(block(step("a", "linear", 1.0, moved=round(50 * M * value)))).verdicts()[3] for value in (0.801, 0.799)
    )
    assert (at.met, below.met) == (True, False)


def test_a_busy_machine_is_doubted() -> None:
    fast = step("a", "direct", 1.0, multiplications=110 * M)
    assert "1 step ran faster than the measured peak" in joined(block(fast)).doubts()[0]
    assert "the steps' times vary by 40%" in joined(block(step("a", "direct", 1.0, spread=0.4))).doubts()[0]
    assert joined(block(step("a", "direct", 1.0, multiplications=100 * M))).doubts() == []


def test_nothing_to_judge_is_no_verdict() -> None:
    net = joined(block(step("r", "relayout", 1.0, moved=M)))
    assert [verdict.met for verdict in net.verdicts()] == [None] * 4
    assert {verdict.text() for verdict in net.verdicts()} == {"no such layer"}


def test_the_buffer_is_far_beyond_l3() -> None:
    assert buffer_mib(0) == 256
    assert buffer_mib(64 << 20) == 512
    assert buffer_mib(1 << 30) == 1024


SOURCE = """
import torch
from torch import nn

def net():
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 48, 1), nn.ConvTranspose2d(48, 16, 2, stride=2),
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16 * 64, 10),
    )
"""


@pytest.fixture(scope="module")
def profiled() -> ProfileResult:
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    model: nn.Module = namespace["net"]().eval()
    return profile({"five": model}, (1, 3, 32, 32), threads=1, rounds=1, seconds=0.1, warmup_s=0.02)


def test_a_real_net_is_profiled(profiled: ProfileResult) -> None:
    (net,) = profiled.nets
    assert net.limits.threads == 1
    assert net.limits.fma_gmacs > 0
    assert net.limits.read_gbps > 0
    assert (net.limits.bf16_gmacs is not None) == _native.bf16_pays(net.limits.isa)
    assert (net.limits.amx_gmacs is not None) == (_native.amx(net.limits.isa) == "native")
    assert net.error is not None
    assert net.error <= 1e-4
    assert all(step.counted for step in net.steps), "a kernel that multiplies has no function in profile/work.py"
    assert all(step.ms > 0 for step in net.steps if step.macs)
    by_family = {step.family: step for step in net.steps}
    assert {"direct", "1x1", "depthwise", "transposed", "linear"} <= set(by_family) | {"winograd"}
    assert by_family["1x1"].multiplications == 16 * 16 * 32 * 48
    assert by_family["linear"].weight_bytes >= 4 * 16 * 64 * 10
    data = json.loads(profiled.dumps())
    assert data["nets"][0]["steps"][0]["layer"] == net.steps[0].layer
    assert data["settings"]["rounds"] == 1


def test_the_page_holds_all_it_needs(profiled: ProfileResult) -> None:
    from fastcnn.reporting.profile_page import profile_html

    page = profile_html(profiled)
    for step_ in profiled.nets[0].steps:
        assert step_.kernel in page
    assert page.count("Plotly.newPlot(") >= 1
    assert "Winograd, maps from 14" in page
    # Outside the inlined library nothing is fetched from anywhere.
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]


def test_names_from_a_model_are_text_in_the_page(profiled: ProfileResult) -> None:
    from dataclasses import replace

    from fastcnn.reporting.profile_page import profile_html

    (net,) = profiled.nets
    evil = "</script><b onclick=1>"
    page = profile_html(replace(profiled, nets=(replace(net, net=evil, steps=(replace(net.steps[0], layer=evil),)),)))
    assert evil not in page


def test_only_our_own_net_can_be_profiled(tmp_path: Path) -> None:
    import numpy as np

    from fastcnn.benchmarking.files import INPUTS

    np.save(tmp_path / INPUTS, np.zeros((1, 1, 3, 4, 4), np.float32))
    job = Job(
        task="profile", engine="torch", variant="contiguous", folder=str(tmp_path), threads=1, warmup_s=0, seconds=0,
        result=str(tmp_path / "r.json"),
    )  # fmt: skip
    with pytest.raises(EngineFailedError, match="cannot be profiled"):
        run_worker(job, timeout_s=120)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "profile_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "profile_nets", raising=False)
    return tmp_path


COMMAND = (
    "bench", "profile_nets:net", "--profile", "--shape", "1,3,32,32", "--threads", "1", "--rounds", "1", "--seconds",
    "0.1",
)  # fmt: skip


def test_the_command_writes_table_json_and_page(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, profiled: ProfileResult
) -> None:
    import fastcnn.benchmarking.profile as room

    asked: dict[str, Any] = {}

    def known(models: Any, shape: Any, **options: Any) -> ProfileResult:
        asked.update(options, names=[name for name, _ in models], shape=shape)
        return profiled

    monkeypatch.setattr(room, "profile", known)
    assert run_cli([*COMMAND, "--html", "p.html", "--out", "p.json"]) == DONE
    out, _ = capsys.readouterr()
    assert asked["names"] == ["net"]
    assert (asked["threads"], asked["rounds"], asked["shape"]) == (1, 1, (1, 3, 32, 32))
    assert "of bandwidth" in out
    assert "linear: bytes of read bandwidth" in out
    assert (here / "p.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((here / "p.json").read_text())["nets"][0]["net"] == "five"
    assert run_cli([*COMMAND, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["nets"][0]["verdicts"]
    # A net this small is nowhere near the limits.
    assert run_cli([*COMMAND, "--require-limits"]) == GOAL_MISSED
    assert "wanted 88%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "torch"), "--profile measures our net alone"),
        (("--goal", "torch=1"), "--profile measures our net alone"),
        (("--html", "p.txt"), "must end in .html"),
        (("--html", "nowhere/p.html"), "does not exist"),
    ],
)
def test_options_that_do_not_go_together(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert run_cli([*COMMAND, *words]) == BAD_INPUT
    assert said in capsys.readouterr().err


def test_the_chart_needs_the_profile(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bench", "profile_nets:net", "--html", "p.html"]) == BAD_INPUT
    assert "go with --profile" in capsys.readouterr().err


def test_a_missing_library_is_named_before_anything_is_measured(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert run_cli([*COMMAND, "--html", "p.html"]) == BAD_INPUT
    assert "fastcnn[report]" in capsys.readouterr().err
