"""Groups of channels that belong together, and small factors for every block between two groups.

Rows of a weight's unfoldings are clustered into groups of equal size, so that grouped convolutions can carry them; each
block between an input and an output group gets a Tucker-2 form or a sum of outer products. Where errors do not all
count alike, the factors of all blocks are then refined together, one kind at a time: each enters the weight linearly,
so conjugate gradients from where it stands never raise the error.

References
----------
Denton, Zaremba, Bruna, LeCun and Fergus 2014, arXiv:1404.0736. Differs: the paper scales a weight by a metric,
approximates and unscales it, which leaves no factors where the metric has none; here the factors minimise the error in
the metric itself. For clusters see :mod:`fastcnn.methods.structured.clusters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastcnn.methods.contract import DeclinedError, check_finite
from fastcnn.methods.structured.calibration import Moments, Seen
from fastcnn.methods.structured.clusters import balanced_clusters, regroup
from fastcnn.methods.structured.outer_products import outer_products

MetricWord = Literal["frobenius", "mahalanobis", "data"]

Factors = tuple[Tensor, Tensor, Tensor]
"""reduce (i, j, K1, c), core (i, j, K2, K1, s) or (i, j, K, s), expand (i, j, f, K2): i of G_f, j of G_c."""

_TRIES = 3
"""Of the clustering of both sides, from starts of their own; the best end is kept."""
_EXCHANGES = 3
"""Rounds in which both sides, in turn, are clustered by what the groups of the other side show."""
_HOOI_SWEEPS = 10
"""Of the two singular value decompositions of a block."""
_SWEEPS = 20
"""Of refinement in a metric, at most; it ends when one takes away less than a thousandth of the error."""
_STEPS = 12
"""Of conjugate gradients for one kind of factor."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How the weight of a layer, or of each of its own groups, is cut, and what stands for each block.

    Parameters
    ----------
    input_groups, output_groups : int
        G_c and G_f, of equal size each.
    ranks : tuple of int
        K1 of the input channels and K2 of the output channels, of each block.
    outer : bool
        A block is a sum of K1 = K2 outer products; else it has a core of K2 x K1 channels.
    """

    input_groups: int
    output_groups: int
    ranks: tuple[int, int]
    outer: bool

    @property
    def equation(self) -> str:
        """The weight (i, f, j, c, s) of :data:`Factors`, for einsum."""
        return "ijpc,ijps,ijfp->ifjcs" if self.outer else "ijpc,ijqps,ijfq->ifjcs"

    @property
    def shuffles(self) -> bool:
        """Whether channels between core and expand have to change their order."""
        return self.input_groups > 1 and self.output_groups > 1


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a weight should be, and how much each error of it counts.

    Parameters
    ----------
    target : Tensor, shape (F, C, s)
        float64 on the CPU, as all of these.
    importance : Tensor, shape (F, C, s), optional
        Factor of each squared error.
    covariance : Tensor, shape (C s, C s), optional
        Of the inputs: errors count as they show in the outputs. With neither of the two, all errors count alike.
    """

    target: Tensor
    importance: Tensor | None = None
    covariance: Tensor | None = None

    def ordered(self, outputs: Tensor, inputs: Tensor) -> Goal:
        """The same, with channels in another order."""
        taps = self.target.shape[2]
        places = (inputs[:, None] * taps + torch.arange(taps)).flatten()
        return Goal(
            target=self.target[outputs][:, inputs],
            importance=None if self.importance is None else self.importance[outputs][:, inputs],
            covariance=None if self.covariance is None else self.covariance[places][:, places],
        )

    def weigh(self, error: Tensor) -> Tensor:
        """Half the derivative of the squared error, of any shape that has the numbers of ``target`` in order."""
        if self.importance is not None:
            return self.importance.reshape(error.shape) * error
        if self.covariance is not None:
            return (error.reshape(len(self.target), -1) @ self.covariance).reshape(error.shape)
        return error

    def error(self, estimate: Tensor) -> float:
        """Squared error of an estimate, of any shape that has the numbers of ``target`` in order."""
        missing = self.target.reshape(estimate.shape) - estimate
        return float((missing * self.weigh(missing)).sum())


