"""What a layer sees on calibration inputs, and low rank in the norm of its outputs instead of its weight.

Notation: a layer with weight W (m, n) and bias b makes y = W x + b. In a net whose earlier layers are already
approximated it is given x' instead of x, while y is still what the original net has there. The best matrix for x' is
M = Cov(y, x') Cov(x')^-1, and the best one of rank r is found by an SVD of M L, with L L^T = Cov(x'). Both covariances
are pulled towards what they would be without calibration by a ridge, since a few hundred pictures do not show a layer
every direction. Without a bias nothing can make up for a mean: then second moments stand in for covariances.

References
----------
Zhang, Zou, He and Sun 2015, arXiv:1505.06798, sections 3.1 and 3.3 (asymmetric reconstruction), without the
nonlinearity; Xue, Li and Gong 2013 for the plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import DeclinedError, Sight
from fastcnn.methods.structured.factored import FactoredConv2d

MOST_SAMPLES = 20_000
"""Positions of all calibration inputs together that a convolution's moments are taken over, or 8 n if that is more."""
WIDEST = 8192
"""Inputs of a linear layer whose second moments are gathered in a matrix, of 512 MB."""
MOST_WIDE_ROWS = 2048
"""Rows that are kept of a wider layer."""


Unscale = Callable[[Tensor], Tensor]


class Seen(Protocol):
    """Means and second moments of one group's inputs x and the original net's outputs y, float64 on the CPU."""

    @property
    def mean(self) -> Tensor:
        """E[x], shape (n,)."""

    @property
    def out_mean(self) -> Tensor:
        """E[y], shape (m,)."""

    @property
    def centred(self) -> bool:
        """Whether the layer has a bias to make up for means."""

    @property
    def second(self) -> Tensor:
        """E[x x^T], shape (n, n)."""

    @property
    def covariance(self) -> Tensor:
        """Cov(x), or E[x x^T] for a layer without bias."""

    @property
    def cross_covariance(self) -> Tensor:
        """Cov(y, x), or E[y x^T], shape (m, n)."""

    def energy(self, matrix: Tensor) -> float:
        """tr(A S A^T) of a matrix A (p, n), with S the covariance: the energy of A x."""

    def scaled(self, matrix: Tensor, ridge: float) -> tuple[Tensor, Unscale]:
        """The best matrix for the inputs, drawn to ``matrix`` by the ridge, times a root of S; how to undo that root.

        The norm of the first is that of the outputs; the second serves any rows.
        """


@dataclass(frozen=True)
class GroupMoments:
    """Moments as matrices.

    Parameters
    ----------
    mean : Tensor, shape (n,)
        Of the inputs.
    second : Tensor, shape (n, n)
        E[x x^T].
    out_mean : Tensor, shape (m,)
        Of the original net's outputs.
    cross : Tensor, shape (m, n)
        E[y x^T].
    centred : bool
        Whether the layer has a bias to make up for means.
    """

    mean: Tensor
    second: Tensor
    out_mean: Tensor
    cross: Tensor
    centred: bool

    @property
    def covariance(self) -> Tensor:
        """Cov(x), or E[x x^T] for a layer without bias."""
        return self.second - torch.outer(self.mean, self.mean) if self.centred else self.second

    @property
    def cross_covariance(self) -> Tensor:
        """Cov(y, x), or E[y x^T]."""
        return self.cross - torch.outer(self.out_mean, self.mean) if self.centred else self.cross

    def energy(self, matrix: Tensor) -> float:
        """tr(A S A^T)."""
        return float(((matrix @ self.covariance) * matrix).sum())

    def scaled(self, matrix: Tensor, ridge: float) -> tuple[Tensor, Unscale]:
        """By the lower triangular root L of S."""
        covariance, added = _ridged(self.covariance, ridge)
        lower = torch.linalg.cholesky(covariance)
        target = self.cross_covariance + added * matrix
        # M L = (Cov(y, x) + ridge W) L^-T, as M = (...) (L L^T)^-1.
        scaled = torch.linalg.solve_triangular(lower, target.T, upper=False).T
        return scaled, lambda rows: torch.linalg.solve_triangular(lower.T, rows.T, upper=True).T


