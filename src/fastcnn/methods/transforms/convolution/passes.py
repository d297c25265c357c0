"""The seam: who carries out the three passes of a convolution (y, gradient of x, gradient of the weight).

An implementation takes shapes and settings when it is made and tensors when it is called. It knows neither autograd
nor bias nor modules, so another one (native code for one dtype, say) takes its place in :func:`passes_for` alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from torch import Tensor

from fastcnn.methods.transforms.convolution.choice import geometry_of
from fastcnn.methods.transforms.convolution.direct import DirectPasses
from fastcnn.methods.transforms.convolution.native_passes import NativePasses
from fastcnn.methods.transforms.convolution.settings import ConvSettings
from fastcnn.methods.transforms.convolution.torch_passes import TorchPasses

Kept = tuple[Tensor, ...]
"""Opaque tensors that a forward pass hands to its backward pass; empty: the backward pass makes its own."""


class Passes(Protocol):
    """A convolution and its two gradients for tensors of one shape, dtype and device. No autograd, no bias."""

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        for_input: bool = False,
        for_weight: bool = False,
        kernel: Tensor | None = None,
    ) -> tuple[Tensor, Kept]:
        """Convolve.

        Parameters
        ----------
        x : Tensor, shape (N, C, H, W)
        weight : Tensor, shape (F, C / g, kH, kW)
        for_input, for_weight : bool
            Gradients that ``backward`` will be asked for: what serves them is kept, if the memory cap allows it.
        kernel : Tensor, optional
            What :meth:`kernel_spectrum` gave for this weight.

        Returns
        -------
        y : Tensor, shape (N, F, Ho, Wo), dtype and memory format of ``x``
        kept : tuple of Tensor
        """

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: Kept, *, need_input: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x and weight from the gradient of y (N, F, Ho, Wo); None where not needed."""

    @property
    def kernel_key(self) -> Hashable:
        """What a kernel's transform depends on beside the weight."""

    def kernel_spectrum(self, weight: Tensor) -> Tensor | None:
        """Opaque transform of a weight that does not change, for ``forward``; None if there is none to keep."""


def passes_for(x: Tensor, weight: Tensor, settings: ConvSettings) -> Passes:
    """Choose who carries out a call, by shapes, dtype and device alone.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    weight : Tensor, shape (F, C / g, kH, kW)
    settings : ConvSettings

    Raises
    ------
    ValueError
        If the settings cannot serve these shapes; the message says why and what to choose.
    """
    native = NativePasses.of(x, weight, settings)
    if native is not None:
        return native
    batch, channels, height, width = x.shape
    filters, per_group, rows, columns = weight.shape
    geometry = geometry_of((batch, channels, height, width), (filters, per_group, rows, columns), settings)
    return DirectPasses(settings) if geometry is None else TorchPasses(geometry, settings, weight)
