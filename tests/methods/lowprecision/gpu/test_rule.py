"""Which layers the GPU's kernels serve, why not the others, and how tiles are chosen; no GPU is needed."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from typing import Any

import pytest
import torch

from fastcnn.methods.lowprecision.binary_ops import binary_conv2d, binary_linear, pack_signs
from fastcnn.methods.lowprecision.gpu import rule, watch
from fastcnn.methods.lowprecision.gpu.window import Window

USUAL: dict[str, Any] = {
    "channels": 64, "products": 576, "planes": [1], "binarize": True, "levels": 0, "elements": 100,
}  # fmt: skip


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "why_not_here", lambda device: "")


def why(x: torch.Tensor | None = None, scale: torch.Tensor | None = None, **changed: Any) -> str:
    x = torch.zeros(1, 64, 3, 3) if x is None else x
    return rule.why_reference(x, torch.zeros(1, dtype=torch.uint8), scale, None, **{**USUAL, **changed})


@pytest.mark.usefixtures("a_gpu")
def test_what_is_served() -> None:
    assert why() == ""
    assert why(planes=[1, 2]) == why(planes=[1, 1]) == ""
    assert why(binarize=False, levels=1) == why(binarize=False, levels=3) == ""
    assert why(channels=16) == ""
    assert why(torch.zeros(1, 64, 3, 3, dtype=torch.float16), torch.zeros(4, dtype=torch.float16)) == ""
    # Levels that then count by their signs are signs.
    assert why(levels=255, products=1 << 24) == ""


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"binarize": False}, "inputs are real"),
        ({"planes": [1, 2, 4]}, "3 pairs of planes .* at most 2"),
        ({"binarize": False, "levels": 3, "planes": [1, 2]}, "4 pairs"),
        ({"channels": 15}, "groups of 15 channels .* 16 at least"),
        ({"scale": torch.zeros(4, dtype=torch.float64)}, r"one type, got torch\.float32, torch\.float64"),
        ({"products": (1 << 24) + 1}, "sums may reach 16777217"),
        ({"products": 1 << 23, "planes": [1, 2]}, "sums may reach 25165824"),
        ({"elements": 0}, "no outputs"),
        ({"elements": 1 << 31}, r"maps of 2\^31"),
        ({"x": torch.zeros(0, 64, 3, 3)}, "no outputs"),
        ({"x": torch.zeros(1, 64, 3, 3, device="meta")}, "several devices"),
    ],
)
def test_what_the_reference_runs(changed: dict[str, Any], said: str) -> None:
    assert re.search(said, why(**changed))


def test_where_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    products = pytest.importorskip("fastcnn.methods.lowprecision.gpu.products", reason="triton is not installed")
    monkeypatch.setattr(rule, "why_not_triton", lambda: "")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert rule.why_not_here(cpu) == "inputs are on cpu"
    assert rule.why_not_here(torch.device("meta")) == "inputs are on meta"
    assert rule.why_not_here(cuda) == ""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert rule.why_not_here(cuda) == "the GPU has compute capability 7.0: 7.5 at least"
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert rule.why_not_here(cuda) == "kernels are for NVIDIA GPUs"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    # Too late for this process, in which triton compiles.
    assert rule.why_not_here(cpu) == "inputs are on cpu"
    monkeypatch.setattr(products, "INTERPRETED", True)
    assert rule.why_not_here(cpu) == ""
    monkeypatch.setattr(rule, "why_not_triton", lambda: "no triton")
    assert rule.why_not_here(cuda) == "no triton"


def test_which_triton_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    look = rule.why_not_triton.__wrapped__
    for found in ("3.7.1", "3.10.0+git1", "4.0"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, found=found: found)
        assert look() == ""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.6.0")
    assert look().startswith("triton 3.6.0 is installed, 3.7 is the oldest that serves: run")

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert look() == 'triton is not installed: run  python3 -m pip install "fastcnn[gpu]"'


def test_who_watches_sees_every_call(caplog: pytest.LogCaptureFixture) -> None:
    x, flat = torch.randn(1, 16, 5, 5), torch.randn(2, 70)
    conv = (x, pack_signs(torch.randn(4, 16, 3, 3)), None, None, [3, 3], [1, 1], [1, 1], [1, 1], 1, [1], True, 1)
    with caplog.at_level(logging.DEBUG, logger="fastcnn"), watch() as choices:
        binary_conv2d(*conv)
        with watch() as inner:
            binary_linear(flat, pack_signs(torch.randn(3, 70)), None, None, [1], True)
    binary_conv2d(*conv)
    (seen,) = choices
    assert seen == rule.Choice(op="binary_conv2d", shape=(1, 16, 5, 5), kernel="reference", why="inputs are on cpu")
    assert [(choice.op, choice.shape) for choice in inner] == [("binary_linear", (2, 70))]
    assert "binary_conv2d of (1, 16, 5, 5) runs on the reference kernel: inputs are on cpu" in caplog.text


@pytest.mark.parametrize(
    "window", [Window(), Window(kernel_size=(3, 2), stride=(2, 3), padding=(1, 0, 2, 3), dilation=(2, 4))]
)
def test_sizes_are_those_of_torch(window: Window) -> None:
    x, weight = torch.zeros(2, 4, 9, 11), torch.zeros(6, 4, *window.kernel_size)
    top, left, bottom, right = window.padding
    y = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (left, right, top, bottom)), weight, None, window.stride, 0, window.dilation
    )
    assert window.size(9, 11) == tuple(y.shape[2:])
    assert window.elements(x, 6) == y.numel()
    assert window.elements(x[0], 6) == 0
    assert Window(kernel_size=(12, 1)).elements(x, 6) == 0
    assert Window(groups=4).elements(x, 6) == 0


@pytest.mark.parametrize(
    ("positions", "outputs", "tile"),
    [
        (8192, 8192, (8, 8, 16, 16)),
        (200704, 64, (8, 4, 16, 16)),
        (3136, 512, (4, 4, 16, 16)),
        (196, 256, (1, 1, 16, 16)),
        (1, 4096, (1, 1, 1, 256)),
        (5, 40, (1, 1, 8, 32)),
        (4096, 3, (1, 1, 64, 4)),
        (1, 1, (1, 1, 1, 256)),
    ],
)
def test_tiles_fill_a_gpu(positions: int, outputs: int, tile: tuple[int, ...]) -> None:
    products = pytest.importorskip("fastcnn.methods.lowprecision.gpu.products", reason="triton is not installed")
    found = products.choose_tile(positions, outputs, 1, 132)
    assert (found.rm, found.rn, found.tm, found.tn) == tile
    assert found.tm * found.tn == products.THREADS
    # All powers of two: Triton's axes have no other lengths.
    assert all(number & (number - 1) == 0 for number in tile)
