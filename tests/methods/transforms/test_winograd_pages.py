"""Tables of the two pages on Winograd: from the committed record, and from the forms when they are asked again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastcnn.methods.transforms.winograd import (
    WinogradForm,
    WinogradSum,
    default_points,
    nested_form,
    polyphase,
    searched_points,
    split_kernel,
)
from tests.docs.pages import ROOT

RECORD = ROOT / "benchmarks" / "results" / "winograd_error.json"
CONCEPT, METHOD = (ROOT / "docs" / name / "winograd.md" for name in ("concepts", "methods"))
ROLES = {"published": "published", "kernel": "native kernel", "searched": "least error"}


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


def cost_rows() -> list[str]:
    """Multiplications per output of direct correlation, of tiles m = 2, 4, 6, and of m = 4 in small pieces."""
    lines = []
    for taps, stride in (((3, 3), 1), ((1, 7), 1), ((5, 5), 1), ((7, 7), 1), ((3, 3), 2), ((5, 5), 2), ((7, 7), 2)):
        whole: list[WinogradForm | WinogradSum] = [
            nested_form(m, taps) if stride == 1 else polyphase(taps, m, stride=stride) for m in (2, 4, 6)
        ]
        pieces = split_kernel(taps, 4) if stride == 1 else polyphase(taps, 4, stride=stride, most_taps=3)
        name = f"{taps[0]}x{taps[1]}" + (f", stride {stride}" if stride > 1 else "")
        counts = [f"{float(form.multiplications):.2f}" for form in (*whole, pieces)]
        lines.append(row(name, str(taps[0] * taps[1]), *counts, str(len(pieces.pieces))))
    return lines


def point_rows() -> list[str]:
    """Measured errors of the published points, the native kernel's and those of least error, of every form."""
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


def error_rows() -> list[str]:
    """Errors of every form of every layer, beside direct convolution."""
    lines = []
    for layer in record()["layers"]:
        r = layer["kernel"]
        for form in layer["forms"]:
            kinds = ("published", "searched", "long_sums", "split", "native")
            lines.append(
                row(
                    f"F({form['m']},{r})",
                    str(layer["channels"]),
                    short(layer["torch_direct"]),
                    short(layer["native_direct"]),
                    *(short(form[kind]) for kind in kinds),
                )
            )
    return lines


@pytest.mark.parametrize("rows", [cost_rows, point_rows, error_rows])
def test_the_page_holds_the_table_and_no_other_rows(rows: Any) -> None:
    lines = CONCEPT.read_text(encoding="utf-8").splitlines()
    wanted = rows()
    first = lines.index(wanted[0])
    assert lines[first : first + len(wanted)] == wanted
    assert lines[first - 1].startswith("|---")
    assert not lines[first + len(wanted)].startswith("|")
    assert all(line.count("|") == wanted[0].count("|") for line in lines[first - 2 : first + len(wanted)])


def form_of(kernel: int, channels: int, m: int) -> dict[str, Any]:
    layer = next(e for e in record()["layers"] if (e["kernel"], e["channels"]) == (kernel, channels))
    return next(form for form in layer["forms"] if form["m"] == m)


def test_what_the_pages_say_of_the_tables() -> None:
    concept, method = (" ".join(page.read_text(encoding="utf-8").split()) for page in (CONCEPT, METHOD))
    document = record()
    assert f"{document['host']['native']['isa_active']}" in concept
    four = form_of(3, 512, 4)
    said = f"F(4,3) on 512 channels: {short(four['native'])} by the native kernel, {short(four['searched'])} with"
    assert said in concept
    assert f"{short(four['native'])} for F(4,3) on 512 channels" in method
    assert f"{short(four['searched'])} with other points and shorter sums" in method
    found = {(s["m"], s["r"]): {role: e for e in s["ranked"] for role in e["roles"]} for s in document["points"]}
    ratios = [found[form]["kernel"]["rms_2d"] / found[form]["searched"]["rms_2d"] for form in ((4, 3), (2, 5))]
    assert f"a {min(ratios):.1f} times smaller error in the mean square" in concept
    assert f"a {min(ratios):.1f} times smaller error" in method
    tens = [found[f]["published"]["rms_2d"] / found[f]["searched"]["rms_2d"] for f in ((8, 3), (6, 5), (4, 7))]
    assert f"about {min(tens):.1f} times smaller than the published" in concept
    assert min(tens) == pytest.approx(max(tens), rel=0.1)
    for search in document["points"]:
        roles = found[search["m"], search["r"]]
        assert roles["searched"]["rms_2d"] <= 1.05 * search["ranked"][0]["rms_2d"]
    for m, r in ((2, 3), (6, 3), (4, 5)):
        assert found[m, r]["kernel"] == found[m, r]["searched"], "nothing better was found"
        assert {role for role, score in found[m, r].items()} == {"published", "kernel", "searched"}
        assert searched_points(m, r) == default_points(m, r)


def test_growth_goes_with_the_measured_error_as_the_page_says() -> None:
    """Within a third, whatever the form."""
    for search in record()["points"]:
        for score in search["ranked"]:
            assert 3 / 4 < score["rms_2d"] / (score["growth"] ** 2 * 2**-24) < 4 / 3


def test_what_the_page_concludes_from_the_errors() -> None:
    for kernel in (3, 5, 7):
        for m in (2, 4, 6):
            form = form_of(kernel, 512, m)
            assert 1.9 < form["long_sums"] / form["published"] < 4.1, "long sums: two to four times"
            if form["tile"] >= 10:
                assert form["published"] > 1e-4
            for channels in (16, 128, 512):
                each = form_of(kernel, channels, m)
                assert each["split"] is None or each["split"] < min(each["searched"], each["published"])
    for alike in (((3, 4), (5, 2)), ((3, 6), (5, 4), (7, 2))):
        errors = [form_of(kernel, 512, m)["published"] for kernel, m in alike]
        assert max(errors) < 2 * min(errors), "the tile decides, not the kernel"
