"""MobileNetV2 with the names of its published weights."""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block."""


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down, with a shortcut where nothing changes its size."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = [] if expansion == 1 else [_conv(in_channels, width, 1)]
        layers += [
            _conv(width, width, 3, stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """3,504,872 parameters; input (N, 3, 224, 224), output (N, 1000).

    References
    ----------
    Sandler et al. 2018, arXiv:1801.04381, table 2.
    """

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv(3, 32, 3, 2)]
        before = 32
        for expansion, channels, blocks, first_stride in STAGES:
            for block in range(blocks):
                features.append(InvertedResidual(before, channels, expansion, 1 if block else first_stride))
                before = channels
        features.append(_conv(before, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 1000)."""
        y: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y
