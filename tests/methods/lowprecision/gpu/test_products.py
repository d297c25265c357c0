"""Kernels of bits against plain loops in float64: by Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcnn.benchmarking.gpu_bits import precision
from fastcnn.methods.lowprecision.gpu import watch
from tests.methods.lowprecision.gpu.cases import CASES, Case, computed, expected
from tests.methods.lowprecision.gpu.layers import LAYERS, packed
from tests.methods.lowprecision.gpu.marks import SECONDS, needs_gpu, needs_triton

ROOT = Path(__file__).parents[4]


def child(folder: Path, module: str, *words: str, **environment: str) -> str:
    """Run a module of these tests in a fresh process; what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.methods.lowprecision.gpu.{module}", *words],
        cwd=ROOT,
        env={**kept, "TRITON_CACHE_DIR": str(folder / "triton"), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("interpreted")
    child(folder, "interpreted", str(folder / "found.pt"), TRITON_INTERPRET="1")
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found


def check(case: Case, y: Tensor) -> None:
    """Each output is what the loops say, and NaN in none."""
    want = expected(case)
    assert y.dtype == getattr(torch, case.dtype)
    assert y.shape == want.shape
    assert y.is_contiguous(memory_format=torch.channels_last) if case.last else y.is_contiguous()
    np.testing.assert_array_equal(y.double().cpu().numpy(), want.astype(np.float64))


@needs_triton
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_interpreter_says_what_loops_say(case: Case, interpreted: dict[str, Any]) -> None:
    y, ran = interpreted[str(case)]
    check(case, y)
    assert ran == ([] if case.tile else [("triton", "")])


@needs_triton
@pytest.mark.parametrize("name", LAYERS)
def test_layers_say_the_same_in_bits_and_by_the_reference(name: str, interpreted: dict[str, Any]) -> None:
    y, ran = interpreted[name]
    layer, x = packed(name)
    with watch() as choices:
        want = layer(x)
    assert torch.equal(y, want)
    assert [(choice.kernel, choice.why) for choice in choices] == [("reference", "inputs are on cpu")]
    why = LAYERS[name][2]
    assert [kernel for kernel, _ in ran] == ["reference" if why else "triton"]
    assert ran[0][1].startswith(why)


@needs_triton
def test_words_hold_signs_lowest_bit_first_and_zeros_behind(interpreted: dict[str, Any]) -> None:
    for channels, (x, words, laid_out) in interpreted["words"].items():
        wide = -(-channels // 32)
        want = [
            sum(1 << c % 32 for c in range(w * 32, min(channels, w * 32 + 32)) if row[c] < 0)
            for row in x[:, :, 0, 0].tolist()
            for w in range(wide)
        ]
        assert words.shape == (1, 3, wide, 1)
        assert [word % (1 << 32) for word in words.flatten().tolist()] == want
        assert laid_out.shape == (1, wide, 3)
        assert [word % (1 << 32) for word in laid_out[0].T.flatten().tolist()] == want


@needs_triton
def test_everything_compiles_for_gpus_as_it_should(tmp_path: Path) -> None:
    """One count for each pair of words in the innermost loop; no barrier and no local memory; no fused rounding."""
    found = json.loads(child(tmp_path, "compiled"))
    assert list(found) == ["80", "90"]
    for kernels in found.values():
        assert set(kernels) == {"pack", "lay_out", "convolve", "one_output_each"}
        # Outputs of a thread times unrolled words, and for levels the inputs' own bits.
        assert [made["popc"] for made in kernels["convolve"]] == [128, 32, 80, 256, 8]
        assert all(made["barriers"] == made["local"] == 0 for made in kernels["convolve"])
        assert [made["fused"] for made in kernels["convolve"][:4]] == [0] * 4
        assert [made["popc"] for made in kernels["one_output_each"]] == [0, 1]
        assert all(made["cubin"] > 0 for variants in kernels.values() for made in variants)


@needs_gpu
@needs_triton
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_says_what_loops_say(case: Case) -> None:
    with watch() as choices:
        y = computed(case, "cuda")
    check(case, y)
    assert [choice.kernel for choice in choices] == ([] if case.tile else ["triton"])


@needs_gpu
@needs_triton
@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_the_gpu_say_what_they_say_on_the_cpu(name: str) -> None:
    layer, x = packed(name)
    want = layer(x)
    with watch() as choices, precision("ieee"):
        y = layer.cuda()(x.cuda())
    why = LAYERS[name][2]
    assert [choice.kernel for choice in choices] == ["reference" if why else "triton"]
    # Means of inputs, and what the reference sums, may be rounded in another order there, or transformed.
    torch.testing.assert_close(y.cpu(), want, rtol=1e-4, atol=1e-3)
    if not why and "xnor" not in name:
        assert torch.equal(y.cpu(), want)
