"""Tables of the two pages on Winograd: from the committed record, and from the forms when they are asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastcnn._native", reason="fastcnn._native is not built: make build")

from fastcnn.engine.plan.tiles import WINOGRAD_TILES
from fastcnn.methods.transforms.winograd import (
    WinogradForm,
    WinogradSum,
    default_points,
    nested_form,
    polyphase,
    searched_points,
    split_kernel,
)
from fastcnn.reproduction.winograd_error import orders
from tests.docs.pages import ROOT
from tests.engine.nets import WINOGRAD

RECORD, LABELS = (ROOT / "benchmarks" / "results" / f"winograd_{name}.json" for name in ("error", "labels"))
CONCEPT, METHOD = (ROOT / "docs" / name / "winograd.md" for name in ("concepts", "methods"))
ROLES = {
    "integers": "integers", "published": "published", "kernel": "native kernel", "searched": "least error",
}  # fmt: skip


def record() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return document


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def short(value: float | None) -> str:
    """Two digits, as the pages write errors."""
    if value is None:
        return "–"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def form_rows(*, images: bool) -> list[str]:
    """What the engine's forms save on images or along one axis, and how their weights grow."""
    lines = []
    for m, r in ((2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (4, 7)):
        kernel, tile = (r if images else 1, r), m + r - 1
        if m in WINOGRAD_TILES.get(kernel, ()):
            form = nested_form(m, kernel)
            sizes = f"{tile}x{tile} for {m}x{m} outputs" if images else f"{tile} for {m} outputs"
            saved, grown = f"{float(form.saving):.3g}x", f"{float(form.weight_growth):.2g}x"
            lines.append(row(f"F({m},{r})", sizes, saved, grown))
    return lines


def image_form_rows() -> list[str]:
    return form_rows(images=True)


def line_form_rows() -> list[str]:
    return form_rows(images=False)


def cost_rows() -> list[str]:
    """Multiplications per output of direct correlation, of tiles m = 2, 4, 6, and of m = 4 in small pieces."""
    lines = []
    for taps, stride in (
        ((3, 3), 1),
        ((5, 5), 1),
        ((7, 7), 1),
        ((1, 3), 1),
        ((1, 5), 1),
        ((1, 7), 1),
        ((3, 3), 2),
        ((5, 5), 2),
        ((7, 7), 2),
    ):
        whole: list[WinogradForm | WinogradSum] = [
            nested_form(m, taps) if stride == 1 else polyphase(taps, m, stride=stride) for m in (2, 4, 6)
        ]
        pieces = split_kernel(taps, 4) if stride == 1 else polyphase(taps, 4, stride=stride, most_taps=3)
        name = f"{taps[0]}x{taps[1]}" + (f", stride {stride}" if stride > 1 else "")
        counts = [f"{float(form.multiplications):.2f}" for form in (*whole, pieces)]
        lines.append(row(name, str(taps[0] * taps[1]), *counts, str(len(pieces.pieces))))
    return lines


def point_rows() -> list[str]:
    """Measured errors of integers, the published points, the kernel's and those of least error, of every form."""
    lines = []
    for search in record()["points"]:
        for score in search["ranked"]:
            if score["roles"]:
                named = ", ".join(ROLES[role] for role in ROLES if role in score["roles"])
                points = ", ".join(score["points"])
                errors = short(score["rms_2d"]), short(score["max_2d"])
                lines.append(
                    row(
                        f"F({search['m']},{search['r']})",
                        named,
                        points,
                        *errors,
                        f"{score['growth']:.2f}",
                        str(score["nonzeros"]),
                    )
                )
    return lines


def error_rows(*, images: bool) -> list[str]:
    """Errors of every form of every layer, beside direct convolution."""
    lines = []
    for layer in record()["layers"]:
        kernel = layer["kernel"]
        if (kernel[0] > 1) != images:
            continue
        for form in layer["forms"]:
            name = f"F({form['m']},{kernel[0]})" if images else str(nested_form(form["m"], tuple(kernel)))
            kinds = ("published", "searched", "runs", "long_sums", "split", "native")
            lines.append(
                row(
                    name,
                    str(layer["channels"]),
                    short(layer["torch_direct"]),
                    short(layer["native_direct"]),
                    *(short(form[kind]) for kind in kinds),
                )
            )
    return lines


def image_rows() -> list[str]:
    return error_rows(images=True)


def line_rows() -> list[str]:
    return error_rows(images=False)


def order_rows() -> list[str]:
    """Errors of 3x3 layers as multiples of those of direct convolution, and whether the published order shows."""
    kinds = {"published": "published points", "native": "native"}
    lines = []
    for order in orders(record()["layers"]):
        ratios = [f"{ratio:.2f}" for ratio in order["ratios"]]
        beside = order["direct"].replace("_", " ")
        shows = "yes" if order["shows"] else "no"
        lines.append(row(str(order["channels"]), kinds[order["kind"]], beside, *ratios, shows))
    return lines


def label_rows() -> list[str]:
    """Labels, accuracy and error of both nets, each way."""
    nets = {"resnet20": "ResNet-20", "vgg_like": "VGG-like"}
    ways = {
        "torch_direct": "torch, direct", "torch_winograd": "torch, F(4,3)",
        "native_direct": "engine, direct", "native_winograd": "engine, F(4,3)",
    }  # fmt: skip
    lines = []
    for net, found in json.loads(LABELS.read_text(encoding="utf-8"))["nets"].items():
        for way, judged in found["ways"].items():
            layers = len(found["layers"].get(way, ()))
            same = f"{found['pictures'] - judged['other_labels']:,}"
            figures = f"{layers} of {found['convolutions']}", same, f"{judged['accuracy']:.2f} %"
            lines.append(row(nets[net], ways[way], *figures, short(judged["error"])))
    return lines


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        *((CONCEPT, rows) for rows in (image_form_rows, line_form_rows, cost_rows, point_rows)),
        *((CONCEPT, rows) for rows in (image_rows, line_rows, order_rows)),
        (METHOD, label_rows),
    ],
)
def test_the_page_holds_the_table_and_no_other_rows(page: Path, rows: Any) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    wanted = rows()
    first = lines.index(wanted[0])
    assert lines[first : first + len(wanted)] == wanted
    assert lines[first - 1].startswith("|---")
    assert not lines[first + len(wanted)].startswith("|")
    assert all(line.count("|") == wanted[0].count("|") for line in lines[first - 2 : first + len(wanted)])


