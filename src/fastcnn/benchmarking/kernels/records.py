"""What ``fastcnn bench --kernels`` found: plain records and their JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fastcnn.benchmarking.kernels.cases import Goal
from fastcnn.benchmarking.kernels.layer import Layer
from fastcnn.benchmarking.results import EngineResult, NetResult
from fastcnn.benchmarking.rows import FP32_ERROR
from fastcnn.reporting.host import host_facts

_OURS = "fastcnn"


@dataclass(frozen=True, kw_only=True)
class LayerCell:
    """One layer against its peers: inference, or a training step.

    Attributes
    ----------
    row : str
    layer : Layer
    goals : tuple of Goal
    max_error : float
        Largest error of ours.
    result : NetResult or None
        None where nothing could be timed.
    failure : str
        Why there is no result.
    commit, date : str
        Of this measurement.
    settings : mapping
        Everything that a kept measurement must share with a new one to stand for it.
    """

    row: str
    layer: Layer
    goals: tuple[Goal, ...]
    max_error: float
    result: NetResult | None
    failure: str
    commit: str | None
    date: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What there is one cell of."""
        return self.row, self.layer.name

    @property
    def label(self) -> str:
        """Row and layer, as messages name it."""
        return f"{self.row}, {self.layer.name}"

    @property
    def ours(self) -> EngineResult | None:
        """Our record, if there are figures."""
        found = [] if self.result is None else [e for e in self.result.engines if e.engine == _OURS and e.block_ms]
        return found[0] if found else None

    def best(self, peers: Sequence[str] | None = None) -> EngineResult | None:
        """The peer (of these, or of all) that is hardest to beat."""
        found = [] if self.result is None else [e for e in self.result.engines if e.ratio is not None]
        return max((e for e in found if peers is None or e.engine in peers), key=lambda e: e.ratio or 0.0, default=None)

    def missed(self) -> str:
        """What is not as good as it should be; empty if nothing."""
        if self.result is None:
            return self.failure or "nothing was timed"
        said = [f"{e.engine}: {e.failure}" for e in self.result.engines if e.failure]
        for goal in self.goals:
            best = self.best(goal.peers)
            if best is None or best.ratio is None:
                said.append(f"no ratio against {', '.join(goal.peers)}")
            elif not best.ratio <= goal.ratio:
                said.append(f"{best.ratio:.3f} of {best.engine}'s time, the goal is {goal.ratio}")
        error = None if self.ours is None else self.ours.error
        if self.ours is not None and (error is None or not error <= self.max_error):
            said.append(f"error {error} is above {self.max_error}")
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them."""
        missed, best = self.missed(), self.best()
        return {
            **_shared_json(self),
            "row": self.row,
            "goals": [{"peers": list(goal.peers), "ratio": goal.ratio} for goal in self.goals],
            "max_error": self.max_error,
            "best": None if best is None else best.engine,
            "ratio": None if best is None else best.ratio,
            "met": not missed,
            "missed": missed,
            "result": None if self.result is None else self.result.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerCell:
        """Read a cell back; KeyError, TypeError or ValueError where it is none."""
        return cls(
            **_shared_fields(data),
            row=data["row"],
            goals=tuple(Goal(peers=tuple(goal["peers"]), ratio=goal["ratio"]) for goal in data["goals"]),
            max_error=data["max_error"],
            result=None if data["result"] is None else NetResult.from_json(data["result"]),
        )


@dataclass(frozen=True, kw_only=True)
class AlgorithmTime:
    """One of our algorithms on one layer.

    Attributes
    ----------
    algorithm : str
        Such as ``direct``, ``winograd:6``, ``fft:16`` or ``amx_bf16x3``.
    block_ms : tuple of float
        Of each round, in milliseconds: median over the calls of the convolution's step alone, shared out between
        threads and blocks in the fastest way.
    way : str
        That way, found in the first round.
    error : float or None
        Against float64, worst picture.
    failure : str
        Why there are no figures; empty if there are.
    """

    algorithm: str
    block_ms: tuple[float, ...] = ()
    way: str = ""
    error: float | None = None
    failure: str = ""

    @property
    def ms(self) -> float | None:
        """Median over the rounds."""
        return statistics.median(self.block_ms) if self.block_ms else None

    @property
    def spread(self) -> float | None:
        """(slowest block - fastest block) / median."""
        return (max(self.block_ms) - min(self.block_ms)) / self.ms if self.ms else None

    def to_json(self) -> dict[str, Any]:
        """All fields, and median and spread."""
        return {**asdict(self), "block_ms": list(self.block_ms), "ms": self.ms, "spread": self.spread}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AlgorithmTime:
        """Read a record back; KeyError or TypeError where it is none."""
        facts = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**facts, "block_ms": tuple(float(ms) for ms in data["block_ms"])})


@dataclass(frozen=True, kw_only=True)
class Point:
    """Our algorithms on one layer, at one instruction set.

    Attributes
    ----------
    layer : Layer
    isa : str
        As the process had it.
    algorithms : tuple of AlgorithmTime
    failure, commit, date, settings
        As in :class:`LayerCell`.
    """

    layer: Layer
    isa: str
    algorithms: tuple[AlgorithmTime, ...]
    failure: str
    commit: str | None
    date: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What there is one point of."""
        return self.isa, self.layer.name

    @property
    def label(self) -> str:
        """Instruction set and layer, as messages name it."""
        return f"{self.isa}, {self.layer.name}"

    def algorithm(self, name: str) -> AlgorithmTime | None:
        """Return one algorithm's record, or None if it was not tried."""
        return next((a for a in self.algorithms if a.algorithm == name), None)

    @property
    def direct(self) -> AlgorithmTime | None:
        """The direct algorithm's record, if there are figures."""
        found = self.algorithm("direct")
        return found if found is not None and found.block_ms else None

    @property
    def best(self) -> AlgorithmTime | None:
        """The fastest algorithm whose error a net's tolerance ``fp32`` allows."""
        good = [a for a in self.algorithms if a.block_ms and a.error is not None and a.error <= FP32_ERROR]
        return min(good, key=lambda a: statistics.median(a.block_ms), default=None)

    @property
    def gain(self) -> float | None:
        """Median over the rounds of the direct algorithm's time / the best one's."""
        if self.direct is None or self.best is None:
            return None
        return statistics.median(d / b for d, b in zip(self.direct.block_ms, self.best.block_ms, strict=True))

    def missed(self) -> str:
        """Why there is nothing to show; empty if there is."""
        if self.failure or self.best is None:
            return self.failure or f"no algorithm has an error of at most {FP32_ERROR}"
        return "" if self.direct is not None else "the direct algorithm was not timed"

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them."""
        return {
            **_shared_json(self),
            "isa": self.isa,
            "best": None if self.best is None else self.best.algorithm,
            "gain": self.gain,
            "algorithms": [a.to_json() for a in self.algorithms],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Point:
        """Read a point back; KeyError, TypeError or ValueError where it is none."""
        algorithms = tuple(AlgorithmTime.from_json(a) for a in data["algorithms"])
        return cls(**_shared_fields(data), isa=data["isa"], algorithms=algorithms)


def _shared_json(cell: LayerCell | Point) -> dict[str, Any]:
    return {
        "name": cell.layer.name,
        "layer": cell.layer.to_json(),
        "failure": cell.failure,
        "commit": cell.commit,
        "date": cell.date,
        "settings": dict(cell.settings),
    }


def _shared_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    names = ("failure", "commit", "date", "settings")
    return {"layer": Layer(**data["layer"]), **{name: data[name] for name in names}}


@dataclass(frozen=True, kw_only=True)
class KernelsResult:
    """The benchmark as far as it is measured.

    Attributes
    ----------
    isa : str
        Active instruction set.
    cells : tuple of LayerCell
    points : tuple of Point
    skipped : mapping of str to str
        What says nothing on this machine, and why.
    host : mapping
    """

    isa: str
    cells: tuple[LayerCell, ...] = ()
    points: tuple[Point, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=host_facts)

    @property
    def isas(self) -> tuple[str, ...]:
        """Instruction sets that there are points of, the active one first."""
        return tuple(sorted({point.isa for point in self.points}, key=lambda isa: (isa != self.isa, isa)))

    def cell(self, row: str, layer: str) -> LayerCell | None:
        """Return one cell, or None if it is not measured."""
        return next((cell for cell in self.cells if cell.key == (row, layer)), None)

    def point(self, isa: str, layer: str) -> Point | None:
        """Return one point, or None if it is not measured."""
        return next((point for point in self.points if point.key == (isa, layer)), None)

    def having(self, found: LayerCell | Point) -> KernelsResult:
        """Return a copy with that cell or point in the place of an earlier one."""
        if isinstance(found, LayerCell):
            return replace(self, cells=(*(c for c in self.cells if c.key != found.key), found))
        return replace(self, points=(*(p for p in self.points if p.key != found.key), found))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": "kernels",
            "host": dict(self.host),
            "isa": self.isa,
            "skipped": dict(self.skipped),
            "cells": [cell.to_json() for cell in self.cells],
            "points": [point.to_json() for point in self.points],
        }

    def dumps(self) -> str:
        """The JSON document as text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False, default=str)

    @classmethod
    def loads(cls, text: str) -> KernelsResult:
        """Read a document back.

        Raises
        ------
        ValueError
            If it is no JSON of this benchmark.
        """
        try:
            data = json.loads(text)
            if data["kind"] != "kernels":
                raise ValueError(f"kind is {data['kind']!r}, not 'kernels'")
            return cls(
                isa=data["isa"],
                cells=tuple(LayerCell.from_json(cell) for cell in data["cells"]),
                points=tuple(Point.from_json(point) for point in data["points"]),
                skipped=dict(data["skipped"]),
                host=dict(data["host"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no JSON of bench --kernels: {error!r}") from error
