"""Energy and memory by a model: ``python -m fastcnn.reproduction.lowprecision.energy`` with --net --out.

The BNN paper argues for signs with what an operation and an access to memory cost on a chip of 45 nm, by a table of
Horowitz. This counts the operations and the bytes of a net in float32, in int8 and with signs, and prices them by that
table. It is a model, of another machine than yours: nothing is measured, and nothing follows from it for time.

- A multiply-add of float32 or int8 is a product of that kind and a sum, which is of int32 for int8. Layers of 8 bits
  and of signs scale each output in float32; where a threshold follows, they compare it.
- 64 products of signs are three operations on words of 64 bits: exclusive or, count and sum. Each is taken for as dear
  as an addition of that width, at twice that of 32 bits, which is too much for the first two.
- Every other step is an addition of float32 for each number it gives, of each window in a pool.
- Weights are read once. Maps are written once, and read once by each step that takes them; a number of them has one bit
  where only layers of signs read it, a byte where only layers of 8 bits do, else four bytes.
- An access is of 64 bits, in the smallest memory of the table that holds all of the net's weights, or all of the map.

References
----------
Horowitz 2014, Computing's energy problem (and what we can do about it), ISSCC; Courbariaux, Hubara, Soudry, El-Yaniv
and Bengio 2016, arXiv:1602.02830, section 3, which quotes it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

import fastcnn
from fastcnn._extras import MissingExtraError
from fastcnn.benchmarking.suite import suite_models
from fastcnn.cli.output import log, write_atomically
from fastcnn.engine.capture import capture
from fastcnn.engine.graph import Graph, Node, binary, infer_shapes, int8, macs
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.lowering.binary import has_bits_kernel
from fastcnn.engine.plan.lowering.int8 import has_int8_kernel
from fastcnn.engine.plan.passes import optimise
from fastcnn.methods.lowprecision.blocks import BinaryBlock

MULTIPLY = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
ADD = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}
"""Picojoules of one operation, 45 nm and 0.9 V (Horowitz 2014)."""
CACHES = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
"""Bytes of a cache, and picojoules of 64 bits from it (Horowitz 2014)."""
DRAM = (1300.0, 2600.0)
"""Picojoules of 64 bits from main memory, least and most (Horowitz 2014)."""
WORD, ACCESS = 64, 8
"""Signs in a word; bytes of an access."""
OPERATIONS_OF_A_WORD = 3

Form = Literal["signs", "levels", "floats"]
BITS: dict[Form, int] = {"signs": 1, "levels": 8, "floats": 32}
_VIEWS = ("reshape", "flatten")
_MAKES: dict[str, Form] = {"sign": "signs", "quantize": "levels"}
"""Steps that the engine does where it writes the map before them."""
_POOLS = ("max_pool2d", "avg_pool2d")


@dataclass(frozen=True, kw_only=True)
class Modelled:
    """One picture through a net, or a batch.

    Attributes
    ----------
    weight_bytes : int
        Of all parameters, as the engine takes them before it packs them.
    map_bytes : int
        Read and written, of all maps.
    arithmetic_mj, weights_mj, maps_mj : float
        Millijoules of operations, of reading weights and of reading and writing maps; of main memory the least.
    """

    weight_bytes: int
    map_bytes: int
    arithmetic_mj: float
    weights_mj: float
    maps_mj: float

    @property
    def total_mj(self) -> float:
        """All three."""
        return self.arithmetic_mj + self.weights_mj + self.maps_mj


def access_pj(held: float, *, dram: float = DRAM[0]) -> float:
    """Picojoules of 64 bits out of the smallest memory that holds so many bytes."""
    return next((energy for size, energy in CACHES if held <= size), dram)


def word_pj() -> float:
    """Picojoules of 64 products of signs and their sum."""
    return OPERATIONS_OF_A_WORD * ADD["int32"] * WORD / 32


def modelled(graph: Graph, shapes: Sequence[Sequence[int]], *, dram: float = DRAM[0]) -> Modelled:
    """Count and price a net.

    Parameters
    ----------
    graph : Graph
        As captured.
    shapes : sequence of shape
        Of its inputs.
    dram : float
        Picojoules of 64 bits from main memory.
    """
    given = {value.name: tuple(shape) for value, shape in zip(graph.inputs, shapes, strict=True)}
    graph = optimise(graph, infer_shapes(graph, given), keep_binary=has_bits_kernel, keep_int8=has_int8_kernel).graph
    known = infer_shapes(graph, given)
    products = macs(graph, known)
    arithmetic = sum(_operations_pj(node, products[node.name], known, graph) for node in graph.nodes)
    weights = sum(int(graph.weights[key].nbytes) for key in {key for n in graph.nodes for key in n.params.values()})
    moved = _Maps(graph, known).moved()
    return Modelled(
        weight_bytes=weights,
        map_bytes=round(sum(moved)),
        arithmetic_mj=arithmetic * 1e-9,
        weights_mj=weights / ACCESS * access_pj(weights, dram=dram) * 1e-9,
        maps_mj=sum(size / ACCESS * access_pj(size, dram=dram) for size in moved) * 1e-9,
    )


def _operations_pj(node: Node, products: int, shapes: Mapping[str, Shape], graph: Graph) -> float:
    outputs = math.prod(shapes[node.name])
    scaled = outputs * (MULTIPLY["float32"] + ADD["float32"])
    residual = outputs * ADD["float32"] * (len(node.inputs) - 1)
    if node.op in binary.BINARY:
        words = outputs * -(-binary.fan_in(node) // WORD) * len(node.attrs["planes"])
        return words * word_pj() + (outputs * ADD["int32"] if "thresholds" in node.params else scaled) + residual
    if node.op in int8.INT8:
        return products * (MULTIPLY["int8"] + ADD["int32"]) + scaled + residual
    if products:
        return products * (MULTIPLY["float32"] + ADD["float32"]) + residual
    if node.op in _VIEWS or node.op in _MAKES:
        return 0.0
    window = math.prod(node.attrs["kernel_size"]) if node.op in _POOLS else 1
    if node.op in ("adaptive_avg_pool2d", "mean", "sum"):
        window = math.prod(shapes[node.inputs[0]]) // max(outputs, 1)
    return outputs * window * ADD["float32"]


class _Maps:
    """Maps of a net, and what is moved of each."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape]) -> None:
        self._graph, self._shapes, self._readers = graph, shapes, graph.consumers()

    def moved(self) -> list[float]:
        """Bytes of each reading and writing of a map."""
        found: list[float] = []
        for value in self._graph.inputs:
            found += self._of(value.name, written=False)
        for node in self._graph.nodes:
            if node.op not in _VIEWS and node.op not in _MAKES:
                found += self._of(node.name, written=True)
        return found

    def _of(self, value: str, *, written: bool) -> list[float]:
        wanted = self._wanted(value)
        own = self._own(value)
        found = [self._bytes(value, own)] * written
        for form in sorted(set(wanted) - {own}):
            found += [self._bytes(value, own), self._bytes(value, form)]  # made of it once
        return found + [self._bytes(value, form) for form in wanted]

    def _own(self, value: str) -> Form:
        """The form that its maker writes: that of all readers, floats if they differ; inputs are floats."""
        if any(given.name == value for given in self._graph.inputs):
            return "floats"
        wanted = set(self._wanted(value)) | ({"floats"} if value in self._graph.outputs else set())
        (own,) = wanted if len(wanted) == 1 else ("floats",)
        return cast(Form, own)

    def _wanted(self, value: str) -> list[Form]:
        """The form in which each step takes a value."""
        found: list[Form] = []
        for node in {reader.name: reader for reader in self._readers.get(value, [])}.values():
            if node.op in _VIEWS:
                found += self._wanted(node.name)
            elif node.op in _MAKES:
                found += [_MAKES[node.op]] * len(self._wanted(node.name))
            elif node.op == "max_pool2d":
                found.append(self._own(node.name))
            else:
                found += [_form(node) if place == 0 else "floats" for place in _places(node, value)]
        return found

    def _bytes(self, value: str, form: Form) -> float:
        return math.prod(self._shapes[value]) * BITS[form] / 8


