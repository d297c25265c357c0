"""Greedy sums of outer products for three-way blocks: one more for what is left, then all of them refitted together.

A block B of shape (c, f, s), for input channels, output channels and taps, becomes a sum over k of
alpha_k x beta_k x gamma_k. Deterministic: every start comes from singular vectors, none from chance.

References
----------
Denton, Zaremba, Bruna, LeCun and Fergus 2014, arXiv:1404.0736. Differs: after each new product all
of them are refitted by alternating least squares, where the paper keeps the earlier ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 6
"""Of alternating least squares after each new product: always as many, so that the way to K + 1 leads through K."""
_POLISHES = 3
"""Rounds in which the new product itself is improved before it joins the others."""
_PULL = 1e-10
"""How strongly a least-squares step is held where it was, as a share of the mean of its normal matrix's diagonal."""


def outer_products(blocks: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate every block by a sum of ``rank`` outer products.

    The error does not grow with ``rank``: a new product takes away from the residual what it can, a least-squares step
    never raises the error, and both begin where rank - 1 ended.

    Parameters
    ----------
    blocks : Tensor, shape (..., c, f, s)
        In float64. Leading axes count blocks, which know nothing of each other.
    rank : int
        Products, at least 1.

    Returns
    -------
    alpha : Tensor, shape (..., c, rank)
    beta : Tensor, shape (..., f, rank)
    gamma : Tensor, shape (..., s, rank)
        The three columns of one product have equal norms.
    """
    alpha, beta, gamma = (blocks.new_zeros(*blocks.shape[:-3], extent, 0) for extent in blocks.shape[-3:])
    for _ in range(rank):
        new = _best_product(blocks - rebuild(alpha, beta, gamma))
        alpha, beta, gamma = (torch.cat(both, -1) for both in zip((alpha, beta, gamma), new, strict=True))
        for _ in range(_SWEEPS):
            alpha, beta, gamma = refit(blocks, alpha, beta, gamma)
    return alpha, beta, gamma


def rebuild(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Return the sum of the outer products, shape (..., c, f, s)."""
    return torch.einsum("...ck,...fk,...sk->...cfs", alpha, beta, gamma)


def refit(blocks: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One sweep of alternating least squares; the error of no block rises.

    Parameters and results are those of :func:`outer_products`. Each step is held where it was by a very weak spring,
    which keeps its system regular where products coincide or vanish, and cannot raise the error.
    """
    alpha = _step(torch.einsum("...cfs,...fk,...sk->...ck", blocks, beta, gamma), alpha, beta, gamma)
    beta = _step(torch.einsum("...cfs,...ck,...sk->...fk", blocks, alpha, gamma), beta, alpha, gamma)
    gamma = _step(torch.einsum("...cfs,...ck,...fk->...sk", blocks, alpha, beta), gamma, alpha, beta)
    return _even(alpha, beta, gamma)


def _step(right: Tensor, old: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Least-squares factor, given the other two."""
    normal = (first.mT @ first) * (second.mT @ second)
    pull = _PULL * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + torch.finfo(old.dtype).tiny
    system = normal + pull * torch.eye(old.shape[-1], dtype=old.dtype)
    solved: Tensor = torch.linalg.solve(system, (right + pull * old).mT)
    return solved.mT


def _even(alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spread the size of each product evenly over its three columns."""
    norms = [factor.norm(dim=-2, keepdim=True) for factor in (alpha, beta, gamma)]
    # Cube roots before the product: that of three tiny norms would be no number of this type.
    size = norms[0] ** (1 / 3) * norms[1] ** (1 / 3) * norms[2] ** (1 / 3)
    tiny = torch.finfo(alpha.dtype).tiny
    alpha, beta, gamma = (
        factor / norm.clamp_min(tiny) * size for factor, norm in zip((alpha, beta, gamma), norms, strict=True)
    )
    return alpha, beta, gamma


def _best_product(residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One outer product for each block, as columns: singular vectors of unfoldings, then improved in turn."""
    tiny = torch.finfo(residual.dtype).tiny
    first = torch.linalg.eigh(torch.einsum("...cfs,...dfs->...cd", residual, residual)).eigenvectors[..., -1]
    for _ in range(_POLISHES):
        left, _, right = torch.linalg.svd(torch.einsum("...cfs,...c->...fs", residual, first), full_matrices=False)
        second, third = left[..., 0], right[..., 0, :]
        first = torch.einsum("...cfs,...f,...s->...c", residual, second, third)
        size = first.norm(dim=-1, keepdim=True)
        first = first / size.clamp_min(tiny)
    return _even((first * size)[..., None], second[..., None], third[..., None])
