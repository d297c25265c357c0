"""A tensor-train layer as a walk through its cores, each a 1x1 convolution on a view of what is there so far.

With B the rows and all indices that the cores in front have turned to outputs, core k is the product of a matrix with
the second axis of

    first core to last:  (B m_1 ... m_{k-1}, r_{k-1} n_k, n_{k+1} ... n_d), by (m_k r_k, r_{k-1} n_k)
    last core to first:  (B n_1 ... n_{k-1}, n_k r_k, m_{k+1} ... m_d), by (r_{k-1} m_k, n_k r_k)

so no axis is moved: reshapes and convolutions of one row of pixels, in whichever direction takes fewer multiply-adds.

References: Novikov et al. 2015, arXiv:1509.06569, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastcnn.engine.graph.graph import Array, Node
from fastcnn.engine.graph.schema import MAX_WINDOW, Shape
from fastcnn.engine.graph.structured import cores_of
from fastcnn.engine.plan.passes.rewrite import fresh_key

WEIGHT_READ = 6
"""Multiply-adds in the time that one dense weight takes to come from memory."""
SMALL_PRODUCTS = 4
"""Times that a multiply-add takes in products as small as those of cores, over one in a large product."""
PER_CORE = 500_000
"""Multiply-adds in the time that a core takes beside its own: changes of layout, and what threads wait for.

All three measured on two threads of an AVX-512 machine: 1024x1024 to 25088x4096, ranks 4 and 8, 1 and 16 rows.
"""


def pays(arrays: Mapping[str, Array], inputs: Shape, outputs: int) -> bool:
    """Whether the walk is likely to take less time than the dense matrix."""
    if len(inputs) < 2:
        return False  # no axis for the rows
    rows, features = math.prod(inputs[:-1]), inputs[-1]
    cores = _shapes(arrays)
    if math.prod(core[2] for core in cores) - features > MAX_WINDOW:
        return False  # more padding than an op can have
    dense = features * outputs * (rows + WEIGHT_READ)
    walk = rows * SMALL_PRODUCTS * min(_macs(cores, True), _macs(cores, False)) + PER_CORE * len(cores)
    return walk < dense


def _shapes(arrays: Mapping[str, Array]) -> list[Shape]:
    return [arrays[role].shape for role in cores_of(arrays)]


def _macs(cores: Sequence[Shape], rightward: bool) -> int:
    """Multiply-adds for one row."""
    total = 0
    for k, core in enumerate(cores):
        done, ahead = (cores[:k], cores[k + 1 :]) if rightward else (cores[k + 1 :], cores[:k])
        total += math.prod(core) * math.prod(c[1] for c in done) * math.prod(c[2] for c in ahead)
    return total


def walk(node: Node, arrays: Mapping[str, Array], inputs: Shape, weights: dict[str, Array]) -> list[Node]:
    """Nodes that stand for a ``tt_linear`` node; the last one has its name. New weights are added to ``weights``."""
    cores = [arrays[role] for role in cores_of(arrays)]
    shapes = [core.shape for core in cores]
    rightward = _macs(shapes, True) < _macs(shapes, False)
    order = range(len(cores)) if rightward else range(len(cores) - 1, -1, -1)
    nodes: list[Node] = []
    value = node.inputs[0]

    def add(what: str, op: str, *more: str, params: Mapping[str, str] | None = None, **attrs: Any) -> None:
        nonlocal value
        name = f"{node.name}.{what}"
        nodes.append(
            Node(name=name, op=op, inputs=(value, *more), params=params or {}, attrs=attrs, source=node.source)
        )
        value = name

    missing = math.prod(shape[2] for shape in shapes) - inputs[-1]
    if missing:
        add("padded", "pad", pads=[[0, 0]] * (len(inputs) - 1) + [[0, missing]], value=0.0)
    for k in order:
        before, m, n, after = shapes[k]
        columns = math.prod(shape[2] if rightward else shape[1] for shape in shapes[k + 1 :])
        matrix = cores[k].transpose(1, 3, 0, 2) if rightward else cores[k]
        matrix = matrix.reshape((m * after, before * n) if rightward else (before * m, n * after))
        key = fresh_key(f"{node.name}.core{k} (matrix)", weights)
        weights[key] = np.ascontiguousarray(matrix[:, :, None, None], np.float32)
        add(f"view{k}", "reshape", shape=[-1, matrix.shape[1], 1, columns])
        add(f"core{k}", "conv2d", params={"weight": key}, stride=[1, 1], padding=[0] * 4, dilation=[1, 1], groups=1)
    # The first axis may be another batch than now.
    add("rows", "reshape", shape=[-1, *inputs[1:-1], math.prod(shape[1] for shape in shapes)])
    wanted = int(node.attrs["out_features"])
    if wanted < math.prod(shape[1] for shape in shapes):
        add("outputs", "slice", dim=len(inputs) - 1, start=0, end=wanted, step=1)
    if "bias" in node.params:
        bias = f"{node.name}.bias"
        nodes.append(
            Node(
                name=bias, op="constant", inputs=(), params={"value": node.params["bias"]}, attrs={}, source=node.source
            )
        )
        add("sum", "add", bias)
    nodes[-1] = nodes[-1].with_(name=node.name)
    return nodes
