"""``fastcnn bench``: ours and other engines on the same net, in fresh processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fastcnn.cli.bench_kernels import kernels_command
from fastcnn.cli.bench_profile import profile_command
from fastcnn.cli.bench_rows import rows_command
from fastcnn.cli.errors import CliError, GoalMissedError
from fastcnn.cli.model import is_file, is_onnx, model_file, onnx_file, torch_model
from fastcnn.cli.options import (
    OUT_HELP,
    JsonOption,
    ThreadsOption,
    ToleranceOption,
    WeightsOption,
    check_count,
    check_output,
    parse_shape,
    parse_tolerance,
)
from fastcnn.cli.output import emit, log, plain, write_atomically


def bench_command(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="package.module:callable, FILE.onnx or FILE.fcnn")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="a set of nets: foundation, exact")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NET", help="one net of the suite, or one layer of --kernels")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="LIST",
            help="torch,onnxruntime,openvino,ncnn,mnn (default: all that are installed), openvino-default; "
            "none for ours alone",
        ),
    ] = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="pictures at a time")] = 1,
    size: Annotated[int, typer.Option("--size", metavar="PIXELS", help="height and width")] = 224,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="N,C,H,W", help="input shape, instead of --batch and --size")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="timed blocks for each engine")] = 3,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="length of a timed block")] = 3.0,
    tolerance: ToleranceOption = "fp32",
    goal: Annotated[
        list[str] | None,
        typer.Option(
            "--goal", metavar="[NET:]ENGINE=RATIO", help="exit 1 if ours/engine is above RATIO; may be repeated"
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="keep converted models of the peers there")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help=f"also write the JSON there; {OUT_HELP}")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows", metavar="LIST", help="rows of suite exact, such as batch1,batch8, or of --kernels; default: all"
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="suite exact, --kernels: measure also what --out holds already from this commit"),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="ours alone: per layer ms and share of the limits measured in the same run"),
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="convolution algorithms by kernel size: single layers, a training step, charts"),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE.html", help="with --profile or --kernels: also write self-contained charts"
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE.png", help="with --kernels: also write the charts as a picture"),
    ] = None,
    require_limits: Annotated[
        bool, typer.Option("--require-limits", help="with --profile: exit 1 if a kernel goal of the verdict is missed")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Time our compiled nets against other engines: in turn, each block in a fresh process, at equal threads."""
    from fastcnn.benchmarking import benchmark

    for value, name in ((threads, "--threads"), (batch, "--batch"), (size, "--size"), (rounds, "--rounds")):
        check_count(value, name)
    check_output(out, suffix=".json")
    allowed = parse_tolerance(tolerance)
    wanted = parse_shape(shape) if shape is not None else (batch, 3, size, size)
    if len(wanted) != 4:
        raise CliError(f"--shape {shape!r} must have four numbers", hint="for example  --shape 1,3,224,224")
    if kernels:
        fixed = {
            "MODEL": models, "--suite": suite, "--against": against, "--weights": weights, "--shape": shape,
            "--goal": goal, "--cache": cache, "--batch": batch != 1, "--size": size != 224,
            "--tolerance": tolerance != "fp32", "--profile": profile, "--require-limits": require_limits,
        }  # fmt: skip
        _check_kernels([name for name, given in fixed.items() if given])
        check_output(html, "--html", suffix=".html")
        check_output(png, "--png", suffix=".png")
        kernels_command(
            rows=rows, only=only, threads=threads, rounds=rounds, seconds=seconds, out=out, html=html, png=png,
            again=again, as_json=as_json,
        )  # fmt: skip
        return
    if png is not None:
        raise CliError("--png goes with --kernels", hint="add --kernels, or write --html with --profile")
    if profile:
        _check_profile(against, goal, cache)
        check_output(html, "--html", suffix=".html")
        profile_command(
            _models(models or [], suite, only, weights, wanted), wanted, threads=threads, rounds=rounds,
            seconds=seconds, tolerance=allowed, out=out, html=html, require_limits=require_limits, as_json=as_json,
        )  # fmt: skip
        return
    if html is not None or require_limits:
        raise CliError(
            "--html and --require-limits go with --profile, --html also with --kernels", hint="add --profile"
        )
    from fastcnn.benchmarking import ROW_SUITES

    if suite in ROW_SUITES:
        fixed = {
            "MODEL": models, "--against": against, "--weights": weights, "--shape": shape, "--goal": goal,
            "--cache": cache, "--batch": batch != 1, "--tolerance": tolerance != "fp32",
        }  # fmt: skip
        _check_fixed(str(suite), [name for name, given in fixed.items() if given])
        rows_command(
            str(suite), rows=rows, only=only, size=size, threads=threads, rounds=rounds, seconds=seconds, out=out,
            again=again, as_json=as_json,
        )  # fmt: skip
        return
    if rows is not None or again:
        raise CliError(f"--rows and --again go with --suite {' or '.join(ROW_SUITES)}", hint="add --suite exact")
    peers = _peers(against, models or [])
    nets = _models(models or [], suite, only, weights, wanted)
    goals = [parse_goal(text) for text in goal or []]
    _check_goals(goals, peers, _net_names(models or [], suite, only))
    result = benchmark(
        nets,
        wanted,
        against=peers,
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        tolerance=allowed,
        cache=cache,
        progress=log,
    )
    for reason in result.skipped.values():
        log(f"left out: {reason}")
    for line in result.disturbed():
        log(line)
    if out is not None:
        write_atomically(out, result.dumps() + "\n")
    emit(as_json, plain(result.to_json()), _table(result))
    missed = [line for g in goals for line in g.missed(result)]
    failed = [f"{e.engine} on {net.net}: {e.failure}" for net in result.nets for e in net.engines if e.failure]
    if missed or failed:
        raise GoalMissedError("; ".join([*missed, *failed]))


