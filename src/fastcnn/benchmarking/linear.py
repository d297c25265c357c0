"""Structured linear layers against the best dense one: ``python -m fastcnn.benchmarking.linear --out FILE``.

A dense layer of 4096x4096 in float32 is timed in our engine, in torch and in OpenVINO; structured layers of the same
size in our engine. All take turns, every block in a fresh process, twice: *warm*, one call right after the other, and
*evicted*, other memory being read between calls, so that weights come from memory as they do in a net that is larger
than the caches. The goals are for the warm times: median over the rounds of our time over the best dense one's,
whichever that is in the round.

By default our engine keeps the weights of large linear layers in 16 bits with a scale for every 64, dense or SVD.
That plan of the dense layer is timed too, for a ratio that decides nothing, since its weights are not float32; and SVD
is timed both ways, of which the one with float32 factors has the goal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn.benchmarking.command import add_timing, complaint, guarded, timing_of, write_record
from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.settle import random_pictures
from fastcnn.benchmarking.turns import Entry, error_of, medians, own_entry, ratios, spread, time_in_turns
from fastcnn.cli.output import log, progress_bar

if TYPE_CHECKING:
    from torch import nn

SIZE = 4096
STATES = ("warm", "evicted")
LEAST_EVICTED = 1 << 28
"""Bytes that are read between calls of the second, at least; twice the last cache if that is more."""
PEERS = ("torch", "openvino")
MAX_ERROR = 1e-4
HALF = "fastcnn, 16-bit weights"
"""Our dense layer as it is planned by default."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A structured layer, the batch it is timed at, and how much of the dense layer's time it may take.

    Parameters
    ----------
    goal : float or None
        None where none was set.
    tolerance : {"exact", "fp32"}
        Of its plan.
    """

    name: str
    batch: int
    goal: float | None
    layer: Callable[[], nn.Module]
    tolerance: str = "fp32"


def _block_circulant() -> nn.Module:
    from fastcnn.methods.structured.circulant import BlockCirculantLinear

    return BlockCirculantLinear(SIZE, SIZE, block_size=16)


def _circulant() -> nn.Module:
    from fastcnn.methods.structured.circulant import CirculantLinear

    return CirculantLinear(SIZE, SIZE)


def _fastfood() -> nn.Module:
    from fastcnn.methods.structured.fastfood import FastfoodLinear

    return FastfoodLinear(SIZE, SIZE)


def _acdc() -> nn.Module:
    from fastcnn.methods.structured.acdc import ACDCLinear

    return ACDCLinear(SIZE, SIZE)


def _svd() -> nn.Module:
    from fastcnn.methods.structured.svd import SVDLinear

    return SVDLinear(SIZE, SIZE, rank=256)


def _tensor_train() -> nn.Module:
    from fastcnn.methods.structured.tensor_train import TTLinear

    return TTLinear(SIZE, SIZE, rank=8)


CASES = (
    Case(name="block-circulant, blocks of 16", batch=1, goal=0.25, layer=_block_circulant),
    Case(name="block-circulant, blocks of 16", batch=64, goal=0.35, layer=_block_circulant),
    Case(name="Adaptive Fastfood", batch=1, goal=0.05, layer=_fastfood),
    Case(name="circulant", batch=1, goal=0.05, layer=_circulant),
    Case(name="ACDC, K = 1", batch=1, goal=0.05, layer=_acdc),
    Case(name="SVD, rank 256", batch=1, goal=0.15, layer=_svd, tolerance="exact"),
    Case(name="SVD, rank 256, 16-bit weights", batch=1, goal=None, layer=_svd),
    Case(name="Tensor-Train, rank 8", batch=1, goal=None, layer=_tensor_train),
)


def _flat(layer: nn.Module) -> nn.Module:
    """Input (N, SIZE, 1, 1), as benchmarks have it."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), layer).eval()


def _dense() -> nn.Module:
    from torch import nn

    return nn.Linear(SIZE, SIZE)


def _prepare(root: Path, batch: int, cases: Sequence[Case], threads: int) -> tuple[list[Entry], dict[str, Entry]]:
    """Export and compile everything of one batch size; entries of the dense layer, and of structured ones by name."""
    import torch

    inputs = random_pictures(2, (batch, SIZE, 1, 1), seed=7)
    torch.manual_seed(0)
    dense_layer = _flat(_dense())
    dense = [
        own_entry("fastcnn", dense_layer, inputs, root / "exact", tolerance="exact", threads=threads, peers=PEERS),
        own_entry(HALF, dense_layer, inputs, root / "fp32", tolerance="fp32", threads=threads),
    ]
    for peer in PEERS:
        # Neither converts the exported model beforehand. Memory formats do not tell vectors apart: the first will do.
        dense.append(Entry(label=peer, engine=peer, variant=ENGINES[peer].variants[0], folder=dense[0].folder))
    ours = {
        case.name: own_entry(
            case.name, _flat(case.layer()), inputs, root / f"case-{index}", tolerance=case.tolerance, threads=threads
        )
        for index, case in enumerate(cases)
    }
    return dense, ours


