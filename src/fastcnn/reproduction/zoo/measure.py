"""One net: made, settled, compiled strictly, and compared with torch in float64."""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import fastcnn as fc
from fastcnn.benchmarking.error import relative_error
from fastcnn.benchmarking.settle import input_dependence, random_pictures, settle
from fastcnn.engine.capture import NotSupportedError
from fastcnn.engine.graph import GraphError
from fastcnn.reproduction.zoo.nets import ZooNet

BATCH = 2
SETTLE_PASSES = 2
MAX_ERROR = 1e-4

Arrays = list[npt.NDArray[Any]]


class _WholeLines(nn.Module):
    """A speech net on lines of full length: the masks of its convolutions have nothing to hide and are off."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        for module in net.modules():
            if hasattr(module, "use_mask"):
                setattr(module, "use_mask", False)  # noqa: B010  # a plain flag, not a tensor or module

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes, time) of features (N, 64, time)."""
        scores: Tensor = self.net(x, 0)[0]
        return scores


class _Row(nn.Module):
    """A net on lines, as one on pictures of one row."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x.squeeze(2))


def build(net: ZooNet, *, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the net with settled random weights, and its input shape.

    Raises
    ------
    ImportError
        If pytorchcv is not installed or has no such net.
    """
    torch.manual_seed(seed)
    module = importlib.import_module(f"pytorchcv.models.{net.module}")
    model: nn.Module = getattr(module, net.name)(**net.arguments)
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] == "index":  # CondenseNet: training fills them; all zero, they hide most channels
            buffer.copy_(torch.randperm(len(buffer)))
    size = net.size or model.in_size
    assert isinstance(size, tuple)
    shape = (BATCH, net.channels, *size)
    if len(size) == 1:
        model = _WholeLines(model)
        settle(_Row(model), (BATCH, net.channels, 1, *size), seed=seed, passes=SETTLE_PASSES)
        return model.eval(), shape
    return settle(model, shape, seed=seed, passes=SETTLE_PASSES), shape


def _pictures(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """One batch; a line is a picture of one row."""
    row = (*shape[:2], 1, *shape[2:]) if len(shape) == 3 else shape
    return np.ascontiguousarray(random_pictures(1, row, seed=seed).reshape(shape))


def _outputs(value: Any) -> Arrays:
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return [np.asarray(leaf) for leaf in leaves]


def worst_error(outputs: Arrays, exact: Arrays) -> float:
    """Largest error of any output, by :func:`fastcnn.benchmarking.relative_error`."""
    return max(relative_error(y, y64) for y, y64 in zip(outputs, exact, strict=True))


def measure(net: ZooNet, *, seed: int = 0) -> dict[str, Any]:
    """Compile one net with tolerance "fp32" by rules of thumb on one thread, and compare it.

    Returns
    -------
    dict
        net, family, module, parameters, shape, arguments; status: "native", "inexact" (beyond MAX_ERROR) or "refused"
        (with the engine's reason); error and torch_error (both as :func:`worst_error`, the second of torch in float32);
        input_dependence (of the first output: 0 if it does not depend on the picture); steps; seconds of planning and
        first run.
    """
    model, shape = build(net, seed=seed)
    record: dict[str, Any] = {
        "net": net.name,
        "family": net.family,
        "module": net.module,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": list(shape),
        "arguments": dict(net.arguments),
    }
    example, pictures = (torch.from_numpy(_pictures(shape, seed + k)) for k in (2, 3))
    began = time.perf_counter()
    try:
        fast = fc.compile(model, example, tolerance="fp32", strict=True, tune=False, threads=1)
    except (NotSupportedError, GraphError) as refusal:
        return record | {"status": "refused", "reason": str(refusal)}
    ours = _outputs(fast(pictures))
    seconds = time.perf_counter() - began
    with torch.no_grad():
        theirs = _outputs(model(pictures))
        exact = _outputs(model.double()(pictures.double()))
    error = worst_error(ours, exact)
    return record | {
        "status": "native" if error <= MAX_ERROR else "inexact",
        "error": error,
        "torch_error": worst_error(theirs, exact),
        "input_dependence": input_dependence(exact[0][None].astype(np.float64)),
        "steps": len(fast.plan.steps),
        "seconds": round(seconds, 2),
        "isa": fast.isa,
    }