@dataclass(frozen=True, kw_only=True)
class Goal:
    """``[NET:]ENGINE=RATIO``: ours must take at most RATIO of the engine's time."""

    net: str | None
    engine: str
    ratio: float

    def missed(self, result: Any) -> list[str]:
        """Sentences on each net that misses it (no figure counts as missed)."""
        lines = []
        nets = [net for net in result.nets if self.net in (None, net.net)]
        if not nets:
            lines.append(f"no net {self.net!r} was timed")
        for net in nets:
            ratio = next((e.ratio for e in net.engines if e.engine == self.engine), None)
            if ratio is None:
                lines.append(f"{net.net}: no ratio against {self.engine}")
            elif not ratio <= self.ratio:
                lines.append(f"{net.net}: {ratio:.3f} of {self.engine}'s time, the goal is {self.ratio}")
        return lines


def parse_goal(text: str) -> Goal:
    """Read a goal.

    Raises
    ------
    CliError
        If it is not ``[NET:]ENGINE=RATIO`` with a known engine and a positive number.
    """
    from fastcnn.benchmarking import KNOWN_PEERS

    left, equals, right = text.partition("=")
    net, colon, engine = left.rpartition(":")
    try:
        ratio = float(right)
    except ValueError:
        ratio = 0.0
    if not equals or engine not in KNOWN_PEERS or (colon and not net) or not 0 < ratio < float("inf"):
        raise CliError(
            f"--goal {text!r} is not understood: write [NET:]ENGINE=RATIO with ENGINE of {', '.join(KNOWN_PEERS)}",
            hint="for example  --goal resnet18:onnxruntime=0.9",
        )
    return Goal(net=net or None, engine=engine, ratio=ratio)


def _check_fixed(suite: str, given: list[str]) -> None:
    if given:
        raise CliError(
            f"the rows of suite {suite} fix {' and '.join(given)}", hint="leave it out, or use --suite foundation"
        )


def _check_kernels(given: list[str]) -> None:
    if given:
        raise CliError(
            f"--kernels has layers, peers and goals of its own, so {' and '.join(given)} cannot be used with it",
            hint="leave it out; --rows and --only choose among what --kernels measures",
        )


def _check_profile(against: str | None, goal: list[str] | None, cache: Path | None) -> None:
    given = [name for name, value in (("--against", against), ("--goal", goal), ("--cache", cache)) if value]
    if given and (given, against) != (["--against"], "none"):
        raise CliError(
            f"--profile measures our net alone, so {' and '.join(given)} cannot be used with it",
            hint="run two commands: one with --profile, one against the peers",
        )


