"""int8: weights and inputs of 8 bits, from a trained net and some inputs, without training.

Wins a quarter of the size, and time wherever multiply-adds or bytes are what a layer takes. Costs little: the baseline
that every smaller form has to beat.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, fx, nn

from fastcnn.methods.contract import (
    LayerReport,
    MethodConfig,
    check_choice,
    check_finite,
    check_patterns,
    check_range,
    relative_error,
)
from fastcnn.methods.lowprecision import int8_ops as int8_ops  # registers the ops
from fastcnn.methods.lowprecision.binary_ops import quantize as quantize  # registers the op
from fastcnn.methods.registry import register_method
from fastcnn.methods.skips import check_skip

MOST_PRODUCTS = 65793
"""Of one output, that 32 bits surely hold."""
BINS = 2048


@dataclass(frozen=True, kw_only=True)
class Int8Config(MethodConfig):
    """int8 after training: weights symmetric for each output, inputs with a scale and a zero for each layer.

    The net is captured, batch norms go into the layers before them, every convolution and linear layer gets levels for
    its input from what it sees in ``data``, and what is added to another map (a shortcut) has the levels of the layer
    that reads it too. The result is a module of the same function, for inference.

    Parameters
    ----------
    ranges : {"percentile", "min-max"}
        Whether a few outliers are clipped, or nothing is.
    percentile : float
        Share of a layer's inputs, in percent, that lie between the ends; half of the rest is cut off at each.
    skip : sequence of {"first_conv", "last_linear", "depthwise"}
        Layers left in float32.
    exclude : sequence of glob patterns
        More of them.

    References
    ----------
    Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, for a scale of each output.
    """

    method: ClassVar[str] = "int8"
    calibrates: ClassVar[bool] = True

    ranges: Literal["percentile", "min-max"] = "percentile"
    percentile: float = 99.99
    skip: tuple[str, ...] | str = ()
    exclude: tuple[str, ...] | str = ()

    def __post_init__(self) -> None:
        check_choice("ranges", self.ranges, ("percentile", "min-max"))
        check_range("percentile", self.percentile, 50.0, 100.0)
        object.__setattr__(self, "skip", check_skip(self.skip))
        object.__setattr__(self, "exclude", check_patterns("exclude", self.exclude))

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Clipped, and not."""
        return (cls(), cls(ranges="min-max"))


@dataclass(frozen=True)
class Levels:
    """round(x * factor) + zero, 0 to 255, stand for (q - zero) / factor."""

    factor: float
    zero: int


