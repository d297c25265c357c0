"""The nets of the benchmark on batches and image sizes that are no multiple of anything, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import fastcnn
from fastcnn.benchmarking import suite_models
from fastcnn.benchmarking.settle import input_dependence, random_pictures
from tests.engine.real_nets import FP32_LIMIT, run_torch, worst

pytestmark = [pytest.mark.slow, pytest.mark.zoo, pytest.mark.timeout(1800)]

# The fully connected layers fix what reaches them: VGG-16 takes 224 to 255 pixels a side, AlexNet 223 to 226, and the
# ResNets' 7x7 pooling 193 to 224. `-any`: a ResNet whose last pooling is over whatever there is, as at 224, takes all.
CASES = [
    ("vgg16", (1, 3, 224, 224)),
    ("vgg16", (8, 3, 224, 224)),
    ("vgg16", (2, 3, 225, 251)),
    ("alexnet", (1, 3, 224, 224)),
    ("alexnet", (8, 3, 224, 224)),
    ("alexnet", (2, 3, 225, 223)),
    ("resnet18", (1, 3, 224, 224)),
    ("resnet18", (8, 3, 224, 224)),
    ("resnet18", (2, 3, 193, 217)),
    ("resnet18-any", (2, 3, 193, 161)),
    ("resnet18-any", (8, 3, 64, 64)),
    ("resnet18-any", (3, 3, 33, 97)),
    ("resnet50", (1, 3, 224, 224)),
    ("resnet50", (8, 3, 224, 224)),
    ("resnet50", (2, 3, 193, 217)),
    ("resnet50-any", (2, 3, 193, 161)),
    ("resnet50-any", (8, 3, 64, 64)),
    ("resnet50-any", (3, 3, 33, 97)),
]


@cache
def settled(name: str) -> nn.Module:
    """A net of the suite with random weights whose outputs depend on the picture."""
    net, _, any_size = name.partition("-")
    [(_, model)] = suite_models("foundation", (1, 3, 224, 224), only=net)
    assert isinstance(model, nn.Module)
    if any_size:
        features = model.get_submodule("features")
        assert isinstance(features.final_pool, nn.AvgPool2d)
        features.final_pool = nn.AdaptiveAvgPool2d(1)
    return model


@pytest.mark.parametrize(("name", "shape"), CASES, ids=[f"{name}-{'x'.join(map(str, s))}" for name, s in CASES])
def test_batch_and_size(
    record_property: Callable[[str, object], None], name: str, shape: tuple[int, int, int, int]
) -> None:
    pytest.importorskip("pytorchcv", reason="the net zoo is installed by requirements/zoo.txt")
    model = settled(name)
    x = random_pictures(1, shape, seed=11)[0]
    y64 = run_torch(model, x, 2, torch.float64)
    theirs = worst(run_torch(model, x, 2, torch.float32), y64)
    net = fastcnn.compile(model, x, strict=True, tune=False)
    ours = net(x)
    assert ours.shape == y64.shape == (shape[0], 1000)
    error = worst(ours, y64)
    print(f"\n{name} {'x'.join(map(str, shape))}: error {error:.2e}, torch {theirs:.2e}")
    record_property("error", error)
    record_property("torch_error", theirs)
    assert error <= FP32_LIMIT
    if shape[0] > 1:  # an engine that mixed the pictures up would not pass for one whose net ignores them
        assert input_dependence(y64[None]) > 0.01
        assert worst(np.roll(ours, 1, axis=0), y64) > FP32_LIMIT
