"""The op table and its checks: what is let in, what is refused, and with which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn.engine.graph import OPS, Graph, GraphError, GraphInput, check_graph, infer_shapes, make_node
from fastcnn.engine.graph.graph import Node

CONV = {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
MAX_POOL = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1], "ceil_mode": False}
AVG_POOL = {
    "kernel_size": [3],
    "stride": [1],
    "padding": [1, 1],
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": None,
}
UNPOOL = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "ceil_mode": False}
RESIZE = {"size": None, "scale": [2.0, 2.0], "mode": "nearest", "align_corners": False}


def f32(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_table_is_the_one_in_the_docs() -> None:
    """Every op of docs/contracts.md is in OPS and the other way round; so are its attributes."""
    text = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
    rows = [line.split("|")[1:5] for line in text.splitlines() if line.startswith("| `")]
    documented: dict[str, str] = {}
    for names, _, _, attrs in (row for row in rows if len(row) == 4):
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = attrs
    public = {name for name, schema in OPS.items() if not schema.internal}
    assert public <= set(documented)
    for name in public - {"conv2d", "codebook_conv2d", "max_pool1d", "avg_pool1d"}:
        for attr in OPS[name].attrs:
            assert re.search(rf"\b{attr}\b", documented[name]), (name, attr)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("convolve", ["x"], {}, "op 'convolve' is not known; known are conv2d"),
        ("relu", [], {}, "takes 1 inputs, got 0"),
        ("add", ["x"], {}, "takes 2 inputs, got 1"),
        ("concat", [], {"dim": 1}, r"takes 1\.\.4096 inputs, got 0"),
        ("relu", ["x"], {"inplace": True}, "attribute 'inplace' is not known"),
        ("relu", ["x"], {"epilogue": {}}, "attribute 'epilogue' is not known"),
        ("clamp", ["x"], {"min": 0.0}, "attribute 'max' is missing: give a finite number or null"),
        ("clamp", ["x"], {"min": 0.0, "max": float("nan")}, "max must be a finite number or null, got nan"),
        ("clamp", ["x"], {"min": True, "max": None}, "min must be a finite number or null, got True"),
        ("mul_scalar", ["x"], {"value": 1 << 60}, "value must be a finite number"),
        ("softmax", ["x"], {"dim": -1}, r"dim must be an integer in 0\.\.7, got -1"),
        ("gelu", ["x"], {"approximate": "erf"}, "approximate must be one of 'none', 'tanh', got 'erf'"),
        ("permute", ["x"], {"dims": [0, 2]}, "dims must be a list.*permutation"),
        ("mean", ["x"], {"dims": [1, 1], "keepdim": False}, "dims must be a list.*distinct"),
        ("mean", ["x"], {"dims": [], "keepdim": False}, "dims must be a list"),
        ("mean", ["x"], {"dims": [1], "keepdim": 0}, "keepdim must be true or false, got 0"),
        ("pad", ["x"], {"pads": [[0, -1]], "value": 0.0}, "pads must be a list of .before, after."),
        ("reshape", ["x"], {"shape": [-1, -1]}, "at most one -1"),
        ("reshape", ["x"], {"shape": [2] * 9}, "up to 8 integers"),
        ("slice", ["x"], {"dim": 0, "start": 0, "end": None, "step": 0}, "step must be an integer in 1"),
        ("max_pool2d", ["x"], MAX_POOL | {"kernel_size": [2]}, "kernel_size must be a list of 2 integers"),
        ("max_pool2d", ["x"], MAX_POOL | {"padding": [0, 2, 0, 0]}, "at most half the window's reach"),
        ("avg_pool1d", ["x"], AVG_POOL | {"divisor_override": 0}, "divisor_override must be an integer in 1"),
        ("group_norm", ["x"], {"groups": 0, "eps": 1e-5}, "groups must be an integer in 1"),
        ("group_norm", ["x"], {"groups": 1, "eps": -1.0}, "eps must be a finite number in 0"),
        ("layer_norm", ["x"], {"axes": 8, "eps": 1e-5}, r"axes must be an integer in 1\.\.7"),
        ("sum", ["x"], {"dims": [8], "keepdim": False}, "dims must be a list"),
        ("matmul", ["x"], {}, "takes 2 inputs, got 1"),
        ("max_unpool2d", ["x", "z"], UNPOOL | {"stride": [2, 1]}, "overlapping windows have no inverse"),
        ("max_unpool2d", ["x", "z"], UNPOOL | {"padding": [0, 2, 0, 0]}, "at most half the window's reach"),
        ("max_unpool2d", ["x"], UNPOOL, "takes 2 inputs, got 1"),
        ("edge_pad2d", ["x"], {"padding": [1, 1, 1, -1], "mode": "reflect"}, "padding must be a list of 4 integers"),
        ("edge_pad2d", ["x"], {"padding": [1] * 4, "mode": "wrap"}, "mode must be one of 'reflect', 'replicate'"),
        ("index_select", ["x"], {"dim": 1, "indices": []}, r"indices must be a list of 1\.\.65536 integers"),
        ("index_select", ["x"], {"dim": 1, "indices": [0, -1]}, "indices must be a list"),
        ("index_select", ["x"], {"dim": 1, "indices": [True]}, "indices must be a list"),
        ("index_select", ["x"], {"dim": 1, "indices": [0] * 65537}, "indices must be a list"),
        ("resize", ["x"], RESIZE | {"size": [2, 2]}, "give size or scale, not both"),
        ("resize", ["x"], RESIZE | {"scale": None}, "give size or scale"),
        ("resize", ["x"], RESIZE | {"scale": [0.0, 1.0]}, "scale must be a list of 2 numbers"),
    ],
)
def test_bad_nodes(op: str, inputs: list[str], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=re.compile(message)):
        make_node("n", op, inputs, attrs=attrs, weights={})


def codes(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.array(values, dtype).reshape(1, -1)


@pytest.mark.parametrize(
    ("op", "weights", "attrs", "message"),
    [
        ("conv2d", {}, CONV, "parameter 'weight' is missing"),
        ("conv2d", {"weight": f32(4, 3, 3)}, CONV, r"weight must have rank 4, got shape \(4, 3, 3\)"),
        ("conv2d", {"weight": f32(4, 3, 3, 3).astype(np.float64)}, CONV, "weight must be float32, got float64"),
        ("conv2d", {"weight": f32(4, 3, 3, 3).astype(">f4")}, CONV, "weight must be float32"),
        ("conv2d", {"weight": f32(4, 0, 3, 3)}, CONV, "every extent must be 1"),
        ("conv2d", {"weight": f32(4, 3, 3, 3), "bias": f32(3)}, CONV, "bias must have 4 entries.*got 3"),
        ("conv2d", {"weight": f32(4, 3, 3, 3)}, CONV | {"groups": 3}, "groups=3 does not divide 4 output channels"),
        ("conv2d", {"weight": f32(4, 3, 3, 3), "scale": f32(4)}, CONV, "parameter 'scale' is not known"),
        ("conv2d", {"weight": f32(4, 3, 3, 3) * np.nan}, CONV, r"weight \('w.weight'\) holds NaN or infinity"),
        ("conv2d", {"weight": [1.0]}, CONV, "weight must be a numpy array, got list"),
        (
            "conv_transpose2d",
            {"weight": f32(4, 3, 2, 2)},
            {"stride": [2, 2], "padding": [0, 0], "output_padding": [2, 0], "dilation": [1, 1], "groups": 1},
            "output_padding=2 must be smaller",
        ),
        ("linear", {"weight": f32(4, 3), "bias": f32(3)}, {}, "bias must have 4 entries"),
        (
            "batch_norm",
            {"weight": f32(3), "bias": f32(3), "running_mean": f32(2), "running_var": f32(3)},
            {"eps": 1e-5},
            "one entry per channel each",
        ),
        (
            "batch_norm",
            {"weight": f32(3), "bias": f32(3), "running_mean": f32(3), "running_var": -f32(3)},
            {"eps": 1e-5},
            "running_var . eps must be positive",
        ),
        ("group_norm", {"weight": f32(4), "bias": f32(6)}, {"groups": 2, "eps": 1e-5}, "one entry per channel each"),
        ("group_norm", {"weight": f32(4)}, {"groups": 3, "eps": 1e-5}, "groups=3 does not divide 4 channels of weight"),
        ("layer_norm", {"weight": np.float32(1)}, {"axes": 1, "eps": 1e-5}, "weight must be a numpy array"),
        ("codebook_linear", {"codebook": np.array([0, 1], np.float32), "codes": codes(0, 2)}, {}, "codes reach 2"),
        ("codebook_linear", {"codebook": f32(2), "codes": codes(0, 1)}, {}, r"codebook\[0\] must be exactly 0"),
        (
            "codebook_linear",
            {"codebook": np.array([0, 1], np.float32), "codes": codes(0, 1, dtype=np.int64)},
            {},
            "codes must be uint8 or uint16, got int64",
        ),
    ],
)
def test_bad_parameters(op: str, weights: dict[str, Any], attrs: dict[str, Any], message: str) -> None:
    table = {f"w.{role}": value for role, value in weights.items()}
    params = {role: f"w.{role}" for role in weights}
    with pytest.raises(GraphError, match=message):
        make_node("n", op, ["x"], params=params, attrs=attrs, weights=table)


def relu_graph(**changes: Any) -> Graph:
    fields: dict[str, Any] = {
        "inputs": (GraphInput(name="x", shape=(1, 3, 4, 4)),),
        "nodes": [make_node("y", "relu", ["x"])],
        "outputs": ("y",),
        "weights": {},
    }
    return Graph(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (GraphInput(name="x", shape=()),)}, "shape must have 1"),
        ({"inputs": (GraphInput(name="x", shape=(1, 0)),)}, "extents must be in 1"),
        ({"inputs": (GraphInput(name="x", shape=(1, 2.0)),)}, "extents must be in 1"),  # type: ignore[arg-type]
        ({"inputs": (GraphInput(name="x", shape=(1, 2), dtype="int8"),)}, "dtype must be 'float32', got 'int8'"),
        ({"inputs": (GraphInput(name="x", shape=(1, 2), fixed=(2,)),)}, "fixed must name axes"),
        ({"nodes": [Node(name="", op="relu", inputs=("x",))]}, "node name must be a printable string"),
        ({"nodes": [Node(name="y\n", op="relu", inputs=("x",))]}, "node name must be a printable string"),
        ({"nodes": [Node(name="y" * 600, op="relu", inputs=("x",))]}, "node name must be a printable string"),
        ({"nodes": [Node(name="y", op="relu", inputs=("x",), source="s" * 600)]}, "source must be a string"),
    ],
)
def test_bad_graphs(changes: dict[str, Any], message: str) -> None:
    outputs = ("x",) if "nodes" in changes else ("y",)
    with pytest.raises(GraphError, match=message):
        check_graph(relu_graph(**changes | {"outputs": outputs}))


def test_graph_needs_outputs_and_order() -> None:
    with pytest.raises(GraphError, match="inputs and outputs"):
        check_graph(relu_graph(outputs=()))
    with pytest.raises(GraphError, match="made by no node"):
        relu_graph(outputs=("z",))
    with pytest.raises(GraphError, match="which nothing before it makes"):
        relu_graph(nodes=[make_node("y", "relu", ["z"]), make_node("z", "relu", ["x"])])
    with pytest.raises(GraphError, match="used twice"):
        relu_graph(nodes=[make_node("y", "relu", ["x"]), make_node("y", "relu", ["x"])])


@pytest.mark.parametrize(
    ("epilogue", "message"),
    [
        ({"residual": None}, "must have residual, activation and order"),
        ({"residual": None, "activation": None, "order": "sideways"}, "order must be"),
        ({"residual": "z", "activation": None, "order": "add_then_act"}, "takes 1 inputs|must be the last input"),
        ({"residual": None, "activation": {"op": "softmax"}, "order": "add_then_act"}, "activation must be one of"),
        ({"residual": None, "activation": {"op": "elu"}, "order": "add_then_act"}, "attribute 'alpha' is missing"),
        ({"residual": None, "activation": ["relu"], "order": "add_then_act"}, "activation must be one of"),
    ],
)
def test_bad_epilogues(epilogue: Any, message: str) -> None:
    weights = {"w": f32(2, 3)}
    with pytest.raises(GraphError, match=message):
        make_node("n", "linear", ["x"], params={"weight": "w"}, attrs={"epilogue": epilogue}, weights=weights)


def test_residual_must_have_the_outputs_shape() -> None:
    epilogue = {"residual": "x", "activation": None, "order": "add_then_act"}
    node = make_node("n", "linear", ["x", "x"], params={"weight": "w"}, attrs={"epilogue": epilogue})
    for outputs, fits in ((3, True), (2, False)):
        graph = relu_graph(
            inputs=(GraphInput(name="x", shape=(1, 3)),), nodes=[node], outputs=("n",), weights={"w": f32(outputs, 3)}
        )
        check_graph(graph, internal=True)
        if fits:
            assert infer_shapes(graph, {"x": (4, 3)})["n"] == (4, 3)
        else:
            with pytest.raises(GraphError, match=r"residual 'x' has shape \(4, 3\), the output \(4, 2\)"):
                infer_shapes(graph, {"x": (4, 3)})
