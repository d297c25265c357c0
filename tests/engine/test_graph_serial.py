"""A graph through JSON and back; damaged structures give GraphError and nothing else."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from fastcnn.engine.capture import capture
from fastcnn.engine.graph import Graph, GraphError, graph_from_json, infer_shapes
from tests.models.odd import ODD
from tests.reference.interpreter import run_graph

SAVEABLE = [name for name in ODD if name != "unknown"]


def captured(name: str) -> Graph:
    build, shape = ODD[name]
    torch.manual_seed(0)
    return capture(build().eval(), torch.zeros(shape), strict=True)


@pytest.mark.parametrize("name", SAVEABLE)
def test_round_trip(name: str) -> None:
    graph = captured(name)
    structure = json.loads(json.dumps(graph.to_json()))
    again = graph_from_json(structure, graph.weights)
    assert again.to_json() == graph.to_json()
    assert again.inputs == graph.inputs
    x = np.random.default_rng(0).standard_normal(ODD[name][1]).astype(np.float32)
    name_in = graph.inputs[0].name
    for a, b in zip(run_graph(graph, {name_in: x}), run_graph(again, {name_in: x}), strict=True):
        np.testing.assert_array_equal(a, b)


JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), "", "relu", "x" * 5000,
    "\x00", [], [[]], [0] * 20, [None], [-1, -1], [[0, 0]] * 4, {}, {"a": 1}, {"op": "relu"}, {"residual": None},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def damage(structure: Any, rng: random.Random) -> Any:
    """Replace, delete, duplicate or move something."""
    result = copy.deepcopy(structure)
    *parents, last = rng.choice(places(result))
    holder = result
    for key in parents:
        holder = holder[key]
    kind = rng.randrange(4)
    if kind == 0:
        holder[last] = copy.deepcopy(rng.choice(JUNK))
    elif kind == 1:
        del holder[last]
    elif kind == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[last]))
    elif isinstance(holder[last], int) and not isinstance(holder[last], bool):
        holder[last] += rng.choice([-3, -1, 1, 5, 1000])
    else:
        holder[last] = copy.deepcopy(rng.choice(JUNK))
    return result


@pytest.mark.parametrize("name", ["unet", "squeeze_excite", "wave", "shuffle"])
def test_damaged_structures(name: str) -> None:
    """2,000 damaged graphs each: GraphError from the reader or from shape inference, or a graph that still works."""
    graph = captured(name)
    structure = json.loads(json.dumps(graph.to_json()))
    rng = random.Random(name)
    refused: list[str] = []
    for _ in range(2000):
        bad = damage(structure, rng)
        if rng.random() < 0.3:
            bad = damage(bad, rng) if places(bad) else bad
        try:
            again = graph_from_json(bad, graph.weights)
            infer_shapes(again, {value.name: value.shape for value in again.inputs})
        except GraphError as error:
            refused.append(str(error))
    assert len(refused) > 1000
    assert all(refused), "an error without words"


@pytest.mark.parametrize("top", JUNK)
def test_not_even_a_graph(top: Any) -> None:
    with pytest.raises(GraphError):
        graph_from_json(top, {})


def test_internal_and_torch_ops_never_come_from_a_file() -> None:
    base = captured("shared").to_json()
    for op, attrs, message in (
        ("scale_shift", {}, "parameter 'scale' is missing"),
        ("torch", {"target": "aten::erf", "key": "k"}, "a torch step .* is not allowed here"),
    ):
        bad = copy.deepcopy(base)
        bad["nodes"][1].update(op=op, attrs=attrs)
        with pytest.raises(GraphError, match=message):
            graph_from_json(bad, captured("shared").weights)
    bad = copy.deepcopy(base)
    bad["nodes"][0]["attrs"]["epilogue"] = {"residual": None, "activation": None, "order": "add_then_act"}
    with pytest.raises(GraphError, match="made by plan passes only"):
        graph_from_json(bad, captured("shared").weights)
