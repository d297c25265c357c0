"""What Tucker-2 gains in the engine: ``python -m fastcnn.reproduction.structured.conv_speed`` with --net --ranks --out.

The plain net for CIFAR-10 with the ranks that :mod:`fastcnn.reproduction.structured.conv_net` chose and fine-tuned, and
VGG-16 and ResNet-18 (random, settled weights) at the same share of each layer's channels, against the plans of the
dense nets: by exact kernels only (``tolerance="exact"``), and the default plan, which has Winograd. All take turns,
every block in a fresh process; the gates are for the median over the rounds. Of the larger nets, layers that the chain
alone makes no faster stay dense: the record has every layer's times, and for those a curve of times over ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fastcnn.benchmarking.command import add_timing, complaint, guarded, timing_of, write_record
from fastcnn.benchmarking.settle import random_pictures
from fastcnn.benchmarking.suite import suite_models
from fastcnn.benchmarking.turns import error_of, medians, own_entry, ratios, spread, time_in_turns
from fastcnn.cli.output import log, progress_bar
from fastcnn.compression.calibrate import sights
from fastcnn.methods.structured.ranks import vector_width
from fastcnn.methods.structured.tucker import TuckerConfig, TuckerConv2d
from fastcnn.reproduction.structured.conv_net import with_tucker
from fastcnn.reproduction.winograd_labels.nets import INPUT_SHAPE, vgg_like

MODULE = "fastcnn.reproduction.structured.conv_speed"
OWN = "vgg-like"
EXACT, FP32, TUCKER = "dense, exact kernels", "dense", "Tucker-2"
MAX_ERROR = 1e-4
STATES = {"warm": 0}
Ranks = Mapping[str, Sequence[int]]
TIMINGS, LEAST_GAIN = 3, 1.03
"""Of a layer alone, and how much faster its chain must be to stay."""
_KEPT = {"declined": False}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How many times as fast as the dense plans a net must be, at least; None where nothing is asked."""

    exact: float | None
    fp32: float


GATES = {
    OWN: Gate(exact=1.25, fp32=1.0),
    "vgg16": Gate(exact=None, fp32=1.15),
    "resnet18": Gate(exact=None, fp32=1.15),
}


def shares(net: nn.Module, ranks: Ranks) -> tuple[float, float]:
    """Mean share of the input and output channels that the ranks of the chosen layers keep."""
    kept = []
    for name, (inner, outer) in ranks.items():
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        kept.append((inner / conv.in_channels, outer / conv.out_channels))
    return statistics.fmean(share for share, _ in kept), statistics.fmean(share for _, share in kept)


def ranks_by_share(net: nn.Module, share: tuple[float, float]) -> dict[str, tuple[int, int]]:
    """The same share of every convolution's channels, in whole vectors; of those with taps and more than colours."""
    width = vector_width()

    def part(channels: int, kept: float) -> int:
        # Halves up: of 64 channels 62 % are 48, never 32.
        return min(channels, max(width, int(kept * channels / width + 0.5) * width))

    return {
        name: (part(module.in_channels, share[0]), part(module.out_channels, share[1]))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) and module.in_channels > 3
    }


