"""The nets of the low-precision trainings, what is done to each, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.methods.contract import MethodConfig
from fastcnn.methods.lowprecision import (
    BinaryConnectConfig,
    BitwiseConfig,
    BNNConfig,
    BWNConfig,
    DoReFaConfig,
    XNORConfig,
)
from fastcnn.methods.lowprecision.blocks import BinaryBlock
from fastcnn.reproduction.winograd_labels.nets import CLASSES, vgg_like

HIDDEN = 1024
PIXELS = 784


def tangent_mlp() -> nn.Sequential:
    """784-1024-1024-1024-10 of linear layers, which a bitwise session gives tangents and signs; (N, 1, 28, 28)."""
    widths = (PIXELS, HIDDEN, HIDDEN, HIDDEN)
    layers: list[nn.Module] = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(HIDDEN, CLASSES))


def norm_mlp(curve: Callable[[], nn.Module]) -> nn.Sequential:
    """784-1024-1024-1024-10 with batch norm after each hidden layer; input (N, 1, 28, 28)."""
    layers: list[nn.Module] = [nn.Flatten()]
    before = PIXELS
    for _ in range(3):
        layers += [nn.Linear(before, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), curve()]
        before = HIDDEN
    return nn.Sequential(*layers, nn.Linear(HIDDEN, CLASSES))


def block_net(order: Literal["norm-first", "conv-first"]) -> nn.Sequential:
    """32-32-M-64-64-M-128-128-M-256-10 as :func:`vgg_like`, of blocks for binary convolutions; (N, 3, 32, 32).

    The first convolution and the last layer are as there; the linear layer between has its batch norm before it
    (``norm-first``) or after it.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False)]
    if order == "conv-first":
        layers += [nn.BatchNorm2d(32), nn.Hardtanh()]
    for before, width, pool in ((32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2)):
        layers.append(BinaryBlock(before, width, order=order, pool=pool))
    features = 128 * 4 * 4
    hidden = nn.Linear(features, 256, bias=False)
    if order == "norm-first":
        tail: list[nn.Module] = [nn.BatchNorm1d(features), hidden, nn.ReLU(), nn.BatchNorm1d(256)]
    else:
        tail = [hidden, nn.BatchNorm1d(256), nn.Hardtanh()]
    return nn.Sequential(*layers, nn.Flatten(), *tail, nn.Linear(256, CLASSES))


def clipped_net() -> nn.Sequential:
    """:func:`vgg_like` whose hidden linear layer has a batch norm, so that all inputs of layers are of one size."""
    net = vgg_like()
    last = len(net) - 1
    layers = list(net)
    return nn.Sequential(*layers[: last - 1], nn.BatchNorm1d(256), *layers[last - 1 :])


