"""The nets for CIFAR-10: published ResNets, and a plain one of six convolutions that is trained here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

INPUT_SHAPE = (3, 32, 32)
CLASSES = 10


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights: every second pixel, new channels zero."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.widening = out_channels - in_channels
        stride = 2 if self.widening else 1
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W), or half of both sizes where the channels grow."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.widening:
            half = self.widening // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """Three groups of blocks with 16, 32 and 64 channels, named as in the published files; 20, 32, 44 ... layers.

    References
    ----------
    He et al. 2015, arXiv:1512.03385, section 4.2, shortcut A.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks_each = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = {"layer1": (16, 16), "layer2": (16, 32), "layer3": (32, 64)}
        for name, (before, width) in widths.items():
            blocks = (ResidualBlock(before if i == 0 else width, width) for i in range(blocks_each))
            self.add_module(name, nn.Sequential(*blocks))
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to (N, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for name in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(name)(x)
        y: Tensor = self.linear(torch.mean(x, dim=(2, 3)))
        return y


class ResNet20(CifarResNet):
    """That of 20 layers; 269,722 parameters."""

    def __init__(self) -> None:
        super().__init__(20)


def load_weights(model: nn.Module, path: Path, name: str) -> str:
    """Give the net that is called so the weights of a safetensors file; the file's SHA-256.

    Raises
    ------
    ValueError
        If the file holds no safetensors, or another net.
    OSError
        If it cannot be read.
    """
    content = path.read_bytes()
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error})") from error
    # Files written before torch counted batches lack that one counter.
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    try:
        model.load_state_dict(counters | state)
    except RuntimeError as error:
        raise ValueError(f"{path} holds other weights than those of {name}: {error}") from error
    return hashlib.sha256(content).hexdigest()


def vgg_like() -> nn.Sequential:
    """32-32-M-64-64-M-128-128-M-256-10: six 3x3 convolutions with batch norm and ReLU, two dense layers.

    814,570 parameters; input (N, 3, 32, 32).
    """
    layers: list[nn.Module] = []
    before = 3
    for width in (32, 64, 128):
        for channels in (before, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 256), nn.ReLU(), nn.Linear(256, CLASSES))
