"""One walk over an ONNX graph at given input sizes: ONNX nodes in, graph nodes out.

Every ONNX value ends as the name of a graph value or as a :class:`~fastcnn.engine.onnx_import.registry.Constant`, which
is folded on the spot; shapes that the file computes from its input are such constants too, at this walk's sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto

from fastcnn.engine.graph.graph import Array, Graph, GraphError, GraphInput, Node, live
from fastcnn.engine.graph.ops import OPS, make_node
from fastcnn.engine.graph.schema import MAX_ELEMENTS, MAX_NAME, MAX_RANK, Shape, show
from fastcnn.engine.onnx_import.errors import Damaged, OnnxError, OnnxNotSupportedError, Unsupported
from fastcnn.engine.onnx_import.folding import FOLDS, fold
from fastcnn.engine.onnx_import.read import Source, node_name
from fastcnn.engine.onnx_import.registry import HANDLERS, Call, Constant, Partial, Value

_FOLD_FLOOR = 64 << 20
_FOLD_FACTOR = 8


class Walk:
    """State of one walk. Handlers use ``emit``, ``shape``, ``value``, ``number`` and ``derive``.

    Parameters
    ----------
    source : Source
    shapes : mapping of str to tuple of int
        Sizes of the graph's inputs.
    """

    def __init__(self, source: Source, shapes: Mapping[str, Shape]) -> None:
        self.source = source
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = dict(shapes)
        self.weights: dict[str, Array] = {}
        self.unexpanded: dict[str, str] = {}
        """Value made by Expand -> the value before it: element-wise ops broadcast by themselves."""
        self.doubled_gelus: dict[str, tuple[str, float]] = {}
        """Value that is a multiple of a GELU -> that GELU and the factor."""
        self._makers: dict[str, Node] = {}
        self._inputs = tuple(GraphInput(name=name, shape=tuple(shape)) for name, shape in shapes.items())
        self._env: dict[str, Value | None] = {name: Constant(a, name) for name, a in source.tensors.items()}
        self._env.update({name: name for name in shapes})
        self._names = _Names(shapes)
        self._weight_names = _Names(())
        self._keys: dict[int, tuple[str, Array]] = {}
        self._base = ""
        self._fold_left = _FOLD_FLOOR + _FOLD_FACTOR * source.reader.bytes_read

    # -- what handlers use ------------------------------------------------------------------------------------

    def shape(self, value: str) -> Shape:
        """Shape of a value at this walk's sizes."""
        return self.shapes[value]

    def rank(self, value: str) -> int:
        """Number of axes of a value."""
        return len(self.shapes[value])

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        params: Mapping[str, Constant | None] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> str:
        """Add one node and return its name; Unsupported if the op's schema or shape rule refuses it."""
        name = self._fresh_name(op)
        keys = {role: self._weight(value, name, role) for role, value in (params or {}).items() if value is not None}
        try:
            node = make_node(name, op, inputs, params=keys, attrs=attrs, source=self._base, weights=self.weights)
            rule_params = {role: self.weights[key].shape for role, key in keys.items()}
            shape = OPS[op].shape(node, [self.shapes[v] for v in inputs], rule_params)
        except GraphError as error:
            raise Unsupported(str(error)) from None
        if len(shape) > MAX_RANK or math.prod(shape) > MAX_ELEMENTS:
            raise Damaged(f"its result would have shape {show(shape)}")
        self.nodes.append(node)
        self._makers[name] = node
        self.shapes[name] = shape
        return name

    def value(self, value: str | Constant) -> str:
        """Return the graph value, bringing a constant into the graph."""
        return value if isinstance(value, str) else self.emit("constant", [], params={"value": value})

    def maker(self, value: str) -> Node | None:
        """Return the node that makes a value; None for an input."""
        return self._makers.get(value)

    def number(self, value: Value) -> float | None:
        """Return the number that a one-element constant holds; else None."""
        if isinstance(value, Constant) and value.array.size == 1 and value.array.dtype == np.float32:
            return float(value.array.reshape(-1)[0])
        return None

    def derive(self, constant: Constant, what: str, make: Callable[[Array], Array]) -> Constant:
        """Return an array made from a constant (its transpose, say), once for all walks over one file."""
        if constant.key is None or self.source.tensors.get(constant.key) is not constant.array:
            return Constant(make(constant.array), constant.key)
        place = (id(constant.array), what)
        if place not in self.source.derived:
            self.source.derived[place] = make(constant.array)
        return Constant(self.source.derived[place], constant.key)

    # -- the walk ---------------------------------------------------------------------------------------------

    def run(self) -> Graph:
        """Lower the whole graph.

        Raises
        ------
        OnnxError
            Naming file and node.
        """
        with np.errstate(all="ignore"):  # numbers of a damaged file overflow; NaN and infinity are refused by name
            for node in self.source.model.graph.node:
                self._named(node)
            outputs = self._outputs()
        nodes, weights = live(self.nodes, outputs, self.weights)
        return Graph(inputs=self._inputs, nodes=nodes, outputs=outputs, weights=weights)

    def _named(self, node: NodeProto) -> None:
        """Lower one node; what goes wrong is said with file and node."""
        where = f"{self.source.path}: node {show(node_name(node))} ({node.op_type})"
        try:
            if node.op_type == "If":
                self._branch(node)
            else:
                self._node(node)
        except Unsupported as error:
            raise OnnxNotSupportedError(f"{where}: {error}") from None
        except Damaged as error:
            raise OnnxError(f"{where}: {error}") from None

    def _branch(self, node: NodeProto) -> None:
        """Lower the branch that a constant condition takes; its nodes see the values around it."""
        call = Call("If", self.source.opset, [self._read(name) for name in node.input], {}, list(node.output))
        chosen = "then_branch" if call.scalar_input(0, "condition") else "else_branch"
        graphs = [a.g for a in node.attribute if a.name == chosen and a.type == AttributeProto.GRAPH]
        if len(graphs) != 1 or len(graphs[0].output) != len(node.output):
            raise Damaged(f"its {chosen} does not make its {len(node.output)} outputs")
        if graphs[0].initializer or graphs[0].sparse_initializer:
            raise Unsupported(f"its {chosen} holds initializers: move them into the net")
        for inner in graphs[0].node:
            self._named(inner)
        for name, output in zip(node.output, graphs[0].output, strict=True):
            self._env[name] = self._read(output.name)

    def _node(self, node: NodeProto) -> None:
        self._base = "".join(c if c.isprintable() else "_" for c in node_name(node))[: MAX_NAME - 64]
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if any(attribute.ref_attr_name for attribute in node.attribute):
            raise Damaged("an attribute refers to a function's, and there is no function")
        inputs = [self._read(name) if name else None for name in node.input]
        call = Call(node.op_type, self.source.opset, inputs, attributes, list(node.output))
        results = self._call(call)
        wanted = [name for name in node.output if name]
        if len(results) < len(node.output) and any(node.output[len(results) :]):
            raise Unsupported(f"its output {len(results)} is read; the engine makes {len(results)}")
        for name, result in zip(node.output, results, strict=False):
            if name:
                self._env[name] = result
        assert all(name in self._env for name in wanted)

    def _read(self, name: str) -> Value:
        if name not in self._env:
            raise Damaged(f"it reads {show(name)}, which nothing before it makes")
        value = self._env[name]
        if value is None:
            raise Unsupported(f"it reads {show(name)}, an output that the engine does not make (a mask or indices)")
        return value

    def _call(self, call: Call) -> Sequence[Value | None]:
        if call.op == "Shape":
            return [self._shape_of(call)]
        if call.op == "Size":
            return [Constant(np.array(np.prod(self._extents(call), dtype=np.int64)))]
        if call.op in ("Constant", "ConstantOfShape"):
            tensor = call.tensor("value")
            if tensor is not None:
                call.inputs.append(Constant(self.source.reader.read(tensor)))
            elif call.op == "ConstantOfShape":
                call.inputs.append(Constant(np.zeros(1, np.float32)))
            if call.op == "Constant" and tensor is not None:
                return self._within_budget([Constant(self._constant_array(call))])
        if call.op in FOLDS and all(value is None or isinstance(value, Constant) for value in call.inputs):
            return self._within_budget(fold(call))
        handler = HANDLERS.get(call.op)
        if handler is None:
            raise Unsupported("its operands are computed from the net's input; the engine folds it on constants only")
        result = handler(self, call)
        return [result] if isinstance(result, (str, Constant, Partial)) else list(result)

    @staticmethod
    def _constant_array(call: Call) -> Array:
        value = call.inputs[-1]
        assert isinstance(value, Constant)
        return value.array

    def _within_budget(self, constants: list[Constant]) -> list[Constant]:
        """A file of a few bytes must not make gigabytes of constants."""
        self._fold_left -= sum(constant.array.nbytes for constant in constants)
        if self._fold_left < 0:
            raise Damaged("the constants computed so far are far larger than the file")
        return constants

    def _extents(self, call: Call) -> Shape:
        value = call.given(0, "data")
        return self.shapes[value] if isinstance(value, str) else value.array.shape

    def _shape_of(self, call: Call) -> Constant:
        extents = self._extents(call)
        end = call.integer("end", len(extents))
        return Constant(np.array(extents[slice(call.integer("start", 0), end)], np.int64))

    def _outputs(self) -> tuple[str, ...]:
        names: list[str] = []
        for output in self.source.model.graph.output:
            try:
                self._base = "output"
                value = self._read(output.name)
                if isinstance(value, Partial):
                    raise Unsupported(value.refusal)
                names.append(self.value(value))
            except Unsupported as error:
                raise OnnxNotSupportedError(f"{self.source.path}: output {show(output.name)}: {error}") from None
            except Damaged as error:
                raise OnnxError(f"{self.source.path}: output {show(output.name)}: {error}") from None
        return tuple(names)

    # -- names and weights ------------------------------------------------------------------------------------

    def _weight(self, constant: Constant, node: str, role: str) -> str:
        """Register a constant as a weight; one array used twice is stored once."""
        array = constant.array
        if id(array) in self._keys:
            return self._keys[id(array)][0]
        called = f"tensor {show(constant.key)}" if constant.key else f"its {role}"
        if array.dtype != np.float32:
            raise Unsupported(f"{called} is {array.dtype}: the engine works in float32; save the net in float32")
        if not np.isfinite(array).all():
            raise Damaged(f"{called} holds NaN or infinity: mend or retrain the model first")
        wanted = "".join(c if c.isprintable() else "_" for c in constant.key or f"{node}.{role}")[: MAX_NAME - 64]
        key = self._weight_names.fresh(wanted)
        self.weights[key] = np.ascontiguousarray(array) if array.ndim else array
        self._keys[id(array)] = (key, array)  # the array is kept alive: its id must not be used again
        return key

    def _fresh_name(self, op: str) -> str:
        """Name of the ONNX node for the first graph node it becomes, with the op added for the others."""
        if self._base and self._base not in self._names.taken:
            return self._names.fresh(self._base)
        return self._names.fresh(f"{self._base}.{op}")


class _Names:
    """Hands out names that are not taken; remembers how far it counted, so that 100,000 equal names stay cheap."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)
        self._counts: dict[str, int] = {}

    def fresh(self, wanted: str) -> str:
        """Return the wanted name, or with the first free number behind it."""
        name, count = wanted, self._counts.get(wanted, 0)
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        self._counts[wanted] = count
        self.taken.add(name)
        return name
