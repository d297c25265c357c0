"""The C example: built with the host's compiler, run as a process without Python, equal to Python bit for bit."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn.cli.main import run_cli
from fastcnn.engine.program import c_flags, include_dir, library_path
from tests.capi.cases import CASES, inputs_of
from tests.engine.nets import ISAS, compiled
from tests.models.mobilenet import mobilenet_v2
from tests.models.pretrained import load_pretrained

ROOT = Path(__file__).resolve().parents[2]
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1"]
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
CLEAN = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert CC is not None, "these tests need a C compiler"
    binary = tmp_path_factory.mktemp("c") / "run"
    subprocess.run(
        [CC, *STRICT, str(ROOT / "examples/c/run.c"), *shlex.split(c_flags()), "-o", str(binary)],
        check=True,
        timeout=120,
    )
    return binary


def run(binary: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binary), *map(str, arguments)], env=CLEAN, capture_output=True, text=True, check=False, timeout=120
    )


def outputs_of(example: Path, program: Path, inputs: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Raw outputs of the example, flat."""
    files = [folder / f"x{i}.f32" for i in range(len(inputs))]
    for file, x in zip(files, inputs, strict=True):
        x.tofile(file)
    done = run(example, program, *files, "--out", folder / "y")
    assert done.returncode == 0, done.stderr
    return [np.fromfile(file, np.float32) for file in sorted(folder.glob("y.*.f32"))]


@pytest.mark.parametrize("case", ["residual_net", "mobile_net", "shuffle"])
def test_small_nets(case: str, example: Path, tmp_path: Path) -> None:
    net = compiled(CASES[case](), ISAS[-1])
    net.export(tmp_path / "net.fcp")
    inputs = inputs_of(net.graph)
    got = outputs_of(example, tmp_path / "net.fcp", inputs, tmp_path)
    for y, expected in zip(got, net.run(inputs), strict=True):
        assert np.array_equal(y, expected.reshape(-1))


def test_resnet20_through_files(example: Path, data_dir: Path, tmp_path: Path) -> None:
    """torch to .fcnn to .fcp on the command line, then C: the logits are Python's, bit for bit."""
    model = load_pretrained("cifar10_resnet20", data_dir)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    fc.compile(model, torch.from_numpy(x), tune=False, threads=2).save(tmp_path / "net.fcnn")
    assert run_cli(["export", str(tmp_path / "net.fcnn"), "--out", str(tmp_path / "net.fcp"), "--json"]) == 0
    (y,) = outputs_of(example, tmp_path / "net.fcp", [x], tmp_path)
    expected = fc.load(tmp_path / "net.fcnn")(x)
    assert np.array_equal(y, expected.reshape(-1))
    with torch.no_grad():
        exact = model.double()(torch.from_numpy(x).double()).numpy()
    assert np.abs(y.reshape(2, 10) - exact).max() / np.abs(exact).max() < 1e-4


def test_mobilenet(example: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    net = fc.compile(mobilenet_v2().eval(), x, tune=False, threads=1)
    net.export(tmp_path / "net.fcp")
    (y,) = outputs_of(example, tmp_path / "net.fcp", [x.numpy()], tmp_path)
    assert np.array_equal(y, net(x.numpy()).reshape(-1))


def test_what_the_example_prints(example: Path, tmp_path: Path) -> None:
    net = compiled(CASES["wave"](), "scalar", exact=True)
    net.export(tmp_path / "net.fcp")
    done = run(example, tmp_path / "net.fcp", "--threads", "2")
    lines = done.stdout.splitlines()
    assert lines[0] == f"fastcnn {fc.__version__}: scalar, 2 thread(s), {len(net.plan.steps)} steps"
    assert lines[1] == "input x0: 2 9 40"
    assert lines[2].endswith(": 2 17 11")
    assert len(lines) == 8
    (y,) = net.run([np.zeros((2, 9, 40), np.float32)])
    index, value = lines[3].split(": ")
    assert int(index) == int(y.argmax())
    assert np.float32(value) == y.max()


def test_errors_of_the_example(example: Path, tmp_path: Path) -> None:
    (tmp_path / "not.fcp").write_bytes(b"hello" * 40)
    done = run(example, tmp_path / "not.fcp")
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: {tmp_path / 'not.fcp'}: it does not begin like a fastcnn program")
    assert "no such file" in run(example, tmp_path / "none.fcp").stderr
    compiled(CASES["wave"](), "scalar").export(tmp_path / "net.fcp")
    (tmp_path / "short.f32").write_bytes(bytes(12))
    assert "does not hold as many" in run(example, tmp_path / "net.fcp", tmp_path / "short.f32").stderr


@pytest.mark.parametrize(("language", "standard"), [("c", "c99"), ("c", "c11"), ("c++", "c++11")])
def test_the_header_stands_alone(language: str, standard: str, tmp_path: Path) -> None:
    """It compiles first and twice, in C and C++, without a warning."""
    assert CC is not None
    source = tmp_path / "header.txt"
    source.write_text("#include <fastcnn.h>\n#include <fastcnn.h>\nint main(void) { return (int)FASTCNN_OK; }\n")
    subprocess.run(
        [CC, "-x", language, f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{include_dir()}",
         "-fsyntax-only", str(source)],
        check=True, timeout=60,
    )  # fmt: skip


def test_the_library_needs_no_cplusplus_runtime_and_shows_nothing_else() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    shown = subprocess.run(
        ["readelf", "-d", "--dyn-syms", "-W", str(library_path())], capture_output=True, text=True, check=True
    ).stdout
    assert "libpython" not in shown
    if "Clang" not in shown:
        assert "NEEDED" in shown
    defined = {
        line.split()[7].partition("@")[0]
        for line in shown.splitlines()
        if len(line.split()) > 7 and line.split()[4] in ("GLOBAL", "WEAK", "UNIQUE") and line.split()[6] != "UND"
    }
    header = (include_dir() / "fastcnn.h").read_text()
    declared = {word.partition("(")[0] for word in header.split() if word.startswith("fastcnn_") and "(" in word}
    assert {name for name in defined if name.startswith("fastcnn_")} == declared - {"fastcnn_options"}
    assert all(name.startswith("fastcnn_") for name in defined)


def test_the_installed_header_is_the_source() -> None:
    assert (include_dir() / "fastcnn.h").read_bytes() == (ROOT / "native/include/fastcnn.h").read_bytes()
