"""Curves of every layer: how much error, time and memory a method's ranks cost it, on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from fastcnn.compression.calibrate import inputs_of, sights
from fastcnn.compression.convert import copy_model, matching_layers
from fastcnn.methods.contract import MethodConfig, Sight, check_count
from fastcnn.methods.registry import method_of
from fastcnn.methods.replace import dense_bytes
from fastcnn.methods.structured.calibration import Moments
from fastcnn.methods.structured.factored import FactoredConv2d, FactoredLinear
from fastcnn.methods.structured.ranks import RankConfig, Ranked


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step of a layer's curve.

    Parameters
    ----------
    ranks : tuple of int
    error : float
        Relative error of the layer's outputs on the calibration inputs, means apart where a bias makes up for them.
    ms : float
        By this machine's engine at the layer's input size.
    bytes : int
        Of the factors and the bias, in the layer's dtype.
    macs : int
        Multiply-adds per position of the output.
    """

    ranks: tuple[int, ...]
    error: float
    ms: float
    bytes: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One layer: the dense one, and every step of its ranks; ``why`` if it has none."""

    layer: str
    input_shape: tuple[int, ...]
    dense_ms: float | None
    dense_bytes: int
    dense_macs: int
    points: tuple[Point, ...]
    why: str = ""

    @property
    def faster(self) -> tuple[Point, ...]:
        """Points that take less time than the dense layer."""
        return tuple(point for point in self.points if self.dense_ms is not None and point.ms < self.dense_ms)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Curves of a model's layers under one method."""

    method: str
    threads: int
    curves: tuple[Curve, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form of everything above."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("layer", "dense", "fastest", "at ranks", "error", "largest faster", "error ")]
        for curve in self.curves:
            if curve.dense_ms is None or not curve.points:
                rows.append((curve.layer, "", "", "", "", curve.why, ""))
                continue
            fastest = min(curve.points, key=lambda point: point.ms)
            largest = curve.faster[-1] if curve.faster else None
            rows.append(
                (
                    curve.layer,
                    f"{curve.dense_ms:.3f} ms",
                    f"{fastest.ms:.3f} ms",
                    _ranks(fastest.ranks),
                    f"{fastest.error:.1%}",
                    "none" if largest is None else f"{_ranks(largest.ranks)}: {largest.ms:.3f} ms",
                    "" if largest is None else f"{largest.error:.1%}",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _ranks(ranks: tuple[int, ...]) -> str:
    return "x".join(map(str, ranks))


def sensitivity(
    model: nn.Module,
    config: MethodConfig,
    data: Tensor | Iterable[Any],
    layers: str | Sequence[str] = "*",
    *,
    points: int = 8,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Sensitivity:
    """Measure what a factorisation's ranks cost each layer of a model.

    Parameters
    ----------
    model : nn.Module
        Left alone.
    config : MethodConfig
        Of a method with ranks: SVDConfig, LowRankConfig, TuckerConfig, CPConfig, SeparableConfig. Which rule it has for
        the rank does not matter, as all ranks are gone through.
    data : Tensor or iterable
        Calibration inputs, as for ``convert``.
    layers : glob pattern or sequence of them
    points : int
        Ranks measured for each layer, at most; evenly spread over the ladder.
    threads : int, optional
        As in ``fastcnn.compile``.
    progress : callable (done, total, layer), optional
        Called after each layer.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ValueError
        If the method has no ranks, nothing matches, or the model does not run on data.
    TypeError
        For a wrong kind of argument.
    """
    check_count("points", points, 2, 1000)
    method = method_of(config)
    if not isinstance(config, RankConfig):
        raise ValueError(
            f"{type(config).__name__} has no ranks to go through: choose SVDConfig, TuckerConfig or the like"
        )
    fresh = copy_model(model)
    names = config.which({name: fresh.get_submodule(name) for name in matching_layers(fresh, method, layers)})
    found = []
    for done, (name, sight) in enumerate(sights(fresh, names, list(inputs_of(data)), threads=threads), 1):
        dense = fresh.get_submodule(name)
        if type(dense) not in method.layers:
            raise ValueError(f"the weight of {name} is parametrized: remove the parametrization, or finish its session")
        found.append(_curve(dense, name, method.layers[type(dense)], config, sight, points))
        if progress is not None:
            progress(done, len(names), name)
    from fastcnn.engine.api import resolve_threads

    return Sensitivity(method=method.name, threads=resolve_threads(threads), curves=tuple(found))


def _curve(
    dense: nn.Module, name: str, cls: type[Ranked], config: MethodConfig, sight: Sight | None, points: int
) -> Curve:
    assert isinstance(dense, nn.Conv2d | nn.Linear)
    facts: dict[str, Any] = {"layer": name, "dense_bytes": dense_bytes(dense), "dense_macs": dense.weight.numel()}
    if sight is None:
        return Curve(**facts, input_shape=(), dense_ms=None, points=(), why="the calibration inputs do not reach it")
    facts |= {"input_shape": sight.input_shape, "dense_ms": sight.dense_ms()}
    why = cls.why_not(dense)
    if why:
        return Curve(**facts, points=(), why=why)
    assert isinstance(config, RankConfig)
    ladder = cls.ladder(dense, config, sight)
    steps = ladder.steps(config)
    chosen = sorted({round(i * (len(steps) - 1) / (points - 1)) for i in range(points)})
    measured = []
    for index in chosen:
        layer = ladder.build(steps[index])
        assert isinstance(layer, FactoredConv2d | FactoredLinear)
        measured.append(
            Point(
                ranks=steps[index],
                error=outputs_error(dense, layer.to_dense().weight.detach(), sight.moments),
                ms=sight.latency_ms(layer),
                bytes=layer.theory().bytes,
                macs=ladder.macs(steps[index]),
            )
        )
    return Curve(**facts, points=tuple(measured))


def outputs_error(dense: nn.Conv2d | nn.Linear, weight: Tensor, moments: Moments) -> float:
    """Root mean square of what another weight changes of a layer's outputs, over that of the outputs.

    With S the second moments of what the layer sees, tr((W - W') S (W - W')^T) over tr(W S W^T), of all groups.
    """
    lost = whole = 0.0
    groups = len(moments.groups)
    pairs = zip(dense.weight.detach().double().cpu().chunk(groups), weight.double().cpu().chunk(groups), strict=True)
    for (own, other), part in zip(pairs, moments.groups, strict=True):
        lost += part.energy((own - other).flatten(1))
        whole += part.energy(own.flatten(1))
    return math.sqrt(max(lost, 0.0) / whole) if whole > 0 else 0.0
