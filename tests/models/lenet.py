"""LeNet-300-100 and LeNet-5 as Deep Compression uses them (Han et al. 2016; Caffe's LeNet-5)."""

from __future__ import annotations

from torch import nn


def lenet300() -> nn.Sequential:
    """784-300-100-10; 266,610 parameters; input (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet5() -> nn.Sequential:
    """Two 5x5 convolutions (20, 50) and two fully connected layers (500, 10); 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
