"""Programs give what Python gives, bit for bit, on every instruction set; and say what they are."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import _native
from fastcnn.artifact import ArtifactError
from fastcnn.engine.graph.graph import Graph, GraphError
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.program import ProgramReport
from fastcnn.engine.run.net import CompiledNet
from tests.capi import library
from tests.capi.cases import CASES, compiled_case, inputs_of
from tests.capi.library import LIB, Net, Refused
from tests.engine.binary_nets import conv as binary_conv
from tests.engine.byte_tiles import SPLITS, on_tiles, take
from tests.engine.int8_nets import conv as int8_conv
from tests.engine.nets import ISAS, Maker, choose, compiled, fuse, native


def ops_of(net: CompiledNet) -> set[str]:
    return {candidate.op for candidate in native(net).chosen}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES)
def test_bit_equal_to_python(case: str, isa: str, tmp_path: Path) -> None:
    net = compiled_case(case, isa)
    report = net.export(tmp_path / "net.fcp")
    inputs = inputs_of(net.graph)
    program = Net(tmp_path / "net.fcp")
    assert list(program.inputs.values()) == [x.shape for x in inputs]
    assert program.outputs == report.outputs
    for _ in range(2):  # what a run leaves behind does not change the next
        for got, expected in zip(program.run(*inputs), net.run(inputs), strict=True):
            assert np.array_equal(got, expected)


def test_the_cases_use_every_step_of_the_runtime() -> None:
    """A new step needs a rule in native/capi and a place in tests/capi/cases.py."""
    used = set().union(*(ops_of(compiled(make(), "scalar")) for make in CASES.values()))
    assert used | {"amx", "int8_amx", "sign_amx"} == set(_native.step_ops())


@on_tiles
@pytest.mark.parametrize("threads", [1, 2])
def test_tile_registers(isa: str, threads: int, tmp_path: Path) -> None:
    """A picture's layer and one of blocked maps, in every way to share them out."""
    make = Maker(4, (2, 3, 13, 11))
    graph = make.graph(make.conv(make.op("relu", make.conv("x0", 3, 40, 5, stride=2)), 40, 35))
    net = compiled(graph, isa, threads, exact=True)
    inputs = inputs_of(graph)
    layers = [d.name for d in native(net).lowered.drafts if len(d.candidates) > 1]
    for split, products, images in itertools.product(("pixels", "panels"), ("bf16", "bf16x3", "bf16x6"), (1, 2)):
        for layer in layers:
            attrs = {"split": split, "rows": 7, "images": images if layer == layers[1] else 1, "products": products}
            choose(net, layer, Candidate("amx", "amx", attrs, exact=False))
        net.export(tmp_path / "net.fcp")
        assert np.array_equal(Net(tmp_path / "net.fcp").run(*inputs)[0], net.run(inputs)[0])


def bytes_net(make: Maker) -> Graph:
    y = make.op("relu", int8_conv(make, "x0", 20, 40, stride=(2, 2)))
    return make.graph(int8_conv(make, make.op("relu", int8_conv(make, y, 40, 70)), 70, 35, (1, 1)))


def signs_net(make: Maker) -> Graph:
    limits = make.rng.integers(-9, 10, 70).astype(np.int32)
    y = binary_conv(make, "x0", 20, 70, stride=(2, 2), pad_value=0, thresholds=limits)
    return make.graph(binary_conv(make, y, 70, 35))


@on_tiles
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("net_of", [bytes_net, signs_net])
def test_bytes_and_signs_on_tile_registers(
    isa: str, threads: int, net_of: Callable[[Maker], Graph], tmp_path: Path
) -> None:
    graph = net_of(Maker(4, (2, 20, 13, 11)))
    net = compiled(graph, isa, threads, exact=True)
    inputs = inputs_of(graph)
    for split in SPLITS:
        assert take(net, split) >= 2
        net.export(tmp_path / "net.fcp")
        assert np.array_equal(Net(tmp_path / "net.fcp").run(*inputs)[0], net.run(inputs)[0])


def heavy_net() -> Graph:
    """Layers that wait for their weights: 16-bit candidates, direct and Winograd."""
    make = Maker(8, (1, 128, 9, 9))
    x = make.op("relu", make.conv("x0", 128, 128, 3))
    x = make.op("relu", make.conv(x, 128, 128, 5, stride=2))
    x = make.op("mean", x, dims=[2, 3], keepdim=False)
    return make.graph(make.op("linear", x, params={"weight": make.normal(1100, 128), "bias": make.normal(1100)}))