@dataclass(frozen=True)
class Fit:
    """A weight in blocks.

    Parameters
    ----------
    inputs : Tensor, shape (C,)
        Input channels, one group after the other.
    outputs : Tensor, shape (F,)
        Output channels, likewise.
    factors : Factors
    """

    inputs: Tensor
    outputs: Tensor
    factors: Factors


def bicluster(weight: Tensor, goal: Goal, blocks: Blocks, seed: int) -> Fit:
    """Cluster the channels of a weight on both sides and find factors for every block.

    Parameters
    ----------
    weight : Tensor, shape (F, C, s)
        float64 on the CPU; G_f divides F, G_c divides C.
    goal : Goal
        The factors are those of least squared error where all errors count alike, and begin there otherwise.
    blocks : Blocks
    seed : int
        Of the clustering.
    """
    inputs, outputs = _groups(weight if goal.importance is None else weight * goal.importance.sqrt(), blocks, seed)
    filters, channels, taps = weight.shape
    i, j = blocks.output_groups, blocks.input_groups
    cut = weight[outputs][:, inputs].reshape(i, filters // i, j, channels // j, taps)
    factors = _plain_fit(cut.permute(0, 2, 3, 1, 4), blocks)
    if goal.importance is not None or goal.covariance is not None:
        factors = refine(goal.ordered(outputs, inputs), blocks.equation, factors)
    return Fit(inputs, outputs, factors)


def _groups(weight: Tensor, blocks: Blocks, seed: int) -> tuple[Tensor, Tensor]:
    """Input and output channels in the order of their groups.

    First each side by its whole rows; then each in turn by what the rows are within the groups of the other side, since
    a block has subspaces of its own. The best of several tries, by what the subspaces leave on both sides.
    """
    sides = [weight.transpose(0, 1), weight]
    counts = (blocks.input_groups, blocks.output_groups)
    whole = [_grams(side, torch.arange(side.shape[1]), 1) for side in sides]
    several = 1 not in counts
    best, least = (torch.empty(0), torch.empty(0)), float("inf")
    for one in torch.randint(
        2**31, (_TRIES if several else 1,), generator=torch.Generator().manual_seed(seed)
    ).tolist():
        orders = [
            balanced_clusters(grams, count, rank, one)
            for grams, count, rank in zip(whole, counts, blocks.ranks, strict=True)
        ]
        left = [0.0, 0.0]
        for _ in range(_EXCHANGES if several else 0):
            for this, other in ((0, 1), (1, 0)):
                grams = _grams(sides[this], orders[other], counts[other])
                orders[this], left[this] = regroup(grams, orders[this], counts[this], blocks.ranks[this])
        if sum(left) < least:
            best, least = (orders[0], orders[1]), sum(left)
    return best


def _grams(rows: Tensor, columns: Tensor, groups: int) -> Tensor:
    """Products of all pairs of rows (n, m, s) within each group of columns, given in order: (groups, n, n)."""
    parts = rows[:, columns].reshape(len(rows), groups, -1).transpose(0, 1)
    return parts @ parts.mT


def _plain_fit(cut: Tensor, blocks: Blocks) -> Factors:
    """Factors of blocks (i, j, c, f, s), each on its own, every error counting alike."""
    if blocks.outer:
        alpha, beta, gamma = outer_products(cut, blocks.ranks[0])
        return alpha.mT, gamma.mT, beta
    return tucker2(cut, *blocks.ranks)


def tucker2(cut: Tensor, rank_in: int, rank_out: int) -> Factors:
    """Two singular value decompositions of every block, in turn until they fit each other.

    Parameters
    ----------
    cut : Tensor, shape (..., c, f, s)
    rank_in, rank_out : int
        K1, at most c, and K2, at most f.

    Returns
    -------
    reduce : Tensor, shape (..., K1, c)
    core : Tensor, shape (..., K2, K1, s)
    expand : Tensor, shape (..., f, K2)
        Rows of ``reduce`` and columns of ``expand`` are orthonormal.
    """
    into = _leading(torch.einsum("...cfs,...dfs->...cd", cut, cut), rank_in)
    for _ in range(_HOOI_SWEEPS):
        seen = torch.einsum("...cfs,...cp->...pfs", cut, into)
        out = _leading(torch.einsum("...pfs,...pgs->...fg", seen, seen), rank_out)
        seen = torch.einsum("...cfs,...fq->...cqs", cut, out)
        into = _leading(torch.einsum("...cqs,...dqs->...cd", seen, seen), rank_in)
    return into.mT, torch.einsum("...cqs,...cp->...qps", seen, into), out


def _leading(gram: Tensor, count: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, as columns, largest first."""
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[..., -count:].flip(-1)


def refine(goal: Goal, equation: str, factors: Factors) -> Factors:
    """Lower the error of all blocks together in the goal's own metric; it never rises.

    Parameters
    ----------
    goal : Goal
        With channels in the order of the blocks.
    equation : str
        Of :class:`Blocks`.
    factors : Factors
        Where to begin.
    """
    parts = list(factors)
    error = goal.error(torch.einsum(equation, *parts))
    for _ in range(_SWEEPS):
        for which in (2, 1, 0):
            parts[which] = _least_squares(goal, equation, parts, which)
        left = goal.error(torch.einsum(equation, *parts))
        if left > 0.999 * error:
            break
        error = left
    return parts[0], parts[1], parts[2]


def _least_squares(goal: Goal, equation: str, parts: list[Tensor], which: int) -> Tensor:
    """Conjugate gradients for one kind of factor, from where it stands."""
    indices, whole = equation.split("->")
    letters = indices.split(",")
    # The core comes last: without it the other two would first meet in one huge outer product.
    others = sorted((i for i in range(3) if i != which), key=lambda i: i == 1)
    back = ",".join([whole, *(letters[i] for i in others)]) + "->" + letters[which]

    def weight_of(factor: Tensor) -> Tensor:
        return torch.einsum(equation, *(factor if i == which else part for i, part in enumerate(parts)))

    def pulled_back(error: Tensor) -> Tensor:
        return torch.einsum(back, goal.weigh(error), *(parts[i] for i in others))

    factor = parts[which]
    now = weight_of(factor)
    gradient = pulled_back(goal.target.reshape(now.shape) - now)
    direction, square = gradient, float(gradient.square().sum())
    least = 1e-24 * square
    for _ in range(_STEPS):
        if square <= least:
            break
        curved = pulled_back(weight_of(direction))
        bend = float((direction * curved).sum())
        if bend <= 0.0:
            break
        factor = factor + square / bend * direction
        gradient = gradient - square / bend * curved
        square, before = float(gradient.square().sum()), square
        direction = gradient + square / before * direction
    return factor


def importances(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """How much the loss minds a change of each weight: (sum over pictures of (d loss / d weight)^2)^(1/2).

    Takes one backward pass for each picture, in eval mode.

    Parameters
    ----------
    model : nn.Module
        Left as it is, gradients and training flags included.
    loss : callable
        Of the model's output for one picture and its target, each with a batch axis of 1, to a number.
    batches : iterable of (Tensor, Tensor)
        Inputs and targets.

    Returns
    -------
    dict of str to Tensor
        Name of each ``nn.Conv2d`` to a tensor of its weight's shape, float64 on the CPU.

    Raises
    ------
    ValueError
        If the model has no ``nn.Conv2d``, the loss is no finite number, a batch has not a target for each picture, or
        there is no picture.
    TypeError
        If a batch is no pair of tensors.
    """
    layers = {name: module for name, module in model.named_modules() if type(module) is nn.Conv2d}
    if not layers:
        raise ValueError("the model has no nn.Conv2d whose weights could have an importance")
    # Copies, so that frozen weights have a gradient too and none is left on the model.
    weights = {
        f"{name}.weight".lstrip("."): layer.weight.detach().clone().requires_grad_() for name, layer in layers.items()
    }
    sums = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights.values()]
    flags = [(module, module.training) for module in model.modules()]
    count = 0
    try:
        model.eval()
        for batch in batches:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TypeError(f"a batch must be a pair of inputs and targets, got {type(batch).__name__}")
            inputs, targets = batch
            if len(inputs) != len(targets):
                raise ValueError(f"a batch holds {len(inputs)} inputs and {len(targets)} targets: give as many of each")
            for one in (slice(n, n + 1) for n in range(len(inputs))):
                with torch.enable_grad():
                    value = loss(functional_call(model, weights, (inputs[one],)), targets[one])
                    if value.numel() != 1 or not bool(torch.isfinite(value).all()):
                        raise ValueError(f"loss must be one finite number for each picture, got {value.detach()}")
                    found = torch.autograd.grad(value.sum(), list(weights.values()), allow_unused=True)
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient.to("cpu", torch.float64).square()
                count += 1
    finally:
        for module, training in flags:
            module.training = training
    if not count:
        raise ValueError("batches holds no picture: give at least one batch of inputs and targets")
    return {name: total.sqrt() for name, total in zip(layers, sums, strict=True)}


def record_importances(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Leave :func:`importances` on the layers of a model, where ``metric="mahalanobis"`` looks for them.

    They take twice the room of float32 weights, travel with copies of the model and are in no ``state_dict``; recording
    again replaces them. Parameters and errors are those of :func:`importances`.
    """
    for name, importance in importances(model, loss, batches).items():
        model.get_submodule(name).__dict__["_fastcnn_importance"] = importance


def goals(
    dense: nn.Conv2d, weights: Sequence[Tensor], metric: MetricWord, ridge: float, moments: Moments | None
) -> list[Goal]:
    """For each of a layer's own groups, what its weight should be and which errors count how much.

    Parameters
    ----------
    dense : nn.Conv2d
        Holds the recorded importances.
    weights : sequence of Tensor, shape (F / groups, C / groups, s)
        Of its groups.
    metric, ridge
        As in :class:`~fastcnn.methods.structured.exploit_linear.BiclusteredConfig`.
    moments : Moments or None
        What the layer sees; for ``metric="data"``.

    Raises
    ------
    DeclinedError
        If there is nothing recorded, or it is zero everywhere.
    ValueError
        If recorded importances are of another shape than the weight.
    """
    if metric == "frobenius":
        return [Goal(target=weight) for weight in weights]
    if metric == "data":
        if moments is None:
            raise DeclinedError("metric='data' needs to see the layer's inputs: give convert data")
        return [_data_goal(weight, seen, ridge) for weight, seen in zip(weights, moments.groups, strict=True)]
    recorded = dense.__dict__.get("_fastcnn_importance")
    if recorded is None:
        raise DeclinedError(
            "metric='mahalanobis' needs the importance of each weight: call record_importances(model, loss, batches) "
            "on the model first"
        )
    if recorded.shape != dense.weight.shape:
        raise ValueError(
            f"recorded importances have shape {tuple(recorded.shape)}, the weight has {tuple(dense.weight.shape)}: "
            "record them again"
        )
    squares = recorded.to("cpu", torch.float64).square()
    check_finite(squares, "the recorded importance")
    mean = float(squares.mean())
    if mean == 0.0:
        raise DeclinedError("its recorded importance is zero everywhere: the loss does not depend on it")
    scaled = squares / mean + ridge
    return [
        Goal(target=weight, importance=part.flatten(2))
        for weight, part in zip(weights, scaled.chunk(dense.groups), strict=True)
    ]


def _data_goal(weight: Tensor, seen: Seen, ridge: float) -> Goal:
    """The best weight for what the layer is given, and the covariance of that; ridge pulls both to no calibration."""
    flat = weight.flatten(1)
    covariance = seen.covariance
    added = max(ridge * float(covariance.diagonal().mean()), 1e-12)
    covariance = covariance + added * torch.eye(len(covariance), dtype=covariance.dtype)
    wanted = seen.cross_covariance + added * flat
    target = torch.cholesky_solve(wanted.T, torch.linalg.cholesky(covariance)).T
    return Goal(target=target.reshape(weight.shape), covariance=covariance)
