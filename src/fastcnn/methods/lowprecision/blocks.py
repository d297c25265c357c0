"""Blocks for nets of binary convolutions, in the orders and with the extras of the literature.

They are made of ordinary layers: ``fastcnn.prepare`` makes the convolution binary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import check_choice, check_count


class ChannelShift(nn.Module):
    """Adds a learned number to each channel; before a sign, a learned threshold.

    References
    ----------
    Liu et al. 2020 (ReActNet), arXiv:2003.03488, section 4.2: RSign.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_count("channels", channels, 1)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return x + self.shift.reshape(-1, 1, 1)


class ShiftedPReLU(nn.Module):
    """PReLU between two learned shifts of each channel, of its input and of its output.

    References
    ----------
    Liu et al. 2020 (ReActNet), arXiv:2003.03488, section 4.2: RPReLU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after = ChannelShift(channels), ChannelShift(channels)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        y: Tensor = self.after(self.prelu(self.before(x)))
        return y


class BinaryBlock(nn.Module):
    """A convolution to be made binary, its batch norm, a pool, and what newer recipes add.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride : int
    order : {"norm-first", "conv-first"}
        Batch norm, convolution, ReLU, pool; or convolution, batch norm, clamp to [-1, 1], pool, without the clamp
        where there is a shortcut. The sign is the convolution's own.
    pool : int
        Size and stride of a max pool; 1 for none.
    shortcut : bool
        Whether the block's input is added to the outputs of batch norm, in real numbers: where sizes differ, its means
        over the stride, through a 1 x 1 convolution where channels do. With ``order="conv-first"``.
    rsign, rprelu : bool
        A learned threshold before the sign, and a shifted PReLU at the end in the place of ReLU or clamp.
    norm : callable (int) -> Module
        Makes the batch norm of so many channels:
        :class:`~fastcnn.methods.lowprecision.shift_based.ShiftBatchNorm2d` for one by shifts.

    References
    ----------
    Rastegari et al. 2016, arXiv:1603.05279, section 3.2, for the orders; Liu et al. 2018, arXiv:1808.00278, for the
    shortcut; Liu et al. 2020, arXiv:2003.03488, for the learned shifts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        order: Literal["norm-first", "conv-first"] = "norm-first",
        pool: int = 1,
        shortcut: bool = False,
        rsign: bool = False,
        rprelu: bool = False,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        check_choice("order", order, ("norm-first", "conv-first"))
        check_count("pool", pool, 1)
        if shortcut and order == "norm-first":
            raise ValueError("a shortcut ends after batch norm: it needs order='conv-first'")
        if shortcut and kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={kernel_size} changes the size of the map, which a shortcut does not: odd ones"
            )
        self.order = order
        self.norm = norm(in_channels if order == "norm-first" else out_channels)
        self.threshold = ChannelShift(in_channels) if rsign else None
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.pool = nn.MaxPool2d(pool) if pool > 1 else None
        self.curve: nn.Module
        if rprelu:
            self.curve = ShiftedPReLU(out_channels)
        else:
            self.curve = nn.ReLU() if order == "norm-first" else nn.Identity() if shortcut else nn.Hardtanh()
        self.shortcut: nn.Module | None = None
        if shortcut:
            steps: list[nn.Module] = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
            if in_channels != out_channels:
                steps += [nn.Conv2d(in_channels, out_channels, 1, bias=False), norm(out_channels)]
            self.shortcut = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        if self.order == "norm-first":
            z: Tensor = self.curve(self._convolve(self.norm(x)))
            return z if self.pool is None else F.max_pool2d(z, self.pool.kernel_size)
        y = self.norm(self._convolve(x))
        z = self.curve(y if self.shortcut is None else y + self.shortcut(x))
        return z if self.pool is None else F.max_pool2d(z, self.pool.kernel_size)

    def _convolve(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x if self.threshold is None else self.threshold(x))
        return y
