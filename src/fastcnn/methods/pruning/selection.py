"""Which weights go: exact counts, stable ties, refusals before anything is changed.

All functions take scores (larger survives), flat or not, and return a bool mask of the survivors.
``alive`` is the present mask: what is already pruned stays pruned and counts towards the target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.methods.contract import check_finite


def prune_count(n: int, sparsity: float) -> int:
    """How many of n entries are pruned: ``round(sparsity * n)``, halves to even."""
    return round(sparsity * n)


def keep_by_ratio(scores: Tensor, sparsity: float, alive: Tensor | None = None) -> Tensor:
    """Prune exactly ``round(sparsity * n)`` entries: smallest score first, lower flat index first on ties.

    Parameters
    ----------
    scores : Tensor, any shape
        Importance, for example ``weight.abs()``.
    sparsity : float
        Fraction of all entries to prune, in [0, 1].
    alive : bool Tensor of that shape, optional
        Present survivors. The result never revives an entry, so more than the count may be pruned.

    Raises
    ------
    ValueError
        If a score is NaN or Inf.
    """
    return keep_by_ratio_global([scores], sparsity, None if alive is None else [alive])[0]


def keep_by_ratio_global(
    scores: Sequence[Tensor], sparsity: float, alive: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """As :func:`keep_by_ratio` over several tensors ranked together, earlier tensors first on ties."""
    for tensor in scores:
        check_finite(tensor, "importance")
    flat = torch.cat([tensor.detach().flatten().to(torch.float64) for tensor in scores])
    if alive is not None:
        # Already pruned entries rank below any survivor, even one whose score is 0.
        flat = torch.where(torch.cat([mask.flatten() for mask in alive]), flat, flat.new_tensor(-torch.inf))
    order = torch.argsort(flat, stable=True)
    keep = torch.ones_like(flat, dtype=torch.bool)
    keep[order[: prune_count(flat.numel(), sparsity)]] = False
    if alive is not None:
        keep &= torch.cat([mask.flatten() for mask in alive])
    parts = torch.split(keep, [tensor.numel() for tensor in scores])
    return [part.view(tensor.shape) for part, tensor in zip(parts, scores, strict=True)]


def keep_by_threshold(scores: Tensor, threshold: float, alive: Tensor | None = None) -> Tensor:
    """Prune iff ``score < threshold``; raises ValueError if a score is NaN or Inf."""
    check_finite(scores, "importance")
    keep = scores >= threshold
    return keep if alive is None else keep & alive
