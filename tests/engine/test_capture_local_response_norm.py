"""Local response norm is one node; a chain that only looks like one is lowered operation by operation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn.engine.capture import capture
from fastcnn.engine.graph import GraphError, GraphInput, infer_shapes, make_node
from fastcnn.engine.graph.graph import Graph
from tests.engine.test_capture_nets import assert_captured

SHAPE = (2, 6, 5, 4)
FIVE = (2, 1, 6, 5, 4)


class Call(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def chain(
    x: torch.Tensor,
    *,
    numerator: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    squares: Callable[[torch.Tensor], torch.Tensor] = lambda x: x * x,
    pads: tuple[int, ...] = (0, 0, 0, 0, 2, 1),
    fill: float = 0.0,
    kernel: tuple[int, int, int] = (4, 1, 1),
    divisor: int | None = None,
    around: tuple[int, int, int] = (0, 0, 0),
    lifted: tuple[int, ...] = FIVE,
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda d: d.mul(0.3).add(2.0),
    beta: float | torch.Tensor = 0.75,
) -> torch.Tensor:
    """Torch's own chain, with every part open to change."""
    d = F.pad(squares(x).reshape(lifted), pads, value=fill)
    d = F.avg_pool3d(d, kernel, stride=1, padding=around, divisor_override=divisor).reshape(x.shape)
    return numerator(x) / scale(d).pow(beta)


def read_inside(x: torch.Tensor, what: str) -> torch.Tensor:
    """The chain, with one of its inner values read once more."""
    inner = {"squares": x * x}
    inner["lifted"] = inner["squares"].reshape(FIVE)
    inner["padded"] = F.pad(inner["lifted"], (0, 0, 0, 0, 2, 1))
    inner["pooled"] = F.avg_pool3d(inner["padded"], (4, 1, 1), stride=1)
    inner["scaled"] = inner["pooled"].reshape(x.shape).mul(0.3)
    inner["total"] = inner["scaled"].add(2.0)
    inner["power"] = inner["total"].pow(0.75)
    again = inner[what].flatten(2)[:, :, :1].flatten(1).mean(1)
    return x / inner["power"] + again.reshape(-1, 1, 1, 1)


def test_the_chain_is_one_node_named_after_its_layer() -> None:
    model = nn.Sequential(nn.Conv2d(6, 6, 1), nn.LocalResponseNorm(4, alpha=0.25, beta=0.5, k=2.0)).eval()
    graph = capture(model, torch.randn(SHAPE), strict=True)
    assert [(node.name, node.op) for node in graph] == [("0", "conv2d"), ("1", "local_response_norm")]
    assert graph.nodes[1].attrs == {"size": 4, "alpha": 0.25, "beta": 0.5, "k": 2.0}
    assert graph.inputs[0].fixed == ()


def test_the_same_chain_written_by_hand_is_found() -> None:
    torch.manual_seed(31)
    for function in (chain, lambda x: chain(x, scale=lambda d: d.mul(torch.tensor(0.25)).add(torch.tensor([2.0])))):
        model, x = Call(function).eval(), torch.randn(SHAPE)
        graph = capture(model, x, strict=True)
        assert [node.op for node in graph] == ["local_response_norm"]
        assert_captured(model, x, graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: chain(x, numerator=lambda x: x + 1),
        lambda x: chain(x, squares=lambda x: x * (x + 1).relu()),
        lambda x: chain(x, squares=lambda x: (x * x).relu()),
        lambda x: chain(x, pads=(0, 0, 0, 0, 1, 2)),
        lambda x: chain(x, fill=0.5),
        lambda x: chain(x, divisor=2),
        lambda x: chain(x, pads=(0, 0, 0, 0, 0, 3)),
        lambda x: chain(x, pads=(0, 0, 0, 0, 2, 1), kernel=(4, 3, 1), around=(0, 1, 0)),
        lambda x: chain(x, pads=(0, 0, 0, 0, 0, 0), kernel=(3, 1, 1), around=(1, 0, 0)),
        lambda x: chain(x, lifted=(2, 1, 5, 6, 4), pads=(0, 0, 0, 0, 2, 1)),
        lambda x: chain(x, scale=lambda d: torch.add(d.mul(0.3), 2.0, alpha=3)),
        lambda x: chain(x, scale=lambda d: d.mul(0.3).add(torch.linspace(1.0, 2.0, 4))),
        lambda x: chain(x, scale=lambda d: d.mul(d).add(2.0)),
        lambda x: chain(x, scale=lambda d: d.mul(0.3).sub(-2.0)),
        lambda x: chain(x, scale=lambda d: d.div(0.3).add(2.0)),
        lambda x: chain(x, scale=lambda d: d.mul(0.3).add(torch.full((1, 1, 1, 1, 1), 2.0))),
        lambda x: chain(x, scale=lambda d: d.mul(0.3).add(2.0).relu()),
        lambda x: chain(x, beta=torch.tensor([0.5, 0.75, 0.9, 1.0])),
        *(
            partial(read_inside, what=what)
            for what in ("squares", "lifted", "padded", "pooled", "scaled", "total", "power")
        ),
        lambda x: F.local_response_norm(x[:, :, None], 4)[:, :, 0],
        lambda x: x + F.local_response_norm(torch.linspace(-1.0, 1.0, 120).reshape(1, 6, 5, 4), 4),
    ],
)
def test_what_differs_is_lowered_as_before(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(32)
    model, x = Call(function).eval(), torch.randn(SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parts outside the engine's set become torch steps
        graph = capture(model, x)
    assert all(node.op != "local_response_norm" for node in graph)
    assert_captured(model, x, graph)


def test_bad_ranks_are_refused() -> None:
    attrs = {"size": 3, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    node = make_node("y", "local_response_norm", ["x"], attrs=attrs)
    for shape in [(2, 6), (2, 6, 1, 5, 4)]:
        graph = Graph(inputs=(GraphInput(name="x", shape=shape),), nodes=[node], outputs=("y",), weights={})
        with pytest.raises(GraphError, match="expects a 3-d or 4-d input"):
            infer_shapes(graph, {"x": shape})
    with pytest.raises(GraphError, match=r"size must be an integer in 1\.\.65536, got 0"):
        make_node("y", "local_response_norm", ["x"], attrs=attrs | {"size": 0})
