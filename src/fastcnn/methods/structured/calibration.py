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

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import Sight
from fastcnn.methods.structured.factored import FactoredConv2d

MOST_SAMPLES = 20_000
"""Positions of all calibration inputs together that a convolution's moments are taken over, or 8 n if that is more."""


@dataclass(frozen=True)
class GroupMoments:
    """Means and second moments of one group, float64 on the CPU.

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


@dataclass(frozen=True)
class Moments:
    """Of every group of a layer, from ``count`` samples."""

    groups: tuple[GroupMoments, ...]
    count: int

    def of_group(self, index: int) -> GroupMoments:
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


def whitened_svd(matrix: Tensor, moments: GroupMoments | None, ridge: float) -> Spectrum:
    """SVD of a weight (m, n), in the norm of its outputs where moments are given."""
    if moments is None:
        left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
        return Spectrum(singular, left, right)
    covariance, added = _ridged(moments.covariance, ridge)
    lower = torch.linalg.cholesky(covariance)
    target = moments.cross_covariance + added * matrix
    # M L = (Cov(y, x) + ridge W) L^-T, as M = (...) (L L^T)^-1.
    scaled = torch.linalg.solve_triangular(lower, target.T, upper=False).T
    left, singular, right = torch.linalg.svd(scaled, full_matrices=False)
    # right L^-1, by a triangular system in L^T.
    unscaled = torch.linalg.solve_triangular(lower.T, right.T, upper=True).T
    return Spectrum(singular, left, unscaled)


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

    @property
    def groups(self) -> int:
        """Groups of channels with moments of their own."""
        return self.layer.groups if isinstance(self.layer, nn.Conv2d) else 1

    @property
    def most_rows(self) -> int:
        """Rows that a convolution's inputs come to, at most; a guess for a linear layer."""
        return max(MOST_SAMPLES, 8 * self.layer.weight[0].numel())

    def outputs(self, wanted: Tensor, call: int) -> Tensor:
        """Rows (samples, m) of what the original net has behind the layer in its call of that number."""
        if isinstance(self.layer, nn.Linear):
            return wanted.reshape(-1, wanted.shape[-1])
        rows, columns = self._positions(wanted.shape[2], wanted.shape[3], call)
        return wanted[:, :, rows, columns].transpose(1, 2).flatten(0, 1)

    def inputs(self, given: Tensor, call: int) -> Tensor:
        """Rows (samples, groups * n) of what the layer is given, patch by patch."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return given.reshape(-1, given.shape[-1])
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        windows = F.pad(given, layer._reversed_padding_repeated_twice, mode=mode)
        for axis in range(2):
            span = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
            windows = windows.unfold(2 + axis, span, layer.stride[axis])
        # A view (N, C, rows, columns, taps): only the positions that are taken become patches.
        windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
        rows, columns = self._positions(windows.shape[2], windows.shape[3], call)
        return windows[:, :, rows, columns].transpose(1, 2).flatten(0, 1).flatten(1)

    def _positions(self, height: int, width: int, call: int) -> tuple[Tensor, Tensor]:
        each = max(1, min(height * width, self.most_rows // max(1, self.expected)))
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
        found = []
        for sums in self._sums:
            mean, second, out_mean, cross = (total / self._count for total in sums)
            if not all(bool(torch.isfinite(part).all()) for part in (second, cross)):
                raise ValueError("the layer's calibration inputs or outputs hold NaN or Inf")
            found.append(GroupMoments(mean, second, out_mean, cross, centred=self.layer.bias is not None))
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
    scale = float(covariance.diagonal().mean())
    added = max(ridge * scale, 1e-9 * scale, 1e-12)  # a covariance of few samples is singular
    return covariance + added * torch.eye(len(covariance), dtype=covariance.dtype), added


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
