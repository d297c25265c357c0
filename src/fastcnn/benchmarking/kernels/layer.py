"""One convolution as it is timed: its sizes, and the same weights as a torch module and as a graph of ours."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

    from fastcnn.engine.graph import Graph

NODE = "conv"
"""Name of the layer in its graph."""
_SEED = 11


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A square convolution of stride 1, padded so that the map keeps its size.

    Parameters
    ----------
    kernel : int
        Rows and columns of the kernel, an odd number.
    channels : int
        Channels of the input, and as many filters.
    size : int
        Rows and columns of the map.
    batch : int
        Pictures.
    depthwise : bool
        One filter per channel instead of sums over all of them.

    Raises
    ------
    ValueError
        If a size is below 1 or the kernel even.
    """

    kernel: int
    channels: int = 64
    size: int = 56
    batch: int = 1
    depthwise: bool = False

    def __post_init__(self) -> None:
        for name in ("kernel", "channels", "size", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: choose at least 1")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is not allowed: choose an odd one, so that the map keeps its size")

    @property
    def name(self) -> str:
        """Such as ``k7-c64-m56-b1``: kernel, channels, map, batch; ``dw`` for a depthwise one."""
        kind = "dw" if self.depthwise else "k"
        return f"{kind}{self.kernel}-c{self.channels}-m{self.size}-b{self.batch}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of input and output: (N, C, H, W)."""
        return self.batch, self.channels, self.size, self.size

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(F, C / groups, kH, kW)."""
        return self.channels, 1 if self.depthwise else self.channels, self.kernel, self.kernel

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return self.channels if self.depthwise else 1

    @property
    def macs(self) -> int:
        """Multiply-adds of the direct algorithm, those with padding included."""
        return math.prod(self.weight_shape) * self.batch * self.size**2

    def parameters(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weight, of ``weight_shape``, and bias, of shape (F,): normal, and the same every time."""
        rng = np.random.default_rng(_SEED)
        scale = np.float32(1 / math.sqrt(math.prod(self.weight_shape[1:])))
        weight = rng.standard_normal(self.weight_shape, dtype=np.float32) * scale
        return weight, rng.standard_normal(self.channels, dtype=np.float32) * np.float32(0.1)

    def module(self) -> nn.Conv2d:
        """As torch has it, in eval mode."""
        import torch
        from torch import nn

        conv = nn.Conv2d(self.channels, self.channels, self.kernel, padding=self.kernel // 2, groups=self.groups)
        with torch.no_grad():
            for parameter, array in zip((conv.weight, conv.bias), self.parameters(), strict=True):
                assert parameter is not None
                parameter.copy_(torch.from_numpy(array))
        return conv.eval()

    def graph(self) -> Graph:
        """As our engine captures it; torch is not needed."""
        from fastcnn.engine.graph import Graph, GraphInput, Node

        weight, bias = self.parameters()
        node = Node(
            name=NODE,
            op="conv2d",
            inputs=("x",),
            params={"weight": "weight", "bias": "bias"},
            attrs={
                "stride": [1, 1], "padding": [self.kernel // 2] * 4, "dilation": [1, 1], "groups": self.groups,
            },
        )  # fmt: skip
        return Graph(
            inputs=(GraphInput(name="x", shape=self.shape),),
            nodes=[node],
            outputs=(NODE,),
            weights={"weight": weight, "bias": bias},
        )

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)
