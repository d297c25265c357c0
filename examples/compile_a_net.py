"""Compile a CNN for this machine: same weights, faster kernels, and what that changed in the numbers.

Run:  python examples/compile_a_net.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import fastcnn as fc


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, as in a ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


def best_ms(call: Callable[[], object], repeats: int = 20) -> float:
    """Fastest of some calls in milliseconds; for figures to rely on, use `fastcnn bench`."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), Block(32), Block(32), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()  # fmt: skip
    x = torch.rand(1, 3, 64, 64)

    fast = fc.compile(model, x)  # times the candidates of each layer; remembered on disk for the next time
    print(fast.plan)

    exact = model.double()(x.double()).detach().numpy()
    model.float()
    ours = fast(x.numpy())
    theirs = model(x).detach().numpy()
    for name, y in (("fastcnn", ours), ("torch", theirs)):
        print(f"{name:8s} error against float64: {np.abs(y - exact).max() / np.abs(exact).max():.1e}")

    array = x.numpy()
    with torch.inference_mode():
        print(f"torch    {best_ms(lambda: model(x)):.3f} ms")
    print(f"fastcnn  {best_ms(lambda: fast(array)):.3f} ms, {fast.threads} threads, {fast.isa}")


if __name__ == "__main__":
    main()
