"""Selection: exact counts, stable ties, what is pruned stays pruned, NaN and Inf refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.methods.pruning.selection import (
    keep_by_ratio,
    keep_by_ratio_global,
    keep_by_threshold,
    prune_count,
)

scores = st.lists(st.floats(0, 10, width=32), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(scores, st.floats(0, 1))
def test_ratio_prunes_exactly_the_count_and_the_smallest(values: list[float], sparsity: float) -> None:
    tensor = torch.tensor(values)
    keep = keep_by_ratio(tensor, sparsity)
    assert int((~keep).sum()) == round(sparsity * len(values))
    if keep.any() and (~keep).any():
        assert tensor[~keep].max() <= tensor[keep].min()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40, unique=True), st.floats(0, 1), st.randoms())
def test_selection_moves_with_a_permutation_apart_from_ties(values: list[int], sparsity: float, random: object) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    order = torch.tensor(sorted(range(len(values)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    assert torch.equal(keep_by_ratio(tensor[order], sparsity), keep_by_ratio(tensor, sparsity)[order])


def test_all_equal_scores_go_from_the_lowest_index() -> None:
    assert keep_by_ratio(torch.ones(2, 5), 0.6).tolist() == [[False] * 5, [False] + [True] * 4]
    first, second = keep_by_ratio_global([torch.ones(3), torch.ones(3)], 0.5)
    assert (first.any().item(), second.all().item()) == (False, True)


def test_counts_are_exact_where_float_products_are_not() -> None:
    assert prune_count(10, 0.3) == 3
    assert prune_count(1000, 0.29) == 290
    for n in (1, 2, 7, 100):
        assert int((~keep_by_ratio(torch.rand(n), 1.0)).sum()) == n
        assert keep_by_ratio(torch.rand(n), 0.0).all()


def test_pruned_entries_never_return_and_count_towards_the_target() -> None:
    tensor = torch.tensor([5.0, 0.0, 3.0, 1.0])
    alive = torch.tensor([False, True, True, True])
    assert keep_by_ratio(tensor, 0.5, alive).tolist() == [False, False, True, True]
    assert keep_by_ratio(tensor, 0.0, alive).tolist() == [False, True, True, True]
    assert keep_by_threshold(tensor, 1.0, alive).tolist() == [False, False, True, True]


def test_global_ranks_layers_together() -> None:
    small, large = torch.full((10,), 0.1), torch.full((10,), 9.0)
    keep_small, keep_large = keep_by_ratio_global([small, large], 0.5)
    assert (keep_small.any().item(), keep_large.all().item()) == (False, True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_scores_refuse(bad: float) -> None:
    for call in (keep_by_ratio, keep_by_threshold):
        with pytest.raises(ValueError, match="importance holds 1 non-finite"):
            call(torch.tensor([1.0, bad, 2.0]), 0.5)
