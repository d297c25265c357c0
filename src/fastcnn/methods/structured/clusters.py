"""Rows that belong together: filters around lines, which are their colours, and channels around subspaces.

References
----------
Denton, Zaremba, Bruna, LeCun and Fergus 2014, arXiv:1404.0736. Differs: after k-means on the filters' own colours, the
same iteration runs on the whole filters, so that colours and pictures are refitted together; channels are clustered
around subspaces instead of points, into groups of equal size.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_STARTS = 4
"""Random starts; the best end is kept."""
_ROUNDS = 100
"""Of one clustering, at most; it ends as soon as no row changes its group."""


def cluster_colours(filters: Tensor, colours: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find the lines that filters of one colour each need, and which filter takes which.

    First k-means on lines: each filter is cut to its largest singular value, colours count with that value. From where
    it ends, the same iteration on the whole filters, whose error is the weight's own.

    Parameters
    ----------
    filters : Tensor, shape (F, C, s)
        float64 on the CPU.
    colours : int
        C', at most F.
    seed : int

    Returns
    -------
    lines : Tensor, shape (C', C)
        Unit vectors whose largest component is positive.
    assignment : Tensor, shape (F,), int64
        Every colour has at least one filter.
    """
    left, singular, _ = torch.linalg.svd(filters, full_matrices=False)
    coloured = left[:, :, :1] * singular[:, :1, None]
    generator = torch.Generator().manual_seed(seed)
    best, least = (torch.empty(0), torch.empty(0, dtype=torch.int64)), float("inf")
    for _ in range(_STARTS):
        start = settle_colours(coloured, _first_lines(coloured, colours, generator))
        lines, assignment = settle_colours(filters, start[0])
        error = float(_residuals(filters, lines).gather(1, assignment[:, None]).sum())
        if error < least:
            best, least = (lines, assignment), error
    return best


def _first_lines(filters: Tensor, colours: int, generator: torch.Generator) -> Tensor:
    """Colours of single filters, each drawn by its squared distance from the lines before."""
    firsts = filters[:, :, 0]
    units: Tensor = firsts / firsts.norm(dim=1, keepdim=True).clamp_min(torch.finfo(filters.dtype).tiny)
    left, picks = filters.square().sum((1, 2)), list[int]()
    for place in range(colours):
        # Fewer distinct lines than colours: clusters that stay empty are filled later.
        pick = int(torch.multinomial(left, 1, generator=generator)) if float(left.sum()) > 0 else place
        picks.append(pick)
        left = torch.minimum(left, _residuals(filters, units[pick : pick + 1])[:, 0])
        left[pick] = 0.0
    return units[picks]


def _residuals(filters: Tensor, lines: Tensor) -> Tensor:
    """What of the squares of each filter (F, C, s) each line (C', C) leaves: (F, C')."""
    held = torch.einsum("jc,fcs->fjs", lines, filters).square().sum(2)
    return (filters.square().sum((1, 2))[:, None] - held).clamp_min(0)


def settle_colours(filters: Tensor, lines: Tensor, rounds: int = _ROUNDS) -> tuple[Tensor, Tensor]:
    """Give every filter its nearest line and every line its least-squares direction, in turn; the error never rises.

    Parameters
    ----------
    filters : Tensor, shape (F, C, s)
    lines : Tensor, shape (C', C)
        Unit vectors to begin with.
    rounds : int
        At most.

    Returns
    -------
    lines, assignment
        As :func:`cluster_colours`. With ``rounds=1`` each line is the best for the filters that were nearest to the
        line it began as. The best direction is the first left singular vector of a cluster's filters side by side,
        which is where alternating least squares of colours and filters would end.
    """
    assignment = torch.empty(0, dtype=torch.int64)
    for _ in range(rounds):
        fresh = _fill_empty(_residuals(filters, lines), len(lines))
        if torch.equal(fresh, assignment):
            break
        assignment = fresh
        lines = torch.stack([_direction(filters[assignment == colour]) for colour in range(len(lines))])
    return lines, assignment


def _fill_empty(residuals: Tensor, colours: int) -> Tensor:
    """Nearest lines; a line without a filter takes the farthest one of those that share theirs."""
    left, assignment = residuals.min(1)
    for colour in range(colours):
        counts = torch.bincount(assignment, minlength=colours)
        if counts[colour] == 0:
            shared = counts[assignment] > 1
            taken = int(torch.where(shared, left, -1.0).argmax())
            assignment[taken], left[taken] = colour, 0.0
    return assignment


def _direction(members: Tensor) -> Tensor:
    """Unit vector (C,) that leaves least of filters (m, C, s), its largest component positive."""
    line: Tensor = torch.linalg.eigh(torch.einsum("mcs,mds->cd", members, members)).eigenvectors[:, -1]
    return line * (1.0 if line[line.abs().argmax()] > 0 else -1.0)


