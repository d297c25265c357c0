"""Every operation of the import, and every spelling of it: graph in float64 and engine against onnxruntime."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.engine.graph import infer_shapes
from fastcnn.engine.onnx_import import import_onnx
from fastcnn.engine.onnx_import.folding import FOLDS
from fastcnn.engine.onnx_import.registry import HANDLERS
from tests.models.onnx_build import model, run_onnxruntime, single, write
from tests.reference.interpreter import run_values

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra onnx")
from onnx import helper  # noqa: E402

REFERENCE_TOLERANCE = 2e-6
"""onnxruntime works in float32, the interpreter in float64: a few units in the last place of the largest value."""
ENGINE_TOLERANCE = 1e-5
"""The engine in float32, with its default kernels, on nets of one or two layers."""

N = np.array
IMAGE = ("N", 6, 8, 10)
LINE = ("N", 6, 12)
ROW = ("N", 6)


def rand(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, [n if n != "_" else "" for n in inputs.split()], outputs.split(), **attributes)


W = rand(8, 6, 3, 3)
B = rand(8, seed=2)
T = rand(6, 4, 3, 3)


def lrn_chain(size: int, shape: tuple[Any, ...] = IMAGE, **changed: Any) -> Any:
    """Local response normalisation in torch's spelling."""
    rank = len(shape)
    lifted = [0, 1, *shape[1:]] if rank == 3 else [0, 1, shape[1], shape[2], -1]
    pads = [0, 0, size // 2, *[0] * (rank - 2), 0, 0, (size - 1) // 2, *[0] * (rank - 2)]
    constants = {
        "lifted": i64(*lifted),
        "pads": i64(*pads),
        "one": i64(1),
        "alpha": N(0.2, np.float32),
        "k": N(2.0, np.float32),
        "beta": N(0.6, np.float32),
    }
    nodes = [
        node("Relu", "x", "v"),
        node("Mul", "v v", "s"),
        node("Reshape", "s lifted", "l"),
        node("Pad", "l pads", "p"),
        node("AveragePool", "p", "m", kernel_shape=[size, *[1] * (rank - 2)], count_include_pad=1),
        node("Squeeze", "m one", "q"),
        node("Mul", "q alpha", "a"),
        node("Add", "a k", "t"),
        node("Pow", "t beta", "w"),
        node("Div", f"{changed.pop('numerator', 'v')} w"),
    ]
    return model(nodes, {"x": shape}, constants=constants | changed)


def branches(condition: bool) -> Any:
    """A branch on the shape of a value, as torch writes a squeeze; the branches read the values around them."""
    parts = {
        "then_branch": node("Add", "x c", "inner"),
        "else_branch": node("Mul", "x c", "inner"),
    }
    info = helper.make_tensor_value_info("inner", 1, None)
    graphs = {key: helper.make_graph([part], key, [], [info]) for key, part in parts.items()}
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "n"),
        node("Equal", "n wanted", "condition"),
        node("If", "condition", "h", **graphs),
        node("Relu", "h"),
    ]
    wanted = N(6 if condition else 5, np.int64)
    constants = {"one": N(1, np.int64), "wanted": wanted, "c": N(0.5, np.float32)}
    return model(nodes, {"x": IMAGE}, constants=constants)


GELU = {
    "root": N(2**0.5, np.float32),
    "rooth": N(0.5**0.5, np.float32),
    "one": N(1.0, np.float32),
    "two": N([2.0], np.float32),
    "half": N(0.5, np.float32),
}

