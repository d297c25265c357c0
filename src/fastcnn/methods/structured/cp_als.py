"""CP decomposition by alternating least squares, of many small tensors at once.

A tensor X of d modes becomes a sum of ``rank`` outer products: X[i, j, ...] = sum over r of A_1[i, r] A_2[j, r] ...
With all factors but one held, the best A_n solves the normal equations A_n G = X_(n) K, where K is the Khatri-Rao
product of the others and G the elementwise product of their Gram matrices. Components that grow while they cancel each
other are the known failure; a ridge on G, relative to its diagonal, keeps them bounded.

References
----------
Carroll and Chang 1970; Harshman 1970; Phan et al. 2020, arXiv:2008.05441, on the growth of components.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_RIDGE = 1e-7
"""Of the mean of a Gram matrix' diagonal."""
_LETTERS = "ijklm"


def cp_als(
    tensors: Tensor, rank: int, *, sweeps: int = 200, tolerance: float = 1e-7, seed: int = 0, starts: int = 1
) -> list[Tensor]:
    """Decompose each tensor of a batch.

    Parameters
    ----------
    tensors : Tensor, shape (B, I_1, ..., I_d), float64
    rank : int
    sweeps : int
        At most; it stops when no error falls by ``tolerance`` of its tensor's norm.
    seed, starts : int
        The first start has the leading singular vectors of each unfolding, filled up with random columns; the others
        are random. The best of them counts, for each tensor.

    Returns
    -------
    list of Tensor, shape (B, I_n, rank)
        One per mode, columns of equal norm across the modes.
    """
    sizes = sorted(tensors.shape[1:])
    if rank >= math.prod(sizes[:-1]):
        return _balanced(_exact(tensors, rank))
    generator = torch.Generator().manual_seed(seed)
    best: list[Tensor] | None = None
    least: Tensor | None = None
    for start in range(starts):
        factors = _start(tensors, rank, generator, svd=start == 0)
        factors = _iterate(tensors, factors, sweeps, tolerance)
        error = (tensors - rebuild(factors)).flatten(1).norm(dim=1)
        if best is None or least is None:
            best, least = factors, error
            continue
        better = error < least
        best = [torch.where(better[:, None, None], new, old) for new, old in zip(factors, best, strict=True)]
        least = torch.where(better, error, least)
    assert best is not None
    return _balanced(best)


def _exact(tensors: Tensor, rank: int) -> list[Tensor]:
    """A component for every index of all modes but the longest, which holds what the tensor has there; zeros else."""
    modes = list(range(1, tensors.dim()))
    longest = max(modes, key=lambda mode: tensors.shape[mode])
    others = [mode for mode in modes if mode != longest]
    places = torch.cartesian_prod(*(torch.arange(tensors.shape[mode]) for mode in others)).reshape(-1, len(others))
    factors = []
    for mode in modes:
        factor = tensors.new_zeros(len(tensors), tensors.shape[mode], rank)
        if mode == longest:
            factor[:, :, : len(places)] = tensors.movedim(longest, 1).flatten(2)
        else:
            factor[:, places[:, others.index(mode)], torch.arange(len(places))] = 1.0
        factors.append(factor)
    return factors


def rebuild(factors: list[Tensor]) -> Tensor:
    """The tensors (B, I_1, ..., I_d) that the factors stand for."""
    modes = _LETTERS[: len(factors)]
    return torch.einsum(",".join(f"b{m}r" for m in modes) + f"->b{modes}", *factors)


def _start(tensors: Tensor, rank: int, generator: torch.Generator, *, svd: bool) -> list[Tensor]:
    factors = []
    for mode in range(1, tensors.dim()):
        unfolded = tensors.movedim(mode, 1).flatten(2)
        extent = unfolded.shape[1]
        random = torch.randn(len(tensors), extent, rank, generator=generator, dtype=tensors.dtype)
        random /= random.norm(dim=1, keepdim=True)
        if svd:
            known = torch.linalg.eigh(unfolded @ unfolded.transpose(1, 2))[1].flip(2)[:, :, :rank]
            # A little noise: of a symmetric tensor the vectors alone would be a saddle that no iteration leaves.
            random[:, :, : known.shape[2]] = known + 0.01 * random[:, :, : known.shape[2]]
        factors.append(random)
    return factors


def _iterate(tensors: Tensor, factors: list[Tensor], sweeps: int, tolerance: float) -> list[Tensor]:
    squares = tensors.flatten(1).square().sum(1)
    modes = _LETTERS[: len(factors)]
    before = torch.full_like(squares, torch.inf)
    for _ in range(sweeps):
        for n in range(len(factors)):
            others = [k for k in range(len(factors)) if k != n]
            words = [f"b{modes}", *(f"b{modes[k]}r" for k in others)]
            product = torch.einsum(",".join(words) + f"->b{modes[n]}r", tensors, *(factors[k] for k in others))
            gram = torch.ones(1, dtype=tensors.dtype)
            for k in others:
                gram = gram * (factors[k].transpose(1, 2) @ factors[k])
            ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
            solved = gram + ridge[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype)
            factors[n] = torch.linalg.solve(solved, product.transpose(1, 2)).transpose(1, 2)
            if n + 1 < len(factors):
                # Only the last factor of a sweep carries the lengths.
                factors[n] = factors[n] / factors[n].norm(dim=1, keepdim=True).clamp_min(1e-300)
        # ||X - X'||^2 = ||X||^2 - 2 <X, X'> + ||X'||^2, of which the last two are at hand.
        inner = (product * factors[-1]).sum((1, 2))
        own = (gram * (factors[-1].transpose(1, 2) @ factors[-1])).sum((1, 2))
        error = (squares - 2 * inner + own).clamp_min(0).sqrt()
        if bool((before - error <= tolerance * squares.sqrt()).all()):
            break
        before = error
    return factors


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """Every component's length shared equally by its modes."""
    norms = [factor.norm(dim=1, keepdim=True) for factor in factors]
    length = torch.stack(norms).prod(0) ** (1 / len(factors))
    return [factor * (length / norm.clamp_min(1e-300)) for factor, norm in zip(factors, norms, strict=True)]