def balanced_clusters(grams: Tensor, groups: int, dimension: int, seed: int) -> Tensor:
    """Sort rows into groups of equal size, each close to a subspace of its own.

    Parameters
    ----------
    grams : Tensor, shape (m, n, n)
        Products of all pairs of rows, for each of m parts of the rows: a group has a subspace in each part.
    groups : int
        A divisor of n.
    dimension : int
        Of the subspaces; at most one less than there are rows in a group, as more would hold any rows.
    seed : int

    Returns
    -------
    Tensor, shape (n,)
        Rows in the order of their groups; groups in the order of their first rows, rows of a group ascending.
    """
    rows = grams.shape[1]
    if groups in (1, rows):
        return torch.arange(rows)
    generator = torch.Generator().manual_seed(seed)
    best, least = torch.empty(0, dtype=torch.int64), float("inf")
    for _ in range(_STARTS):
        labels, dims = _start(grams, groups, generator), 1
        # Lines first, then subspaces that double: at full dimension from the start, almost any group fits itself.
        labels, distance = _settle(grams, labels, groups, dims)
        while dims < dimension:
            dims = min(2 * dims, dimension)
            labels, distance = _settle(grams, labels, groups, dims)
        if distance < least:
            best, least = labels, distance
    return _order(best, groups)


def regroup(grams: Tensor, order: Tensor, groups: int, dimension: int) -> tuple[Tensor, float]:
    """As :func:`balanced_clusters`, from the groups of an order instead of from chance.

    Returns
    -------
    order : Tensor, shape (n,)
    distance : float
        Sum of the squared distances that are left.
    """
    rows = len(order)
    labels = torch.empty_like(order)
    labels[order] = torch.arange(rows) // (rows // groups)
    labels, distance = _settle(grams, labels, groups, dimension)
    return _order(labels, groups), distance


def _order(labels: Tensor, groups: int) -> Tensor:
    members = [torch.nonzero(labels == group)[:, 0] for group in range(groups)]
    return torch.cat(sorted(members, key=lambda found: int(found[0])))


def _start(grams: Tensor, groups: int, generator: torch.Generator) -> Tensor:
    """Labels by lines through single rows, each drawn by its distance from the lines before."""
    own = grams.diagonal(dim1=1, dim2=2)
    tiny = torch.finfo(own.dtype).tiny
    nearest, columns = own.sum(0).clamp_min(0), []
    for _ in range(groups):
        if float(nearest.sum()) <= 0.0:  # fewer lines than groups: the rest explains nothing
            columns.append(own.sum(0))
            continue
        pick = int(torch.multinomial(nearest, 1, generator=generator))
        inside = grams[:, :, pick] ** 2 / own[:, pick, None].clamp_min(tiny)
        columns.append((own - inside).sum(0).clamp_min(0))
        nearest = torch.minimum(nearest, columns[-1])
        nearest[pick] = 0.0
    return _assign(torch.stack(columns, 1))


def _settle(grams: Tensor, labels: Tensor, groups: int, dimension: int) -> tuple[Tensor, float]:
    """Fit subspaces and assign rows in turn until the sum of squared distances stops falling; return it too."""
    every = torch.arange(len(labels))
    slack = 1e-12 * float(grams.diagonal(dim1=1, dim2=2).sum())
    distances = _distances(grams, labels, groups, dimension)
    for _ in range(_ROUNDS):
        fresh = _assign(distances)
        if float(distances[every, fresh].sum()) >= float(distances[every, labels].sum()) - slack:
            break
        labels = fresh
        distances = _distances(grams, labels, groups, dimension)
    return labels, float(distances[every, labels].sum())


def _distances(grams: Tensor, labels: Tensor, groups: int, dimension: int) -> Tensor:
    """Squared distances (n, groups) of all rows from the subspaces that fit each group best."""
    size = len(labels) // groups
    dims = max(1, min(dimension, size - 1))
    columns = []
    for group in range(groups):
        members = torch.nonzero(labels == group)[:, 0]
        across = grams[:, :, members]
        values, vectors = torch.linalg.eigh(across[:, members])
        values, vectors = values[:, -dims:], vectors[:, :, -dims:]
        # Directions of rounding alone are none.
        alive = values > 1e-12 * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
        inside = (across @ vectors) ** 2 * torch.where(alive, 1 / values, 0.0)[:, None]
        columns.append((grams.diagonal(dim1=1, dim2=2).sum(0) - inside.sum((0, 2))).clamp_min(0))
    return torch.stack(columns, 1)


def _assign(distances: Tensor) -> Tensor:
    """Labels of least total distance that fill all groups alike."""
    rows, groups = distances.shape
    size = rows // groups
    _, places = linear_sum_assignment(np.repeat(distances.numpy(), size, axis=1))
    return torch.from_numpy(places // size)
