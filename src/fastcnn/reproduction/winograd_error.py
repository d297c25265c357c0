"""The error of Winograd convolution in float32: ``python -m fastcnn.reproduction.winograd_error --out FILE``.

One layer for each kernel and number of channels, uniform inputs and weights; one row for each output tile. Kernels of
one row are transformed along the other axis alone. The error is max|y - y64| / max|y64|, worst picture, y64 by torch in
float64. Beside it stands direct convolution in float32, torch's and the engine's. For 3x3 the published order, F(2,3)
<= 2 direct < F(4,3) < F(6,3), must show beside torch's with the published points; of the native kernels it is recorded
beside both. Then the points of each form are searched again, and measured beside them are the native kernels' and, for
tiles of 6, the integers of Lavin and Gray's F(4,3).

The record is written after each layer, so that an interrupted run goes on where it stopped; ``--again`` begins anew.

References
----------
Lavin and Gray 2016, arXiv:1509.09308, table 4; Barabasz et al. 2018, arXiv:1803.10986, for larger tiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from fastcnn import _native
from fastcnn.benchmarking.error import relative_error
from fastcnn.cli.output import log, plain, progress_bar, write_atomically
from fastcnn.engine.graph import Graph, GraphInput, Node
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.tiles import WINOGRAD_TILES
from fastcnn.engine.run.net import CompiledNet
from fastcnn.methods.transforms.winograd import (
    SUM_TERMS,
    WinogradForm,
    default_points,
    nested_form,
    search_points,
    searched_points,
    simple_rationals,
    split_kernel,
    winograd_correlate,
    winograd_correlate_sum,
)
from fastcnn.reporting.host import commit, host_facts

KERNELS = ((3, 3), (5, 5), (7, 7), (1, 3), (1, 5), (1, 7))
CHANNELS, TILES = (16, 128, 512), (2, 4, 6)
FILTERS, MAP, PICTURES = 16, 24, 4
"""Output channels, rows and columns of the output (whole tiles of every m), pictures."""
RUN_TERMS = 256
"""Channels that the native kernels sum in a row (native/runtime/steps/tile_weights.h)."""
SEARCHES = ((2, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 5), (6, 5), (2, 7), (4, 7))
INTEGERS = tuple(Fraction(p) for p in (0, 1, -1, 2, -2))
"""Points of Lavin and Gray's F(4,3), for tiles of 6."""
NEAR_DIRECT = 2.0
"""F(2,3) may have this many times the error of direct convolution."""

Pair = tuple[int, int]
Array = npt.NDArray[Any]


