"""Products of polynomials: by Fourier transforms and modulo primes, against schoolbook in Python's integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.methods.transforms.fft import polynomial_multiply
from fastcnn.methods.transforms.fft.number_theoretic import (
    MAX_LENGTH,
    MODULUS,
    inverse_number_theoretic_transform,
    number_theoretic_transform,
    polynomial_multiply_exact,
    polynomial_multiply_modular,
    primes,
)
from fastcnn.methods.transforms.fft.polynomial import ROUNDING, SAFETY


def schoolbook(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    """Every coefficient times every other, in the numbers' own arithmetic."""
    product = [0 * a[0] * b[0]] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] += x * y
    return product


def integers(seed: int, count: int, largest: int) -> list[int]:
    return np.random.default_rng(seed).integers(-largest, largest, count, endpoint=True).tolist()


small = st.lists(st.integers(-1000, 1000), min_size=1, max_size=40)
large = st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(small, small)
def test_integers_are_exact(a: list[int], b: list[int]) -> None:
    got = polynomial_multiply(a, b)
    assert got.dtype == np.int64
    assert got.tolist() == schoolbook(a, b)
    assert polynomial_multiply(np.array(a, np.int16), np.array(b, np.int32)).tolist() == schoolbook(a, b)


@settings(max_examples=60, deadline=None)
@given(large, large)
def test_the_exact_product_is_the_schoolbooks(a: list[int], b: list[int]) -> None:
    got = polynomial_multiply_exact(a, b)
    assert got == schoolbook(a, b)
    assert all(type(value) is int for value in got)
    assert polynomial_multiply_modular(a, b).tolist() == [value % MODULUS for value in schoolbook(a, b)]


