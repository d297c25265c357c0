"""Nets of 8 bits, and of one, against OpenVINO's of 8 bits: ``python -m fastcnn.benchmarking.int8 --out FILE``.

Nets of well-known structure with random, settled weights are quantised by ``Int8Config`` and by NNCF, calibrated on
the same pictures; a ResNet-18 of binary convolutions, whose other layers have 8 bits, stands beside the dense one. All
take turns, every block in a fresh process. A goal is for the median over the rounds of our time over the other's,
whichever of NNCF's presets (or, for the last row, of the engines in float32) is the fastest in the round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.benchmarking.command import add_timing, complaint, guarded, timing_of, write_record
from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.export import compile_ours, export_model
from fastcnn.benchmarking.files import CALIBRATION
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import run_worker
from fastcnn.benchmarking.settle import random_pictures
from fastcnn.benchmarking.suite import suite_models
from fastcnn.benchmarking.turns import TIMEOUT_S, Entry, error_of, medians, ratios, spread, time_in_turns
from fastcnn.cli.output import log, progress_bar

if TYPE_CHECKING:
    from torch import nn

PICTURE = (3, 224, 224)
CALIBRATED = 32
"""Pictures that ranges are chosen by."""
OURS, DENSE, BINARY = "fastcnn int8", "fastcnn float32", "fastcnn binary"
RIVAL, FLOAT_PEERS = "openvino-int8", ("torch", "onnxruntime", "openvino")
STATES = {"warm": 0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A net at a batch size, and how much of the rival's time it may take.

    Parameters
    ----------
    binary_goals : tuple of float, optional
        Of the net with binary convolutions: against the rival's 8 bits, and against the best engine in float32.
    """

    net: str
    batch: int
    goal: float
    binary_goals: tuple[float, float] | None = None

    @property
    def title(self) -> str:
        return f"{self.net}, batch {self.batch}"


CASES = (
    Case(net="mobilenetv2", batch=1, goal=0.85),
    Case(net="vgg16", batch=1, goal=1.02),
    Case(net="resnet50", batch=1, goal=1.05),
    Case(net="resnet18", batch=1, goal=1.10, binary_goals=(0.55, 0.2)),
    Case(net="mobilenetv2", batch=8, goal=0.6),
    Case(net="vgg16", batch=8, goal=1.05),
    Case(net="resnet50", batch=8, goal=1.05),
    Case(net="resnet18", batch=8, goal=1.05),
)


def _rival_entries(folder: Path) -> list[Entry]:
    """Quantise the exported model by every preset, in a process of its own."""
    job = Job(
        task="convert", engine=RIVAL, variant=ENGINES[RIVAL].variants[0], folder=str(folder), threads=2, warmup_s=0.0,
        seconds=0.0, result=str(folder / "result.json"),
    )  # fmt: skip
    run_worker(job, timeout_s=TIMEOUT_S)
    return [
        Entry(label=f"{RIVAL} {variant}", engine=RIVAL, variant=variant, folder=folder)
        for variant in ENGINES[RIVAL].variants
    ]


def _own_entry(label: str, model: nn.Module, like: Path, folder: Path, *, threads: int) -> Entry:
    """Compile a model that has the inputs and exact outputs of another's folder."""
    folder.mkdir()
    for path in like.glob("*.npy"):
        (folder / path.name).write_bytes(path.read_bytes())
    compile_ours(model, np.load(folder / "inputs.npy"), folder, tolerance="fp32", threads=threads)
    return Entry(label=label, engine="fastcnn", variant="default", folder=folder)