def form_of(kernel: tuple[int, int], channels: int, m: int) -> dict[str, Any]:
    layer = next(e for e in record()["layers"] if (tuple(e["kernel"]), e["channels"]) == (kernel, channels))
    return next(form for form in layer["forms"] if form["m"] == m)


def words(page: Path) -> str:
    """The page's text on one line."""
    return " ".join(page.read_text(encoding="utf-8").split())


def roles_of(m: int, r: int) -> dict[str, Any]:
    search = next(search for search in record()["points"] if (search["m"], search["r"]) == (m, r))
    return {role: score for score in search["ranked"] for role in score["roles"]}


def test_what_the_pages_say_of_the_points() -> None:
    concept, method = words(CONCEPT), words(METHOD)
    sixes = [roles_of(*form) for form in ((4, 3), (2, 5))]
    integers, published = (
        min(roles[role]["rms_2d"] / roles["searched"]["rms_2d"] for roles in sixes)
        for role in ("integers", "published")
    )
    assert f"{integers:.1f} times smaller error in the mean square" in concept
    assert f"{published:.1f} times smaller than the published" in concept
    assert f"{integers:.1f} times smaller error than integers" in method
    assert [roles["searched"]["nonzeros"] for roles in sixes] == [roles["integers"]["nonzeros"] for roles in sixes]
    assert all(roles["searched"]["nonzeros"] < roles["published"]["nonzeros"] for roles in sixes)
    tens = [roles_of(*form) for form in ((8, 3), (6, 5), (4, 7))]
    ratios = [roles["published"]["rms_2d"] / roles["searched"]["rms_2d"] for roles in tens]
    assert f"about {min(ratios):.1f} times smaller than the published" in concept
    assert min(ratios) == pytest.approx(max(ratios), rel=0.1)
    for search in record()["points"]:
        roles = roles_of(search["m"], search["r"])
        assert roles["searched"]["rms_2d"] <= 1.05 * search["ranked"][0]["rms_2d"]
    for m, r in ((2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7), (4, 7)):
        roles = roles_of(m, r)
        assert roles["kernel"] == roles["searched"], "the kernels have the points of least error"
        if m + r - 1 in (4, 8):
            assert roles["published"] == roles["searched"], "nothing better was found"
            assert set(searched_points(m, r)) == set(default_points(m, r))


