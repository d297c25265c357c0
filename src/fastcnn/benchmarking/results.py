"""What a benchmark found: plain records, their JSON and their table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

BUSY_PER_S = 100.0
"""More preemptions a second than this come from other work: a competing thread alone causes some hundreds."""


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """One engine on one net.

    Attributes
    ----------
    engine, variant, version : str
    block_ms : tuple of float
        Median of each timed block, in milliseconds, in the order of the rounds.
    error : float or None
        See :func:`fastcnn.benchmarking.relative_error`; None where no exact outputs exist.
    ratio : float or None
        Median over rounds of (our block / this engine's block): below 1, ours is faster.
    failure : str
        Why there are no figures; empty if there are.
    calls : int
        Timed calls in all blocks.
    preempted_per_s : float
        Largest over the blocks: how often a second the system gave a core that a thread still wanted to somebody else.
        A few on a quiet machine.
    """

    engine: str
    variant: str = "default"
    version: str = ""
    block_ms: tuple[float, ...] = ()
    error: float | None = None
    ratio: float | None = None
    failure: str = ""
    calls: int = 0
    preempted_per_s: float = 0.0

    @property
    def median_ms(self) -> float | None:
        """Median over the rounds of the blocks' medians, in milliseconds."""
        return statistics.median(self.block_ms) if self.block_ms else None

    @property
    def spread(self) -> float | None:
        """(slowest block - fastest block) / median."""
        middle = self.median_ms
        return (max(self.block_ms) - min(self.block_ms)) / middle if middle else None

    def to_json(self) -> dict[str, Any]:
        """All fields, and median and spread."""
        return {**asdict(self), "block_ms": list(self.block_ms), "median_ms": self.median_ms, "spread": self.spread}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineResult:
        """Read a record back; KeyError or TypeError where it is none."""
        facts = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**facts, "block_ms": tuple(float(ms) for ms in data["block_ms"])})


@dataclass(frozen=True, kw_only=True)
class NetResult:
    """One net: its engines, ours first."""

    net: str
    shape: tuple[int, ...]
    engines: tuple[EngineResult, ...]
    input_dependence: float | None = None
    isa: str = ""
    plan: str = ""

    def engine(self, name: str) -> EngineResult:
        """Return the record of one engine.

        Raises
        ------
        KeyError
            If it did not take part.
        """
        for result in self.engines:
            if result.engine == name:
                return result
        raise KeyError(f"engine {name!r} did not take part in {self.net}")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "net": self.net,
            "shape": list(self.shape),
            "input_dependence": self.input_dependence,
            "isa": self.isa,
            "plan": self.plan,
            "engines": [result.to_json() for result in self.engines],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetResult:
        """Read a record back; KeyError or TypeError where it is none."""
        facts = {field.name: data[field.name] for field in fields(cls)}
        engines = tuple(EngineResult.from_json(engine) for engine in data["engines"])
        return cls(**{**facts, "shape": tuple(int(n) for n in data["shape"]), "engines": engines})


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """All nets of one run, and all that is needed to repeat it."""

    nets: tuple[NetResult, ...]
    settings: dict[str, Any]
    host: dict[str, Any]
    commit: str | None
    date: str
    skipped: dict[str, str] = field(default_factory=dict)

    def net(self, name: str) -> NetResult:
        """Return one net's record; KeyError if there is none."""
        for result in self.nets:
            if result.net == name:
                return result
        raise KeyError(f"net {name!r} was not timed")

    def to_json(self) -> dict[str, Any]:
        """Plain data: settings, host, commit, date, and every block of every engine."""
        return {
            "date": self.date,
            "commit": self.commit,
            "host": self.host,
            "settings": self.settings,
            "skipped": self.skipped,
            "nets": [net.to_json() for net in self.nets],
        }

    def disturbed(self) -> list[str]:
        """A sentence on every engine that had to share its cores: its times are not to be trusted."""
        return [
            f"{net.net}: {e.engine} was interrupted {e.preempted_per_s:.0f} times a second: the machine was busy"
            for net in self.nets
            for e in net.engines
            if e.preempted_per_s > BUSY_PER_S
        ]

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of the table: net, engine, ms, spread, ours/peer, error."""
        lines: list[tuple[str, ...]] = []
        for net in self.nets:
            for i, result in enumerate(net.engines):
                name = f"{result.engine} {result.version}".strip()
                if result.variant != "default":
                    name += f" ({result.variant})"
                first = net.net if i == 0 else ""
                if result.median_ms is None:
                    lines.append((first, name, "failed", "", "", result.failure))
                    continue
                spread = "" if result.spread is None else f"{result.spread:.0%}"
                ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
                error = "not known" if result.error is None else f"{result.error:.1e}"
                lines.append((first, name, f"{result.median_ms:.2f}", spread, ratio, error))
        return lines

    def __str__(self) -> str:
        head = ("net", "engine", "ms", "spread", "ours/peer", "error")
        rows = [head, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def dumps(self) -> str:
        """The JSON document as text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False, default=str)
