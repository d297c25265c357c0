"""int8: weights and inputs of 8 bits, from a trained net and some inputs, with or without training.

Wins a quarter of the size, and time wherever multiply-adds or bytes are what a layer takes. Costs little: the baseline
that every smaller form has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, fx, nn

from fastcnn.methods.contract import (
    LayerReport,
    MethodConfig,
    check_choice,
    check_count,
    check_patterns,
    check_range,
)
from fastcnn.methods.lowprecision.int8_graph import (
    ADDS,
    METHOD,
    clean,
    conv_walk,
    find_layers,
    fold_batch_norms,
    plain_paddings,
    put_int8,
    put_quantize,
    report_declined,
    tensors_of,
)
from fastcnn.methods.lowprecision.int8_levels import Histogram, levels_between
from fastcnn.methods.registry import register_method
from fastcnn.methods.skips import check_skip


@dataclass(frozen=True, kw_only=True)
class Int8Config(MethodConfig):
    """int8 after or in training: weights symmetric for each output, inputs with a scale and a zero for each layer.

    The net is captured, batch norms go into the layers before them, every convolution and linear layer gets levels for
    its input from what it sees in ``data``, and what is added to another map (a shortcut) has the levels of the layer
    that reads it too. The result is a module of the same function, for inference. ``fastcnn.prepare``, given the same
    data, makes a net that trains with these levels (:mod:`fastcnn.methods.lowprecision.int8_training`).

    Parameters
    ----------
    ranges : {"percentile", "min-max"}
        Whether a few outliers are clipped, or nothing is.
    percentile : float
        Share of a layer's inputs, in percent, that lie between the ends; half of the rest is cut off at each.
    range_decay : float
        In training: how much of the ends stays at a batch, the rest being those of the batch, 0 to 1. 1 leaves them as
        calibration found them.
    freeze_after : int or None
        In training: optimizer step from which ends stay as they are and batch norms use their running statistics. None
        for never.
    skip : sequence of {"first_conv", "last_linear", "depthwise"}
        Layers left in float32.
    exclude : sequence of glob patterns
        More of them.

    References
    ----------
    Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, for a scale of each output.
    """

    method: ClassVar[str] = METHOD
    calibrates: ClassVar[bool] = True

    ranges: Literal["percentile", "min-max"] = "percentile"
    percentile: float = 99.99
    range_decay: float = 0.99
    freeze_after: int | None = None
    skip: tuple[str, ...] | str = ()
    exclude: tuple[str, ...] | str = ()

    def __post_init__(self) -> None:
        check_choice("ranges", self.ranges, ("percentile", "min-max"))
        check_range("percentile", self.percentile, 50.0, 100.0)
        check_range("range_decay", self.range_decay, 0.0, 1.0)
        if self.freeze_after is not None:
            check_count("freeze_after", self.freeze_after, 0)
        object.__setattr__(self, "skip", check_skip(self.skip))
        object.__setattr__(self, "exclude", check_patterns("exclude", self.exclude))

    @property
    def percent(self) -> float:
        """Share of a layer's inputs between the ends."""
        return self.percentile if self.ranges == "percentile" else 100.0

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Clipped, and not."""
        return (cls(), cls(ranges="min-max", range_decay=0.9, freeze_after=4))


@register_method(Int8Config)
class Int8Conversion:
    """A captured net whose layers become int8.

    Parameters
    ----------
    graph : fx.GraphModule
        Of ATen ops, in eval mode; changed in place.
    config : Int8Config
    layers : mapping of str to nn.Module
        The dense layers to take, by the names their weights have in the graph; others stay.
    reasons : mapping of str to str
        Why layers among them are left alone.
    """

    serves: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.Linear)

    def __init__(
        self, graph: fx.GraphModule, config: Int8Config, layers: Sequence[str], reasons: Mapping[str, str]
    ) -> None:
        self.graph, self.config = graph, config
        self.layers = list(layers)
        self.reports: list[LayerReport] = []
        plain_paddings(graph)
        self.nodes, self.reasons = find_layers(graph, layers, reasons)

    @property
    def taken(self) -> dict[str, fx.Node]:
        """The layers that become int8."""
        return {name: node for name, node in self.nodes.items() if name not in self.reasons}

    def run(self, batches: Sequence[Tensor]) -> fx.GraphModule:
        """Calibrate, then replace."""
        levels = {value: levels_between(*ends) for value, ends in self.calibrate(batches).items()}
        for name in self.layers:
            node = self.nodes.get(name)
            if node is None or name in self.reasons:
                self.reports.append(report_declined(self.graph, name, node, self.reasons))
                continue
            weight, bias = tensors_of(self.graph, node)
            given: Any = node.args[0]
            made, report = put_int8(self.graph, node, name, given, weight, bias, conv_walk(node), levels[given])
            if node in levels:
                levels[made] = levels.pop(node)
            self.reports.append(report)
        for value, chosen in levels.items():
            if any(user.target in ADDS for user in value.users):
                # What layers read and an add reads too becomes levels once, for both.
                made = put_quantize(self.graph, value, chosen)
                for user in list(value.users):
                    if user is not made:
                        user.replace_input_with(value, made)
        clean(self.graph)
        return self.graph

    def calibrate(self, batches: Sequence[Tensor]) -> dict[fx.Node, tuple[float, float]]:
        """Fold batch norms, and find the ends of every value that gets levels in what the net makes of inputs.

        Raises
        ------
        ValueError
            If a value is NaN or Inf.
        """
        fold_batch_norms(self.graph)
        layers = list(self.taken.values())
        values: list[Any] = list(dict.fromkeys([*(node.args[0] for node in layers), *self._added(layers)]))
        seen = _Watch(self.graph, values)
        with torch.no_grad():
            for batch in batches:
                seen.run(batch.clone())  # the net may work in place
        return {value: seen.histograms[value].ends(self.config.percent) for value in values}

    def _added(self, taken: Sequence[fx.Node]) -> list[fx.Node]:
        """Of two layers whose outputs are added up the one that runs first: the other can add its levels."""
        order = {node: place for place, node in enumerate(self.graph.graph.nodes)}
        return [
            min(node.args[:2], key=lambda argument: order[argument])
            for node in self.graph.graph.nodes
            if node.target in ADDS and len(node.args) > 1 and node.args[0] in taken and node.args[1] in taken
        ]


class _Watch(fx.Interpreter):
    """Runs a graph and counts what some of its values hold."""

    def __init__(self, graph: fx.GraphModule, values: Sequence[fx.Node]) -> None:
        super().__init__(graph)
        self.histograms = {value: Histogram() for value in values}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.histograms:
            self.histograms[n].add(result)
        return result
