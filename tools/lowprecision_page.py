"""Write docs/concepts/low-precision.md from the records of few bits: ``python tools/lowprecision_page.py``.

The records are the JSON files ``benchmarks/results/lowprecision_*.json`` that the commands named on the page write; a
record that is not there leaves its section out. ``--check`` changes nothing and exits 1 if the page differs. No result
enters the page any other way.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from structured_page import ROOT, Record, host, middle, read, run, spread, table, verdict

PAGE = ROOT / "docs" / "concepts" / "low-precision.md"

INTRODUCTION = """\
# Low precision, measured

What nets of [8 bits](../methods/int8.md) and of [signs](../methods/bnn.md) cost in accuracy and gain in time, by
commands that anyone can run again; their records are in `benchmarks/results`. Goals stand beside the figures, met or
not. Times hold for the machine that is named, ratios travel better.
"""

BINARY = """\
## Binary convolutions

A 3x3 convolution of signs with as many filters as channels, in its place in a net: from a map of float32 to a map of
signs, with packing and thresholds. *Of the limit* is the time that exclusive or, population count and addition alone
would take on all threads, measured in the same process, over that of the layer. *Direct* is the best dense kernel in
float32 that multiplies everything: ours in the same place, or the layer alone in torch, onnxruntime or OpenVINO. Our
Winograd kernel stands beside it.

{table}

{host} Brackets hold the middle half of the rounds.

```bash
python -m fastcnn.benchmarking.binary --out benchmarks/results/lowprecision_binary.json
```
"""

INT8 = """\
## Nets of 8 bits, and of one

Nets with random, settled weights, quantised after training by `Int8Config` and by NNCF, the latter run by OpenVINO; its
faster preset counts in each round. *Binary* is a ResNet-18 whose 3x3 convolutions are of signs, with a shortcut of real
numbers round each; all its other layers have 8 bits. It is held against the dense ResNet-18: in 8 bits, and in the
fastest of torch, onnxruntime and OpenVINO in float32. These nets tell times, not accuracies.

{table}

{host} Brackets hold the middle half of the rounds. OpenVINO {version}.

```bash
python -m fastcnn.benchmarking.int8 --out benchmarks/results/lowprecision_int8.json
```
"""

ACCURACY = """\
## What 8 bits cost, untrained

Published nets, quantised after training and run by the engine from a file. The CIFAR-10 pictures here are JPEG, which
the nets were not trained on: compare with the float32 column, not with papers. MobileNetV2 is calibrated on one half of
{photographs} photographs and tested on the other, both ways; a difference under 3 points means nothing there.

{table}

{labels}

```bash
python -m fastcnn.reproduction.lowprecision.int8_accuracy --nets NETS --cifar10 CIFAR --photographs ZIP \\
  --out benchmarks/results/lowprecision_int8_accuracy.json
```
"""

TRAININGS = """\
## Trained with few bits

Nets that learn MNIST (`mlp`) and CIFAR-10 (`vgg`) from scratch with signs or few bits, beside float nets trained as
long: accuracy on the 10,000 test pictures, mean and standard deviation over {seeds} seeds; `drop` is in points. *Same*
is the share of the test pictures that get the same label from the saved file in the engine as from the net in training.

{table}

{orders}

