"""Registry x shape table: what the conformance suite runs. New methods appear here by themselves."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import DeclinedError, MethodConfig
from fastcnn.methods.registry import Method, list_methods

# name: (arguments of nn.Conv2d, height and width)
CONVS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "pixel-1x1": ({"in_channels": 3, "out_channels": 5, "kernel_size": 1}, (1, 1)),
    "pixel-3x3": ({"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1}, (1, 1)),
    "one-channel": ({"in_channels": 1, "out_channels": 1, "kernel_size": 3}, (5, 6)),
    "seventeen": ({"in_channels": 17, "out_channels": 17, "kernel_size": 3, "padding": 1}, (5, 5)),
    "c7": ({"in_channels": 7, "out_channels": 7, "kernel_size": 1}, (3, 7)),
    "c8": ({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1}, (4, 8)),
    "c9": ({"in_channels": 9, "out_channels": 9, "kernel_size": 1}, (3, 9)),
    "c15": ({"in_channels": 15, "out_channels": 15, "kernel_size": 1}, (2, 15)),
    "c16": ({"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 1}, (3, 16)),
    "c17-wide": ({"in_channels": 3, "out_channels": 17, "kernel_size": 3, "padding": 1}, (3, 17)),
    "groups": ({"in_channels": 6, "out_channels": 9, "kernel_size": 3, "padding": 1, "groups": 3}, (6, 5)),
    "depthwise": ({"in_channels": 9, "out_channels": 9, "kernel_size": 3, "padding": 1, "groups": 9}, (7, 7)),
    "multiplier": ({"in_channels": 4, "out_channels": 8, "kernel_size": 3, "groups": 4}, (5, 5)),
    "stride-2": ({"in_channels": 3, "out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}, (9, 10)),
    "stride-1x2": ({"in_channels": 3, "out_channels": 4, "kernel_size": 2, "stride": (1, 2)}, (5, 7)),
    "dilation": ({"in_channels": 3, "out_channels": 4, "kernel_size": 3, "dilation": (2, 3)}, (9, 11)),
    "heavy-padding": ({"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": (5, 4)}, (2, 3)),
    "rectangle": ({"in_channels": 5, "out_channels": 4, "kernel_size": (1, 5), "padding": (0, 2)}, (4, 9)),
    "five": ({"in_channels": 4, "out_channels": 6, "kernel_size": 5, "padding": 2, "bias": False}, (8, 7)),
    "same-even": ({"in_channels": 3, "out_channels": 4, "kernel_size": 4, "padding": "same"}, (6, 7)),
    "reflect": (
        {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        (6, 5),
    ),
}
# name: (arguments of nn.Linear, leading axes of the input)
LINEARS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "one": ({"in_features": 1, "out_features": 1}, (2,)),
    "three": ({"in_features": 3, "out_features": 17}, (1,)),
    "l7": ({"in_features": 7, "out_features": 9}, (3,)),
    "l8": ({"in_features": 8, "out_features": 8}, (4,)),
    "l15": ({"in_features": 15, "out_features": 16, "bias": False}, (2,)),
    "l17": ({"in_features": 17, "out_features": 15}, (5,)),
    "extra-axis": ({"in_features": 6, "out_features": 5}, (2, 3)),
}


@dataclass(frozen=True)
class Case:
    """One method's layer class on one shape with one config."""

    method: str
    example: int
    kind: str
    shape: str

    def __str__(self) -> str:
        return f"{self.method}[{self.example}]-{self.kind}-{self.shape}"

    @property
    def config(self) -> MethodConfig:
        """The config under test."""
        return find(self.method).config.examples()[self.example]

    @property
    def layer_class(self) -> Any:
        """The class under test."""
        return next(layer for dense, layer in find(self.method).layers.items() if dense.__name__ == self.kind)

    def dense(self, dtype: torch.dtype = torch.float32) -> Any:
        """The dense layer, weights from a seed that depends on the case alone."""
        torch.manual_seed(zlib.crc32(str(self).encode()))
        if self.kind == "Conv2d":
            return nn.Conv2d(**CONVS[self.shape][0]).to(dtype)
        return nn.Linear(**LINEARS[self.shape][0]).to(dtype)

    def input(self, dtype: torch.dtype = torch.float32, batch: int = 2) -> Tensor:
        """A batch for it."""
        torch.manual_seed(zlib.crc32(str(self).encode()) + 1)
        if self.kind == "Conv2d":
            arguments, size = CONVS[self.shape]
            return torch.randn(batch, arguments["in_channels"], *size, dtype=dtype)
        arguments, leading = LINEARS[self.shape]
        return torch.randn(*leading, arguments["in_features"], dtype=dtype)

    def layer(self, dtype: torch.dtype = torch.float32) -> Any:
        """The converted layer; None where the method declines this shape."""
        try:
            return self.layer_class.from_dense(self.dense(dtype), self.config)
        except DeclinedError:
            return None


def find(name: str) -> Method:
    """Method by its word."""
    return next(method for method in list_methods() if method.name == name)


def layer_cases() -> list[Case]:
    """Every converted method, example config, dense class and shape."""
    tables = {"Conv2d": CONVS, "Linear": LINEARS}
    return [
        Case(method.name, example, dense.__name__, shape)
        for method in list_methods()
        for dense in method.layers
        for example in range(len(method.config.examples()))
        for shape in tables[dense.__name__]
    ]


def session_cases() -> list[tuple[str, int]]:
    """Every method that trains and example config."""
    return [
        (method.name, example)
        for method in list_methods()
        if method.kind == "trained" or method.training is not None
        for example in range(len(method.config.examples()))
    ]
