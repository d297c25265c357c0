"""Steps that run together in bands of rows: the same bits as one after the other, less memory, and where they pay."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn import _native
from fastcnn.engine.graph import Graph
from fastcnn.engine.plan import bands
from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.bands import Group, band_bytes, find_groups, likely, repeated
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import DIRECT, ISAS, Maker, choose, compiled, error_of, fuse, inputs_for, native, poison

ISA = str(_native.host()["isa_active"])
CHANNELS = st.sampled_from([2, 7, 8, 16, 17, 24, 33])
SIZES = st.sampled_from([1, 2, 3, 5, 6, 9, 14, 19])
FEW = settings(max_examples=25, deadline=None, derandomize=True)
ACTS = [None, ("relu", {}), ("clamp", {"min": 0.0, "max": 6.0}), ("hardswish", {})]


def inverted_residual(
    shape: tuple[int, int, int, int], wide: int, *, k: int = 3, stride: int = 1, residual: bool = True,
    act: tuple[str, dict[str, float]] | None = ("relu", {}), expand: int | None = 1, project: bool = True,
    dilation: int = 1,
) -> Graph:  # fmt: skip
    """A 1x1 convolution, then expand (``expand`` taps, or nothing), depthwise, project, and the residual."""
    make = Maker(shape[1] * 3 + wide, shape)
    c = shape[1]

    def activated(x: str) -> str:
        return x if act is None else make.op(act[0], x, **act[1])

    x = make.conv("x0", c, c, 1)
    y = x
    if expand is None:
        wide = c
    else:
        y = activated(make.conv(y, c, wide, expand))
    pad = (k - 1) * dilation // 2
    y = activated(make.conv(y, wide, wide, k, stride=stride, padding=[pad] * 4, groups=wide, dilation=dilation))
    if project:
        y = make.conv(y, wide, c, 1)
    if residual and stride == 1 and (project or wide == c):
        y = make.op("add", y, x)
    return make.graph(activated(y))


def same_bits(net: CompiledNet, rows: int, *, least: float = 1.0) -> int:
    """Run as planned and in groups of that many rows, memory poisoned; returns the number of groups."""
    inputs = inputs_for(net.graph)
    native(net).fuse([])
    assert error_of(net, inputs, least=least) <= DIRECT
    expected = net.run(inputs)
    count = fuse(net, rows)
    assert error_of(net, inputs, least=least) <= DIRECT  # poisons anew
    for _ in range(2):  # what a run leaves behind does not change the next
        for got, wanted in zip(net.run(inputs), expected, strict=True):
            assert np.array_equal(got, wanted)
    return count


@pytest.mark.parametrize("isa", ISAS)
@FEW
@given(
    n=st.integers(1, 3), c=CHANNELS, wide=CHANNELS, h=SIZES, w=SIZES, k=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 3), threads=st.integers(1, 4), rows=st.integers(1, 8), residual=st.booleans(),
    act=st.sampled_from(ACTS), expand=st.sampled_from([None, 1, 1, 3]), project=st.booleans(),
    dilation=st.integers(1, 2),
)  # fmt: skip
def test_chains(
    isa: str, n: int, c: int, wide: int, h: int, w: int, k: int, stride: int, threads: int, rows: int, residual: bool,
    act: tuple[str, dict[str, float]] | None, expand: int | None, project: bool, dilation: int,
) -> None:  # fmt: skip
    if expand is None:
        project = True  # a group has two steps
    residual &= k % 2 == 1
    reach = (k - 1) * dilation + 1 - 2 * ((k - 1) * dilation // 2)
    graph = inverted_residual(
        (n, c, max(h, reach), max(w, reach)), wide, k=k, stride=stride, residual=residual, act=act, expand=expand,
        project=project, dilation=dilation,
    )  # fmt: skip
    net = compiled(graph, isa, threads, exact=True)
    out = native(net).lowered.drafts[-1].out.nchw
    # A map of one pixel is read as a row of images, which no group can.
    assert same_bits(net, rows) == 1 or (1, 1) in (out[2:], graph.inputs[0].shape[2:])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", ["cp", "tucker"])
def test_factorised_convolutions(isa: str, threads: int, form: str) -> None:
    """1x1, k x 1 and 1 x k on each channel, 1x1; and 1x1, k x k, 1x1: one group each, with a stride and without."""
    for stride in (1, 2):
        make = Maker(3 + stride, (1, 20, 19, 23))
        x = make.conv("x0", 20, 33, 1)
        if form == "cp":
            x = make.conv(x, 33, 33, (3, 1), stride=[stride, 1], padding=[1, 0, 1, 0], groups=33)
            x = make.conv(x, 33, 33, (1, 3), stride=[1, stride], padding=[0, 1, 0, 1], groups=33)
        else:
            x = make.conv(x, 33, 18, 3, stride=stride)
            x = make.conv(x, 18, 24, 1)
            x = make.conv(x, 24, 33, 3)  # the group ends before it
        x = make.conv(x, 33, 40, 1) if form == "cp" else x
        for rows in (1, 4, 16):
            net = compiled(make.graph(make.op("relu", x)), isa, threads, exact=True)
            assert same_bits(net, rows) == 1
            (group,) = find_groups(native(net).lowered, native(net).chosen, make_target(isa, threads))
            assert group.last - group.first + 1 == (4 if form == "cp" else 3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_stem_and_many_blocks(isa: str, threads: int) -> None:
    """The stem reads a planar map; a residual's source outlives the group that reads it first."""
    for batch in (1, 2, 5):
        make = Maker(batch, (batch, 3, 31, 27))
        x = make.op("relu", make.conv("x0", 3, 16, stride=2))
        x = make.conv(make.op("relu", make.conv(x, 16, 16, groups=16)), 16, 24, 1)
        for stride in (1, 1, 2, 1):
            y = make.op("relu", make.conv(x, 24, 50, 1))
            y = make.op("hardswish", make.conv(y, 50, 50, 5, groups=50, stride=stride))
            y = make.conv(y, 50, 24, 1)
            x = make.op("add", y, x) if stride == 1 else y
        graph = make.graph(x, make.op("mean", x, dims=[2, 3], keepdim=False))
        for rows in (1, 3, 16):
            assert same_bits(compiled(graph, isa, threads, exact=True), rows) == 5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_long_groups_with_pools(isa: str, threads: int) -> None:
    """Six members, strides that skip rows, windows of zeros only: more than the planner makes."""
    make = Maker(5, (2, 18, 29, 13))
    x = make.conv("x0", 18, 18, 1)
    y = make.op("relu", make.conv(x, 18, 20, 3, padding=[4, 1, 3, 1]))
    y = make.op("max_pool2d", y, kernel_size=[3, 2], stride=[2, 1], padding=[1, 1, 1, 1], dilation=[1, 1],
                ceil_mode=False)  # fmt: skip
    y = make.conv(y, 20, 20, 3, groups=20)
    y = make.conv(y, 20, 40, 1, stride=[3, 1])
    y = make.op("avg_pool2d", y, kernel_size=[2, 2], stride=[1, 1], padding=[1, 1, 0, 0], ceil_mode=False,
                count_include_pad=True, divisor_override=None)  # fmt: skip
    y = make.conv(y, 40, 9, 3)
    net = compiled(make.graph(y), isa, threads, exact=True)
    inputs, built = inputs_for(net.graph), native(net)
    expected = net.run(inputs)
    first = next(i for i, d in enumerate(built.lowered.drafts) if d.name.startswith("n1_"))
    last = len(built.lowered.drafts) - 2
    assert last - first == 5
    for rows in (1, 2, built.lowered.drafts[last].out.nchw[2]):
        built.fuse([Group(first, last, rows)])
        assert error_of(net, inputs, least=1.0) <= DIRECT
        assert np.array_equal(net.run(inputs)[0], expected[0])


