"""Packed layers of every method of few bits, small, and why the reference should run some of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import fastcnn as fc

conv = partial(nn.Conv2d, 24, 20, 3, padding=1)
linear = partial(nn.Linear, 70, 9)
few_bits = partial(fc.DoReFaConfig, skip=())
LAYERS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "bnn": (conv, fc.BNNConfig(skip=()), ""),
    "bnn signs out": (conv, fc.BNNConfig(skip=(), outputs=True), ""),
    "bnn reflected": (partial(conv, padding_mode="reflect"), fc.BNNConfig(skip=()), ""),
    "bnn small groups": (partial(conv, groups=4), fc.BNNConfig(skip=()), "groups of 6 channels"),
    "bnn linear": (linear, fc.BNNConfig(skip=()), ""),
    "xnor": (conv, fc.XNORConfig(skip=()), ""),
    "xnor linear": (linear, fc.XNORConfig(skip=()), ""),
    "bwn": (conv, fc.BWNConfig(skip=()), "inputs are real"),
    "dorefa 1 1": (conv, few_bits(weight_bits=1, input_bits=1), ""),
    "dorefa 1 2": (conv, few_bits(weight_bits=1, input_bits=2), ""),
    "dorefa 2 1 linear": (linear, few_bits(weight_bits=2, input_bits=1), ""),
    "dorefa 2 2": (conv, few_bits(weight_bits=2, input_bits=2), "4 pairs of planes"),
    "bitwise linear": (linear, fc.BitwiseConfig(), ""),
}
"""By name: the dense layer, the method, and how the reason begins, if there is one."""


def packed(name: str) -> tuple[nn.Module, Tensor]:
    """The layer of bits, and an input."""
    make, config, _ = LAYERS[name]
    torch.manual_seed(3)
    net = nn.Sequential(make())
    x = torch.randn(2, 24, 6, 5) if isinstance(net[0], nn.Conv2d) else torch.randn(2, 3, 70)
    return fc.convert(fc.prepare(net, config)).eval(), x
