"""Published nets on real pictures: the labels of torch, the error of design section 5, files and threads.

The errors and agreements are printed (``pytest -s``) beside torch's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcnn
from fastcnn import _native
from tests.engine.real_nets import (
    EXACT_LIMIT,
    FP32_LIMIT,
    PHOTOGRAPHS,
    cifar,
    run_float64,
    run_ours,
    run_torch,
    worst,
)
from tests.models import load_pretrained

pytestmark = pytest.mark.data


@pytest.mark.parametrize("name", ["cifar10_resnet20", "cifar10_resnet32"])
def test_cifar_labels_and_error(data_dir: Path, name: str) -> None:
    model = load_pretrained(name, data_dir)
    x = cifar(data_dir)
    ours = run_ours(fastcnn.compile(model, x[:50], strict=True, tune=False), x, 50)
    theirs = run_torch(model, x, 50, torch.float32)
    same = float((ours.argmax(1) == theirs.argmax(1)).mean())
    exact_net = fastcnn.compile(model, x[:50], strict=True, tune=False, tolerance="exact")
    exact = run_ours(exact_net, x[::10], 50)
    y64 = run_float64(model, x[::10])
    fast_error, exact_error, torch_error = worst(ours[::10], y64), worst(exact, y64), worst(theirs[::10], y64)
    print(f"{name}: same label {same:.4%}, error fp32 {fast_error:.1e} exact {exact_error:.1e} torch {torch_error:.1e}")
    assert same >= 0.999
    assert fast_error <= FP32_LIMIT
    assert exact_error <= EXACT_LIMIT


@pytest.mark.parametrize("name", sorted(PHOTOGRAPHS))
def test_photographs(data_dir: Path, name: str) -> None:
    model = load_pretrained(name, data_dir)
    x = PHOTOGRAPHS[name](data_dir)
    ours = run_ours(fastcnn.compile(model, x[:4], strict=True, tune=False), x, 4)
    theirs = run_torch(model, x, 4, torch.float32)
    some = slice(0, 200, 5)
    exact = run_ours(fastcnn.compile(model, x[:4], strict=True, tune=False, tolerance="exact"), x[some], 4)
    y64 = run_float64(model, x[some])
    fast_error, exact_error, torch_error = worst(ours[some], y64), worst(exact, y64), worst(theirs[some], y64)
    print(f"{name}: error fp32 {fast_error:.1e} exact {exact_error:.1e} torch {torch_error:.1e}")
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    assert fast_error <= FP32_LIMIT
    assert exact_error <= EXACT_LIMIT


@pytest.fixture(scope="module")
def saved(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A saved ResNet-20, sixteen pictures, and what the net that saved it says of them."""
    model = load_pretrained("cifar10_resnet20", data_dir)
    x = cifar(data_dir, 625)
    net = fastcnn.compile(model, x, strict=True, threads=2, tune=True)
    path = tmp_path_factory.mktemp("saved") / "resnet20.fcnn"
    net.save(path)
    return path, x, net(x)


WORKER = """
import sys, json
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "accelerate", "yaml", "sklearn", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import numpy as np, fastcnn
net = fastcnn.load(sys.argv[1], plan=sys.argv[4])
y = net(np.load(sys.argv[2]))
np.save(sys.argv[3], y)
print(json.dumps({"isa": net.isa, "how": net.plan.how, "threads": net.threads, "torch": "torch" in sys.modules}))
"""


@pytest.mark.parametrize(("isa", "plan"), [(None, "saved"), (None, "tune"), ("avx2", "saved"), ("scalar", "saved")])
def test_file_runs_without_torch(
    saved: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path, isa: str | None, plan: str
) -> None:
    path, x, expected = saved
    np.save(tmp_path / "x.npy", x)
    environment = {**os.environ, "FASTCNN_CACHE": ""}
    if isa is not None:
        environment["FASTCNN_ISA"] = isa
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), plan],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["torch"]
    got = np.load(tmp_path / "y.npy")
    active = _native.host()["isa_active"]
    if plan == "saved" and (isa is None or isa == active):
        assert said["how"] == "saved"
        assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
    else:
        assert worst(got, expected.astype(np.float64)) <= 1e-4


THREADS = """
import gc, json, sys, threading
import numpy as np, fastcnn
net = fastcnn.load(sys.argv[1], threads=2)
x = np.load(sys.argv[2])
alone = [net(x[i : i + 1]) for i in range(len(x))]
CALLERS, PHASES = 32, (1000, 9000)

def resident_bytes():
    with open("/proc/self/status", encoding="ascii") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

wrong, resident = [0] * CALLERS, []
gate = threading.Barrier(CALLERS, lambda: (gc.collect(), resident.append(resident_bytes())))

def caller(me):
    for calls in PHASES:  # the calls of a phase are dealt out one by one, the memory read between the phases
        for index in range(me, calls, CALLERS):
            picture = index % len(x)
            wrong[me] += not np.array_equal(net(x[picture : picture + 1]), alone[picture])
        gate.wait()

callers = [threading.Thread(target=caller, args=(me,)) for me in range(CALLERS)]
for thread in callers:
    thread.start()
for thread in callers:
    thread.join()
np.save(sys.argv[3], np.concatenate(alone))
print(json.dumps({"wrong": sum(wrong), "resident": resident}))
"""


def test_32_threads_call_one_net(saved: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """In a process of its own: the memory of other tests' leftovers must not be measured."""
    path, x, expected = saved
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    first, last = said["resident"]
    print(f"resident memory between call 1,000 and call 10,000: {(last - first) / 1024:+.0f} KiB")
    assert said["wrong"] == 0
    assert last - first <= 1 << 20
    assert worst(np.load(tmp_path / "y.npy"), expected.astype(np.float64)) <= 1e-4


def test_any_batch_and_size(saved: tuple[Path, np.ndarray, np.ndarray], data_dir: Path) -> None:
    path, x, expected = saved
    net = fastcnn.load(path)
    for batch in (1, 3, 8):
        assert worst(net(x[:batch]), expected[:batch].astype(np.float64)) <= 1e-4
    model = load_pretrained("cifar10_resnet20", data_dir)
    rng = np.random.default_rng(0)
    for size in (37, 51, 70):
        pictures = rng.standard_normal((2, 3, size, size)).astype(np.float32)
        assert worst(net(pictures), run_float64(model, pictures)) <= 1e-4, size
    model = load_pretrained("imagenet_mobilenet_v2", data_dir)
    other = fastcnn.compile(model, torch.zeros(1, 3, 224, 224), strict=True, tune=False)
    for shape in [(1, 3, 224, 224), (2, 3, 37, 41), (1, 3, 33, 9), (3, 3, 51, 50), (1, 3, 1, 1)]:
        pictures = rng.standard_normal(shape).astype(np.float32)
        assert worst(other(pictures), run_float64(model, pictures)) <= 1e-4, shape