def layer_times(net: nn.Module, ranks: Ranks, shape: tuple[int, ...], threads: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each layer alone, dense and at its ranks; where the chain is no faster also at lower ranks.

    Medians of ``TIMINGS`` in turn; layers of one shape share theirs.
    """
    found: dict[str, dict[str, Any]] = {}
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    picture = torch.from_numpy(random_pictures(1, shape, seed=7)[0])
    with progress_bar("layers", len(ranks)) as advance:
        for name, sight in sights(net, list(ranks), [picture], threads=threads):
            dense = net.get_submodule(name)
            assert isinstance(dense, nn.Conv2d)
            assert sight is not None
            assert sight.latency_ms is not None
            inner, outer = ranks[name]
            ladder = TuckerConv2d.ladder(dense, TuckerConfig(ranks=(inner, outer)))
            latency = sight.latency_ms

            shape_of = (str(dense), sight.input_shape, inner, outer)
            if shape_of not in known:
                chain = ladder.build((inner, outer))
                pairs = [(latency(dense), latency(chain)) for _ in range(TIMINGS)]
                dense_ms, ms = (statistics.median(each) for each in zip(*pairs, strict=True))
                times: dict[str, Any] = {"dense_ms": dense_ms, "ranks": [inner, outer], "ms": ms}
                times["declined"] = ms > dense_ms / LEAST_GAIN
                if times["declined"]:
                    lower = {
                        ladder.rounded((inner * k // 8, outer * k // 8), TuckerConfig(rank=1)) for k in range(1, 8)
                    }
                    times["curve"] = [{"ranks": list(r), "ms": latency(ladder.build(r))} for r in sorted(lower)]
                known[shape_of] = times
            found[name] = known[shape_of]
            advance(note=name)
    return found


def measure(
    name: str, net: nn.Module, ranks: Ranks, shape: tuple[int, ...], *, threads: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Time one net, dense and with Tucker-2, in turn.

    Raises
    ------
    EngineFailedError
        If a block fails.
    """
    layers = {} if name == OWN else layer_times(net, ranks, shape, threads)
    small = with_tucker(net, {layer: pair for layer, pair in ranks.items() if not layers.get(layer, _KEPT)["declined"]})
    inputs = random_pictures(2, shape, seed=7)
    with tempfile.TemporaryDirectory(prefix="fastcnn-tucker-") as folder:
        entries = [
            own_entry(label, model, inputs, Path(folder) / str(index), tolerance=tolerance, threads=threads)
            for index, (label, model, tolerance) in enumerate(
                ((EXACT, net, "exact"), (FP32, net, "fp32"), (TUCKER, small, "fp32"))
            )
        ]
        errors = {entry.label: error_of(entry, threads=threads) for entry in entries}
        with progress_bar(name, rounds * len(entries)) as advance:
            times = time_in_turns(
                entries, threads=threads, rounds=rounds, seconds=seconds, evicted=STATES, advance=advance
            )["warm"]
    return row(name, times, errors) | {
        "ranks": {layer: list(pair) for layer, pair in ranks.items()},
        "layers": layers,
        "params": sum(p.numel() for p in small.parameters()),
        "dense_params": sum(p.numel() for p in net.parameters()),
    }


def row(name: str, times: Mapping[str, Sequence[float]], errors: Mapping[str, float]) -> dict[str, Any]:
    """What a net came to: gains over both dense plans, and whether they are enough."""
    gate = GATES[name]
    gains = {label: [1 / ratio for ratio in ratios(times, TUCKER, [label])] for label in (EXACT, FP32)}
    exact, fp32 = (statistics.median(gains[label]) for label in (EXACT, FP32))
    enough = fp32 >= gate.fp32 and (gate.exact is None or exact >= gate.exact)
    return {
        "net": name,
        "gain_over_exact": exact,
        "gain_over_fp32": fp32,
        "min_gain_over_exact": gate.exact,
        "min_gain_over_fp32": gate.fp32,
        "gains": gains,
        "ms": dict(times),
        "errors": dict(errors),
        "passed": bool(enough and errors[TUCKER] <= MAX_ERROR),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The nets in lines for people."""
    lines = [f"{'net':10} {'exact ms':>9} {'dense ms':>9} {'Tucker-2':>9}  {'over exact':>11} {'over dense':>11}  gate"]
    for found in rows:
        ms = medians(found["ms"])
        lines.append(
            f"{found['net']:10} {ms[EXACT]:9.3f} {ms[FP32]:9.3f} {ms[TUCKER]:9.3f}  {found['gain_over_exact']:10.2f}x "
            f"{found['gain_over_fp32']:10.2f}x  {'met' if found['passed'] else 'MISSED'}  "
            f"over dense {spread(found['gains'][FP32])}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--net", type=Path, required=True, help="safetensors file of the plain net's weights")
    parser.add_argument("--ranks", type=Path, required=True, help="JSON file of its ranks, as conv_net writes it")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--nets", nargs="+", choices=list(GATES), default=list(GATES))
    add_timing(parser, rounds=15)
    options = parser.parse_args(arguments)
    if wrong := complaint(options):
        log(f"error: {wrong}")
        return 2
    own = vgg_like()
    try:
        own.load_state_dict(load_file(options.net))
        ranks = json.loads(options.ranks.read_text(encoding="utf-8"))["ranks"]
        share = shares(own, ranks)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, AttributeError) as error:
        log(f"error: --net or --ranks: {str(error).splitlines()[0]}")
        return 2
    return guarded(partial(_run, options, own.eval(), ranks, share))


def _run(options: argparse.Namespace, own: nn.Module, ranks: Ranks, share: tuple[float, float]) -> int:
    rows = []
    timing = timing_of(options)
    for name in options.nets:
        if name == OWN:
            rows.append(measure(name, own, ranks, (1, *INPUT_SHAPE), **timing))
            continue
        shape = (1, 3, 224, 224)
        for _, net in suite_models("exact", shape, only=name):
            rows.append(measure(name, net.eval(), ranks_by_share(net, share), shape, **timing))
    met = all(found["passed"] for found in rows)
    document = {
        "settings": timing,
        "share_of_channels": share,
        "max_error": MAX_ERROR,
        "passed": len(rows) == len(GATES) and met,
        "net_sha256": hashlib.sha256(options.net.read_bytes()).hexdigest(),
        "ranks_sha256": hashlib.sha256(options.ranks.read_bytes()).hexdigest(),
        "rows": rows,
    }
    write_record(options.out, document)
    print(table(rows))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
