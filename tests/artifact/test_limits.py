"""Nets and shapes that native code cannot count or this machine cannot hold: refused in words, nothing allocated."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.artifact import ArtifactError, save_graph
from fastcnn.engine.graph import Graph, GraphError
from fastcnn.engine.plan import limits
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import ISAS, Maker


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with all the memory in the world: what is still refused is refused for its count."""
    monkeypatch.setattr(limits, "memory_limit", lambda: 1 << 60)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def refuse(graph: Graph, match: str, folder: Path) -> None:
    """Refused by compile-time planning and by load, without memory being taken."""
    before = peak_bytes()
    with pytest.raises(GraphError, match=match):
        CompiledNet(graph, make_target(ISAS[0], 1), tolerance=1e-4, exact=False, how="heuristic")
    save_graph(folder / "net.fcnn", graph)
    with pytest.raises(ArtifactError, match=f"cannot be planned: .*{match}"):
        fastcnn.load(folder / "net.fcnn")
    assert peak_bytes() - before < 64 << 20


def pointwise(*shape: int) -> Graph:
    make = Maker(0, shape)
    return make.graph(make.op("relu", "x0"))


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 1, 2**15, 2**15), "1073741824 pixels .32768 x 32768 with padding. in one map; native code counts at most"),
        ((1, 1, 1, 2**31 - 1), "2147483647 pixels"),
        ((1, 2**31 - 1, 1, 1), "2147483647 channels; native code counts at most 1073741824"),
        ((2**31 - 1, 1, 1, 1), "2147483647 pictures or rows of a batch"),
        ((1, 1, 1, 2**16, 2**16), "4294967296 pixels"),
        ((2**31 - 1,), "2147483647 pixels"),
    ],
)
def test_counts(shape: tuple[int, ...], match: str, endless: None, tmp_path: Path) -> None:
    refuse(pointwise(*shape), match, tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 2**14, 2**14), (2**20, 3, 224, 224), (1, 2**30, 1, 8)])
def test_memory(shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: 4 << 30)
    match = "GiB and the machine has 4.0" if np.prod(shape, dtype=object) <= 2**33 else "more than 8589934592 elements"
    refuse(pointwise(*shape), match, tmp_path)


def test_narrow_groups_that_would_run_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte of weights, 32 GiB once every pair of channels has one: the groups are a prime number."""
    monkeypatch.setattr(limits, "memory_limit", lambda: 4 << 30)
    channels = 65521
    make = Maker(0, (1, channels, 1, 1))
    weight = np.ones((2 * channels, 1, 1, 1), np.float32)
    attrs: dict[str, Any] = {"stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": channels}
    graph = make.graph(make.op("conv2d", "x0", params={"weight": weight}, **attrs))
    refuse(graph, "this net with its packed weights needs 32.0 GiB", tmp_path)


def test_phases_of_a_transposed_convolution(endless: None, tmp_path: Path) -> None:
    make = Maker(0, (1, 1, 2, 2))
    y = make.op(
        "conv_transpose2d", "x0", params={"weight": np.ones((1, 1, 1, 1), np.float32)}, stride=[2000, 2000],
        padding=[0, 0], output_padding=[0, 0], dilation=[1, 1], groups=1,
    )  # fmt: skip
    refuse(make.graph(y), r"4000000 phases of strides \[2000, 2000\]; native code counts at most 65536", tmp_path)


def test_a_window_with_more_taps_than_an_integer(endless: None, tmp_path: Path) -> None:
    """The window covers a map of one pixel and 2^32 pixels of padding."""
    make = Maker(0, (1, 1, 1, 1))
    y = make.op(
        "avg_pool2d", "x0", kernel_size=[65536, 65536], stride=[1, 1], padding=[32768] * 4, ceil_mode=False,
        count_include_pad=True, divisor_override=None,
    )  # fmt: skip
    refuse(make.graph(y), "4294967296 taps of one window", tmp_path)


def test_a_resize_to_more_rows_than_can_be_listed(endless: None, tmp_path: Path) -> None:
    make = Maker(0, (1, 1, 100_000, 1))
    y = make.op("resize", "x0", size=None, scale=[10_000.0, 1.0], mode="nearest", align_corners=False)
    refuse(make.graph(y), "1000000000 rows or columns to resize to", tmp_path)


def test_padding_counts(endless: None, tmp_path: Path) -> None:
    make = Maker(0, (1, 1, 4, 4))
    y = make.conv("x0", 1, 1, 1, padding=[32768] * 4)
    refuse(make.graph(y), "65540 x 65540 with padding", tmp_path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> CompiledNet:
    path = tmp_path_factory.mktemp("limits") / "net.fcnn"
    make = Maker(1, (1, 8, 10, 10))
    save_graph(path, make.graph(make.op("relu", make.conv("x0", 8, 8))))
    return fastcnn.load(path)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2**24, 8, 100, 100), "more than 8589934592 elements"),
        ((2**32, 8, 10, 10), "every extent must be in 1..2147483647"),
        ((1, 8, 2**40, 1), "every extent must be in 1..2147483647"),
        ((2**40, 8, 10, 10), "every extent must be in 1..2147483647"),
        ((8_000_000, 8, 10, 10), r"value 'x0' of shape .8000000, 8, 10, 10. needs 23.8 GiB and the machine has 4.0"),
        ((1, 8, 30_000, 30_000), "GiB and the machine has 4.0"),
    ],
)
def test_huge_shapes_given_to_a_loaded_net(
    shape: tuple[int, ...], match: str, loaded: CompiledNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The array is one float shown many times: copying it would take the memory that the refusal saves."""
    monkeypatch.setattr(limits, "memory_limit", lambda: 4 << 30)
    before = peak_bytes()
    with pytest.raises(ValueError, match=match):
        loaded(np.broadcast_to(np.float32(1), shape))
    with pytest.raises(ValueError, match=match):
        loaded.plan_for(shape)
    assert peak_bytes() - before < 64 << 20
    assert loaded(np.ones((3, 8, 10, 10), np.float32)).shape == (3, 8, 10, 10)


def test_counts_given_to_a_loaded_net(loaded: CompiledNet, endless: None) -> None:
    with pytest.raises(ValueError, match="32768 x 32768 with padding"):
        loaded(np.broadcast_to(np.float32(1), (1, 8, 2**15, 2**15)))


def test_views_run_as_their_copies_do(loaded: CompiledNet) -> None:
    x = np.random.default_rng(0).standard_normal((2, 8, 10, 10)).astype(np.float32)
    assert np.array_equal(loaded(np.asfortranarray(x)), loaded(x))
    assert np.array_equal(loaded(x[:, :, ::-1]), loaded(x[:, :, ::-1].copy()))


def test_an_address_space_limit_counts_as_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2 << 30, resource.RLIM_INFINITY))
    assert limits.memory_limit() == 2 << 30
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert limits.memory_limit() > 2 << 30