@dataclass(frozen=True)
class RowMoments:
    """Moments of a layer so wide that a matrix of (n, n) would fill the memory: the inputs and outputs themselves.

    There are fewer of them than features, so that S is a multiple of the identity (the ridge) but for the directions
    that they span: S + c I = V (D + c I) V^T + c (I - V V^T), of which any power is as simple.

    Parameters
    ----------
    inputs : Tensor, shape (samples, n)
    outputs : Tensor, shape (samples, m)
        Of the original net.
    centred : bool
    """

    inputs: Tensor
    outputs: Tensor
    centred: bool

    @property
    def mean(self) -> Tensor:
        """E[x]."""
        return self.inputs.mean(0)

    @property
    def out_mean(self) -> Tensor:
        """E[y]."""
        return self.outputs.mean(0)

    @property
    def second(self) -> Tensor:
        """E[x x^T].

        Raises
        ------
        DeclinedError
            Always: who needs it cannot serve such a layer.
        """
        n = self.inputs.shape[1]
        raise DeclinedError(
            f"second moments of its {n} inputs take {8 * n * n / 2**30:.1f} GiB, several times over: with data this "
            f"method serves layers of {WIDEST} inputs at most"
        )

    @property
    def covariance(self) -> Tensor:
        """As :attr:`second`."""
        return self.second

    @property
    def cross_covariance(self) -> Tensor:
        """Cov(y, x), or E[y x^T]."""
        x, y = self._apart()
        return y.T @ x / len(x)

    def _apart(self) -> tuple[Tensor, Tensor]:
        """Inputs and outputs, without their means where a bias makes up for those."""
        if not self.centred:
            return self.inputs, self.outputs
        return self.inputs - self.mean, self.outputs - self.out_mean

    def energy(self, matrix: Tensor) -> float:
        """tr(A S A^T)."""
        x, _ = self._apart()
        return float((x @ matrix.T).square().sum()) / len(x)

    def scaled(self, matrix: Tensor, ridge: float) -> tuple[Tensor, Unscale]:
        """By the symmetric root of S."""
        x, y = self._apart()
        _, singular, right = torch.linalg.svd(x, full_matrices=False)
        variances = singular.square() / len(x)
        added = _added(float(variances.sum()) / x.shape[1], ridge)
        along = (variances + added) ** -0.5 - added**-0.5

        def unscaled(rows: Tensor) -> Tensor:
            out: Tensor = rows * added**-0.5 + (rows @ right.T * along) @ right
            return out

        return unscaled(y.T @ x / len(x) + added * matrix), unscaled


