"""Attributes that no planner gives, and memory: refused in words before anything is allocated or added up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcnn import _native
from fastcnn.artifact import ArtifactError
from fastcnn.engine.graph import Graph
from fastcnn.engine.plan.build import step_arguments
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.program import write
from fastcnn.engine.program.records import Records, Weights, padded
from tests.capi import library
from tests.capi.cases import CASES, compiled_case, inputs_of
from tests.capi.damage import HEADER, repaired
from tests.capi.library import Net, Refused
from tests.engine.binary_nets import conv as binary_conv
from tests.engine.byte_tiles import TILE_ISAS, take
from tests.engine.int8_nets import conv as int8_conv
from tests.engine.nets import Maker, choose, compiled, native

I16 = {"split": "panels", "weights": "i16", "compensated": 0}
BF16 = {"weights": "bf16", "compensated": 0}


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Programs written after ``lying(op, key=value)`` have these attributes in every step of that op."""
    changed: list[str] = []

    def lie(wanted: str, /, **attrs: Any) -> None:
        def arguments(*given: Any) -> tuple[Any, ...]:
            op, inputs, out, own, arrays = step_arguments(*given)
            if op == wanted:
                changed.append(op)
                own = {**own, **attrs}
            return op, inputs, out, own, arrays

        monkeypatch.setattr(write, "step_arguments", arguments)

    yield lie
    assert changed, "no step was changed"


@pytest.fixture
def tile_isa() -> str:
    """With the tile registers of AMX, emulated if they can be."""
    if not TILE_ISAS:
        pytest.skip("no AMX here, nor registers that emulate it")
    return "avx512_emulated" if "avx512_emulated" in TILE_ISAS else TILE_ISAS[0]


PAST = "reads past the border of its input"


@pytest.mark.parametrize(
    ("op", "attrs", "words"),
    [
        ("int8_amx", {"split": "pixels"}, "split"),
        ("int8_amx", {"stride": [1, 1 << 20]}, PAST),
        ("int8_amx", {"dilation": [3, 3]}, PAST),
        ("int8_amx", {"out_zero": 300}, "out_zero"),
        ("int8_amx", {"kernel": [2, 2]}, "weight, taps and channels differ"),
        ("sign_amx", {"split": "rows"}, "split"),
        ("sign_amx", {"stride": [1, 1 << 20]}, PAST),
        ("sign_amx", {"dilation": [3, 3]}, PAST),
        ("sign_amx", {"kernel": [2, 2]}, "weight, taps and channels differ"),
        ("sign_amx", {"groups": 2}, "groups need whole words of channels"),
        ("sign_amx", {"in_planes": 2}, "takes two planes|weight, taps and channels differ"),
    ],
)
def test_attributes_no_planner_gives_to_tiles_of_bytes(
    op: str, attrs: dict[str, Any], words: str, tile_isa: str, lying: Callable[..., None], tmp_path: Path
) -> None:
    make = Maker(1, (2, 20, 9, 9))
    if op == "int8_amx":
        graph = make.graph(int8_conv(make, make.op("relu", int8_conv(make, "x0", 20, 40)), 40, 20))
    else:
        graph = make.graph(binary_conv(make, "x0", 20, 40))
    net = compiled(graph, tile_isa)
    assert take(net, "tiles") > 0
    net.export(tmp_path / "good.fcp")
    lying(op, **attrs)
    with pytest.raises(ArtifactError, match=rf"step \d+ \({op}\): .*({words})"):
        net.export(tmp_path / "net.fcp")


