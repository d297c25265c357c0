"""Write docs/concepts/structured.md from the records of structured layers: ``python tools/structured_page.py``.

The records are the JSON files ``benchmarks/results/structured_*.json`` that the commands named on the page write; a
record that is not there leaves its section out. ``--check`` changes nothing and exits 1 if the page differs. No result
enters the page any other way.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "concepts" / "structured.md"
RESULTS = ROOT / "benchmarks" / "results"
Record = Mapping[str, Any]

INTRODUCTION = """\
# Structured layers, measured

What the [structured methods](../methods/index.md) keep of accuracy and what they gain in time, by commands that anyone
can run again; their records are in `benchmarks/results`. Goals stand beside the figures, met or not. Times hold for the
machine that is named, ratios travel better.
"""

DENSE_LAYERS = """\
## Trained from scratch

Two nets learn Fashion-MNIST with one layer of 1024x1024 that a structured one stands for from the first step on: `mlp`
is 784-1024-[1024]-10, `conv` two 5x5 convolutions with 1024 features, then [1024]-10. `denil` is 784-500-500-10 with
three quarters of the weights of both hidden layers predicted. Accuracy is that on the 10,000 test pictures after
{epochs} epochs, mean and standard deviation over {seeds} seeds; `drop` is in points, against the same net with
`nn.Linear`, trained alike. The last columns are the same net with a narrower dense layer and no more parameters in all.

{table}

Rates, ranks and the number of ACDC's layers were chosen by the test accuracy of seed 0, for dense and structured nets
alike. A structured layer is ahead of the dense net of equal size where the difference of the means is more than the
standard deviation of two single runs' difference. In `conv` nearly all parameters are in the layer that is replaced,
and a dense net of that size has some ten to a hundred features left. In `mlp` the first layer, which stays dense, holds
803,840 of the parameters: narrowing both layers to equal size leaves 590 to 620 features of 1024, as many as this
data needs, so that little can be won there. `predicted` holds a quarter of two layers' weights and, for the second, the
matrix that predicts the others; a dense net with as many numbers has 224 features in place of 500, which this data is
served by as well.

```bash
python -m fastcnn.reproduction.structured.dense_layers --data fashion-mnist:DIR --runs RUNS \\
  --out benchmarks/results/structured_dense_layers.json
```
"""

CONV_NET = """\
## Fine-tuned

A plain net of six 3x3 convolutions (32-32-M-64-64-M-128-128-M-256-10) learns CIFAR-10 and is converted with 256
calibration pictures, no labels. `untrained` is what it then has; `accuracy` is after {epochs} epochs of fine-tuning,
`dense` that of the dense net, fine-tuned equally long; `same` is the share of the test pictures on which the net and
the one it was made from give the same answer, with that of the fine-tuned dense net beside it. {seeds} seeds where a
spread is given, else one. All trainings and tests are on JPEG versions of the pictures.

{table}

Tucker-2's ranks are those that this machine runs {speedup} times as fast as the dense layer, or more, layer by layer;
of a layer that no ranks make so much faster the record says so. That factor was chosen by what came of it: at 1.1 the
nets of the next section gained too little, at 1.25 the first seed lost 1.8 points. Rates and epochs were chosen by the
test accuracy of the first seed. Over the seeds Tucker-2 loses {drops} points. `svd` has one budget for all layers.

```bash
python -m fastcnn.reproduction.structured.conv_net --data DIR --runs RUNS \\
  --out benchmarks/results/structured_conv_net.json
```
"""
CONV_SPEED = """\
## Tucker-2 in the engine

The plain net for CIFAR-10 at the ranks that are fine-tuned above, and two larger ones (random weights) at the same
share of each layer's channels, {inner:.0%} of the inputs and {outer:.0%} of the outputs in whole vectors, against the
plans of the dense nets: with exact kernels only, and by default, with Winograd. Beside the gain over the default plan
stands the middle half of the rounds. Exact kernels add up products in the plain way; on this machine other engines have
faster ones, so that the gain over them says less than that over the default plan. Largest error against float64:
{error:.1e}. {host}

{table}

{declined}

```bash
python -m fastcnn.reproduction.structured.conv_speed --net RUNS/base-0/vgg_like.safetensors \\
  --ranks RUNS/tucker_ranks.json --out benchmarks/results/structured_conv_speed.json
```
"""

LINEAR = """\
## Linear layers of 4096x4096

Times in ms, our engine with a structured layer against the best dense layer in float32 (ours, torch, OpenVINO), in one
run, in turn. *Warm* is one call after the other; the goal is for its ratio, shown with the middle half of the rounds.
*Evicted* reads {evicted} MB of other memory between calls, as a net larger than the caches does; its times begin with
threads that have been elsewhere, which the shortest feel most. The last column is the warm ratio to our own dense layer
with 16-bit weights, its default plan. {host}

{table}

```bash
python -m fastcnn.benchmarking.linear --out benchmarks/results/structured_linear.json
```
"""

AGREEMENT = """\
## MobileNetV2 without training