@dataclass(frozen=True)
class Moments:
    """Of every group of a layer, from ``count`` samples."""

    groups: tuple[Seen, ...]
    count: int

    def of_group(self, index: int) -> Seen:
        """Moments of one group."""
        return self.groups[index]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix in the norm that was asked for, and how to cut it."""

    singular: Tensor
    _left: Tensor
    _right: Tensor

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """Factors V (rank, n) and U (m, rank), each with the square root of the singular values."""
        root = self.singular[:rank].sqrt()
        return root[:, None] * self._right[:rank], self._left[:, :rank] * root


def whitened_svd(matrix: Tensor, moments: Seen | None, ridge: float) -> Spectrum:
    """SVD of a weight (m, n), in the norm of its outputs where moments are given."""
    if moments is None:
        left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
        return Spectrum(singular, left, right)
    scaled, unscale = moments.scaled(matrix, ridge)
    left, singular, right = torch.linalg.svd(scaled, full_matrices=False)
    return Spectrum(singular, left, unscale(right))


@dataclass
class Gatherer:
    """Takes in what a layer is given and what it should return, call by call; makes :class:`Moments` of it.

    Of a convolution's calls a share of the positions is taken, for all pictures the same; which ones follows from the
    number of the call alone, so that inputs and outputs may be had in different passes.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
    expected : int
        Inputs that will come, for the number of positions to take of each; pictures or rows.
    """

    layer: nn.Conv2d | nn.Linear
    expected: int
    calls: int = 0
    _count: int = 0
    _sums: list[list[Tensor]] = field(default_factory=list)
    _rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _seen: list[int] = field(default_factory=lambda: [0, 0])
    """Rows of a wide layer's inputs, and of its outputs, of which some were taken."""

    @property
    def groups(self) -> int:
        """Groups of channels with moments of their own."""
        return self.layer.groups if isinstance(self.layer, nn.Conv2d) else 1

    @property
    def wide(self) -> bool:
        """Whether rows are kept instead of matrices of second moments."""
        return isinstance(self.layer, nn.Linear) and self.layer.in_features > WIDEST

    @property
    def most_rows(self) -> int:
        """Rows that a convolution's inputs come to, at most; a guess for a linear layer."""
        return max(MOST_SAMPLES, 8 * self.layer.weight[0].numel())

    def outputs(self, wanted: Tensor, call: int) -> Tensor:
        """Rows (samples, m) of what the original net has behind the layer in its call of that number."""
        if isinstance(self.layer, nn.Linear):
            return self._linear_rows(wanted, call, 1)
        rows, columns = self._positions(wanted.shape[2], wanted.shape[3], call)
        return wanted[:, :, rows, columns].transpose(1, 2).flatten(0, 1)

    def inputs(self, given: Tensor, call: int) -> Tensor:
        """Rows (samples, groups * n) of what the layer is given, patch by patch."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return self._linear_rows(given, call, 0)
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        windows = F.pad(given, layer._reversed_padding_repeated_twice, mode=mode)
        for axis in range(2):
            span = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
            windows = windows.unfold(2 + axis, span, layer.stride[axis])
        # A view (N, C, rows, columns, taps): only the positions that are taken become patches.
        windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
        rows, columns = self._positions(windows.shape[2], windows.shape[3], call)
        return windows[:, :, rows, columns].transpose(1, 2).flatten(0, 1).flatten(1)

    def _linear_rows(self, values: Tensor, call: int, side: int) -> Tensor:
        """All rows (samples, features); of a wide layer some of them, the same few positions of every input."""
        if not self.wide:
            return values.reshape(-1, values.shape[-1])
        if values.dim() < 3:
            rows = values.reshape(-1, values.shape[-1])
        else:
            places = values.flatten(1, -2)
            picked, _ = self._positions(places.shape[1], 1, call)
            rows = places[:, picked].flatten(0, 1)
        # Of all rows there will be, evenly, and no more than there is room for.
        before, after = (
            min(MOST_WIDE_ROWS, MOST_WIDE_ROWS * seen // max(MOST_WIDE_ROWS, self.expected))
            for seen in (self._seen[side], self._seen[side] + len(rows))
        )
        self._seen[side] += len(rows)
        share = torch.randperm(len(rows), generator=torch.Generator().manual_seed(call))[: after - before]
        return rows[share]

    def _positions(self, height: int, width: int, call: int) -> tuple[Tensor, Tensor]:
        most = MOST_WIDE_ROWS if self.wide else self.most_rows
        each = max(1, min(height * width, most // max(1, self.expected)))
        picked = torch.randperm(height * width, generator=torch.Generator().manual_seed(call))[:each]
        return picked // width, picked % width

    def add(self, given: Tensor, wanted: Tensor) -> None:
        """Take in a call: inputs of the layer in the net so far, outputs that the original net has there."""
        self.add_sampled(given, self.outputs(wanted, self.calls))

    def add_sampled(self, given: Tensor, outputs: Tensor) -> None:
        """The same with rows of :meth:`outputs`."""
        x = self.inputs(given, self.calls).double().cpu()
        y = outputs.double().cpu()
        self.calls += 1
        self._count += len(x)
        if self.wide:
            self._rows.append((x, y))
            return
        pairs = zip(x.chunk(self.groups, 1), y.chunk(self.groups, 1), strict=True)
        for g, (xs, ys) in enumerate(pairs):
            parts = [xs.sum(0), xs.T @ xs, ys.sum(0), ys.T @ xs]
            if g == len(self._sums):
                self._sums.append(parts)
            else:
                for total, part in zip(self._sums[g], parts, strict=True):
                    total += part

    def moments(self) -> Moments:
        """What was seen.

        Raises
        ------
        ValueError
            If nothing was, or it holds NaN or Inf.
        """
        if not self._count:
            raise ValueError("the layer saw no calibration input")
        centred = self.layer.bias is not None
        if self.wide:
            x, y = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
            if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
                raise ValueError("the layer's calibration inputs or outputs hold NaN or Inf")
            return Moments((RowMoments(x, y, centred),), self._count)
        found: list[Seen] = []
        for sums in self._sums:
            mean, second, out_mean, cross = (total / self._count for total in sums)
            if not all(bool(torch.isfinite(part).all()) for part in (second, cross)):
                raise ValueError("the layer's calibration inputs or outputs hold NaN or Inf")
            found.append(GroupMoments(mean, second, out_mean, cross, centred))
        return Moments(tuple(found), self._count)


@dataclass(frozen=True)
class Whitening:
    """Lower factor L of a covariance of channels, L L^T: W L is the weight for inputs without correlations."""

    factor: Tensor

    def undo(self, matrix: Tensor) -> Tensor:
        """Return matrix L^-1, for a matrix (r, C)."""
        undone: Tensor = torch.linalg.solve_triangular(self.factor.T, matrix.T, upper=True).T
        return undone


def whitenings(sight: Sight | None, dense: nn.Conv2d, ridge: float) -> list[Whitening | None]:
    """Of each group's input channels, averaged over the taps; None without calibration inputs."""
    if sight is None:
        return [None] * dense.groups
    found: list[Whitening | None] = []
    taps = dense.kernel_size[0] * dense.kernel_size[1]
    for part in sight.moments.groups:
        channels = len(part.mean) // taps
        covariance = part.covariance.reshape(channels, taps, channels, taps).diagonal(dim1=1, dim2=3).mean(2)
        found.append(Whitening(torch.linalg.cholesky(_ridged(covariance, ridge)[0])))
    return found