@pytest.mark.parametrize(
    ("op", "attrs", "words"),
    [
        ("pool", {"kernel": [1 << 20, 1 << 20]}, "a window covers too many values"),
        ("pool", {"kernel": [1 << 15, 1 << 15]}, "a window covers too many values"),
        ("pool", {"padding": [1 << 27, 0, 0, 1 << 27]}, "a window covers too many values"),
        ("pool", {"padding": [0, 1 << 15, 1 << 15, 0]}, "a window covers too many values"),
        ("transposed", I16, "a transposed convolution has weights of 'f32' only"),
        ("transposed", BF16, "a transposed convolution has weights of 'f32' only"),
        ("direct", BF16, "'bf16' goes with channel-blocked maps and plain sums"),  # the first one reads planes
    ],
)
def test_attributes_no_planner_gives(
    op: str, attrs: dict[str, Any], words: str, lying: Callable[..., None], tmp_path: Path
) -> None:
    net = compiled(CASES["unet"](), "scalar")
    lying(op, **attrs)
    with pytest.raises(ArtifactError, match=rf"step \d+ \({op}\): {words}"):
        net.export(tmp_path / "net.fcp")


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"rows": 0}, "rows"),
        ({"rows": 1 << 20}, "rows"),
        ({"images": 2}, "several images in a block have all their rows"),
        ({"images": 3}, "images"),
        ({"products": "fp8"}, "products"),
        ({"groups": 2}, "groups"),
        ({"stride": [1, 1 << 20]}, "reads past the border of its input"),
    ],
)
def test_attributes_no_planner_gives_to_amx(
    attrs: dict[str, Any], words: str, tile_isa: str, lying: Callable[..., None], tmp_path: Path
) -> None:
    make = Maker(1, (2, 20, 9, 9))
    layer = make.conv(make.op("mul_scalar", "x0", value=1.0), 20, 40)
    net = compiled(make.graph(layer), tile_isa)
    choose(net, layer, Candidate("amx", "amx", {"split": "pixels", "rows": 4, "images": 1, "products": "bf16"}))
    net.export(tmp_path / "good.fcp")
    lying("amx", **attrs)
    with pytest.raises(ArtifactError, match=rf"step \d+ \(amx\): .*{words}"):
        net.export(tmp_path / "net.fcp")


@pytest.mark.parametrize(
    ("op", "attrs", "words"),
    [
        ("fft", {"tile": 10}, "there is no such form for this kernel"),
        ("fft", {"tile": 8}, "there is no such form for this kernel"),
        ("fft", {"tile": 1}, "tile"),
        ("fft", {"stride": [1, 9]}, "stride"),
        ("fft", {"stride": [1, 2]}, "map and padding differ"),
        ("fft", {"dilation": [1, 65]}, "dilation"),
        ("fft", {"dilation": [1, 2]}, "map and padding differ"),
        ("fft", {"dilation": [2, 1], "stride": [2, 1]}, "stride and dilation along one axis"),
        ("fft", {"chunk": 0}, "chunk"),
        ("fft", {"groups": 2}, "groups"),
        ("fft", {"split": "bands"}, "split"),
        ("fft", {"weights": "bf16"}, "spectra are 'f32' or 'i16'"),
        ("fft_depthwise", {"tile": 18}, "there is no such form for this kernel"),
        ("fft_depthwise", {"stride": [1, 2]}, "stride"),
        ("fft_depthwise", {"groups": 1}, "groups"),
    ],
)
def test_attributes_no_planner_gives_to_tiles(
    op: str, attrs: dict[str, Any], words: str, lying: Callable[..., None], tmp_path: Path
) -> None:
    net = compiled(CASES["large_kernels"](), "scalar")
    net.export(tmp_path / "good.fcp")
    lying(op, **attrs)
    with pytest.raises(ArtifactError, match=rf"step \d+ \({op}\): .*{words}"):
        net.export(tmp_path / "net.fcp")


def test_there_is_no_amx_on_other_instruction_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make = Maker(1, (2, 20, 9, 9))
    net = compiled(make.graph(make.conv(make.op("mul_scalar", "x0", value=1.0), 20, 40)), "scalar", exact=True)

    def arguments(*given: Any) -> tuple[Any, ...]:
        op, *rest = step_arguments(*given)
        return "amx" if op == "direct" else op, *rest

    monkeypatch.setattr(write, "step_arguments", arguments)
    with pytest.raises(ArtifactError, match="there is no AMX on this instruction set"):
        net.export(tmp_path / "net.fcp")


@pytest.mark.parametrize("attrs", [{"dilation": [2, 1]}, {"stride": [3, 1]}, {"dilation": [1 << 20, 1]}])
def test_rows_of_a_band_are_bounded(attrs: dict[str, Any], lying: Callable[..., None], tmp_path: Path) -> None:
    net = compiled_case("inverted", "scalar")
    lying("depthwise", **attrs)
    with pytest.raises(ArtifactError, match=r"step \d+ \(depthwise\): reads past the border of its input"):
        net.export(tmp_path / "net.fcp")


