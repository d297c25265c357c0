"""Every method's layers, compiled, against float64, on every instruction set of this machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import layer_cases, session_cases
from tests.conformance.tolerances import ENGINE, tolerance

if importlib.util.find_spec("fastcnn._native") is None:
    pytest.skip("fastcnn._native is not built: make build", allow_module_level=True)

from fastcnn import _native

ISAS: list[str] = list(_native.host()["isa_available"])


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.conformance.isa_worker"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_there_is_a_scalar_path() -> None:
    assert "scalar" in ISAS


@pytest.mark.parametrize("isa", ISAS)
def test_compiled_layers_agree_with_float64(isa: str, outcome: dict[str, Any]) -> None:
    wrong = {
        f"{case} {word}": error
        for case, errors in outcome["layers"].items()
        for word, error in errors[isa].items()
        if not error <= tolerance(ENGINE, case.split("[")[0], word)
    }
    assert not wrong, wrong


def test_nothing_is_left_out(outcome: dict[str, Any]) -> None:
    expected = {str(case) for case in layer_cases()} | {f"{name}[{example}]-net" for name, example in session_cases()}
    assert outcome["layers"].keys() | outcome["declined"].keys() == expected
    assert all(list(errors) == ISAS for errors in outcome["layers"].values())
    # Reflection padding is outside the engine's set; everything else must run natively.
    assert {case.rsplit("-", 1)[1] for case, why in outcome["declined"].items() if "declines" not in why} <= {"reflect"}