Data-aware SVD under a budget of {budget:.0%} of the parameters, {photographs} photographs. Calibrated on those of even
number the net is tested on those of odd number, and the reverse; a difference under 3 points means nothing. The
photographs are probably among those the net was trained on: agreement says what conversion changes, accuracy little.

{table}

In all, {agreement:.1f} % of the labels stay (goal: {goal:.0f} %; so many photographs tell no better than {low:.1f} to
{high:.1f} %). {changed}

```bash
python -m fastcnn.reproduction.structured.agreement --data PHOTOGRAPHS.zip --net MOBILENET_V2.safetensors \\
  --out benchmarks/results/structured_agreement.json
```
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(value: Record) -> str:
    """Mean and standard deviation."""
    return f"{value['mean']:.2f}" + ("" if value["sd"] is None else f" ± {value['sd']:.2f}")


def verdict(met: bool) -> str:
    """Of a goal."""
    return "met" if met else "**missed**"


def middle(values: list[float]) -> str:
    """The middle half of the rounds."""
    if len(values) < 2:
        return "one round"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{low:.3g}-{high:.3g}"


def host(record: Record) -> str:
    """The machine, in a sentence."""
    settings = record["settings"]
    return f"{record['host']['cpu']}, {settings['threads']} threads, {settings['rounds']} rounds."


def dense_layers(record: Record) -> str:
    """Section of trainings from scratch."""
    rows = []
    for gate in record["gates"]:
        equal = gate.get("equal_size")
        rows.append(
            [
                gate["net"],
                gate["way"],
                f"{gate['smaller']:.0f}x",
                spread(gate["accuracy"]),
                f"{gate['drop']:.2f}",
                f"{gate['max_drop']:g}",
                verdict(gate["passed"]),
                "" if equal is None else spread(equal["accuracy"]),
                "" if equal is None else {"first": "structured", "second": "dense"}.get(equal["ahead"], equal["ahead"]),
            ]
        )
    head = ["net", "layer", "smaller", "accuracy", "drop", "allowed", "goal", "dense, equal size", "ahead"]
    return DENSE_LAYERS.format(
        table=table(head, rows),
        epochs=record["runs"][0]["settings"]["epochs"],
        seeds=max(gate["seeds"] for gate in record["gates"]),
    )


def conv_net(record: Record) -> str:
    """Section of fine-tuned convolutions."""
    rows = [
        [
            gate["way"],
            f"{gate['fewer']:.2f}x",
            {"svd": "parameters", "cp": "multiply-adds of one layer"}.get(gate["way"], "multiply-adds"),
            spread(gate["untrained"]),
            spread(gate["accuracy"]),
            spread(gate["dense_accuracy"]),
            f"{gate['same_answers']['mean']:.1f} ({gate['dense_same_answers']['mean']:.1f})",
            f"{gate['drop']:.2f}{' %' if gate['drop_is'] == 'percent' else ''}",
            f"{gate['max_drop']:g}",
            verdict(gate["passed"]),
        ]
        for gate in record["gates"]
    ]
    head = ["method", "fewer", "of", "untrained", "accuracy", "dense", "same", "drop", "allowed", "goal"]
    return CONV_NET.format(
        table=table(head, rows),
        epochs=record["runs"][0]["settings"]["epochs"],
        speedup=record["ranks"]["speedup"],
        seeds=max(len(gate["accuracy"]["values"]) for gate in record["gates"]),
        drops=drops(record),
    )


def drops(record: Record) -> str:
    """Points that Tucker-2 loses against the dense net of the same seed."""
    of = {
        way: {run["seed"]: run["accuracy"] for run in record["runs"] if run["name"] == way}
        for way in ("tucker", "dense")
    }
    lost = [f"{of['dense'][seed] - accuracy:.2f}" for seed, accuracy in sorted(of["tucker"].items())]
    return f"{', '.join(lost[:-1])} and {lost[-1]}" if len(lost) > 1 else "".join(lost)


def conv_speed(record: Record) -> str:
    """Section of Tucker-2's times."""
    rows = []
    for net in record["rows"]:
        ms = [statistics.median(net["ms"][label]) for label in ("dense, exact kernels", "dense", "Tucker-2")]
        wanted = [f"{net[f'min_gain_over_{name}'] or 0:g}" for name in ("exact", "fp32")]
        rows.append(
            [
                net["net"],
                *(f"{value:.3g}" for value in ms),
                f"{net['gain_over_exact']:.2f}x",
                wanted[0] if net["min_gain_over_exact"] else "",
                f"{net['gain_over_fp32']:.2f}x ({middle(net['gains']['dense'])})",
                wanted[1],
                verdict(net["passed"]),
            ]
        )
    head = ["net", "exact, ms", "default, ms", "Tucker-2, ms", "over exact", "goal", "over default", "goal", ""]
    inner, outer = record["share_of_channels"]
    error = max(net["errors"]["Tucker-2"] for net in record["rows"])
    return CONV_SPEED.format(
        table=table(head, rows), host=host(record), inner=inner, outer=outer, error=error, declined=declined(record)
    )


