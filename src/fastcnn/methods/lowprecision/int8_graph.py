"""The captured graph of a net that becomes int8: its layers and batch norms found, folded and replaced."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastcnn.methods.contract import LayerReport, relative_error
from fastcnn.methods.lowprecision import int8_ops as int8_ops  # registers the ops
from fastcnn.methods.lowprecision.binary_ops import quantize as quantize  # registers the op
from fastcnn.methods.lowprecision.int8_levels import Levels, output_scale, over_outputs, quantize_weight

METHOD = "int8"
MOST_PRODUCTS = 65793
"""Of one output, that 32 bits surely hold."""
BATCH_NORM = torch.ops.aten.batch_norm.default
_CONV, _LINEAR = torch.ops.aten.conv2d.default, torch.ops.aten.linear.default
Walk = tuple[list[int], list[int], list[int], int]
"""Stride, padding, dilation and groups of a convolution."""
ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor, operator.add, operator.iadd)


def find_layers(
    graph: fx.GraphModule, layers: Sequence[str], reasons: Mapping[str, str]
) -> tuple[dict[str, fx.Node], dict[str, str]]:
    """Nodes of the named layers where the graph has them, and why layers are left alone, the given reasons first."""
    found: dict[str, list[fx.Node]] = {}
    for name, node in weighted(graph):
        if name in set(layers):
            found.setdefault(name, []).append(node)
    own = {name: why for name, nodes in found.items() if (why := _obstacle(graph, nodes))}
    return {name: nodes[0] for name, nodes in found.items()}, {**own, **reasons}


def _obstacle(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> str:
    """Why a layer cannot be had; empty if it can."""
    if len(nodes) > 1:
        return f"the net calls it {len(nodes)} times, with inputs that have levels of their own"
    weight, _ = tensors_of(graph, nodes[0])
    if weight[0].numel() > MOST_PRODUCTS:
        return f"an output has {weight[0].numel()} products: more than the {MOST_PRODUCTS} that 32 bits hold"
    given: Any = nodes[0].args[0]
    if nodes[0].target is _LINEAR and given.meta["val"].dim() != 2:
        return "its inputs have more axes than (N, I)"
    return ""


def report_declined(graph: fx.GraphModule, name: str, node: fx.Node | None, reasons: Mapping[str, str]) -> LayerReport:
    """A line for a layer that stays, or that the graph does not have."""
    if node is None:
        return _report(name, None, None, reasons.get(name, "the net does not use it on the example input"))
    return _report(name, *tensors_of(graph, node), reasons[name])


def conv_walk(node: fx.Node) -> Walk | None:
    """Stride, padding, dilation and groups of a convolution's node; None of a linear layer's."""
    if node.target is not _CONV:
        return None
    rest: dict[str, Any] = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False))
    return (
        _pair(rest.get("stride", 1)),
        _pair(rest.get("padding", 0)),
        _pair(rest.get("dilation", 1)),
        rest.get("groups", 1),
    )


def put_int8(
    graph: fx.GraphModule,
    node: fx.Node,
    name: str,
    x: fx.Node,
    weight: Tensor,
    bias: Tensor | None,
    walk: Walk | None,
    levels: Levels,
) -> tuple[fx.Node, LayerReport]:
    """Put the int8 layer of a weight and a bias in the place of a node; return its node and its line of the report.

    Parameters
    ----------
    x : fx.Node
        What it reads.
    walk : as :func:`conv_walk` has it
    """
    whole, steps = quantize_weight(weight)
    prefix = name.replace(".", "_")
    tensors = {"int8": whole, "scale": output_scale(steps, levels.factor), "bias": bias}
    read = [
        None if value is None else _buffer(graph, node, f"{prefix}_{word}", value) for word, value in tensors.items()
    ]
    arguments: tuple[Any, ...] = (x, *read)
    op = torch.ops.fastcnn.int8_linear.default
    if walk is not None:
        op, arguments = torch.ops.fastcnn.int8_conv2d.default, (*arguments, *walk)
    with graph.graph.inserting_before(node):
        made = graph.graph.call_function(op, (*arguments, levels.factor, levels.zero))
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.graph.erase_node(node)
    error = relative_error(weight, whole.float() * over_outputs(steps, weight))
    return made, _report(name, weight, bias, "", error)


def put_quantize(graph: fx.GraphModule, value: fx.Node, levels: Levels) -> fx.Node:
    """Put a node after a value that rounds it to its levels; return it."""
    step = float(torch.tensor(1 / levels.factor, dtype=torch.float32))
    with graph.graph.inserting_after(value):
        made = graph.graph.call_function(
            torch.ops.fastcnn.quantize.default, (value, levels.factor, step, levels.zero, 0, 255)
        )
    made.meta = dict(value.meta)
    return made


def clean(graph: fx.GraphModule) -> None:
    """Drop what nothing reads any more, and make the graph's code anew."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()


