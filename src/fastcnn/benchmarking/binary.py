"""Binary convolutions against dense ones and the limit: ``python -m fastcnn.benchmarking.binary --out FILE``.

A 3 x 3 convolution of signs is timed in its place in a net, from a map of float32 to one of signs: packing, products
and thresholds. Beside it, the same layer in float32: our direct kernel in the same place, and the layer alone in torch,
onnxruntime and OpenVINO, of which the fastest in each round counts; and our Winograd kernel, for a ratio that decides
nothing. The limit is what exclusive or, population count and addition come to on all threads, measured in the same
process. All take turns, every block in a fresh process, once with all that this machine has and once held to AVX2.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn.benchmarking.command import add_timing, complaint, guarded, timing_of, write_record
from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.export import compile_ours, export_model
from fastcnn.benchmarking.process import run_apart
from fastcnn.benchmarking.settle import random_pictures
from fastcnn.benchmarking.turns import TIMEOUT_S, spread
from fastcnn.cli.output import log, progress_bar

if TYPE_CHECKING:
    from torch import nn

CHANNELS_IN = 16
BINARY, DIRECT, WINOGRAD = "binary", "fastcnn direct", "fastcnn Winograd"
PEERS = ("torch", "onnxruntime", "openvino")
CAPPED = ("torch",)
"""Peers that can be held to AVX2 as we are."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A layer of so many channels, in and out, on a square map."""

    channels: int
    size: int

    @property
    def products(self) -> int:
        return 9 * (self.channels * self.size) ** 2


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Least share of the limit, or None, and least gain over the best direct kernel."""

    limit: float | None
    direct: float


CELLS = (Cell(channels=64, size=56), Cell(channels=128, size=28), Cell(channels=256, size=14))
GOALS = {"": Goals(limit=0.75, direct=14.0), "avx2": Goals(limit=None, direct=4.0)}
"""By instruction set; empty: all that there is."""


def chain(channels: int) -> nn.Module:
    """A layer that gives a map of float32, the one that is timed with its batch norm, and one that reads signs."""
    from torch import nn

    from fastcnn.benchmarking.settle import settle

    def conv() -> nn.Module:
        return nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    norms = [nn.BatchNorm2d(channels) for _ in range(2)]
    net = nn.Sequential(nn.Conv2d(CHANNELS_IN, channels, 1), norms[0], conv(), norms[1], conv())
    return settle(net, (8, CHANNELS_IN, 14, 14))


def prepare(cell: Cell, root: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Compile and export everything of one cell for this process's instruction set; jobs by label."""
    import torch
    from torch import nn

    import fastcnn
    from fastcnn.methods.lowprecision import BNNConfig

    torch.manual_seed(0)
    inputs = random_pictures(1, (1, CHANNELS_IN, cell.size, cell.size), seed=7)
    dense = chain(cell.channels)
    binary: Any = fastcnn.convert(fastcnn.prepare(dense, BNNConfig(skip=()), layers=["2", "4"]).eval())
    jobs: dict[str, dict[str, Any]] = {}
    for label, model, tolerance, steps in (
        (BINARY, binary, "exact", ["0.signs", "2"]),
        (DIRECT, dense, "exact", ["2"]),
        (WINOGRAD, dense, "fp32", ["2"]),
    ):
        folder = root / label.replace(" ", "-")
        folder.mkdir()
        export_model(model, inputs, folder, engines=())
        compile_ours(model, inputs, folder, tolerance=tolerance, threads=threads)
        jobs[label] = {"task": "time", "engine": "fastcnn", "variant": "", "folder": str(folder), "steps": steps}
    alone = root / "alone"
    alone.mkdir()
    layer = nn.Sequential(nn.Conv2d(cell.channels, cell.channels, 3, padding=1, bias=False)).eval()
    export_model(layer, random_pictures(1, (1, cell.channels, cell.size, cell.size), seed=7), alone, engines=PEERS)
    for peer in PEERS:
        for variant in ENGINES[peer].variants_at(1):
            jobs[f"{peer} {variant}"] = {
                "task": "time", "engine": peer, "variant": variant, "folder": str(alone), "steps": [],
            }  # fmt: skip
    return jobs


