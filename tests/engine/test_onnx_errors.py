"""What the import refuses, in which words; damaged and hostile files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

import fastcnn
from fastcnn.engine.onnx_import import OnnxError, OnnxNotSupportedError, import_onnx
from tests.engine.test_onnx_ops import CASES, NOT_IN_ONNXRUNTIME, lrn_chain
from tests.models.onnx_build import model, single, write
from tests.models.onnx_mutations import mutate

IMAGE = ("N", 6, 8, 10)
ROW = ("N", 6)
W = np.ones((8, 6, 3, 3), np.float32)
EMPTY = helper.make_graph(
    [helper.make_node("Identity", ["x"], ["inner"])], "branch", [], [helper.make_tensor_value_info("inner", 1, None)]
)


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, [n if n != "_" else "" for n in inputs.split()], output.split(), **attributes)


def scales(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


UNSUPPORTED: dict[str, tuple[ModelProto, str]] = {
    "conv3d": (
        single("Conv", ("N", 2, 4, 4, 4), np.ones((3, 2, 2, 2, 2), np.float32)),
        r"node 'node' \(Conv\): Conv3d and other 3-d operations are not supported: .*got shape \(1, 2, 4, 4, 4\)",
    ),
    "unknown": (
        single("Einsum", ROW, equation="ij->j"),
        r"no operation for 'Einsum' \(domain 'ai.onnx', first at node 'node'\): replace them.*It knows Abs, Add,",
    ),
    "other-domain": (
        single("FusedConv", IMAGE, W, domain="com.microsoft"),
        r"'FusedConv' \(domain 'com.microsoft', first at node 'node'\)",
    ),
    "several": (
        model([node("Sin", "x", "a"), node("Cos", "a", "b"), node("Sin", "b")], {"x": ROW}),
        r"'Sin' \(domain 'ai.onnx', first at node 'a'\); 'Cos' \(domain 'ai.onnx', first at node 'b'\): replace",
    ),
    "quantised": (
        single("QuantizeLinear", ROW, np.float32(0.1), np.uint8(3)),
        r"'QuantizeLinear' .*export the float32 net, not a quantised one",
    ),
    "qlinear": (
        single("QLinearConv", IMAGE, np.float32(1)),
        r"'QLinearConv' .*export the float32 net, not a quantised one",
    ),
    "loop": (single("Loop", ROW), r"'Loop' \(domain 'ai.onnx'"),
    "conv-computed-weight": (
        model([node("Relu", "x", "w"), node("Conv", "x w")], {"x": IMAGE}),
        r"node 'y' \(Conv\): its weight is computed from the net's input",
    ),
    "matmul-of-two": (
        model([node("Relu", "x", "w"), node("MatMul", "x w")], {"x": (6, 6)}),
        r"\(MatMul\): expects \(\.\.\., M, K\) and \(\.\.\., K, N\) of one rank from 3 on",
    ),
    "lrn-even": (single("LRN", IMAGE, size=4), r"\(LRN\): its size is 4: .*give an odd size"),
    "max-pool-indices": (
        model([node("MaxPool", "x", "y i", kernel_shape=[2, 2]), node("Cast", "i", "z", to=1)], {"x": IMAGE}),
        r"node 'z' \(Cast\): it reads 'i', an output that the engine does not make",
    ),
    "avg-pool-dilated": (
        single("AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=19),
        r"its dilations are \[2, 2\]",
    ),
    "pool-pads-too-large": (
        single("MaxPool", IMAGE, kernel_shape=[2, 2], pads=[2, 2, 2, 2]),
        r"padding=\[2, 2, 2, 2\] must be at most half the window's reach",
    ),
    "pad-wrap": (
        single("Pad", IMAGE, np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="wrap", opset=19),
        r"\(Pad\): its mode is 'wrap'; constant, reflect and edge",
    ),
    "pad-channels": (
        single("Pad", IMAGE, np.array([0, 1, 1, 1, 0, 0, 1, 1]), mode="edge"),
        "it mirrors or repeats other axes than those of the image",
    ),
    "pad-reflect-too-far": (
        single("Pad", IMAGE, np.array([0, 0, 8, 0, 0, 0, 0, 0]), mode="reflect"),
        r"must be smaller than the image of shape \(1, 6, 8, 10\) to mirror it",
    ),
    "slice-backwards": (
        single("Slice", ROW, *(np.array([n], np.int64) for n in (5, 0, 1, -1))),
        r"\(Slice\): it runs backwards \(step -1\)",
    ),
    "resize-cubic": (single("Resize", IMAGE, None, scales(1, 1, 2, 2), mode="cubic"), r"its mode is 'cubic'"),
    "resize-antialias": (
        single("Resize", IMAGE, None, scales(1, 1, 0.5, 0.5), mode="linear", antialias=1, opset=18),
        "antialias is not supported",
    ),
    "resize-crop": (
        single(
            "Resize",
            IMAGE,
            scales(0, 0, 0, 0, 1, 1, 1, 1),
            scales(1, 1, 2, 2),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        r"coordinate_transformation_mode='tf_crop_and_resize' is not supported here: allowed are half_pixel",
    ),
    "resize-ceil": (
        single("Resize", IMAGE, None, scales(1, 1, 2, 2), nearest_mode="ceil"),
        r"nearest with coordinate_transformation_mode='half_pixel', nearest_mode='ceil' and scales \[2.0, 2.0\] is not",
    ),
    "resize-asymmetric-rounded": (
        single("Resize", IMAGE, None, scales(1, 1, 3, 2), coordinate_transformation_mode="asymmetric"),
        r"mode='asymmetric', nearest_mode='round_prefer_floor' and scales \[3.0, 2.0\] is not supported",
    ),
    "resize-half-pixel-fraction": (
        single("Resize", IMAGE, None, scales(1, 1, 1.5, 2)),
        r"nearest_mode='round_prefer_floor' and scales \[1.5, 2.0\] is not supported",
    ),
    "resize-channels": (single("Resize", IMAGE, None, scales(1, 2, 1, 1)), "it resizes the batch or the channels"),
    "upsample-linear": (
        single("Upsample", IMAGE, scales(1, 1, 2, 2), mode="linear", opset=9),
        r"\(Upsample\): linear with coordinate_transformation_mode='asymmetric' is not supported",
    ),
    "softmax-old": (single("Softmax", IMAGE, opset=11), r"before opset 13 it runs over axes 1..3 together"),
    "prelu-per-pixel": (
        single("PRelu", IMAGE, np.ones((6, 8, 10), np.float32)),
        r"its slope has shape \(6, 8, 10\) for an input of 4 axes",
    ),
    "training-batch-norm": (
        single("BatchNormalization", ROW, *[np.ones(6, np.float32)] * 4, training_mode=1),
        "it is in training mode: export the net in eval mode",
    ),
    "cast-to-half": (single("Cast", ROW, to=10), "it casts a computed value to another type"),
    "power": (single("Pow", ROW, np.float32(0.7)), "its exponent is 0.69.*; the powers 1 to 4 and 0.5"),
    "erf": (single("Erf", ROW), r"\(Erf\): the error function is supported inside GELU only"),
    "erf-read-elsewhere": (
        model(
            [node("Mul", "x c", "z"), node("Erf", "z", "e"), node("Relu", "e")],
            {"x": ROW},
            constants={"c": np.float32(0.5**0.5)},
        ),
        r"\(Relu\): the error function is supported inside GELU only",
    ),
    "if-computed": (
        model(
            [node("Relu", "x", "m"), helper.make_node("If", ["m"], ["y"], then_branch=EMPTY, else_branch=EMPTY)],
            {"x": IMAGE},
        ),
        r"node 'y' \(If\): its condition is computed from the net's input",
    ),
    "lrn-of-another-value": (lrn_chain(3, numerator="x"), r"\(Div\): a power of 0.6 is supported inside a local resp"),
    "lrn-off-centre": (
        lrn_chain(3, pads=np.array([0, 0, 2, 0, 0, 0, 0, 0, 0, 0])),
        "its exponent is 0.6000000238418579; the powers 1 to 4",
    ),
    "pool3d": (
        single("AveragePool", ("N", 2, 4, 4, 4), kernel_shape=[2, 2, 2]),
        r"\(AveragePool\): Conv3d and other 3-d operations are not supported",
    ),
    "deconv-odd-output-shape": (
        single("ConvTranspose", IMAGE, np.ones((6, 4, 3, 3), np.float32), strides=[2, 2], output_shape=[16, 20]),
        r"leaves an odd padding \[1, 1\] and auto_pad does not say on which side",
    ),
    "half-weights": (
        single("Conv", IMAGE, W.astype(np.float16)),
        r"tensor 'c0' is float16: the engine works in float32",
    ),
    "opset-6": (single("Relu", ROW, opset=6), r"its opset is 6; 7..\d+ are supported: raise it with onnx.version_conv"),
    "nothing": (single("Identity", ROW), "the net does nothing"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str, tmp_path: Path) -> None:
    net, message = UNSUPPORTED[name]
    with pytest.raises(OnnxNotSupportedError, match=message) as caught:
        import_onnx(write(net, tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / 'net.onnx'}: ")


def change(net: ModelProto, how: Callable[[ModelProto], object]) -> ModelProto:
    how(net)
    return net


def conv() -> ModelProto:
    return single("Conv", IMAGE, W.copy())


def tensor(net: ModelProto) -> TensorProto:
    return net.graph.initializer[0]


def with_external(location: str, **entries: str) -> ModelProto:
    net = conv()
    data = tensor(net)
    data.ClearField("raw_data")
    data.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        data.external_data.add(key=key, value=value)
    return net


def set_dims(net: ModelProto, *dims: int) -> None:
    del tensor(net).dims[:]
    tensor(net).dims.extend(dims)


def nan(net: ModelProto) -> None:
    array = W.copy()
    array[0, 0, 0, 0] = np.nan
    tensor(net).CopyFrom(numpy_helper.from_array(array, "c0"))


DAMAGED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "too-few-bytes": (
        lambda: change(conv(), lambda n: setattr(tensor(n), "raw_data", b"1234")),
        r"initializer 'c0': shape \(8, 6, 3, 3\) of float32 takes 1728 bytes, its data has 4",
    ),
    "huge-tensor": (
        lambda: change(conv(), lambda n: set_dims(n, 2**30, 2**30)),
        r"initializer 'c0': shape \(1073741824, 1073741824\) takes \d+ bytes; at most",
    ),
    "negative-dims": (lambda: change(conv(), lambda n: set_dims(n, -1, 6, 3, 3)), r"its shape is \(-1, 6, 3, 3\)"),
    "nan": (lambda: change(conv(), nan), r"node 'node' \(Conv\): tensor 'c0' holds NaN or infinity"),
    "two-initializers": (
        lambda: change(conv(), lambda n: n.graph.initializer.append(tensor(n))),
        "two initializers are called 'c0'",
    ),
    "unmade-value": (
        lambda: change(conv(), lambda n: n.graph.node[0].input.__setitem__(0, "ghost")),
        r"breaks ONNX's rules: .*topologically sorted.*ghost",
    ),
    "made-twice": (
        lambda: change(conv(), lambda n: n.graph.node.append(n.graph.node[0])),
        r"breaks ONNX's rules: .*SSA",
    ),
    "ir-version": (
        lambda: change(conv(), lambda n: setattr(n, "ir_version", 99)),
        r"its IR version is 99; the installed onnx .* knows 3\.\.",
    ),
    "newer-opset": (
        lambda: change(conv(), lambda n: setattr(n.opset_import[0], "version", 999)),
        r"its opset is 999, the installed onnx knows up to \d+: install a newer onnx",
    ),
    "no-opset": (
        lambda: change(conv(), lambda n: n.ClearField("opset_import")),
        "imports ONNX's operation set 0 times",
    ),
    "no-nodes": (lambda: change(conv(), lambda n: n.graph.ClearField("node")), "it holds no graph with nodes"),
    "empty-message": (ModelProto, "its IR version is 0"),
    "attribute-of-another-type": (
        lambda: change(conv(), lambda n: n.graph.node[0].attribute.append(helper.make_attribute("group", 1.5))),
        r"breaks ONNX's rules: Mismatched attribute type in .*group",
    ),
    "unknown-attribute": (
        lambda: change(conv(), lambda n: n.graph.node[0].attribute.append(helper.make_attribute("bogus", 1))),
        r"breaks ONNX's rules: .*bogus",
    ),
    "deprecated": (
        lambda: single("GroupNormalization", IMAGE, *[np.ones(3, np.float32)] * 2, num_groups=3, opset=18),
        "breaks ONNX's rules: .*deprecated",
    ),
    "groups": (lambda: single("Conv", IMAGE, W, group=5), r"\(Conv\): .*groups=5 does not divide 8 output channels"),
    "channels": (
        lambda: single("Conv", ("N", 5, 8, 10), W),
        r"\(Conv\): expects 6 channels on axis 1, got 5 in shape \(1, 5, 8, 10\)",
    ),
    "weight-rank": (lambda: single("Conv", IMAGE, W[0]), r"its weight has shape \(6, 3, 3\); 4 axes like the input's"),
    "pads": (lambda: single("Conv", IMAGE, W, pads=[1, -1, 1, 1]), r"its pads must be 4 numbers in 0\.\."),
    "auto-pad": (lambda: single("Conv", IMAGE, W, auto_pad="SAME"), r"its auto_pad is 'SAME': allowed are NOTSET"),
    "kernel-shape": (
        lambda: single("Conv", IMAGE, W, kernel_shape=[5, 5]),
        r"its kernel_shape is \[5, 5\], its weight's kernel \[3, 3\]",
    ),
    "reshape": (
        lambda: single("Reshape", ("N", 6), np.array([0, 5])),
        r"\(Reshape\): \(1, 6\) \(6 numbers\) cannot take shape \[0, 5\]",
    ),
    "perm": (lambda: single("Transpose", ROW, perm=[0, 0]), r"its perm is \[0, 0\], for an input of 2 axes"),
    "axis": (lambda: single("Gather", ROW, np.array(9), axis=1), "axis 9 does not exist in a value of 6 axes"),
    "broadcast": (
        lambda: single("Add", ROW, np.ones(5, np.float32)),
        r"shapes \(1, 6\) and \(5,\), which do not broadc",
    ),
    "split": (
        lambda: model([node("Split", "x s", "y z", axis=1)], {"x": ROW}, constants={"s": np.array([2, 2])}),
        r"it cuts an axis of 6 into \[2, 2\] for 2 outputs",
    ),
    "bomb-constant": (
        lambda: model(
            [node("ConstantOfShape", "s", "c"), node("Add", "x c")],
            {"x": ROW},
            constants={"s": np.array([2**20, 2**20])},
        ),
        r"\(ConstantOfShape\): it cannot be computed .*would have shape \[1048576, 1048576\]; at most",
    ),
    "bomb-range": (
        lambda: model(
            [node("Range", "zero big one", "r"), node("Cast", "r", "c", to=1), node("Add", "x c")],
            {"x": ROW},
            constants={"zero": np.array(0), "one": np.array(1), "big": np.array(2**62)},
        ),
        r"\(Range\): it cannot be computed .*at most",
    ),
    "bomb-doubling": (
        lambda: model(
            [
                node("ConstantOfShape", "s", "c0"),
                *(node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(9)),
                node("Add", "x c9"),
            ],
            {"x": ROW},
            constants={"s": np.array([2**17])},
        ),
        r"\(Concat\): the constants computed so far are far larger than the file",
    ),
    "integer-division-by-zero": (
        lambda: model(
            [node("Div", "a b", "c"), node("Reshape", "x c")],
            {"x": ROW},
            constants={"a": np.array([4]), "b": np.array([0])},
        ),
        r"\(Div\): it cannot be computed from constants \['int64\[1\]', 'int64\[1\]'\]: division by zero",
    ),
    "input-extent-0": (lambda: single("Relu", (1, 0)), "input 'x': axis 1 is 0"),
    "no-input": (
        lambda: model([node("Add", "c c")], {}, constants={"c": np.ones(3, np.float32)}),
        "the net has no input",
    ),
    "parent-folder": (
        lambda: with_external("../weights.bin"),
        r"data lies at '\.\./weights\.bin': only files in the mod",
    ),
    "hidden-parent": (lambda: with_external("a/../../w.bin"), "only files in the model's own folder"),
    "backslashes": (lambda: with_external("..\\w.bin"), "only files in the model's own folder"),
    "absolute": (
        lambda: with_external("/etc/passwd"),
        "data lies at '/etc/passwd': only files in the model's own folder",
    ),
    "no-location": (lambda: with_external(""), "only files in the model's own folder"),
    "missing-file": (lambda: with_external("w.bin"), r"its external data 'w.bin' is not beside the model"),
    "folder": (lambda: with_external("."), "is not beside the model"),
    "offset": (lambda: with_external("w.bin", offset="-1"), "the offset of its external data is '-1', not a number"),
    "length": (lambda: with_external("w.bin", length="5"), "claims 5 bytes, its shape and type take 1728"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name: str, tmp_path: Path) -> None:
    build, message = DAMAGED[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(build().SerializeToString())
    with pytest.raises(OnnxError, match=re.compile(message, re.DOTALL)) as caught:
        import_onnx(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.INT4])
def test_element_types_outside_the_set(kind: int, tmp_path: Path) -> None:
    net = change(conv(), lambda n: setattr(tensor(n), "data_type", kind))
    word = TensorProto.DataType.Name(kind).lower()
    with pytest.raises(OnnxNotSupportedError, match=f"initializer 'c0': its element type is {word}"):
        import_onnx(write(net, tmp_path))


def test_inputs_of_other_types(tmp_path: Path) -> None:
    net = single("Relu", ROW)
    net.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(OnnxNotSupportedError, match="input 'x' is double: the engine takes float32"):
        import_onnx(write(net, tmp_path))


def test_text_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(conv().SerializeToString().replace(b"node", b"no\xffe"))
    with pytest.raises(OnnxError, match=r"a name in it is no text: b'no\\xffe'"):
        import_onnx(path)


def test_functions_and_sparse_tensors(tmp_path: Path) -> None:
    net = conv()
    net.functions.add(name="f", domain="my")
    with pytest.raises(OnnxNotSupportedError, match=r"functions of its own \('f'\): inline them with onnx.inliner"):
        import_onnx(write(net, tmp_path))
    net = conv()
    net.graph.sparse_initializer.add()
    with pytest.raises(OnnxNotSupportedError, match="sparse initializers"):
        import_onnx(write(net, tmp_path))


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    """At an offset, in a folder below; as a constant in a node; never through a link that leads out."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "w.bin").write_bytes(b"\0" * 64 + W.tobytes())
    graph = import_onnx(write(with_external("parts/w.bin", offset="64", length=str(W.nbytes)), tmp_path))
    assert np.array_equal(graph.weights["c0"], W)
    with pytest.raises(OnnxError, match=r"wants bytes 65\.\.1793 of 'parts/w.bin', which has 1792"):
        import_onnx(write(with_external("parts/w.bin", offset="65"), tmp_path))

    net = model([node("Constant", "", "c"), node("Conv", "x c")], {"x": IMAGE})
    net.graph.node[0].attribute.append(AttributeProto(name="value", type=AttributeProto.TENSOR))
    held = with_external("parts/w.bin", offset="64")
    net.graph.node[0].attribute[0].t.CopyFrom(tensor(held))
    (array,) = import_onnx(write(net, tmp_path)).weights.values()
    assert np.array_equal(array, W)

    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.bin").symlink_to(tmp_path / "parts" / "w.bin")
    with pytest.raises(OnnxError, match=r"'link\.bin' leads out of the model's folder"):
        import_onnx(write(with_external("link.bin"), inner))


