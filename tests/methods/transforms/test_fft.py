"""The own FFT against numpy.fft and the definition: every length, every algorithm, and the laws of the transform."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import next_fast_len

import fastcnn.methods.transforms.fft as room
from fastcnn.methods.transforms.fft import fft, ifft, irfft, irfft2, next_fast_length, rfft, rfft2
from fastcnn.methods.transforms.fft.bluestein import bluestein_fft, chirp
from fastcnn.methods.transforms.fft.lengths import radices_of
from fastcnn.methods.transforms.fft.mixed_radix import BUTTERFLIES, digit_reversal, mixed_radix_fft, radix_pass
from fastcnn.methods.transforms.fft.radix2 import bit_reversal, radix2_fft
from fastcnn.methods.transforms.fft.real_fft import inverse_real_transform, two_for_one
from fastcnn.methods.transforms.fft.roots import roots_of_unity

LIMIT = 1e-12  # what the design asks for; a few roundings per level of the transforms stay a thousand times below
LENGTHS = [*range(1, 513), 1 << 16]
SOME = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 25, 27, 30, 31, 32, 49, 60, 64, 97, 125, 243, 256, 360]


def complex_values(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def real_values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def definition(x: np.ndarray) -> np.ndarray:
    """The sum as it is written, with exponents reduced in integers."""
    n = x.shape[-1]
    exponents = np.outer(np.arange(n), np.arange(n)) % n
    return x @ np.exp(-2j * np.pi * exponents / n)


def check(got: np.ndarray, want: np.ndarray, limit: float = LIMIT) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert np.abs(got - want).max() <= limit * np.abs(want).max()


@pytest.mark.parametrize("block", range(0, len(LENGTHS), 57))
def test_every_length_agrees_with_numpy(block: int) -> None:
    for n in LENGTHS[block : block + 57]:
        z, x, bins = complex_values(2, n), real_values(2, n), complex_values(2, n // 2 + 1, seed=1)
        check(fft(z), np.fft.fft(z))
        check(ifft(z), np.fft.ifft(z))
        check(rfft(x), np.fft.rfft(x))
        check(irfft(bins, n), np.fft.irfft(bins, n))


@pytest.mark.parametrize("n", SOME)
def test_every_algorithm_agrees_with_the_definition(n: int) -> None:
    z = complex_values(3, n)
    want = definition(z)
    check(bluestein_fft(z), want)
    radices = radices_of(n)
    if radices is not None:
        check(mixed_radix_fft(z, radices), want)
        check(mixed_radix_fft(z, radices[::-1]), want)
    if n & (n - 1) == 0:
        check(radix2_fft(z), want)


@pytest.mark.parametrize("radix", BUTTERFLIES)
def test_a_butterfly_is_the_transform_of_its_length(radix: int) -> None:
    z = complex_values(radix)
    check(np.array(BUTTERFLIES[radix](list(z))), definition(z))


@pytest.mark.parametrize("radix", BUTTERFLIES)
def test_a_pass_joins_transforms_of_the_interleaved_parts(radix: int) -> None:
    z = complex_values(2, radix * 7)
    parts = np.concatenate([definition(z[:, part::radix]) for part in range(radix)], axis=1)
    check(radix_pass(parts, radix, 7), definition(z))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 8), (8, 1), (5, 7), (6, 10), (7, 6), (16, 16), (31, 12)])
def test_images_agree_with_numpy(height: int, width: int) -> None:
    image = real_values(2, 3, height, width)
    spectrum = complex_values(2, 3, height, width // 2 + 1)
    check(rfft2(image), np.fft.rfft2(image))
    check(irfft2(spectrum, (height, width)), np.fft.irfft2(spectrum, (height, width)))
    check(irfft2(rfft2(image), (height, width)), image)


def test_padding_is_zeros_behind_the_values() -> None:
    check(fft(complex_values(2, 5), 12), np.fft.fft(complex_values(2, 5), 12))
    check(rfft(real_values(2, 5), 12), np.fft.rfft(real_values(2, 5), 12))
    check(rfft2(real_values(2, 5, 6), (9, 16)), np.fft.rfft2(real_values(2, 5, 6), (9, 16)))


def test_defaults_of_the_inverse_are_even() -> None:
    check(irfft(rfft(real_values(3, 10))), real_values(3, 10))
    check(irfft2(rfft2(real_values(3, 5, 10))), real_values(3, 5, 10))


@pytest.mark.parametrize("call", [fft, ifft, rfft, lambda x: irfft(x, 7), rfft2, lambda x: irfft2(x, (3, 7))])
def test_an_empty_batch_stays_empty(call: Callable[[np.ndarray], np.ndarray]) -> None:
    full = call(np.ones((2, 3, 4)))
    assert call(np.ones((0, 3, 4))).shape == (0, *full.shape[1:])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.bool_, np.float32, np.float64])
def test_real_dtypes_are_taken_as_float64(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 12)).astype(dtype)
    assert np.array_equal(rfft(x), rfft(x.astype(np.float64)))
    assert np.array_equal(fft(x), fft(x.astype(np.complex128)))


def test_arguments_are_left_alone() -> None:
    x, bins = real_values(12), complex_values(7)
    before = x.copy(), bins.copy()
    fft(x), rfft(x), irfft(bins), fft(bins), ifft(bins), rfft2(x.reshape(3, 4)), irfft2(bins[:6].reshape(2, 3))
    assert np.array_equal(x, before[0])
    inverse_real_transform(bins, 12)  # without the checks, which copy
    assert np.array_equal(bins, before[1])


@pytest.mark.parametrize("n", [9, 10, 16, 77])
def test_a_real_spectrum_is_hermitian_and_real_where_it_must_be(n: int) -> None:
    bins = rfft(real_values(n))
    assert bins[0].imag == 0
    assert n % 2 or bins[-1].imag == 0
    whole = fft(real_values(n))
    check(whole[-np.arange(n)], whole.conj())
    check(bins, whole[: n // 2 + 1])


@pytest.mark.parametrize("n", [7, 12])
def test_what_real_values_cannot_give_is_left_out(n: int) -> None:
    bins = rfft(real_values(n))
    spoilt = bins.copy()
    spoilt[0] += 5j
    if n % 2 == 0:
        spoilt[-1] -= 3j
    assert np.array_equal(irfft(spoilt, n), irfft(bins, n))


def test_two_real_signals_come_out_of_one_transform() -> None:
    for n in (1, 2, 9, 16):
        a, b = real_values(2, n), real_values(2, n, seed=1)
        for got, want in zip(two_for_one(a, b), (definition(a), definition(b)), strict=True):
            assert np.abs(got - want).max() <= LIMIT * max(np.abs(want).max(), 1)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200), shift=st.integers(-300, 300), seed=st.integers(0, 2**31))
def test_laws(n: int, shift: int, seed: int) -> None:
    """Inverse, Parseval, linearity, circular shift against phase, and products against cyclic convolution."""
    x, y = complex_values(n, seed=seed), complex_values(n, seed=seed + 1)
    transformed, size = fft(x), np.linalg.norm(x)
    close = LIMIT * size * n
    assert np.abs(ifft(transformed) - x).max() <= close
    assert np.linalg.norm(transformed) ** 2 / n == pytest.approx(size**2, rel=LIMIT)
    assert np.abs(fft(2j * x - 3 * y) - (2j * transformed - 3 * fft(y))).max() <= close + LIMIT * np.linalg.norm(y) * n
    phase = np.exp(-2j * np.pi * (np.arange(n) * shift % n) / n)
    assert np.abs(fft(np.roll(x, shift)) - phase * transformed).max() <= close
    cyclic = np.array([sum(x[j] * y[(k - j) % n] for j in range(n)) for k in range(n)])
    assert np.abs(ifft(transformed * fft(y)) - cyclic).max() <= close * np.linalg.norm(y)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), taps=st.integers(1, 7), extra=st.integers(0, 5))
def test_wrap_around_touches_only_what_a_correlation_discards(height: int, width: int, taps: int, extra: int) -> None:
    """A transform as large as the image is enough: outputs 0 ... H - k are those of linear correlation."""
    taps = min(taps, height, width)
    image, kernel = real_values(height, width, seed=taps), real_values(taps, taps, seed=extra)
    size = (height + extra, width + extra)
    cyclic = irfft2(rfft2(image, size) * rfft2(kernel, size).conj(), size)
    want = np.array(
        [
            [(image[y : y + taps, x : x + taps] * kernel).sum() for x in range(width - taps + 1)]
            for y in range(height - taps + 1)
        ]
    )
    kept = cyclic[: height - taps + 1, : width - taps + 1]
    assert np.abs(kept - want).max() <= LIMIT * np.abs(image).max() * np.abs(kernel).sum()


def test_wrap_around_spoils_the_outputs_behind_them() -> None:
    image, kernel = real_values(16), real_values(5, seed=1)
    cyclic = irfft(rfft(image) * rfft(kernel, 16).conj())
    linear = np.correlate(np.pad(image, (0, 4)), kernel, "valid")
    wrong = np.abs(cyclic - linear) > LIMIT
    assert wrong.tolist() == [False] * 12 + [True] * 4


def test_a_nan_spoils_its_own_transform_and_no_other() -> None:
    for n in (8, 7):
        x = real_values(2, n)
        x[1, 3] = np.nan
        bins = rfft(x)
        assert np.isnan(bins[1]).all()
        check(bins[0], definition(x[0])[: n // 2 + 1])


def test_bit_reversal_is_the_order_of_radix_2() -> None:
    for bits in range(11):
        n = 1 << bits
        want = [int(f"{k:0{bits}b}"[::-1], 2) if bits else 0 for k in range(n)]
        assert bit_reversal(n).tolist() == want
        assert digit_reversal((2,) * bits).tolist() == want


@given(st.lists(st.sampled_from([2, 3, 4, 5]), max_size=5))
def test_digit_reversal_reads_digits_backwards(radices: list[int]) -> None:
    for position, value in enumerate(digit_reversal(radices).tolist()):
        digits = []
        for radix in radices:
            digits.append(position % radix)
            position //= radix
        rebuilt = 0
        for radix, digit in zip(radices, digits, strict=True):
            rebuilt = rebuilt * radix + digit
        assert rebuilt == value


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 12, 360, 1 << 16])
def test_roots_are_right_to_the_last_bits_and_symmetric(n: int) -> None:
    roots = roots_of_unity(n)
    assert np.array_equal(roots[-np.arange(n)], roots.conj())
    if n % 4 == 0:
        assert roots[:: n // 4].tolist() == [1, -1j, -1, 1j]
    # Sine and cosine by their series in fractions: no library, no rounding before the last step.
    pi = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
    for k in {0, n // 8, n // 3, n // 2, 5 * n // 7, n - 1}:
        angle, term, parts = Fraction(2 * k, n) * pi, Fraction(1), [Fraction(0), Fraction(0)]
        for power in range(60):
            parts[power % 2] += term * (-1) ** (power // 2)
            term *= angle / (power + 1)
        assert abs(roots[k].real - float(parts[0])) <= 2.0**-53
        assert abs(roots[k].imag + float(parts[1])) <= 2.0**-53


def test_the_chirp_keeps_its_digits_at_large_lengths() -> None:
    n = 100_003
    last = chirp(n)[-1]
    # (n - 1)^2 = 1 modulo 2 n for odd n, up to n itself: exp(-pi i (n - 1)^2 / n) = exp(-pi i (1 / n + n - 2)).
    assert abs(last - np.exp(-1j * np.pi / n) * (-1) ** (n - 2)) <= 4e-16


def test_fast_lengths_are_the_smallest_smooth_ones() -> None:
    smooth = sorted(2**a * 3**b * 5**c for a in range(17) for b in range(11) for c in range(8))
    for n in range(1, 3000):
        assert next_fast_length(n) == next(m for m in smooth if m >= n)
    for n in [4097, 65537, 10**6 + 1, 2**31 - 1]:
        assert next_fast_length(n) == next_fast_len(n, real=True)
    assert max(Fraction(next_fast_length(n), n) for n in range(1, 30_001)) == Fraction(15, 13)


def test_radices_multiply_to_the_length() -> None:
    for n in range(1, 2000):
        radices, rest = radices_of(n), n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert (radices is None) == (rest > 1)
        if radices is not None:
            assert np.prod(radices, initial=1) == n
            assert radices.count(2) <= 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fft(3.0), ValueError, "x is a single number"),
        (lambda: fft([]), ValueError, r"x has shape \(0,\): the transformed axis needs at least one value"),
        (lambda: ifft(np.ones((2, 0))), ValueError, r"spectrum has shape \(2, 0\)"),
        (lambda: fft(["a"]), TypeError, "x has dtype <U1: the transforms take real or complex numbers"),
        (lambda: fft([None]), TypeError, "x has dtype object"),
        (lambda: rfft([1j]), TypeError, "x is complex128: rfft and rfft2 take real numbers"),
        (lambda: rfft2([[1j]]), TypeError, "fft takes complex ones"),
        (lambda: fft([1, 2, 3], 2), ValueError, "n=2 is shorter than the 3 values of x: crop x first"),
        (lambda: fft([1, 2], 2.0), TypeError, "n must be an integer, got 2.0"),
        (lambda: fft([1, 2], True), TypeError, "n must be an integer, got True"),
        (lambda: rfft([1, 2], 0), ValueError, "n=0 is not a length"),
        (
            lambda: irfft([1, 2, 3], 6),
            ValueError,
            "n=6 does not fit a spectrum of 3 bins, which belongs to 4 or 5 values",
        ),
        (lambda: irfft([1], 2), ValueError, "n=2 does not fit a spectrum of 1 bins, which belongs to 1 value:"),
        (lambda: irfft([1]), ValueError, "pass n=1"),
        (lambda: irfft([1, 2], 0), ValueError, "n=0 is not a length"),
        (lambda: irfft([1, 2], "3"), TypeError, "n must be an integer, got '3'"),
        (lambda: rfft2([1, 2]), ValueError, r"x has shape \(2,\): rfft2 needs at least two axes"),
        (lambda: rfft2(np.ones((0, 4))), ValueError, "the transformed axis needs at least one value"),
        (lambda: rfft2(np.ones((4, 4)), (4, 3)), ValueError, "n=3 is shorter than the 4 values of x"),
        (lambda: rfft2(np.ones((4, 4)), (3, 4)), ValueError, "n=3 is shorter than the 4 values of the columns of x"),
        (lambda: rfft2(np.ones((4, 4)), 8), ValueError, r"shape=8 is not a size: pass \(height, width\)"),
        (lambda: rfft2(np.ones((4, 4)), (8, 8.5)), TypeError, "shape must be an integer, got 8.5"),
        (lambda: irfft2([1, 2]), ValueError, r"spectrum has shape \(2,\): irfft2 needs two last axes"),
        (lambda: irfft2(np.ones((0, 3))), ValueError, r"spectrum has shape \(0, 3\)"),
        (lambda: irfft2(np.ones((4, 3)), (5, 4)), ValueError, r"shape=\(5, 4\) does not fit a spectrum of 4 rows"),
        (lambda: irfft2(np.ones((4, 3)), (4, 6)), ValueError, "the width=6 does not fit a spectrum of 3 bins"),
        (
            lambda: radix2_fft([1, 2, 3]),
            ValueError,
            "x has 3 values along its last axis: radix2_fft needs a power of two",
        ),
        (lambda: bit_reversal(6), ValueError, "n=6 is not supported by bit_reversal"),
        (lambda: next_fast_length(0), ValueError, "n=0 is not a length"),
        (lambda: next_fast_length(7.0), TypeError, "n must be an integer, got 7.0"),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


MODULES = [info.name for info in pkgutil.iter_modules(room.__path__) if not info.name.startswith("conv")]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"{room.__name__}.{module}")).failed == 0


def test_docstrings_have_examples() -> None:
    """The examples are found at all: every public function of the room has one."""
    public = [value for name, value in vars(room).items() if callable(value) and not name.startswith("_")]
    own = [value for value in public if value.__module__.rpartition(".")[2] in MODULES]
    assert len(own) >= 8
    for function in own:
        assert ">>> " in function.__doc__, function