def _check_goals(goals: list[Goal], peers: list[str] | None, nets: list[str]) -> None:
    """Refuse a goal that nothing to be timed can meet, before half an hour of timing."""
    for g in goals:
        if peers is not None and g.engine not in peers:
            raise CliError(f"--goal names {g.engine}, which --against leaves out", hint=f"add {g.engine} to --against")
        if g.net not in (None, *nets):
            raise CliError(
                f"--goal names the net {g.net!r}, which is not among those to be timed: {', '.join(nets)}",
                hint="leave NET: out to mean every net",
            )


def _peers(against: str | None, models: list[str]) -> list[str] | None:
    if against is None:
        return None
    if against == "none":
        return []
    names = [name.strip() for name in against.split(",") if name.strip()]
    if not names:
        raise CliError("--against is empty", hint="name engines, or write none")
    from fastcnn.benchmarking import KNOWN_PEERS

    unknown = [name for name in names if name not in KNOWN_PEERS]
    if unknown:
        raise CliError(
            f"--against names {', '.join(unknown)}; allowed: {', '.join(KNOWN_PEERS)} or none",
            hint="separate them by commas",
        )
    files = [model for model in models if is_file(model)]
    if files:
        raise CliError(
            f"MODEL {files[0]!r} holds no torch model, so {', '.join(names)} cannot run it",
            hint="give package.module:callable, or --against none",
        )
    return names


def _models(
    models: list[str], suite: str | None, only: str | None, weights: str | None, shape: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    """Check everything that can be checked, then make the nets one at a time."""
    from fastcnn.benchmarking import SUITES, suite_models

    if not models and suite is None:
        raise CliError("neither MODEL nor --suite is given", hint="fastcnn bench --suite foundation")
    if suite is not None and suite not in SUITES:
        raise CliError(f"--suite {suite!r} is not known; allowed: {', '.join(SUITES)}", hint="--suite foundation")
    if only is not None and (suite is None or only not in SUITES[suite]):
        nets = ", ".join(SUITES[suite]) if suite else "nothing without --suite"
        raise CliError(f"--only {only!r} is not in the suite; allowed: {nets}", hint="leave it out for all nets")
    if weights is not None and (suite is not None or len(models) != 1 or is_file(models[0])):
        raise CliError("--weights goes with exactly one MODEL of the form package.module:callable", hint="leave it out")
    files = {model: model_file(model) for model in models if is_file(model)}
    for model in models:
        if is_onnx(model):
            onnx_file(model, weights)

    def one_by_one() -> Iterator[tuple[str, Any]]:
        for model in models:
            if model in files:
                yield _net_name(model), files[model]
            elif is_onnx(model):
                yield _net_name(model), onnx_file(model, weights)
            else:
                yield _net_name(model), torch_model(model, weights)
        if suite is not None:
            yield from suite_models(suite, shape, only=only)

    return one_by_one()


def _net_name(model: str) -> str:
    """What a MODEL is called in tables and goals: the file's stem, or the callable."""
    return Path(model).stem if is_file(model) or is_onnx(model) else model.rpartition(":")[2]


def _net_names(models: list[str], suite: str | None, only: str | None) -> list[str]:
    """Names of all nets that ``_models`` yields for the same (checked) arguments."""
    from fastcnn.benchmarking import SUITES

    of_suite = [] if suite is None else [only] if only is not None else list(SUITES[suite])
    return [*map(_net_name, models), *of_suite]


def _table(result: Any) -> Table:
    settings = result.settings
    table = Table(
        title=f"{result.host['cpu']}, {settings['threads']} threads, input {'x'.join(map(str, settings['shape']))}, "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s",
        caption="ms: median over rounds; spread: slowest less fastest round; ours/peer below 1: ours is faster; "
        "error: max|y-y64| / max|y64|, worst picture",
    )
    for column in ("net", "engine"):
        table.add_column(column)
    for column in ("ms", "spread", "ours/peer", "error"):
        table.add_column(column, justify="right")
    for row in result.rows():
        table.add_row(*row)
    return table
