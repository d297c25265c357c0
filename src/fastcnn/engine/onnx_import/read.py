"""From bytes on disk to a checked model: sizes, versions, operations, then ONNX's own checker, in that order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as data_field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, checker

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import MAX_INPUTS, MAX_NAME, MAX_NODES, show
from fastcnn.engine.onnx_import.errors import Damaged, OnnxError, OnnxNotSupportedError, Unsupported
from fastcnn.engine.onnx_import.folding import FOLDS
from fastcnn.engine.onnx_import.registry import HANDLERS
from fastcnn.engine.onnx_import.tensors import TensorReader

MAX_FILE_BYTES = (1 << 31) - 1
"""protobuf's own limit; larger nets keep their weights in external data."""
OLDEST_OPSET = 7
"""Before it, arithmetic had its own broadcasting rule."""
OLDEST_IR = 3

WALKED = ("If", "Shape", "Size")
"""Operations that the walk itself answers (If where its condition is a constant)."""
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger")


@dataclass(kw_only=True)
class Source:
    """A checked model: the skeleton (its large tensors taken out) and the decoded tensors by name."""

    path: Path
    model: ModelProto
    opset: int
    tensors: dict[str, Array]
    reader: TensorReader
    derived: dict[tuple[int, str], Array] = data_field(default_factory=dict)
    """Arrays made from a tensor (a transposed weight), so that every walk shares them: (id, what) to array."""


def read_model(path: Path) -> Source:
    """Read and check a file.

    Raises
    ------
    OSError
        If the file cannot be opened.
    OnnxError
        If it is damaged, hostile or of an unknown version.
    OnnxNotSupportedError
        If it holds an operation outside the set.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise OnnxError(
            f"{path} has {size} bytes; an ONNX file has at most {MAX_FILE_BYTES}: save it with external data"
        )
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise OnnxError(f"{path} is not an ONNX file, or a damaged one: {_first_line(error)}") from None
    reader = TensorReader(path.parent)
    try:
        _texts(model)
        opset = _versions(model)
        _structure(model)
        _operations(model.graph.node)
        tensors = _take_tensors(model, reader)
        _fill_output_shapes(model)
        checker.check_model(model)
    except Damaged as error:
        raise OnnxError(f"{path}: {error}") from None
    except Unsupported as error:
        raise OnnxNotSupportedError(f"{path}: {error}") from None
    except (checker.ValidationError, UnicodeError, RuntimeError) as error:
        raise OnnxError(f"{path} breaks ONNX's rules: {_first_line(error)}") from None
    return Source(path=path, model=model, opset=opset, tensors=tensors, reader=reader)


def supported() -> list[str]:
    """Return the names of all ONNX operations that the import knows."""
    return sorted({*HANDLERS, *FOLDS, *WALKED})


def is_default_domain(domain: str) -> bool:
    """Whether a domain is ONNX's own."""
    return domain in ("", "ai.onnx")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


def _texts(message: Any) -> None:
    """Every text in the file must be one: protobuf hands out bytes that are no UTF-8 as they are."""
    for field in message.DESCRIPTOR.fields:
        is_text = field.type == FieldDescriptor.TYPE_STRING
        if not is_text and field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        repeated = _is_repeated(field)
        if not repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        for item in value if repeated else (value,):
            if not is_text:
                _texts(item)
            elif not isinstance(item, str):
                raise Damaged(f"a {field.name} in it is no text: {show(item)}")


def _is_repeated(field: Any) -> bool:
    known = getattr(field, "is_repeated", None)  # protobuf 6 and newer
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def _versions(model: ModelProto) -> int:
    if not OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise Damaged(
            f"its IR version is {model.ir_version}; the installed onnx {onnx.__version__} knows "
            f"{OLDEST_IR}..{onnx.IR_VERSION}"
        )
    versions = [entry.version for entry in model.opset_import if is_default_domain(entry.domain)]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        raise Damaged(f"it imports ONNX's operation set {len(versions)} times; exactly one is needed")
    if versions[0] > newest:
        raise Unsupported(f"its opset is {versions[0]}, the installed onnx knows up to {newest}: install a newer onnx")
    if versions[0] < OLDEST_OPSET:
        raise Unsupported(
            f"its opset is {versions[0]}; {OLDEST_OPSET}..{newest} are supported: raise it with "
            f"onnx.version_converter.convert_version(model, 13)"
        )
    return int(versions[0])