def entries_of(case: Case, net: nn.Module, root: Path, *, threads: int) -> list[Entry]:
    """Everything of one case, exported, quantised and compiled."""
    import torch

    import fastcnn
    from fastcnn.methods.lowprecision import Int8Config

    shape = (case.batch, *PICTURE)
    inputs = random_pictures(2, shape, seed=7)
    calibration = random_pictures(CALIBRATED // case.batch, shape, seed=8)
    dense = root / "dense"
    dense.mkdir()
    np.save(dense / CALIBRATION, calibration)
    export_model(net, inputs, dense, engines=(RIVAL, *(FLOAT_PEERS if case.binary_goals else ())))
    pictures = [torch.from_numpy(batch) for batch in calibration]
    small: Any = fastcnn.convert(net, Int8Config(), data=pictures)
    found = [
        _own_entry(OURS, small, dense, root / "int8", threads=threads),
        _own_entry(DENSE, net, dense, root / "float", threads=threads),
        *_rival_entries(dense),
    ]
    if case.binary_goals:
        from fastcnn.reproduction.lowprecision.binary_resnet import packed, settled

        binary = packed(settled(shape), pictures)
        found.append(_own_entry(BINARY, binary, dense, root / "binary", threads=threads))
        for peer in FLOAT_PEERS:
            found += [
                Entry(label=f"{peer} {variant}", engine=peer, variant=variant, folder=dense)
                for variant in ENGINES[peer].variants_at(case.batch)
            ]
    return found


def measure(case: Case, net: nn.Module, *, threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time one net's entries in turn; a row for 8 bits, and one or two for the binary net.

    Raises
    ------
    EngineFailedError
        If an engine fails.
    """
    with tempfile.TemporaryDirectory(prefix="fastcnn-int8-") as folder:
        entries = entries_of(case, net, Path(folder), threads=threads)
        # The binary net is another net: there is no output that it should have.
        errors = {e.label: error_of(e, threads=threads) for e in entries if e.label != BINARY}
        with progress_bar(case.title, rounds * len(entries)) as advance:
            times = time_in_turns(
                entries, threads=threads, rounds=rounds, seconds=seconds, evicted=STATES, advance=advance
            )["warm"]
    return rows_of(case, times, errors)


def rows_of(case: Case, times: Mapping[str, Sequence[float]], errors: Mapping[str, float]) -> list[dict[str, Any]]:
    """What one case came to, for each of its goals."""
    rivals = [label for label in times if label.startswith(RIVAL)]
    floats = [label for label in times if label.split()[0] in FLOAT_PEERS]
    asked = [(OURS, "int8", rivals, case.goal)]
    if case.binary_goals:
        first, second = case.binary_goals
        asked += [(BINARY, "binary to int8", rivals, first), (BINARY, "binary to float32", floats, second)]
    found = []
    for ours, what, others, goal in asked:
        by_round = ratios(times, ours, others)
        found.append(
            {
                "net": case.net,
                "batch": case.batch,
                "what": what,
                "goal": goal,
                "ratio": statistics.median(by_round),
                "ratios": by_round,
                "best_other": min(others, key=lambda label: statistics.median(times[label])),
                "ms": {label: list(times[label]) for label in (ours, *others, DENSE)},
                "errors": dict(errors),
                "met": bool(statistics.median(by_round) <= goal),
            }
        )
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in lines for people."""
    lines = [f"{'net':12} {'batch':>5} {'':17} {'ms':>8} {'other':>8} {'ratio':>6} {'goal':>5}  best other"]
    for row in rows:
        ms = medians(row["ms"])
        ours = OURS if row["what"] == "int8" else BINARY
        lines.append(
            f"{row['net']:12} {row['batch']:5} {row['what']:17} {ms[ours]:8.3f} {ms[row['best_other']]:8.3f} "
            f"{row['ratio']:6.3f} {row['goal']:5.2f}  {row['best_other']}, ratio {spread(row['ratios'])}, our float32 "
            f"{ms[DENSE]:.3f} ms" + ("" if row["met"] else "  MISSED")
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the goals hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.benchmarking.int8", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--nets", nargs="+", choices=sorted({case.net for case in CASES}))
    parser.add_argument("--batches", nargs="+", type=int, choices=(1, 8), default=[1, 8])
    add_timing(parser, rounds=9)
    options = parser.parse_args(arguments)
    if wrong := complaint(options, (RIVAL, *FLOAT_PEERS)):
        log(f"error: {wrong}")
        return 2
    return guarded(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    chosen = [c for c in CASES if c.batch in options.batches and c.net in (options.nets or [c.net])]
    rows: list[dict[str, Any]] = []
    for case in chosen:
        known = len(rows)
        for _, net in suite_models("exact", (8, *PICTURE), only=case.net):
            rows += measure(case, net.eval(), **timing_of(options))
        log(table(rows[known:]))
    met = all(row["met"] for row in rows)
    found = {
        "settings": timing_of(options),
        "calibrated_on": CALIBRATED,
        "versions": {peer: ENGINES[peer].version() for peer in (RIVAL, *FLOAT_PEERS)},
        "passed": len(chosen) == len(CASES) and met,
        "rows": rows,
    }
    write_record(options.out, found)
    print(table(rows))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
