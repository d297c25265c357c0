"""Capture probes sizes that models refuse; torch's complaints about them must not reach the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastcnn.engine.capture import capture
from fastcnn.engine.capture.quiet import quiet_torch


class OneSize(nn.Module):
    """A linear layer right behind the maps: no larger image goes through it. It reads a size, so capture tries."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.head(y.view(y.size(0), y.size(1) * y.size(2) * y.size(3)))


CAPTURE = """
import logging, torch
from fastcnn.engine.capture import capture
from tests.engine.test_capture_quiet import OneSize

logging.getLogger("torch._subclasses.fake_tensor").setLevel({level})
graph = capture(OneSize().eval(), torch.zeros(1, 3, 8, 8), strict=True)
assert graph.inputs[0].fixed == (2, 3), graph.inputs
"""


@pytest.mark.parametrize("level", ["logging.NOTSET", "logging.ERROR"])
def test_probing_writes_nothing(level: str) -> None:
    """In a process of its own: torch's handlers hold the stderr they were made with. Also with a level of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CAPTURE.format(level=level)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def levels() -> dict[str, int]:
    loggers = logging.root.manager.loggerDict
    return {name: logger.level for name, logger in loggers.items() if isinstance(logger, logging.Logger)}


def test_levels_are_put_back() -> None:
    child = logging.getLogger("torch.a_test_of_capture")
    other = logging.getLogger("torchless")
    try:
        child.setLevel(logging.INFO)
        other.setLevel(logging.INFO)
        before = levels()
        with quiet_torch():
            assert not logging.getLogger("torch").isEnabledFor(logging.CRITICAL)
            assert not child.isEnabledFor(logging.CRITICAL)
            assert other.isEnabledFor(logging.INFO)
        assert levels() == before
        with pytest.raises(RuntimeError, match="inside"), quiet_torch():
            raise RuntimeError("inside")
        assert levels() == before
        capture(OneSize().eval(), torch.zeros(1, 3, 8, 8), strict=True)
        assert {name: level for name, level in levels().items() if name in before} == before
    finally:
        child.setLevel(logging.NOTSET)
        other.setLevel(logging.NOTSET)
