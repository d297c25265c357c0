"""Child process of test_engine: capture every case once, compile it for each ISA of this machine, print errors as JSON.

``python -m tests.conformance.isa_worker``
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

import fastcnn as fc
from fastcnn import _native
from fastcnn.compression.convert import copy_model
from fastcnn.engine.api import resolve_tolerance
from fastcnn.engine.capture.errors import NotSupportedError
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.run.net import CompiledNet
from tests.conformance.cases import find, layer_cases, session_cases
from tests.conformance.test_sessions import net, prepare, train

Array = np.ndarray[Any, Any]
ISAS: list[str] = list(_native.host()["isa_available"])


def net_error(got: Array, exact: Array) -> float:
    """Per picture max|y - y64| / max|y64|, worst picture; infinite if shapes differ or a value is not finite."""
    if got.shape != exact.shape or not np.isfinite(got).all():
        return float("inf")
    axes = tuple(range(1, exact.ndim))
    scale = np.abs(exact).max(axis=axes)
    return float((np.abs(got - exact).max(axis=axes) / np.where(scale > 0, scale, 1)).max())


def errors_of(
    dense: nn.Module, small: nn.Module, x: torch.Tensor, tolerances: tuple[str, ...] = ("exact", "fp32")
) -> dict[str, dict[str, float]]:
    """Error of the compiled ``small`` against ``dense`` (its rebuilt form) in float64, per ISA and tolerance."""
    with torch.no_grad():
        exact = dense.double()(x.double()).numpy()
    inputs = x.numpy()
    captured = fc.compile(small.eval(), x, threads=1, strict=True, tune=False)
    found: dict[str, dict[str, float]] = {}
    for isa in ISAS:
        for word in tolerances:
            limit, is_exact = resolve_tolerance(word)
            net = CompiledNet(
                captured.graph, make_target(isa, 1), tolerance=limit, exact=is_exact, how="heuristic",
                calibration=[inputs],
            )  # fmt: skip
            found.setdefault(isa, {})[word] = net_error(np.asarray(net(inputs)), exact)
    return found


def rebuilt(model: nn.Module) -> nn.Module:
    """Copy in which every converted layer is the dense layer it stands for."""
    copy = copy_model(model)
    for parent in list(copy.modules()):
        for key, child in parent._modules.items():
            if hasattr(child, "to_dense"):
                parent._modules[key] = child.to_dense()  # type: ignore[union-attr,operator]
    return copy


def main() -> int:
    """Print {"layers": {case: {isa: {tolerance: error}}}, "declined": {case: why}}."""
    # torch says so about its own layer.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    layers: dict[str, dict[str, dict[str, float]]] = {}
    declined: dict[str, str] = {}
    for case in layer_cases():
        layer = case.layer()
        if layer is None:
            declined[str(case)] = "the method declines this shape"
            continue
        try:
            # Configs differ in the weights alone: both tolerances on the first will do.
            tolerances = ("exact", "fp32") if case.example == 0 else ("fp32",)
            layers[str(case)] = errors_of(layer.to_dense(), layer, case.input(), tolerances)
        except NotSupportedError as error:
            declined[str(case)] = str(error)
    for name, example in session_cases():
        trainee = prepare(net(), find(name).config.examples()[example])
        train(trainee, 4)
        small = fc.convert(trainee).eval()
        layers[f"{name}[{example}]-net"] = errors_of(rebuilt(small), small, torch.randn(2, 3, 9, 9))
    json.dump({"layers": layers, "declined": declined}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
