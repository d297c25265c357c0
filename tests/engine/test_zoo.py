"""Third-party nets run natively, strictly, and as exactly as promised; the committed record and its page say so."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastcnn.reproduction.zoo import __main__ as command
from fastcnn.reproduction.zoo.measure import MAX_ERROR, measure
from fastcnn.reproduction.zoo.nets import NETS

ROOT = Path(__file__).parents[2]
RECORD, PAGE_TOOL = ROOT / "benchmarks" / "results" / "zoo.json", ROOT / "tools" / "coverage_page.py"
HAS_ZOO = importlib.util.find_spec("pytorchcv") is not None
needs_zoo = pytest.mark.skipif(not HAS_ZOO, reason="pytorchcv is not installed: make test installs it")

SMALL = ("squeezenet_v1_1", "shufflenetv2_w1", "quartznet5x5_en_ls", "espcnet_cityscapes")
"""One each with concatenations, with channel shuffles, on lines, and for segmentation."""
SIZES: dict[str, dict[str, Any]] = {"espcnet_cityscapes": {"size": (64, 64), "arguments": {"in_size": (64, 64)}}}


def assert_native(record: dict[str, Any]) -> None:
    assert record["status"] == "native", record
    assert record["error"] <= MAX_ERROR
    assert record["torch_error"] > 0
    assert record["input_dependence"] > 0.01, "the net answers the same to every picture: no error would show"


@needs_zoo
@pytest.mark.zoo
@pytest.mark.parametrize("name", SMALL)
def test_small_nets(name: str) -> None:
    assert_native(measure(replace(NETS[name], **SIZES.get(name, {}))))


@needs_zoo
@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_net_is_as_the_record_says(name: str) -> None:
    known = {net["net"]: net for net in json.loads(RECORD.read_text(encoding="utf-8"))["nets"]}.get(name)
    if known is None:
        pytest.skip("the record does not hold this net yet: make coverage measures it")
    record = command.run_net(NETS[name], memory_gib=12, timeout_s=560)
    assert record["status"] == known["status"], record
    if known["status"] == "native":
        assert record["error"] <= MAX_ERROR


def test_the_record_keeps_the_gates() -> None:
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    nets = document["nets"]
    measured = [net["net"] for net in nets]
    assert measured == [name for name in NETS if name in measured]
    native = [net for net in nets if net["status"] == "native"]
    assert len(native) == document["native_nets"] >= 60
    assert len({net["family"] for net in native}) == document["native_families"] >= 15
    assert document["passed"] is True
    assert document["settings"]["strict"] is True
    for net in native:
        assert net["error"] <= document["gates"]["max_error"] == 1e-4
        assert net["torch_error"] > 0
        assert net["steps"] > 0
    assert all(net["reason"] for net in nets if net["status"] in ("refused", "failed"))


def test_the_page_shows_the_record() -> None:
    done = subprocess.run([sys.executable, str(PAGE_TOOL), str(RECORD), "--check"], check=False, timeout=60)
    assert done.returncode == 0, f"run  python tools/coverage_page.py {RECORD.relative_to(ROOT)}"


def test_the_page_tool_lists_reasons_and_refuses_other_files(tmp_path: Path) -> None:
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    document["nets"] = [
        copy.deepcopy(document["nets"][0]) | {"status": "refused", "reason": "aten::conv3d in layer 'a' | <b>"},
        copy.deepcopy(document["nets"][1]) | {"status": "inexact", "error": 0.5, "torch_error": 1e-6},
    ]
    source, page = tmp_path / "zoo.json", tmp_path / "page.md"
    source.write_text(json.dumps(document), encoding="utf-8")
    words = [sys.executable, str(PAGE_TOOL), str(source), "--page", str(page)]
    assert subprocess.run([*words, "--check"], check=False, timeout=60).returncode == 1
    assert subprocess.run(words, check=False, timeout=60).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "0 of 2 nets" in text
    assert r"aten::conv3d in layer 'a' \| &lt;b&gt;" in text
    assert "error 5.0e-01 (torch 1.0e-06)" in text
    for net, commit in zip(document["nets"], ("1" * 40, "2" * 40 + "-dirty"), strict=True):
        net["commit"] = commit
    source.write_text(json.dumps(document), encoding="utf-8")
    assert subprocess.run(words, check=False, timeout=60).returncode == 0
    assert "commits 1111111111, 2222222222 with uncommitted changes." in page.read_text(encoding="utf-8")
    source.write_text("[]", encoding="utf-8")
    done = subprocess.run(words, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: this is no record of the zoo" in done.stderr


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the processes: every net is native, except AlexNet, which dies."""
    asked: list[str] = []

    def run_net(net: Any, *, memory_gib: float, timeout_s: float) -> dict[str, Any]:
        asked.append(net.name)
        if net.name == "alexnet":
            return command._failed(net, "died of signal 9: no output")
        record = {"net": net.name, "family": net.family, "module": net.module, "status": "native"}
        return record | {"error": 1e-6, "torch_error": 1e-6}

    monkeypatch.setattr(command, "run_net", run_net)
    monkeypatch.setattr(command, "_require_zoo", lambda: None)
    return asked


