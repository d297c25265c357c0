"""What was done to each layer, or why nothing was: the report that travels with a compressed model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from fastcnn.methods.contract import LayerReport, spec_of
from fastcnn.methods.replace import dense_bytes, weight_layers

_KEY = "_fastcnn_reports"


class Report:
    """A list of :class:`LayerReport`, one per layer and method, that prints as a table."""

    def __init__(self, layers: Iterable[LayerReport]) -> None:
        self.layers = list(layers)

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> LayerReport:
        return self.layers[index]

    def of(self, layer: str) -> list[LayerReport]:
        """Every line about one layer, in the order the methods ran."""
        return [line for line in self.layers if line.layer == layer]

    def totals(self) -> dict[str, int]:
        """Parameters, multiply-adds and bytes before the first and after the last method, over all layers."""
        first: dict[str, LayerReport] = {}
        last: dict[str, LayerReport] = {}
        for line in self.layers:
            first.setdefault(line.layer, line)
            last[line.layer] = line
        result: dict[str, int] = {}
        for what in ("params", "macs", "bytes"):
            result[f"{what}_before"] = sum(getattr(line, f"{what}_before") for line in first.values())
            result[f"{what}_after"] = sum(getattr(line, f"{what}_after") for line in last.values())
        return result

    def to_json(self) -> dict[str, Any]:
        """Lines and totals as JSON values."""
        return {"layers": [dataclasses.asdict(line) for line in self.layers], "totals": self.totals()}

    def __str__(self) -> str:
        head = ("layer", "method", "status", "params", "bytes", "W error", "why")
        rows: list[tuple[str, ...]] = [
            (
                line.layer,
                line.method,
                line.status,
                f"{line.params_before:,} -> {line.params_after:,}",
                f"{line.bytes_before:,} -> {line.bytes_after:,}",
                f"{line.weight_error:.2e}",
                line.why,
            )
            for line in self.layers
        ]
        total = self.totals()
        rows.append(
            (
                "total",
                "",
                "",
                f"{total['params_before']:,} -> {total['params_after']:,}",
                f"{total['bytes_before']:,} -> {total['bytes_after']:,}",
                "",
                f"bytes / {total['bytes_before'] / total['bytes_after']:.1f}" if total["bytes_after"] else "",
            )
        )
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
        lines = []
        for row in (head, *rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[-1]]).rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def attach(model: nn.Module, reports: Iterable[LayerReport]) -> None:
    """Append lines to the model's report. They travel with deepcopy, not with ``state_dict``."""
    model.__dict__[_KEY] = [*model.__dict__.get(_KEY, []), *reports]


def rename_layers(model: nn.Module, names: Mapping[str, str]) -> None:
    """Call layers otherwise in the model's report."""
    model.__dict__[_KEY] = [
        dataclasses.replace(line, layer=names.get(line.layer, line.layer)) for line in model.__dict__[_KEY]
    ]


def report(model: nn.Module) -> Report:
    """Return what fastcnn did to each layer of a model, or why it did nothing.

    Parameters
    ----------
    model : nn.Module
        A model returned by ``convert``; for any other model every conv and linear layer is listed as declined,
        because no method was applied.

    Raises
    ------
    TypeError
        If ``model`` is not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    lines = model.__dict__.get(_KEY)
    return Report(lines if lines is not None else _untouched(model))


def _untouched(model: nn.Module) -> list[LayerReport]:
    modules = dict(model.named_modules())
    lines = []
    for name in weight_layers(model, (nn.Conv2d, nn.Linear)):
        dense = modules[name]
        assert isinstance(dense, nn.Conv2d | nn.Linear)
        spec = spec_of(dense)
        params, size = spec.weights + (spec.out_channels if spec.bias else 0), dense_bytes(dense)
        lines.append(
            LayerReport(
                layer=name,
                method="none",
                status="declined",
                why="no method was applied",
                params_before=params,
                params_after=params,
                macs_before=spec.weights,
                macs_after=spec.weights,
                bytes_before=size,
                bytes_after=size,
            )
        )
    return lines
