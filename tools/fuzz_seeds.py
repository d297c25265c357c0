"""Small .fcnn files that between them use every form of coding: where fuzzing starts.

``python tools/fuzz_seeds.py FOLDER`` writes the golden file of the present format version and its expected contents.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.artifact import save_graph
from fastcnn.engine.graph import Graph, GraphInput, make_node

FORMS = (
    "raw",
    "planes/exponent",
    "planes/delta",
    "symbols",
    "codebook",
    "packed",
    "huffman",
    "rans",
    "sparse",
)


def _skewed(rng: np.random.Generator, count: int, share: float, values: int) -> np.ndarray:
    """Mostly 0, the rest among 1 .. values-1, small ones likelier."""
    rest = np.minimum(rng.geometric(0.3, count), values - 1)
    return np.where(rng.random(count) < share, 0, rest)


def arrays() -> dict[str, np.ndarray]:
    """Arrays whose smallest forms cover the list; float32 unless named codes."""
    rng = np.random.default_rng(20240607)
    levels = np.concatenate([[0.0], rng.normal(0, 1, 40)]).astype(np.float32)
    return {
        "raw": rng.normal(0, 1, 5).astype(np.float32),
        "scalar": np.array(1.5, np.float32),
        "planes": rng.normal(0, 0.1, (3, 100)).astype(np.float32),
        "ascending": np.sort(rng.normal(0, 1, 120)).astype(np.float32),
        "equal": np.full((4, 5), -0.0, np.float32),
        "packed": levels[rng.integers(1, 5, (8, 10))],
        "huffman": levels[np.minimum(rng.geometric(0.5, 600), 8)],
        "rans": levels[_skewed(rng, 1500, 0.3, 30)],
        "lanes": levels[_skewed(rng, 8200, 0.3, 6)],
        "sparse": levels[_skewed(rng, 4000, 0.93, 20)].reshape(40, 100),
        "clumped": np.where(np.arange(9000) // 300 % 3 == 0, levels[_skewed(rng, 9000, 0.7, 20)], 0).astype(np.float32),
        "very_sparse": levels[_skewed(rng, 9000, 0.998, 3)],
        "codes": _skewed(rng, 2000, 0.9, 33).reshape(20, 100).astype(np.uint8),
        "wide_codes": rng.integers(0, 5000, (4, 25)).astype(np.uint16),
    }


def every_form() -> Graph:
    """One graph over all of :func:`arrays`: constants, and two layers with codebooks."""
    weights = arrays()
    rng = np.random.default_rng(7)
    outputs = []
    nodes = []
    for name in weights:
        if name.endswith("codes"):
            size = 5000 if name == "wide_codes" else 33
            book = np.arange(size) / 4 if size > 33 else np.r_[0, np.sort(rng.normal(0, 1, size - 1))]
            nodes.append(
                make_node(f"y_{name}", "codebook_linear", ["x"], params={"codebook": f"{name}_book", "codes": name})
            )
            weights = {**weights, f"{name}_book": book.astype(np.float32)}
        else:
            nodes.append(make_node(f"y_{name}", "constant", [], params={"value": name}, source=f"layer.{name}"))
        outputs.append(f"y_{name}")
    # wide_codes has 25 inputs, codes 100: the graph is for the file only and is never run.
    return Graph(inputs=(GraphInput(name="x", shape=(1, 100)),), nodes=nodes, outputs=tuple(outputs), weights=weights)


def small_net() -> Graph:
    """A convolutional net with attributes of every JSON type."""
    rng = np.random.default_rng(11)
    weights = {
        "conv.weight": rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 1, 4).astype(np.float32),
        "fc.weight": np.where(rng.random((5, 36)) < 0.8, 0, rng.choice([-0.5, 0.25], (5, 36))).astype(np.float32),
    }
    window = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1], "ceil_mode": True}
    attrs = {"stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    nodes = [
        make_node(
            "conv", "conv2d", ["x"], params={"weight": "conv.weight", "bias": "conv.bias"}, attrs=attrs, source="conv"
        ),
        make_node("act", "clamp", ["conv"], attrs={"min": 0, "max": 6.0}),
        make_node("pool", "max_pool2d", ["act"], attrs=window),
        make_node("half", "slice", ["pool"], attrs={"dim": 1, "start": 0, "end": None, "step": 1}),
        make_node("both", "add", ["pool", "half"]),
        make_node("gelu", "gelu", ["both"], attrs={"approximate": "tanh"}),
        make_node("flat", "reshape", ["gelu"], attrs={"shape": [0, -1]}),
        make_node("fc", "linear", ["flat"], params={"weight": "fc.weight"}),
    ]
    return Graph(inputs=(GraphInput(name="x", shape=(1, 3, 6, 6)),), nodes=nodes, outputs=("fc",), weights=weights)


PLAN: dict[str, Any] = {"isa": "avx2", "threads": 2, "steps": [{"node": "conv", "kernel": "direct", "ms": 0.25}]}
META: dict[str, Any] = {"producer": "fastcnn", "tolerance": "fp32", "note": "naïve “quotes” \\ [brackets]"}


def forms_of(code: Any) -> set[str]:
    """Words of :data:`FORMS` that a description uses, its parts included."""
    if isinstance(code, list):
        return set().union(*map(forms_of, code)) if code else set()
    if not isinstance(code, dict):
        return set()
    found = set().union(*(forms_of(value) for value in code.values()))
    form = code.get("as")
    if form == "planes":
        found.add(f"planes/{code['order']}")
    elif isinstance(form, str):
        found.add(form)
    return found


def write_golden(folder: Path) -> None:
    """Write ``format1.fcnn`` and what it must give: ``format1.json`` (structure) and ``format1.safetensors``."""
    from safetensors.numpy import save_file

    graph = every_form()
    save_graph(folder / "format1.fcnn", graph, plan_hint=PLAN, meta=META)
    expected = {"graph": graph.to_json(), "plan_hint": PLAN, "meta": META}
    (folder / "format1.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(graph.weights, folder / "format1.safetensors")


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
