"""The four goals for kernels at the machine's limit, and how near a net's steps are to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcnn.benchmarking.profile.records import StepProfile

DIRECT_SHARE = 0.88
"""Direct and 1x1 layers together, all their multiply-adds in all their time, of the fp32 peak."""
DIRECT_LEAST = 0.70
"""Each of them, unless its bytes take longer than its multiplications."""
WINOGRAD_SHARE = 0.70
"""Winograd layers on maps of at least ``WINOGRAD_MAP`` rows and columns, of the fp32 peak."""
WINOGRAD_MAP = 14
LINEAR_SHARE = 0.80
"""Linear layers whose bytes bind, of the measured read bandwidth."""


_OTHER_ARITHMETIC = ("amx_", "_bf16_", "_f16_", "_s8_", "_u8_", "_s4_", "_b1_")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One goal.

    Attributes
    ----------
    goal : str
    wanted : float
        Least share.
    found : float or None
        The share; None where the net has no such layer.
    layers : int
        Layers that were judged.
    worst : str
        The layer with the least share, and that share.
    """

    goal: str
    wanted: float
    found: float | None
    layers: int
    worst: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is nothing to judge."""
        return None if self.found is None else self.found >= self.wanted

    def text(self) -> str:
        """What was found, in words."""
        if self.found is None:
            return "no such layer"
        return f"{self.found:.1%} of {self.layers} layers, wanted {self.wanted:.0%}; least: {self.worst}"

    def to_json(self) -> dict[str, Any]:
        """All fields, and whether it is met."""
        return {**asdict(self), "met": self.met}


def verdicts(steps: Sequence[StepProfile]) -> tuple[Verdict, ...]:
    """Judge one net's steps.

    Kernels that compute in another precision are not held against the fp32 peak (weights may be stored in fewer bits);
    linear layers are judged by bytes in any precision.
    """
    fp32 = [step for step in steps if not any(word in step.kernel for word in _OTHER_ARITHMETIC)]
    plain = [step for step in fp32 if step.family in ("direct", "1x1")]
    computing = [step for step in plain if step.bound == "multiplications"]
    large = [step for step in fp32 if step.family == "winograd" and min(step.out_map) >= WINOGRAD_MAP]
    linear = [step for step in steps if step.family == "linear" and step.bound == "bytes"]
    return (
        _together("direct and 1x1: multiply-adds of fp32 peak", DIRECT_SHARE, plain, _macs, _useful),
        Verdict(
            goal="direct and 1x1: least layer not bound by bytes",
            wanted=DIRECT_LEAST,
            found=min((step.compute_share for step in computing), default=None),
            layers=len(computing),
            worst=_worst(computing, _compute),
        ),
        _together(
            f"Winograd, maps from {WINOGRAD_MAP}: multiplications of fp32 peak", WINOGRAD_SHARE, large,
            _multiplications, _compute,
        ),
        _together("linear: bytes of read bandwidth", LINEAR_SHARE, linear, _bytes, _byte_share),
    )  # fmt: skip


Figure = Callable[["StepProfile"], float]


def _together(goal: str, wanted: float, steps: list[StepProfile], count: Figure, share: Figure) -> Verdict:
    """All counts over what the limit would have allowed in all the time: a slow layer cannot hide behind a fast one."""
    steps = [step for step in steps if share(step) > 0]
    allowed = sum(count(step) / share(step) for step in steps)
    found = sum(count(step) for step in steps) / allowed if allowed else None
    return Verdict(goal=goal, wanted=wanted, found=found, layers=len(steps), worst=_worst(steps, share))


def _worst(steps: list[StepProfile], share: Figure) -> str:
    if not steps:
        return ""
    step = min(steps, key=share)
    return f"{step.layer} {share(step):.1%}"


def _macs(step: StepProfile) -> float:
    return step.macs


def _useful(step: StepProfile) -> float:
    return step.useful_share


def _multiplications(step: StepProfile) -> float:
    return step.multiplications


def _compute(step: StepProfile) -> float:
    return step.compute_share


def _bytes(step: StepProfile) -> float:
    return step.bytes


def _byte_share(step: StepProfile) -> float:
    return step.byte_share