def _buffer(graph: fx.GraphModule, before: fx.Node, name: str, value: Tensor) -> fx.Node:
    """A node that reads a new buffer."""
    while hasattr(graph, name):
        name += "_"
    graph.register_buffer(name, value.detach().clone())
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def plain_paddings(graph: fx.GraphModule) -> None:
    """Write paddings that are words as numbers, where both sides are equal."""
    for node in graph.graph.nodes:
        if node.target is not torch.ops.aten.conv2d.padding:
            continue
        weight = constant(graph, node.args[1])
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
        layer = layer_of_norm(graph, node)
        if layer is None:
            continue
        gain, shift, mean, var = (constant(graph, argument) for argument in node.args[1:5])
        assert mean is not None
        assert var is not None
        weight, bias = tensors_of(graph, layer)
        own: Any = layer.args[1]
        name = str(own.target)
        new_weight, new_bias = folded(weight, bias, gain, shift, mean, var, float(node.args[7]))
        with graph.graph.inserting_before(layer):
            arguments = list(layer.args)
            arguments[1] = _parameter(graph, name, new_weight)
            arguments[2:3] = [_parameter(graph, name.removesuffix("weight") + "bias", new_bias)]
        layer.args = tuple(arguments)
        node.replace_all_uses_with(layer)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def layer_of_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The layer that a batch norm can be folded into; None if the node is no such norm.

    It must have running statistics and read the layer alone, and the layer's weight must be no other layer's too.
    """
    if node.target is not BATCH_NORM or not isinstance(node.args[0], fx.Node) or node.args[5] is not False:
        return None
    layer = node.args[0]
    if layer.target not in (_CONV, _LINEAR) or len(layer.users) != 1 or constant(graph, layer.args[1]) is None:
        return None
    if constant(graph, node.args[3]) is None or constant(graph, node.args[4]) is None:
        return None
    own: Any = layer.args[1]
    same = [other for other in graph.graph.nodes if other.op == "get_attr" and other.target == own.target]
    return layer if sum(len(other.users) for other in same) == 1 else None


def folded(
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with the batch norm after it, taken in float64."""
    factor = (var.double() + eps).rsqrt() * (1.0 if gain is None else gain.double())
    offset = (0.0 if bias is None else bias.double()) - mean.double()
    new_bias = offset * factor + (0.0 if shift is None else shift.double())
    return (weight.double() * over_outputs(factor, weight)).to(weight.dtype), new_bias.to(weight.dtype)


def _parameter(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A node that reads a parameter put at a dotted name; the module there is the graph's own copy."""
    *path, leaf = name.split(".")
    module: nn.Module = graph
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module._parameters[leaf] = nn.Parameter(value.detach(), requires_grad=False)
    return graph.graph.get_attr(name)


def weighted(graph: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """Convolutions and linear layers with a constant weight, by the name of the layer."""
    for node in graph.graph.nodes:
        if node.target in (_CONV, _LINEAR) and constant(graph, node.args[1]) is not None:
            weight: Any = node.args[1]
            yield str(weight.target).rpartition(".")[0], node


def constant(graph: fx.GraphModule, node: Any) -> Tensor | None:
    """The tensor that a node reads from the graph's module; None if it is no such node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None


def tensors_of(graph: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer's node."""
    weight = constant(graph, node.args[1])
    assert weight is not None
    return weight, constant(graph, node.args[2]) if len(node.args) > 2 else None


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
        method=METHOD,
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