def test_what_the_pages_say_of_the_errors() -> None:
    concept, method = words(CONCEPT), words(METHOD)
    assert f"instruction set {record()['host']['native']['isa_active']}" in concept
    four, six, line = form_of((3, 3), 512, 4), form_of((3, 3), 512, 6), form_of((1, 3), 512, 6)
    said = (
        f"F(4,3) on 512 channels: {short(four['native'])} by the native kernel; {short(four['integers'])} with integer"
    )
    assert said in concept
    assert f"{short(four['native'])} for F(4,3) on 512 channels" in method
    assert f"{short(line['native'])} for F(1x6,1x3) on 512 channels where F(6,3) has {short(six['native'])}" in concept
    assert f"F(1x4,1x7) has {short(form_of((1, 7), 512, 4)['native'])}" in concept
    assert f"{short(form_of((1, 7), 512, 4)['native'])} for F(4,7) along one axis" in method


def test_what_the_page_says_of_the_order() -> None:
    """Which kernels show it beside which direct convolution, on which channels."""
    found = {(o["kind"], o["direct"], o["channels"]): o for o in orders(record()["layers"])}
    missed = {key for key, order in found.items() if not order["shows"]}
    assert missed == {("native", "torch_direct", 512)}
    ratio = found["native", "torch_direct", 512]["ratios"][0]
    layer = next(e for e in record()["layers"] if (e["kernel"], e["channels"]) == ([3, 3], 512))
    direct = layer["native_direct"] / layer["torch_direct"]
    page = words(CONCEPT)
    assert f"on 512 they miss it: F(2,3) has {ratio:.1f} times the error of torch's convolution" in page
    assert f"our own direct kernel has {direct:.1f} times that error there" in page


def test_the_page_names_the_gates_of_the_labels() -> None:
    document = json.loads(LABELS.read_text(encoding="utf-8"))
    assert {found["pictures"] for found in document["nets"].values()} == {10_000}
    assert {found["error_pictures"] for found in document["nets"].values()} == {500}
    gates = document["gates"]
    page = words(METHOD)
    assert f"at least {gates['min_same_labels']} % of the labels" in page
    assert f"by at most {gates['max_accuracy_change']} points" in page


@pytest.mark.parametrize(("form", "tile"), [("F(2,3)", 4), ("F(4,3)", 6), ("F(6,3)", 8), ("F(4,7)", 10)])
def test_the_pages_name_the_bounds_that_the_tests_assert(form: str, tile: int) -> None:
    bound = f"{WINOGRAD[tile]:.0e}".replace("e-0", "e-")
    for page in (CONCEPT, METHOD):
        assert f"{bound} for {form}" in words(page)


def test_growth_goes_with_the_measured_error_as_the_page_says() -> None:
    """Within a third, whatever the form."""
    for search in record()["points"]:
        for score in search["ranked"]:
            assert 3 / 4 < score["rms_2d"] / (score["growth"] ** 2 * 2**-24) < 4 / 3


def test_what_the_page_concludes_from_the_errors() -> None:
    for kernel in ((3, 3), (5, 5), (7, 7), (1, 3), (1, 5), (1, 7)):
        for m in (2, 4, 6):
            form = form_of(kernel, 512, m)
            assert 2.4 < form["long_sums"] / form["searched"] < 4.4, "long sums: between 2.4 and 4.4 times"
            assert 1.6 < form["runs"] / form["searched"] < 2.7, "runs: between 1.6 and 2.7 times"
            assert form["runs"] < form["long_sums"]
            for channels in (16, 128, 512):
                each = form_of(kernel, channels, m)
                assert each["split"] is None or each["split"] < min(each["searched"], each["published"])
                if each["native"] is not None:
                    assert 2 / 3 < each["native"] / each["runs"] < 3 / 2, "numpy with the same points and runs"
    for alike in ((((3, 3), 4), ((5, 5), 2)), (((3, 3), 6), ((5, 5), 4), ((7, 7), 2))):
        errors = [form_of(kernel, 512, m)["native" if kernel[0] < 7 else "runs"] for kernel, m in alike]
        assert max(errors) < 2.5 * min(errors), "the tile decides, not the kernel"
    for kernel, m in (((5, 5), 6), ((7, 7), 4), ((7, 7), 6)):
        form = form_of(kernel, 512, m)
        assert form["published"] > (0.95e-4 if form["tile"] == 10 else 2e-4)
        assert (form["runs"] < 1e-4) == (form["tile"] == 10)


def test_the_order_is_that_of_the_tiles() -> None:
    for layer in record()["layers"]:
        for kind in ("published", "searched", "runs", "long_sums", "native"):
            errors = [form[kind] for form in layer["forms"] if form[kind] is not None]
            assert errors == sorted(errors), (layer["kernel"], layer["channels"], kind)