def layer_data(kernel: Pair, channels: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Pictures (N, C, H, W) and weights (F, C, r1, r2), float32, uniform in [-1, 1], for outputs of MAP x MAP."""
    rng = np.random.default_rng((seed, *kernel, channels))
    height, width = (MAP + r - 1 for r in kernel)
    pictures = rng.uniform(-1, 1, (PICTURES, channels, height, width)).astype(np.float32)
    return pictures, rng.uniform(-1, 1, (FILTERS, channels, *kernel)).astype(np.float32)


def native_outputs(pictures: Array, weight: Array, kernel: str) -> Array:
    """Outputs of the layer by one native kernel.

    Parameters
    ----------
    kernel : str
        ``"direct"``, or ``"winograd:M"`` for F(M, r) along the axes with more than one tap.

    Raises
    ------
    RuntimeError
        If the engine does not run that kernel here.
    """
    channels = weight.shape[1]
    # Winograd kernels read blocked maps, which a 1x1 convolution writes: here one that copies, exactly.
    weights = {"copy": np.eye(channels, dtype=np.float32)[:, :, None, None], "weight": weight}
    attrs = {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}
    nodes = [
        Node(name="blocked", op="conv2d", inputs=("x",), params={"weight": "copy"}, attrs=attrs),
        Node(name="layer", op="conv2d", inputs=("blocked",), params={"weight": "weight"}, attrs=attrs),
    ]
    inputs = (GraphInput(name="x", shape=pictures.shape),)
    graph = Graph(inputs=inputs, nodes=nodes, outputs=("layer",), weights=weights)
    isa = str(_native.host()["isa_active"])
    net = CompiledNet(
        graph, make_target(isa, 1), tolerance=9e-4, exact=False, how="hint",
        hint={"blocked": "direct", "layer": kernel}, known_error=0.0,
    )  # fmt: skip
    ran = {step.layer: step.kernel for step in net.plan.steps}
    wanted = "direct"
    if kernel != "direct":
        m, taps = kernel.partition(":")[2], weight.shape[2:]
        wanted = "winograd_f32_f" + "x".join("1" if r == 1 else m for r in taps) + f"k{taps[0]}x{taps[1]}_"
    if "direct" not in ran["blocked"] or wanted not in ran["layer"]:
        raise RuntimeError(f"the engine runs {ran['layer']} where {kernel} was asked for")
    outputs: Array = net(pictures)
    return outputs


def _correlate(pictures: Array, weight: Array, form: WinogradForm, sum_terms: int = SUM_TERMS) -> Array:
    """Outputs of all pictures."""
    return np.stack([winograd_correlate(picture, weight, form, sum_terms=sum_terms) for picture in pictures])


def measure_layer(kernel: Pair, channels: int, *, seed: int = 0) -> dict[str, Any]:
    """Measure every form of one layer.

    Returns
    -------
    dict
        kernel, channels, torch_direct, native_direct; forms: for each m of TILES the tile, the multiplications for each
        output (``multiplications``, ``split_multiplications``), and the errors in float32:

        - ``published``: of the published points, ``SUM_TERMS`` channels summed in a row;
        - ``searched``: of the points that lose least (:func:`searched_points`), with the same sums;
        - ``runs``: of these points with ``RUN_TERMS`` channels in a row, as the native kernels sum;
        - ``long_sums``: of these points with all channels in a row;
        - ``integers``: of the points ``INTEGERS`` with all channels in a row; null unless the tile is of 6;
        - ``split``: of the published points, in pieces of at most three taps; null for kernels of no more;
        - ``native``: of the engine's kernel; null where it has none.
    """
    pictures, weight = layer_data(kernel, channels, seed=seed)
    x, w = torch.from_numpy(pictures), torch.from_numpy(weight)
    exact = F.conv2d(x.double(), w.double()).numpy()

    def error(outputs: Array) -> float:
        return relative_error(outputs, exact)

    forms = []
    for m in TILES:
        split = split_kernel(kernel, m) if max(kernel) > 3 else None
        rows, columns = (searched_points(m, r) if r > 1 else None for r in kernel)
        form, best = nested_form(m, kernel), nested_form(m, kernel, (rows, columns))
        row: dict[str, Any] = {
            "m": m,
            "tile": m + max(kernel) - 1,
            "multiplications": float(form.multiplications),
            "split_multiplications": None,
            "published": error(_correlate(pictures, weight, form)),
            "searched": error(_correlate(pictures, weight, best)),
            "runs": error(_correlate(pictures, weight, best, RUN_TERMS)),
            "long_sums": error(_correlate(pictures, weight, best, channels)),
            "integers": None,
            "split": None,
            "native": None,
        }
        if row["tile"] == len(INTEGERS) + 1:
            rows, columns = (INTEGERS if r > 1 else None for r in kernel)
            integers = nested_form(m, kernel, (rows, columns))
            row["integers"] = error(_correlate(pictures, weight, integers, channels))
        if split is not None:
            row["split_multiplications"] = float(split.multiplications)
            row["split"] = error(np.stack([winograd_correlate_sum(picture, weight, split) for picture in pictures]))
        if m in WINOGRAD_TILES.get(kernel, ()):
            row["native"] = error(native_outputs(pictures, weight, f"winograd:{m}"))
        forms.append(row)
    return {
        "kernel": list(kernel),
        "channels": channels,
        "torch_direct": error(F.conv2d(x, w).numpy()),
        "native_direct": error(native_outputs(pictures, weight, "direct")),
        "forms": forms,
    }


def native_points(m: int, r: int) -> tuple[Fraction, ...] | None:
    """The finite points of the native kernels' F(m, r), None if there is no such kernel."""
    if m not in WINOGRAD_TILES.get((1, r), ()):
        return None
    tile = m + r - 1
    values = _native.winograd_matrices(m, r)[0][tile : 2 * tile - 1]
    return tuple(Fraction(value).limit_denominator(16) for value in values)


def measure_points(m: int, r: int, *, seed: int = 0) -> dict[str, Any]:
    """Search the points of F(m, r) in pairs, and measure beside them the published ones and the native kernel's.

    Returns
    -------
    dict
        As :meth:`PointSearch.to_json`; ``ranked`` is cut to the three best of the search and those beside them, each
        with the ``roles`` it plays: "published", "integers" (of tiles of 6), "kernel", "searched" (of
        :func:`searched_points`).
    """
    roles = {"published": default_points(m, r), "searched": searched_points(m, r)}
    if m + r - 1 == len(INTEGERS) + 1:
        roles["integers"] = INTEGERS
    if (kernel := native_points(m, r)) is not None:
        roles["kernel"] = kernel
    found = search_points(m, r, candidates=simple_rationals(8), pairs=True, beside=list(roles.values()), seed=seed)
    kept = []
    for place, score in enumerate(found.ranked):
        played = [role for role, points in roles.items() if set(points) == set(score.points)]
        if place < 3 or played:
            kept.append({"roles": played} | {k: v for k, v in score.to_json().items() if k != "source"})
    return found.to_json() | {"ranked": kept}


def orders(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors of 3x3 layers as multiples of the error of direct convolution.

    Returns
    -------
    list of dict
        For each layer, the published points and the native kernels (``kind``), and direct convolution of torch and of
        the engine (``direct``): ``channels``; ``ratios`` of F(2,3), F(4,3) and F(6,3); ``shows``, whether F(2,3) has
        at most ``NEAR_DIRECT`` times the error of direct convolution, F(4,3) more than that, and F(6,3) more still.
    """
    found = []
    for layer in layers:
        if layer["kernel"] == [3, 3]:
            for kind in ("published", "native"):
                for direct in ("torch_direct", "native_direct"):
                    two, four, six = ratios = [form[kind] / layer[direct] for form in layer["forms"]]
                    shows = two <= NEAR_DIRECT < four < six
                    found.append(
                        {
                            "channels": layer["channels"],
                            "kind": kind,
                            "direct": direct,
                            "ratios": ratios,
                            "shows": shows,
                        }
                    )
    return found


def order_shows(layers: Sequence[dict[str, Any]]) -> bool:
    """Whether the record passes: the published order shows with the published points beside torch's convolution.

    Of the native kernels, F(2,3) must be near direct convolution of the engine, and the error grow with the tile. Their
    F(4,3) may be that near too, by better points.
    """
    for order in orders(layers):
        two, four, six = order["ratios"]
        kinds = order["kind"], order["direct"]
        if kinds == ("published", "torch_direct") and not order["shows"]:
            return False
        if kinds == ("native", "native_direct") and not (two <= NEAR_DIRECT and two < four < six):
            return False
    return True


def summary(layers: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]], made: dict[str, Any]) -> dict[str, Any]:
    """The whole document; it passes when every layer and every search is there and the order shows."""
    whole = len(layers) == len(KERNELS) * len(CHANNELS) and len(points) == len(SEARCHES)
    return {
        **made,
        "settings": {
            "filters": FILTERS,
            "map": MAP,
            "pictures": PICTURES,
            "threads": 1,
            "sum_terms": SUM_TERMS,
            "run_terms": RUN_TERMS,
            "values": "uniform in [-1, 1]",
        },
        "gates": {"near_direct": NEAR_DIRECT},
        "passed": whole and order_shows(layers),
        "orders": orders(layers),
        "layers": list(layers),
        "points": list(points),
    }


def _facts(seed: int) -> dict[str, Any]:
    return {
        "commit": commit(),
        "date": datetime.now().isoformat(timespec="seconds"),
        "seed": seed,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "host": plain(host_facts()),
    }


def _known(path: Path, made: dict[str, Any]) -> tuple[dict[tuple[Pair, int], Any], dict[Pair, Any]]:
    """Layers by kernel and channels, searches by m and r, of a record that was made in the same way."""
    if not path.exists():
        return {}, {}
    document = json.loads(path.read_text(encoding="utf-8"))
    for name in ("commit", "seed", "torch", "numpy"):
        if document[name] != made[name]:
            raise ValueError(f"it was made at {name} {document[name]}, now it is {made[name]}: --again makes it anew")
    layers = {(tuple(layer["kernel"]), layer["channels"]): layer for layer in document["layers"]}
    return layers, {(search["m"], search["r"]): search for search in document["points"]}


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the order shows, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.winograd_error", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, and to go on with")
    parser.add_argument("--again", action="store_true", help="measure what the file already holds")
    parser.add_argument("--seed", type=int, default=0, help="of weights, pictures and tiles")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        log(f"error: --seed: {options.seed} is below 0")
        return 2
    made = _facts(options.seed)
    try:
        layers, points = ({}, {}) if options.again else _known(options.out, made)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: --out: {options.out} cannot be used: {error}")
        return 2
    if str(made["commit"]).endswith("-dirty"):
        log("warning: there are uncommitted changes: the record will say so; commit them first to make a clean one")
    torch.set_num_threads(1)

    def document() -> dict[str, Any]:
        return summary(
            [layers[kernel, c] for kernel in KERNELS for c in CHANNELS if (kernel, c) in layers],
            [points[form] for form in SEARCHES if form in points],
            made,
        )

    wanted_layers = [(kernel, c) for kernel in KERNELS for c in CHANNELS if (kernel, c) not in layers]
    wanted_points = [form for form in SEARCHES if form not in points]
    try:
        with progress_bar("winograd error", len(wanted_layers) + len(wanted_points)) as advance:
            for kernel, c in wanted_layers:
                layers[kernel, c] = measure_layer(kernel, c, seed=options.seed)
                write_atomically(options.out, json.dumps(document(), indent=1) + "\n")
                log(_line(layers[kernel, c]))
                advance(note=f"{kernel[0]}x{kernel[1]}, {c} channels")
            for m, r in wanted_points:
                points[m, r] = measure_points(m, r, seed=options.seed)
                write_atomically(options.out, json.dumps(document(), indent=1) + "\n")
                advance(note=f"points of F({m},{r})")
    except KeyboardInterrupt:
        log(f"interrupted: {options.out} holds {len(layers)} layers and {len(points)} searches; run again to go on")
        return 130
    done = document()
    for order in done["orders"]:
        two, four, six = order["ratios"]
        said = f"F(2,3) {two:.2f}, F(4,3) {four:.2f}, F(6,3) {six:.2f}: {'in' if order['shows'] else 'not in'} order"
        log(f"{order['channels']} channels, {order['kind']} / {order['direct']}: {said}")
    left_out = ("layers", "points", "orders", "host")
    print(json.dumps({key: value for key, value in done.items() if key not in left_out}, indent=1))
    return 0 if done["passed"] else 1


def _line(layer: dict[str, Any]) -> str:
    (down, across), r = layer["kernel"], max(layer["kernel"])
    forms = ", ".join(f"F({form['m']},{r}) {form['native'] or form['published']:.1e}" for form in layer["forms"])
    direct = f"direct {layer['native_direct']:.1e}, torch's {layer['torch_direct']:.1e}"
    return f"{down}x{across}, {layer['channels']} channels: {direct}, {forms}"


if __name__ == "__main__":
    sys.exit(main())
