"""The cosine transform against scipy's: any length, both ways to compute it, inverse and gradients."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch

from fastcnn.methods.structured import dct as module
from fastcnn.methods.structured.dct import LONGEST_MATRIX, dct, dct_macs, idct, table_bytes

SHORT = [1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 97, 100, 127, 511, 512]
LONG = [513, 521, 600, 1000, 1009, 1023, 1024, 2048, 4093]
LIMITS = [(torch.float32, 3e-6), (torch.float64, 1e-14)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


def relative(got: torch.Tensor, want: np.ndarray[Any, Any]) -> float:
    return float(np.abs(got.double().numpy() - want).max() / np.abs(want).max())


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
@pytest.mark.parametrize("n", SHORT + LONG)
def test_both_ways_are_scipys(n: int, dtype: torch.dtype, limit: float) -> None:
    x = torch.randn(3, n, dtype=dtype)
    exact = x.double().numpy()
    assert relative(dct(x), scipy.fft.dct(exact, norm="ortho")) <= limit
    assert relative(idct(x), scipy.fft.idct(exact, norm="ortho")) <= limit


@pytest.mark.parametrize("n", [2, 3, 10, 11, 64, 513, 1001])
def test_the_fft_and_the_matrix_agree_below_and_above_the_limit(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, n, dtype=torch.float64)
    monkeypatch.setattr(module, "LONGEST_MATRIX", 0)
    by_fft = dct(x), idct(x)
    monkeypatch.setattr(module, "LONGEST_MATRIX", n)
    by_matrix = dct(x), idct(x)
    for one, other in zip(by_fft, by_matrix, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 512, 513, 1000, 1009])
@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
def test_the_inverse_undoes_it_and_lengths_stay(n: int, dtype: torch.dtype, limit: float) -> None:
    x = torch.randn(4, n, dtype=dtype)
    assert float((idct(dct(x)) - x).abs().max()) <= limit * float(x.abs().max())
    assert float((dct(idct(x)) - x).abs().max()) <= limit * float(x.abs().max())
    assert torch.allclose(dct(x).norm(dim=-1), x.norm(dim=-1), rtol=10 * limit, atol=0)


def test_the_definition_by_loops() -> None:
    n = 6
    x = torch.randn(n, dtype=torch.float64)
    for k in range(n):
        factor = math.sqrt((1 if k == 0 else 2) / n)
        want = factor * sum(float(x[j]) * math.cos(math.pi * k * (2 * j + 1) / (2 * n)) for j in range(n))
        assert float(dct(x)[k]) == pytest.approx(want, abs=1e-14)


@pytest.mark.parametrize("n", [5, 600])
@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (0,), (2, 0)])
def test_any_leading_axes(lead: tuple[int, ...], n: int) -> None:
    x = torch.randn(*lead, n, dtype=torch.float64)
    for transform, oracle in ((dct, scipy.fft.dct), (idct, scipy.fft.idct)):
        y = transform(x)
        assert y.shape == x.shape
        if x.numel():
            assert relative(y, oracle(x.numpy(), norm="ortho")) <= 1e-14


@pytest.mark.parametrize("n", [6, 514])
def test_strided_inputs_and_no_alias(n: int) -> None:
    x = torch.randn(n, 3, dtype=torch.float64).t()
    assert not x.is_contiguous()
    assert torch.allclose(dct(x), dct(x.contiguous()), rtol=0, atol=1e-14)
    assert dct(x).is_contiguous()
    assert idct(x).is_contiguous()
    one = torch.ones(3, 1)
    dct(one).zero_()
    assert torch.equal(one, torch.ones(3, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [24, 700])
def test_halves_are_computed_in_float32_and_rounded_once(n: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, n).to(dtype)
    for transform in (dct, idct):
        y = transform(x)
        assert y.dtype == dtype
        assert torch.equal(y, transform(x.float()).to(dtype))


@pytest.mark.parametrize("transform", [dct, idct])
@pytest.mark.parametrize("longest", [0, 512])
def test_gradients_of_first_and_second_order(transform: Any, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_MATRIX", longest)
    for n in (6, 7):
        x = torch.randn(2, n, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(transform, (x,))
        assert torch.autograd.gradgradcheck(lambda v: transform(v).square() * transform(v * v), (x,))


def test_the_op_is_well_formed() -> None:
    for n in (5, LONGEST_MATRIX + 1):
        for inverse in (False, True):
            torch.library.opcheck(
                torch.ops.fastcnn.dct,
                (torch.randn(2, n, requires_grad=True), inverse),
                test_utils=["test_schema", "test_autograd_registration", "test_faketensor"],
            )


def test_the_tables_that_are_kept_are_few() -> None:
    for n in range(2, 60):
        dct(torch.zeros(n))
        dct(torch.zeros(LONGEST_MATRIX + n))
    assert module._matrix.cache_info().currsize <= 16
    assert module._turns.cache_info().currsize <= 16


def test_a_table_made_in_inference_mode_serves_training() -> None:
    module._matrix.cache_clear()
    with torch.inference_mode():
        dct(torch.zeros(21))
    x = torch.randn(21, dtype=torch.float32, requires_grad=True)
    dct(x).square().sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)


@pytest.mark.parametrize("transform", [dct, idct])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 0), ValueError, r"shape \(2, 0\) has no numbers along its last axis"),
        (torch.tensor(1.0), ValueError, r"shape \(\)"),
        (torch.zeros(4, dtype=torch.int64), TypeError, r"floating point tensor, got torch\.int64"),
        (torch.zeros(4, dtype=torch.complex64), TypeError, r"got torch\.complex64"),
        (np.zeros(4), TypeError, "got ndarray"),
    ],
)
def test_bad_inputs_are_named(transform: Any, x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        transform(x)


def test_arithmetic() -> None:
    assert [dct_macs(n) for n in (1, 2, 6, 8, 1024)] == [0, 2, 16, 24, 10240]
    assert table_bytes(512) == 4 * 512 * 512
    assert table_bytes(1000) == 2 * 8 * 501


def test_the_examples_of_the_docstrings() -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0
