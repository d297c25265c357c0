"""Forms of images: a one-dimensional form along each axis, and sums of them for large kernels and strides.

A kernel that is large, or has a stride, is taken apart into pieces that each are a stride-1 correlation with few taps:
``y = sum of pieces``. Splitting keeps the small tiles' accuracy where one large tile would lose it; a stride s takes
the input apart into its s phases, none of which computes an output that is thrown away. The weights are the same, and
as algebra all is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from fastcnn.methods.transforms.winograd.matrices import WinogradMatrices, winograd_matrices
from fastcnn.methods.transforms.winograd.points import check_count

Pair = tuple[int, int]
AxisPoints = Sequence[Fraction | int | str] | None


@dataclass(frozen=True, kw_only=True)
class WinogradForm:
    """F(m1 x m2, r1 x r2): ``Y = A1^T [(G1 g G2^T) * (B1^T d B2)] A2``, rows by the first form, columns by the second.

    Parameters
    ----------
    rows, columns : WinogradMatrices
        Along the height, and along the width.
    """

    rows: WinogradMatrices
    columns: WinogradMatrices

    @property
    def output_tile(self) -> Pair:
        """(m1, m2), outputs of a tile."""
        return self.rows.m, self.columns.m

    @property
    def kernel_size(self) -> Pair:
        """(r1, r2), taps."""
        return self.rows.r, self.columns.r

    @property
    def input_tile(self) -> Pair:
        """(t1, t2), inputs of a tile."""
        return self.rows.m + self.rows.r - 1, self.columns.m + self.columns.r - 1

    @property
    def multiplications(self) -> Fraction:
        """Multiplications per output, channel and filter; direct correlation takes r1 * r2."""
        return Fraction(prod(self.input_tile), prod(self.output_tile))

    @property
    def saving(self) -> Fraction:
        """Multiplications of direct correlation, over those of this form."""
        return prod(self.kernel_size) / self.multiplications

    @property
    def weight_growth(self) -> Fraction:
        """Numbers of a transformed kernel, over those of the kernel."""
        return Fraction(prod(self.input_tile), prod(self.kernel_size))

    def __str__(self) -> str:
        (m1, m2), (r1, r2) = self.output_tile, self.kernel_size
        return f"F({m1}x{m2},{r1}x{r2})"


@dataclass(frozen=True, kw_only=True)
class WinogradPiece:
    """A stride-1 correlation of every ``step``-th input from ``start`` on with every ``step``-th tap from there on.

    Parameters
    ----------
    start, step : (int, int)
        First row and column, of the padded input and of the kernel alike; and the distance from one to the next.
    form : WinogradForm
        Its ``kernel_size`` says how many taps are taken.
    """

    start: Pair
    step: Pair
    form: WinogradForm

    @property
    def taps(self) -> tuple[slice, slice]:
        """Where the piece's taps lie in the kernel."""
        ends = (s + (r - 1) * d + 1 for s, d, r in zip(self.start, self.step, self.form.kernel_size, strict=True))
        rows, columns = (slice(s, e, d) for s, e, d in zip(self.start, ends, self.step, strict=True))
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class WinogradSum:
    """A correlation as a sum of pieces.

    Along one axis ``y[i] = sum over pieces, sum over k below r of g[start + step k] x[start + step k + stride i]``;
    ``step`` is ``stride``, so that each piece is a stride-1 correlation of every ``step``-th input.

    Parameters
    ----------
    kernel_size, stride : (int, int)
        Of the correlation that the pieces add up to.
    pieces : tuple of WinogradPiece
    """

    kernel_size: Pair
    stride: Pair
    pieces: tuple[WinogradPiece, ...]

    @property
    def multiplications(self) -> Fraction:
        """Multiplications per output, channel and filter; direct correlation takes r1 * r2."""
        return sum((piece.form.multiplications for piece in self.pieces), Fraction(0))

    @property
    def saving(self) -> Fraction:
        """Multiplications of direct correlation, over those of the sum."""
        return prod(self.kernel_size) / self.multiplications

    @property
    def weight_growth(self) -> Fraction:
        """Numbers of all transformed pieces, over those of the kernel."""
        return Fraction(sum(prod(piece.form.input_tile) for piece in self.pieces), prod(self.kernel_size))

    def __str__(self) -> str:
        return " + ".join(f"{piece.form} at {piece.start[0]},{piece.start[1]}" for piece in self.pieces)


