"""One walk over an exported program: torch ops in, graph nodes out.

Every fx node ends as one of: a graph value (``str``), a :class:`Constant` (folded through torch on the spot), a list
of these, a plain Python value, or :class:`Deferred` (a result the graph cannot hold, such as a boolean mask, that the
torch step which finally uses it will recompute).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from fastcnn.engine.capture import local_response_norm
from fastcnn.engine.capture.errors import NotSupportedError
from fastcnn.engine.capture.in_place import plain_name
from fastcnn.engine.capture.registry import HANDLERS, TAKES_DEFERRED, Arguments, Constant, Unsupported
from fastcnn.engine.capture.torch_step import TorchStep
from fastcnn.engine.graph.graph import Array, Graph, GraphError, GraphInput, Node, live
from fastcnn.engine.graph.ops import OPS, make_node
from fastcnn.engine.graph.schema import MAX_NAME, Shape


@dataclass(frozen=True)
class Deferred:
    """A value only torch can hold; recomputed inside the step that uses it."""

    node: fx.Node


@dataclass(frozen=True)
class Outside:
    """One operation that became a torch step: what, where, why."""

    node: str
    op: str
    layer: str
    reason: str


class Lowering:
    """State of one walk. Handlers use ``emit``, ``shape``, ``constant_value`` and ``scalar``.

    Parameters
    ----------
    program : ExportedProgram
        Functional (no in-place ops), exported in eval mode.
    whole_pool_as_mean : bool
        Write an average pool over the whole image as a mean. Used where the model computes the pool's size from the
        image, so that the graph serves every image size.
    """

    def __init__(self, program: ExportedProgram, *, whole_pool_as_mean: bool = False) -> None:
        self.whole_pool_as_mean = whole_pool_as_mean
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.weights: dict[str, Array] = {}
        self.torch_calls: dict[str, TorchStep] = {}
        self.outside: list[Outside] = []
        self.unexpanded: dict[str, str] = {}
        """Value made by expand -> the value before it: element-wise ops broadcast by themselves."""
        self.program = program
        self._env: dict[fx.Node, Any] = {}
        self._names: set[str] = set()
        self._keys: dict[tuple[Any, ...], tuple[str, torch.Tensor]] = {}
        self._at: fx.Node | None = None

    # -- what handlers use ------------------------------------------------------------------------------------

    def shape(self, value: str) -> Shape:
        """Shape of a value at the example's size."""
        return self.shapes[value]

    def rank(self, value: str) -> int:
        """Number of axes of a value."""
        return len(self.shapes[value])

    def output_shape(self) -> Shape:
        """Shape torch gives the op being lowered."""
        assert self._at is not None
        return tuple(int(n) for n in self._at.meta["val"].shape)

    def current_op(self) -> str:
        """Schema name of the op being lowered, of an in-place op that of its plain form."""
        assert self._at is not None
        assert isinstance(self._at.target, torch._ops.OpOverload)
        return plain_name(self._at.target)

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
        keys = {
            role: self._weight(value, name, role, integer="float32" not in OPS[op].params[role].dtypes)
            for role, value in (params or {}).items()
            if value is not None
        }
        try:
            node = make_node(name, op, inputs, params=keys, attrs=attrs, source=self._layer(), weights=self.weights)
            rule_params = {role: self.weights[key].shape for role, key in keys.items()}
            shape = OPS[op].shape(node, [self.shapes[v] for v in inputs], rule_params)
        except GraphError as error:
            raise Unsupported(str(error)) from None
        self.nodes.append(node)
        self._names.add(name)
        self.shapes[name] = shape
        return name

    def constant_value(self, constant: Constant) -> str:
        """Bring a constant into the graph as a value."""
        return self.emit("constant", [], params={"value": constant})

    def scalar(self, value: object) -> float | None:
        """Return a Python number, or a one-element constant that broadcasts like one; else None."""
        if isinstance(value, (bool, int, float)):
            return float(value)
        if isinstance(value, Constant) and value.tensor.numel() == 1 and not value.tensor.is_complex():
            return float(value.tensor.item())
        return None

    def value_of(self, argument: Any) -> Any:
        """Return what an argument of the program stands for, once the nodes before it are lowered."""
        return self._resolve(argument)

    # -- the walk ---------------------------------------------------------------------------------------------

    def run(self) -> Graph:
        """Lower the whole program."""
        inputs = self._placeholders()
        norms = local_response_norm.find(self.program.graph)
        inside = {inner for norm in norms.values() for inner in norm.inner}
        for node in self.program.graph.nodes:
            if node in norms:
                self._norm(node, norms[node])
            elif node.op == "call_function" and node not in inside:
                self._lower(node)
            elif node.op == "get_attr":  # the body of a higher-order operator, which _call then refuses
                self._env[node] = Deferred(node)
        outputs = self._outputs()
        self._drop_unused(outputs)
        return Graph(
            inputs=inputs,
            nodes=self.nodes,
            outputs=outputs,
            weights=self.weights,
            torch_calls=dict(self.torch_calls),
        )

    def _lower(self, node: fx.Node) -> None:
        self._at = node
        self._env[node] = self._call(node)

    def _norm(self, node: fx.Node, norm: local_response_norm.LocalResponseNorm) -> None:
        """Lower the division that ends a local response norm: as one op, or else after the chain before it."""
        self._at = node
        value = local_response_norm.emit(self, norm)
        if value is not None:
            self._env[node] = value
            return
        for member in (*norm.inner, node):
            self._lower(member)

    def _placeholders(self) -> tuple[GraphInput, ...]:
        placeholders = {n.name: n for n in self.program.graph.nodes if n.op == "placeholder"}
        inputs: list[GraphInput] = []
        for spec in self.program.graph_signature.input_specs:
            node = placeholders[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                if isinstance(spec.arg, ConstantArgument):
                    self._env[node] = spec.arg.value
                    continue
                shape = tuple(int(n) for n in node.meta["val"].shape)
                inputs.append(GraphInput(name=node.name, shape=shape))
                self._names.add(node.name)
                self.shapes[node.name] = shape
                self._env[node] = node.name
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                assert spec.target is not None
                self._env[node] = Constant(self._state(spec.target), spec.target)
            else:
                raise NotSupportedError(f"the model uses {spec.target!r} ({spec.kind.name}), which is not a tensor")
        return tuple(inputs)

    def _state(self, target: str) -> torch.Tensor:
        for table in (self.program.state_dict, self.program.constants):
            if target in table:
                tensor = table[target]
                assert isinstance(tensor, torch.Tensor)
                return tensor.detach()
        raise NotSupportedError(f"the exported program does not hold the tensor {target!r}")

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self._resolve(node.args), self._resolve(dict(node.kwargs))
        if node.target is operator.getitem:
            return self._getitem(node, *args)
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            raise NotSupportedError(
                f"layer {self._layer_of(node)!r} uses {target}, which the engine cannot hold: rewrite the layer "
                f"without control flow on tensors, autocast and enable_grad"
            )
        if not target._schema.returns or target._schema.name.startswith(("aten::_assert", "aten::sym_constrain")):
            return None
        sources = [self._env[n] for n in node.all_input_nodes]
        if all(_is_constant(value) for value in sources):
            return self._fold(node, args, kwargs)
        if plain_name(target) not in TAKES_DEFERRED and any(_has_deferred(value) for value in sources):
            return self._step(node, "it works on values that are not float32")
        return self._handle(node, target, args, kwargs)

    def _handle(self, node: fx.Node, target: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
        handler = HANDLERS.get(plain_name(target))
        if handler is None:
            return self._step(node, "the engine has no such operation")
        mark = len(self.nodes)
        try:
            if isinstance(node.meta["val"], torch.Tensor) and node.meta["val"].dtype != torch.float32:
                raise Unsupported(f"its result is {node.meta['val'].dtype}, not float32")
            result = handler(self, Arguments(target._schema, tuple(args), kwargs))
            if isinstance(result, str) and self.shapes[result] != self.output_shape():
                raise Unsupported(f"torch gives shape {self.output_shape()}, the graph {self.shapes[result]}")
            return result
        except Unsupported as reason:
            for dropped in self.nodes[mark:]:
                self._names.discard(dropped.name)
            del self.nodes[mark:]
            return self._step(node, str(reason))

    def _getitem(self, node: fx.Node, base: Any, index: Any) -> Any:
        if isinstance(base, list) and base[index] is not None:
            return base[index]
        return self._step(node, "the engine does not make this output")

    def _fold(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        target: Any = node.target
        if torch.Tag.nondeterministic_seeded in target.tags:
            raise NotSupportedError(
                f"layer {self._layer_of(node)!r} draws random numbers ({_op_name(node)}): a captured net is "
                f"deterministic; draw them outside and pass them as an input"
            )
        with torch.no_grad():
            result = target(*_tensors(args), **_tensors(kwargs))
        if isinstance(result, torch.Tensor):
            return Constant(result)
        if isinstance(result, (list, tuple)):
            return [Constant(item) if isinstance(item, torch.Tensor) else item for item in result]
        return result

    def _step(self, node: fx.Node, reason: str) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return Deferred(node)
        members: list[fx.Node] = []
        leaves: list[fx.Node] = []
        constants: dict[fx.Node, torch.Tensor] = {}
        self._collect(node, members, leaves, constants, top=True)
        source = next((n for n in reversed(members) if n.target is not operator.getitem), node)
        name, target = self._fresh_name(_op_name(source).split("::")[-1]), _op_name(source)
        step = TorchStep(members, leaves, constants)
        self.nodes.append(
            make_node(
                name,
                "torch",
                [self._env[leaf] for leaf in leaves],
                attrs={"target": target, "key": name},
                source=self._layer(),
            )
        )
        self._names.add(name)
        self.shapes[name] = tuple(int(n) for n in value.shape)
        self.torch_calls[name] = step
        self.outside.append(Outside(name, target, self._layer(), reason))
        return name

    def _collect(
        self,
        node: fx.Node,
        members: list[fx.Node],
        leaves: list[fx.Node],
        constants: dict[fx.Node, torch.Tensor],
        *,
        top: bool = False,
    ) -> None:
        """Gather the torch ops behind a step: back to graph values and constants."""
        if node in members or node in leaves or node in constants:
            return
        entry = None if top else self._env.get(node)
        if isinstance(entry, str):
            leaves.append(node)
        elif isinstance(entry, Constant):
            constants[node] = entry.tensor.clone()
        else:
            for source in node.all_input_nodes:
                self._collect(source, members, leaves, constants)
            members.append(node)

    def _outputs(self) -> tuple[str, ...]:
        names: list[str] = []
        by_name = {node.name: node for node in self.program.graph.nodes}
        for spec in self.program.graph_signature.output_specs:
            if spec.kind == OutputKind.BUFFER_MUTATION:
                raise NotSupportedError(
                    f"the model changes its buffer {spec.target!r} while it runs: a captured net keeps no state; "
                    f"pass it as an input and return the new value"
                )
            if spec.kind != OutputKind.USER_OUTPUT:
                continue
            if not isinstance(spec.arg, TensorArgument):
                raise NotSupportedError(
                    f"the model returns {getattr(spec.arg, 'value', spec.arg)!r}: return a tensor, or a tuple, list or "
                    f"dict of tensors"
                )
            names.append(self._output(by_name[spec.arg.name]))
        if not names:
            raise NotSupportedError("the model returns no tensor: return a tensor, or a tuple, list or dict of tensors")
        return tuple(names)

    def _output(self, node: fx.Node) -> str:
        entry = self._env[node]
        if isinstance(entry, str):
            return entry
        if isinstance(entry, Constant):
            self._at = node
            try:
                return self.constant_value(entry)
            except Unsupported as reason:
                raise NotSupportedError(f"the model returns a constant the engine cannot hold: {reason}") from None
        raise NotSupportedError(
            f"the model returns a {node.meta['val'].dtype} tensor ({_op_name(node)}): the engine returns float32; "
            f"return the scores and take this step outside"
        )

    def _drop_unused(self, outputs: Sequence[str]) -> None:
        self.nodes, self.weights = live(self.nodes, outputs, self.weights)
        names = {node.name for node in self.nodes}
        self.outside = [item for item in self.outside if item.node in names]
        self.torch_calls = {key: step for key, step in self.torch_calls.items() if key in names}

    # -- names and weights ------------------------------------------------------------------------------------

    def _weight(self, constant: Constant, node: str, role: str, *, integer: bool) -> str:
        """Register a constant as a weight, codes and places as they are; one tensor used twice is stored once."""
        tensor = constant.tensor
        if tensor.is_quantized or tensor.layout is not torch.strided:
            raise Unsupported(f"{role} is not a plain dense tensor")
        if integer:
            array = tensor.detach().cpu().numpy()
        elif tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TypeError(
                f"{constant.key or f'{role} of {node}'} is {tensor.dtype}: the engine works in float32; call "
                f"model.float() first"
            )
        elif tensor.is_complex():
            raise TypeError(f"{constant.key or f'{role} of {node}'} is {tensor.dtype}: the engine works in float32")
        else:
            array = tensor.detach().cpu().to(torch.float32).numpy()
        identity = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(), integer)
        if tensor.numel() and identity in self._keys:
            return self._keys[identity][0]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"{constant.key or f'{role} of {node}'} holds NaN or infinity: mend or retrain the model first"
            )
        key = _unique(constant.key or f"{node}.{role}", self.weights)
        self.weights[key] = np.array(array, copy=True, order="C")
        self._keys[identity] = (key, tensor)  # the tensor is kept alive: its address must not be used again
        return key

    def _layer_of(self, node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        path = next((str(entry[0]) for entry in reversed(list(stack.values()))), "")
        return path.split("@")[0]

    def _layer(self) -> str:
        return "" if self._at is None else self._layer_of(self._at)[:MAX_NAME]

    def _fresh_name(self, op: str) -> str:
        """Module path for the layers of torch and of our methods, path and op elsewhere; made unique.

        Of a convolution or linear layer only the operation itself gets the path, not a pad or reshape beside it.
        """
        path = self._layer()
        stack = list(((self._at.meta.get("nn_module_stack") if self._at else None) or {}).values())
        kind = str(stack[-1][1]).lower() if stack else ""
        is_leaf = kind.startswith(("torch.nn.modules", "fastcnn.methods")) and "container" not in kind
        weighted = [word for word in ("conv", "linear") if word in kind.rpartition(".")[2]]
        is_main = is_leaf and (not weighted or any(word in op for word in weighted))
        name = path if path and is_main else f"{path}.{op}" if path else op
        return _unique(name[: MAX_NAME - 12], self._names)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self._env[value]
        if isinstance(value, (list, tuple)):
            return [self._resolve(item) for item in value]
        if isinstance(value, dict):
            return {key: self._resolve(item) for key, item in value.items()}
        return value


def _unique(name: str, taken: Any) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _is_constant(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_constant(item) for item in value)
    return not isinstance(value, (str, Deferred))


def _has_deferred(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_deferred(item) for item in value)
    return isinstance(value, Deferred)


def _tensors(value: Any) -> Any:
    if isinstance(value, Constant):
        return value.tensor
    if isinstance(value, list):
        return [_tensors(item) for item in value]
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    return value


def _op_name(node: fx.Node) -> str:
    target = node.target
    return str(target._schema.name) if isinstance(target, torch._ops.OpOverload) else str(target)
