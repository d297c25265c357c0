"""Load a .fcnn file in a process that cannot import torch: ``python -m fastcnn.cli.demo.without_torch JOB.json``.

The job names file, inputs (.npy), outputs (.npy), threads and seconds; the answer is one JSON document on stdout.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt


class _NoTorch(importlib.abc.MetaPathFinder):
    """Refuses torch to whoever asks."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] == "torch":
            raise ModuleNotFoundError("torch is blocked in this process", name=fullname)
        return None


def run_without_torch(
    file: Path, inputs: npt.NDArray[np.float32], *, threads: int, seconds: float
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Run every picture of ``inputs`` (N, C, H, W) one by one in a fresh process without torch.

    Returns
    -------
    outputs : ndarray of float32, shape (N, ...)
    facts : dict
        ``ms`` (median of one picture), ``modules_of_torch`` (how many were loaded: 0), ``isa``.

    Raises
    ------
    RuntimeError
        If the process fails; its last line is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="fastcnn-demo-run-") as name:
        folder = Path(name)
        np.save(folder / "x.npy", inputs)
        job = {"file": str(file), "x": str(folder / "x.npy"), "y": str(folder / "y.npy")}
        (folder / "job.json").write_text(json.dumps({**job, "threads": threads, "seconds": seconds}), encoding="utf-8")
        source = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fastcnn.cli.demo.without_torch", str(folder / "job.json")],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"running {file} without torch failed: {last}")
        facts: dict[str, Any] = json.loads(done.stdout)
        return np.load(folder / "y.npy", allow_pickle=False), facts


def main(arguments: list[str]) -> int:
    """Do the job of the one file named."""
    sys.meta_path.insert(0, _NoTorch())
    from fastcnn.benchmarking.worker import time_block
    from fastcnn.engine.api import load

    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    x = np.load(job["x"], allow_pickle=False)
    net: Any = load(job["file"], threads=job["threads"], plan="saved")
    np.save(job["y"], np.concatenate([np.asarray(net(x[i : i + 1])) for i in range(len(x))]))
    times = time_block(lambda: net(x[:1]), warmup_s=0.2, seconds=job["seconds"])
    loaded = sum(name.split(".")[0] == "torch" for name in sys.modules)
    print(json.dumps({"ms": float(np.median(times)) * 1e3, "modules_of_torch": loaded, "isa": str(net.isa)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
