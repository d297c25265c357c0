"""The walk over a graph: values get storages in one or two layouts, nodes become drafts of native steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fastcnn.engine.graph.graph import Array, Graph, GraphError, Node
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.graph.shapes import macs
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.passes.folded_weight import FoldedWeight
from fastcnn.engine.plan.slots import Candidate, Draft, Nchw, Slot, Storage, as_nchw, words_of

Levels = tuple[float, int]
"""Factor and zero of bytes: round(x * factor) + zero."""
Handler = Callable[["Lowerer", Node], None]
_HANDLERS: dict[str, Handler] = {}


def lowers(*ops: str) -> Callable[[Handler], Handler]:
    """Register a handler for these graph ops."""

    def register(handler: Handler) -> Handler:
        for op in ops:
            assert op not in _HANDLERS, f"{op} has a handler already"
            _HANDLERS[op] = handler
        return handler

    return register


def tiled(op: str, tiles: Sequence[tuple[int, int]], out_map: tuple[int, int]) -> list[Candidate]:
    """Candidates of a convolution in register tiles (channel vectors, pixels).

    The last tile is for one pixel; of the others that comes first which wastes least at the end of a row.
    """
    columns = out_map[1]

    def waste(tile: tuple[int, int]) -> float:
        return -(-columns // tile[1]) * tile[1] / columns

    order = sorted(tiles[:-1], key=waste) if out_map != (1, 1) else [tiles[-1]]
    return [Candidate(f"{op}:{t}x{p}", op, {"tile": [t, p]}) for t, p in order]


def lowered_ops() -> frozenset[str]:
    """Ops the engine runs natively."""
    return frozenset(_HANDLERS)


@dataclass
class Lowered:
    """Drafts in execution order and every storage they use."""

    drafts: list[Draft]
    storages: list[Storage]
    outputs: list[Shape]


class Lowerer:
    """State of one walk. Handlers read values with :meth:`blocked` or :meth:`plain` and make them with ``new_*``."""

    def __init__(
        self, graph: Graph, shapes: Mapping[str, Shape], target: Target, *, exact: bool, relaxed: bool = False
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.target = target
        self.exact = exact
        self.relaxed = relaxed
        self.macs = macs(graph, shapes)
        self.drafts: list[Draft] = []
        self.storages: list[Storage] = []
        self._blocked: dict[str, Slot] = {}
        self._plain: dict[str, Slot] = {}
        self._bits: dict[str, Slot] = {}
        self._bytes: dict[tuple[str, Levels], Slot] = {}
        self._meanings: dict[str, tuple[Slot, Levels, float]] = {}
        self._flat: dict[str, str] = {}
        self._planar: dict[str, Slot] = {}
        self._users = graph.consumers()
        self._makers = {node.name: node for node in graph.nodes}
        for index, value in enumerate(graph.inputs):
            dims = shapes[value.name]
            storage = Storage(as_nchw(dims), False, target.lanes, space="input", index=index)
            self._plain[value.name] = Slot(storage, dims, as_nchw(dims))

    # values

    def dims(self, value: str) -> Shape:
        return self.shapes[value]

    def param(self, node: Node, role: str) -> Array | None:
        array: Any = self.graph.param(node, role)
        if array is None or isinstance(array, FoldedWeight):
            return cast(Array | None, array)
        return np.ascontiguousarray(array, np.float32)

    def weight(self, node: Node, role: str) -> Array:
        array = self.param(node, role)
        if array is None:
            raise GraphError(f"node {node.name!r} ({node.op}) has no {role}")
        return array

    def raw(self, node: Node, role: str) -> Array:
        """A parameter that is no array of floats, as it is."""
        return np.asarray(self.graph.weights[node.params[role]])

    def has_bits(self, value: str) -> bool:
        return value in self._bits

    def bits(self, value: str) -> Slot:
        """The value's signs, which somebody has made."""
        return self._bits[value]

    def new_bits(self, value: str, dims: Shape | None = None) -> Slot:
        """Make a slot for a value's signs, or for planes of them with dims of their own; a step is to write it."""
        dims = self.dims(value) if dims is None else dims
        nchw = as_nchw(dims)
        storage = Storage(nchw, True, words_of("signs", nchw[1]), element="signs")
        self.storages.append(storage)
        self._bits[value] = Slot(storage, dims, nchw)
        return self._bits[value]

    def same_bits(self, value: str, slot: Slot) -> None:
        """The value's signs are these."""
        self._bits[value] = Slot(slot.storage, self.dims(value), slot.nchw)

    def known_bytes(self, value: str, levels: Levels) -> Slot | None:
        """The value's levels, if somebody has made them."""
        return self._bytes.get((value, levels))

    def new_bytes(self, value: str, levels: Levels, dims: Shape | None = None) -> Slot:
        """Make a slot for a value's levels, or for others with dims of their own; a step is to write it."""
        dims = self.dims(value) if dims is None else dims
        nchw = as_nchw(dims)
        storage = Storage(nchw, True, words_of("bytes", nchw[1]), element="bytes")
        self.storages.append(storage)
        self._bytes[value, levels] = Slot(storage, dims, nchw)
        return self._bytes[value, levels]

    def same_bytes(self, value: str, slot: Slot, levels: Levels) -> None:
        """The value's levels are these."""
        self._bytes[value, levels] = Slot(slot.storage, self.dims(value), slot.nchw)

    def stands_for(self, value: str, slot: Slot, levels: Levels, step: float) -> None:
        """These bytes are the value: (q - zero) * step."""
        self.same_bytes(value, slot, levels)
        self._meanings[value] = (self._bytes[value, levels], levels, step)

    def meaning(self, value: str) -> tuple[Slot, Levels, float] | None:
        """The bytes that are the value, their levels and step, if there are such."""
        return self._meanings.get(value)

    def is_blocked(self, value: str) -> bool:
        return value in self._blocked

    def is_input(self, value: str) -> bool:
        return value in self._plain and self._plain[value].storage.root.space == "input"

    def maker(self, value: str) -> Node | None:
        """The node that makes a value; None of an input."""
        return self._makers.get(value)

    def users(self, value: str) -> list[Node]:
        return self._users.get(value, [])

    def flattens(self, node: Node) -> bool:
        """Whether a node makes rows of maps."""
        if node.op not in ("flatten", "reshape"):
            return False
        before, after = self.dims(node.inputs[0]), self.dims(node.name)
        return len(before) == 4 and len(after) == 2 and before[0] == after[0]

    def flattened_map(self, value: str) -> str | None:
        """The rank-4 value that this one is a flattening of, if nobody has needed it flat yet."""
        return self._flat.get(value)

    def new_storage(self, nchw: Nchw, *, blocked: bool) -> Storage:
        storage = Storage(nchw, blocked, self.target.lanes)
        self.storages.append(storage)
        return storage

    def view(self, storage: Storage, channel: int, nchw: Nchw) -> Storage:
        """Channels from ``channel`` on, without a copy."""
        child = Storage(nchw, True, self.target.lanes, parent=storage, channel=channel)
        self.storages.append(child)
        return child

    def new_blocked(self, value: str) -> Slot:
        """Make a blocked slot for a node's output; the node's step is to write it."""
        dims = self.dims(value)
        if not 2 <= len(dims) <= 4:
            raise GraphError(f"value {value!r} of rank {len(dims)} cannot be channel-blocked")
        slot = Slot(self.new_storage(as_nchw(dims), blocked=True), dims, as_nchw(dims))
        self._blocked[value] = slot
        return slot

    def new_plain(self, value: str) -> Slot:
        dims = self.dims(value)
        slot = Slot(self.new_storage(as_nchw(dims), blocked=False), dims, as_nchw(dims))
        self._plain[value] = slot
        return slot

    def temporary(self, dims: Shape, *, blocked: bool) -> Slot:
        """Memory that stands for no value of the graph."""
        return Slot(self.new_storage(as_nchw(dims), blocked=blocked), dims, as_nchw(dims))

    def alias(self, value: str, slot: Slot) -> None:
        """The value is this memory under its own dims."""
        own = Slot(slot.storage, self.dims(value), slot.nchw)
        (self._blocked if slot.storage.blocked else self._plain)[value] = own

    def alias_flat(self, value: str, source: str) -> None:
        """The value is a flattening of a rank-4 map; a linear layer can read the map itself."""
        self._flat[value] = source

    def blocked(self, value: str) -> Slot:
        """The value channel-blocked, converted on first need."""
        if value not in self._blocked and value in self._meanings:
            source, (_, zero), step = self._meanings[value]
            attrs = {"step": step, "zero": zero}
            self.emit("bytes_to_floats", f"{value}.floats", [source], self.new_blocked(value), attrs=attrs)
        if value not in self._blocked:
            plain = self.plain(value)
            slot = self.new_blocked(value)
            self.emit_relayout(value, plain, slot)
        return self._blocked[value]

    def plain(self, value: str) -> Slot:
        """The value row-major, converted on first need."""
        if value not in self._plain:
            if value in self._flat:
                source = self.plain(self._flat[value])
                self._plain[value] = Slot(source.storage, self.dims(value), as_nchw(self.dims(value)))
            else:
                blocked = self.blocked(value)
                slot = self.new_plain(value)
                self.emit_relayout(value, blocked, slot)
        return self._plain[value]

    def planar(self, value: str, border: list[int]) -> Slot:
        """A plain rank-4 map with a zero border, for stems with few channels."""
        if not any(border):
            return self.plain(value)
        if value not in self._planar:
            plain = self.plain(value)
            slot = Slot(self.new_storage(plain.nchw, blocked=False), plain.dims, plain.nchw)
            self.emit_relayout(value, plain, slot)
            self._planar[value] = slot
        slot = self._planar[value]
        slot.storage.need_border(border)
        return slot

    # steps

    def emit_relayout(self, value: str, source: Slot, target: Slot) -> None:
        if source.nchw != target.nchw:
            raise GraphError(f"value {value!r}: {source.dims} and {target.dims} are not the same map")
        self.emit("relayout", f"{value}.layout", [source], target)

    def emit(
        self,
        op: str,
        name: str,
        inputs: list[Slot],
        out: Slot,
        *,
        attrs: dict[str, Any] | None = None,
        weights: dict[str, Array] | None = None,
        candidates: list[Candidate] | None = None,
        node: Node | None = None,
        zero_border: bool = True,
        note: str = "",
    ) -> Draft:
        """Append a step. Lifetimes of everything it touches are extended to it."""
        index = len(self.drafts)
        for slot in (*inputs, out):
            slot.storage.touch(index)
        draft = Draft(
            name=name,
            source=node.source if node is not None else "",
            op=op,
            inputs=inputs,
            out=out,
            attrs=attrs or {},
            weights=weights or {},
            candidates=candidates or [Candidate("", op, {})],
            macs=self.macs.get(node.name, 0) if node is not None else 0,
            zero_border=zero_border,
            note=note,
        )
        self.drafts.append(draft)
        return draft

    def reparent(self, storage: Storage, parent: Storage, channel: int) -> bool:
        """Move a finished map into a range of another one's channels; False where that cannot be."""
        if storage.parent is not None or storage.space != "arena" or not storage.blocked or parent.root is storage:
            return False
        if channel % self.target.lanes != 0 or storage.nchw[2:] != parent.nchw[2:]:
            return False
        parent.need_border(storage.border)
        first, last = storage.first, storage.last
        storage.parent = parent
        storage.channel = channel
        if first is not None:
            known = parent.root.first
            parent.touch(first)
            parent.root.first = first if known is None else min(first, known)
            parent.touch(last)
        return True

    def run(self) -> Lowered:
        for node in self.graph.nodes:
            handler = _HANDLERS.get(node.op)
            if handler is None:
                raise GraphError(f"node {node.name!r}: the engine has no kernel for {node.op!r}")
            handler(self, node)
        for index, name in enumerate(self.graph.outputs):
            source = self._plain.get(name) or self._blocked.get(name) or self.plain(name)
            dims = self.dims(name)
            storage = Storage(source.nchw, False, self.target.lanes, space="output", index=index)
            self.emit_relayout(f"{name}.out{index}", source, Slot(storage, dims, source.nchw))
        return Lowered(self.drafts, self.storages, [self.dims(name) for name in self.graph.outputs])


def lower(graph: Graph, shapes: Mapping[str, Shape], target: Target, *, exact: bool, relaxed: bool = False) -> Lowered:
    """Turn an optimised graph into drafts.

    Parameters
    ----------
    exact : bool
        Offer no candidates that reorder algebra.
    relaxed : bool
        Offer products in bf16, and 16-bit spectra of every Winograd form.
    """
    return Lowerer(graph, shapes, target, exact=exact, relaxed=relaxed).run()
