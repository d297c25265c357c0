"""The two LeNets of Deep Compression, as in its reference (Caffe) definitions."""

from __future__ import annotations

from torch import nn


def lenet_300_100() -> nn.Sequential:
    """784-300-100-10 with ReLU; 266,610 parameters. Input (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def lenet_5() -> nn.Sequential:
    """20 and 50 convolutions of 5x5 with max pooling, 800-500-10; 431,080 parameters. Input (N, 1, 28, 28)."""
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


NETS = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5}
