"""Transforms of real images: every row by the real transform, then every column by the complex one.

    X[u, v] = sum over y, x of image[y, x] exp(-2 pi i (u y / H + v x / W)),     v = 0 ... W // 2

The other columns follow from X[H - u, W - v] = conj(X[u, v]).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.fft.arguments import check_length, complex_signal, real_length, real_signal
from fastcnn.methods.transforms.fft.complex_fft import inverse_transform, transform
from fastcnn.methods.transforms.fft.real_fft import inverse_real_transform, real_transform
from fastcnn.methods.transforms.fft.roots import C128, F64


def rfft2(x: npt.ArrayLike, shape: tuple[int, int] | None = None) -> C128:
    """Return columns 0 ... W // 2 of the two-dimensional transform of real values along the last two axes.

    Parameters
    ----------
    x : array of real numbers, shape (..., h, w)
        Rounded to float64.
    shape : (H, W), optional
        Size of the transform, at least (h, w): x is filled up with zeros below and on the right. Default: (h, w).

    Returns
    -------
    complex128, shape (..., H, W // 2 + 1)

    Raises
    ------
    TypeError
        If x is complex or does not hold numbers, or shape does not hold integers.
    ValueError
        If x has fewer than two axes or one of its last two is empty, or if shape is not two lengths that x fits into.

    Examples
    --------
    >>> rfft2([[1, 2], [3, 4]]).real.tolist()
    [[10.0, -2.0], [-4.0, 0.0]]
    """
    height, width = (None, None) if shape is None else _pair(shape)
    image = real_signal("x", x, width)
    if image.ndim < 2:
        raise ValueError(f"x has shape {image.shape}: rfft2 needs at least two axes, rfft takes one")
    rows = np.swapaxes(real_transform(image), -1, -2)
    return np.swapaxes(transform(complex_signal("the columns of x", rows, height)), -1, -2)


def irfft2(spectrum: npt.ArrayLike, shape: tuple[int, int] | None = None) -> F64:
    """Return the real values of size (H, W) whose :func:`rfft2` this is, along the last two axes.

    What cannot come from real values (in columns 0 and W / 2) is left out, as ``numpy.fft.irfft2`` does.

    Parameters
    ----------
    spectrum : array of numbers, shape (..., H, W // 2 + 1)
    shape : (H, W), optional
        Size of the result; default: H as it is and the even W. Pass it when the width was odd.

    Returns
    -------
    float64, shape (..., H, W)

    Raises
    ------
    TypeError
        If spectrum does not hold numbers, or shape does not hold integers.
    ValueError
        If spectrum has fewer than two axes or one of its last two is empty, or if shape is not (H, W).

    Examples
    --------
    >>> irfft2(rfft2([[1.0, 2, 3], [4, 5, 6]]), (2, 3)).round(12).tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    bins = complex_signal("spectrum", spectrum)
    if bins.ndim < 2 or bins.shape[-2] == 0:
        raise ValueError(f"spectrum has shape {bins.shape}: irfft2 needs two last axes with at least one value each")
    height, width = (bins.shape[-2], None) if shape is None else _pair(shape)
    if height != bins.shape[-2]:
        raise ValueError(
            f"shape={shape} does not fit a spectrum of {bins.shape[-2]} rows: crop the image, not the spectrum"
        )
    columns = np.swapaxes(inverse_transform(np.swapaxes(bins, -1, -2)), -1, -2)
    return inverse_real_transform(columns, real_length(bins, width, "the width"))


def _pair(shape: object) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape={shape!r} is not a size: pass (height, width)")
    height, width = (check_length("shape", value) for value in shape)
    return height, width