def test_files_saved_by_onnx_with_external_data(tmp_path: Path) -> None:
    onnx.save(conv(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    assert np.array_equal(import_onnx(tmp_path / "net.onnx").weights["c0"], W)


def test_typed_data_and_listed_initializers(tmp_path: Path) -> None:
    """Numbers outside raw_data, and initializers that are listed among the inputs, as files of IR 3 have them."""
    net = single("Conv", IMAGE, W.copy(), opset=8)
    net.ir_version = 3
    array = np.arange(W.size, dtype=np.float32).reshape(W.shape)
    net.graph.initializer[0].CopyFrom(helper.make_tensor("c0", TensorProto.FLOAT, W.shape, array.reshape(-1)))
    net.graph.input.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, W.shape))
    graph = import_onnx(write(net, tmp_path))
    assert [value.name for value in graph.inputs] == ["x"]
    assert np.array_equal(graph.weights["c0"], array)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_onnx(tmp_path / "no.onnx")
    path = tmp_path / "text.onnx"
    path.write_text("This is no protobuf at all.")
    with pytest.raises(OnnxError, match="is not an ONNX file, or a damaged one"):
        import_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(OnnxError, match="its IR version is 0"):
        import_onnx(path)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    path = write(model([node("Mul", "x z")], {"x": IMAGE, "z": ("N", 6, 1, 1)}), tmp_path)
    for shapes, message in (
        ([(1, 6, 8, 10)], r"takes 2 inputs \(x, z\), got 1 shapes"),
        ({"q": (1, 6)}, r"has no inputs \['q'\]: it takes \['x', 'z'\]"),
        ({"x": (1, 6, 8)}, r"input 'x' must have 4 axes like \(N, 6, 8, 10\), got shape \(1, 6, 8\)"),
        ({"x": (1, 6, 8, 0)}, r"shape \(1, 6, 8, 0\) needs 1..8 axes, none of them empty"),
        ({"x": (1, 6, 9, 10)}, r"states 8 on axis 2: give \(N, 6, 8, 10\), or export the net with that axis dynamic"),
    ):
        with pytest.raises(OnnxError, match=message):
            import_onnx(path, shapes)  # type: ignore[arg-type]