@pytest.mark.parametrize("isa", ISAS)
@FEW
@given(
    n=st.integers(1, 3), c=CHANNELS, out_c=CHANNELS, h=SIZES, w=SIZES, k=st.integers(1, 4), stride=st.integers(1, 3),
    window=st.integers(1, 4), step=st.integers(1, 3), threads=st.integers(1, 3), rows=st.integers(1, 5),
    kind=st.sampled_from(["max", "avg"]), ceil=st.booleans(),
)  # fmt: skip
def test_convolutions_and_their_pools(
    isa: str, n: int, c: int, out_c: int, h: int, w: int, k: int, stride: int, window: int, step: int, threads: int,
    rows: int, kind: str, ceil: bool,
) -> None:  # fmt: skip
    make = Maker(n * 5 + c, (n, c, h + k, w + k))
    x = make.op("relu", make.conv("x0", c, out_c, k, stride=stride))
    if min((h + k + 2 * (k // 2) - k) // stride + 1, (w + k + 2 * (k // 2) - k) // stride + 1) < window:
        window = 1
    attrs = {"kernel_size": [window] * 2, "stride": [step] * 2, "padding": [window // 2] * 4, "ceil_mode": ceil}
    if kind == "max":
        x = make.op("max_pool2d", x, **attrs, dilation=[1, 1])
    else:
        x = make.op("avg_pool2d", x, **attrs, count_include_pad=False, divisor_override=None)
    net = compiled(make.graph(make.conv(x, out_c, 16, 1)), isa, threads, exact=True)
    pool = next(d for d in native(net).lowered.drafts if d.op == "pool")
    assert same_bits(net, rows) == (pool.inputs[0].nchw[2:] != (1, 1))


@pytest.mark.parametrize("isa", ISAS)
def test_products_in_bf16_in_bands(isa: str) -> None:
    net = compiled(inverted_residual((1, 24, 15, 15), 40, residual=False), isa, 2, exact=True)
    built = native(net)
    for draft in built.lowered.drafts[-4:-1]:
        if draft.op == "direct":
            attrs = {**draft.candidates[0].attrs, "weights": "bf16", "compensated": 0, "sum_terms": 512,
                     "pixel_block": 20}  # fmt: skip
            choose(net, draft.name, Candidate("bf16", "direct", attrs, exact=False))
    inputs = inputs_for(net.graph)
    expected = net.run(inputs)
    assert fuse(net, 2) == 1
    assert "".join(built.net.kernel(i) for i in range(built.net.steps)).count("bf16") == 2
    for _ in range(20):  # one thread's scratch is not another's, whatever each of them runs
        poison(net)
        assert np.array_equal(net.run(inputs)[0], expected[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_the_time_of_every_member(threads: int) -> None:
    """What the slowest thread works; waiting for the others does not count."""
    net = compiled(inverted_residual((2, 32, 40, 40), 96), ISA, threads, exact=True)
    built, inputs = native(net), inputs_for(net.graph)
    assert fuse(net, 4) == 1
    begin = time.perf_counter()
    seconds = tuning.profile(built, inputs, 50)
    taken = time.perf_counter() - begin
    assert seconds.shape == (built.net.steps, 50)
    (group,) = built.groups
    assert (seconds[group.first : group.last + 1] > 0).all()
    assert (0.5 * taken if threads == 1 else 0.0) < seconds.sum() <= taken


def test_the_arena_shrinks_and_comes_back() -> None:
    """Maps between the steps of a group take no arena; its input and its output do not share memory."""
    net = compiled(inverted_residual((1, 16, 40, 40), 96, residual=False), ISA, 2, exact=True)
    built = native(net)
    before, maps = built.arena_floats, [d.out.storage for d in built.lowered.drafts]
    assert before >= 2 * 96 * 40 * 40
    assert fuse(net, 4) == 1
    (group,) = built.groups
    assert built.arena_floats <= 2 * 16 * 40 * 40 + 64
    assert built.net.arena_bytes == 4 * built.arena_floats
    assert {s.space for s in maps[group.first : group.last]} == {"band"}
    source, out = built.lowered.drafts[group.first].inputs[0].storage, maps[group.last]
    assert source.offset + source.floats() <= out.offset or out.offset + out.floats() <= source.offset
    assert built.net.scratch_bytes >= 2 * band_bytes(built.lowered, group.first, group.last, 4)
    built.fuse([], room_for=[group])
    assert {s.space for s in maps[:-1]} == {"arena"}
    built.fuse([])
    assert built.arena_floats == before


def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rule of thumb take small maps."""
    monkeypatch.setattr(bands, "PAYS_FROM_L2", 0.0)


def test_what_is_planned_by_rule_of_thumb(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = inverted_residual((1, 32, 32, 32), 192)
    small = compiled(graph, ISA, 2, exact=True)
    assert small.plan.bands == ()
    assert not native(small).groups
    target = make_target(ISA, 2)
    large = compiled(inverted_residual((2, 32, 32, 32), 192), ISA, 2, exact=True)
    groups = find_groups(native(large).lowered, native(large).chosen, target)
    limited = replace(target, l2_bytes=64 << 10)  # 3.6 MB of maps between the steps, 64 KB of cache
    assert likely(native(large).lowered, groups, limited) == groups != []
    assert likely(native(large).lowered, groups, replace(target, l2_bytes=64 << 20)) == []
    spread(monkeypatch)
    net = compiled(graph, ISA, 2, exact=True)
    (band,) = net.plan.bands
    assert band.steps == 3
    names = [s.layer for s in net.plan.steps]
    first = names.index(band.layer)
    for step in net.plan.steps[first : first + 3]:
        assert f"rows in bands of {band.rows} with " in step.why
        assert not any(f" {step.layer}" in part for part in step.why.split(" with ")[1:])
    assert net.plan.to_json()["bands"] == [{"layer": band.layer, "steps": 3, "rows": band.rows}]
    assert f"rows in bands of {band.rows}" in str(net.plan)
    assert net.plan.arena_bytes < small.plan.arena_bytes
    assert np.array_equal(net.run(inputs_for(graph))[0], small.run(inputs_for(graph))[0])


def test_what_no_group_takes() -> None:
    """A second reader, a part of a concatenation, a branch that reads the map as a residual too; adaptive pools."""

    def count(graph: Graph) -> int:
        net = compiled(graph, ISA, 2, exact=True)
        return len(find_groups(native(net).lowered, native(net).chosen, make_target(ISA, 2)))

    make = Maker(0, (1, 16, 12, 12))
    x = make.conv("x0", 16, 16, 1)
    deep = make.conv(x, 16, 16, groups=16)
    assert count(make.graph(make.conv(deep, 16, 8, 1), deep)) == 1  # with the one before it
    make = Maker(0, (1, 16, 12, 12))
    x = make.conv("x0", 16, 16, 1)
    deep = make.conv(x, 16, 16, groups=16)
    assert count(make.graph(make.conv(deep, 16, 8, 1), deep, make.op("sigmoid", x))) == 0
    make = Maker(0, (1, 16, 12, 12))
    x = make.conv("x0", 16, 16, 1)
    deep = make.op("add", make.conv(x, 16, 16, groups=16), x)
    assert count(make.graph(deep)) == 0
    make = Maker(0, (1, 32, 12, 12))
    x = make.conv("x0", 32, 32, 1)
    deep = make.op("concat", make.conv(x, 32, 32, groups=32), x, dim=1)
    assert count(make.graph(make.conv(deep, 64, 8, 1))) == 0
    make = Maker(0, (1, 32, 12, 12))
    x = make.op("adaptive_avg_pool2d", make.conv("x0", 32, 32, 1), output_size=[3, 3])
    assert count(make.graph(make.conv(x, 32, 8, 1))) == 0


def test_rows_made_twice_are_counted() -> None:
    net = compiled(inverted_residual((1, 16, 14, 14), 32), ISA, 1, exact=True)
    built = native(net)
    (group,) = find_groups(built.lowered, built.chosen, make_target(ISA, 1))
    assert repeated(built.lowered.drafts, group.first, group.last, 1) == 1
    assert repeated(built.lowered.drafts, group.first, group.last, 2) == pytest.approx(8 / 7)
    assert repeated(built.lowered.drafts, group.first, group.last, 14) == pytest.approx(3)


def test_a_saved_plan_has_its_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = inverted_residual((1, 32, 32, 32), 192)
    plain = CompiledNet(graph, make_target(ISA, 2), tolerance=1e-4, exact=False, how="heuristic")
    plain.save(tmp_path / "plain.fcnn")
    with monkeypatch.context() as patch:
        spread(patch)
        net = CompiledNet(graph, make_target(ISA, 2), tolerance=1e-4, exact=False, how="heuristic")
        net.save(tmp_path / "net.fcnn")
        # What was measured counts, also that it does not pay.
        assert fastcnn.load(tmp_path / "plain.fcnn", threads=2).plan.bands == ()
    loaded = fastcnn.load(tmp_path / "net.fcnn", threads=2)
    assert loaded.plan.how == "saved"
    assert loaded.plan.bands == net.plan.bands != ()
    assert loaded.plan.arena_bytes == net.plan.arena_bytes
    inputs = inputs_for(graph)
    assert np.array_equal(loaded.run(inputs)[0], net.run(inputs)[0])
    assert np.array_equal(loaded.run(inputs)[0], plain.run(inputs)[0])


def test_a_saved_group_that_cannot_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the map are cut off; other steps than the planner's groups have are nothing."""
    graph = inverted_residual((1, 16, 9, 9), 32)
    built = native(compiled(graph, ISA, 1, exact=True))
    (group,) = find_groups(built.lowered, built.chosen, make_target(ISA, 1))
    name = built.lowered.drafts[group.first].name
    given = [bands.Bands(layer=name, steps=3, rows=500)]
    assert bands.saved(built.lowered, [group], given) == [replace(group, rows=9)]
    given = [bands.Bands(layer=name, steps=2, rows=1), bands.Bands(layer="x", steps=3, rows=1)]
    assert bands.saved(built.lowered, [group], given) == []


def test_tuning_keeps_the_faster_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCNN_CACHE", str(tmp_path))
    graph = inverted_residual((1, 16, 12, 12), 32)
    for gain, how in ((1e9, "tuned"), (1e9, "tuned earlier"), (0.0, "tuned"), (0.0, "tuned earlier")):
        if how == "tuned":
            for path in tmp_path.rglob("*.json"):
                path.unlink()
        monkeypatch.setattr(tuning, "FUSED_GAINS", gain)
        net = CompiledNet(graph, make_target(ISA, 1), tolerance=1e-4, exact=False, how="tune")
        assert net.plan.how == how
        assert len(net.plan.bands) == len(native(net).groups) == (1 if gain > 1 else 0)
        assert error_of(net, inputs_for(graph), least=1.0) <= 1e-5


def test_disturbed_runs_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bands the steps take half the time; most of those runs were held up, by three times as much."""
    net = compiled(inverted_residual((1, 16, 12, 12), 32), ISA, 1, exact=True)
    built = native(net)
    groups = find_groups(built.lowered, built.chosen, make_target(ISA, 1))

    def times(built: Built, inputs: Any, repeats: int) -> np.ndarray:
        once = 0.5 if built.groups else 1.0
        held_up = [k % 5 > 1 and bool(built.groups) for k in range(repeats)]
        return np.outer(np.ones(built.net.steps), np.where(held_up, 3.0, once))

    monkeypatch.setattr(tuning, "profile", times)
    assert tuning.tune_groups(built, inputs_for(net.graph), groups) == groups != []


def refused(built: Built, groups: list[list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built.net.set_groups(groups)


def test_what_the_net_refuses() -> None:
    net = compiled(inverted_residual((1, 16, 9, 9), 32), ISA, 2, exact=True)
    built = native(net)
    (group,) = find_groups(built.lowered, built.chosen, make_target(ISA, 2))
    first, last = group.span
    refused(built, [[first, last, 2]], "only the maps between its steps are bands")
    built.fuse([replace(group, rows=2)])
    refused(built, [], "a step outside of groups has a band")
    refused(built, [[first, last - 1, 2]], "only the maps between its steps are bands")
    refused(built, [[first, last, 2], [first, last, 2]], "groups overlap or are out of order")
    refused(built, [[first, last, 3]], "a band has room for 2 rows and needs 3")
    refused(built, [[first, last, 0]], "rows of a band out of range")
    refused(built, [[first, last, 10]], "rows of a band out of range")
    refused(built, [[first, built.net.steps, 1]], "two to eight steps")
    refused(built, [[last, last, 1]], "two to eight steps")
    refused(built, [[first, last]], "a group is its first step, its last step and its rows")
    built.net.set_groups([[first, last, 2]])
    middle = built.lowered.drafts[first + 1].out.storage
    for change, words in (({"index": 0}, "numbered by their writers"), ({"rows": 1}, "has room for 1 rows")):
        kept = {key: getattr(middle, key) for key in change}
        for key, value in change.items():
            setattr(middle, key, value)
        for index in (first + 1, last):
            built._put(index, built.chosen[index])
        refused(built, [[first, last, 2]], words)
        for key, value in kept.items():
            setattr(middle, key, value)
    middle.rows = 3
    built._put(last, built.chosen[last])
    refused(built, [[first, last, 2]], "a band is read as it is written")
    middle.rows = 2
    wide = {**built.chosen[last].attrs, "weights": "i16", "split": "panels", "compensated": 0}
    built.replace(last, Candidate("i16", "direct", wide, exact=False))
    with pytest.raises(ValueError, match=r"direct_i16_.*cannot run by rows"):
        built.net.finish()