@pytest.mark.parametrize("threads", [1, 2])
def test_every_candidate_of_the_planner(threads: int, tmp_path: Path) -> None:
    """What tuning may choose, the C library takes, and computes as Python does."""
    net = compiled(heavy_net(), ISAS[-1], threads)
    built, inputs, labels = native(net), inputs_of(net.graph), set()
    for index, draft in enumerate(built.lowered.drafts):
        for candidate in draft.candidates if len(draft.candidates) > 1 else ():
            built.replace(index, candidate)
            built.net.finish()
            net.export(tmp_path / "net.fcp")
            (got,) = Net(tmp_path / "net.fcp").run(*inputs)
            assert np.array_equal(got, net.run(inputs)[0]), candidate.label
            labels.add(candidate.label.partition(":")[0])
    assert {"direct", "direct_i16", "winograd"} <= labels


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_may_change_at_load(threads: int, tmp_path: Path) -> None:
    net = compiled(CASES["residual_net"](), ISAS[-1], 2)
    net.export(tmp_path / "net.fcp")
    program = Net(tmp_path / "net.fcp", threads=threads)
    assert program.info.threads == threads
    (x,) = inputs_of(net.graph)
    assert np.array_equal(program.run(x)[0], net(x))


def test_threads_are_those_of_the_program_at_most_the_cores(tmp_path: Path) -> None:
    compiled(CASES["wave"](), "scalar", 200).export(tmp_path / "net.fcp")
    cores = len(os.sched_getaffinity(0))
    assert Net(tmp_path / "net.fcp").info.threads == min(200, cores)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_steps_in_bands(threads: int, tmp_path: Path) -> None:
    """Groups travel with the program, and other thread counts than the plan's change no bit."""
    net = compiled_case("inverted", ISAS[-1], 2)
    native(net).fuse([])
    inputs = inputs_of(net.graph)
    (alone,) = net.run(inputs)
    net.export(tmp_path / "alone.fcp")
    assert fuse(net, 3) == 3
    net.export(tmp_path / "net.fcp")
    assert [(tmp_path / name).read_bytes()[8] for name in ("alone.fcp", "net.fcp")] == [1, 2]
    program = Net(tmp_path / "net.fcp", threads=threads)
    for _ in range(2):
        assert np.array_equal(program.run(*inputs)[0], alone)
    if threads == 2:
        built = native(net)
        assert program.info.working_bytes == built.net.arena_bytes + 4 * 64 + built.net.scratch_bytes


def test_other_shapes(tmp_path: Path) -> None:
    net = compiled(CASES["residual_net"](), "scalar")
    report = net.export(tmp_path / "net.fcp", (3, 3, 11, 26))
    assert isinstance(report, ProgramReport)
    assert report.inputs == {"x0": (3, 3, 11, 26)}
    x = np.random.default_rng(0).standard_normal((3, 3, 11, 26)).astype(np.float32)
    assert np.array_equal(Net(tmp_path / "net.fcp").run(x)[0], net(x))


def test_the_description(tmp_path: Path) -> None:
    net = CompiledNet(CASES["residual_net"](), make_target("scalar", 1), tolerance=1e-3, exact=False, how="heuristic")
    report = net.export(tmp_path / "net.fcp")
    info = Net(tmp_path / "net.fcp").info
    assert info.made_by.decode() == fc.__version__ == LIB.fastcnn_version().decode()
    assert info.isa.decode() == "scalar"
    assert info.steps == report.steps == len(net.plan.steps)
    assert info.tolerance == net.plan.tolerance == report.tolerance
    assert info.error == net.plan.error == report.error
    assert info.weight_bytes == net.plan.weight_bytes
    assert 0 <= info.working_bytes - net.plan.arena_bytes - net.plan.scratch_bytes <= 256
    assert str(report).startswith(f"{tmp_path / 'net.fcp'}: {os.path.getsize(tmp_path / 'net.fcp'):,} bytes")


def test_an_unmeasured_error_is_nan(tmp_path: Path) -> None:
    net = compiled(CASES["wave"](), "scalar", exact=True)
    net.export(tmp_path / "net.fcp")
    assert math.isnan(Net(tmp_path / "net.fcp").info.error)


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    make = Maker(0, (1, 64, 8, 8))
    x = make.conv("x0", 64, 64, 3, bias=False)
    key = make.nodes[0].params["weight"]
    y = make.conv(x, 64, 64, 3, bias=False)
    make.weights[make.nodes[1].params["weight"]] = make.weights[key].copy()
    net = compiled(make.graph(y), "scalar")
    assert net.export(tmp_path / "net.fcp").bytes < 1.2 * make.weights[key].nbytes