@pytest.mark.parametrize("attrs", [{"padding": [2, 1, 1, 1]}, {"padding": [1, 1, 1, 1], "dilation": [1, 2]}])
def test_a_band_has_no_border_to_spare(attrs: dict[str, Any], lying: Callable[..., None], tmp_path: Path) -> None:
    """Other rows than the planner's stay in their band, other columns do not stay in a row."""
    net = compiled_case("inverted", "scalar")
    lying("depthwise", **attrs)
    if "dilation" in attrs:
        with pytest.raises(ArtifactError, match="reads past the border of its input"):
            net.export(tmp_path / "net.fcp")
        return
    net.export(tmp_path / "net.fcp")
    assert all(np.isfinite(y).all() for y in Net(tmp_path / "net.fcp").run(*inputs_of(net.graph)))


def test_the_largest_windows_run(lying: Callable[..., None], tmp_path: Path) -> None:
    """One value less than is refused: the count of a window still fits."""
    graph = CASES["unet"]()
    net = compiled(graph, "scalar")
    lying("pool", kernel=[1, (1 << 29) - 2], count_include_pad=1)
    net.export(tmp_path / "net.fcp")
    assert all(np.isfinite(y).all() for y in Net(tmp_path / "net.fcp").run(*inputs_of(graph)))


def one_step(op: str, attrs: dict[str, Any], tensors: list[dict[str, Any]], weight: np.ndarray) -> bytes:
    """A program with nothing but this step, whose arena is as large as any may be: no file of this size fills it."""
    records, weights = Records(), Weights()
    records.text("a test")
    records.text("scalar")
    records.number("IIQdd", int(_native.lanes("scalar")), 1, 1 << 40, 1e-3, 1e-6)
    for names in ([], ["y"]):
        records.number("I", len(names))
        for name in names:
            records.text(name)
            records.list([1])
    records.number("I", 1)
    records.text(op)
    records.number("I", len(tensors) - 1)
    for tensor in tensors:
        dense = {
            "space": "arena",
            "blocked": True,
            "index": 0,
            "offset": 0,
            "border": [0] * 4,
            "image": 0,
            "rows": 0,
            "element": "float",
        }
        records.tensor({**dense, "dims": tensor["nchw"], **tensor})
    records.number("I", len(attrs))
    for key, value in attrs.items():
        records.attribute(key, value)
    records.number("I", 1)
    extents, offset, crc = weights.add(weight)
    records.text("weight")
    records.list(extents)
    records.number("QI", offset, crc)
    body = records.data()
    begin = padded(HEADER + len(body))
    head = struct.pack("<8sIIQQQQ16x", b"FASTCNNP", 1, 0, begin + weights.bytes, len(body), begin, weights.bytes)
    return repaired(head + body + bytes(begin - HEADER - len(body)) + b"".join(map(bytes, weights.chunks())))


@pytest.mark.parametrize(
    ("op", "form", "split", "across", "channels"),
    [
        ("winograd", {"m": 2}, "tiles", 2, (1024, 1)),
        ("fft", {"tile": 8}, "panels", 6, (1024, 1)),
        ("fft", {"tile": 8}, "rows", 6, (1, 1024)),
        ("fft", {"tile": 8}, "own_rows", 6, (1, 1024)),
    ],
)
def test_the_scratch_of_a_chunk_is_bounded(
    op: str, form: dict[str, int], split: str, across: int, channels: tuple[int, int]
) -> None:
    """A map as large as any may be, in a single chunk."""
    side = (1 << 15) - 1
    chunk = ((side + across - 1) // across) ** 2
    tensors = [{"nchw": [1, c, side, side]} for c in channels]
    attrs = {**form, "groups": 1, "split": split, "stride": [1, 1], "dilation": [1, 1], "padding": [1] * 4}
    weight = np.zeros((channels[1], channels[0], 3, 3), np.float32)
    for size, words in ((chunk, rf"step 0 \({op}\): 'chunk' asks for too much"), (64, "no step writes output 'y'")):
        with pytest.raises(Refused, match=words):
            Net(one_step(op, {**attrs, "chunk": size}, tensors, weight), memory_limit=(1 << 64) - 1)


@pytest.mark.parametrize("split", ["rows", "own_rows"])
def test_only_fft_is_split_by_rows(split: str) -> None:
    tensors = [{"nchw": [1, 1, 9, 9]} for _ in range(2)]
    attrs = {"groups": 1, "split": split, "chunk": 14, "stride": [1, 1], "dilation": [1, 1], "padding": [1] * 4}
    weight = np.zeros((1, 1, 3, 3), np.float32)
    for op, form, words in (("winograd", {"m": 2}, r"winograd\): .*split"), ("fft", {"tile": 8}, "no step writes")):
        with pytest.raises(Refused, match=words):
            Net(one_step(op, attrs | form, tensors, weight), memory_limit=1 << 40)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["direct", "depthwise"])