def test_compile_checks_its_examples(tmp_path: Path) -> None:
    path = write(model([node("Mul", "x z")], {"x": IMAGE, "z": ("N", 6, 1, 1)}), tmp_path)
    x, z = np.ones((2, 6, 8, 10), np.float32), np.full((2, 6, 1, 1), 3, np.float32)
    for given in ((x, z), {"z": z, "x": x}, None):
        net = fastcnn.compile(str(path), given, threads=1, tune=False)
        assert np.array_equal(net(x, z), x * 3)
    with pytest.raises(TypeError, match="example input x must be float32, got float64"):
        fastcnn.compile(path, {"x": x.astype(np.float64), "z": z})
    with pytest.raises(TypeError, match="example input 0 must be a numpy array or a tensor, got list"):
        fastcnn.compile(path, ([1.0], z))
    with pytest.raises(OnnxError, match=r"example inputs for \['z'\] are missing"):
        fastcnn.compile(path, {"x": x})
    with pytest.raises(OnnxError, match=r"net.pt does not end in .onnx: compile takes a torch model or an ONNX file"):
        fastcnn.compile(tmp_path / "net.pt")


NETS = [net.SerializeToString() for net in [*CASES.values(), *NOT_IN_ONNXRUNTIME.values()]]


@pytest.mark.parametrize(
    "first",
    [0, pytest.param(1000, marks=pytest.mark.slow), pytest.param(4000, marks=pytest.mark.slow)],
)
def test_mutated_files_give_a_graph_or_the_documented_error(first: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    count = 600 if first == 0 else 3000
    outcomes = {"graph": 0, "error": 0}
    for seed in range(first, first + count):
        path.write_bytes(mutate(NETS[seed % len(NETS)], seed))
        try:
            import_onnx(path)
            outcomes["graph"] += 1
        except OnnxError:
            outcomes["error"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert min(outcomes.values()) > count // 50  # the mutations are neither harmless nor all fatal