def test_the_command_goes_on_where_it_stopped(
    fake_runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "zoo.json"
    monkeypatch.setattr(command, "commit", lambda: "first")
    assert command.main(["--out", str(out), "--only", "alexnet", "resnet18"]) == 1  # two nets keep no gate
    first = json.loads(out.read_text(encoding="utf-8"))
    assert [(net["net"], net["status"]) for net in first["nets"]] == [("alexnet", "failed"), ("resnet18", "native")]
    assert first["passed"] is False
    monkeypatch.setattr(command, "commit", lambda: "second-dirty")
    assert command.main(["--out", str(out)]) == 0
    assert "there are uncommitted changes" in capsys.readouterr().err
    assert fake_runs[:2] == ["alexnet", "resnet18"]
    assert len(fake_runs) == len(NETS)
    whole = json.loads(out.read_text(encoding="utf-8"))
    assert [net["net"] for net in whole["nets"]] == list(NETS)
    assert whole["native_nets"] == len(NETS) - 1
    commits = {net["net"]: net["commit"] for net in whole["nets"]}
    assert commits.pop("alexnet") == commits.pop("resnet18") == "first"
    assert set(commits.values()) == {"second-dirty"}
    assert command.main(["--out", str(out), "--again", "--only", "alexnet"]) == 0
    assert fake_runs[-1] == "alexnet"
    said = capsys.readouterr()
    assert "alexnet: failed: died of signal 9" in said.err
    assert '"passed": true' in said.out


@pytest.mark.parametrize("content", ["{", "[]", '{"nets": [{}]}', '{"nets": 3}'])
def test_the_command_refuses_a_file_it_did_not_write(
    fake_runs: list[str], content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "zoo.json"
    out.write_text(content, encoding="utf-8")
    assert command.main(["--out", str(out)]) == 2
    assert "error: --out" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == content
    assert not fake_runs


def test_unknown_nets_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--out", "x", "--only", "lenet"])
    assert caught.value.code == 2
    assert "lenet" in capsys.readouterr().err


@needs_zoo
@pytest.mark.zoo
@pytest.mark.slow
def test_a_process_that_fails_leaves_a_reason() -> None:
    """A quarter of a GiB holds torch alone."""
    record = command.run_net(NETS["resnet20_cifar10"], memory_gib=0.25, timeout_s=60)
    assert record["status"] == "failed"
    assert record["reason"]


class SpeechNet(nn.Module):
    """A 1-D net: strided, grouped and dilated convolutions, a residual, pooling over time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 24, 16, stride=4, padding=6), nn.BatchNorm1d(24), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv1d(24, 24, 9, padding=8, dilation=2, groups=24), nn.Conv1d(24, 24, 1), nn.BatchNorm1d(24)
        )
        self.pool = nn.MaxPool1d(3, 2, padding=1)
        self.grouped = nn.Sequential(nn.Conv1d(24, 40, 5, groups=2), nn.BatchNorm1d(40), nn.Hardswish())
        self.head = nn.Linear(40, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.pool(torch.relu(x + self.depthwise(x)))
        return self.head(self.grouped(x).mean(2))


@pytest.mark.parametrize("length", [160, 1001])
def test_a_net_on_lines_runs_natively(length: int, tmp_path: Path) -> None:
    """Compiled strictly, run at another batch and length, saved and loaded."""
    import fastcnn as fc
    from fastcnn.benchmarking.error import relative_error

    torch.manual_seed(5)
    model = SpeechNet()
    for _ in range(4):
        model(torch.randn(8, 1, 400))
    model.eval()
    net = fc.compile(model, torch.randn(2, 1, 400), strict=True, tune=False, threads=1)
    net.save(tmp_path / "speech.fcnn")
    loaded = fc.load(tmp_path / "speech.fcnn", threads=1)
    x = torch.randn(3, 1, length)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double()).numpy()
    assert relative_error(net(x).numpy(), exact) <= 2e-6
    assert relative_error(loaded(x.numpy()), exact) <= 2e-6