def levels_between(low: float, high: float) -> Levels:
    """Levels from low to high, which include 0; of a range without extent those of +-1e-6."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12:
        low, high = (-1e-6, 1e-6)
    step = (high - low) / 255
    return Levels(factor=float(torch.tensor(1 / step, dtype=torch.float32)), zero=min(255, max(0, round(-low / step))))


class Histogram:
    """Counts of values in bins that widen by whole factors of two as larger ones come."""

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Count the values of a tensor.

        Raises
        ------
        ValueError
            If one is NaN or Inf.
        """
        x = x.detach().flatten().float()
        if x.numel() == 0:
            return
        most = float(x.abs().max())
        if not math.isfinite(most):
            raise ValueError("calibration inputs lead to NaN or Inf inside the net")
        if self.reach == 0.0:
            self.reach = most or 1e-12
        while most > self.reach:
            # Two bins become one, about the middle.
            pairs = self.counts.reshape(2, BINS // 4, 2).sum(2).flatten()
            self.counts = torch.zeros(BINS, dtype=torch.float64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
            self.reach *= 2
        self.counts += torch.histc(x, BINS, -self.reach, self.reach).double()

    def ends(self, percent: float) -> tuple[float, float]:
        """Least and largest value once so many percent are kept; edges of bins."""
        total = float(self.counts.sum())
        if total == 0:
            return 0.0, 0.0
        cut = total * (100.0 - percent) / 200.0
        upto = self.counts.cumsum(0)
        first = int(torch.searchsorted(upto, cut, right=True))
        last = int(torch.searchsorted(upto, total - cut, right=False))
        width = 2 * self.reach / BINS
        return -self.reach + first * width, -self.reach + (min(last, BINS - 1) + 1) * width


_CONV, _LINEAR = torch.ops.aten.conv2d.default, torch.ops.aten.linear.default
_ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor, operator.add, operator.iadd)


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
        fold_batch_norms(graph)
        self._nodes = {name: node for name, node in _weighted(graph) if name in set(layers)}
        own = {name: why for name, node in self._nodes.items() if (why := self._obstacle(node))}
        self.reasons = {**own, **reasons}

    def run(self, batches: Sequence[Tensor]) -> fx.GraphModule:
        """Calibrate, then replace."""
        taken = {name: node for name, node in self._nodes.items() if name not in self.reasons}
        values = {node.args[0] for node in taken.values()} | self._added(set(taken.values()))
        seen = _Watch(self.graph, values)
        for batch in batches:
            seen.run(batch)
        percent = self.config.percentile if self.config.ranges == "percentile" else 100.0
        levels = {value: levels_between(*seen.histograms[value].ends(percent)) for value in values}
        for name in self.layers:
            self._convert(name, levels)
        self._quantize_shortcuts(levels)
        self.graph.graph.eliminate_dead_code()
        self.graph.delete_all_unused_submodules()
        self.graph.recompile()
        return self.graph

    def _obstacle(self, node: fx.Node) -> str:
        """Why a layer cannot be had; empty if it can."""
        weight, _ = _tensors(self.graph, node)
        if weight[0].numel() > MOST_PRODUCTS:
            return f"an output has {weight[0].numel()} products: more than the {MOST_PRODUCTS} that 32 bits hold"
        given: Any = node.args[0]
        if node.target is _LINEAR and given.meta["val"].dim() != 2:
            return "its inputs have more axes than (N, I)"
        return ""

    def _convert(self, name: str, levels: dict[Any, Levels]) -> None:
        node = self._nodes.get(name)
        if node is None:
            why = self.reasons.get(name, "the net does not use it on the example input")
            self.reports.append(_report(name, None, None, why))
            return
        weight, bias = _tensors(self.graph, node)
        if name in self.reasons:
            self.reports.append(_report(name, weight, bias, self.reasons[name]))
            return
        whole, steps = quantize_weight(weight)
        chosen = levels[node.args[0]]
        prefix = name.replace(".", "_")
        scale = (steps.double() / chosen.factor).float()
        arguments = [node.args[0], self._buffer(f"{prefix}_int8", whole), self._buffer(f"{prefix}_scale", scale)]
        arguments.append(None if bias is None else self._buffer(f"{prefix}_bias", bias.detach().clone()))
        for argument in arguments[1:]:
            if isinstance(argument, fx.Node):
                node.prepend(argument)
        if node.target is _CONV:
            rest = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False))
            walk = [_pair(rest.get("stride", 1)), _pair(rest.get("padding", 0)), _pair(rest.get("dilation", 1))]
            op, arguments = torch.ops.fastcnn.int8_conv2d.default, [*arguments, *walk, rest.get("groups", 1)]
        else:
            op = torch.ops.fastcnn.int8_linear.default
        with self.graph.graph.inserting_before(node):
            made = self.graph.graph.call_function(op, (*arguments, chosen.factor, chosen.zero))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        self.graph.graph.erase_node(node)
        if node in levels:
            levels[made] = levels.pop(node)
        error = relative_error(weight, whole.float() * steps.reshape(-1, *[1] * (weight.dim() - 1)))
        self.reports.append(_report(name, weight, bias, "", error))

    def _added(self, taken: set[fx.Node]) -> set[fx.Node]:
        """Of two layers whose outputs are added up the one that runs first: the other can add its levels."""
        found = set()
        order = {node: place for place, node in enumerate(self.graph.graph.nodes)}
        for node in self.graph.graph.nodes:
            if node.target in _ADDS and len(node.args) > 1 and node.args[0] in taken and node.args[1] in taken:
                found.add(min(node.args[:2], key=lambda argument: order[argument]))
        return found

    def _buffer(self, name: str, value: Tensor) -> fx.Node:
        """A node that reads a new buffer."""
        while hasattr(self.graph, name):
            name += "_"
        self.graph.register_buffer(name, value)
        with self.graph.graph.inserting_before(next(iter(self.graph.graph.nodes))):
            return self.graph.graph.get_attr(name)

    def _quantize_shortcuts(self, levels: Mapping[Any, Levels]) -> None:
        """What layers read and an add reads too becomes levels once, for both."""
        for value, chosen in levels.items():
            users = list(value.users)
            if not any(user.target in _ADDS for user in users):
                continue
            with self.graph.graph.inserting_after(value):
                step = float(torch.tensor(1 / chosen.factor, dtype=torch.float32))
                made = self.graph.graph.call_function(
                    torch.ops.fastcnn.quantize.default, (value, chosen.factor, step, chosen.zero, 0, 255)
                )
            made.meta = dict(value.meta)
            for user in users:
                user.replace_input_with(value, made)


