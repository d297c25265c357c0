"""Write the layer shapes of the foundation nets, one text file a net: python benchmarks/shapes/make_shapes.py [FOLDER].

Each line is a distinct convolution or linear layer with the number of times it occurs, for one 224x224 picture::

    kind  C_in H W  C_out kH kW  stride padding dilation groups  count

Linear layers have H = W = kH = kW = 1. Order is that of first use.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcnn.benchmarking import SUITES, suite_models

HEAD = "# kind C_in H W C_out kH kW stride padding dilation groups count"


def layer_shapes(model: nn.Module, size: int = 224) -> list[str]:
    """Return the lines for one net."""
    found: Counter[str] = Counter()

    def note(module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
        x = inputs[0]
        if isinstance(module, nn.Linear):
            found[f"linear {module.in_features} 1 1 {module.out_features} 1 1 1 0 1 1"] += 1
            return
        for name in ("kernel_size", "stride", "padding", "dilation"):
            assert isinstance(getattr(module, name), tuple), name
        if len(set(module.stride)) + len(set(module.padding)) + len(set(module.dilation)) != 3:
            raise ValueError(f"{module} has different values for height and width: the format has one")
        kernel = f"{module.kernel_size[0]} {module.kernel_size[1]}"
        found[
            f"conv {module.in_channels} {x.shape[2]} {x.shape[3]} {module.out_channels} {kernel} "
            f"{module.stride[0]} {module.padding[0]} {module.dilation[0]} {module.groups}"
        ] += 1

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return [f"{line} {count}" for line, count in found.items()]


def main(folder: Path) -> None:
    """Write one file for each net of the suite."""
    for name in SUITES["foundation"]:
        ((_, model),) = suite_models("foundation", (1, 3, 224, 224), only=name)
        (folder / f"{name}.txt").write_text("\n".join([HEAD, *layer_shapes(model)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