def _structure(model: ModelProto) -> None:
    graph = model.graph
    if not model.HasField("graph") or not graph.node:
        raise Damaged("it holds no graph with nodes")
    if len(graph.node) > MAX_NODES:
        raise Damaged(f"it has {len(graph.node)} nodes; at most {MAX_NODES} are allowed")
    if len(graph.initializer) > MAX_NODES:
        raise Damaged(f"it has {len(graph.initializer)} initializers; at most {MAX_NODES} are allowed")
    for what, values in (("inputs", graph.input), ("outputs", graph.output)):
        if len(values) > MAX_INPUTS + len(graph.initializer):
            raise Damaged(f"it has {len(values)} {what}; at most {MAX_INPUTS} are allowed")
    if graph.sparse_initializer:
        raise Unsupported("it holds sparse initializers: store them dense")
    if model.functions:
        names = ", ".join(show(f.name) for f in list(model.functions)[:5])
        raise Unsupported(
            f"it holds functions of its own ({names}): inline them with onnx.inliner.inline_local_functions(model)"
        )
    if any(graph.quantization_annotation):
        raise Unsupported("it is a quantised net: export the float32 net instead")


def _operations(nodes: Iterable[NodeProto]) -> None:
    """Refuse every operation outside the set at once, each with the node that comes first."""
    known = {*HANDLERS, *FOLDS, *WALKED}
    unknown: dict[tuple[str, str], str] = {}
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        if not (is_default_domain(node.domain) and node.op_type in known):
            unknown.setdefault((node.domain, node.op_type), node_name(node))
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]
    if not unknown:
        return
    listed = "; ".join(
        f"{show(op)} (domain {show(domain or 'ai.onnx')}, first at node {show(name)})"
        for (domain, op), name in list(unknown.items())[:10]
    )
    quantised = any(op.startswith(_QUANTISED) for _, op in unknown)
    way = "export the float32 net, not a quantised one" if quantised else "replace them, or move them out of the net"
    raise Unsupported(f"the engine has no operation for {listed}: {way}. It knows {', '.join(supported())}")


def node_name(node: NodeProto) -> str:
    """Return a name to call a node by: its own, else its first output's, else its op."""
    return node.name or next((name for name in node.output if name), "") or node.op_type


def _take_tensors(model: ModelProto, reader: TensorReader) -> dict[str, Array]:
    """Decode the initializers and leave small ones of the same type in their place, for the checker."""
    tensors: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        name = tensor.name
        if not name or len(name) > 4 * MAX_NAME:
            raise Damaged(f"an initializer has no usable name ({show(name)})")
        if name in tensors:
            raise Damaged(f"two initializers are called {show(name)}")
        tensors[name] = _decoded(tensor, reader, f"initializer {show(name)}")
        kept = tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type = name, kept
        tensor.dims.append(0)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR and attribute.t.data_location == TensorProto.EXTERNAL:
                where = f"the tensor in node {show(node_name(node))}"
                array = _decoded(attribute.t, reader, where)
                del attribute.t.external_data[:]
                attribute.t.data_location = TensorProto.DEFAULT
                attribute.t.raw_data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensors


def _fill_output_shapes(model: ModelProto) -> None:
    """The checker wants a shape on every output; files without one are common, and the walk finds its own."""
    for output in model.graph.output:
        if output.type.HasField("tensor_type") and not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.SetInParent()


def _decoded(tensor: TensorProto, reader: TensorReader, where: str) -> Array:
    try:
        return reader.read(tensor)
    except Damaged as error:
        raise Damaged(f"{where}: {error}") from None
    except Unsupported as error:
        raise Unsupported(f"{where}: {error}; the engine works in float32") from None
