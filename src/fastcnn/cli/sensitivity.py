"""``fastcnn sensitivity``: what a factorisation's ranks cost each layer, measured: table, JSON, page or picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fastcnn._extras import require
from fastcnn.cli.errors import CliError
from fastcnn.cli.model import is_file, is_onnx, torch_model
from fastcnn.cli.options import (
    JsonOption,
    ModelArgument,
    PreprocessOption,
    ThreadsOption,
    WeightsOption,
    check_count,
    check_output,
    parse_preprocess,
)
from fastcnn.cli.output import emit, log, plain, progress_bar, write_atomically


def sensitivity_command(
    model: ModelArgument,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="svd, low-rank, tucker, cp or separable")],
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="as for run; its train part calibrates")],
    weights: WeightsOption = None,
    preprocess: PreprocessOption = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", metavar="GLOB", help="names of layers; may be given again")
    ] = None,
    images: Annotated[int, typer.Option("--images", metavar="N", help="calibration pictures")] = 128,
    points: Annotated[int, typer.Option("--points", metavar="N", help="ranks for each layer")] = 8,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="a setting of the method, such as scheme=1; may be repeated"),
    ] = None,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="write the curves")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE.html", help="draw them on one page")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE.png", help="draw them in one picture")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure, for each layer, the error, time and bytes of a factorisation at every rank."""
    if is_file(model) or is_onnx(model):
        raise CliError(f"MODEL {model!r} is a file without its torch model", hint="give package.module:callable")
    for count, name in ((images, "--images"), (threads, "--threads")):
        check_count(count, name)
    check_count(points, "--points", 2)
    for path, name, suffix in ((out, "--out", ".json"), (html, "--html", ".html"), (png, "--png", ".png")):
        check_output(path, name, suffix)
    chosen = parse_preprocess(preprocess, data)
    require("torch", extra="compress", purpose="fastcnn sensitivity")
    drawn = [(html, ("jinja2", "plotly"), "--html"), (png, ("matplotlib",), "--png")]
    for path, modules, name in drawn:  # before minutes of measuring
        for module in modules if path is not None else ():
            require(module, extra="report", purpose=f"the chart ({name})")
    import torch

    from fastcnn.compression.sensitivity import sensitivity
    from fastcnn.data import load_data

    config = _config(method, settings or [])
    net = torch_model(model, weights)
    pictures = load_data(data, split="train").limit(images)
    batches = [torch.from_numpy(x) for x, _ in pictures.batches(chosen, batch_size=32)]
    with progress_bar("layers", total=None) as advance:

        def note(done: int, total: int, layer: str) -> None:
            advance(1, f"{layer}, {done} of {total}")

        found = sensitivity(net, config, batches, layers or "*", points=points, threads=threads, progress=note)
    document = {"model": model, "data": data, "images": len(pictures), **plain(found.to_json())}
    if out is not None:
        write_atomically(out, json.dumps(document, indent=1) + "\n")
    if html is not None:
        from fastcnn.reporting.sensitivity_page import sensitivity_html

        write_atomically(html, sensitivity_html(found, model))
    if png is not None:
        from fastcnn.reporting.sensitivity_page import sensitivity_png

        write_atomically(png, sensitivity_png(found))
    for path in (out, html, png):
        if path is not None:
            log(f"wrote {path}")
    emit(as_json, document, _table(found))


def _config(name: str, settings: list[str]) -> Any:
    """The method's config with these settings; all ranks are gone through, so that its own rule does not matter.

    Raises
    ------
    CliError
        For an unknown method or setting.
    """
    from fastcnn.methods.registry import list_methods
    from fastcnn.methods.structured.ranks import RankConfig

    known = {method.name: method.config for method in list_methods() if issubclass(method.config, RankConfig)}
    if name not in known:
        raise CliError(f"--method {name!r} has no ranks, or is not known", hint=f"choose from {', '.join(known)}")
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise CliError(f"--set {text!r} is no setting", hint="write NAME=VALUE, for example  --set scheme=1")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
    try:
        return known[name].from_settings({"energy": 1.0, **values})
    except (ValueError, TypeError) as error:
        raise CliError(f"--set: {error}", hint=f"docs/methods/{name}.md lists the settings") from error


def _table(found: Any) -> Table:
    table = Table(title=f"{found.method}, {found.threads} thread{'s' if found.threads != 1 else ''}")
    table.add_column("layer", overflow="fold")
    for column in ("ranks", "ms", "of dense", "error", "bytes", "of dense"):
        table.add_column(column, justify="right")
    for curve in found.curves:
        if curve.dense_ms is None or not curve.points:
            table.add_row(curve.layer, curve.why, "", "", "", "", "")
            continue
        table.add_row(curve.layer, "dense", f"{curve.dense_ms:.3f}", "", "", f"{curve.dense_bytes:,}", "")
        for point in curve.points:
            table.add_row(
                "",
                "x".join(map(str, point.ranks)),
                f"{point.ms:.3f}",
                f"{point.ms / curve.dense_ms:.0%}",
                f"{point.error:.1%}",
                f"{point.bytes:,}",
                f"{point.bytes / curve.dense_bytes:.0%}",
            )
    return table