```bash
python -m fastcnn.reproduction.lowprecision.trainings --mnist mnist:DIR --cifar10 DIR --runs RUNS \\
  --out benchmarks/results/lowprecision_trainings.json
```
"""


def binary(record: Record) -> str:
    """Section of binary convolutions."""
    rows = []
    for row in record["rows"]:
        us = {label: 1e3 * statistics.median(times) for label, times in row["ms"].items()}
        rows.append(
            [
                f"{row['channels']} channels, {row['size']}x{row['size']}",
                row["isa"],
                f"{us['binary']:.1f}",
                f"{100 * row['share_of_limit']:.0f} % ({middle([100 * share for share in row['shares']])})",
                "" if row["min_share"] is None else f"{100 * row['min_share']:.0f} %",
                f"{us[row['best_direct']]:.0f}, {row['best_direct'].split()[0]}",
                f"{row['gain']:.1f}x",
                f"{row['min_gain']:.0f}x",
                f"{row['gain_over_winograd']:.1f}x",
                verdict(row["met"]),
            ]
        )
    head = ["layer", "instructions", "us", "of the limit", "goal", "direct, us", "gain", "goal", "over Winograd", ""]
    return BINARY.format(table=table(head, rows), host=host(record))


def int8(record: Record) -> str:
    """Section of nets of 8 bits."""
    rows = []
    for row in record["rows"]:
        ms = {label: statistics.median(times) for label, times in row["ms"].items()}
        ours = "fastcnn int8" if row["what"] == "int8" else "fastcnn binary"
        rows.append(
            [
                row["net"],
                str(row["batch"]),
                row["what"],
                f"{ms[ours]:.3g}",
                f"{ms[row['best_other']]:.3g}, {row['best_other']}",
                f"{row['ratio']:.2f} ({middle(row['ratios'])})",
                f"{row['goal']:g}",
                verdict(row["met"]),
                f"{ms['fastcnn float32']:.3g}",
            ]
        )
    head = ["net", "batch", "what", "ms", "other, ms", "ratio", "goal", "", "our float32, ms"]
    return INT8.format(table=table(head, rows), host=host(record), version=record["versions"]["openvino-int8"])


def int8_accuracy(record: Record) -> str:
    """Section of accuracies without training."""
    *nets, mobile = record["found"]
    rows = [
        [
            row["net"],
            f"{row['accuracy_before']:.2f} %",
            f"{row['accuracy_after']:.2f} %",
            f"{row['lost']:+.2f}",
            f"{row['max_lost']:g}",
            verdict(row["passed"]),
            f"{row['agreement']:.1f} %",
            f"{row['file_bytes'][0] / 1e3:.0f} to {row['file_bytes'][1] / 1e3:.0f} kB",
        ]
        for row in nets
    ]
    head = ["net", "float32", "8 bits", "points lost", "allowed", "", "labels kept", "file"]
    kept = ", ".join(
        f"{label.replace('openvino-int8', 'NNCF')} {share:.1f} %" for label, share in mobile["agreement"].items()
    )
    labels = (
        f"MobileNetV2 keeps the label of these shares of the photographs: {kept} "
        f"(goal {mobile['min_agreement']:g} %, {verdict(mobile['passed'])})."
    )
    photographs = sum(fold["photographs"] for fold in mobile["folds"])
    return ACCURACY.format(table=table(head, rows), labels=labels, photographs=photographs)


def trainings(record: Record) -> str:
    """Section of trainings."""
    rows = []
    for gate in record["gates"]:
        goal = f"at least {gate['least']:g} %" if gate["least"] is not None else ""
        goal = f"at most {gate['max_drop']:g}" if gate["max_drop"] is not None else goal
        rows.append(
            [
                f"`{gate['way']}`",
                gate["why"],
                spread(gate["accuracy"]),
                "" if gate["drop"] is None else f"{gate['drop']:.2f}",
                goal,
                verdict(gate["passed"]) if goal else "",
                f"{gate['file_bytes'] / 1e3:.0f} kB",
                f"{gate['same_as_trained']:g} %",
            ]
        )
    words = {"first": "as in the paper", "second": "the other way round"}
    orders = [
        f"- `{order['first']}` against `{order['second']}`: {order['difference']:+.2f} points, "
        f"{words.get(order['ahead'], 'not decided')}."
        for order in record["orders"]
    ]
    head = ["net", "what is small", "accuracy", "drop", "goal", "", "file", "same"]
    seeds = max(gate["seeds"] for gate in record["gates"])
    return TRAININGS.format(table=table(head, rows), orders="\n".join(orders), seeds=seeds)


SECTIONS: dict[str, Callable[[Record], str]] = {
    "binary": binary,
    "int8": int8,
    "int8_accuracy": int8_accuracy,
    "trainings": trainings,
}


def page() -> str:
    """The page's text, of the records that are there."""
    records = read("lowprecision", SECTIONS)
    return "\n".join([INTRODUCTION, *(write(records[name]) for name, write in SECTIONS.items() if name in records)])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 if ``--check`` finds another page."""
    return run(arguments, description=__doc__, text=page, path=Path(PAGE))


if __name__ == "__main__":
    sys.exit(main())
