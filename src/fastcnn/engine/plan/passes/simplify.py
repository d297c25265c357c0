"""Nodes that do nothing go; padding moves into the layer after it; reshapes collapse. Exact, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastcnn.engine.graph.graph import Graph, GraphError, Node
from fastcnn.engine.graph.reshapes import copy_axis, open_target
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shape_rules import resolve_reshape
from fastcnn.engine.plan.passes.rewrite import rebuild

_NEVER_NEGATIVE = ("relu", "sigmoid", "hardsigmoid", "softmax", "exp", "softplus")


def run(graph: Graph, shapes: Mapping[str, Shape], notes: list[str] | None = None) -> Graph:
    """Apply every rule once, in execution order."""
    renamed: dict[str, str] = {}
    made: dict[str, Node] = {}
    for original in graph.nodes:
        node = original.with_(inputs=tuple(renamed.get(name, name) for name in original.inputs))
        for rule in (_flatten_as_reshape, _collapse_reshape, _merge_pad, _swish):
            changed = rule(node, made, shapes)
            if changed is not None:
                if notes is not None and rule is not _flatten_as_reshape:
                    notes.append(f"{node.name}: {(rule.__doc__ or '').splitlines()[0].rstrip('.').lower()}")
                node = changed
        if _does_nothing(node, shapes):
            renamed[node.name] = node.inputs[0]
            if notes is not None:
                notes.append(f"{node.name}: dropped, it does nothing")
            continue
        made[node.name] = node
    return rebuild(graph, made.values(), renamed=renamed, weights=graph.weights)


def _does_nothing(node: Node, shapes: Mapping[str, Shape]) -> bool:
    a = node.attrs
    tests: dict[str, Callable[[], bool]] = {
        "mul_scalar": lambda: bool(a["value"] == 1),
        "add_scalar": lambda: bool(a["value"] == 0),
        "permute": lambda: bool(a["dims"] == sorted(a["dims"])),
        "slice": lambda: bool(a["start"] == 0 and a["end"] is None and a["step"] == 1),
        "pad": lambda: not any(map(any, a["pads"])),
        "clamp": lambda: a["min"] is None and a["max"] is None,
        "concat": lambda: len(node.inputs) == 1,
        "resize": lambda: bool(a["scale"] == [1, 1]),
        "reshape": lambda: bool(a["shape"] == [0] * len(shapes[node.inputs[0]])),
    }
    return node.op in tests and tests[node.op]()


def _flatten_as_reshape(node: Node, made: Mapping[str, Node], shapes: Mapping[str, Shape]) -> Node | None:
    """Written as a reshape."""
    if node.op != "flatten":
        return None
    start, end, rank = node.attrs["start_dim"], node.attrs["end_dim"], len(shapes[node.inputs[0]])
    tail = [copy_axis(i - (end - start), i) for i in range(end + 1, rank)]
    return node.with_(op="reshape", attrs={"shape": [0] * start + [-1] + tail})


def _collapse_reshape(node: Node, made: Mapping[str, Node], shapes: Mapping[str, Shape]) -> Node | None:
    """Two reshapes in a row became one."""
    inner = made.get(node.inputs[0]) if node.op == "reshape" else None
    if inner is None or inner.op != "reshape":
        return None
    x, out = shapes[inner.inputs[0]], shapes[node.name]
    target = open_target(list(out), x, out)
    chain = (inner.attrs["shape"], node.attrs["shape"])
    # The single reshape must mean the same at other sizes too: try each axis grown.
    for axis in range(len(x)):
        for factor in (2, 3):
            grown = tuple(n * factor if i == axis else n for i, n in enumerate(x))
            if _resolved(chain, grown) not in (None, _resolved((target,), grown)):
                return None
    if _resolved((target,), x) != out:
        return None
    return node.with_(inputs=inner.inputs, attrs={"shape": target})


def _resolved(targets: tuple[Any, ...], shape: Shape) -> Shape | None:
    try:
        for target in targets:
            shape = resolve_reshape(target, shape)
    except GraphError:
        return None
    return shape


def _merge_pad(node: Node, made: Mapping[str, Node], shapes: Mapping[str, Shape]) -> Node | None:
    """Took the padding before it in."""
    pad = made.get(node.inputs[0]) if node.inputs else None
    if pad is None or pad.op != "pad" or pad.attrs["value"] != 0 or "padding" not in node.attrs:
        return None
    pads = pad.attrs["pads"]
    if len(pads) < 3 or any(pads[0]) or any(pads[1]):
        return None
    added = [p[0] for p in pads[2:]] + [p[1] for p in pads[2:]]
    padding = [p + q for p, q in zip(node.attrs["padding"], added, strict=True)] if _same_length(node, added) else []
    attrs = {**node.attrs, "padding": padding}
    if node.op in ("conv2d", "conv1d", "codebook_conv2d") and padding:
        return node.with_(inputs=pad.inputs, attrs=attrs)
    if node.op not in ("avg_pool2d", "avg_pool1d", "max_pool2d", "max_pool1d") or not padding:
        return None
    most = [k // 2 for k in node.attrs["kernel_size"]] * 2
    if node.attrs["ceil_mode"] or any(p > limit for p, limit in zip(padding, most, strict=True)):
        return None
    if node.op.startswith("max"):
        # A zero can only stand for "nothing" where no value is negative and every window holds a value.
        maker = made.get(pad.inputs[0])
        positive = maker is not None and (
            maker.op in _NEVER_NEGATIVE
            or (maker.op == "clamp" and maker.attrs["min"] is not None and maker.attrs["min"] >= 0)
        )
        return node.with_(inputs=pad.inputs, attrs=attrs) if positive and set(node.attrs["dilation"]) == {1} else None
    if any(node.attrs["padding"]) and not node.attrs["count_include_pad"]:
        return None
    return node.with_(inputs=pad.inputs, attrs={**attrs, "count_include_pad": True})


def _same_length(node: Node, added: list[int]) -> bool:
    return len(node.attrs["padding"]) == len(added)


def _swish(node: Node, made: Mapping[str, Node], shapes: Mapping[str, Shape]) -> Node | None:
    """Written as SiLU: x * sigmoid(x)."""
    if node.op != "mul":
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        maker = made.get(gate)
        if maker is not None and maker.op == "sigmoid" and maker.inputs == (x,):
            return node.with_(op="silu", inputs=(x,))
    return None
