"""The benchmark of bits on a GPU: refusals, goals, and a run in small by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastcnn.benchmarking import gpu_bits
from fastcnn.benchmarking.gpu_bits import BITS, FLOAT32, LAYER, ONE_EACH, ONE_EACH_BITS, SIZE
from tests.methods.lowprecision.gpu.marks import SECONDS, needs_triton

IN_SMALL = """
import torch
from fastcnn.benchmarking import gpu_bits as g
cpu, turns = torch.device("cpu"), {"rounds": 1, "seconds": 1e-6}
product = g.measure_product(34, cpu, **turns, sweep=False)
cell = g.measure_convolution(g.Cell(channels=20, size=3, batch=2), cpu, **turns)
words = g.words_of(torch.ones(20, 40), torch.ones(24, 40))
assert all((g.multiply_words(*words, 40, tile) == 40).all() for tile in g.tiles_to_try()[::5])
print(g.table({"gpu": {"name": "none"}, "product": product, "gates": g.gates(product["ms"]), "convolutions": [cell]}))
calls, signs, columns = g.product_calls(34, cpu)
wrong = {**calls, g.BITS: lambda: calls[g.BITS]() + 2}
try:
    g.check_product(wrong, signs, columns)
except g.EngineFailedError as error:
    print(error)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.json"
    assert gpu_bits.main(["--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "error: there is no CUDA device" in said
    assert not out.exists()


@pytest.mark.parametrize("given", [["--rounds", "0"], ["--seconds", "nan"], ["--seconds", "0"]])
def test_bad_arguments_are_named(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_bits.main(["--out", "x.json", *given]) == 2
    assert "--rounds must be at least 1, --seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("each", "float32", "met"),
    [(7.0, 1.1, [True, True]), (6.9, 3.0, [False, True]), (30.0, 1.0, [True, False])],
)
def test_goals(each: float, float32: float, met: list[bool]) -> None:
    gates = gpu_bits.gates({BITS: [2.0, 2.0, 8.0], ONE_EACH: [2 * each, 2 * each, 1.0], FLOAT32: [2 * float32] * 3})
    assert [gate["over"] for gate in gates] == [ONE_EACH, FLOAT32]
    assert [gate["gain"] for gate in gates] == pytest.approx([each, float32])
    assert [gate["met"] for gate in gates] == met
    assert (SIZE, [gate["min_gain"] for gate in gates]) == (8192, [7.0, 1.0])


def test_precision_is_set_and_put_back() -> None:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark
    for name in ("ieee", "tf32"):
        with gpu_bits.precision(name):
            assert (matmul.fp32_precision, conv.fp32_precision) == (name, name)
            assert torch.backends.cudnn.benchmark
    assert (matmul.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark) == before


@needs_triton
def test_a_run_in_small() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_SMALL],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    for label in (BITS, ONE_EACH, ONE_EACH_BITS, FLOAT32, LAYER, "error 0.0e+00", "3 x 3, 20 channels, 3 x 3, batch 2"):
        assert label in done.stdout
    assert f"{BITS}: the product of signs is wrong" in done.stdout
