"""Fourier transforms of length 2^a 3^b 5^c: digit reversal, then one pass of butterflies per factor.

If n = r m, the r interleaved parts x[j], x[j + r], x[j + 2 r] ... have transforms P_j of length m, and

    X[k + q m] = sum over j of (w_n^(j k) P_j[k]) w_r^(j q),     k < m,  q < r:

multiply P_j by twiddle factors, then take a transform of r values, the butterfly, for each k. Repeated for each factor.
Butterflies are written out: w_2 and w_4 cost no multiplications, w_3 and w_5 few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sin, sqrt

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.roots import C128, roots_of_unity

_SIN_60 = sqrt(3) / 2
_COS_72, _COS_144 = (sqrt(5) - 1) / 4, -(sqrt(5) + 1) / 4
_SIN_72, _SIN_144 = sin(2 * pi / 5), sin(4 * pi / 5)


def butterfly2(x: Sequence[C128]) -> list[C128]:
    """Transform of two values: w_2 = -1."""
    return [x[0] + x[1], x[0] - x[1]]


def butterfly3(x: Sequence[C128]) -> list[C128]:
    """Transform of three values: w_3 = -1/2 - i sin 60, and its conjugate; 2 real factors on complex values."""
    both, turned = x[1] + x[2], -1j * (_SIN_60 * (x[1] - x[2]))
    middle = x[0] - both / 2
    return [x[0] + both, middle + turned, middle - turned]


def butterfly4(x: Sequence[C128]) -> list[C128]:
    """Transform of four values: w_4 = -i, which only swaps parts. Two passes of radix 2 without their twiddles."""
    even, even_turned = butterfly2((x[0], x[2]))
    odd, odd_turned = butterfly2((x[1], x[3]))
    odd_turned = -1j * odd_turned
    return [even + odd, even_turned + odd_turned, even - odd, even_turned - odd_turned]


def butterfly5(x: Sequence[C128]) -> list[C128]:
    """Transform of five values: sums of the pairs (1, 4) and (2, 3) meet cosines, their differences sines."""
    outer, inner = x[1] + x[4], x[2] + x[3]
    outer_turn, inner_turn = -1j * (x[1] - x[4]), -1j * (x[2] - x[3])
    first = x[0] + _COS_72 * outer + _COS_144 * inner
    second = x[0] + _COS_144 * outer + _COS_72 * inner
    first_turn = _SIN_72 * outer_turn + _SIN_144 * inner_turn
    second_turn = _SIN_144 * outer_turn - _SIN_72 * inner_turn
    return [x[0] + outer + inner, first + first_turn, second + second_turn, second - second_turn, first - first_turn]


BUTTERFLIES: dict[int, Callable[[Sequence[C128]], list[C128]]] = {
    2: butterfly2,
    3: butterfly3,
    4: butterfly4,
    5: butterfly5,
}


def digit_reversal(radices: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the order in which the passes of these radices want their input, first pass first.

    Parameters
    ----------
    radices : sequence of int
        Their product is the length n.

    Returns
    -------
    int64, shape (n,)
        A permutation; bit reversal if all radices are 2.

    Examples
    --------
    >>> digit_reversal((2, 3)).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    order = np.zeros(1, np.int64)
    for radix in radices:
        # Part j of the last split holds j, j + radix, j + 2 radix ... in the order that the passes before it want.
        order = (order * radix + np.arange(radix)[:, np.newaxis]).reshape(-1)
    return order


def radix_pass(x: C128, radix: int, span: int) -> C128:
    """Join blocks of ``radix`` transforms of ``span`` values into transforms of ``radix * span`` values.

    Parameters
    ----------
    x : complex128, shape (..., n)
        n is a multiple of ``radix * span``; transforms of span values stand one after the other.
    radix : {2, 3, 4, 5}
    span : int

    Returns
    -------
    complex128, shape (..., n)
    """
    size = radix * span
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // size, radix, span)
    twiddles = roots_of_unity(size)[np.outer(np.arange(radix), np.arange(span))]
    blocks = blocks * twiddles
    joined = BUTTERFLIES[radix]([blocks[..., part, :] for part in range(radix)])
    return np.stack(joined, axis=-2).reshape(x.shape)


def mixed_radix_fft(x: C128, radices: Sequence[int]) -> C128:
    """Transform the last axis, whose length is the product of the radices.

    Parameters
    ----------
    x : complex128, shape (..., n)
    radices : sequence of 2, 3, 4 and 5
        In the order of the passes; every order gives the same transform.

    Returns
    -------
    complex128, shape (..., n)

    References
    ----------
    Cooley and Tukey 1965, Math. Comp. 19; Singleton 1969 (butterflies of 3 and 5), IEEE Trans. Audio 17.
    """
    out = x[..., digit_reversal(radices)]
    span = 1
    for radix in radices:
        out = radix_pass(out, radix, span)
        span *= radix
    return out
