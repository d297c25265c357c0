"""Every peer, converted and run in its own process, against torch in float64. No times are judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn.benchmarking.engines import ENGINES, KNOWN_PEERS
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.export import exact_outputs, export_model
from fastcnn.benchmarking.files import EXACT
from fastcnn.benchmarking.job import Job
from fastcnn.benchmarking.process import run_worker
from fastcnn.benchmarking.settle import random_pictures, settle

# MNN computes 3x3 convolutions by Winograd in any precision mode, OpenVINO may choose bf16 by itself; the others round
# like plain float32.
TOLERANCE = {"torch": 5e-6, "onnxruntime": 5e-6, "openvino": 5e-6, "ncnn": 2e-5, "mnn": 2e-3,
             "openvino-default": 3e-2,
             "openvino-int8": 5e-2}  # fmt: skip
SHAPE = (2, 3, 17, 19)


class Tiny(nn.Module):
    """Every structure the zoo nets have: residual, grouped, pooled, and a view before the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.fc = nn.Linear(8 * 8 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        return self.fc(x.view(x.size(0), -1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    export_model(settle(Tiny(), SHAPE), random_pictures(3, SHAPE, seed=1), folder, engines=KNOWN_PEERS)
    return folder


@pytest.mark.parametrize(("engine", "variant"), [(name, v) for name in KNOWN_PEERS for v in ENGINES[name].variants])
def test_peer_computes_the_net(exported: Path, tmp_path: Path, engine: str, variant: str) -> None:
    assert not ENGINES[engine].missing()
    outputs = tmp_path / "y.npy"
    for task in ("convert", "time") if ENGINES[engine].converts else ("time",):
        answer = run_worker(
            Job(
                task=task,  # type: ignore[arg-type]
                engine=engine,
                variant=variant,
                folder=str(exported),
                threads=1,
                warmup_s=0,
                seconds=0,
                result=str(tmp_path / "result.json"),
                outputs=str(outputs) if task == "time" else "",
            ),
            timeout_s=300,
        )
    assert answer["version"]
    assert answer["calls"] >= 3
    assert 0 < answer["min_ms"] <= answer["median_ms"] <= answer["p90_ms"]
    exact = np.load(exported / EXACT)
    error = relative_error(np.load(outputs).reshape(6, -1), exact.reshape(6, -1))
    assert error <= TOLERANCE[engine]


def test_exact_outputs_are_float64_and_leave_the_model_alone() -> None:
    model = settle(Tiny(), SHAPE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = random_pictures(1, SHAPE, seed=2)
    exact = exact_outputs(model, inputs)
    assert exact.dtype == np.float64
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.inference_mode():
        single = model(torch.from_numpy(inputs[0])).numpy()
    assert 0 < relative_error(single, exact[0]) < 5e-6


def test_two_outputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(TypeError, match="gives a tuple"):
        exact_outputs(Two(), random_pictures(1, SHAPE, seed=2))


def test_converting_for_mnn_leaves_its_tools_package_alone(exported: Path) -> None:
    """Importing MNN.tools runs pip and sends usage data."""
    code = (
        "import json, sys, numpy, pathlib\n"
        "from fastcnn.benchmarking.engines.mnn import MnnEngine\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "MnnEngine().convert(folder, numpy.zeros((1, 3, 17, 19), 'float32'))\n"
        "print('\\n' + json.dumps(sorted(m for m in sys.modules if m.startswith('MNN.tools'))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
    assert (exported / "model.mnn").stat().st_size > 1000