def nested_form(
    output_tile: int | Pair, kernel_size: int | Pair, points: tuple[AxisPoints, AxisPoints] = (None, None)
) -> WinogradForm:
    """Make F(m1 x m2, r1 x r2) out of two forms of one axis.

    Parameters
    ----------
    output_tile : int or (int, int)
        m, or m1 and m2. An int stands for 1 along an axis with one tap: there is nothing to save there.
    kernel_size : int or (int, int)
        r, or r1 and r2: 1 x r and r x 1 kernels have a form along one axis.
    points : two sequences of points, optional
        As :func:`winograd_matrices` takes them, for rows and columns.

    Raises
    ------
    TypeError
        If a size is neither an integer nor two of them.
    ValueError
        If one is below 1, or the points do not fit.

    Examples
    --------
    >>> form = nested_form(4, (1, 3))
    >>> str(form), str(form.multiplications)
    ('F(1x4,1x3)', '3/2')
    """
    taps = _pair("kernel_size", kernel_size)
    tile = _tile(output_tile, taps)
    rows, columns = (winograd_matrices(m, r, p) for m, r, p in zip(tile, taps, points, strict=True))
    return WinogradForm(rows=rows, columns=columns)


def split_kernel(kernel_size: int | Pair, output_tile: int | Pair, *, most_taps: int = 3) -> WinogradSum:
    """Split a kernel, stride 1, into pieces of at most ``most_taps`` taps along each axis, as equal as can be.

    Parameters
    ----------
    kernel_size : int or (int, int)
        r, or r1 and r2: 5 gives pieces of 3 and 2 taps, 7 of 3, 2 and 2.
    output_tile : int or (int, int)
        As in :func:`nested_form`, for every piece.
    most_taps : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`nested_form`.

    References
    ----------
    Huang et al. 2020, DWM, arXiv:2002.00552.

    Examples
    --------
    >>> made = split_kernel(5, 4)
    >>> len(made.pieces), str(made.multiplications), str(nested_form(4, 5).multiplications)
    (4, '121/16', '4')
    """
    return polyphase(kernel_size, output_tile, stride=1, most_taps=most_taps)


def polyphase(
    kernel_size: int | Pair, output_tile: int | Pair, *, stride: int | Pair = 2, most_taps: int | None = None
) -> WinogradSum:
    """Take a correlation with a stride apart into the phases of its input, each a correlation of stride 1.

    Phase p of an axis has the inputs ``x[p::stride]`` and the taps ``g[p::stride]``; a phase without taps is left out.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Taps. With stride 2, 3 gives phases of 2 and 1 taps, 5 of 3 and 2, 7 of 4 and 3.
    output_tile : int or (int, int)
        As in :func:`nested_form`, for every phase.
    stride : int or (int, int)
        At least 1.
    most_taps : int, optional
        Split phases with more taps, as :func:`split_kernel` does.

    Raises
    ------
    TypeError, ValueError
        As :func:`nested_form`.

    References
    ----------
    Huang et al. 2020, DWM, arXiv:2002.00552. Phases of unequal size are left so: no tap is filled up with zero.

    Examples
    --------
    >>> made = polyphase(3, 4)
    >>> str(made)
    'F(4x4,2x2) at 0,0 + F(4x1,2x1) at 0,1 + F(1x4,1x2) at 1,0 + F(1x1,1x1) at 1,1'
    >>> round(float(made.saving), 2)
    1.78
    """
    taps, steps = _pair("kernel_size", kernel_size), _pair("stride", stride)
    if most_taps is not None:
        check_count("most_taps", most_taps)
    by_rows, by_columns = (_axis(r, s, most_taps or r) for r, s in zip(taps, steps, strict=True))
    pieces = tuple(
        WinogradPiece(start=(top, left), step=steps, form=nested_form(_tile(output_tile, (r1, r2)), (r1, r2)))
        for top, r1 in by_rows
        for left, r2 in by_columns
    )
    return WinogradSum(kernel_size=taps, stride=steps, pieces=pieces)


def _axis(taps: int, stride: int, most: int) -> list[tuple[int, int]]:
    """Start and number of taps of each piece of an axis."""
    made = []
    for phase in range(min(stride, taps)):
        left = -(-(taps - phase) // stride)
        start = phase
        for parts in range(-(-left // most), 0, -1):
            size = -(-left // parts)
            made.append((start, size))
            start, left = start + stride * size, left - size
    return made


def _pair(name: str, value: int | Pair) -> Pair:
    both = value if isinstance(value, tuple) else (value, value)
    if len(both) != 2:
        raise TypeError(f"{name} must be an integer or two of them, got {value!r}")
    for each in both:
        check_count(name, each)
    return both


def _tile(output_tile: int | Pair, taps: Pair) -> Pair:
    """(m1, m2); of an int, 1 along an axis with one tap."""
    m1, m2 = _pair("output_tile", output_tile)
    if isinstance(output_tile, tuple):
        return m1, m2
    return (1 if taps[0] == 1 else m1), (1 if taps[1] == 1 else m2)
