"""compile and load: the two ways to a net that runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastcnn import _native
from fastcnn.engine.graph.graph import GraphError
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.plan.tune import Progress
from fastcnn.engine.run.net import CompiledNet
from fastcnn.reporting.host import default_threads

if TYPE_CHECKING:
    from torch import nn

    from fastcnn.artifact.hint import PlanHint

__all__ = ["CompiledNet", "compile", "load"]

logger = logging.getLogger("fastcnn")

Tolerance = Literal["exact", "fp32", "relaxed"] | float

RELAXED_TOLERANCE = 1e-2
FP32_TOLERANCE = 1e-4
EXACT_TOLERANCE = 2e-6


def resolve_tolerance(tolerance: Any) -> tuple[float, bool]:
    """Return the largest net error and whether only exact kernels may run.

    ``"exact"`` reorders nothing but sums; ``"fp32"`` allows Winograd, and 16-bit weights with a scale for every 64
    where reading them is the cost, up to a net error of 1e-4; ``"relaxed"`` allows products in bf16 as well, up to
    1e-2. A float is that error; from 1e-3 it allows bf16.
    """
    if tolerance == "exact":
        return EXACT_TOLERANCE, True
    if tolerance == "fp32":
        return FP32_TOLERANCE, False
    if tolerance == "relaxed":
        return RELAXED_TOLERANCE, False
    if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and 0 < tolerance < 1:
        return float(tolerance), float(tolerance) <= EXACT_TOLERANCE
    raise ValueError(
        f'tolerance={tolerance!r} is not understood: choose "exact", "fp32", "relaxed" or a number between 0 and 1'
    )


def resolve_threads(threads: Any) -> int:
    """Return the thread count: the physical cores this process may use if none is given."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise TypeError(f"threads={threads!r} must be an integer or None")
    if not 1 <= threads <= 256:
        raise ValueError(f"threads={threads} is out of range: choose 1 to 256, or None for all cores")
    return threads