@pytest.mark.parametrize("kind", ["random", "constant", "signs"])
@pytest.mark.parametrize("count", [1, 2, 3, 500, 512, 20_000, 1 << 16])
def test_integers_at_the_edge_of_the_bound_are_exact_and_beyond_it_refused(kind: str, count: int) -> None:
    """The largest coefficients that are let through, in the worst patterns, against the transform modulo primes."""
    largest = int((1 / 32 / (ROUNDING * log2(8 * count) * count)) ** 0.5)
    a, b = [largest] * count, [largest] * count
    if kind == "random":
        a, b = integers(1, count, largest), integers(2, count, largest)
    elif kind == "signs":
        a = [largest * (-1) ** (k * (k - 1) // 2 % 2) for k in range(count)]
    exact = polynomial_multiply_exact(a, b)
    assert polynomial_multiply(a, b).tolist() == exact
    # Before rounding, the error is within the estimate.
    floats = polynomial_multiply(np.array(a, float), np.array(b, float))
    error = max(abs(Fraction(got) - want) for got, want in zip(floats.tolist(), exact, strict=True))
    assert error <= Fraction(1, 32)
    with pytest.raises(ValueError, match="polynomial_multiply_exact"):
        polynomial_multiply([3 * value for value in [largest] * count], [largest] * count)


def test_the_coefficients_that_the_docstring_allows() -> None:
    assert SAFETY == 1 / 32
    assert polynomial_multiply([16_000] * 65_536, [16_000] * 65_536).max() == 16_000**2 * 65_536
    with pytest.raises(ValueError, match=r"may be off by 0\.034 before rounding, and only 0\.03125 is safe"):
        polynomial_multiply([17_000] * 65_536, [17_000] * 65_536)


def test_the_edge_of_the_bound_is_where_errors_begin_to_show() -> None:
    """Where the estimate is 10, roundings go wrong, though a float64 holds every coefficient of the product."""
    a = [300_000] * (1 << 16)
    exact = polynomial_multiply_exact(a, a)
    assert max(exact) < 1 << 53
    rounded = np.rint(polynomial_multiply(np.array(a, float), np.array(a, float)))
    assert rounded.tolist() != exact
    with pytest.raises(ValueError, match=r"norms are 7\.68e\+07 and 7\.68e\+07 may be off by 11 before rounding"):
        polynomial_multiply(a, a)


@settings(max_examples=40, deadline=None)
@given(m=st.integers(1, 90), n=st.integers(1, 90), complex_a=st.booleans(), complex_b=st.booleans())
def test_real_and_complex_products(m: int, n: int, complex_a: bool, complex_b: bool) -> None:
    rng = np.random.default_rng([m, n])
    a, b = rng.standard_normal(m), rng.standard_normal(n)
    a = a + 1j * rng.standard_normal(m) if complex_a else a
    b = b + 1j * rng.standard_normal(n) if complex_b else b
    got = polynomial_multiply(a, b)
    assert got.dtype == (np.complex128 if complex_a or complex_b else np.float64)
    want = np.array(schoolbook(a.tolist(), b.tolist()))
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-15 * log2(4 * (m + n)) * np.linalg.norm(a) * np.linalg.norm(b)


def test_mixed_factors_are_real_or_complex() -> None:
    assert polynomial_multiply([1, 2], [0.5]).tolist() == [0.5, 1.0]
    assert polynomial_multiply([1, 2], [0.5]).dtype == np.float64
    assert polynomial_multiply([1, 2], [1j]).dtype == np.complex128
    assert polynomial_multiply([2**40, 1], [0]).tolist() == [0, 0]


def test_large_integers_in_a_list_are_not_rounded_by_numpy() -> None:
    """NumPy makes floats of [2**63, -1]; the factors are still integers, and still exact or refused."""
    assert polynomial_multiply_exact([2**63, -1], [1, 1]) == [2**63, 2**63 - 1, -1]
    with pytest.raises(ValueError, match="polynomial_multiply_exact"):
        polynomial_multiply([2**63, -1], [1, 1])
    assert polynomial_multiply_exact(np.array([2**64 - 1], np.uint64), np.array([2], object)) == [2**65 - 2]


def test_transforms_modulo_a_prime_are_the_definition() -> None:
    for p in primes()[:3]:
        for n in (1, 2, 8, 64):
            x = integers(n, n, 10**12)
            spectrum = number_theoretic_transform(x, p).tolist()
            # The values of a transform are the polynomial at the powers of one root of order n.
            root = number_theoretic_transform([0, 1] + [0] * (n - 2), p).tolist()[1] if n > 1 else 1
            assert pow(root, n, p) == 1
            assert n == 1 or pow(root, n // 2, p) == p - 1
            assert spectrum == [sum(v * pow(root, j * k, p) for j, v in enumerate(x)) % p for k in range(n)]
            assert inverse_number_theoretic_transform(spectrum, p).tolist() == [value % p for value in x]


def test_a_product_of_transforms_is_cyclic_convolution() -> None:
    a, b = integers(1, 16, 10**9), integers(2, 16, 10**9)
    product = number_theoretic_transform(a) * number_theoretic_transform(b) % MODULUS
    wrapped = [sum(a[j] * b[(k - j) % 16] for j in range(16)) % MODULUS for k in range(16)]
    assert inverse_number_theoretic_transform(product).tolist() == wrapped


def test_the_primes_are_primes_with_the_roots_they_need() -> None:
    found = primes()
    assert found[0] == MODULUS
    assert len(set(found)) == len(found)
    assert np.prod(np.array(found, object)).bit_length() == 569  # the figure in the docstring
    for p in found:
        assert p < 1 << 31
        assert (p - 1) % MAX_LENGTH == 0
        # Lucas: an element of order p - 1 proves p prime.
        factors = {q for q in range(2, (p - 1) // MAX_LENGTH + 1) if (p - 1) % q == 0} | {2}
        assert any(pow(g, p - 1, p) == 1 and all(pow(g, (p - 1) // q, p) != 1 for q in factors) for g in range(2, 100))


def test_the_largest_product_that_the_primes_hold() -> None:
    value = 1 << 283
    assert polynomial_multiply_exact([value, -value], [value, value]) == [value**2, 0, -(value**2)]
    with pytest.raises(ValueError, match=r"may need \d+ bits, and the 19 primes hold 568"):
        polynomial_multiply_exact([value << 2], [value])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: polynomial_multiply([], [1]), ValueError, r"a has shape \(0,\): a polynomial is one axis"),
        (lambda: polynomial_multiply([1], [[1, 2]]), ValueError, r"b has shape \(1, 2\)"),
        (lambda: polynomial_multiply([1], 3), ValueError, r"b has shape \(\)"),
        (lambda: polynomial_multiply([True], [1]), TypeError, "a holds bool: coefficients are integers, real"),
        (lambda: polynomial_multiply([1], ["x"]), TypeError, "b holds <U1"),
        (lambda: polynomial_multiply("12", [1]), TypeError, "a holds <U2"),
        (lambda: polynomial_multiply([Fraction(1, 2)], [1]), TypeError, "a holds objects"),
        (lambda: polynomial_multiply([10**400], [1]), ValueError, "norms are inf and"),
        (lambda: polynomial_multiply_exact([1.0], [1]), TypeError, "a holds float64: exact transforms take integers"),
        (lambda: polynomial_multiply_exact([1], []), ValueError, r"b has shape \(0,\)"),
        (lambda: polynomial_multiply_modular([1], [1], 7), ValueError, r"modulus=7 is not supported: choose one of"),
        (lambda: polynomial_multiply_modular([1], [0.5]), TypeError, "b holds float64"),
        (lambda: number_theoretic_transform([1, 2, 3]), ValueError, "a transform of 3 values is not supported"),
        (
            lambda: inverse_number_theoretic_transform([1, 2, 3]),
            ValueError,
            "it must be a power of two, at most 8388608",
        ),
        (lambda: number_theoretic_transform([0.5, 1]), TypeError, "x holds float64"),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_product_too_long_for_the_primes_is_refused_before_any_work() -> None:
    half = np.zeros(MAX_LENGTH // 2 + 1, np.int8)
    with pytest.raises(ValueError, match="a transform of 16777216 values is not supported"):
        polynomial_multiply_exact(half, half)