CASES: dict[str, Any] = {
    # -- convolutions
    "conv": single("Conv", IMAGE, W, B),
    "conv-no-bias-stride": single("Conv", IMAGE, W, strides=[2, 3], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
    "conv-asymmetric": single("Conv", IMAGE, W, B, pads=[0, 1, 2, 3]),
    "conv-dilated": single("Conv", IMAGE, W, B, dilations=[2, 3], pads=[2, 3, 2, 3]),
    "conv-groups": single("Conv", IMAGE, rand(9, 2, 3, 3), group=3),
    "conv-depthwise": single("Conv", IMAGE, rand(6, 1, 5, 3), rand(6), group=6, pads=[2, 1, 2, 1]),
    "conv-same-upper": single("Conv", IMAGE, W, B, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv-same-lower": single("Conv", IMAGE, W, B, auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv-same-upper-even-kernel": single("Conv", IMAGE, rand(4, 6, 2, 4), auto_pad="SAME_UPPER", strides=[1, 3]),
    "conv-valid": single("Conv", IMAGE, W, B, auto_pad="VALID"),
    "conv-opset7": single("Conv", IMAGE, W, B, opset=7, pads=[1, 1, 1, 1]),
    "conv-opset22": single("Conv", IMAGE, W, B, opset=22),
    "conv1d": single("Conv", LINE, rand(8, 6, 3), B, pads=[0, 2], strides=[2]),
    "deconv": single("ConvTranspose", IMAGE, T),
    "deconv-stride": single(
        "ConvTranspose", IMAGE, T, rand(4), strides=[2, 3], pads=[1, 0, 1, 0], output_padding=[1, 2]
    ),
    "deconv-groups": single(
        "ConvTranspose", IMAGE, rand(6, 2, 3, 2), rand(4), group=2, strides=[2, 2], dilations=[2, 1]
    ),
    "deconv-more-before": single("ConvTranspose", IMAGE, T, strides=[3, 3], pads=[2, 1, 0, 1]),
    "deconv-more-after": single("ConvTranspose", IMAGE, T, strides=[2, 2], pads=[0, 0, 2, 1]),
    "deconv-mixed": single("ConvTranspose", IMAGE, T, strides=[2, 2], pads=[0, 1, 2, 0], output_padding=[1, 0]),
    "deconv-same-upper": single("ConvTranspose", IMAGE, T, strides=[2, 2], auto_pad="SAME_UPPER"),
    "deconv-same-lower": single("ConvTranspose", IMAGE, T, strides=[2, 2], auto_pad="SAME_LOWER"),
    "deconv-output-shape": single("ConvTranspose", IMAGE, T, strides=[2, 2], output_shape=[15, 19]),
    "deconv-output-shape-odd": single(
        "ConvTranspose", IMAGE, T, strides=[2, 2], output_shape=[16, 20], auto_pad="SAME_UPPER"
    ),
    "deconv1d": single("ConvTranspose", LINE, rand(6, 4, 3), rand(4), strides=[2], pads=[1, 0]),
    # -- matrices
    "gemm": single("Gemm", ROW, rand(6, 5), rand(5)),
    "gemm-transposed": single("Gemm", ROW, rand(5, 6), rand(5), transB=1),
    "gemm-alpha-beta": single("Gemm", ROW, rand(5, 6), rand(5), transB=1, alpha=0.5, beta=-2.0),
    "gemm-alpha-plain": single("Gemm", ROW, rand(6, 5), alpha=0.3),
    "gemm-scalar-bias": single("Gemm", ROW, rand(6, 5), N(0.7, np.float32)),
    "gemm-row-bias": single("Gemm", ROW, rand(6, 5), rand(1, 5), beta=0.5),
    "gemm-beta-zero": single("Gemm", ROW, rand(6, 5), rand(5), beta=0.0),
    "gemm-one-output": single("Gemm", ROW, rand(6, 1), rand(1, 1)),
    "gemm-column-bias": single("Gemm", (3, 6), rand(6, 5), rand(3, 1), beta=2.0),
    "gemm-matrix-bias": single("Gemm", (3, 6), rand(6, 5), rand(3, 5), beta=0.5),
    "gemm-trans-a": single("Gemm", (6, 4), rand(6, 5), transA=1),
    "gemm-computed-c": model(
        [node("Gemm", "x w", "h"), node("Gemm", "x w h", beta=0.5)], {"x": ROW}, constants={"w": rand(6, 5)}
    ),
    "matmul": single("MatMul", ROW, rand(6, 5)),
    "matmul-3d": single("MatMul", ("N", 4, 6), rand(6, 5)),
    "matmul-vector": single("MatMul", ("N", 4, 6), rand(6)),
    "matmul-batch-of-one": single("MatMul", ("N", 4, 6), rand(1, 6, 5)),
    "matmul-computed": model([node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t")], {"x": ("N", 4, 6)}),
    "matmul-bias": model(
        [node("MatMul", "x w", "h"), node("Add", "h b")], {"x": ROW}, constants={"w": rand(6, 5), "b": rand(5)}
    ),
    "one-weight-two-ways": model(
        [node("Gemm", "x w", "h", transB=1), node("MatMul", "h w")], {"x": ROW}, constants={"w": rand(5, 6)}
    ),
    # -- normalisation
    "batch-norm": single("BatchNormalization", IMAGE, rand(6), rand(6, seed=2), rand(6, seed=3), abs(rand(6)) + 0.5),
    "batch-norm-eps": single(
        "BatchNormalization", ROW, rand(6), rand(6), rand(6), abs(rand(6)) + 0.1, epsilon=0.25, opset=13
    ),
    "batch-norm-opset9": single("BatchNormalization", LINE, rand(6), rand(6), rand(6), abs(rand(6)) + 0.5, opset=9),
    "lrn": single("LRN", IMAGE, size=3),
    "lrn-numbers": single("LRN", IMAGE, size=5, alpha=0.2, beta=0.5, bias=2.0),
    "instance-norm": single("InstanceNormalization", IMAGE, rand(6), rand(6, seed=2), epsilon=0.01),
    "group-norm": single("GroupNormalization", IMAGE, rand(6), rand(6, seed=2), num_groups=3, opset=21),
    "layer-norm": single("LayerNormalization", ("N", 5, 8), rand(8), rand(8, seed=2)),
    "layer-norm-axes": single("LayerNormalization", IMAGE, rand(6, 8, 10), axis=1, epsilon=0.1),
    "layer-norm-spread": single("LayerNormalization", IMAGE, rand(1), rand(10), axis=-2),
    "lrn-chain": lrn_chain(3),
    "lrn-chain-even": lrn_chain(4),
    "lrn-chain-of-a-line": lrn_chain(3, LINE),
    "mean-in-depth": single("AveragePool", ("N", 2, 5, 3, 4), kernel_shape=[3, 1, 1]),
    # -- pools
    "max-pool": single("MaxPool", IMAGE, kernel_shape=[3, 2]),
    "max-pool-stride": single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max-pool-asymmetric": single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "max-pool-ceil": single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max-pool-ceil-pads": single("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1),
    "max-pool-dilated": single("MaxPool", IMAGE, kernel_shape=[3, 2], dilations=[2, 3]),
    "max-pool-same-upper": single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "max-pool-same-lower": single("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "max-pool-opset8": single("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], opset=8),
    "max-pool1d": single("MaxPool", LINE, kernel_shape=[3], strides=[2], pads=[1, 0]),
    "avg-pool": single("AveragePool", IMAGE, kernel_shape=[2, 3], strides=[2, 2]),
    "avg-pool-pads": single("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "avg-pool-count-pads": single("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "avg-pool-asymmetric": single("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    "avg-pool-ceil": single("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=19),
    "avg-pool-ceil-pads": single(
        "AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, opset=19
    ),
    "avg-pool-ceil-count": single(
        "AveragePool",
        IMAGE,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        ceil_mode=1,
        count_include_pad=1,
        opset=19,
    ),
    "avg-pool-same-upper": single("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "avg-pool-same-lower": single("AveragePool", IMAGE, kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    "avg-pool-valid": single("AveragePool", IMAGE, kernel_shape=[2, 2], auto_pad="VALID"),
    "avg-pool1d": single("AveragePool", LINE, kernel_shape=[4], strides=[3], pads=[1, 1]),
    "global-average": single("GlobalAveragePool", IMAGE),
    "global-average-1d": single("GlobalAveragePool", LINE),
    "global-max": single("GlobalMaxPool", IMAGE),
    "global-max-1d": single("GlobalMaxPool", LINE),
    "reduce-mean": single("ReduceMean", IMAGE, axes=[2, 3], keepdims=0),
    "reduce-mean-input": single("ReduceMean", IMAGE, i64(-1, -2), opset=18),
    "reduce-mean-channels": single("ReduceMean", IMAGE, i64(1), opset=18, keepdims=1),
    "reduce-mean-nothing": model(
        [node("Relu", "x", "h"), node("ReduceMean", "h", noop_with_empty_axes=1)], {"x": IMAGE}, opset=18
    ),
    "reduce-sum-channels": single("ReduceSum", IMAGE, i64(1), keepdims=0),
    "reduce-sum": single("ReduceSum", IMAGE, i64(2, 3)),
    "reduce-sum-all-but-batch": single("ReduceSum", IMAGE, i64(1, 2, 3), keepdims=0),
    "reduce-max-channels": single("ReduceMax", IMAGE, axes=[1]),
    "reduce-max": single("ReduceMax", IMAGE, axes=[2, 3], keepdims=0),
    # -- activations
    "relu": single("Relu", IMAGE),
    "clip-inputs": single("Clip", IMAGE, N(-0.5, np.float32), N(0.75, np.float32)),
    "clip-low": single("Clip", IMAGE, N(0.25, np.float32)),
    "clip-high": single("Clip", IMAGE, None, N(0.25, np.float32)),
    "clip-attributes": single("Clip", IMAGE, opset=10, min=0.0, max=6.0),
    "clip-nothing": model([node("Relu", "x", "h"), node("Clip", "h")], {"x": IMAGE}),
    "leaky-relu": single("LeakyRelu", IMAGE),
    "leaky-relu-alpha": single("LeakyRelu", IMAGE, alpha=0.3),
    "elu": single("Elu", IMAGE, alpha=1.5),
    "selu": single("Selu", IMAGE),
    "celu": single("Celu", IMAGE, alpha=0.5),
    "prelu-channels": single("PRelu", IMAGE, rand(6, 1, 1)),
    "prelu-one": single("PRelu", IMAGE, rand(1)),
    "prelu-full-rank": single("PRelu", IMAGE, rand(1, 6, 1, 1)),
    "prelu-row": single("PRelu", ROW, rand(6)),
    "sigmoid": single("Sigmoid", IMAGE),
    "tanh": single("Tanh", IMAGE),
    "hard-sigmoid": single("HardSigmoid", IMAGE),
    "hard-sigmoid-torch": single("HardSigmoid", IMAGE, alpha=1 / 6, beta=0.5),
    "hard-sigmoid-numbers": single("HardSigmoid", IMAGE, alpha=0.4, beta=0.3),
    "hard-swish": single("HardSwish", IMAGE),
    "gelu": single("Gelu", IMAGE, opset=20),
    "gelu-tanh": single("Gelu", IMAGE, opset=20, approximate="tanh"),
    "gelu-product-first": model(
        [
            node("Div", "x root", "z"),
            node("Erf", "z", "e"),
            node("Add", "e one", "s"),
            node("Mul", "x s", "p"),
            node("Mul", "p half"),
        ],
        {"x": IMAGE},
        constants=GELU,
    ),
    "gelu-half-first": model(
        [
            node("Mul", "x half", "h"),
            node("Mul", "x rooth", "z"),
            node("Erf", "z", "e"),
            node("Add", "one e", "s"),
            node("Mul", "h s"),
        ],
        {"x": IMAGE},
        constants=GELU,
    ),
    "gelu-divided": model(
        [
            node("Div", "x root", "z"),
            node("Erf", "z", "e"),
            node("Add", "e one", "s"),
            node("Mul", "s x", "p"),
            node("Div", "p two", "g"),
            node("Add", "g p"),
        ],
        {"x": IMAGE},
        constants=GELU,
    ),
    "mish": single("Mish", IMAGE, opset=18),
    "softplus": single("Softplus", IMAGE),
    "exp": single("Exp", IMAGE),
    "softmax": single("Softmax", ROW),
    "softmax-axis": single("Softmax", IMAGE, axis=1),
    "softmax-opset11": single("Softmax", ROW, opset=11),
    "softmax-opset11-flat": single("Softmax", ("N", 6, 1, 1), opset=11),
    "log-softmax": single("LogSoftmax", ROW, axis=-1),
    "dropout": model([node("Dropout", "x", "h"), node("Relu", "h")], {"x": ROW}),
    "dropout-opset10": model([node("Dropout", "x", "h", ratio=0.3), node("Relu", "h")], {"x": ROW}, opset=10),
    "identity": model([node("Identity", "x", "h"), node("Relu", "h")], {"x": ROW}),
    "cast": model([node("Cast", "x", "h", to=1), node("Relu", "h")], {"x": ROW}),
    # -- arithmetic
    "add-number": single("Add", IMAGE, N(1.5, np.float32)),
    "add-channels": single("Add", IMAGE, rand(6, 1, 1)),
    "add-row": single("Add", ROW, rand(6)),
    "add-grows-rank": single("Add", ROW, rand(4, 1, 6)),
    "add-self": model([node("Add", "x x")], {"x": IMAGE}),
    "sub-number": single("Sub", IMAGE, N([0.5], np.float32)),
    "number-sub": model([node("Sub", "c x")], {"x": IMAGE}, constants={"c": N(2.0, np.float32)}),
    "constant-sub": model([node("Sub", "c x")], {"x": IMAGE}, constants={"c": rand(6, 1, 1)}),
    "mul-number": single("Mul", IMAGE, N([[2.5]], np.float32)),
    "mul-channels": single("Mul", IMAGE, rand(1, 6, 1, 1)),
    "mul-image": single("Mul", IMAGE, rand(8, 10)),
    "div-number": single("Div", IMAGE, N(3.0, np.float32)),
    "div-channels": single("Div", IMAGE, abs(rand(6, 1, 1)) + 0.5),
    "number-div": model([node("Exp", "x", "h"), node("Div", "c h")], {"x": IMAGE}, constants={"c": N(2.0, np.float32)}),
    "neg": single("Neg", IMAGE),
    "reciprocal": model([node("Exp", "x", "h"), node("Reciprocal", "h")], {"x": IMAGE}),
    "pow-2": single("Pow", IMAGE, N(2.0, np.float32)),
    "root": model([node("Abs", "x", "a"), node("Sqrt", "a")], {"x": IMAGE}),
    "power-of-a-half": model(
        [node("Abs", "x", "a"), node("Pow", "a half")], {"x": IMAGE}, constants={"half": N(0.5, np.float32)}
    ),
    "pow-3": single("Pow", IMAGE, N(3, np.int64)),
    "sum": model([node("Relu", "x", "h"), node("Sum", "x h c x")], {"x": IMAGE}, constants={"c": rand(6, 1, 1)}),
    "mean": model([node("Relu", "x", "h"), node("Mean", "x h")], {"x": IMAGE}),
    "max-number": single("Max", IMAGE, N(0.25, np.float32)),
    "min-number": single("Min", IMAGE, N(0.25, np.float32)),
    "squeeze-excite": model(
        [
            node("GlobalAveragePool", "x", "p"),
            node("Conv", "p w", "s"),
            node("HardSigmoid", "s", "g", alpha=1 / 6),
            node("Mul", "x g"),
        ],
        {"x": IMAGE},
        constants={"w": rand(6, 6, 1, 1)},
    ),
    "swish-by-hand": model([node("Sigmoid", "x", "s"), node("Mul", "x s")], {"x": IMAGE}),
    # -- shapes
    "concat": model([node("Relu", "x", "h"), node("Concat", "x h x", axis=1)], {"x": IMAGE}),
    "concat-one": model([node("Relu", "x", "h"), node("Concat", "h", axis=-1)], {"x": IMAGE}),
    "concat-constant": model([node("Concat", "x c", axis=1)], {"x": (1, 6)}, constants={"c": rand(1, 3)}),
    "split": model([node("Split", "x", "a b", axis=1), node("Add", "a b")], {"x": IMAGE}),
    "split-sizes": model(
        [node("Split", "x s", "a b", axis=-3), node("Concat", "b a", axis=1)], {"x": IMAGE}, constants={"s": i64(2, 4)}
    ),
    "split-attribute": model(
        [node("Split", "x", "a b", axis=1, split=[1, 5]), node("Concat", "b a", axis=1)], {"x": IMAGE}, opset=11
    ),
    "split-num-outputs": model(
        [node("Split", "x", "a b", axis=3, num_outputs=2), node("Add", "a b")], {"x": IMAGE}, opset=18
    ),
    "split-uneven": model(
        [node("Split", "x", "a b c d", axis=1, num_outputs=4), node("Concat", "d b a", axis=1)],
        {"x": ("N", 7)},
        opset=18,
    ),
    "slice": single("Slice", IMAGE, i64(1, 2), i64(5, 9), i64(1, 3)),
    "slice-negative": single("Slice", IMAGE, i64(-4), i64(-1), i64(-1)),
    "slice-steps": single("Slice", IMAGE, i64(0, 1), i64(2**63 - 1, 2**63 - 1), i64(2, 3), i64(2, 3)),
    "slice-all-axes": single("Slice", ("N", 6), i64(0, 2), i64(2**31 - 1, 5)),
    "slice-attributes": single("Slice", IMAGE, opset=9, starts=[1], ends=[-1], axes=[2]),
    "pad": single("Pad", IMAGE, i64(0, 0, 1, 2, 0, 0, 3, 0)),
    "pad-value": single("Pad", IMAGE, i64(0, 0, 1, 1, 0, 0, 1, 1), N(0.5, np.float32)),
    "pad-cut": single("Pad", IMAGE, i64(0, 0, -1, 1, 0, 0, 2, -3)),
    "pad-axes": single("Pad", IMAGE, i64(1, 2, 3, 4), None, i64(3, -2), opset=18),
    "pad-attributes": single("Pad", IMAGE, opset=10, pads=[0, 0, 1, 0, 0, 0, 0, 2], value=-1.0),
    "pad-reflect": single("Pad", IMAGE, i64(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "pad-edge": single("Pad", IMAGE, i64(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "pad-reflect-line": single("Pad", LINE, i64(0, 0, 2, 0, 0, 1), mode="reflect"),
    "pad-conv": model(
        [node("Pad", "x p", "h"), node("Conv", "h w")],
        {"x": IMAGE},
        constants={"p": i64(0, 0, 1, 1, 0, 0, 1, 1), "w": W},
    ),
    "reshape": single("Reshape", ("N", 6, 8), i64(0, 2, 3, -1)),
    "reshape-flat": single("Reshape", IMAGE, i64(-1, 480)),
    "reshape-split": single("Reshape", IMAGE, i64(0, 2, 3, 8, 10)),
    "reshape-old": single("Reshape", ("N", 6, 8), i64(0, -1), opset=7),
    "flatten": single("Flatten", IMAGE),
    "flatten-2": single("Flatten", IMAGE, axis=2),
    "flatten-last": single("Flatten", IMAGE, axis=-1),
    "flatten-0": single("Flatten", (1, 3, 4), axis=0),
    "flatten-matrix": model([node("Relu", "x", "h"), node("Flatten", "h")], {"x": ROW}),
    "transpose": single("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "transpose-default": model([node("Relu", "x", "h"), node("Transpose", "h")], {"x": (3, 6)}),
    "squeeze": single("Squeeze", ("N", 6, 1, 1), i64(2, -1)),
    "squeeze-all": single("Squeeze", (2, 1, 6, 1)),
    "squeeze-attribute": single("Squeeze", ("N", 6, 1), axes=[2], opset=11),
    "unsqueeze": single("Unsqueeze", ROW, i64(1, -1)),
    "unsqueeze-attribute": single("Unsqueeze", ROW, axes=[3, 2], opset=11),
    "gather-index": single("Gather", IMAGE, N(-2, np.int64), axis=1),
    "gather-range": single("Gather", IMAGE, i64(1, 3, 5), axis=1),
    "gather-order": single("Gather", IMAGE, i64(4, 0, -1), axis=1),
    "tile": single("Tile", ("N", 3, 2), i64(1, 2, 3)),
    "expand": model(
        [node("GlobalAveragePool", "x", "p"), node("Expand", "p s", "e"), node("Add", "e x")],
        {"x": (2, 6, 8, 10)},
        constants={"s": i64(1, 6, 8, 10)},
    ),
    "expand-alone": single("Expand", ("N", 6, 1), i64(1, 1, 4)),
    "depth-to-space": single("DepthToSpace", ("N", 12, 3, 4), blocksize=2),
    "depth-to-space-crd": single("DepthToSpace", ("N", 12, 3, 4), blocksize=2, mode="CRD"),
    "space-to-depth": single("SpaceToDepth", ("N", 3, 6, 4), blocksize=2),
    # -- resize
    "resize-nearest": single(
        "Resize",
        IMAGE,
        None,
        N([1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize-nearest-fraction": single(
        "Resize",
        IMAGE,
        None,
        N([1, 1, 1.5, 0.75], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize-nearest-half-pixel": single("Resize", IMAGE, None, N([1, 1, 3, 2], np.float32)),
    "resize-nearest-prefer-ceil": single(
        "Resize", IMAGE, None, N([1, 1, 2, 4], np.float32), nearest_mode="round_prefer_ceil"
    ),
    "resize-nearest-asymmetric-round": single(
        "Resize", IMAGE, None, N([1, 1, 2, 1], np.float32), coordinate_transformation_mode="asymmetric"
    ),
    "resize-nearest-sizes": single("Resize", (2, 6, 8, 10), None, None, i64(2, 6, 16, 30)),
    "resize-nearest-odd-size": single(
        "Resize",
        (2, 6, 8, 10),
        None,
        None,
        i64(2, 6, 13, 7),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize-linear": single("Resize", IMAGE, None, N([1, 1, 2, 2], np.float32), mode="linear"),
    "resize-linear-fraction": single("Resize", IMAGE, None, N([1, 1, 1.3, 0.7], np.float32), mode="linear"),
    "resize-linear-sizes": single("Resize", (2, 6, 8, 10), None, None, i64(2, 6, 11, 5), mode="linear"),
    "resize-linear-pytorch": single(
        "Resize",
        (2, 6, 8, 10),
        None,
        None,
        i64(2, 6, 13, 25),
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    "resize-align-corners": single(
        "Resize",
        (2, 6, 8, 10),
        None,
        None,
        i64(2, 6, 15, 4),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "resize-axes": single("Resize", IMAGE, None, N([2, 3], np.float32), opset=18, axes=[2, 3]),
    "resize-opset10": single("Resize", IMAGE, N([1, 1, 2, 3], np.float32), opset=10, mode="nearest"),
    "resize-line": single(
        "Resize",
        LINE,
        None,
        N([1, 1, 2], np.float32),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "upsample": single("Upsample", IMAGE, N([1, 1, 2, 2], np.float32), opset=9, mode="nearest"),
    "upsample-attribute": single("Upsample", IMAGE, opset=7, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
    # -- branches on constants
    "if-then": branches(True),
    "if-else": branches(False),
    # -- constants the file computes
    "constant": model([node("Constant", "", "c", value_floats=[0.5]), node("Mul", "x c")], {"x": IMAGE}),
    "constant-tensor": model(
        [
            helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(rand(6, 1, 1))),
            node("Add", "x c"),
        ],
        {"x": IMAGE},
    ),
    "constant-of-shape": model(
        [
            helper.make_node("ConstantOfShape", ["s"], ["c"], value=onnx.numpy_helper.from_array(N([1.5], np.float32))),
            node("Add", "x c"),
        ],
        {"x": IMAGE},
        constants={"s": i64(6, 1, 1)},
    ),
    "shape-reshape": model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n axes", "n1"),
            node("Concat", "n1 minus", "t", axis=0),
            node("Reshape", "x t"),
        ],
        {"x": IMAGE},
        constants={"zero": N(0, np.int64), "axes": i64(0), "minus": i64(-1)},
    ),
    "shape-arithmetic": model(
        [
            node("Shape", "x", "s"),
            node("Slice", "s two four", "hw"),
            node("Mul", "hw twice", "big"),
            node("Shape", "x", "nc", end=2),
            node("Concat", "nc big", "t", axis=0),
            node("Resize", "x _ _ t", mode="nearest"),
        ],
        {"x": (2, 6, 8, 10)},
        constants={"two": i64(2), "four": i64(4), "twice": i64(2, 2)},
    ),
    "weight-arithmetic": model(
        [
            node("Transpose", "w", "wt", perm=[1, 0]),
            node("Mul", "wt half", "ws"),
            node("Reshape", "ws t", "w4"),
            node("Conv", "x w4"),
        ],
        {"x": IMAGE},
        constants={"w": rand(6, 8), "half": N(0.5, np.float32), "t": i64(8, 6, 1, 1)},
    ),
    "two-outputs": model([node("Relu", "x", "y"), node("Sigmoid", "x", "z")], {"x": IMAGE}, outputs=("y", "z")),
    "one-output-twice": model([node("Relu", "x", "y"), node("Identity", "y", "z")], {"x": IMAGE}, outputs=("y", "z")),
    "input-as-output": model([node("Relu", "x", "y"), node("Identity", "x", "z")], {"x": IMAGE}, outputs=("y", "z")),
    "constant-output": model(
        [node("Relu", "x", "y"), node("Add", "c c", "z")], {"x": IMAGE}, constants={"c": rand(3, 4)}, outputs=("y", "z")
    ),
    "two-inputs": model([node("Mul", "x z")], {"x": IMAGE, "z": ("N", 6, 1, 1)}),
    "unused-work": model(
        [node("Relu", "x"), node("Sqrt", "c", "u"), node("Tanh", "x", "v")], {"x": ROW}, constants={"c": abs(rand(3))}
    ),
}

NOT_IN_ONNXRUNTIME: dict[str, Any] = {
    "swish": single("Swish", IMAGE, opset=24),
    "swish-alpha": single("Swish", IMAGE, opset=24, alpha=1.7),
    "conv-same-dilated": single("Conv", IMAGE, W, auto_pad="SAME_UPPER", dilations=[2, 2]),
    "conv1d-same-lower": single("Conv", LINE, rand(8, 3, 4), group=2, auto_pad="SAME_LOWER", dilations=[2]),
}
"""Newer than the installed onnxruntime, or refused by it; judged by onnx's own reference evaluator instead."""


def feeds_of(net: Any, name: str) -> dict[str, np.ndarray]:
    """Random inputs, a batch of 2 where it is open."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    initial = {tensor.name for tensor in net.graph.initializer}
    return {
        value.name: rng.standard_normal([d.dim_value or 2 for d in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in net.graph.input
        if value.name not in initial
    }


@functools.cache
def expected(name: str) -> tuple[Any, dict[str, np.ndarray], list[np.ndarray]]:
    """The net, its inputs, and what another engine makes of them."""
    if name in NOT_IN_ONNXRUNTIME:
        from onnx.reference import ReferenceEvaluator

        net = NOT_IN_ONNXRUNTIME[name]
        feeds = feeds_of(net, name)
        return net, feeds, ReferenceEvaluator(net).run(None, feeds)
    net = CASES[name]
    feeds = feeds_of(net, name)
    return net, feeds, run_onnxruntime(net, feeds)


@pytest.mark.parametrize("name", [*CASES, *NOT_IN_ONNXRUNTIME])
def test_graph(name: str, tmp_path: Path) -> None:
    """The imported graph, run by the float64 interpreter; every inferred shape is the computed one."""
    net, feeds, outputs = expected(name)
    graph = import_onnx(write(net, tmp_path))
    values = run_values(graph, feeds)
    assert infer_shapes(graph, {k: v.shape for k, v in feeds.items()}) == {k: v.shape for k, v in values.items()}
    assert len(graph.outputs) == len(outputs)
    for output, theirs in zip(graph.outputs, outputs, strict=True):
        assert values[output].shape == theirs.shape
        assert np.abs(values[output] - theirs).max() <= REFERENCE_TOLERANCE * max(float(np.abs(theirs).max()), 1e-30)


@pytest.mark.parametrize("name", [*CASES, *NOT_IN_ONNXRUNTIME])
def test_engine(name: str, tmp_path: Path) -> None:
    """The compiled net."""
    net, feeds, outputs = expected(name)
    got = fastcnn.compile(write(net, tmp_path), threads=1, tune=False)(*feeds.values())
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(outputs)
    for ours, theirs in zip(got, outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= ENGINE_TOLERANCE * max(float(np.abs(theirs).max()), 1e-30)


def test_every_operation_has_a_case() -> None:
    used = {n.op_type for net in [*CASES.values(), *NOT_IN_ONNXRUNTIME.values()] for n in net.graph.node}
    assert set(HANDLERS) - used == set()
    assert {"Constant", "ConstantOfShape", "Shape", "Gather", "Mul"} <= set(FOLDS) | {"Shape"}
