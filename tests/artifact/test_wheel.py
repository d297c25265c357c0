"""The wheel as a user gets it: installed without torch, it loads and runs a saved net, and says what is missing.

Everything else in the suite runs in the developer's environment, where a module that imports torch too early or a file
that the wheel forgets goes unnoticed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import _native
from fastcnn.data import load_data
from tests.engine.real_nets import FP32_LIMIT, cifar, worst
from tests.models import load_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[2]
RUN_TIME = ("numpy", "safetensors", "typer", "rich")
ABSENT = ("torch", "accelerate", "yaml", "sklearn", "scipy", "onnx", "onnxruntime", "constriction", "PIL")

WORKER = """
import importlib.util, json, sys
import numpy as np, fastcnn
net = fastcnn.load(sys.argv[1], plan=sys.argv[4])
np.save(sys.argv[3], net(np.load(sys.argv[2])))
print(json.dumps({
    "isa": net.isa, "threads": net.threads, "how": net.plan.how, "where": fastcnn.__file__,
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
    "found": [name for name in json.loads(sys.argv[5]) if importlib.util.find_spec(name) is not None],
}))
"""


def checked(*words: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; its standard output."""
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False, timeout=2400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    checked(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--config-settings", f"build-dir={folder / 'build'}", "--wheel-dir", folder / "dist", ROOT,
        cwd=folder,
    )  # fmt: skip
    [made] = (folder / "dist").iterdir()
    return made


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A virtual environment with the wheel and its run-time libraries, and a folder to work in."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def environment(self, isa: str | None = None) -> dict[str, str]:
        """The user's: nothing of ours on Python's path, no tuned plans of earlier runs."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return {**kept, "FASTCNN_CACHE": "", **({"FASTCNN_ISA": isa} if isa else {})}

    def program(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """``fastcnn ...`` as the wheel's own script."""
        return subprocess.run(
            [str(self.python.with_name("fastcnn")), *map(str, words)],
            cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def run(self, net: Path, x: np.ndarray, *, plan: str, isa: str | None) -> tuple[np.ndarray, dict[str, Any]]:
        """What the saved net says of ``x`` there, and what it says of itself."""
        np.save(self.folder / "x.npy", x)
        done = subprocess.run(
            [str(self.python), "-c", WORKER, str(net), "x.npy", "y.npy", plan, json.dumps(ABSENT)],
            cwd=self.folder, env=self.environment(isa), capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return np.load(self.folder / "y.npy"), json.loads(done.stdout)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = Installed(folder=tmp_path_factory.mktemp("user"))
    checked(sys.executable, "-m", "venv", made.folder / "venv", cwd=made.folder)
    # The versions that the developer's environment has: those need no second download where pip keeps its cache.
    libraries = [f"{name}=={importlib.metadata.version(name)}" for name in RUN_TIME]
    checked(made.python, "-m", "pip", "install", "--quiet", wheel, *libraries, cwd=made.folder)
    return made


@pytest.fixture(scope="module")
def saved(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A saved ResNet-20, sixteen pictures, and what the net that saved it says of them.

    The developer's build also has an emulated AVX-512, which the wheel has not; it is only taken when asked for.
    """
    assert "emulated" not in str(_native.host()["isa_active"])
    x = cifar(data_dir, 625)
    net = fastcnn.compile(load_pretrained("cifar10_resnet20", data_dir), x, strict=True, threads=2)
    path = tmp_path_factory.mktemp("saved") / "resnet20.fcnn"
    net.save(path)
    return path, x, net(x)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"fastcnn", f"fastcnn-{fastcnn.__version__}.dist-info"}
    assert [name for name in names if re.fullmatch(r"fastcnn/_native\.[\w.-]+\.so", name)]
    source = ROOT / "src" / "fastcnn"
    wanted = {f"fastcnn/{p.relative_to(source).as_posix()}" for p in source.rglob("*.py")}
    wanted |= {"fastcnn/py.typed", "fastcnn/_native.pyi", "fastcnn/compression/recipes/deep-compression.yaml"}
    assert wanted <= set(names), sorted(wanted - set(names))


def test_run_time_libraries_are_all_it_brings(installed: Installed) -> None:
    listed = json.loads(checked(installed.python, "-m", "pip", "list", "--format", "json", cwd=installed.folder))
    names = {entry["name"].lower() for entry in listed}
    assert {"fastcnn", *RUN_TIME} <= names
    assert not names & {"torch", "accelerate", "pyyaml", "scikit-learn", "scipy", "onnxruntime", "constriction"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("isa", "plan"), [(None, "saved"), (None, "tune"), ("avx2", "saved"), ("scalar", "saved"), ("scalar", "tune")]
)
def test_a_saved_net_runs(
    installed: Installed, saved: tuple[Path, np.ndarray, np.ndarray], isa: str | None, plan: str
) -> None:
    path, x, expected = saved
    active = str(_native.host()["isa_active"])
    if isa == "avx2" and active == "scalar":
        pytest.skip("this machine has no AVX2")
    got, said = installed.run(path, x, plan=plan, isa=isa)
    assert Path(said["where"]).is_relative_to(installed.folder)
    assert said["found"] == []
    assert "torch" not in said["loaded"]
    assert said["isa"] == (isa or active)
    if plan == "saved" and isa in (None, active) and said["threads"] == 2:
        assert said["how"] == "saved"
        assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
    else:
        assert said["how"] == ("tuned" if plan == "tune" else "heuristic")
        error = worst(got, expected.astype(np.float64))
        print(f"\n{said['isa']}, {said['how']}: {error:.1e} from the net that saved it")
        assert error <= FP32_LIMIT


@pytest.mark.data
def test_the_program(installed: Installed, saved: tuple[Path, np.ndarray, np.ndarray], data_dir: Path) -> None:
    path, _, _ = saved
    shutil.copy(path, installed.folder / "net.fcnn")
    inspected = installed.program("inspect", "net.fcnn", "--json")
    assert inspected.returncode == 0, inspected.stderr
    weights = json.loads(inspected.stdout)
    assert "conv1.weight" in json.dumps(weights)
    doctor = installed.program("doctor", "--json")
    assert doctor.returncode == 0, doctor.stderr
    assert json.loads(doctor.stdout)["healthy"]
    data = load_data(f"cifar10:{data_dir / 'cifar10'}")  # JPEGs, which the wheel alone cannot read
    pictures, labels = np.asarray(data.images)[::10], np.asarray(data.labels)[::10]
    np.savez(installed.folder / "cifar.npz", x=pictures, y=labels)
    ran = installed.program("run", "net.fcnn", "npz:cifar.npz", "--batch", "16", "--preprocess", "cifar10", "--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["labels"] == fastcnn.load(path)(cifar(data_dir, 10)).argmax(1).tolist()
    assert said["top1_percent"] == pytest.approx(100 * float(np.mean(said["labels"] == labels)))


def test_what_needs_an_extra_names_it(installed: Installed) -> None:
    for words in (("compile", "some.module:net"), ("methods",), ("demo",)):
        done = installed.program(*words)
        assert done.returncode == 2, done.stderr
        assert re.search(r'error: .*which is not installed.*pip install "fastcnn\[(compress|demo)\]"', done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