class _Watch(fx.Interpreter):
    """Runs a graph and counts what some of its values hold."""

    def __init__(self, graph: fx.GraphModule, values: set[Any]) -> None:
        super().__init__(graph)
        self.histograms = {value: Histogram() for value in values}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.histograms:
            self.histograms[n].add(result)
        return result


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers -127 to 127 (int8) and the step of each output, max |W| / 127; 1 where all are 0.

    Raises
    ------
    ValueError
        If a weight is NaN or Inf.
    """
    check_finite(weight, "weight")
    flat = weight.detach().double().flatten(1)
    steps = flat.abs().amax(1) / 127
    steps = torch.where(steps > 0, steps, 1.0)
    whole = (flat / steps[:, None]).round().clamp(-127, 127).to(torch.int8).reshape(weight.shape)
    return whole, steps.float()


def plain_paddings(graph: fx.GraphModule) -> None:
    """Write paddings that are words as numbers, where both sides are equal."""
    for node in graph.graph.nodes:
        if node.target is not torch.ops.aten.conv2d.padding:
            continue
        weight = _constant(graph, node.args[1])
        given = list(node.args)
        x, w, bias, stride, word, dilation, groups = given + [None, [1, 1], "valid", [1, 1], 1][len(given) - 2 :]
        if weight is None:
            continue
        total = (
            [0, 0] if word == "valid" else [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
        )
        if total[0] % 2 == total[1] % 2 == 0:
            node.target = _CONV
            node.args = (x, w, bias, stride, [total[0] // 2, total[1] // 2], dilation, groups)
    graph.recompile()


def fold_batch_norms(graph: fx.GraphModule) -> None:
    """Give every convolution or linear layer that only a batch norm reads its factor and shift."""
    for node in list(graph.graph.nodes):
        if node.target not in _BATCH_NORMS or not isinstance(node.args[0], fx.Node):
            continue
        layer = node.args[0]
        if layer.target not in (_CONV, _LINEAR) or len(layer.users) != 1 or _constant(graph, layer.args[1]) is None:
            continue
        gain, shift, mean, var = (_constant(graph, argument) for argument in node.args[1:5])
        if mean is None or var is None:
            continue
        eps = float(node.args[7])
        weight, bias = _tensors(graph, layer)
        factor = (var.double() + eps).rsqrt() * (1.0 if gain is None else gain.double())
        offset = (0.0 if bias is None else bias.double()) - mean.double()
        folded = offset * factor + (0.0 if shift is None else shift.double())
        own: Any = layer.args[1]
        name = str(own.target)
        with graph.graph.inserting_before(layer):
            arguments = list(layer.args)
            arguments[1] = _parameter(
                graph, name, weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1)), weight
            )
            new_bias = _parameter(graph, name.removesuffix("weight") + "bias", folded, weight)
            arguments = [*arguments[:2], new_bias, *arguments[3:]]
        layer.args = tuple(arguments)
        node.replace_all_uses_with(layer)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


_BATCH_NORMS = (torch.ops.aten.batch_norm.default,)


def _parameter(graph: fx.GraphModule, name: str, value: Tensor, like: Tensor) -> fx.Node:
    """A node that reads a parameter put at a dotted name; the module there is the graph's own copy."""
    *path, leaf = name.split(".")
    module: nn.Module = graph
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module._parameters[leaf] = nn.Parameter(value.to(like.dtype), requires_grad=False)
    return graph.graph.get_attr(name)


def _weighted(graph: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """Convolutions and linear layers with a constant weight, by the name of the layer."""
    for node in graph.graph.nodes:
        if node.target in (_CONV, _LINEAR) and _constant(graph, node.args[1]) is not None:
            weight: Any = node.args[1]
            yield str(weight.target).rpartition(".")[0], node


def _constant(graph: fx.GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None


def _tensors(graph: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor | None]:
    weight = _constant(graph, node.args[1])
    assert weight is not None
    return weight, _constant(graph, node.args[2]) if len(node.args) > 2 else None


def _pair(value: Any) -> list[int]:
    given = [value] if isinstance(value, int) else list(value)
    return [int(given[0]), int(given[-1])]


def _report(name: str, weight: Tensor | None, bias: Tensor | None, why: str, error: float | None = None) -> LayerReport:
    numbers = 0 if weight is None else weight.numel()
    extra = 0 if bias is None else bias.numel()
    outputs = 0 if weight is None else len(weight)
    done = error is not None
    return LayerReport(
        layer=name,
        method=Int8Config.method,
        status="done" if done else "declined",
        why=why or "weights and inputs of 8 bits",
        params_before=numbers + extra,
        params_after=numbers + extra,
        macs_before=numbers,
        macs_after=numbers,
        bytes_before=4 * (numbers + extra),
        # A byte for each weight, a scale and a bias for each output.
        bytes_after=numbers + 8 * outputs if done else 4 * (numbers + extra),
        weight_error=error or 0.0,
    )
