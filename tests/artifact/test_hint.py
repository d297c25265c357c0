"""The plan hint of a file: every field checked, and its error believed only where it can be this net's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import _native
from fastcnn.artifact import ArtifactError, load_graph, save_graph
from fastcnn.artifact.hint import graph_crc32, make_hint, parse_hint
from fastcnn.engine.graph import Graph
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.tiles import tile_candidates
from fastcnn.engine.run.net import CompiledNet
from tests.artifact.test_hostile import put_together, take_apart
from tests.engine.nets import Maker

ISA = str(_native.host()["isa_active"])


def net() -> Graph:
    """Two 3x3 convolutions wide enough for Winograd."""
    make = Maker(3, (1, 16, 20, 20))
    return make.graph(make.conv(make.op("relu", make.conv("x0", 16, 32)), 32, 16))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("hint") / "net.fcnn"
    compiled = CompiledNet(net(), make_target(ISA, 1), tolerance=1e-4, exact=False, how="heuristic")
    assert compiled.plan.error is not None
    assert any(label.startswith(("winograd", "amx")) for label in compiled.plan.choices().values())
    compiled.save(path)
    return path.read_bytes()


@pytest.fixture
def case(whole: bytes, tmp_path: Path) -> Callable[..., Path]:
    """Write the file with some fields of its hint replaced."""

    def write(**changes: Any) -> Path:
        _, inner, weights = take_apart(whole)
        inner["plan"] |= changes
        path = tmp_path / "case.fcnn"
        path.write_bytes(put_together(inner, weights))
        return path

    return write


LIES: list[tuple[str, Any, str]] = [
    ("isa", 3, "plan.isa must be a string, got int"),
    ("isa", "", "plan.isa must match"),
    ("isa", "AVX2\n", "plan.isa must match"),
    ("isa", "x" * 40, "plan.isa must match"),
    ("isa", None, "plan.isa must be a string, got NoneType"),
    ("threads", 0, r"plan.threads must be in 1..256, got 0"),
    ("threads", -1, r"plan.threads must be in 1..256"),
    ("threads", 10**9, r"plan.threads must be in 1..256, got 1000000000"),
    ("threads", True, "plan.threads must be an integer, got bool"),
    ("threads", 2.0, "plan.threads must be an integer, got float"),
    ("threads", "2", "plan.threads must be an integer, got str"),
    ("tolerance", "fp32", "plan.tolerance must be a number, got str"),
    ("tolerance", 0, "plan.tolerance must lie between 0 and 1"),
    ("tolerance", 1.0, "plan.tolerance must lie between 0 and 1"),
    ("tolerance", -1e-4, r"plan.tolerance must be in 0..1"),
    ("tolerance", 10**400, r"plan.tolerance must be in 0..1"),
    ("tolerance", True, "plan.tolerance must be a number, got bool"),
    ("exact", 1, "plan.exact must be true or false, got int"),
    ("exact", None, "plan.exact must be true or false"),
    ("error", True, "plan.error must be a number, got bool"),
    ("error", "0", "plan.error must be a number, got str"),
    ("error", -1e-9, r"plan.error must be in 0..1"),
    ("error", 2.0, r"plan.error must be in 0..1, got 2.0"),
    ("error", [0], "plan.error must be a number, got list"),
    ("shapes", 3, "plan.shapes must be a list, got int"),
    ("shapes", [], "plan.shapes has 0 entries, the graph 1 inputs"),
    ("shapes", [[1, 16, 20, 20]] * 2, "plan.shapes has 2 items, at most 1"),
    ("shapes", [[1, 16, 20]], r"plan.shapes\[0\] has 3 extents, input 'x0' has 4"),
    ("shapes", [[1, 16, 20, 0]], r"plan.shapes\[0\] must be in 1"),
    ("shapes", [[1, 16, 20, 2**40]], r"plan.shapes\[0\] must be in 1"),
    ("shapes", [[1, 16, 20, 20.0]], r"plan.shapes\[0\] must be an integer"),
    ("choices", [], "plan.choices must be an object, got list"),
    ("choices", {"absent": "direct:6x2:pixels"}, "'absent' is no layer of this graph"),
    ("choices", {"absent.n0_conv2d": "direct:6x2:pixels"}, "'absent.n0_conv2d' is no layer of this graph"),
    ("choices", {"n0_conv2dx.core0": "direct:6x2:pixels"}, "'n0_conv2dx.core0' is no layer of this graph"),
    ("choices", {".": "direct:6x2:pixels"}, "'.' is no layer of this graph"),
    ("choices", {"." * 5000: "direct:6x2:pixels"}, "a layer of plan.choices has 5000 characters"),
    ("bands", [{"layer": "." * 5000, "steps": 3, "rows": 1}], r"plan.bands.0.: .* is no layer"),
    ("choices", {"": "direct:6x2:pixels"}, "'' is no layer of this graph"),
    ("choices", {"n0_conv2d": 6}, r"plan.choices\['n0_conv2d'\] must be a string, got int"),
    ("choices", {"n0_conv2d": ""}, r"plan.choices\['n0_conv2d'\] must match"),
    ("choices", {"n0_conv2d": "Winograd 6"}, r"plan.choices\['n0_conv2d'\] must match"),
    ("choices", {"n0_conv2d": "x" * 5000}, r"plan.choices\['n0_conv2d'\] has 5000 characters"),
    ("bands", {}, "plan.bands must be a list, got dict"),
    ("bands", [3] * 50, "plan.bands has 50 items, at most"),
    ("bands", [3], r"plan.bands\[0\] must be an object, got int"),
    ("bands", [{"layer": "n0_conv2d", "steps": 3}], r"plan.bands\[0\] must have the fields"),
    ("bands", [{"layer": "absent", "steps": 3, "rows": 1}], r"plan.bands\[0\]: 'absent' is no layer"),
    ("bands", [{"layer": 7, "steps": 3, "rows": 1}], r"plan.bands\[0\]: 7 is no layer"),
    ("bands", [{"layer": "n0_conv2d", "steps": 1, "rows": 1}], r"plan.bands\[0\].steps must be in 2..8, got 1"),
    ("bands", [{"layer": "n0_conv2d", "steps": 9, "rows": 1}], r"plan.bands\[0\].steps must be in 2..8, got 9"),
    ("bands", [{"layer": "n0_conv2d", "steps": 3, "rows": 0}], r"plan.bands\[0\].rows must be in 1"),
    ("bands", [{"layer": "n0_conv2d", "steps": 3, "rows": 2**40}], r"plan.bands\[0\].rows must be in 1"),
    ("bands", [{"layer": "n0_conv2d", "steps": 3, "rows": True}], r"plan.bands\[0\].rows must be an integer"),
    ("graph_crc32", -1, r"plan.graph_crc32 must be in 0"),
    ("graph_crc32", 2**32, r"plan.graph_crc32 must be in 0"),
    ("graph_crc32", "0", "plan.graph_crc32 must be an integer"),
]


@pytest.mark.parametrize(("field", "value", "match"), LIES)
def test_a_lie_in_each_field(field: str, value: Any, match: str, case: Callable[..., Path]) -> None:
    path = case(**{field: value})
    with pytest.raises(ArtifactError, match=match):
        fastcnn.load(path)
    assert load_graph(path).plan_hint is not None  # the reader alone hands the hint on


def test_unknown_fields_and_absent_ones_are_allowed(case: Callable[..., Path], tmp_path: Path) -> None:
    assert fastcnn.load(case(future={"a": [1, None]})).plan.how == "saved"
    save_graph(tmp_path / "bare.fcnn", net())
    assert fastcnn.load(tmp_path / "bare.fcnn").plan.how == "heuristic"
    save_graph(tmp_path / "empty.fcnn", net(), plan_hint={})
    assert fastcnn.load(tmp_path / "empty.fcnn").tolerance == 1e-4


def test_bands_that_this_net_cannot_have_are_left_out(case: Callable[..., Path]) -> None:
    loaded = fastcnn.load(case(bands=[{"layer": "n0_conv2d", "steps": 2, "rows": 4}] * 3))
    assert loaded.plan.bands == ()
    assert np.isfinite(loaded(np.ones((1, 16, 20, 20), np.float32))).all()


@pytest.mark.parametrize(
    "label", ["winograd:6:1", "winograd:8:tiles", "fft:32", "depthwise:rows", "direct:999999999x1"]
)
def test_a_label_of_another_layer_or_version_is_replaced(label: str, case: Callable[..., Path]) -> None:
    loaded = fastcnn.load(case(choices={"n0_conv2d": label, "n2_conv2d": label}))
    assert np.isfinite(loaded(np.ones((1, 16, 20, 20), np.float32))).all()
    assert loaded.plan.error is not None
    assert loaded.plan.error <= loaded.tolerance


def test_the_error_of_the_untouched_file_is_printed_as_saved(case: Callable[..., Path]) -> None:
    plan = fastcnn.load(case()).plan
    assert plan.error_as_saved
    assert plan.to_json()["error_as_saved"] is True
    assert "as saved" in str(plan)


def claimed(loaded: CompiledNet) -> bool:
    """Whether the plan repeats the claim of 1e-9; a measured error is larger."""
    assert ("as saved" in str(loaded.plan)) == loaded.plan.error_as_saved
    assert loaded.plan.error is not None
    return loaded.plan.error == 1e-9


def test_a_claim_is_believed_only_about_the_same_net(case: Callable[..., Path], whole: bytes, tmp_path: Path) -> None:
    assert claimed(fastcnn.load(case(error=1e-9)))  # nothing here can tell: it is printed "as saved"
    assert not claimed(fastcnn.load(case(error=1e-9, graph_crc32=0)))
    assert not claimed(fastcnn.load(case(error=1e-9, shapes=[[2, 16, 20, 20]])))
    assert not claimed(fastcnn.load(case(error=1e-9, choices={"n0_conv2d": "fft", "n2_conv2d": "winograd:6:tiles"})))
    assert not claimed(fastcnn.load(case(error=1e-9), tolerance=1e-3))
    assert not claimed(fastcnn.load(case(error=1e-9, isa="neon")))
    assert not claimed(fastcnn.load(case(error=1e-9, threads=7)))
    assert not claimed(fastcnn.load(case(error=1e-9), plan="heuristic"))
    # Other weights under the same plan.
    graph = load_graph(case()).graph
    hint = load_graph(case()).plan_hint
    graph.weights["n2_conv2d.bias"] = graph.weights["n2_conv2d.bias"] + np.float32(1)
    save_graph(tmp_path / "other.fcnn", graph, plan_hint={**(hint or {}), "error": 1e-9})
    assert not claimed(fastcnn.load(tmp_path / "other.fcnn"))


def test_an_error_above_the_tolerance_is_measured(case: Callable[..., Path]) -> None:
    plan = fastcnn.load(case(error=0.5)).plan
    assert not plan.error_as_saved
    assert plan.error is not None
    assert plan.error < 1e-4


def test_a_claim_that_one_layer_contradicts_is_not_believed(tmp_path: Path) -> None:
    """A tolerance no Winograd kernel keeps, a plan of Winograd kernels, and a claim that all is well."""
    graph = net()
    wide = CompiledNet(graph, make_target(ISA, 1), tolerance=1e-4, exact=False, how="heuristic").plan.choices()
    hint = make_hint(
        graph, isa=ISA, threads=1, tolerance=1e-9, exact=False, shapes=[(1, 16, 20, 20)], choices=wide, error=0.0
    )
    save_graph(tmp_path / "net.fcnn", graph, plan_hint=hint)
    plan = fastcnn.load(tmp_path / "net.fcnn").plan
    assert not plan.error_as_saved
    assert not any(label.startswith("winograd") for label in plan.choices().values())


def test_the_checksum_covers_structure_and_weights() -> None:
    first = graph_crc32(net())
    assert first == graph_crc32(net())
    assert 0 <= first < 2**32
    other = net()
    other.nodes[0] = other.nodes[0].with_(attrs={**other.nodes[0].attrs, "padding": [0, 0, 0, 0]})
    assert graph_crc32(other) != first
    other = net()
    other.weights["n0_conv2d.weight"] = other.weights["n0_conv2d.weight"].copy()
    other.weights["n0_conv2d.weight"].reshape(-1)[-1] *= -1
    assert graph_crc32(other) != first


def test_an_error_that_is_no_number_is_left_out() -> None:
    graph = net()
    given: dict[str, Any] = {"isa": ISA, "threads": 1, "tolerance": 1e-4, "exact": False, "shapes": [], "choices": {}}
    assert make_hint(graph, **given, error=float("inf"))["error"] is None
    assert make_hint(graph, **given, error=None)["error"] is None
    parsed = parse_hint({**make_hint(graph, **given, error=1e-6), "shapes": [[1, 16, 20, 20]]}, graph)
    assert parsed.claims(graph, 1e-4) == 1e-6
    assert parsed.claims(graph, 1e-7) is None


def test_another_machine_is_logged(case: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fastcnn"):
        fastcnn.load(case(isa="neon"))
    assert "the saved plan is for neon and 1 threads" in caplog.text


@pytest.mark.parametrize("label", ["own-rows", "fft:24:own-rows:14", "Fft", "fft:", "a" * 33, "a" + ":b" * 8])
def test_no_candidate_has_a_label_that_no_file_may_hold(label: str) -> None:
    with pytest.raises(ValueError, match="must match"):
        Candidate(label, "fft", {})


def test_a_plan_by_fft_of_every_split_is_read_again(tmp_path: Path) -> None:
    make = Maker(3, (1, 64, 56, 56))
    graph = make.graph(make.conv("x0", 64, 64, 7))
    compiled = CompiledNet(graph, make_target(ISA, 2), tolerance=1e-4, exact=False, how="heuristic")
    (layer,) = compiled.plan.choices()
    found = tile_candidates(
        make_target(ISA, 2), batch=1, in_channels=64, out_channels=64, kernel=(7, 7), out_map=(56, 56), relaxed=False
    )
    splits = {candidate.attrs["split"]: candidate.label for candidate in found if candidate.op == "fft"}
    assert {"rows", "own_rows"} <= set(splits)
    for label in splits.values():
        hint = make_hint(
            graph, isa=ISA, threads=2, tolerance=1e-4, exact=False, shapes=[(1, 64, 56, 56)], choices={layer: label},
            error=1e-9,
        )  # fmt: skip
        save_graph(tmp_path / "net.fcnn", graph, plan_hint=hint)
        assert fastcnn.load(tmp_path / "net.fcnn", threads=2).plan.choices() == {layer: label}


def test_plans_of_a_layer_that_becomes_several(tmp_path: Path) -> None:
    """A file's plan speaks of the cores of a tensor train, which its graph has under one name."""
    make = Maker(2, (1, 4096))
    cores = {"core0": make.normal(1, 64, 64, 4), "core1": make.normal(4, 64, 64, 1)}
    graph = make.graph(make.op("tt_linear", "x0", params=cores, in_features=4096, out_features=4096))
    net = CompiledNet(graph, make_target(ISA, 1), tolerance=1e-4, exact=False, how="heuristic")
    assert sorted(net.plan.choices()) == ["n0_tt_linear.core0", "n0_tt_linear.core1"]
    net.save(tmp_path / "net.fcnn")
    again = fastcnn.load(tmp_path / "net.fcnn", threads=1)
    assert again.plan.choices() == net.plan.choices()
    x = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(net(x)))
