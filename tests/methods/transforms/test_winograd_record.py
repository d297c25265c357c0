"""The error table of Winograd: measured as it says, in the published order, resumed and interrupted cleanly."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastcnn._native", reason="fastcnn._native is not built: make build")

from fastcnn import _native
from fastcnn.engine.plan.tiles import WINOGRAD_TILES
from fastcnn.methods.transforms.winograd import default_points, searched_points, winograd_matrices
from fastcnn.reproduction import winograd_error as command
from tests.engine.nets import DIRECT, WINOGRAD

ROOT = Path(__file__).parents[3]
RECORD = ROOT / "benchmarks" / "results" / "winograd_error.json"


def record() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return document


def plain_error(outputs: Any, pictures: Any, weight: Any) -> float:
    """max|y - y64| / max|y64| of the worst picture, y64 one tap at a time in float64."""
    size = command.MAP
    exact = np.zeros((len(pictures), len(weight), size, size))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            part = pictures[:, :, i : i + size, j : j + size].astype(np.float64)
            exact += np.einsum("nchw,fc->nfhw", part, weight[:, :, i, j].astype(np.float64))
    assert outputs.shape == exact.shape
    return max(float(np.abs(y - e).max() / np.abs(e).max()) for y, e in zip(outputs, exact, strict=True))


@pytest.mark.parametrize("channels", [16, 128])
def test_measured_now_the_published_order_shows(channels: int) -> None:
    layer = command.measure_layer((3, 3), channels, seed=1)
    assert command.order_shows([layer])
    two, four, six = layer["forms"]
    assert 0 < layer["native_direct"] <= DIRECT
    assert 0 < layer["torch_direct"] <= DIRECT
    assert two["native"] < four["native"] < six["native"]
    for form in layer["forms"]:
        assert form["native"] <= WINOGRAD[form["tile"]]
        assert form["searched"] <= form["published"]
        assert form["searched"] <= 1.2 * form["runs"]
        assert form["runs"] == form["long_sums"], "with no more than 256 channels there is one run"
    assert four["searched"] * 1.2 < four["published"]


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 3), (1, 5), (1, 7)])
def test_native_kernels_lose_what_their_points_and_runs_lose_in_numpy(kernel: tuple[int, int]) -> None:
    """On 512 channels, two runs of 256: more than sums of 64, less than one sum over all."""
    layer = command.measure_layer(kernel, 512, seed=1)
    measured = [form for form in layer["forms"] if form["native"] is not None]
    assert [form["m"] for form in measured] == sorted(WINOGRAD_TILES[kernel])
    for form in measured:
        assert 2 / 3 < form["native"] / form["runs"] < 3 / 2
        assert form["searched"] < form["runs"] < form["long_sums"]
        assert form["native"] < form["long_sums"]
        assert (form["integers"] is None) == (form["tile"] != 6)
        assert form["integers"] is None or form["integers"] > 1.3 * form["long_sums"]
        assert form["native"] <= WINOGRAD[form["tile"]]


@pytest.mark.parametrize("r", [3, 5, 7])
def test_kernels_of_one_column_lose_what_those_of_one_row_lose(r: int) -> None:
    for m in WINOGRAD_TILES[r, 1]:
        down, across = (
            plain_error(command.native_outputs(pictures, weight, f"winograd:{m}"), pictures, weight)
            for pictures, weight in (command.layer_data(kernel, 64, seed=1) for kernel in ((r, 1), (1, r)))
        )
        assert 0.4 < down / across < 2.5
        assert 0 < down <= WINOGRAD[m + r - 1]


def test_larger_kernels_lose_more_and_split_ones_less() -> None:
    layer = command.measure_layer((7, 7), 16, seed=1)
    tables = [form["published"] for form in layer["forms"]]
    assert tables == sorted(tables)
    for form in layer["forms"]:
        assert form["native"] is None
        assert form["split"] < form["published"]
        assert form["split_multiplications"] > form["multiplications"]
    assert layer["forms"][2]["tile"] == 12
    assert layer["forms"][2]["published"] > 100 * layer["torch_direct"]


def test_one_axis_loses_less_than_two() -> None:
    for r in (3, 5, 7):
        lines, images = (command.measure_layer(kernel, 16, seed=1) for kernel in ((1, r), (r, r)))
        for line, image in list(zip(lines["forms"], images["forms"], strict=True))[1:]:
            assert line["tile"] == image["tile"]
            assert line["published"] < image["published"] / 2
            assert line["searched"] < image["searched"]
            assert line["multiplications"] ** 2 == pytest.approx(image["multiplications"])


@pytest.mark.parametrize("kernel", ["direct", "winograd:4"])
@pytest.mark.parametrize("taps", [(3, 3), (1, 7)])
def test_native_kernels_are_asked_for_by_name(kernel: str, taps: tuple[int, int]) -> None:
    pictures, weight = command.layer_data(taps, 16)
    error = plain_error(command.native_outputs(pictures, weight, kernel), pictures, weight)
    layer = command.measure_layer(taps, 16)
    said = layer["native_direct"] if kernel == "direct" else layer["forms"][1]["native"]
    assert error == pytest.approx(said, rel=1e-6)


@pytest.mark.parametrize(("kernel", "taps"), [("winograd:8", (3, 3)), ("winograd:6", (5, 5)), ("winograd:6", (1, 7))])
def test_a_kernel_that_there_is_not_is_refused(kernel: str, taps: tuple[int, int]) -> None:
    with pytest.raises(RuntimeError, match=f"where {kernel} was asked for"):
        command.native_outputs(*command.layer_data(taps, 16), kernel)


def test_the_points_of_a_form_are_measured_with_their_roles() -> None:
    found = command.measure_points(4, 3)
    roles = {role: score for score in found["ranked"] for role in score["roles"]}
    assert set(roles) == {"published", "searched", "kernel", "integers"}
    assert roles["integers"]["points"] == ["0", "1", "-1", "2", "-2"]
    assert roles["published"]["points"] == [str(p) for p in default_points(4, 3)]
    assert roles["kernel"] is roles["searched"] is found["ranked"][0]
    assert set(roles["searched"]["points"]) == {str(p) for p in searched_points(4, 3)}
    assert roles["searched"]["rms_2d"] * 2 < roles["integers"]["rms_2d"]
    without = {role for score in command.measure_points(6, 5)["ranked"] for role in score["roles"]}
    assert without == {"published", "searched"}, "there is no such kernel"


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (4, 7)])
def test_the_points_of_a_native_kernel_are_read_off_its_matrices(m: int, r: int) -> None:
    points = command.native_points(m, r)
    assert points is not None
    exact = winograd_matrices(m, r, points, scale=False)
    assert [float(value) for row in exact.b_t for value in row] == _native.winograd_matrices(m, r)[2]


@pytest.mark.parametrize(("m", "r"), [(8, 3), (6, 5), (6, 7), (4, 4)])
def test_a_form_without_a_native_kernel_has_no_points(m: int, r: int) -> None:
    assert command.native_points(m, r) is None


def test_the_record_is_whole_and_in_order() -> None:
    document = record()
    assert document["passed"] is True
    assert {"commit", "date", "seed", "torch", "numpy", "host", "settings"} <= set(document)
    layers = document["layers"]
    assert [(layer["kernel"], layer["channels"]) for layer in layers] == [
        (list(kernel), c) for kernel in command.KERNELS for c in command.CHANNELS
    ]
    assert command.order_shows(layers)
    assert document["orders"] == command.orders(layers)
    for layer in layers:
        assert layer["torch_direct"] <= DIRECT
        assert layer["native_direct"] <= DIRECT
        tables = [form["published"] for form in layer["forms"]]
        assert tables == sorted(tables), "the error grows with the tile"
        for form in layer["forms"]:
            there_is = form["m"] in WINOGRAD_TILES.get(tuple(layer["kernel"]), ())
            assert (form["native"] is not None) == there_is
            if there_is:
                assert 0 < form["native"] <= WINOGRAD[form["tile"]]
    assert [(search["m"], search["r"]) for search in document["points"]] == list(command.SEARCHES)


def test_the_record_is_what_is_measured_again() -> None:
    """In numpy: the native kernels differ by instruction set."""
    layer = next(layer for layer in record()["layers"] if (layer["kernel"], layer["channels"]) == ([3, 3], 128))
    again = command.measure_layer((3, 3), 128, seed=record()["seed"])
    for known, found in zip(layer["forms"], again["forms"], strict=True):
        for name in ("published", "searched", "runs", "long_sums"):
            assert found[name] == pytest.approx(known[name], rel=0.5)


def test_the_order_is_judged_beside_torch_and_beside_the_engine() -> None:
    forms = [{"published": 2e-7 * times, "native": 4e-7 * times} for times in (1, 3, 9)]
    layer = {"kernel": [3, 3], "channels": 5, "torch_direct": 1e-7, "native_direct": 4e-7, "forms": forms}
    found = {(order["kind"], order["direct"]): order for order in command.orders([layer, layer | {"kernel": [1, 3]}])}
    ratios = {kinds: order["ratios"] for kinds, order in found.items()}
    assert ratios == {
        ("published", "torch_direct"): pytest.approx([2, 6, 18]),
        ("published", "native_direct"): pytest.approx([0.5, 1.5, 4.5]),
        ("native", "torch_direct"): pytest.approx([4, 12, 36]),
        ("native", "native_direct"): pytest.approx([1, 3, 9]),
    }
    shows = {kinds for kinds, order in found.items() if order["shows"]}
    assert shows == {("published", "torch_direct"), ("native", "native_direct")}
    assert {order["channels"] for order in found.values()} == {5}


def test_an_order_that_does_not_show_is_noticed() -> None:
    layers = record()["layers"]
    wrong = (
        (0, "published", 30.0), (0, "native", 30.0), (1, "published", 0.25), (1, "native", 1e-3), (2, "native", 1e-3),
    )  # fmt: skip
    for form, name, factor in wrong:
        changed = copy.deepcopy(layers)
        changed[1]["forms"][form][name] *= factor
        assert not command.order_shows(changed), (form, name)
    made = {"commit": "1"}
    points = record()["points"]
    assert command.summary(layers, points, made)["passed"] is True
    assert command.summary(layers[:-1], points, made)["passed"] is False
    assert command.summary(layers, points[:-1], made)["passed"] is False


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the measurements by the record's, and counts them."""
    asked: list[Any] = []
    layers = {(tuple(layer["kernel"]), layer["channels"]): layer for layer in record()["layers"]}
    points = {(search["m"], search["r"]): search for search in record()["points"]}

    def measure_layer(kernel: tuple[int, int], channels: int, *, seed: int) -> Any:
        if asked.count("stop") and len(asked) > 3:
            raise KeyboardInterrupt
        asked.append((kernel, channels))
        return layers[kernel, channels]

    def measure_points(m: int, r: int, *, seed: int) -> Any:
        asked.append((m, r))
        return points[m, r]

    monkeypatch.setattr(command, "measure_layer", measure_layer)
    monkeypatch.setattr(command, "measure_points", measure_points)
    monkeypatch.setattr(command, "commit", lambda: "first")
    return asked


