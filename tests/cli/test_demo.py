"""The demo: its parts with little training in the normal suite, the whole of it in the slow one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcnn.cli.demo.digits import DigitsNet, digits_demo
from fastcnn.cli.demo.photographs import efficientnet_lite0, photographs
from fastcnn.cli.demo.without_torch import run_without_torch

RECIPE = """
version: 1
name: quick
stages:
  - prune: {sparsity: 0.8, rounds: 1, epochs: 4}
  - share: {clusters: 16, conv_clusters: 32}
"""


def test_digits_part_with_little_training(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(RECIPE)
    result = digits_demo(tmp_path, threads=1, epochs=6, recipe=tmp_path / "quick.yaml", rounds=1, seconds=0.05)
    assert result.accuracy_before > 80
    assert result.accuracy_after > 60
    assert result.labels_equal
    assert not result.torch_loaded
    assert result.file_bytes == (tmp_path / "digits.fcnn").stat().st_size
    assert result.ratio > 5
    assert result.theory_bytes == pytest.approx(result.file_bytes, rel=0.1)
    assert result.dense_bytes == 4 * sum(p.numel() for p in DigitsNet().parameters())
    assert result.dense_error <= 1e-4
    assert min(result.torch_ms, result.dense_ms, result.small_ms) > 0
    json.dumps(result.to_json())
    assert result.table().row_count == 3


def test_a_net_that_fails_without_torch_says_so(tmp_path: Path) -> None:
    (tmp_path / "junk.fcnn").write_bytes(b"junk")
    with pytest.raises(RuntimeError, match="without torch failed"):
        run_without_torch(tmp_path / "junk.fcnn", np.zeros((1, 1, 8, 8), np.float32), threads=1, seconds=0)


def test_the_photographs_and_the_pretrained_net_are_right() -> None:
    names, inputs = photographs()
    assert inputs.shape == (len(names), 3, 224, 224)
    with torch.inference_mode():
        labels = efficientnet_lite0()(torch.from_numpy(inputs)).argmax(1).tolist()
    said = dict(zip(names, labels, strict=True))
    # A cat, an espresso, a tripod: the preprocessing is right.
    assert said["chelsea"] in (281, 282, 285)
    assert said["coffee"] == 967
    assert said["camera"] == 872


@pytest.mark.slow
def test_the_whole_demo_in_three_minutes(tmp_path: Path) -> None:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fastcnn", "demo", "--out", str(tmp_path / "d"), "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    digits, pictures = found["digits"], found["photographs"]["pictures"]
    assert digits["accuracy_before"] > 95
    assert digits["accuracy_before"] - digits["accuracy_after"] <= 2
    assert digits["ratio"] > 15
    assert digits["theory_bytes"] == pytest.approx(digits["file_bytes"], rel=0.02)
    assert len(pictures) >= 4
    assert all(picture["our_label"] == picture["torch_label"] for picture in pictures)
    assert found["photographs"]["photographs_error"] <= 1e-4
    assert (tmp_path / "d" / "digits.fcnn").is_file()
    assert seconds < 180