def _form(node: Node) -> Form:
    """What a step takes its input in; shortcuts aside."""
    if node.op in binary.BINARY and node.attrs["binarize"]:
        return "signs"
    return "levels" if node.op in int8.INT8 else "floats"


def _places(node: Node, value: str) -> list[int]:
    return [place for place, name in enumerate(node.inputs) if name == value]


def forms(model: nn.Module, shape: tuple[int, ...], *, exclude: Sequence[str] = ()) -> dict[str, Modelled]:
    """A net in float32, in int8, and of signs: by the method's default but for some layers, and in every layer."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    nets = {
        "float32": model.eval(),
        "int8": fastcnn.convert(model.eval(), fastcnn.Int8Config(), data=[x]),
        "signs": fastcnn.convert(model, fastcnn.BNNConfig(exclude=tuple(exclude))),
        "signs everywhere": fastcnn.convert(model, fastcnn.BNNConfig(skip=(), exclude=())),
    }
    return {name: modelled(capture(net.eval(), [x], strict=True), [shape]) for name, net in nets.items()}


def paper_net() -> nn.Sequential:
    """The BNN paper's net for CIFAR-10, its norms ahead of the pools; input (N, 3, 32, 32)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.Hardtanh()]
    for before, width, pool in ((128, 128, 2), (128, 256, 1), (256, 256, 2), (256, 512, 1), (512, 512, 2)):
        layers.append(BinaryBlock(before, width, order="conv-first", pool=pool))
    layers.append(nn.Flatten())
    for before in (512 * 4 * 4, 1024):
        layers += [nn.Linear(before, 1024, bias=False), nn.BatchNorm1d(1024), nn.Hardtanh()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


def paper() -> dict[str, Modelled]:
    """The paper's net for CIFAR-10."""
    torch.manual_seed(0)
    return forms(paper_net(), (1, 3, 32, 32))


def resnet18() -> dict[str, Modelled]:
    """ResNet-18, of whose shortcuts the convolutions have signs in the last form alone."""
    shape = (1, 3, 224, 224)
    ((_, model),) = suite_models("foundation", shape, only="resnet18")
    return forms(model, shape, exclude=("*identity_conv*",))


NETS: dict[str, tuple[str, Callable[[], dict[str, Modelled]]]] = {
    "paper": ("paper's net, 32x32", paper),
    "resnet18": ("ResNet-18, 224x224", resnet18),
}


def table(title: str, found: Mapping[str, Modelled]) -> str:
    """A net's table, as a page has it."""
    first = found["float32"]
    heads = (
        title,
        "weights, MB",
        "maps moved, MB",
        "arithmetic, mJ",
        "weights, mJ",
        "maps, mJ",
        "total, mJ",
        "times less",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in found.items():
        lines.append(
            f"| {name} | {row.weight_bytes / 1e6:.2f} | {row.map_bytes / 1e6:.2f} | {row.arithmetic_mj:.3f} | "
            f"{row.weights_mj:.3f} | {row.maps_mj:.3f} | {row.total_mj:.3f} | {first.total_mj / row.total_mj:.1f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if done, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m fastcnn.reproduction.lowprecision.energy",
        description="Modelled energy and memory of nets in float32, int8 and of signs; nothing is measured.",
    )
    parser.add_argument("--net", choices=list(NETS), nargs="+", default=list(NETS), help="resnet18 needs pytorchcv")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    document: dict[str, Any] = {}
    try:
        for net in options.net:
            title, build = NETS[net]
            found = build()
            print(f"{table(title, found)}\n")
            document[net] = {name: {**asdict(row), "total_mj": row.total_mj} for name, row in found.items()}
        if options.out is not None:
            write_atomically(options.out, json.dumps(document, indent=1) + "\n")
    except (MissingExtraError, OSError) as error:
        log(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