def test_an_interrupted_run_goes_on_where_it_stopped(
    fake: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "error.json"
    fake.append("stop")
    assert command.main(["--out", str(out)]) == 130
    assert "holds 3 layers and 0 searches; run again to go on" in capsys.readouterr().err
    assert json.loads(out.read_text(encoding="utf-8"))["passed"] is False
    fake.clear()
    assert command.main(["--out", str(out)]) == 0
    assert fake == [*[(kernel, c) for kernel in command.KERNELS for c in command.CHANNELS][3:], *command.SEARCHES]
    said = capsys.readouterr()
    assert '"passed": true' in said.out
    for direct in ("torch_direct", "native_direct"):
        assert said.err.count(f"native / {direct}: F(2,3) ") == len(command.CHANNELS)
    whole = json.loads(out.read_text(encoding="utf-8"))
    assert (whole["commit"], whole["seed"]) == ("first", 0)
    assert whole["layers"] == record()["layers"]
    monkeypatch.setattr(command, "commit", lambda: "second-dirty")
    assert command.main(["--out", str(out)]) == 2
    assert "it was made at commit first, now it is second-dirty: --again makes it anew" in capsys.readouterr().err
    assert command.main(["--out", str(out), "--again"]) == 0
    assert "there are uncommitted changes" in capsys.readouterr().err


def test_bad_files_and_seeds_are_refused(fake: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "error.json"
    for text in ("{", "[]", "{}"):
        out.write_text(text, encoding="utf-8")
        assert command.main(["--out", str(out)]) == 2
        assert f"--out: {out} cannot be used" in capsys.readouterr().err
    assert command.main(["--out", str(out), "--seed", "-1"]) == 2
    assert "--seed: -1 is below 0" in capsys.readouterr().err
    assert fake == []