def test_a_value_returned_twice_gets_two_names(tmp_path: Path) -> None:
    graph = CASES["wave"]()
    graph.outputs = graph.outputs * 2
    net = compiled(graph, "scalar")
    net.export(tmp_path / "net.fcp")
    program = Net(tmp_path / "net.fcp")
    assert len(program.outputs) == 2
    first, second = program.run(*inputs_of(graph))
    assert np.array_equal(first, second)


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compiled(CASES["unet"](), "scalar").export(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    net = compiled(CASES["wave"](), "scalar")
    with pytest.raises(ArtifactError, match="cannot write"):
        net.export(tmp_path / "no" / "net.fcp")
    with pytest.raises(GraphError, match="channels"):
        net.export(tmp_path / "net.fcp", (2, 8, 40))
    assert not list(tmp_path.iterdir())


def test_a_refused_program_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library has the last word before the file is there."""
    from fastcnn.engine.program import write

    monkeypatch.setattr(write, "_version", lambda planned: 99)
    with pytest.raises(ArtifactError, match=r"C library refuses the program.*format is 99"):
        compiled_case("inverted", "scalar").export(tmp_path / "net.fcp")
    assert not list(tmp_path.iterdir())


def test_a_torch_step_is_named(tmp_path: Path) -> None:
    import torch

    from tests.models.odd import Unknown

    with pytest.warns(UserWarning, match="runs in torch"):
        net = fc.compile(Unknown(), torch.rand(1, 3, 8, 8), tune=False, threads=1)
    with pytest.raises(GraphError, match="runs in torch and cannot be saved"):
        net.export(tmp_path / "net.fcp")


def test_many_threads_run_one_net(tmp_path: Path) -> None:
    """Calls from more threads than there are workspaces."""
    from concurrent.futures import ThreadPoolExecutor

    net = compiled(CASES["residual_net"](), ISAS[-1], 2)
    net.export(tmp_path / "net.fcp")
    program = Net(tmp_path / "net.fcp", threads=2)
    inputs = [inputs_of(net.graph, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda x: program.run(*x)[0], inputs * 4))
    expected = [net.run(x)[0] for x in inputs] * 4
    assert all(np.array_equal(got, e) for got, e in zip(outputs, expected, strict=True))


def test_misuse_is_refused(tmp_path: Path) -> None:
    net = compiled(CASES["shuffle"](), "scalar")
    net.export(tmp_path / "net.fcp")
    path, error, handle = str(tmp_path / "net.fcp").encode(), library.Error(), ctypes.c_void_p()
    invalid = library.INVALID_ARGUMENT
    where = ctypes.byref(handle), ctypes.byref(error)
    assert LIB.fastcnn_load(None, None, *where) == invalid
    assert error.message == b"path is NULL"
    assert LIB.fastcnn_load(path, None, None, ctypes.byref(error)) == invalid
    assert LIB.fastcnn_load_memory(None, 5, None, *where) == invalid
    for options in (library.Options(3, 0, 0), library.Options(24, -1, 0), library.Options(24, 257, 0)):
        assert LIB.fastcnn_load(path, ctypes.byref(options), *where) == invalid
        assert b"options." in error.message
    program = Net(tmp_path / "net.fcp")
    assert LIB.fastcnn_describe_input(program.handle, 2, ctypes.byref(library.Tensor())) == invalid
    assert LIB.fastcnn_describe_output(program.handle, 0, None) == invalid
    assert LIB.fastcnn_describe(None, ctypes.byref(library.Info())) == invalid
    assert LIB.fastcnn_input_count(None) == LIB.fastcnn_output_count(None) == 0
    assert LIB.fastcnn_run(None, None, None, None) == invalid
    assert LIB.fastcnn_run(program.handle, None, None, ctypes.byref(error)) == invalid
    assert error.message == b"inputs is NULL"
    one = (ctypes.c_void_p * 2)(1, None)
    assert LIB.fastcnn_run(program.handle, one, None, ctypes.byref(error)) == invalid
    assert error.message == b"inputs[1] is NULL"
    LIB.fastcnn_free(None)
    texts = {LIB.fastcnn_status_text(status) for status in range(7)}
    assert len(texts) == 7
    assert LIB.fastcnn_status_text(99) == b"unknown status"


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.fcp", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(Refused, match=f"{path}.*{reason}") as refused:
            Net(path)
        assert refused.value.status == library.CANNOT_READ


def test_memory_is_limited(tmp_path: Path) -> None:
    net = compiled(CASES["residual_net"](), "scalar")
    net.export(tmp_path / "net.fcp")
    with pytest.raises(Refused, match=r"it needs .* the limit is") as refused:
        Net(tmp_path / "net.fcp", memory_limit=4096)
    assert refused.value.status == library.OUT_OF_MEMORY
    needed = net.plan.weight_bytes + net.plan.arena_bytes + net.plan.scratch_bytes
    Net(tmp_path / "net.fcp", memory_limit=2 * needed)
