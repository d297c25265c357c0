"""The end product of planning: what runs, in which order, why, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """One step.

    Parameters
    ----------
    layer : str
        Node of the graph.
    source : str
        Module path in the user's model.
    kernel : str
        Native kernel, or ``torch`` for a step outside the engine.
    why : str
        What decided.
    error : float or None
        max|y - y_exact| / max|y_exact| of this layer alone, for steps that reorder algebra.
    ms : float or None
        Median in the running chain, where it was measured.
    macs : int
        Multiply-adds of the direct algorithm.
    weight_bytes : int
        Resident bytes of packed weights.
    """

    layer: str
    source: str
    kernel: str
    why: str = ""
    error: float | None = None
    ms: float | None = None
    macs: int = 0
    weight_bytes: int = 0
    choice: str = ""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Steps that run together: ``rows`` rows of the last one's output at a time, and what they need of the others'."""

    layer: str  # of the first
    steps: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An immutable plan for one set of input shapes.

    ``error`` is the net's, against its own exact kernels on the calibration inputs and more of their kind; ``None``
    where nothing was reordered or nothing could be measured. With ``error_as_saved`` it is what the file says, not
    measured here.
    ``arena_bytes`` and ``scratch_bytes`` are needed once per running inference, ``weight_bytes`` once. ``bands`` are
    the groups of steps that run together.
    """

    isa: str
    threads: int
    tolerance: float
    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[PlanStep, ...]
    arena_bytes: int
    arena_lower_bound: int
    scratch_bytes: int
    weight_bytes: int
    error: float | None = None
    error_as_saved: bool = False
    how: str = "heuristic"
    notes: tuple[str, ...] = field(default=())
    bands: tuple[Bands, ...] = field(default=())

    @property
    def total_ms(self) -> float | None:
        """Sum of the measured steps; None if nothing was timed."""
        known = [step.ms for step in self.steps if step.ms is not None]
        return sum(known) if known else None

    def choices(self) -> dict[str, str]:
        """Layer to chosen candidate, for layers that had a choice: what a file carries as a hint."""
        return {step.layer: step.choice for step in self.steps if step.choice}

    def with_(self, **changes: Any) -> Plan:
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form of everything above."""
        return {
            "isa": self.isa,
            "threads": self.threads,
            "tolerance": self.tolerance,
            "shapes": [list(shape) for shape in self.shapes],
            "how": self.how,
            "error": self.error,
            "error_as_saved": self.error_as_saved,
            "total_ms": self.total_ms,
            "arena_bytes": self.arena_bytes,
            "arena_lower_bound": self.arena_lower_bound,
            "scratch_bytes": self.scratch_bytes,
            "weight_bytes": self.weight_bytes,
            "notes": list(self.notes),
            "bands": [{"layer": b.layer, "steps": b.steps, "rows": b.rows} for b in self.bands],
            "steps": [
                {
                    "layer": s.layer,
                    "source": s.source,
                    "kernel": s.kernel,
                    "why": s.why,
                    "error": s.error,
                    "ms": s.ms,
                    "macs": s.macs,
                    "weight_bytes": s.weight_bytes,
                    "choice": s.choice,
                }
                for s in self.steps
            ],
        }

    def __str__(self) -> str:
        rows = [("layer", "kernel", "why", "error", "ms", "GMAC/s")]
        for s in self.steps:
            rate = f"{s.macs / s.ms / 1e6:.1f}" if s.ms and s.macs else ""
            rows.append(
                (
                    s.layer,
                    s.kernel,
                    s.why,
                    "" if s.error is None else f"{s.error:.1e}",
                    "" if s.ms is None else f"{s.ms:.3f}",
                    rate,
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(6)]
        lines = []
        for row in rows:
            left = "  ".join(row[k].ljust(widths[k]) for k in range(3))
            right = "  ".join(row[k].rjust(widths[k]) for k in range(3, 6))
            lines.append(f"{left}  {right}".rstrip())
        total = "" if self.total_ms is None else f", {self.total_ms:.2f} ms"
        error = "" if self.error is None else f", error {self.error:.1e}{' as saved' if self.error_as_saved else ''}"
        mb = 1e-6
        lines.append(
            f"plan ({self.how}) for {', '.join(map(str, self.shapes))} on {self.isa}, {self.threads} thread"
            f"{'s' if self.threads != 1 else ''}: {len(self.steps)} steps{total}{error} "
            f"(tolerance {self.tolerance:g}); "
            f"weights {self.weight_bytes * mb:.1f} MB, activations {self.arena_bytes * mb:.1f} MB, "
            f"scratch {self.scratch_bytes * mb:.1f} MB"
        )
        return "\n".join(lines)
