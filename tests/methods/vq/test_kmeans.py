"""k-means on the line: loss never rises, the programme beats every Lloyd run, k is capped, ties are stable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from fastcnn.methods.vq.kmeans import assign, kmeans_1d


def loss(values: np.ndarray, codebook: np.ndarray, codes: np.ndarray) -> float:
    """Sum of squared errors, by plain subtraction."""
    return float(((np.asarray(values, dtype=np.float64) - codebook[codes]) ** 2).sum())


def brute_force(values: np.ndarray, k: int) -> float:
    """Least loss over every way of cutting the sorted values into k intervals."""
    ordered = np.sort(values)
    best = np.inf
    for cuts in itertools.combinations(range(1, len(ordered)), k - 1):
        parts = np.split(ordered, cuts)
        best = min(best, sum(float(((part - part.mean()) ** 2).sum()) for part in parts))
    return best


numbers = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(numbers, st.integers(1, 12), st.sampled_from(["linear", "quantile", "random"]))
def test_codes_are_nearest_and_centroids_are_means(values: list[float], k: int, init: str) -> None:
    array = np.array(values)
    codebook, codes = kmeans_1d(array, k, init=init)  # type: ignore[arg-type]
    assert len(codebook) == min(k, len(np.unique(array)))
    assert (np.diff(codebook) > 0).all()
    distance = np.abs(array[:, None] - codebook[None])
    assert (distance[np.arange(len(array)), codes] <= distance.min(1) + 1e-9).all()
    for j in range(len(codebook)):
        assert codebook[j] == pytest.approx(array[codes == j].mean(), abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(numbers, st.integers(1, 8))
def test_more_iterations_never_raise_the_loss(values: list[float], k: int) -> None:
    array = np.array(values)
    losses = [loss(array, *kmeans_1d(array, k, init="random", seed=3, max_iterations=i)) for i in range(1, 8)]
    for before, after in itertools.pairwise(losses):
        assert after <= before + 1e-9 * max(1.0, losses[0])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=11), st.integers(1, 5))
def test_the_programme_finds_the_optimum(values: list[int], k: int) -> None:
    array = np.array(values, dtype=np.float64)
    got = loss(array, *kmeans_1d(array, k, algorithm="optimal"))
    assert got == pytest.approx(brute_force(array, min(k, len(array))), abs=1e-7)


@pytest.mark.parametrize("k", [2, 5, 16, 31])
def test_the_programme_beats_every_lloyd_run(k: int) -> None:
    values = np.random.default_rng(k).laplace(size=3000)
    best = loss(values, *kmeans_1d(values, k, algorithm="optimal"))
    for init in ("linear", "quantile"):
        assert best <= loss(values, *kmeans_1d(values, k, init=init)) * (1 + 1e-12)  # type: ignore[arg-type]
    for seed in range(5):
        assert best <= loss(values, *kmeans_1d(values, k, init="random", seed=seed)) * (1 + 1e-12)


def test_lloyd_matches_an_independent_implementation_from_the_same_start() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    start = np.linspace(values.min(), values.max(), 9)
    other = KMeans(9, init=start[:, None], n_init=1, max_iter=1000, tol=0, algorithm="lloyd").fit(values[:, None])
    codebook, codes = kmeans_1d(values, 9)
    assert loss(values, codebook, codes) == pytest.approx(other.inertia_, rel=1e-9)
    assert np.allclose(codebook, np.sort(other.cluster_centers_[:, 0]))


@pytest.mark.parametrize("algorithm", ["lloyd", "optimal"])
def test_enough_clusters_are_lossless(algorithm: str) -> None:
    values = np.array([[3.0, -1.0, 3.0], [0.1, 7.0, -1.0]])
    codebook, codes = kmeans_1d(values, 100, algorithm=algorithm)  # type: ignore[arg-type]
    assert codebook.tolist() == [-1.0, 0.1, 3.0, 7.0]
    assert np.array_equal(codebook[codes], values)


def test_ties_go_to_the_lower_centroid() -> None:
    assert assign(np.array([0.5, 1.5]), np.array([0.0, 1.0, 2.0])).tolist() == [0, 1]


def test_empty_clusters_are_refilled() -> None:
    # A linear start leaves the middle centroids without members.
    values = np.concatenate((np.linspace(0, 1, 50), np.linspace(99, 100, 50)))
    codebook, codes = kmeans_1d(values, 10)
    assert len(codebook) == 10
    assert len(np.unique(codes)) == 10


def test_values_that_differ_by_less_than_the_sums_resolve_stay_apart() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.7849419692976058e-39, 3.3800720257978913e-40, -1.0])
    codebook, codes = kmeans_1d(values, 9)
    assert len(np.unique(codes)) == len(codebook) == 9


def test_same_seed_same_result_whatever_the_order() -> None:
    values = np.random.default_rng(0).normal(size=500)
    one, _ = kmeans_1d(values, 6, init="random", seed=4)
    two, _ = kmeans_1d(np.random.default_rng(1).permutation(values), 6, init="random", seed=4)
    assert np.allclose(one, two, rtol=1e-12)
    assert not np.allclose(one, kmeans_1d(values, 6, init="random", seed=9)[0], rtol=1e-6)


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        kmeans_1d([], 2)
    with pytest.raises(ValueError, match="NaN or Inf"):
        kmeans_1d([1.0, float("nan")], 2)
    with pytest.raises(ValueError, match="clusters=0"):
        kmeans_1d([1.0], 0)
    with pytest.raises(ValueError, match="use algorithm='lloyd'"):
        kmeans_1d(np.arange(1 << 16), 1 << 14, algorithm="optimal")
