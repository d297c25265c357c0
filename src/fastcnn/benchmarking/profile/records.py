"""What a profile found: plain records and their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from fastcnn.benchmarking.profile.verdicts import Verdict, verdicts

_IMPOSSIBLE_SHARE = 1.03
_DOUBTFUL_SPREAD = 0.3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the machine gave in the same run, all threads at once.

    Attributes
    ----------
    isa : str
        Instruction set of the measuring kernels and of the plan.
    threads : int
    fma_gmacs : float
        1e9 fp32 multiply-adds per second, in registers.
    bf16_gmacs : float or None
        1e9 multiply-adds in bf16 per second, in registers; None where the CPU has no instruction for them.
    amx_gmacs : float or None
        The same on the tile registers of AMX.
    read_gbps : float
        1e9 bytes per second, read from one buffer far larger than the caches.
    buffer_mib : int
        Size of that buffer.
    """

    isa: str
    threads: int
    fma_gmacs: float
    bf16_gmacs: float | None
    amx_gmacs: float | None
    read_gbps: float
    buffer_mib: int


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """One step of the plan.

    Attributes
    ----------
    layer, source, kernel, why : str
        As in the plan.
    family : str
        What it is summed up under: ``1x1``, ``direct``, ``grouped``, ``linear``, or the native op.
    error : float or None
        Of this layer's kernel against its exact one; None where no algebra is reordered.
    ms : float
        Median over the repeats, in milliseconds, inside the running chain; with several rounds the median of theirs.
    spread : float
        (90th - 10th percentile of the repeats) / median; with several rounds the median of theirs.
    macs, multiplications, counted
        See :class:`fastcnn.benchmarking.profile.work.Work`.
    weight_bytes, input_bytes, output_bytes : int
    out_map : tuple of int
        Rows and columns of the output.
    compute_share : float
        Multiplications per second over the peak of the kernel's arithmetic: fp32, bf16, or AMX's.
    useful_share : float
        ``macs`` per second over the same peak: above 1 where Winograd saves more than it loses.
    byte_share : float
        Bytes per second over the read bandwidth; above 1 where data come from a cache.
    """

    layer: str
    source: str
    family: str
    kernel: str
    why: str
    error: float | None
    ms: float
    spread: float
    macs: int
    multiplications: int
    counted: bool
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    out_map: tuple[int, int]
    compute_share: float
    useful_share: float
    byte_share: float

    @property
    def bytes(self) -> int:
        """Weights, inputs and output."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def bound(self) -> str:
        """The limit that would take longer by itself: ``multiplications`` or ``bytes``."""
        return "multiplications" if self.compute_share > self.byte_share else "bytes"

    @property
    def share(self) -> float:
        """Share of the binding limit: 1 is as fast as the machine allows for this algorithm."""
        return max(self.compute_share, self.byte_share)

    @property
    def limit_ms(self) -> float:
        """Time of this step at the binding limit, in milliseconds."""
        return self.ms * self.share

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them."""
        derived = {"bytes": self.bytes, "bound": self.bound, "share": self.share, "limit_ms": self.limit_ms}
        return {**asdict(self), "out_map": list(self.out_map), **derived}


@dataclass(frozen=True, kw_only=True)
class NetProfile:
    """One net.

    Attributes
    ----------
    limits : Limits
        Medians over the rounds.
    call_ms : float
        Median of whole calls, without clocks between the steps.
    error : float or None
        Of the net against float64 on the same pictures (None for a file, which holds no exact model).
    plan_error : float or None
        What the plan states.
    tolerance : float
    repeats : int
        In all rounds.
    """

    net: str
    shape: tuple[int, ...]
    limits: Limits
    steps: tuple[StepProfile, ...]
    call_ms: float
    error: float | None
    plan_error: float | None
    tolerance: float
    repeats: int

    @property
    def steps_ms(self) -> float:
        """Sum of the steps' medians, in milliseconds."""
        return sum(step.ms for step in self.steps)

    @property
    def limit_ms(self) -> float:
        """Sum of the steps' times at their limits, in milliseconds."""
        return sum(step.limit_ms for step in self.steps)

    def families(self) -> list[dict[str, Any]]:
        """Time, limit and share of every family, slowest first."""
        rows = []
        for family in dict.fromkeys(step.family for step in self.steps):
            steps = [step for step in self.steps if step.family == family]
            ms = sum(step.ms for step in steps)
            limit = sum(step.limit_ms for step in steps)
            rows.append(
                {"family": family, "steps": len(steps), "ms": ms, "limit_ms": limit, "share": limit / ms if ms else 0.0}
            )
        return sorted(rows, key=lambda row: -row["ms"])

    def doubts(self) -> list[str]:
        """Signs that the machine was busy, so that times and limits are not to be trusted."""
        found = []
        above = sum(step.compute_share > _IMPOSSIBLE_SHARE for step in self.steps)
        if above:
            found.append(f"{above} step{'s' if above > 1 else ''} ran faster than the measured peak")
        spread = sum(step.ms * step.spread for step in self.steps) / (self.steps_ms or 1.0)
        if spread > _DOUBTFUL_SPREAD:
            found.append(f"the steps' times vary by {spread:.0%}")
        return [f"{sign}: the machine was busy, measure again" for sign in found]

    def verdicts(self) -> tuple[Verdict, ...]:
        """How near the four goals for kernels at the machine's limit are."""
        return verdicts(self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "net": self.net,
            "shape": list(self.shape),
            "limits": asdict(self.limits),
            "call_ms": self.call_ms,
            "steps_ms": self.steps_ms,
            "limit_ms": self.limit_ms,
            "error": self.error,
            "plan_error": self.plan_error,
            "tolerance": self.tolerance,
            "repeats": self.repeats,
            "doubts": self.doubts(),
            "verdicts": [verdict.to_json() for verdict in self.verdicts()],
            "families": self.families(),
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True, kw_only=True)
class ProfileResult:
    """All nets of one run, and all that is needed to repeat it."""

    nets: tuple[NetProfile, ...]
    settings: dict[str, Any]
    host: dict[str, Any]
    commit: str | None
    date: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "date": self.date,
            "commit": self.commit,
            "host": self.host,
            "settings": self.settings,
            "nets": [net.to_json() for net in self.nets],
        }

    def dumps(self) -> str:
        """The JSON document as text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False, default=str)

    def missed(self) -> list[str]:
        """A sentence for every goal that a net misses."""
        return [
            f"{net.net}: {verdict.goal}: {verdict.text()}"
            for net in self.nets
            for verdict in net.verdicts()
            if verdict.met is False
        ]
