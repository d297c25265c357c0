"""The page holds every series and figure, and opens nothing; the picture is one."""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastcnn._extras import MissingExtraError
from fastcnn.benchmarking.kernels import AlgorithmTime, Layer
from fastcnn.reporting.kernels_page import kernels_html, kernels_png
from tests.benchmarking.kernel_results import by_kernel, cell, engine, point, result

PARTS = (
    *by_kernel(),
    *by_kernel("avx2"),
    point(Layer(kernel=5, size=28), {"direct": 1.0, "winograd:4": 0.25, "amx_bf16x3": 0.2, "fft_i16:16": 0.3}),
)
CELLS = (
    cell(engine("fastcnn"), engine("torch", 0.2), engine("openvino", failure="it died")),
    cell(failure="the tuner died", row="training"),
)


def charts(page: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Chart to the name and data of its series, as plotly is told them."""
    decoder, found = json.JSONDecoder(), {}
    for match in re.finditer(r'Plotly\.newPlot\(\s*"([^"]+)",\s*', page):
        series, _ = decoder.raw_decode(page, match.end())
        found[match[1]] = {trace["name"]: trace for trace in series}
    return found


def values(data: Any) -> list[float]:
    """Numbers of a series: a list, or an array in plotly's base64 form."""
    if isinstance(data, dict):
        return list(np.frombuffer(base64.b64decode(data["bdata"]), np.dtype(data["dtype"])).astype(float))
    return [float(value) for value in data]


def test_the_page_holds_every_series() -> None:
    found = charts(kernels_html(result(*PARTS, cells=CELLS)))
    assert {"chart-by-kernel-0-avx512", "chart-by-kernel-0-avx2", "chart-by-map-5-avx512"} <= set(found)
    kernel = found["chart-by-kernel-0-avx512"]
    assert set(kernel) == {"direct", "best", "fft:32", "proportional to k squared"}
    assert values(kernel["direct"]["x"]) == list(range(3, 32, 2))
    assert values(kernel["direct"]["y"]) == pytest.approx([1.05 * 0.01 * k * k for k in range(3, 32, 2)])
    assert values(kernel["best"]["y"])[-1] == pytest.approx(0.525)
    by_map = found["chart-by-map-5-avx512"]
    assert set(by_map) == {"direct", "best", "fft:32", "winograd:4", "amx_bf16x3", "fft_i16:16"}
    assert values(by_map["amx_bf16x3"]["x"]) == [28]
    assert values(by_map["direct"]["x"]) == [28, 56]


def test_the_page_holds_ratios_errors_commits_and_failures() -> None:
    failed = replace(by_kernel()[0], algorithms=(), failure="no answer within 900 s")
    heavy = AlgorithmTime(algorithm="fft:64", failure="transformed weights would take 6.1 GiB")
    odd = point(Layer(kernel=7, channels=512), {"direct": 1.0, "fft:8": 0.5})
    odd = replace(odd, algorithms=(*odd.algorithms, heavy))
    page = kernels_html(result(failed, odd, cells=CELLS))
    for text in (
        "k5-c64-m56-b1", "0.200", "1.0e-06", "c0ffee", "it died", "the tuner died", "no answer within 900 s",
        "(goal 0.3 of torch, openvino)",
        "k7-c512-m56-b1, fft:64: transformed weights would take 6.1 GiB",
    ):  # fmt: skip
        assert text in page, text
    outside = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)\s*=\s*"', outside)


def test_text_is_escaped() -> None:
    page = kernels_html(result(cells=(cell(failure="<b>bold</b>"),)))
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page


def chunks(png: bytes) -> dict[bytes, bytes]:
    """Parts of a PNG file, data joined, after their checksums are checked."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, found = 8, dict[bytes, bytes]()
    while place < len(png):
        (length,), kind = struct.unpack(">I", png[place : place + 4]), png[place + 4 : place + 8]
        data = png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + data),)
        found[kind] = found.get(kind, b"") + data
        place += 12 + length
    return found


def test_the_picture_is_a_png_with_something_on_it() -> None:
    parts = chunks(kernels_png(result(*PARTS)))
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    # Every chart has a layer of 64 channels, map 56, batch 1: four rows of them.
    assert (width, height) == (1650, 1760)
    assert len(set(zlib.decompress(parts[b"IDAT"]))) > 50
    small = chunks(
        kernels_png(result(point(Layer(kernel=11), {"direct": 1.0}), point(Layer(kernel=13), {"direct": 2.0})))
    )
    assert struct.unpack(">II", small[b"IHDR"][:8]) == (1650, 440)


def test_nothing_measured_is_no_picture() -> None:
    with pytest.raises(ValueError, match="no point of a chart is measured"):
        kernels_png(result(cells=CELLS))


@pytest.mark.parametrize(("module", "draw"), [("plotly.offline", kernels_html), ("matplotlib.figure", kernels_png)])
def test_a_missing_library_is_named(module: str, draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == module.split(".")[0]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"fastcnn\[report\]"):
        draw(result(*PARTS))
