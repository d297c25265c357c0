"""Convolutions over sequences, as 2-d ones of a single row: so that what serves ``nn.Conv2d`` serves them too."""

from __future__ import annotations

from torch import Tensor, nn

from fastcnn.methods.contract import check_input
from fastcnn.methods.replace import obstacle, swap, tied_weights

INNER = "rows"
"""Name of the 2-d layer inside of a :class:`SequenceConv`."""


class SequenceConv(nn.Module):
    """A layer for maps of one row, applied to sequences. Input (N, C, L) or (C, L), output (N, O, L') or (O, L').

    Parameters
    ----------
    rows : nn.Module
        ``nn.Conv2d`` with kernels of one row, or what a method put in its place.
    """

    def __init__(self, rows: nn.Module) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, input: Tensor) -> Tensor:
        """Convolve as ``nn.Conv1d`` does."""
        channels = self.rows.in_channels
        assert isinstance(channels, int)
        dtype = next(self.rows.parameters()).dtype
        check_input(input, layer=type(self).__name__, channels=channels, axis=-2, ranks=(2, 3), dtype=dtype)
        out: Tensor = self.rows(input.unsqueeze(-2))
        return out.squeeze(-2)


def wrap(model: nn.Module) -> None:
    """Replace every ``nn.Conv1d`` in the model itself; parametrized ones and tied ones stay."""
    tied = tied_weights(model)
    swaps = {}
    for name, module in model.named_modules():
        if type(module) is nn.Conv1d and not obstacle(module, name, tied):
            swaps[id(module)] = SequenceConv(_as_2d(module))
    swap(model, swaps)


def unwrap(model: nn.Module) -> None:
    """Undo :func:`wrap` where the layer inside is still ``nn.Conv2d``."""
    swap(
        model,
        {
            id(module): _as_1d(module.rows)
            for module in model.modules()
            if isinstance(module, SequenceConv) and type(module.rows) is nn.Conv2d
        },
    )


def outer_name(name: str) -> str:
    """The name that a layer had before :func:`wrap`."""
    return name.removesuffix(f".{INNER}")


def outer_names(model: nn.Module) -> dict[str, str]:
    """Names of wrapped layers, and what they were called before."""
    wrapped = (name for name, module in model.named_modules() if isinstance(module, SequenceConv))
    return {f"{name}.{INNER}" if name else INNER: name for name in wrapped}


def _as_2d(dense: nn.Conv1d) -> nn.Conv2d:
    made = nn.Conv2d(
        dense.in_channels,
        dense.out_channels,
        (1, dense.kernel_size[0]),
        (1, dense.stride[0]),
        dense.padding if isinstance(dense.padding, str) else (0, int(dense.padding[0])),
        (1, dense.dilation[0]),
        dense.groups,
        dense.bias is not None,
        dense.padding_mode,
        device="meta",
    )
    made.weight = nn.Parameter(dense.weight.detach().unsqueeze(2), requires_grad=dense.weight.requires_grad)
    made.bias = dense.bias
    return made.train(dense.training)


def _as_1d(rows: nn.Conv2d) -> nn.Conv1d:
    made = nn.Conv1d(
        rows.in_channels,
        rows.out_channels,
        rows.kernel_size[1],
        rows.stride[1],
        rows.padding if isinstance(rows.padding, str) else int(rows.padding[1]),
        rows.dilation[1],
        rows.groups,
        rows.bias is not None,
        rows.padding_mode,
        device="meta",
    )
    made.weight = nn.Parameter(rows.weight.detach().squeeze(2), requires_grad=rows.weight.requires_grad)
    made.bias = rows.bias
    return made.train(rows.training)
