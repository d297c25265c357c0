"""The passes of the direct algorithm, for what ``AUTO`` leaves to it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.transforms.convolution.settings import ConvSettings


class DirectPasses:
    """torch's own convolution behind the engine's seam."""

    def __init__(self, settings: ConvSettings) -> None:
        self._geometry = (list(settings.stride), list(settings.padding), list(settings.dilation))
        self._groups = settings.groups

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        for_input: bool = False,
        for_weight: bool = False,
        kernel: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Convolve; there are no spectra to keep."""
        stride, padding, dilation = self._geometry
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, weight, None, stride, padding, dilation, self._groups), ()

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        kept: tuple[Tensor, ...],
        *,
        need_input: bool,
        need_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Both gradients."""
        stride, padding, dilation = self._geometry
        with torch.autocast(x.device.type, enabled=False):
            grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
                grad,
                x,
                weight,
                None,
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                self._groups,
                [need_input, need_weight, False],
            )
        return grad_x, grad_w

    @property
    def kernel_key(self) -> None:
        """None: nothing is transformed."""
        return None

    def kernel_spectrum(self, weight: Tensor) -> Tensor | None:
        """None: nothing is transformed."""
        return None