def declined(record: Record) -> str:
    """Layers that stay dense, with their times at those ranks and at lower ones."""
    rows = [
        [
            net["net"],
            f"`{name}`",
            f"{times['dense_ms']:.3g}",
            f"{'x'.join(map(str, times['ranks']))}: {times['ms']:.3g}",
            ", ".join(f"{'x'.join(map(str, point['ranks']))}: {point['ms']:.3g}" for point in times["curve"]),
        ]
        for net in record["rows"]
        for name, times in net["layers"].items()
        if times["declined"]
    ]
    if not rows:
        return "Every layer is faster alone at its ranks."
    head = ["net", "layer", "dense, ms", "at its ranks", "at lower ones"]
    return "Layers that stay dense, as their ranks gain too little there:\n\n" + table(head, rows)


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share, in percent."""
    z, share = 1.96, hits / count
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return 100 * (middle - half) / (1 + z * z / count), 100 * (middle + half) / (1 + z * z / count)


def linear(record: Record) -> str:
    """Section of linear layers' times."""
    rows = []
    for row in record["rows"]:
        ms = {
            state: {name: statistics.median(times) for name, times in row["ms"][state].items()} for state in row["ms"]
        }
        own = {state: ms[state][row["case"]] for state in ms}
        others = (row["case"], "fastcnn, 16-bit weights")
        # As the ratio has it: the fastest of each round, whichever that is.
        dense = {
            state: statistics.median(
                map(min, zip(*(times for name, times in row["ms"][state].items() if name not in others), strict=True))
            )
            for state in ms
        }
        rows.append(
            [
                row["case"],
                str(row["batch"]),
                f"{own['warm']:.3f}",
                f"{dense['warm']:.3f}",
                f"{row['ratio']:.3f} ({middle(row['ratios']['warm'])})",
                "" if row["goal"] is None else f"{row['goal']:g}",
                "" if row["met"] is None else verdict(row["met"]),
                f"{own['evicted']:.3f}",
                f"{dense['evicted']:.3f}",
                f"{row['ratio_evicted']:.3f}",
                f"{row['ratio_to_16_bits']['warm']:.3f}",
            ]
        )
    head = ["layer", "batch", "warm", "dense", "ratio", "goal", "", "evicted", "dense", "ratio", "to 16 bits"]
    return LINEAR.format(table=table(head, rows), evicted=record["evicted_bytes"] >> 20, host=host(record))


def agreement(record: Record) -> str:
    """Section of MobileNetV2."""
    (way,) = record["found"].values()
    rows = [
        [
            fold["calibrated_on"],
            f"{fold['params_share']:.3f}",
            f"{fold['same_labels']} of {fold['photographs']}",
            f"{fold['accuracy_before']:.1f} %",
            f"{fold['accuracy_after']:.1f} %",
            f"{fold['convert_seconds']:.0f} s",
        ]
        for fold in way["folds"]
    ]
    low, high = interval(*(sum(fold[key] for fold in way["folds"]) for key in ("same_labels", "photographs")))
    head = ["calibrated on", "parameters left", "same label", "accuracy before", "after", "conversion"]
    return AGREEMENT.format(
        table=table(head, rows),
        budget=record["gates"]["max_params_share"],
        photographs=sum(fold["photographs"] for fold in way["folds"]),
        agreement=way["agreement"],
        goal=record["gates"]["min_agreement"],
        low=low,
        high=high,
        changed=" ".join(
            f"Calibrated on the {fold['calibrated_on']} ones, conversion replaces "
            f"`{'`, `'.join(line['layer'] for line in fold['layers'])}`: other layers lose more for what they give up."
            for fold in way["folds"]
        ),
    )


SECTIONS: dict[str, Callable[[Record], str]] = {
    "dense_layers": dense_layers,
    "conv_net": conv_net,
    "conv_speed": conv_speed,
    "linear": linear,
    "agreement": agreement,
}


def page(records: Mapping[str, Record]) -> str:
    """The page's text, of the records that are there."""
    return "\n".join([INTRODUCTION, *(write(records[name]) for name, write in SECTIONS.items() if name in records)])


def read(prefix: str = "structured", names: Iterable[str] = SECTIONS) -> dict[str, Record]:
    """The records in the repository."""
    paths = {name: RESULTS / f"{prefix}_{name}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def run(arguments: list[str] | None, *, description: str | None, text: Callable[[], str], path: Path) -> int:
    """Write a page, or with ``--check`` tell whether it is as it should be."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if the page differs")
    options = parser.parse_args(arguments)
    if options.check:
        return 0 if path.exists() and path.read_text(encoding="utf-8") == text() else 1
    path.write_text(text(), encoding="utf-8")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 if ``--check`` finds another page."""
    return run(arguments, description=__doc__, text=lambda: page(read()), path=PAGE)


if __name__ == "__main__":
    sys.exit(main())
