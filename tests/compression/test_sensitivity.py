"""Curves of layers: what is measured, what is declined, and how it is shown."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.cli.main import run_cli
from fastcnn.cli.output import plain
from fastcnn.compression import calibrate
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.compression.latency import layer_ms
from fastcnn.compression.sensitivity import Curve, Point, Sensitivity

pytest.importorskip("fastcnn._native", reason="fastcnn._native is not built: make build")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.point = nn.Conv2d(32, 64, 1)
        self.body = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.spare = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.point(torch.relu(self.stem(x))))
        out: Tensor = self.head(torch.relu(self.body(x)).mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    torch.manual_seed(1)
    seen: list[tuple[int, int, str]] = []
    result = fc.sensitivity(
        Net(), fc.TuckerConfig(energy=0.5), torch.randn(8, 3, 12, 12), points=3, threads=1,
        progress=lambda done, total, layer: seen.append((done, total, layer)),
    )  # fmt: skip
    assert [entry[0] for entry in seen] == [1, 2, 3, 4]
    assert seen[-1][1:] == (4, "spare")
    return result


def test_every_layer_has_a_curve_or_a_reason(found: Sensitivity) -> None:
    curves = {curve.layer: curve for curve in found.curves}
    assert list(curves) == ["stem", "point", "body", "spare"], "the linear layer has no Tucker form"
    assert "1x1" in curves["point"].why
    assert curves["spare"].why == "the calibration inputs do not reach it"
    body = curves["body"]
    assert body.input_shape == (1, 64, 12, 12)
    assert body.dense_macs == 64 * 64 * 9
    assert body.dense_bytes == 4 * (64 * 64 * 9 + 64)
    assert 2 <= len(body.points) <= 3
    assert all(point.ms > 0 and point.bytes > 0 and point.macs > 0 for point in body.points)
    errors = [point.error for point in body.points]
    assert errors == sorted(errors, reverse=True)
    assert [point.ranks for point in body.points] == sorted(point.ranks for point in body.points)
    assert body.points[-1].error < 0.05
    assert found.method == "tucker"
    assert found.threads == 1


@pytest.mark.parametrize(
    "config",
    [fc.TuckerConfig(energy=0.5, multiple_of=4), fc.SeparableConfig(energy=0.5, scheme=1)],
    ids=["tucker", "separable"],
)
def test_the_error_is_that_of_the_outputs(config: Any) -> None:
    """One forward pass of what conversion makes shows it."""
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Conv2d(16, 16, 3)), torch.randn(8, 16, 10, 10) + 0.5
    (curve,) = fc.sensitivity(model, config, x, points=3, threads=1).curves
    point = curve.points[0]
    rank = {"ranks": point.ranks} if len(point.ranks) == 2 else {"rank": point.ranks[0], "scheme": 1}
    small = fc.convert(model, type(config)(force=True, **rank), data=x)
    with torch.no_grad():
        want, got = model(x).double(), small(x).double()
    missed = (got - want) - (got - want).mean((0, 2, 3), keepdim=True)
    spread = want - want.mean((0, 2, 3), keepdim=True)
    assert float(missed.norm() / spread.norm()) == pytest.approx(point.error, rel=0.02)


def test_it_prints_and_is_json(found: Sensitivity) -> None:
    text = str(found)
    assert "body" in text
    assert "the calibration inputs do not reach it" in text
    document = json.loads(json.dumps(plain(found.to_json())))
    assert document["curves"][2]["points"][0]["ranks"] == list(found.curves[2].points[0].ranks)


def test_bad_arguments_are_named() -> None:
    x = torch.randn(2, 3, 12, 12)
    with pytest.raises(ValueError, match="KMeansConfig has no ranks to go through"):
        fc.sensitivity(Net(), fc.KMeansConfig(), x)
    with pytest.raises(ValueError, match="points=1 is out of range"):
        fc.sensitivity(Net(), fc.SVDConfig(energy=0.5), x, points=1)
    with pytest.raises(ValueError, match="matches no layer"):
        fc.sensitivity(Net(), fc.SVDConfig(energy=0.5), x, layers="nothing")


def test_the_engine_times_layers_and_chains() -> None:
    dense = nn.Conv2d(64, 64, 3, padding=1).train()
    ms = layer_ms(dense, (1, 64, 28, 28), threads=1)
    assert 0.001 < ms < 1000
    assert dense.training
    circular = nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular")
    assert layer_ms(circular, (1, 64, 8, 8), threads=1) == float("inf"), "the engine has no circular padding"
    small = nn.Sequential(circular)
    with pytest.warns(NothingDoneWarning, match="the engine cannot run it"):
        fc.convert(small, fc.SVDConfig(speedup=2.0), data=torch.randn(4, 64, 8, 8))


@pytest.mark.parametrize(("overhead", "rank"), [(0.0, 336), (0.3, 176), (0.7, None)])
def test_conversion_by_measured_speed(monkeypatch: pytest.MonkeyPatch, overhead: float, rank: int | None) -> None:
    """On a clock that says what a chain takes: the largest rank in whole vectors that is fast enough, or none."""

    def clock(layer: nn.Module, shape: tuple[int, ...], *, threads: int | None = None) -> float:
        return 1.0 if isinstance(layer, nn.Linear) else overhead + layer.rank / 512  # type: ignore[operator]

    monkeypatch.setattr(calibrate, "layer_ms", clock)
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(1024, 1024))
    config = fc.SVDConfig(speedup=1.5, multiple_of=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingDoneWarning)
        small: Any = fc.convert(dense, config, data=torch.randn(64, 1024))
    (line,) = fc.report(small)
    if rank is None:
        said = r"no ranks are 1\.5 times as fast as its 1 ms; fastest that were tried: 0\.7\d* ms"
        assert re.search(said, line.why), line.why
    else:
        assert small[0].rank == rank


CURVE = Curve(
    layer="<conv>", input_shape=(1, 3, 8, 8), dense_ms=1.0, dense_bytes=400, dense_macs=100,
    points=(
        Point(ranks=(4, 8), error=0.5, ms=0.5, bytes=100, macs=50),
        Point(ranks=(8, 16), error=0.1, ms=1.5, bytes=300, macs=90),
    ),
)  # fmt: skip
NONE = Curve(layer="head", input_shape=(), dense_ms=None, dense_bytes=4, dense_macs=1, points=(), why="it is too small")


def test_what_is_faster() -> None:
    assert [point.ranks for point in CURVE.faster] == [(4, 8)]
    assert NONE.faster == ()


def test_the_page_and_the_picture() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    from fastcnn.reporting.sensitivity_page import sensitivity_html, sensitivity_png

    made = Sensitivity(method="tucker", threads=2, curves=(CURVE, NONE))
    page = sensitivity_html(made, "net:Net<1>")
    assert "&lt;conv&gt;" in page
    assert "net:Net&lt;1&gt;" in page
    assert "it is too small" in page
    assert "4×8" in page
    assert page.count("chart-0") >= 1
    pytest.importorskip("matplotlib")
    assert sensitivity_png(made).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw"):
        sensitivity_png(Sensitivity(method="tucker", threads=2, curves=(NONE,)))


MODEL = "tests.compression.sensitivity_net:net"


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out, html, png = (tmp_path / name for name in ("curves.json", "curves.html", "curves.png"))
    words = ["sensitivity", MODEL, "--method", "separable", "--data", "digits", "--images", "16", "--points", "2"]
    words += [
        "--threads",
        "1",
        "--set",
        "scheme=1",
        "--out",
        str(out),
        "--html",
        str(html),
        "--png",
        str(png),
        "--json",
    ]
    assert run_cli(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["method"] == "separable"
    assert [curve["layer"] for curve in document["curves"]] == ["0"]
    assert len(document["curves"][0]["points"]) == 2
    assert json.loads(out.read_text()) == document
    assert "separable" in html.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert run_cli([*words[:-7], "--layers", "0"]) == 0
    assert "dense" in capsys.readouterr().out


BAD = [
    (["--method", "kmeans"], "--method 'kmeans' has no ranks, or is not known"),
    (["--method", "svd", "--set", "scheme"], "--set 'scheme' is no setting"),
    (["--method", "svd", "--set", "colour=1"], "'colour' is not a setting of SVDConfig"),
    (["--method", "svd", "--points", "1"], "--points 1 is not allowed"),
    (["--method", "svd", "--html", "curves.txt"], "must end in .html"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_words_are_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["sensitivity", MODEL, "--data", "digits", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_file_has_no_torch_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["sensitivity", "net.onnx", "--method", "svd", "--data", "digits"]) == 2
    assert "is a file without its torch model" in capsys.readouterr().err
