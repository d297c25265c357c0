"""Races: the executor, its teams and the C boundary under ThreadSanitizer, by native/capi/stress.cpp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastcnn import _native
from fastcnn.engine.graph import Graph
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.run.net import CompiledNet
from tests.capi.cases import CASES, compiled_case
from tests.engine.nets import ISAS, Maker, choose, compiled, native

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4


AMX = [("pixels", 4, 1, "bf16x3"), ("pixels", 13, 2, "bf16"), ("panels", 4, 1, "bf16"), ("panels", 13, 2, "bf16x6")]


def direct(isa: str, split: str, weights: str) -> Candidate:
    tile, panel = _native.direct_configs(isa)[0]
    attrs = {"tile": tile, "panel": panel, "split": split, "pixel_block": 2 * tile, "sum_terms": 16, "compensated": 0,
             "weights": weights}  # fmt: skip
    return Candidate(f"direct_{weights}:{split}", "direct", attrs)


def winograd(isa: str, m: int, split: str, weights: str) -> Candidate:
    """In chunks of few tiles: more than one of them, so that threads wait before V is overwritten."""
    attrs = {"m": m, "chunk": int(_native.tile_group(isa)), "split": split, "weights": weights}
    return Candidate(f"winograd_{weights}:{m}:{split}", "winograd", attrs)


def fft(isa: str, tile: int, split: str, weights: str) -> Candidate:
    attrs = {"tile": tile, "chunk": int(_native.tile_group(isa)), "split": split, "weights": weights}
    return Candidate(f"fft_{weights}:{tile}:{split}", "fft", attrs)


def amx(split: str, rows: int, images: int, products: str) -> Candidate:
    attrs = {"split": split, "rows": rows, "images": images, "products": products}
    return Candidate(f"amx_{products}:{split}:{rows}x{images}", "amx", attrs)


def candidates(isa: str) -> list[Candidate]:
    """Every way to share a convolution among threads, with every kind of weights."""
    return [
        *(direct(isa, "pixels", weights) for weights in ("f32", "bf16")),
        *(direct(isa, "panels", weights) for weights in ("f32", "i16", "bf16")),
        *(winograd(isa, m, split, "f32") for split in ("tiles", "panels") for m in (2, 4, 6)),
        *(winograd(isa, m, "panels", "i16") for m in (2, 6)),
        *(fft(isa, tile, split, "f32") for tile in (8, 12) for split in ("rows", "own_rows")),
        *(fft(isa, tile, split, "i16") for tile in (8, 12) for split in ("rows", "own_rows")),
        *(amx(*way) for way in AMX if _native.amx(isa)),
    ]


def convolutions(count: int) -> Graph:
    """Layers that read the border of the one before; channels and rows that no number of threads divides."""
    make = Maker(11, (2, 40, 13, 15))
    x = first = make.op("relu", make.conv("x0", 40, 40))
    for _ in range(count - 1):
        x = make.op("relu", make.conv(x, 40, 40))
    return make.graph(make.op("add", x, first))


def convolution_net(isa: str) -> CompiledNet:
    """One layer for each candidate."""
    ways = candidates(isa)
    net = compiled(convolutions(len(ways)), isa, THREADS)
    layers = [d.name for d in native(net).lowered.drafts if len(d.candidates) > 1]
    for layer, way in zip(layers, ways, strict=True):
        choose(net, layer, way)
    assert [way for way in native(net).chosen if way in ways] == ways
    return net


RACE = "#include <thread>\nint x;\nint main() { std::thread other([] { ++x; }); ++x; other.join(); }\n"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program built with ThreadSanitizer; it ends with status 66 at the first race."""

    def once(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=1200,
            env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        )  # fmt: skip

    done = once(*words)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch") is not None:
        # The sanitizer's map of the address space is older than this kernel's layout: run it without randomisation.
        done = once("setarch", "-R", *words)
    return done


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built with ThreadSanitizer, which is seen to find a race first."""
    folder = tmp_path_factory.mktemp("thread")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    assert compiler is not None, "this test needs a C++ compiler"
    (folder / "race.cpp").write_text(RACE)
    build = [compiler, "-std=c++20", "-fsanitize=thread", "-pthread", "race.cpp", "-o", "race"]
    if subprocess.run(build, cwd=folder, capture_output=True, check=False, timeout=120).returncode != 0:
        pytest.skip(f"{compiler} comes without ThreadSanitizer")
    found = run(folder / "race")
    assert found.returncode == 66, found.stderr
    assert "data race" in found.stderr
    cmake = [sys.executable, "-m", "cmake"]
    configure = [*cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Unix Makefiles", "-DFASTCNN_SANITIZE=thread",
                 f"-DCMAKE_CXX_COMPILER={compiler}", f"-DPython_EXECUTABLE={sys.executable}"]  # fmt: skip
    for command in (configure, [*cmake, "--build", str(folder), "--target", "fastcnn_stress", "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "native" / "capi" / "fastcnn_stress"


@pytest.fixture(scope="module", params=[isa for isa in ISAS if isa != "avx512_emulated"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    isa, folder = request.param, tmp_path_factory.mktemp("programs")
    nets = {name: compiled_case(name, isa, THREADS) for name in CASES}
    nets["convolutions"] = convolution_net(isa)
    files = []
    for name, net in nets.items():
        files.append(folder / f"{name}.fcp")
        net.export(files[-1])
    return files


def test_nothing_races(stress: Path, programs: list[Path]) -> None:
    """To see more than the first report, run the program by hand without ``halt_on_error``."""
    done = run(stress, "10", *programs)
    assert done.returncode == 0, done.stdout + done.stderr[:8000]
    assert (done.stdout, done.stderr) == ("ok\n", "")
