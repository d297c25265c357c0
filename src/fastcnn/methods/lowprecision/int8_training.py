"""int8 in training: a captured net that rounds as the int8 net will, and whose gradients go straight through.

The graph is the one that conversion would make, with what trains in the place of the int8 ops: every value that gets
levels is rounded to them, and layers multiply whole numbers as floats and scale the sums. It begins with the ends that
calibration found; in training they follow the ends of the batches. So nothing need be delayed until they have settled.

A batch norm that can be folded into its layer learns as ever, from the statistics of the batch, on the layer's scaled
sums: its factor is a number for each output, as the step of the weight is, so that folding changes steps and no whole
number (except by the float rounding of a tie). The paper, with one step for a layer, must convolve twice for that. In
eval mode, and once frozen, a layer multiplies the folded weight, as the int8 layer does.

In eval mode sums are taken in float64 and every other number as the int8 op has it: outputs are those of the converted
net to the last bit. In training sums are taken in the inputs' dtype (never in less than float32), exact while they are
whole numbers below 2^24 and rounded beyond.

References
----------
Jacob et al. 2018, arXiv:1712.05877, section 3; a norm that stays behind weights with a step for each output: Nagel et
al. 2021, arXiv:2106.08295, section 5.2.1; frozen statistics at the end: Krishnamoorthi 2018, arXiv:1806.08342.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fastcnn.methods.contract import LayerReport, check_finite
from fastcnn.methods.lowprecision.int8 import Int8Config, Int8Conversion
from fastcnn.methods.lowprecision.int8_graph import (
    ADDS,
    BATCH_NORM,
    Walk,
    clean,
    constant,
    conv_walk,
    folded,
    layer_of_norm,
    plain_paddings,
    put_int8,
    put_quantize,
    report_declined,
    tensors_of,
    weighted,
)
from fastcnn.methods.lowprecision.int8_levels import (
    Levels,
    levels_of,
    output_scale,
    over_outputs,
    weight_steps,
    whole_weight,
)
from fastcnn.methods.lowprecision.int8_ops import scaled
from fastcnn.methods.registry import register_method

SAMPLE = 1 << 16
"""Of a batch's values, about as many are looked at for the ends that leave a share of them out."""


class _RoundToLevels(torch.autograd.Function):
    """q - zero, as ``int8_ops.whole_levels`` has it; for gradients x * factor between the ends, constant beyond."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
        level = x * factor
        ctx.save_for_backward((level + zero >= 0) & (level + zero <= 255), factor)
        return level.round_().add_(zero).clamp_(0, 255).sub_(zero)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        inside, factor = ctx.saved_tensors
        return grads[0] * inside * factor.to(grads[0].dtype), None, None


class _RoundWeight(torch.autograd.Function):
    """Whole numbers of a weight, in its dtype; W / step for gradients, which is never beyond the ends."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, steps: Tensor) -> Tensor:
        ctx.save_for_backward(steps)
        return whole_weight(weight, steps).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (steps,) = ctx.saved_tensors
        return grads[0] / over_outputs(steps, grads[0]).to(grads[0].dtype), None


