"""The Walsh-Hadamard transform against scipy's matrix: the same rows, its own inverse, lengths kept."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from fastcnn.methods.structured import hadamard as module
from fastcnn.methods.structured.hadamard import hadamard, hadamard_macs, next_power_of_two, split

ORDERS = [1, 2, 4, 8, 16, 32, 64, 128, 512, 1024]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize("n", ORDERS)
def test_the_transform_is_scipys_matrix_made_orthonormal(n: int) -> None:
    want = scipy.linalg.hadamard(n) / np.sqrt(n)
    got = hadamard(torch.eye(n, dtype=torch.float64)).numpy()
    assert np.abs(got - want).max() <= 1e-15


@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-15)])
def test_twice_the_transform_is_the_signal_and_lengths_stay(n: int, dtype: torch.dtype, limit: float) -> None:
    x = torch.randn(5, n, dtype=dtype)
    y = hadamard(x)
    assert float((hadamard(y) - x).abs().max()) <= limit * float(x.abs().max())
    assert torch.allclose(y.norm(dim=-1), x.norm(dim=-1), rtol=10 * limit, atol=0)
    if n > 1:
        assert not torch.allclose(y, x)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 2, 8), (2, 1, 3, 16), (0, 4), (2, 0, 4)])
def test_any_leading_axes(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    matrix = torch.from_numpy(scipy.linalg.hadamard(shape[-1]) / np.sqrt(shape[-1]))
    y = hadamard(x)
    assert y.shape == x.shape
    assert torch.allclose(y, x @ matrix, rtol=0, atol=1e-14)


def test_strided_inputs_and_no_alias() -> None:
    x = torch.randn(16, 6, dtype=torch.float64).t()
    assert not x.is_contiguous()
    y = hadamard(x)
    assert torch.equal(y, hadamard(x.contiguous()))
    assert y.is_contiguous()
    one = torch.ones(3, 1)
    hadamard(one).zero_()
    assert torch.equal(one, torch.ones(3, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x = torch.randn(4, 256).to(dtype)
    y = hadamard(x)
    assert y.dtype == dtype
    assert torch.equal(y, hadamard(x.float()).to(dtype))


def test_gradients_of_first_and_second_order() -> None:
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hadamard, (x,))
    assert torch.autograd.gradgradcheck(lambda v: hadamard(v).square() * hadamard(v * v), (x,))


def test_the_op_is_well_formed() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    torch.library.opcheck(
        torch.ops.fastcnn.hadamard,
        (x,),
        test_utils=["test_schema", "test_autograd_registration", "test_faketensor"],
    )


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 6), ValueError, r"shape \(2, 6\) has no last axis of a power of two: pad it with zeros to 8"),
        (torch.zeros(2, 0), ValueError, r"shape \(2, 0\)"),
        (torch.tensor(1.0), ValueError, r"shape \(\)"),
        (torch.zeros(4, dtype=torch.int64), TypeError, r"floating point tensor, got torch\.int64"),
        (torch.zeros(4, dtype=torch.complex64), TypeError, r"got torch\.complex64"),
        (np.zeros(4), TypeError, "got ndarray"),
    ],
)
def test_bad_inputs_are_named(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hadamard(x)


def test_sizes() -> None:
    assert [next_power_of_two(n) for n in (1, 2, 3, 4, 5, 1023, 1024, 1025)] == [1, 2, 4, 4, 8, 1024, 1024, 2048]
    assert [split(n) for n in (1, 2, 4, 8, 1024, 2048)] == [(1, 1), (1, 2), (2, 2), (2, 4), (32, 32), (32, 64)]


def test_macs_are_the_additions_of_the_butterflies() -> None:
    def additions(values: list[float]) -> tuple[list[float], int]:
        """The recursion, counted: both halves, then one addition or subtraction per number."""
        if len(values) == 1:
            return values, 0
        half = len(values) // 2
        (upper, first), (lower, second) = additions(values[:half]), additions(values[half:])
        both = list(zip(upper, lower, strict=True))
        return [u + v for u, v in both] + [u - v for u, v in both], first + second + len(values)

    for n in (1, 2, 8, 64):
        x = torch.randn(n, dtype=torch.float64)
        values, count = additions(x.tolist())
        assert hadamard_macs(n) == count
        want: Tensor = torch.tensor(values, dtype=torch.float64) / n**0.5
        assert torch.allclose(hadamard(x), want, rtol=0, atol=1e-14)


def test_the_examples_of_the_docstrings() -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0