def evicted_bytes() -> dict[str, int]:
    """What is read between calls, by state."""
    from fastcnn import _native

    return {"warm": 0, "evicted": max(LEAST_EVICTED, 2 * int(_native.host()["l3_bytes"]))}


def measure(cases: Sequence[Case], *, threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time the cases and the dense layer in turn.

    Returns
    -------
    list of dict
        One per case: times in ms by state and label, one for each round; ratios, and whether the goal is met.

    Raises
    ------
    EngineFailedError
        If an engine fails.
    """
    found = []
    for batch in sorted({case.batch for case in cases}):
        mine = [case for case in cases if case.batch == batch]
        with tempfile.TemporaryDirectory(prefix="fastcnn-linear-") as folder:
            dense, ours = _prepare(Path(folder), batch, mine, threads)
            entries = [*dense, *ours.values()]
            errors = {entry.label: error_of(entry, threads=threads) for entry in entries}
            with progress_bar(f"batch {batch}", rounds * len(STATES) * len(entries)) as advance:
                times = time_in_turns(
                    entries, threads=threads, rounds=rounds, seconds=seconds, evicted=evicted_bytes(), advance=advance
                )
        labels = [entry.label for entry in dense]
        found += [_row(case, times, labels, errors) for case in mine]
    return found


def _row(
    case: Case, times: Mapping[str, Mapping[str, list[float]]], dense: Sequence[str], errors: Mapping[str, float]
) -> dict[str, Any]:
    """What one case came to."""
    float32 = [label for label in dense if label != HALF]

    found, to_half = (
        {state: ratios(times[state], case.name, labels) for state in STATES} for labels in (float32, [HALF])
    )
    median = {state: statistics.median(found[state]) for state in STATES}
    best = min(float32, key=lambda label: statistics.median(times["warm"][label]))
    return {
        "case": case.name,
        "batch": case.batch,
        "goal": case.goal,
        "ratio": median["warm"],
        "ratio_evicted": median["evicted"],
        "ratios": found,
        "ratio_to_16_bits": {state: statistics.median(to_half[state]) for state in STATES},
        "best_dense": best,
        "ms": {state: {label: times[state][label] for label in (case.name, *dense)} for state in STATES},
        "errors": {label: errors[label] for label in (case.name, *dense)},
        "met": None if case.goal is None else bool(median["warm"] <= case.goal and errors[case.name] <= MAX_ERROR),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in lines for people."""
    lines = [
        f"{'':30} {'':5} {'warm':>8} {'':8} {'':>6} {'':6} {'to 16':>6}  {'evicted':>8} {'':8} {'':6}",
        f"{'layer':30} {'batch':>5} {'ms':>8} {'dense':>8} {'ratio':>6} {'goal':>6} {'bits':>6}  {'ms':>8} "
        f"{'dense':>8} {'ratio':>6}  best dense",
    ]
    for row in rows:
        ms = {state: medians(row["ms"][state]) for state in STATES}
        goal = "" if row["goal"] is None else format(row["goal"], ".2f")
        own = {state: ms[state][row["case"]] for state in STATES}
        dense = {state: min(t for name, t in ms[state].items() if name not in (row["case"], HALF)) for state in STATES}
        lines.append(
            f"{row['case']:30} {row['batch']:5} {own['warm']:8.4f} {dense['warm']:8.3f} {row['ratio']:6.3f} "
            f"{goal:>6} {row['ratio_to_16_bits']['warm']:6.3f}  {own['evicted']:8.4f} {dense['evicted']:8.3f} "
            f"{row['ratio_evicted']:6.3f}  {row['best_dense']}"
            + (f"  warm ratio {spread(row['ratios']['warm'])}" if len(row["ratios"]["warm"]) > 1 else "")
            + ("  MISSED" if row["met"] is False else "")
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the goals hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.benchmarking.linear", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--only", default="", help="layers whose name holds this")
    add_timing(parser, rounds=9)
    options = parser.parse_args(arguments)
    if wrong := complaint(options, PEERS):
        log(f"error: {wrong}")
        return 2
    cases = [case for case in CASES if options.only.lower() in case.name.lower()]
    if not cases:
        log(f"error: --only {options.only}: choose a part of {', '.join(sorted({case.name for case in CASES}))}")
        return 2
    return guarded(partial(_run, options, cases))


def _run(options: argparse.Namespace, cases: Sequence[Case]) -> int:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = measure(cases, **timing_of(options))
    found = {
        "size": SIZE,
        "settings": timing_of(options),
        "evicted_bytes": evicted_bytes()["evicted"],
        "passed": len(cases) == len(CASES) and all(row["met"] is not False for row in rows),
        "max_error": MAX_ERROR,
        "rows": rows,
    }
    write_record(options.out, found)
    print(table(rows))
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