def measure(cell: Cell, isa: str, *, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Time one cell's entries in turn.

    Raises
    ------
    EngineFailedError
        If a block fails.
    """
    with tempfile.TemporaryDirectory(prefix="fastcnn-binary-") as folder:
        root = Path(folder)
        # Plans are made for an instruction set: in a process that has it.
        order = {"task": "prepare", "channels": cell.channels, "size": cell.size, "folder": folder, "threads": threads}
        jobs = _apart(order, root, "preparing", threads, isa)
        if isa:
            jobs = {label: job for label, job in jobs.items() if job["engine"] in ("fastcnn", *CAPPED)}
        answers: dict[str, list[dict[str, float]]] = {label: [] for label in jobs}
        turns = random.Random(0)
        with progress_bar(f"{cell.channels} channels {isa}", rounds * len(jobs)) as advance:
            for _ in range(rounds):
                for label in turns.sample(sorted(jobs), len(jobs)):
                    job = {**jobs[label], "threads": threads, "seconds": seconds, "onednn": isa.upper()}
                    answers[label].append(_apart(job, root, label, threads, isa))
                    advance(note=label)
    times = {label: [answer["ms"] for answer in found] for label, found in answers.items()}
    return row(cell, isa, times, [answer["limit"] for answer in answers[BINARY]])


def _apart(job: Mapping[str, Any], root: Path, what: str, threads: int, isa: str) -> dict[str, Any]:
    result = root / "result.json"
    return run_apart(
        "fastcnn.benchmarking.binary_block", json.dumps({**job, "result": str(result)}), result, what=what,
        threads=threads, isa=isa, timeout_s=TIMEOUT_S,
    )  # fmt: skip


def row(cell: Cell, isa: str, times: Mapping[str, Sequence[float]], limits: Sequence[float]) -> dict[str, Any]:
    """What one cell came to: shares of the limit, gains over the best dense kernel, and whether they are enough."""
    goals = GOALS[isa]
    mine = times[BINARY]
    direct = [label for label in times if label not in (BINARY, WINOGRAD)]
    shares = [cell.products / limit / 1e6 / ms for limit, ms in zip(limits, mine, strict=True)]
    gains = [min(times[label][i] for label in direct) / ms for i, ms in enumerate(mine)]
    share, gain = statistics.median(shares), statistics.median(gains)
    return {
        "channels": cell.channels,
        "size": cell.size,
        "isa": isa or "all",
        "share_of_limit": share,
        "min_share": goals.limit,
        "gain": gain,
        "min_gain": goals.direct,
        "gain_over_winograd": statistics.median(w / ms for w, ms in zip(times[WINOGRAD], mine, strict=True)),
        "best_direct": min(direct, key=lambda label: statistics.median(times[label])),
        "shares": shares,
        "gains": gains,
        "limit_gmacs": list(limits),
        "ms": {label: list(found) for label, found in times.items()},
        "met": bool((goals.limit is None or share >= goals.limit) and gain >= goals.direct),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in lines for people."""
    lines = [
        f"{'layer':14} {'isa':5} {'us':>7} {'of limit':>9} {'goal':>5} {'direct us':>10} {'gain':>6} {'goal':>5} "
        f"{'over Winograd':>14}  best direct"
    ]
    for found in rows:
        us = {label: 1e3 * statistics.median(times) for label, times in found["ms"].items()}
        least = "" if found["min_share"] is None else f"{found['min_share']:.2f}"
        lines.append(
            f"{found['channels']:4} at {found['size']:2}x{found['size']:<2} {found['isa']:5} {us[BINARY]:7.1f} "
            f"{found['share_of_limit']:9.2f} {least:>5} {us[found['best_direct']]:10.1f} {found['gain']:5.1f}x "
            f"{found['min_gain']:4.0f}x {found['gain_over_winograd']:13.1f}x  {found['best_direct']}, share of limit "
            f"{spread(found['shares'])}" + ("" if found["met"] else "  MISSED")
        )
    return "\n".join(lines)


def sets_here() -> list[str]:
    """Instruction sets that this machine can show: all it has, if that counts bits in lanes, and AVX2."""
    from fastcnn import _native

    known = _native.host()
    here = [] if known["isa_active"] in ("scalar", "avx2") else [""]
    return here + (["avx2"] if "avx2" in known["isa_available"] else [])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the goals hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.benchmarking.binary", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    add_timing(parser, rounds=9, seconds=0.4)
    options = parser.parse_args(arguments)
    if wrong := complaint(options, PEERS):
        log(f"error: {wrong}")
        return 2
    sets = sets_here()
    if not sets:
        log("error: this machine has neither AVX2 nor more: the goals are for such")
        return 2
    return guarded(partial(_run, options, sets))


def _run(options: argparse.Namespace, sets: Sequence[str]) -> int:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [measure(cell, isa, **timing_of(options)) for isa in sets for cell in CELLS]
    met = all(found["met"] for found in rows)
    record = {
        "settings": timing_of(options),
        "versions": {peer: ENGINES[peer].version() for peer in PEERS},
        "passed": met and len(rows) == len(GOALS) * len(CELLS),
        "rows": rows,
    }
    write_record(options.out, record)
    print(table(rows))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
