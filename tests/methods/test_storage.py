"""Theory in bits, against the figures of the literature and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.methods.storage import entropy_bits, position_bits, relative_index_bits, sparse_bits


@pytest.mark.parametrize(("density", "bits"), [(0.1, 4.69), (0.05, 5.73), (0.01, 8.08)])
def test_bits_per_nonzero_of_a_random_pattern(density: float, bits: float) -> None:
    n = 1_000_000
    assert position_bits(n, int(n * density)) / (n * density) == pytest.approx(bits, abs=0.005)


def test_nothing_to_say_about_empty_or_full() -> None:
    assert position_bits(10, 0) == position_bits(10, 10) == 0.0
    assert sparse_bits(10, 10) == 320
    assert entropy_bits(np.zeros(0, dtype=np.uint8)) == entropy_bits(np.full(9, 4, dtype=np.uint8)) == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_entropy_is_positions_plus_values(values: list[int]) -> None:
    codes = np.array(values)
    alive = codes[codes != 0]
    want = position_bits(len(codes), len(alive)) + entropy_bits(alive)
    assert entropy_bits(codes) == pytest.approx(want, abs=1e-9)


def naive_relative(flat: list[bool], k: int, b: int) -> int:
    entries = gap = 0
    for alive in flat:
        if alive:
            entries += 1
            gap = 0
        else:
            gap += 1
            if gap == 2**k:
                entries += 1
                gap = 0
    # Fillers after the last non-zero are not written.
    trailing = len(flat) - 1 - max((i for i, alive in enumerate(flat) if alive), default=-1)
    return (k + b) * (entries - trailing // 2**k)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([True, False, False, False, False]), min_size=1, max_size=120), st.integers(1, 4))
def test_relative_index_counts_fillers(flat: list[bool], k: int) -> None:
    assert relative_index_bits(np.array(flat), k, 8) == naive_relative(flat, k, 8)


def test_gaps_of_exactly_a_filler() -> None:
    flat = np.zeros(64, dtype=bool)
    flat[[16, 48]] = True
    # Gaps 16 and 31 with 4-bit indices: one filler each.
    assert relative_index_bits(flat, 4, 8) == 4 * 12


@pytest.mark.parametrize(("k", "share"), [(5, 0.051), (4, 0.28)])
def test_share_of_fillers_at_nine_percent(k: int, share: float) -> None:
    flat = np.random.default_rng(0).random(2_000_000) < 0.09
    entries = relative_index_bits(flat, k, 0) / k
    assert entries / flat.sum() - 1 == pytest.approx(share, abs=0.005)