def squared_hinge(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes of max(0, 1 - t y)^2 with t = 1 for the label, -1 for the others.

    References
    ----------
    Tang 2013, arXiv:1306.0239.
    """
    targets = 2.0 * F.one_hot(labels, outputs.shape[1]).to(outputs.dtype) - 1.0
    return (1 - targets * outputs).clamp(min=0).square().sum(1).mean()


def scaled_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of outputs that are sums of many signs, divided by the root of their number."""
    return F.cross_entropy(outputs / HIDDEN**0.5, labels)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some epochs with a schedule of their own.

    Parameters
    ----------
    optimizer : {"adam", "one-cycle"}
        Adam with half a cosine to zero; SGD with Nesterov's momentum, the rate up and down once.
    rate : float
        The highest.
    """

    epochs: int
    rate: float
    optimizer: Literal["adam", "one-cycle"] = "adam"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One net, one method, one way to train.

    Parameters
    ----------
    data : {"mnist", "cifar10"}
    build : callable
        The net, drawn from torch's generator.
    config : callable (steps of the first stage) -> MethodConfig, or None
    stages : tuple of Stage
    bipolar : bool
        Whether inputs are +1 and -1: on which side of half grey a pixel is.
    loss : callable (outputs, labels) -> Tensor
    why : str
        In a few words, for the table.
    """

    data: Literal["mnist", "cifar10"]
    build: Callable[[], nn.Module]
    config: Callable[[int], MethodConfig] | None = None
    stages: tuple[Stage, ...]
    bipolar: bool = False
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    why: str = ""


EPOCHS = 10
"""Of every net for CIFAR-10."""
REAL_EPOCHS = 4
"""Of them, those in which weights that are to become signs are real still."""
SGD = Stage(epochs=EPOCHS, rate=0.1, optimizer="one-cycle")


def _vgg(config: MethodConfig | None, why: str) -> Way:
    return Way(
        data="cifar10",
        build=clipped_net,
        config=None if config is None else lambda steps: config,
        stages=(SGD,),
        why=why,
    )


def _vgg_signs(make: Callable[..., MethodConfig], why: str) -> Way:
    return Way(
        data="cifar10",
        build=clipped_net,
        config=lambda steps: make(weights_from=steps),
        stages=(replace(SGD, epochs=REAL_EPOCHS), Stage(epochs=EPOCHS - REAL_EPOCHS, rate=1e-3)),
        why=f"{why}, from epoch {REAL_EPOCHS} on",
    )


def _blocks(config: MethodConfig, order: Literal["norm-first", "conv-first"], why: str) -> Way:
    return Way(
        data="cifar10",
        build=partial(block_net, order),
        config=lambda steps: config,
        stages=(Stage(epochs=EPOCHS, rate=5e-3),),
        why=why,
    )


WAYS: dict[str, Way] = {
    "mlp/float": Way(
        data="mnist",
        build=partial(norm_mlp, nn.ReLU),
        stages=(Stage(epochs=20, rate=1e-3),),
        why="batch norm, ReLU",
    ),
    "mlp/bnn": Way(
        data="mnist",
        build=partial(norm_mlp, nn.Hardtanh),
        config=lambda steps: BNNConfig(exclude="1"),
        stages=(Stage(epochs=20, rate=3e-3),),
        loss=squared_hinge,
        why="inputs and weights are signs, those of the first layer real",
    ),
    "mlp/bitwise": Way(
        data="mnist",
        build=tangent_mlp,
        config=lambda steps: BitwiseConfig(real_steps=steps),
        stages=(Stage(epochs=15, rate=1e-3), Stage(epochs=20, rate=1e-3)),
        bipolar=True,
        loss=scaled_entropy,
        why="inputs, weights, biases and outputs are signs",
    ),
    "vgg/float": _vgg(None, "all real"),
    "vgg/binaryconnect": _vgg_signs(BinaryConnectConfig, "weights are signs"),
    "vgg/bwn": _vgg_signs(BWNConfig, "weights are signs with a scale"),
    "vgg/bnn": _blocks(BNNConfig(), "conv-first", "inputs and weights are signs"),
    "vgg/xnor-norm-first": _blocks(XNORConfig(), "norm-first", "signs, a scale; norm, sign, conv, pool"),
    "vgg/xnor-conv-first": _blocks(XNORConfig(), "conv-first", "signs, a scale; conv, pool, norm, sign"),
    "vgg/dorefa-8-8-8": _vgg(DoReFaConfig(weight_bits=8, input_bits=8, gradient_bits=8), "8 bits of all"),
    "vgg/dorefa-1-4-32": _vgg(DoReFaConfig(weight_bits=1, input_bits=4), "1-bit weights, 4-bit inputs"),
    "vgg/dorefa-1-2-6": _vgg(DoReFaConfig(weight_bits=1, input_bits=2, gradient_bits=6), "1-bit weights, 2-bit inputs"),
    "vgg/dorefa-1-1-32": _vgg(DoReFaConfig(weight_bits=1, input_bits=1), "1-bit weights and inputs"),
}


def steps_of_first_stage(way: Way, batches: int) -> int:
    """Optimizer steps before the second stage."""
    return way.stages[0].epochs * batches if len(way.stages) > 1 else 0


def bipolar(pictures: Tensor) -> Tensor:
    """+1 where a pixel is at least half grey, else -1."""
    return torch.where(pictures >= 0, 1.0, -1.0)
