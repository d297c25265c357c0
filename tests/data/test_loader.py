"""Batches for training: order follows torch's seed, both ways of holding pictures give the same tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn.data import DataError, Preprocess, load_data, loader
from fastcnn.data.loader import Batches, accuracy_of


def test_every_picture_once_an_epoch_in_seeded_order() -> None:
    batches = Batches(load_data("digits"), Preprocess(), batch_size=50)
    assert len(batches) == 8
    assert batches.shape == (1, 8, 8)
    torch.manual_seed(1)
    first = torch.cat([y for _, y in batches])
    torch.manual_seed(1)
    again = torch.cat([y for _, y in batches])
    other = torch.cat([y for _, y in batches])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sort().values, other.sort().values)


def test_preparing_each_batch_anew_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_data("digits").limit(30)
    kept = Batches(digits, Preprocess(mean=(0.3,)), batch_size=8)
    monkeypatch.setattr(loader, "_KEEP_BYTES", 0)
    lazy = Batches(digits, Preprocess(mean=(0.3,)), batch_size=8)
    torch.manual_seed(5)
    one = list(kept)
    torch.manual_seed(5)
    two = list(lazy)
    assert len(one) == len(two) == 4
    for (x, y), (u, v) in zip(one, two, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_accuracy_counts_right_answers() -> None:
    digits = load_data("digits").limit(40)

    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    share = 100 * float((np.asarray(digits.labels) == 3).mean())
    assert 0 < share < 100
    assert accuracy_of(digits, Preprocess(), batch_size=7)(Always()) == pytest.approx(share)


def test_labels_are_needed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 3), np.uint8))
    data = load_data(f"npz:{tmp_path / 'x.npz'}")
    with pytest.raises(DataError, match="no labels to train on"):
        Batches(data, Preprocess())
    with pytest.raises(DataError, match="no labels to measure"):
        accuracy_of(data, Preprocess())
    with pytest.raises(DataError, match="batch_size=0"):
        Batches(load_data("digits"), Preprocess(), batch_size=0)
