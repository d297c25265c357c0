"""Where a net's time goes: every step against the machine's limits, both measured in the same run."""

from fastcnn.benchmarking.profile.profile import profile
from fastcnn.benchmarking.profile.records import Limits, NetProfile, ProfileResult, StepProfile
from fastcnn.benchmarking.profile.verdicts import Verdict, verdicts

__all__ = ["Limits", "NetProfile", "ProfileResult", "StepProfile", "Verdict", "profile", "verdicts"]
