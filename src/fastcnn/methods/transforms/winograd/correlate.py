"""Correlation of many channels by any form, in numpy: what the error tables measure, and a reference for kernels.

Tiles are gathered, transformed, multiplied per frequency as matrices over the channels, and transformed back, in the
order of the native kernels. It is written to be read and to be right in any precision; it is not fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastcnn.methods.transforms.winograd.forms import WinogradForm, WinogradSum
from fastcnn.methods.transforms.winograd.points import check_count

SUM_TERMS = 64
"""Channels added in a row before the sum joins the total."""

Array = npt.NDArray[Any]


def winograd_correlate(input: Array, weight: Array, form: WinogradForm, *, sum_terms: int = SUM_TERMS) -> Array:
    """Correlate an image with kernels by Winograd tiles; stride 1, no padding.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (C, H, W)
    weight : ndarray of the same dtype, shape (F, C, r1, r2)
    form : WinogradForm
        F(m1 x m2, r1 x r2) of the weight's kernel size. Tiles that hang over the edge are filled up with zeros.
    sum_terms : int
        Channels summed in a row, at least 1. Transformed numbers are larger than the outputs that they sum to: one sum
        over hundreds of channels rounds off more than the transforms do.

    Returns
    -------
    ndarray of the same dtype, shape (F, H - r1 + 1, W - r2 + 1)
        Computed in that dtype throughout, except that kernels are transformed in float64 and rounded once.

    Raises
    ------
    TypeError
        If the dtypes differ, or are none of those, or ``sum_terms`` is no integer.
    ValueError
        If the shapes do not go together, or ``sum_terms`` is below 1.
    """
    _check(input, weight, form.kernel_size)
    check_count("sum_terms", sum_terms)
    dtype = input.dtype
    (m1, m2), (t1, t2) = form.output_tile, form.input_tile
    filters, channels = weight.shape[:2]
    height, width = (n - r + 1 for n, r in zip(input.shape[1:], form.kernel_size, strict=True))
    down, across = -(-height // m1), -(-width // m2)
    missing = down * m1 - height, across * m2 - width
    padded = np.pad(input, ((0, 0), (0, missing[0]), (0, missing[1])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (t1, t2), axis=(1, 2))[:, ::m1, ::m2]
    tiles = windows.reshape(channels, down * across, t1, t2)

    (a1, _, b1), (a2, _, b2) = form.rows.arrays(dtype), form.columns.arrays(dtype)
    g1, g2 = form.rows.arrays()[1], form.columns.arrays()[1]
    spectra = (g1 @ weight.astype(np.float64) @ g2.T).astype(dtype)
    data = (b1 @ tiles @ b2.T).transpose(2, 3, 1, 0)
    spectra = spectra.transpose(2, 3, 1, 0)
    products = np.zeros((t1, t2, down * across, filters), dtype)
    for first in range(0, channels, sum_terms):
        part = slice(first, first + sum_terms)
        products += _sum(data[..., part], spectra[..., part, :])
    outputs = a1 @ products.transpose(3, 2, 0, 1) @ a2.T
    whole = outputs.reshape(filters, down, across, m1, m2).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(whole.reshape(filters, down * m1, across * m2)[:, :height, :width])


def winograd_correlate_sum(input: Array, weight: Array, pieces: WinogradSum, *, sum_terms: int = SUM_TERMS) -> Array:
    """Correlate an image with kernels piece by piece: split kernels, and strides by phases; no padding.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (C, H, W)
    weight : ndarray of the same dtype, shape (F, C, r1, r2)
    pieces : WinogradSum
        From :func:`split_kernel` or :func:`polyphase`, for the weight's kernel size.
    sum_terms : int
        Channels summed in a row, in each piece.

    Returns
    -------
    ndarray of the same dtype, shape (F, (H - r1) // s1 + 1, (W - r2) // s2 + 1)

    Raises
    ------
    TypeError, ValueError
        As :func:`winograd_correlate`.
    """
    _check(input, weight, pieces.kernel_size)
    sizes = zip(input.shape[1:], pieces.kernel_size, pieces.stride, strict=True)
    height, width = ((n - r) // s + 1 for n, r, s in sizes)
    total = np.zeros((len(weight), height, width), input.dtype)
    for piece in pieces.pieces:
        (top, left), (down, across), (r1, r2) = piece.start, piece.step, piece.form.kernel_size
        part = input[:, top::down, left::across][:, : height + r1 - 1, : width + r2 - 1]
        taps = weight[:, :, piece.taps[0], piece.taps[1]]
        total += winograd_correlate(part, taps, piece.form, sum_terms=sum_terms)
    return total


def _sum(data: Array, spectra: Array) -> Array:
    """Products (..., tiles, C) @ (..., C, F); in float32 channel after channel, each added with one rounding.

    So fused multiply-adds work. A BLAS would be faster, but in what order it sums depends on the machine.
    """
    if data.dtype == np.float64:
        return data @ spectra
    total = np.zeros((*data.shape[:-1], spectra.shape[-1]), np.float32)
    for c in range(data.shape[-1]):
        product = data[..., c, None].astype(np.float64) * spectra[..., c, None, :]
        total = (total + product).astype(np.float32)
    return total


def _check(input: Array, weight: Array, kernel_size: tuple[int, int]) -> None:
    if input.dtype != weight.dtype or input.dtype not in (np.float32, np.float64):
        raise TypeError(f"input is {input.dtype}, weight {weight.dtype}: both must be float32, or both float64")
    if input.ndim != 3 or weight.ndim != 4:
        raise ValueError(
            f"input must have shape (C, H, W) and weight (F, C, r1, r2), got {input.shape} and {weight.shape}"
        )
    if weight.shape[1] != input.shape[0]:
        raise ValueError(f"weight has {weight.shape[1]} channels and input {input.shape[0]}: they must be equal")
    if weight.shape[2:] != kernel_size:
        raise ValueError(f"weight has kernels of {weight.shape[2:]} and the form is for {kernel_size}")
    if any(n < r for n, r in zip(input.shape[1:], kernel_size, strict=True)):
        raise ValueError(f"kernels of {kernel_size} are larger than the input of {input.shape[1:]}: pad it first")