def batch_ends(x: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """Least and largest value of a batch once so many percent of a sample of it are kept; of all of it at 100.

    Parameters
    ----------
    x : Tensor
        With a value at least.
    percent : float
        Half of the rest is cut off at each end.
    """
    flat = x.detach().flatten()
    if percent >= 100:
        low, high = flat.aminmax()
        return low, high
    # A stride that no extent of the tensor is a multiple of, nor shares a factor with: all channels, rows and columns.
    stride = max(1, len(flat) // SAMPLE)
    while math.gcd(stride, len(flat)) > 1:
        stride += 1
    sample = flat[::stride].float()
    cut = int(len(sample) * (100.0 - percent) / 200.0)
    return sample.topk(cut + 1, largest=False).values[-1], sample.topk(cut + 1).values[-1]


def _autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of x."""
    return torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)


class TrackedLevels(nn.Module):
    """Rounds a value to levels whose ends follow those of the batches in training mode.

    Parameters
    ----------
    low, high : float
        Ends to begin with.
    config : Int8Config

    Attributes
    ----------
    low, high : Tensor, shape (), float64
        Buffers: the ends.
    frozen : bool
        Whether they stay in training too.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float, config: Int8Config) -> None:
        super().__init__()
        self.percent, self.decay = config.percent, config.range_decay
        self.frozen = False
        self.register_buffer("low", torch.tensor(low, dtype=torch.float64))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whole numbers q - zero in the place of x, which times 1 / factor are near it, and the factor."""
        if x.dtype in (torch.float16, torch.bfloat16) and _autocasts(x):
            x = x.float()
        if self.training and not self.frozen and self.decay < 1 and x.numel():
            with torch.no_grad():
                low, high = batch_ends(x, self.percent)
                self.low += (1 - self.decay) * (low.double() - self.low)
                self.high += (1 - self.decay) * (high.double() - self.high)
        factor, zero = levels_of(self.low, self.high)
        whole: Tensor = _RoundToLevels.apply(x, factor.to(x.dtype), zero.to(x.dtype))  # type: ignore[no-untyped-call]
        return whole, factor

    def levels(self) -> Levels:
        """The levels as they are now.

        Raises
        ------
        ValueError
            If an end is NaN or Inf.
        """
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("training inputs led to NaN or Inf inside the net: its ranges are lost, so train it anew")
        factor, zero = levels_of(self.low, self.high)
        return Levels(factor=float(factor), zero=int(zero))

    def extra_repr(self) -> str:
        """The ends."""
        return f"low={float(self.low):.4g}, high={float(self.high):.4g}, frozen={self.frozen}"


class Mode(nn.Module):
    """Tells a graph whether it is in training mode; no longer once frozen."""

    frozen = False

    def forward(self) -> bool:
        """Whether to do as in training."""
        return self.training and not self.frozen


def real_numbers(given: tuple[Tensor, Tensor]) -> Tensor:
    """What whole numbers of :class:`TrackedLevels` stand for, as ``torch.ops.fastcnn.quantize`` has it."""
    whole, factor = given
    return whole * (1 / factor).float().to(whole.dtype)


def trained_layer(
    given: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
    norm: tuple[Tensor | None, Tensor | None, Tensor, Tensor, float, float, bool] | None,
    walk: Walk | None,
    training: bool,
) -> Tensor:
    """A convolution or linear layer of whole numbers, with the batch norm after it.

    Parameters
    ----------
    given : (Tensor, Tensor)
        From :class:`TrackedLevels`, of inputs (N, C, H, W) or (N, I).
    weight : Tensor, shape (O, C / groups, kh, kw) or (O, I)
    bias : Tensor, shape (O,), optional
    norm : tuple, optional
        Weight, bias, running mean and variance, momentum and eps of a batch norm, and whether it uses the statistics of
        the batch (and moves the running ones) or is folded.
    walk : tuple, optional
        Stride, padding, dilation and groups; None for a linear layer.
    training : bool
        Whether sums may be rounded to the inputs' dtype.
    """
    whole, factor = given
    # Sums of whole numbers are too large for float16; the numbers themselves are exact in TF32.
    with torch.autocast(whole.device.type, enabled=False) if _autocasts(whole) else nullcontext():
        if norm is None:
            return _multiply(whole, factor, weight, bias, walk, training)
        gain, shift, mean, var, momentum, eps, learns = norm
        if learns:
            y = _multiply(whole, factor, weight, bias, walk, training)
            return F.batch_norm(y, mean, var, gain, shift, True, momentum, eps)
        return _multiply(whole, factor, *folded(weight, bias, gain, shift, mean, var, eps), walk, training)


def _multiply(
    whole: Tensor, factor: Tensor, weight: Tensor, bias: Tensor | None, walk: Walk | None, training: bool
) -> Tensor:
    steps = weight_steps(weight)
    wide = whole.dtype if training else torch.float64
    x, w = whole.to(wide), _RoundWeight.apply(weight, steps).to(wide)  # type: ignore[no-untyped-call]
    sums = F.linear(x, w) if walk is None else F.conv2d(x, w, None, *walk)
    return scaled(sums, whole.dtype, output_scale(steps, factor), bias)


_DROPOUTS = tuple(
    getattr(torch.ops.aten, name + ending).default
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for ending in ("", "_")
)


@register_method(Int8Config)
class Int8Training:
    """The session: ``model`` is the net in training, of one graph with the int8 net that :meth:`finish` makes of it.

    Layers that stay in float32 train too, dropouts and other batch norms work as in training; what else a net does only
    in training is not there, as capture in eval mode does not see it.

    Parameters
    ----------
    graph : fx.GraphModule
        Of ATen ops, captured in eval mode; changed in place.
    config : Int8Config
    layers : sequence of str
        The dense layers to take, by the names their weights have in the graph.
    reasons : mapping of str to str
        Why layers among them are left alone.
    batches : sequence of Tensor
        Calibration inputs.
    modes : mapping of str to bool
        Which modules of the captured net were in training mode; "" is the net itself.

    Raises
    ------
    ValueError
        If the inputs lead to NaN or Inf inside the net.
    """

    serves: ClassVar[tuple[type[nn.Module], ...]] = Int8Conversion.serves

    def __init__(
        self,
        graph: fx.GraphModule,
        config: Int8Config,
        layers: Sequence[str],
        reasons: Mapping[str, str],
        batches: Sequence[Tensor],
        modes: Mapping[str, bool],
    ) -> None:
        self.model, self.config, self.steps = graph, config, 0
        self.reports: list[LayerReport] = []
        self._names, self._modes = list(layers), modes
        self._settling: list[TrackedLevels | Mode] = []
        plain_paddings(graph)
        plain = _copy(graph)
        same = dict(zip(plain.graph.nodes, graph.graph.nodes, strict=True))
        conversion = Int8Conversion(plain, config, layers, reasons)
        taken = {name: same[node] for name, node in conversion.taken.items()}
        self._reasons = conversion.reasons
        ends = {same[value]: found for value, found in conversion.calibrate(batches).items()}
        graph.train(modes[""])
        mode = self._put(Mode().train(modes[""]), "training_mode", (), before=next(iter(graph.graph.nodes)))
        norms = self._wake(mode)
        # A value of the folded graph is here what the norm after it makes of it.
        ends = {norms.get(value, value): found for value, found in ends.items()}
        for name, layer in taken.items():
            last = norms.get(layer, layer)
            made = self._put_layer(name, layer, norms.get(layer), mode)
            if last in ends:
                ends[made] = ends.pop(last)
        for value, (low, high) in ends.items():
            self._put_levels(value, TrackedLevels(low, high, config))
        graph.recompile()
        self._freeze()

    def step(self) -> None:
        """Call after every optimizer step."""
        self.steps += 1
        self._freeze()

    def finish(self) -> nn.Module:
        """Put int8 layers in the place of what trained; return the net, in eval mode.

        Raises
        ------
        ValueError
            If a weight, a bias or a range became NaN or Inf; nothing is changed then.
        """
        graph = self.model
        levels = {
            node: module.levels()
            for node in graph.graph.nodes
            if isinstance(module := self._module(node), TrackedLevels)
        }
        layers = {_owner(node.args[1]): node for node in _of(graph, trained_layer)}
        tensors = {name: self._tensors(name, node) for name, node in layers.items()}
        for node, chosen in levels.items():
            self._round_shortcuts(node, chosen)
        dense = dict(weighted(graph))
        for name in self._names:
            node = layers.get(name)
            if node is None:
                self.reports.append(report_declined(graph, name, dense.get(name), self._reasons))
                continue
            given, walk = node.all_input_nodes[0], cast("Walk | None", node.args[4])
            _, report = put_int8(graph, node, name, given.all_input_nodes[0], *tensors[name], walk, levels[given])
            self.reports.append(report)
        for node in list(graph.graph.nodes):
            if isinstance(self._module(node), Mode):
                _set_off(node)
        clean(graph)
        return graph.eval()

    def state(self) -> dict[str, Any]:
        """Steps so far; weights and ends travel in the model's ``state_dict``."""
        return {"steps": self.steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.steps = int(state["steps"])
        self._freeze()

    def _freeze(self) -> None:
        after = self.config.freeze_after
        for module in self._settling:
            module.frozen = after is not None and self.steps >= after

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _put(self, module: nn.Module, name: str, arguments: tuple[fx.Node, ...], *, before: fx.Node) -> fx.Node:
        """A node that calls a new module."""
        while hasattr(self.model, name):
            name += "_"
        self.model.add_module(name, module)
        with self.model.graph.inserting_before(before):
            return self.model.graph.call_module(name, arguments)

    def _wake(self, mode: fx.Node) -> dict[fx.Node, fx.Node]:
        """Have dropouts and batch norms work as in training; return the norms that can be folded, by their layers."""
        norms = {}
        for node in list(self.model.graph.nodes):
            if node.target in _DROPOUTS and node.args[2] is False:
                node.update_arg(2, mode)
            if node.target is not BATCH_NORM or constant(self.model, node.args[3]) is None or node.args[5] is not False:
                continue
            layer = layer_of_norm(self.model, node)
            if layer is not None:
                norms[layer] = node
            name = _owner(node.args[3])
            own = Mode().train(self._modes.get(name, self._modes[""]))
            self._settling.append(own)
            node.update_arg(5, self._put(own, f"{name.replace('.', '_')}_mode", (), before=node))
        return norms

    def _put_layer(self, name: str, layer: fx.Node, norm: fx.Node | None, mode: fx.Node) -> fx.Node:
        """Put the trained layer in the place of a dense one and the norm after it."""
        graph, last = self.model.graph, layer if norm is None else norm
        bias = layer.args[2] if len(layer.args) > 2 else None
        folds = None if norm is None else (*norm.args[1:5], norm.args[6], norm.args[7], norm.args[5])
        with graph.inserting_before(last):
            made = graph.create_node(
                "call_function",
                trained_layer,
                (layer.args[0], layer.args[1], bias, folds, conv_walk(layer), mode),
                name=name.replace(".", "_"),
            )
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
        for node in dict.fromkeys((last, layer)):
            graph.erase_node(node)
        return made

    def _put_levels(self, value: fx.Node, module: TrackedLevels) -> None:
        """Have layers read a value's levels, and all else too if an add is among it."""
        readers = [node for node in _of(self.model, trained_layer) if node.args[0] is value]
        others = [node for node in value.users if node not in readers]
        added = any(node.target in ADDS for node in others)
        self._settling.append(module.train(self._modes[""]).to(_device_of(self.model)))
        rounded = self._put(module, f"{value.name}_levels", (value,), before=value.next if added else readers[0])
        for node in readers:
            node.update_arg(0, rounded)
        if added:
            with self.model.graph.inserting_after(rounded):
                real = self.model.graph.call_function(real_numbers, (rounded,))
            for node in others:
                node.replace_input_with(value, real)

    def _round_shortcuts(self, node: fx.Node, levels: Levels) -> None:
        """Where an add reads a value's levels, give it and the layers that do the value rounded once."""
        real = [user for user in node.users if user.target is real_numbers]
        if not real:
            return
        made = put_quantize(self.model, node.all_input_nodes[0], levels)
        real[0].replace_all_uses_with(made)
        node.update_arg(0, made)

    def _tensors(self, name: str, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a trained layer, with the norm after it."""
        weight, bias = tensors_of(self.model, node)
        norm: Any = node.args[3]
        if norm is not None:
            gain, shift, mean, var = (constant(self.model, argument) for argument in norm[:4])
            assert mean is not None
            assert var is not None
            with torch.no_grad():
                weight, bias = folded(weight, bias, gain, shift, mean, var, norm[5])
        check_finite(weight, f"weight of layer {name!r}")
        if bias is not None:
            check_finite(bias, f"bias of layer {name!r}")
        return weight, bias


def _copy(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own that reads the same tensors; its outputs are a flat tuple."""
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(graph.graph, {}))
    return fx.GraphModule(graph, nodes)


def _of(graph: fx.GraphModule, function: Any) -> list[fx.Node]:
    """Nodes that call a function, in their order."""
    return [node for node in graph.graph.nodes if node.target is function]


def _owner(read: Any) -> str:
    """Name of the module whose tensor a node reads."""
    return str(read.target).rpartition(".")[0]


def _set_off(mode: fx.Node) -> None:
    """Put False where nodes read a mode."""
    for user in list(mode.users):
        user.args = tuple(False if argument is mode else argument for argument in user.args)


def _device_of(graph: fx.GraphModule) -> torch.device:
    return next(graph.parameters()).device