def compile(
    model: nn.Module | str | Path,
    example_inputs: Any = None,
    *,
    tolerance: Tolerance = "fp32",
    threads: int | None = None,
    strict: bool = False,
    tune: bool = True,
    weight_memory: int | None = None,
    progress: Progress | None = None,
) -> CompiledNet:
    """Compile a PyTorch model or an ONNX file for this CPU: the same function by faster kernels.

    Parameters
    ----------
    model : nn.Module, or path of a ``.onnx`` file
        A model is captured in evaluation mode by ``torch.export``, and left as it is. A file is read by the onnx
        package, without torch, and always strictly.
    example_inputs : Tensor, ndarray, or tuple of them
        float32, batch first. They fix the example shape, and the planner measures its error on them. A file that states
        the sizes of its inputs (the batch excepted) needs none.
    tolerance : {"exact", "fp32", "relaxed"} or float
        Largest error of the net against its exact kernels: per picture max|y - y_exact| / max|y_exact|. ``"exact"``
        reorders nothing but sums; ``"fp32"`` allows Winograd, and 16-bit weights (a scale for every 64) where reading
        them is what a layer costs, up to 1e-4; ``"relaxed"`` allows products in bf16 too (where the CPU has them),
        up to 1e-2.
    threads : int, optional
        Threads of one inference; one for each physical core by default.
    strict : bool
        Refuse any operation outside the engine's set instead of running it in torch.
    tune : bool
        Time the candidates of every layer inside the running net (seconds, remembered on disk); else rules of thumb.
    weight_memory : int, optional
        Most bytes that packed weights may take, for each input shape; tuning needs more while it runs. Winograd keeps 4
        to 7 times what a layer's weights are; layers where that gains least go back to other kernels until it fits.
        None: what is fastest.
    progress : callable (done, total), optional
        Called after every tuning round.

    Returns
    -------
    CompiledNet

    Raises
    ------
    ValueError
        For an operation outside the set under ``strict``, NaN weights, shapes that do not fit, bad arguments, a
        damaged file.
    TypeError
        For a model or inputs of another kind or dtype.
    MissingExtraError
        Without torch for a model, without onnx for a file.

    Examples
    --------
    >>> import torch, fastcnn as fc
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    >>> fast = fc.compile(model, torch.rand(1, 3, 32, 32), tune=False)
    >>> fast(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 8, 30, 30])
    """
    limit, exact = resolve_tolerance(tolerance)
    target = make_target(
        str(_native.host()["isa_active"]), resolve_threads(threads), weight_bytes=_resolve_bytes(weight_memory)
    )
    if isinstance(model, (str, Path)):
        from fastcnn.engine.onnx_import.examples import graph_and_inputs

        graph, calibration = graph_and_inputs(model, example_inputs)
    else:
        from fastcnn._extras import require

        require("torch", extra="compress", purpose="fastcnn.compile")
        from fastcnn.engine.capture import capture

        graph = capture(model, _as_tensors(example_inputs), strict=strict)
        calibration = _as_arrays(example_inputs)
    try:
        return CompiledNet(
            graph,
            target,
            tolerance=limit,
            exact=exact,
            how="tune" if tune else "heuristic",
            calibration=calibration,
            progress=progress,
        )
    except (MemoryError, OverflowError) as error:
        if isinstance(model, (str, Path)):  # sizes that a damaged file states
            raise ValueError(f"{model}: this machine cannot hold the net: {error}") from error
        raise


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    plan: Literal["saved", "tune", "heuristic"] = "saved",
    tolerance: Tolerance | None = None,
    weight_memory: int | None = None,
    progress: Progress | None = None,
) -> CompiledNet:
    """Load a ``.fcnn`` file; needs no torch.

    Parameters
    ----------
    path : str or Path
    threads : int, optional
        Threads of one inference; those of the saved plan by default, at most the cores there are.
    plan : {"saved", "tune", "heuristic"}
        ``"saved"`` follows the plan in the file: on the same instruction set and thread count the output is bit-equal
        to the net that saved it. Where it does not fit, the heuristic takes its place and a log line says so. The
        error the file states is a claim: the plan prints it "as saved", and measures anew where file and claim differ.
    tolerance : optional
        As in :func:`fastcnn.compile`; the file's by default.
    weight_memory : int, optional
        As in :func:`fastcnn.compile`.

    Returns
    -------
    CompiledNet

    Raises
    ------
    ArtifactError
        (a ValueError) For a damaged or foreign file: names the field, those of the saved plan included.
        It also says so where the file cannot be read at all, or this machine cannot hold the net.
    """
    if plan not in ("saved", "tune", "heuristic"):
        raise ValueError(f'plan={plan!r} is not understood: choose "saved", "tune" or "heuristic"')
    from fastcnn.artifact import ArtifactError, load_graph
    from fastcnn.artifact.hint import parse_hint

    artifact = load_graph(path)
    try:
        hint = parse_hint(artifact.plan_hint, artifact.graph)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    isa = str(_native.host()["isa_active"])
    limit, exact = _hint_tolerance(hint) if tolerance is None else resolve_tolerance(tolerance)
    if threads is None and hint.threads is not None:
        threads = min(hint.threads, int(_native.host()["cores"]))
    target = make_target(isa, resolve_threads(threads), weight_bytes=_resolve_bytes(weight_memory))
    how: Literal["heuristic", "tune", "hint"] = "tune" if plan == "tune" else "heuristic"
    if plan == "saved":
        if hint.choices is None:
            logger.info("%s: the file holds no plan: heuristic plan", path)
        elif hint.isa == isa and hint.threads == target.threads:
            how = "hint"
        else:
            logger.info(
                "%s: the saved plan is for %s and %s threads, this is %s and %s: heuristic plan instead",
                path, hint.isa, hint.threads, isa, target.threads,
            )  # fmt: skip
    try:
        return CompiledNet(
            artifact.graph,
            target,
            tolerance=limit,
            exact=exact,
            how=how,
            hint=hint.choices if how == "hint" else None,
            bands=hint.bands if how == "hint" else None,
            # For another tolerance than the file's, and for another net, its error says nothing.
            known_error=hint.claims(artifact.graph, limit) if how == "hint" and tolerance is None else None,
            meta=artifact.meta,
            progress=progress,
        )
    except (GraphError, MemoryError, OverflowError) as error:
        raise ArtifactError(f"{path}: the graph in this file cannot be planned: {error}") from error


def _resolve_bytes(weight_memory: Any) -> int | None:
    if weight_memory is None:
        return None
    if isinstance(weight_memory, bool) or not isinstance(weight_memory, int):
        raise TypeError(f"weight_memory={weight_memory!r} must be a whole number of bytes or None")
    if weight_memory < 1:
        raise ValueError(f"weight_memory={weight_memory} is out of range: give the bytes that packed weights may take")
    return weight_memory


def _hint_tolerance(hint: PlanHint) -> tuple[float, bool]:
    return (FP32_TOLERANCE, False) if hint.tolerance is None else (hint.tolerance, hint.exact)


def _as_tensors(example_inputs: Any) -> Any:
    """Numpy arrays become tensors; everything else is capture's to judge."""
    import torch

    if isinstance(example_inputs, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(example_inputs))
    if isinstance(example_inputs, (tuple, list)):
        return tuple(_as_tensors(value) for value in example_inputs)
    return example_inputs


def _as_arrays(example_inputs: Any) -> list[np.ndarray[Any, Any]]:
    values: Sequence[Any] = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    if isinstance(example_inputs, dict):
        values = list(example_inputs.values())
    return [np.ascontiguousarray(v.detach().cpu().numpy() if hasattr(v, "detach") else v, np.float32) for v in values]