def test_the_reach_of_taps_is_bounded(op: str, axis: int) -> None:
    """Borders of 2^30 rows or columns, taps 2^20 apart: the last lies further from the first than an int counts."""
    apart, most = 1 << 20, (1 << 30) - 1
    size, border, out = [1, 1], [apart, 0], [1, 1]
    size[axis], out[axis] = most - 1, 2

    def program(taps: int) -> bytes:
        kernel, dilation, padding = [1, 1], [1, 1], [0] * 4
        kernel[axis], dilation[axis], padding[axis] = taps, apart, apart
        sides = [0] * 4
        sides[axis], sides[2 + axis] = border[0], most
        tensors = [{"nchw": [1, 1, *size], "border": sides}, {"nchw": [1, 1, *out]}]
        attrs: dict[str, Any] = {"groups": 1, "stride": [1, 1], "dilation": dilation, "padding": padding}
        if op == "direct":
            tile, panel = _native.direct_configs("scalar")[0]
            attrs |= {**BF16, "tile": tile, "panel": panel, "split": "pixels", "pixel_block": 64, "sum_terms": 512}
        else:
            attrs["split"] = "rows"
        return one_step(op, attrs, tensors, np.zeros((1, 1, *kernel), np.float32))

    for taps, words in ((2049, rf"step 0 \({op}\): reaches too far"), (1000, "no step writes output 'y'")):
        with pytest.raises(Refused, match=words):
            Net(program(taps), memory_limit=(1 << 64) - 1)


@pytest.mark.parametrize("floats", [1 << 61, 1 << 62, (1 << 62) + 16, (1 << 64) - 1])
def test_sizes_that_would_wrap_are_refused(floats: int) -> None:
    net = _native.Net("scalar", 1)
    net.set_arena(floats)
    with pytest.raises(MemoryError):
        net.finish()


def few_rows() -> Graph:
    """One row of weights: the scales of 16-bit weights are twice as large as their codes."""
    make = Maker(1, (1, 1, 2, 2))
    return make.graph(make.conv("x0", 1, 1 << 15, 1))


def one_panel() -> Graph:
    """All columns in one panel: while it is rounded, it is there as floats too."""
    make = Maker(2, (1, 512, 4, 4))
    return make.graph(make.conv("x0", 512, 8, 3, stride=2))


@pytest.mark.parametrize("graph", [few_rows, one_panel])
def test_16_bit_weights_count_before_they_are_read(
    graph: Callable[[], Graph], lying: Callable[..., None], tmp_path: Path
) -> None:
    """With a limit that floats alone would keep, and damage to tell whether the weights were read."""
    net = compiled(graph(), "scalar")
    lying("direct", **I16)
    net.export(tmp_path / "net.fcp")
    data = bytearray((tmp_path / "net.fcp").read_bytes())
    (weights,) = struct.unpack_from("<Q", data, 40)
    offsets = 64 * 9
    limit = weights + 4 * (native(net).arena_floats + offsets)
    data[-64 - weights // 2] ^= 1
    with pytest.raises(Refused, match=r"it needs \d+ MiB, the limit is") as caught:
        Net(bytes(data), memory_limit=limit)
    assert caught.value.status == library.OUT_OF_MEMORY
    with pytest.raises(Refused, match="checksum of weight"):
        Net(bytes(data), memory_limit=2 * limit)


def test_records_count_before_they_are_held(tmp_path: Path) -> None:
    compiled(CASES["wave"](), "scalar", exact=True).export(tmp_path / "net.fcp")
    data = (tmp_path / "net.fcp").read_bytes()
    (records,) = struct.unpack_from("<Q", data, 24)

    def status(changed: bytes, limit: int) -> int:
        with pytest.raises(Refused) as caught:
            Net(changed, memory_limit=limit)
        return caught.value.status

    bruised = bytearray(data)
    bruised[HEADER + 3] ^= 1  # a checksum that does not fit: seen as soon as the records are read
    assert status(bytes(bruised), records - 1) == library.OUT_OF_MEMORY
    assert status(bytes(bruised), records) == library.BAD_PROGRAM
    at = data.index(b"\4\0tile\0") + 7
    unknown = repaired(data[:at] + struct.pack("<d", 5.0) + data[at + 8 :])  # seen once all steps are parsed
    assert status(unknown, records + 64) == library.OUT_OF_MEMORY
    assert status(unknown, 20 * records) == library.BAD_PROGRAM
