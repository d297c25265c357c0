"""Tensor trains: shapes, TT-SVD, rebuilding, and what the product of a vector with a TT-matrix costs.

A TT-matrix W of m = m_1 ... m_d rows and n = n_1 ... n_d columns is

    W[(i_1, ..., i_d), (j_1, ..., j_d)] = G_1[i_1, j_1] G_2[i_2, j_2] ... G_d[i_d, j_d],

where each G_k[i, j] is a matrix (r_{k-1}, r_k), and r_0 = r_d = 1: core k has the shape (r_{k-1}, m_k, n_k, r_k). It is
the tensor train of the d-way tensor whose mode k is the pair (i_k, j_k), so pairs that describe one scale of rows and
columns stand together.

References
----------
Oseledets 2011, "Tensor-train decomposition", SIAM J. Sci. Comput. 33(5); Novikov, Podoprikhin, Osokin and Vetrov 2015,
arXiv:1509.06569, for matrices of layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.contract import check_count

Factors = tuple[int, ...]
CoreShape = tuple[int, int, int, int]
"""r_{k-1}, m_k, n_k, r_k."""
MOST_FACTORS = 16
"""2 ** 16 rows are more than layers have."""
_LARGEST_MEAN = 8
"""Mean of the factors of rows and columns, above which the automatic choice takes one core more."""


@lru_cache(maxsize=1024, typed=True)
def factorise(n: int, count: int) -> Factors:
    """Write ``n`` as a product of ``count`` factors, in ascending order; ``n`` grows where that pays.

    A core is as large as its factor, so the sum of the factors stands for what is stored; the product stands for the
    work. The factors returned have the smallest sum times product among all whose product is at least ``n``: one per
    cent of padding is accepted where it makes the cores one per cent smaller. Of equals, the smallest product wins.
    784 stays 4 * 4 * 7 * 7 and 1024 is 4 ** 5, but a prime grows: 17 becomes 3 * 6.

    Raises
    ------
    TypeError, ValueError
        Unless both are integers, ``n`` at least 1 and ``count`` 1 to 16.
    """
    check_count("n", n, 1)
    check_count("count", count, 1, MOST_FACTORS)
    best: tuple[int, int, Factors] = (n * (n + count - 1), n, (1,) * (count - 1) + (n,))

    def extend(head: Factors, held: int, total: int) -> None:
        """Try every way to go on from the first factors, their product and their sum."""
        nonlocal best
        left, low = count - len(head), head[-1] if head else 1
        need = -(-n // held)
        if left == 1:
            last = max(low, need)
            best = min(best, (held * last * (total + last), held * last, (*head, last)))
            return
        # Factors ascend: if this one were above the root of what is left, all could be smaller.
        for factor in range(max(low, _root(need, left)), low - 1, -1):
            rest = left - 1
            mean = max(factor, (n / (held * factor)) ** (1 / rest))
            least = max(n, held * factor ** (rest + 1)) * (total + factor + rest * mean)
            if least <= best[0] * (1 + 1e-9):
                extend((*head, factor), held * factor, total + factor)

    extend((), 1, 0)
    return best[2]


def _root(n: int, degree: int) -> int:
    """Smallest integer whose power is at least ``n``."""
    root = max(1, int(math.pow(n, 1 / degree)) - 1)
    while root**degree < n:
        root += 1
    return root


def factor_count(rows: int, columns: int) -> int:
    """Cores for a matrix of that size: the fewest, 2 to 5, with which the factors are 8 on (geometric) average."""
    count = 2
    while count < 5 and rows * columns > _LARGEST_MEAN ** (2 * count):
        count += 1
    return count


def matrix_factors(rows: int, columns: int, count: int | None) -> tuple[Factors, Factors]:
    """Factors of rows and columns; None chooses their number by :func:`factor_count`.

    Those of rows descend and those of columns ascend: large beside small, so no core is much larger than another, and
    a sweep from the last core to the first shrinks the vector as soon as it can.
    """
    count = factor_count(rows, columns) if count is None else count
    return factorise(rows, count)[::-1], factorise(columns, count)


def full_ranks(sizes: Sequence[int]) -> tuple[int, ...]:
    """Ranks between the modes of a tensor of these sizes at which its train is exact; one number fewer than sizes."""
    return tuple(min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes)))


def core_shapes(out_factors: Factors, in_factors: Factors, ranks: Sequence[int]) -> list[CoreShape]:
    """Shapes of the cores, from the ranks between them."""
    ends = (1, *ranks, 1)
    pairs = zip(out_factors, in_factors, strict=True)
    return [(ends[k], m, n, ends[k + 1]) for k, (m, n) in enumerate(pairs)]


def sweep_macs(shapes: Sequence[CoreShape], *, rightward: bool) -> int:
    """Multiply-adds for one vector, if cores are contracted from the first to the last, or from the last to the first.

    A core's own size, times the rows that earlier steps have made, times the columns that are still to be summed over.
    """
    total = 0
    for k, (before, m, n, after) in enumerate(shapes):
        first, last = shapes[:k], shapes[k + 1 :]
        done, ahead = (first, last) if rightward else (last, first)
        total += before * m * n * after * math.prod(s[1] for s in done) * math.prod(s[2] for s in ahead)
    return total


def goes_rightward(shapes: Sequence[CoreShape]) -> bool:
    """Whether the sweep from the first core to the last is the cheaper one; of equals the other is taken."""
    return sweep_macs(shapes, rightward=True) < sweep_macs(shapes, rightward=False)


def product_macs(shapes: Sequence[CoreShape]) -> int:
    """Multiply-adds for one vector, by the cheaper sweep."""
    return sweep_macs(shapes, rightward=goes_rightward(shapes))


def largest_step(shapes: Sequence[CoreShape]) -> int:
    """Numbers that the cheaper sweep holds at once for one vector: what goes into a step, and what comes out of it."""
    rightward = goes_rightward(shapes)
    most = 0
    for k, (before, m, n, after) in enumerate(shapes):
        first, last = shapes[:k], shapes[k + 1 :]
        done, ahead = (first, last) if rightward else (last, first)
        others = math.prod(s[1] for s in done) * math.prod(s[2] for s in ahead)
        most = max(most, others * (before * n + m * after if rightward else n * after + before * m))
    return most


def tt_svd(tensor: Tensor, *, rank: int | None = None, delta: float = 0.0) -> list[Tensor]:
    """Cut a tensor into a train by truncated SVDs, from the first mode to the last.

    Parameters
    ----------
    tensor : Tensor, shape (s_1, ..., s_d)
        In float64, for ``delta`` to mean what it says.
    rank : int, optional
        No rank is larger.
    delta : float
        Frobenius norm that each of the d - 1 cuts may lose; ranks are the smallest that lose no more. The whole loses
        sqrt(d - 1) * delta at most, as what the cuts lose is orthogonal.

    Returns
    -------
    list of Tensor, shapes (r_{k-1}, s_k, r_k)
        All but the last have orthonormal columns. Without ``rank``: at ranks that were found, the error is at most
        sqrt(d - 1) times the smallest there is.

    References
    ----------
    Oseledets 2011, algorithm 1 and theorem 2.2.
    """
    cores: list[Tensor] = []
    before, rest = 1, tensor
    for size in tensor.shape[:-1]:
        left, singular, right = torch.linalg.svd(rest.reshape(before * size, -1), full_matrices=False)
        after = cut_rank(singular, rank, delta)
        cores.append(left[:, :after].reshape(before, size, after))
        before, rest = after, singular[:after, None] * right[:after]
    return [*cores, rest.reshape(before, tensor.shape[-1], 1)]


def cut_rank(singular: Tensor, rank: int | None, delta: float) -> int:
    """Smallest number of singular values at which no more than ``delta`` is lost; 1 at least, ``rank`` at most.

    With ``delta`` 0, as many as there may be, zeros included, so that ranks do not depend on the numbers.
    """
    most = len(singular) if rank is None else min(rank, len(singular))
    if delta == 0:
        return most
    tails = (singular**2).flip(0).cumsum(0).flip(0)
    return min(most, max(1, int((tails > delta**2).sum())))


def tt_matrix(
    weight: Tensor, out_factors: Factors, in_factors: Factors, *, rank: int | None = None, delta: float = 0.0
) -> list[Tensor]:
    """TT-SVD of a matrix (rows, columns) as a TT-matrix; rows and columns are padded with zeros to the products.

    Returns
    -------
    list of Tensor, shapes (r_{k-1}, m_k, n_k, r_k)
    """
    count = len(out_factors)
    padding = (0, math.prod(in_factors) - weight.shape[1], 0, math.prod(out_factors) - weight.shape[0])
    modes = F.pad(weight, padding).reshape(*out_factors, *in_factors)
    pairs = modes.permute([axis for k in range(count) for axis in (k, count + k)])
    sizes = [m * n for m, n in zip(out_factors, in_factors, strict=True)]
    train = tt_svd(pairs.reshape(sizes), rank=rank, delta=delta)
    return [
        core.reshape(core.shape[0], m, n, core.shape[2])
        for core, m, n in zip(train, out_factors, in_factors, strict=True)
    ]


def rebuild_matrix(cores: Sequence[Tensor]) -> Tensor:
    """The matrix (m_1 ... m_d, n_1 ... n_d) that cores stand for."""
    whole = cores[0].new_ones(1, 1, 1)
    for core in cores:
        _, m, n, after = core.shape
        grown = torch.einsum("abr,rmns->ambns", whole, core)
        whole = grown.reshape(whole.shape[0] * m, whole.shape[1] * n, after)
    return whole[:, :, 0]


def level(cores: Sequence[Tensor]) -> list[Tensor]:
    """The same train with all cores at one root mean square, as training wants it; TT-SVD puts the norm into the last.

    A train that is zero is returned as it is.
    """
    sizes = [float(core.square().mean().sqrt()) for core in cores]
    if min(sizes) == 0:
        return list(cores)
    mean = math.exp(sum(map(math.log, sizes)) / len(sizes))
    return [core * (mean / size) for core, size in zip(cores, sizes, strict=True)]