def _ridged(covariance: Tensor, ridge: float) -> tuple[Tensor, float]:
    """A covariance with ``ridge`` of its mean variance added to the diagonal, and what that is."""
    added = _added(float(covariance.diagonal().mean()), ridge)
    return covariance + added * torch.eye(len(covariance), dtype=covariance.dtype), added


def _added(variance: float, ridge: float) -> float:
    """What is added to the variances, of this mean; a covariance of few samples is singular."""
    return max(ridge * variance, 1e-9 * variance, 1e-12)


def refine(layer: FactoredConv2d, dense: nn.Conv2d, sight: Sight | None, ridge: float) -> None:
    """Move the factors of a chain to the least error of its outputs on calibration inputs; nothing without any.

    The error is quadratic in the dense weight that the chain stands for, so moments suffice and no input is needed:
    with S the covariance and M the best matrix, it is tr((M - W) S (M - W)^T). L-BFGS on the factors, from where they
    are. The bias then makes up for the means.
    """
    if sight is None:
        return
    targets, roots = [], []
    for weight, part in zip(
        dense.weight.detach().double().cpu().chunk(dense.groups), sight.moments.groups, strict=True
    ):
        covariance, added = _ridged(part.covariance, ridge)
        lower = torch.linalg.cholesky(covariance)
        matrix = weight.flatten(1)
        # Both M L and W L are compared, and the ridge draws M to the weight the net was trained with.
        scaled = torch.linalg.solve_triangular(lower, (part.cross_covariance + added * matrix).T, upper=False).T
        targets.append(scaled)
        roots.append(lower)
    layer.fit_to(targets, roots)
    if layer.bias is not None:
        shifts = [
            part.out_mean - weight.flatten(1) @ part.mean
            for weight, part in zip(layer.weight.cpu().chunk(dense.groups), sight.moments.groups, strict=True)
        ]
        with torch.no_grad():
            layer.bias.copy_(torch.cat(shifts))
