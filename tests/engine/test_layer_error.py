"""A layer's own error, measured on a small map: any stride, dilation, groups, and kernels larger than the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastcnn.engine.graph import Graph
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import ISAS, Maker, error_of, inputs_for


def strided(make: Maker) -> str:
    return make.conv("x0", 256, 256, 3, stride=2)


def dilated(make: Maker) -> str:
    return make.conv("x0", 256, 256, 3, dilation=3, padding=[3] * 4)


def grouped(make: Maker) -> str:
    return make.conv("x0", 256, 1024, 5, groups=4)


def far_padding(make: Maker) -> str:
    return make.conv("x0", 256, 256, 3, padding=[3, 0, 1, 2])


def wide_map(make: Maker) -> str:
    """A linear layer that runs as a convolution of 30 x 5."""
    x = make.op("resize", "x0", size=[30, 5], scale=None, mode="nearest", align_corners=False)
    flat = make.op("flatten", x, start_dim=1, end_dim=3)
    return make.op("linear", flat, params={"weight": make.normal(32, 256 * 150)})


@pytest.mark.parametrize("build", [strided, dilated, grouped, far_padding, wide_map])
@pytest.mark.parametrize("isa", ISAS)
def test_error_of_layers_with_many_weights(isa: str, build: Any) -> None:
    make = Maker(5, (1, 256, 6, 5))
    graph = make.graph(build(make))
    net = CompiledNet(graph, make_target(isa, 1), tolerance=1e-3, exact=False, how="heuristic")
    own = [step.error for step in net.plan.steps if step.error is not None]
    assert own, "no candidate that reorders or rounds was chosen: give the layer more weights"
    assert all(0 < error < 1e-3 for error in own)
    assert error_of(net, inputs_for(graph)) <= 1e-3


def transposed() -> Graph:
    make = Maker(6, (1, 256, 3, 3))
    weight = make.normal(256, 256, 3, 3) / np.float32(48)
    attrs = {"stride": [2, 2], "padding": [1, 1], "output_padding": [1, 1], "dilation": [1, 1], "groups": 1}
    return make.graph(make.op("conv_transpose2d", "x0", params={"weight": weight}, **attrs))


def test_transposed_convolutions_stay_exact() -> None:
    """They know no weights in fewer bits, so nothing inexact may pass for exact."""
    graph = transposed()
    net = CompiledNet(graph, make_target(ISAS[0], 1), tolerance=1e-3, exact=False, how="heuristic")
    assert all("16" not in label.partition(":")[0] for label in net.plan.choices().values())
    assert error_of(net, inputs_for(graph)) <= 2e-6
