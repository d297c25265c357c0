"""Small nets of unusual build, each for one thing capture and plan must get right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """Two levels, transposed convolutions, skip joins."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(0.1))
        self.middle = nn.Conv2d(12, 16, 3, padding=2, dilation=2)
        self.up2 = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(24, 8, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = F.elu(self.middle(F.avg_pool2d(b, 2)))
        d = torch.cat([self.up2(c), b], dim=1)
        return self.out(torch.cat((F.relu(self.bn(self.up1(d))), a), 1))


def _shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class ShuffleBlock(nn.Module):
    """A ShuffleNetV2 unit: split, depthwise branch, join, channel shuffle."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        half = channels // 2
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        return _shuffle(torch.cat((left, self.branch(right)), dim=1), 2)


class SqueezeExcite(nn.Module):
    """Channel attention in three of its usual spellings."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.reduce = nn.Linear(channels, 4)
        self.expand = nn.Linear(4, channels)
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.conv(x))
        n, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(n, c)
        y = torch.sigmoid(self.expand(F.silu(self.reduce(y)))).view(n, c, 1, 1)
        x = x * y.expand_as(x)
        return x * F.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Inception(nn.Module):
    """Four branches joined, average pool with padding not counted, ceil-mode max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.one = nn.Conv2d(6, 4, 1)
        self.five = nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU6(), nn.Conv2d(3, 5, (1, 5), padding=(0, 2)))
        self.three = nn.Conv2d(6, 3, 3, padding="same")
        self.pool = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, ceil_mode=True)
        pooled = self.pool(F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False))
        x = torch.cat([self.one(x), self.five(x), self.three(x), pooled], 1)
        return F.softmax(x.mean([2, 3]), dim=-1)


class Wave(nn.Module):
    """A 1-d net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 6, 5, stride=2, padding=2)
        self.bn = nn.BatchNorm1d(6)
        self.conv2 = nn.Conv1d(6, 8, 3, dilation=2, groups=2)
        self.prelu = nn.PReLU(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool1d(F.gelu(self.bn(self.conv1(x))), 2)
        x = F.avg_pool1d(self.prelu(self.conv2(x)), 3, 2, padding=1)
        return F.log_softmax(self.head(F.adaptive_avg_pool1d(x, 1).flatten(1)), dim=1)


class Unknown(nn.Module):
    """Operations outside the engine's set, one with several outputs and one through a boolean mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.erf(self.conv(x)).roll(1, dims=1)
        top, _ = torch.topk(x, 4, dim=1)
        return torch.where(top > 0.1, top, top * 0.5)


class Shared(nn.Module):
    """One layer used twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.twin = nn.Conv2d(4, 4, 3, padding=1)
        self.twin.weight = self.conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twin(F.relu(self.conv(F.relu(self.conv(x)))))


class TwoOutputs(nn.Module):
    """A dict of outputs, one of them a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]:
        x = F.mish(self.conv(x))
        return {"map": x, "scores": (self.head(x.mean((2, 3))), torch.tanh(x))}


class InPlace(nn.Module):
    """Writes through views: what a chunk and a slice alias must change with them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        left, _ = y[:, :4], y[:, 4:]
        left.add_(1.0).relu_()
        y[:, 6] = 0.25
        y[:, :, 1:3] *= 2.0
        return y.mul_(0.5).add_(x.mean(1, keepdim=True))


class Masked(nn.Module):
    """Weights computed from parameters and buffers: they fold to constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.register_buffer("mask", (torch.arange(6 * 27) % 3 != 0).reshape(6, 3, 3, 3))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.conv.weight * self.mask, 0.5 * self.conv.bias, padding=1)
        return x * self.scale + 2 * self.scale


ODD: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "unet": (UNet, (2, 3, 16, 24)),
    "shuffle": (ShuffleBlock, (2, 3, 13, 11)),
    "squeeze_excite": (SqueezeExcite, (2, 3, 9, 7)),
    "inception": (Inception, (2, 3, 17, 15)),
    "wave": (Wave, (3, 2, 41)),
    "unknown": (Unknown, (2, 3, 6, 7)),
    "shared": (Shared, (2, 4, 8, 9)),
    "two_outputs": (TwoOutputs, (2, 3, 8, 7)),
    "in_place": (InPlace, (2, 3, 8, 7)),
    "masked": (Masked, (2, 3, 8, 7)),
}
"""Name to (class, input shape)."""
