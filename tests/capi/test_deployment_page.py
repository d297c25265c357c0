"""The C program of docs/deployment.md compiles without a warning and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from fastcnn.engine.program import c_flags
from tests.capi.cases import CASES
from tests.engine.nets import compiled

ROOT = Path(__file__).resolve().parents[2]


def test_the_c_program(tmp_path: Path) -> None:
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```c\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "app.c").write_text(code)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *strict, "app.c", *c_flags().split(), "-o", "app"], cwd=tmp_path, check=True, timeout=60)

    missing = subprocess.run(["./app"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode == 1
    assert missing.stderr == "net.fcp: it cannot be read: no such file\n"

    compiled(CASES["residual_net"](), "scalar").export(tmp_path / "net.fcp")
    done = subprocess.run(["./app"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"\w+\[0\] = 0\.\d+\n", done.stdout)  # a softmax
