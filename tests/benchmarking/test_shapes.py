"""The shape files hold what the nets do: multiply-adds of the papers, and what the generator writes today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fastcnn.benchmarking import SUITES, suite_models

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "shapes"
# Billions of multiply-adds at 224x224, as published; the papers round, and MobileNetV2 and ResNet-50 (3.8, with the
# stride in the first 1x1 as there) leave out a little.
PUBLISHED = {"vgg16": 15.47, "resnet18": 1.81, "resnet50": 3.8, "mobilenetv2": 0.30, "alexnet": 1.13}


def _macs(line: str) -> int:
    _, *numbers = line.split()
    c_in, h, w, c_out, kh, kw, stride, padding, dilation, groups, count = map(int, numbers)
    rows = (h + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    columns = (w + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    return rows * columns * c_out * (c_in // groups) * kh * kw * count


@pytest.mark.parametrize("net", SUITES["foundation"])
def test_shapes_add_up_to_the_published_work(net: str) -> None:
    lines = (FOLDER / f"{net}.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# kind C_in H W")
    assert sum(map(_macs, lines[1:])) / 1e9 == pytest.approx(PUBLISHED[net], rel=0.05)


@pytest.mark.zoo
def test_the_generator_writes_these_files() -> None:
    spec = importlib.util.spec_from_file_location("make_shapes", FOLDER / "make_shapes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ((_, model),) = suite_models("foundation", (1, 3, 224, 224), only="mobilenetv2")
    written = (FOLDER / "mobilenetv2.txt").read_text(encoding="utf-8")
    assert written == "\n".join([module.HEAD, *module.layer_shapes(model)]) + "\n"
